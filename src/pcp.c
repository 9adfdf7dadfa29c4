/*
 * pcp.c
 *		pgpool-II's control protocol, as far as attaching a node needs it.
 *
 * libpcp is not used: inside a server its palloc, ereport and friends bind to
 * the server's own, and it has no time limits.  The protocol is small.  Every
 * message is a type byte, an int32 length in network order that counts itself
 * but not the type, and a body, mostly of NUL-terminated strings:
 *
 *		M						-> m salt (4 bytes)
 *		R user, digest			-> r "AuthenticationOK"
 *		L						-> l "CommandComplete", count
 *		I id					-> i ... (see pcp_node_info)
 *		C id					-> c "CommandComplete"
 *		X						(the end)
 *
 * where digest = md5hex(md5hex(md5hex(password) + user) + salt).  Instead of
 * an answer there can be E: fields of an error, as in PostgreSQL's protocol.
 * Source: pgpool-II's src/pcp_con/pcp_worker.c and src/libs/pcp/pcp.c, 4.1 to
 * 4.7; the same in all of them but for the layout of the node info.
 *
 * pgpool's main process keeps the listening socket while it restarts its PCP
 * process after a failover.  A connection made in that moment is refused,
 * dropped, or not answered for a while, depending on the moment; and a delegate
 * address moves to another pgpool without a word.  All that is sat out until
 * the deadline.  That is why a connection that is dropped, or silent for the
 * connect timeout, is tried again in any phase: all requests here can be
 * repeated.
 *
 * The password is in memory only while the digest's inner part is made of it.
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "common/md5.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "home.h"
#include "pcp.h"
#include "sql.h"
#include "ssh/net.h"

/* Bounds what a damaged or hostile answer can make us allocate. */
#define PCP_MAX_ANSWER_BYTES	(1024 * 1024)
#define PCP_MAX_PASS_FILE_BYTES (1024 * 1024)

/* MAX_USER_PASSWD_LEN in pgpool's pcp.h: a longer name is cut there. */
#define PCP_MAX_USER_BYTES		127

#define PCP_SALT_BYTES			4
#define PCP_MD5_HEX_BYTES		32
#define PCP_RETRY_MS			200

typedef struct PcpMessage
{
	char		type;
	char	   *body;			/* palloc'd, with a NUL that does not count */
	int			length;			/* of the body */
} PcpMessage;

typedef struct PcpRequest
{
	char		type;
	char		answer;			/* the type of its answer */
	const int  *node_id;		/* NULL: it is about none */
	const char *setting;		/* of several settings in the answer, the only one
								 * that is wanted; NULL: the answer has none */
} PcpRequest;

/* A connection in use: one attempt of one call. */
typedef struct PcpSession
{
	const PcpTarget *target;
	TimestampTz deadline;		/* of this attempt */
	pgsocket	sock;
	char	   *lost;			/* why the attempt came to nothing, else NULL */
	bool		refused;		/* ... which is that nobody listens there */
} PcpSession;

/* The digest of password and user, before the salt. */
typedef struct PcpSecret
{
	char		hex[PCP_MD5_HEX_BYTES + 1];
} PcpSecret;

/* Returns false when the attempt's time is over. */
static bool
pcp_wait(PcpSession *session, int events)
{
	if (net_wait(session->sock, events, session->deadline, 0))
		return true;
	session->lost = pstrdup("it accepts connections but does not answer in time");
	return false;
}

/* Returns false when the connection is lost. */
static bool
pcp_send(PcpSession *session, char type, const char *body, int length)
{
	StringInfoData packet;
	uint32		size = htonl((uint32) (length + sizeof(uint32)));
	int			sent = 0;

	initStringInfo(&packet);
	appendStringInfoChar(&packet, type);
	appendBinaryStringInfo(&packet, (const char *) &size, sizeof(size));
	if (length > 0)
		appendBinaryStringInfo(&packet, body, length);

	while (sent < packet.len)
	{
		ssize_t		rc = send(session->sock, packet.data + sent,
							  packet.len - sent, MSG_NOSIGNAL);

		if (rc >= 0)
			sent += rc;
		else if (errno == EAGAIN || errno == EWOULDBLOCK)
		{
			if (!pcp_wait(session, WL_SOCKET_WRITEABLE))
				return false;
		}
		else if (errno != EINTR)
		{
			session->lost = psprintf("the connection broke: %s",
									 strerror(errno));
			return false;
		}
	}
	return true;
}

/* Returns false when the connection is lost before all bytes have come. */
static bool
pcp_receive_bytes(PcpSession *session, char *buffer, int length)
{
	while (length > 0)
	{
		ssize_t		rc = recv(session->sock, buffer, length, 0);

		if (rc > 0)
		{
			buffer += rc;
			length -= rc;
			CHECK_FOR_INTERRUPTS();
		}
		else if (rc == 0)
		{
			session->lost = pstrdup("it closed the connection without an answer");
			return false;
		}
		else if (errno == EAGAIN || errno == EWOULDBLOCK)
		{
			if (!pcp_wait(session, WL_SOCKET_READABLE))
				return false;
		}
		else if (errno != EINTR)
		{
			session->lost = psprintf("the connection broke: %s",
									 strerror(errno));
			return false;
		}
	}
	return true;
}

/* The string at *position, which is moved past it; NULL when there is none. */
static const char *
pcp_next_string(const PcpMessage *message, int *position)
{
	const char *start = message->body + *position;
	const char *end;

	if (*position >= message->length)
		return NULL;
	end = memchr(start, '\0', message->length - *position);
	if (end == NULL)
		return NULL;
	*position += (int) (end - start) + 1;
	return start;
}

/*
 * The body holds strings that start with a byte for their meaning: S severity,
 * M message, D detail, and others; an empty one ends them.
 */
static void
pcp_raise_error(const PcpTarget *target, const PcpMessage *message)
{
	const char *text = "unknown error";
	const char *detail = NULL;
	const char *field;
	int			position = 0;

	while ((field = pcp_next_string(message, &position)) != NULL &&
		   field[0] != '\0')
	{
		if (field[0] == 'M')
			text = field + 1;
		else if (field[0] == 'D')
			detail = field + 1;
	}

	/* pgpool gives both of them XX000, and does not translate. */
	if (strncmp(text, "authentication failed", 21) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PASSWORD),
				 errmsg("pgpool at \"%s\" port %d does not accept the password of PCP user \"%s\"",
						target->host, target->port, target->user),
				 errdetail("pgpool reports: %s", sql_text(text)),
				 errhint("Compare the password in %s of this server with the MD5 hash of it in pcp.conf on pgpool's machine.",
						 own_home_path(target->pass_file))));

	ereport(ERROR,
			(errcode(ERRCODE_SYSTEM_ERROR),
			 errmsg("pgpool at \"%s\" port %d reported an error",
					target->host, target->port),
			 detail != NULL ?
			 errdetail("pgpool reports: %s: %s", sql_text(text),
					   sql_text(detail)) :
			 errdetail("pgpool reports: %s", sql_text(text))));
}

static void
pcp_raise_damaged(const PcpTarget *target, const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROTOCOL_VIOLATION),
			 errmsg("the answer of pgpool at \"%s\" port %d is not understood",
					target->host, target->port),
			 errdetail("%s", what),
			 errhint("Check that follow_primary.pcp_port is the pcp_port of pgpool.conf, and that pgpool is of version 4.1 or later.")));
}

/*
 * Reads the next message that says something, which must be of the expected
 * type.  Returns false when the connection is lost; raises pgpool's error.
 */
static bool
pcp_receive(PcpSession *session, char expected, PcpMessage *message)
{
	for (;;)
	{
		char		header[1 + sizeof(uint32)];
		uint32		size;

		if (!pcp_receive_bytes(session, header, sizeof(header)))
			return false;
		memcpy(&size, header + 1, sizeof(size));
		size = ntohl(size);
		if (size < sizeof(uint32) || size > PCP_MAX_ANSWER_BYTES)
			pcp_raise_damaged(session->target,
							  "The length of the answer cannot be right.");

		message->type = header[0];
		message->length = (int) (size - sizeof(uint32));
		message->body = palloc(message->length + 1);
		message->body[message->length] = '\0';
		if (!pcp_receive_bytes(session, message->body, message->length))
			return false;

		if (message->type == 'E')
			pcp_raise_error(session->target, message);
		if (message->type != 'N')
		{
			if (message->type != expected)
				pcp_raise_damaged(session->target,
								  "It is not the answer to the request.");
			if (strcmp(message->body, "ArraySize") != 0)
				return true;
		}
		pfree(message->body);
	}
}

static void
pcp_md5_hex(const char *data, int length, char *hex)
{
	const char *error = NULL;

	if (!pg_md5_hash(data, length, hex, &error))
		ereport(ERROR,
				(errcode(ERRCODE_SYSTEM_ERROR),
				 errmsg("could not compute an MD5 hash: %s", error),
				 errdetail("pgpool's control protocol has no other one.")));
}

static bool
pcp_authenticate(PcpSession *session, const PcpSecret *secret)
{
	const PcpTarget *target = session->target;
	PcpMessage	message;
	char		salted[PCP_MD5_HEX_BYTES + PCP_SALT_BYTES];
	char		digest[PCP_MD5_HEX_BYTES + 1];
	StringInfoData body;

	if (!pcp_send(session, 'M', NULL, 0) ||
		!pcp_receive(session, 'm', &message))
		return false;
	if (message.length != PCP_SALT_BYTES)
		pcp_raise_damaged(target, "The salt does not have four bytes.");

	memcpy(salted, secret->hex, PCP_MD5_HEX_BYTES);
	memcpy(salted + PCP_MD5_HEX_BYTES, message.body, PCP_SALT_BYTES);
	pcp_md5_hex(salted, sizeof(salted), digest);

	initStringInfo(&body);
	appendBinaryStringInfo(&body, target->user, strlen(target->user) + 1);
	appendBinaryStringInfo(&body, digest, sizeof(digest));
	if (!pcp_send(session, 'R', body.data, body.len) ||
		!pcp_receive(session, 'r', &message))
		return false;
	if (strcmp(message.body, "AuthenticationOK") != 0)
		pcp_raise_damaged(target, "The login was not confirmed.");
	return true;
}

/* pgpool notices a closed connection as well; this only spares its log. */
static void
pcp_say_goodbye(PcpSession *session)
{
	static const char goodbye[] = {'X', 0, 0, 0, 4};

	(void) send(session->sock, goodbye, sizeof(goodbye), MSG_NOSIGNAL);
}

/*
 * The status of pgpool is a message "ProcessConfig" for each setting, with its
 * name, value and description, and then "CommandComplete".
 */
static bool
pcp_is_other_setting(const PcpMessage *message, const char *setting)
{
	int			position = 0;
	const char *code = pcp_next_string(message, &position);
	const char *name = pcp_next_string(message, &position);

	return setting != NULL && code != NULL && strcmp(code, "ProcessConfig") == 0 &&
		(name == NULL || strcmp(name, setting) != 0);
}

/* Returns false when the connection is lost; it is closed in any case. */
static bool
pcp_attempt(PcpSession *session, const PcpSecret *secret, const PcpRequest *request,
			PcpMessage *message)
{
	bool		done;

	PG_TRY();
	{
		char		id[12] = "";

		if (request->node_id != NULL)
			snprintf(id, sizeof(id), "%d", *request->node_id);

		done = pcp_authenticate(session, secret) &&
			pcp_send(session, request->type, id,
					 request->node_id != NULL ? strlen(id) + 1 : 0) &&
			pcp_receive(session, request->answer, message);
		while (done && pcp_is_other_setting(message, request->setting))
		{
			pfree(message->body);
			done = pcp_receive(session, request->answer, message);
		}
		if (done)
			pcp_say_goodbye(session);
	}
	PG_CATCH();
	{
		net_close(session->sock);
		PG_RE_THROW();
	}
	PG_END_TRY();

	net_close(session->sock);
	return done;
}

static void
pcp_raise_unreached(const PcpTarget *target, const char *cause)
{
	ereport(ERROR,
			(errcode(ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION),
			 errmsg("could not reach pgpool's control port at \"%s\" port %d: %s",
					target->host, target->port, cause),
			 errhint("Check that pgpool runs, that pcp_listen_addresses and pcp_port in pgpool.conf let this server in, and follow_primary.pcp_host and follow_primary.pcp_port here.")));
}

/*
 * Returns no socket, with the reason, when it is one that passes while pgpool
 * restarts or its address moves to another machine; any other one is raised.
 */
static pgsocket
pcp_connect(PcpSession *session)
{
	const PcpTarget *target = session->target;
	NetFailure	failure;
	pgsocket	sock = net_try_connect(target->host, target->port, session->deadline,
									   &failure, &session->lost);

	if (sock == PGINVALID_SOCKET && failure == NET_UNKNOWN_HOST)
		pcp_raise_unreached(target, session->lost);
	session->refused = sock == PGINVALID_SOCKET && failure == NET_REFUSED;
	return sock;
}

/* The file as a string; the file must be the server user's alone. */
static char *
pcp_read_pass_file(const PcpTarget *target, const char *path)
{
	FILE	   *file = AllocateFile(path, PG_BINARY_R);
	struct stat st;
	char	   *text;
	size_t		length;

	if (file == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PASSWORD),
				 errmsg("could not open PCP password file \"%s\": %m", path),
				 errhint("Create it with mode 0600 and a line \"host:port:user:password\", for example \"*:%d:%s:...\", on every node that can become the primary.",
						 target->port, target->user)));

	if (fstat(fileno(file), &st) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not stat file \"%s\": %m", path)));
	if (!S_ISREG(st.st_mode))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PASSWORD),
				 errmsg("PCP password file \"%s\" is not a plain file", path)));
	if ((st.st_mode & (S_IRWXG | S_IRWXO)) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PASSWORD),
				 errmsg("PCP password file \"%s\" has group or world access",
						path),
				 errdetail("Its mode is %04o.", (unsigned) st.st_mode & 07777),
				 errhint("Run: chmod 0600 \"%s\"", path)));
	if (st.st_size > PCP_MAX_PASS_FILE_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PASSWORD),
				 errmsg("PCP password file \"%s\" is too large", path)));

	/* No second copy of the password in a buffer that nobody wipes. */
	setvbuf(file, NULL, _IONBF, 0);
	text = palloc(st.st_size + 1);
	length = fread(text, 1, st.st_size, file);
	if (ferror(file))
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not read file \"%s\": %m", path)));
	text[length] = '\0';
	FreeFile(file);
	return text;
}

/* Returns the next field when this one is "*" or, unescaped, the value. */
static char *
pcp_match_field(char *field, const char *value)
{
	if (field[0] == '*' && field[1] == ':')
		return field + 2;

	while (*field != '\0' && *field != ':')
	{
		if (*field == '\\' && field[1] != '\0')
			field++;
		if (*field++ != *value++)
			return NULL;
	}
	return *field == ':' && *value == '\0' ? field + 1 : NULL;
}

/*
 * The password of the first line that fits, unescaped in place, else NULL.
 * All that is not the password is wiped.
 */
static char *
pcp_find_password(char *text, const PcpTarget *target)
{
	size_t		length = strlen(text);
	char	   *line = text;
	char	   *password = NULL;
	char		port[12];

	snprintf(port, sizeof(port), "%d", target->port);

	while (line != NULL && password == NULL)
	{
		char	   *next = strchr(line, '\n');
		char	   *field;

		if (next != NULL)
		{
			if (next > line && next[-1] == '\r')
				next[-1] = '\0';
			*next++ = '\0';
		}
		field = pcp_match_field(line, target->host);
		field = field != NULL ? pcp_match_field(field, port) : NULL;
		password = field != NULL ? pcp_match_field(field, target->user) : NULL;
		line = next;
	}

	if (password == NULL)
		explicit_bzero(text, length);
	else
	{
		char	   *from = password;
		char	   *to = password;

		explicit_bzero(text, password - text);
		while (*from != '\0' && *from != ':')
		{
			if (*from == '\\' && from[1] != '\0')
				from++;
			*to++ = *from++;
		}
		explicit_bzero(to, text + length - to);
	}
	return password;
}

/*
 * Finds the password in the file, as pgpool's own tools would, and keeps what
 * the login needs of it.
 */
static void
pcp_make_secret(const PcpTarget *target, PcpSecret *secret)
{
	char	   *path;
	char	   *text;
	char	   *password;
	char		inner[PCP_MD5_HEX_BYTES + 1];
	StringInfoData named;

	if (strlen(target->user) > PCP_MAX_USER_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PASSWORD),
				 errmsg("PCP user name is too long"),
				 errdetail("pgpool knows names of up to %d bytes.",
						   PCP_MAX_USER_BYTES)));

	path = own_home_path(target->pass_file);
	text = pcp_read_pass_file(target, path);
	password = pcp_find_password(text, target);
	if (password == NULL)
	{
		pfree(text);
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PASSWORD),
				 errmsg("no password for PCP user \"%s\" in file \"%s\"",
						target->user, path),
				 errdetail("No line is for host \"%s\" and port %d; a host name must be written as it is here.",
						   target->host, target->port),
				 errhint("Add a line \"host:port:user:password\", for example \"*:%d:%s:...\".",
						 target->port, target->user)));
	}

	pcp_md5_hex(password, strlen(password), inner);
	explicit_bzero(password, strlen(password));
	pfree(text);

	initStringInfo(&named);
	appendBinaryStringInfo(&named, inner, PCP_MD5_HEX_BYTES);
	appendStringInfoString(&named, target->user);
	pcp_md5_hex(named.data, named.len, secret->hex);
}

/*
 * Makes one request, by as many connections as it takes until the deadline.
 * The answer's body is palloc'd in the caller's context; its first string is
 * known to be one of success.
 */
static void
pcp_call(const PcpTarget *target, TimestampTz deadline, const PcpRequest *request,
		 PcpMessage *message)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext context = AllocSetContextCreate(caller, "follow_primary pcp",
												  ALLOCSET_SMALL_SIZES);
	PcpSecret	secret;
	const char *code;
	int			position = 0;
	TimestampTz refused_deadline = target->refused_timeout_ms > 0 ?
		TimestampTzPlusMilliseconds(GetCurrentTimestamp(), target->refused_timeout_ms) : DT_NOEND;

	/* In pgpool, -1 stands for every node. */
	if (request->node_id != NULL && *request->node_id < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("pgpool node id %d is not valid", *request->node_id)));

	MemoryContextSwitchTo(context);
	pcp_make_secret(target, &secret);

	for (;;)
	{
		TimestampTz attempt_deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
																   target->connect_timeout_ms);
		PcpSession	session = {
			.target = target,
			.deadline = Min(attempt_deadline, deadline),
			.sock = PGINVALID_SOCKET
		};

		session.sock = pcp_connect(&session);
		if (session.sock != PGINVALID_SOCKET &&
			pcp_attempt(&session, &secret, request, message))
			break;

		if ((session.refused && GetCurrentTimestamp() >= refused_deadline) ||
			!net_wait(PGINVALID_SOCKET, 0, deadline, PCP_RETRY_MS))
			pcp_raise_unreached(target, session.lost);
		if (target->on_retry)
			target->on_retry(target->arg, session.lost);
		MemoryContextReset(context);
	}

	code = pcp_next_string(message, &position);
	if (code == NULL ||
		(strcmp(code, "CommandComplete") != 0 && strcmp(code, "NodeInfo") != 0 &&
		 strcmp(code, "ProcessConfig") != 0))
		pcp_raise_damaged(target, "The request was not confirmed.");

	MemoryContextSwitchTo(caller);
	message->body = memcpy(palloc(message->length + 1), message->body,
						   message->length + 1);
	MemoryContextDelete(context);
}

/* A decimal number from 0 to maximum, and nothing else. */
static bool
pcp_parse_number(const char *text, int maximum, int *number)
{
	int64		value = 0;

	if (text == NULL || *text == '\0')
		return false;
	for (; *text != '\0'; text++)
	{
		if (*text < '0' || *text > '9')
			return false;
		value = value * 10 + (*text - '0');
		if (value > maximum)
			return false;
	}
	*number = (int) value;
	return true;
}

int
pcp_node_count(const PcpTarget *target, TimestampTz deadline)
{
	PcpMessage	message;
	int			position = 0;
	int			count;
	const char *text;

	pcp_call(target, deadline, &(PcpRequest) {.type = 'L', .answer = 'l'}, &message);

	(void) pcp_next_string(&message, &position);
	text = pcp_next_string(&message, &position);
	if (!pcp_parse_number(text, PG_INT32_MAX, &count))
		pcp_raise_damaged(target, "The number of nodes is not a number.");
	pfree(message.body);
	return count;
}

/*
 * pgpool up to 4.2 answers by one message: "CommandComplete" and the fields.
 * From 4.3 on there are three: "ArraySize" and a number, which pcp_receive
 * passes over, "NodeInfo" and the fields, and "CommandComplete", for which
 * nobody needs to wait.  The fields after the first three differ from version
 * to version.
 */
void
pcp_node_info(const PcpTarget *target, int node_id, TimestampTz deadline,
			  PcpNodeInfo *info)
{
	PcpMessage	message;
	int			position = 0;
	const char *host;
	const char *port;
	const char *status;
	int			number;

	pcp_call(target, deadline, &(PcpRequest) {.type = 'I', .answer = 'i', .node_id = &node_id}, &message);

	(void) pcp_next_string(&message, &position);
	host = pcp_next_string(&message, &position);
	port = pcp_next_string(&message, &position);
	status = pcp_next_string(&message, &position);

	if (host == NULL || !pg_verifymbstr(host, strlen(host), true))
		pcp_raise_damaged(target, "The node's host name is missing.");
	if (!pcp_parse_number(port, 65535, &info->port))
		pcp_raise_damaged(target, "The node's port is not a number.");
	if (!pcp_parse_number(status, PCP_NODE_DOWN, &number))
		pcp_raise_damaged(target, "The node's status is not a known one.");

	info->host = pstrdup(host);
	info->status = (PcpNodeStatus) number;
	pfree(message.body);
}

void
pcp_attach_node(const PcpTarget *target, int node_id, TimestampTz deadline)
{
	PcpMessage	message;

	pcp_call(target, deadline, &(PcpRequest) {.type = 'C', .answer = 'c', .node_id = &node_id}, &message);
	pfree(message.body);
}

char *
pcp_setting(const PcpTarget *target, const char *name, TimestampTz deadline)
{
	PcpMessage	message;
	int			position = 0;
	const char *value;

	pcp_call(target, deadline, &(PcpRequest) {.type = 'B', .answer = 'b', .setting = name}, &message);

	(void) pcp_next_string(&message, &position);
	(void) pcp_next_string(&message, &position);
	value = pcp_next_string(&message, &position);
	return value && pg_verifymbstr(value, strlen(value), true) ? pstrdup(value) : NULL;
}
