/*
 * ssh.c
 *		One SSH connection to a node, and commands run over it, by libssh2.
 *
 * A session is always in libssh2's non-blocking mode.  A call that would block
 * returns LIBSSH2_ERROR_EAGAIN, and the same call has to be made again when the
 * socket is ready; so each one is written
 *
 *		do
 *			rc = libssh2_call();
 *		while (ssh_wait(session, rc, deadline));
 *
 * and rc is LIBSSH2_ERROR_EAGAIN afterwards only if the deadline has passed.
 * Cleaning up must neither raise nor linger: it waits by ssh_wait_quietly().
 *
 * libssh2 keeps a single half-sent packet per session.  While it has one, only
 * the call that began it may be made (any other fails with BAD_USE); see
 * run_turn().
 *
 * Host keys are decided here and not by libssh2's known_hosts functions: those
 * stop at the first line that they cannot read, ignore @revoked lines, know no
 * patterns, and cannot tell a changed key from one of a type that the file
 * does not have.  libssh2 is asked only whether a hashed name is our host's.
 *
 * An exit status is only believed after the remote end has sent EOF and closed
 * the channel, since libssh2 answers 0 in every other case.  A caller that
 * needs certainty has the command print a marker too.
 */
#include "postgres.h"

#include <ctype.h>
#include <fcntl.h>
#include <libssh2.h>
#include <netdb.h>
#include <poll.h>
#include <pwd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/formatting.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "net.h"
#include "ssh.h"

#define SSH_DEFAULT_PORT		22
#define SSH_MAX_FILE			(16 * 1024 * 1024)
#define SSH_MAX_LINE			8192	/* of stderr, the rest is cut off */

#define SSH_KEEPALIVE_S			10
#define SSH_SILENCE_MS			60000	/* keepalives unanswered for so long */
#define SSH_OPEN_CHANNEL_MS		30000
#define SSH_CLOSE_MS			5000	/* after the remote end has closed */
#define SSH_ABANDON_MS			2000
#define SSH_DISCONNECT_MS		1000
#define SSH_DEFAULT_TICK_MS		1000

#define SSH_READ_SIZE			32768
#define SSH_READS_PER_TURN		32

struct SshSession
{
	LIBSSH2_SESSION *handle;
	pgsocket	sock;
	char	   *host;
	int			port;
	char	   *user;
	bool		encrypted;		/* the handshake is done */
	bool		lost;			/* broken, or in the middle of a call that
								 * cannot be taken up again */
	char		local_address[NI_MAXHOST];
	MemoryContextCallback on_reset;
};

/* A line of the known_hosts file. */
typedef struct KnownKey
{
	char	   *type;			/* "ssh-ed25519", ... */
	char	   *base64;
	int			line;
} KnownKey;

typedef struct KnownHosts
{
	char	   *path;
	bool		missing;
	List	   *keys;			/* of this host and port */
	List	   *portless_keys;	/* of this host, without a port; empty when the
								 * port is 22 */
	List	   *revoked;		/* on @revoked lines, whatever the host */
} KnownHosts;

/* The key that the host has shown. */
typedef struct HostKey
{
	char	   *type;
	char	   *base64;
	char	   *fingerprint;	/* as ssh-keygen -l shows it */
} HostKey;

/* What ssh_authenticate() needs to know of a private key's file. */
typedef enum KeyFileState
{
	KEY_FILE_USABLE,
	KEY_FILE_MISSING,
	KEY_FILE_UNREADABLE,
	KEY_FILE_ENCRYPTED,
	KEY_FILE_NOT_A_KEY
} KeyFileState;

/* The calls a turn of ssh_run() consists of, in order. */
typedef enum RunStep
{
	RUN_WRITE,
	RUN_READ_STDOUT,
	RUN_READ_STDERR,
	RUN_STEPS
} RunStep;

/* A running command. */
typedef struct SshRun
{
	SshSession *session;
	LIBSSH2_CHANNEL *channel;
	const SshCommand *command;
	SshResult  *result;
	MemoryContext context;		/* the caller's, which callbacks may leave */

	bool		over;			/* result->end is set */
	bool		closed;			/* the channel, at both ends */
	size_t		input_sent;
	bool		input_refused;	/* the command has closed its stdin */
	StringInfoData line;		/* stderr since the last line end */

	RunStep		first_step;		/* of the next turn */
	bool		half_sent;		/* ... which has a packet half sent */
	bool		moved;			/* this turn transferred something */
	bool		arrived;		/* this turn something arrived */

	TimestampTz deadline;
	TimestampTz next_tick;
	TimestampTz last_progress;
	TimestampTz unanswered_since;	/* of the first keepalive that nothing
									 * was heard after; 0 = none */
} SshRun;

/*
 * Host key types in the order of preference, each with the signature methods
 * that go with it.  libssh2 drops the methods that it does not know.
 */
static const struct
{
	const char *type;
	const char *methods;
	const char *name;			/* in ssh_host_*_key.pub */
}			host_key_types[] =
{
	{"ssh-ed25519", "ssh-ed25519", "ed25519"},
	{"ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256", "ecdsa"},
	{"ecdsa-sha2-nistp384", "ecdsa-sha2-nistp384", "ecdsa"},
	{"ecdsa-sha2-nistp521", "ecdsa-sha2-nistp521", "ecdsa"},
	{"ssh-rsa", "rsa-sha2-512,rsa-sha2-256,ssh-rsa", "rsa"},
};

static const char *const default_key_files[] =
{
	"~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa"
};

static void ssh_init_library(void);
static void ssh_disconnect_callback(void *arg);
static bool ssh_wait(SshSession *session, int rc, TimestampTz deadline);
static bool ssh_wait_quietly(SshSession *session, int rc, TimestampTz deadline);
static int	ssh_blocked_on(SshSession *session);
static char *ssh_last_error(SshSession *session);
static TimestampTz ssh_after(int milliseconds);

static void ssh_open_socket(SshSession *session, TimestampTz deadline);
static void ssh_handshake(SshSession *session, KnownHosts *known,
						  TimestampTz deadline, int timeout_ms);
static void ssh_prefer_known_types(SshSession *session, KnownHosts *known);

static KnownHosts *known_hosts_read(SshSession *session, const char *path);
static void known_hosts_read_line(SshSession *session, KnownHosts *known,
								  char *text, int line);
static bool known_hosts_names(SshSession *session, const char *names,
							  const char *host);
static bool known_hosts_hash_matches(SshSession *session, const char *hashed,
									 const char *host);
static bool known_hosts_pattern_matches(const char *pattern, const char *host);
static KnownKey *known_keys_find(List *keys, const char *type, const char *base64);
static void known_hosts_add(SshSession *session, KnownHosts *known, HostKey *key);

static void host_key_check(SshSession *session, KnownHosts *known, bool accept_new);
static HostKey *host_key_shown(SshSession *session);
static char *host_key_fingerprint(const char *base64);
static char *host_key_advice(SshSession *session, KnownHosts *known, HostKey *key);

static void ssh_authenticate(SshSession *session, const char *key_file,
							 TimestampTz deadline, int timeout_ms);
static void ssh_check_methods(SshSession *session, TimestampTz deadline,
							  int timeout_ms);
static bool ssh_offer_key(SshSession *session, const char *path, StringInfo refusals,
						  bool *was_rsa, TimestampTz deadline, int timeout_ms);
static KeyFileState key_file_look(const char *path, bool *is_rsa, int *error);
static bool ssh_has_rsa_sha2(void);
static void ssh_timed_out(SshSession *session, const char *what, int timeout_ms);

static void run_open(SshRun *run);
static void run_until_over(SshRun *run);
static void run_turn(SshRun *run);
static bool run_is_half_sent(SshRun *run);
static void run_write(SshRun *run);
static void run_read(SshRun *run, RunStep step);
static void run_take_stderr(SshRun *run, const char *data, size_t length);
static void run_end_line(SshRun *run);
static void run_check_closed(SshRun *run);
static void run_read_status(SshRun *run);
static void run_keep_alive(SshRun *run);
static void run_check_limits(SshRun *run);
static void run_sleep(SshRun *run);
static void run_end(SshRun *run, SshEnd end, char *cause);
static void run_lose(SshRun *run, int rc);
static void run_abandon(SshRun *run);

static char *os_home_path(const char *path);
static char *os_user(void);
static bool read_whole_file(const char *path, size_t limit, StringInfo content);
static char *encode_base64(const unsigned char *data, size_t length);


/*
 * Sessions
 */

SshSession *
ssh_connect(const SshTarget *target)
{
	SshSession *session = palloc0(sizeof(SshSession));
	TimestampTz deadline = ssh_after(target->connect_timeout_ms);

	ssh_init_library();

	session->sock = PGINVALID_SOCKET;
	session->host = pstrdup(target->host);
	session->port = target->port;
	session->user = target->user && target->user[0] ? pstrdup(target->user) : os_user();

	/* Whatever becomes of the caller, the session ends with its memory. */
	session->on_reset.func = ssh_disconnect_callback;
	session->on_reset.arg = session;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, &session->on_reset);

	PG_TRY();
	{
		KnownHosts *known = NULL;

		session->handle = libssh2_session_init();
		if (session->handle == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_OUT_OF_MEMORY),
					 errmsg("could not start an SSH session: out of memory")));
		libssh2_session_set_blocking(session->handle, 0);
		libssh2_keepalive_config(session->handle, 1, SSH_KEEPALIVE_S);

		if (target->host_key_checking != SSH_HOST_KEY_OFF)
			known = known_hosts_read(session, target->known_hosts_file);

		ssh_open_socket(session, deadline);
		ssh_handshake(session, known, deadline, target->connect_timeout_ms);
		if (known != NULL)
			host_key_check(session, known,
						   target->host_key_checking == SSH_HOST_KEY_ACCEPT_NEW);
		ssh_authenticate(session, target->key_file, deadline,
						 target->connect_timeout_ms);
	}
	PG_CATCH();
	{
		ssh_disconnect(session);
		PG_RE_THROW();
	}
	PG_END_TRY();

	return session;
}

bool
ssh_is_alive(const SshSession *session)
{
	char		byte;
	ssize_t		rc;

	if (session == NULL || session->handle == NULL || session->lost)
		return false;
	rc = recv(session->sock, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
	return rc > 0 ||
		(rc < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR));
}

const char *
ssh_local_address(const SshSession *session)
{
	return session->local_address;
}

void
ssh_disconnect(SshSession *session)
{
	if (session == NULL)
		return;

	if (session->handle != NULL)
	{
		LIBSSH2_SESSION *handle = session->handle;
		int			tries = 10;
		int			rc;

		if (session->encrypted && !session->lost)
		{
			TimestampTz deadline = ssh_after(SSH_DISCONNECT_MS);

			do
				rc = libssh2_session_disconnect(handle, "done");
			while (ssh_wait_quietly(session, rc, deadline));
		}

		/* Once the socket is shut down nothing can tell us to wait. */
		if (session->sock != PGINVALID_SOCKET)
			(void) shutdown(session->sock, SHUT_RDWR);
		do
			rc = libssh2_session_free(handle);
		while (rc == LIBSSH2_ERROR_EAGAIN && --tries > 0);
		session->handle = NULL;
	}

	net_close(session->sock);
	session->sock = PGINVALID_SOCKET;
	session->lost = true;
}

static void
ssh_disconnect_callback(void *arg)
{
	ssh_disconnect((SshSession *) arg);
}

/* Not in _PG_init: a backend that never connects should not pay for it. */
static void
ssh_init_library(void)
{
	static bool initialized = false;

	if (initialized)
		return;
	if (libssh2_init(0) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_EXTERNAL_ROUTINE_EXCEPTION),
				 errmsg("could not initialize libssh2")));
	initialized = true;
}

/* Should the call that returned rc be made again? Waits until it makes sense. */
static bool
ssh_wait(SshSession *session, int rc, TimestampTz deadline)
{
	if (rc != LIBSSH2_ERROR_EAGAIN)
		return false;
	return net_wait(session->sock, ssh_blocked_on(session), deadline, 1000);
}

/* The same for cleaning up: never raises, serves no interrupts. */
static bool
ssh_wait_quietly(SshSession *session, int rc, TimestampTz deadline)
{
	struct pollfd ready;
	int			events;

	if (rc != LIBSSH2_ERROR_EAGAIN || GetCurrentTimestamp() >= deadline)
		return false;

	events = ssh_blocked_on(session);
	ready.fd = session->sock;
	ready.events = (events & WL_SOCKET_READABLE ? POLLIN : 0) |
		(events & WL_SOCKET_WRITEABLE ? POLLOUT : 0);
	ready.revents = 0;
	(void) poll(&ready, 1, 100);
	return true;
}

static int
ssh_blocked_on(SshSession *session)
{
	int			directions = libssh2_session_block_directions(session->handle);
	int			events = 0;

	if (directions & LIBSSH2_SESSION_BLOCK_INBOUND)
		events |= WL_SOCKET_READABLE;
	if (directions & LIBSSH2_SESSION_BLOCK_OUTBOUND)
		events |= WL_SOCKET_WRITEABLE;
	return events != 0 ? events : WL_SOCKET_READABLE;
}

static char *
ssh_last_error(SshSession *session)
{
	char	   *message = NULL;
	int			code = libssh2_session_last_error(session->handle, &message, NULL, 0);

	return psprintf("%s (libssh2 error %d)",
					message && message[0] ? message : "no reason given", code);
}

static TimestampTz
ssh_after(int milliseconds)
{
	return TimestampTzPlusMilliseconds(GetCurrentTimestamp(), milliseconds);
}


/*
 * Connecting
 */

static void
ssh_open_socket(SshSession *session, TimestampTz deadline)
{
	struct sockaddr_storage address;
	socklen_t	length = sizeof(address);
	NetFailure	failure;
	char	   *cause;

	session->sock = net_try_connect(session->host, session->port, deadline,
									&failure, &cause);
	if (session->sock == PGINVALID_SOCKET)
		ereport(ERROR,
				(errcode(ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION),
				 errmsg("could not connect to SSH server at \"%s\" port %d: %s",
						session->host, session->port, cause),
				 failure == NET_REFUSED ?
				 errhint("Check that sshd runs there and listens on this port.") :
				 failure == NET_UNKNOWN_HOST ?
				 errhint("Check the spelling, or add the name to DNS or /etc/hosts of this server.") :
				 errhint("Check that the host is up and that no firewall is in between.")));

	if (getsockname(session->sock, (struct sockaddr *) &address, &length) != 0 ||
		getnameinfo((struct sockaddr *) &address, length,
					session->local_address, sizeof(session->local_address),
					NULL, 0, NI_NUMERICHOST) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION),
				 errmsg("could not get the local address of the connection to \"%s\" port %d: %m",
						session->host, session->port)));
}

static void
ssh_handshake(SshSession *session, KnownHosts *known, TimestampTz deadline,
			  int timeout_ms)
{
	int			rc;

	ssh_prefer_known_types(session, known);

	do
		rc = libssh2_session_handshake(session->handle, session->sock);
	while (ssh_wait(session, rc, deadline));

	if (rc == LIBSSH2_ERROR_EAGAIN)
		ssh_timed_out(session, "handshake", timeout_ms);
	if (rc != 0)
	{
		bool		no_common_method = (rc == LIBSSH2_ERROR_KEX_FAILURE ||
										rc == LIBSSH2_ERROR_METHOD_NONE);

		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("SSH handshake with \"%s\" port %d failed",
						session->host, session->port),
				 errdetail("%s.", ssh_last_error(session)),
				 !no_common_method ?
				 errhint("Check that an SSH server listens on this port, and its log.") :
				 !ssh_has_rsa_sha2() ?
				 errhint("libssh2 %s knows RSA host keys with SHA-1 signatures only, which OpenSSH 8.8 and later do not offer. "
						 "If the host has only an RSA key, make others there by \"ssh-keygen -A\" and restart sshd.",
						 libssh2_version(0)) :
				 errhint("The server shares no method with libssh2 %s: see KexAlgorithms, HostKeyAlgorithms, Ciphers and MACs in its sshd_config.",
						 libssh2_version(0))));
	}
	session->encrypted = true;
}

/*
 * A host usually has a key of each type and shows the one that the client asks
 * for first, so ask first for the types that the known_hosts file can confirm.
 */
static void
ssh_prefer_known_types(SshSession *session, KnownHosts *known)
{
	StringInfoData methods;
	List	   *keys = NIL;
	int			rc;

	if (known != NULL)
		keys = known->keys != NIL ? known->keys : known->portless_keys;

	initStringInfo(&methods);
	for (int wanted = 1; wanted >= 0; wanted--)
		for (int i = 0; i < lengthof(host_key_types); i++)
			if ((known_keys_find(keys, host_key_types[i].type, NULL) != NULL) == (wanted == 1))
				appendStringInfo(&methods, "%s%s", methods.len > 0 ? "," : "",
								 host_key_types[i].methods);

	rc = libssh2_session_method_pref(session->handle, LIBSSH2_METHOD_HOSTKEY,
									 methods.data);
	if (rc != 0)
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("could not choose the host key types for \"%s\" port %d",
						session->host, session->port),
				 errdetail("%s.", ssh_last_error(session))));
	pfree(methods.data);
}

static void
ssh_timed_out(SshSession *session, const char *what, int timeout_ms)
{
	ereport(ERROR,
			(errcode(ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION),
			 errmsg("SSH %s with \"%s\" port %d did not end within %d ms",
					what, session->host, session->port, timeout_ms),
			 errhint("Check that an SSH server listens on this port and that the host is not overloaded, or raise follow_primary.connect_timeout.")));
}


/*
 * Known hosts
 *
 * The format is that of sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT".
 */

static KnownHosts *
known_hosts_read(SshSession *session, const char *path)
{
	KnownHosts *known = palloc0(sizeof(KnownHosts));
	StringInfoData content;
	char	   *text;
	char	   *next;
	int			line = 0;

	known->path = os_home_path(path && path[0] ? path : "~/.ssh/known_hosts");

	initStringInfo(&content);
	if (!read_whole_file(known->path, SSH_MAX_FILE, &content))
	{
		if (errno != ENOENT)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
					 errmsg("could not read known hosts file \"%s\": %m", known->path),
					 errdetail("Without it the host key of \"%s\" port %d cannot be checked.",
							   session->host, session->port)));
		known->missing = true;
		return known;
	}

	for (text = content.data; text != NULL; text = next)
	{
		next = strchr(text, '\n');
		if (next != NULL)
			*next++ = '\0';
		known_hosts_read_line(session, known, text, ++line);
	}
	pfree(content.data);
	return known;
}

/* [@marker] names type key [comment]; what is not of this form is skipped. */
static void
known_hosts_read_line(SshSession *session, KnownHosts *known, char *text, int line)
{
	static const char *const blanks = " \t\r";
	char	   *marker = NULL;
	char	   *names;
	char	   *type;
	char	   *base64;
	char	   *rest;
	char	   *host = asc_tolower(session->host, strlen(session->host));
	KnownKey   *key;

	names = strtok_r(text, blanks, &rest);
	if (names == NULL || names[0] == '#')
		return;
	if (names[0] == '@')
	{
		marker = names;
		names = strtok_r(NULL, blanks, &rest);
	}
	type = names ? strtok_r(NULL, blanks, &rest) : NULL;
	base64 = type ? strtok_r(NULL, blanks, &rest) : NULL;
	if (base64 == NULL)
		return;

	key = palloc(sizeof(KnownKey));
	key->type = pstrdup(type);
	key->base64 = pstrdup(base64);
	key->line = line;

	if (marker != NULL)
	{
		/*
		 * ssh minds the names on such a line; a revoked key is nobody's here.
		 * Other markers are for certificates, which libssh2 does not know.
		 */
		if (strcmp(marker, "@revoked") == 0)
			known->revoked = lappend(known->revoked, key);
		return;
	}

	if (session->port == SSH_DEFAULT_PORT)
	{
		if (known_hosts_names(session, names, host))
			known->keys = lappend(known->keys, key);
	}
	else if (known_hosts_names(session, names, psprintf("[%s]:%d", host, session->port)))
		known->keys = lappend(known->keys, key);
	else if (known_hosts_names(session, names, host))
		known->portless_keys = lappend(known->portless_keys, key);
}

/* Is host, in lower case, meant by the list of names? */
static bool
known_hosts_names(SshSession *session, const char *names, const char *host)
{
	char	   *list;
	char	   *name;
	char	   *rest;
	bool		named = false;

	if (names[0] == '|')
		return known_hosts_hash_matches(session, names, host);

	list = asc_tolower(names, strlen(names));
	for (name = strtok_r(list, ",", &rest); name != NULL; name = strtok_r(NULL, ",", &rest))
	{
		if (name[0] == '!')
		{
			if (known_hosts_pattern_matches(name + 1, host))
				return false;
		}
		else if (known_hosts_pattern_matches(name, host))
			named = true;
	}
	return named;
}

/*
 * A hashed name is HMAC-SHA1 of it, which PostgreSQL does not have in all our
 * versions.  libssh2 compares it for us: given a line with that name and any
 * key, it finds our dummy key not found or mismatching.
 */
static bool
known_hosts_hash_matches(SshSession *session, const char *hashed, const char *host)
{
	LIBSSH2_KNOWNHOSTS *hosts;
	char	   *line = psprintf("%s ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA\n", hashed);
	int			check = LIBSSH2_KNOWNHOST_CHECK_NOTFOUND;

	hosts = libssh2_knownhost_init(session->handle);
	if (hosts == NULL)
		return false;
	if (libssh2_knownhost_readline(hosts, line, strlen(line),
								   LIBSSH2_KNOWNHOST_FILE_OPENSSH) == 0)
		check = libssh2_knownhost_checkp(hosts, host, -1, "AAAA", 4,
										 LIBSSH2_KNOWNHOST_TYPE_PLAIN |
										 LIBSSH2_KNOWNHOST_KEYENC_BASE64,
										 NULL);
	libssh2_knownhost_free(hosts);
	pfree(line);
	return check == LIBSSH2_KNOWNHOST_CHECK_MISMATCH;
}

/* * stands for any characters, ? for one. */
static bool
known_hosts_pattern_matches(const char *pattern, const char *host)
{
	const char *star = NULL;
	const char *retry = NULL;

	while (*host != '\0')
	{
		if (*pattern == '*')
		{
			star = pattern++;
			retry = host;
		}
		else if (*pattern == '?' || *pattern == *host)
		{
			pattern++;
			host++;
		}
		else if (star != NULL)
		{
			pattern = star + 1;
			host = ++retry;
		}
		else
			return false;
	}
	while (*pattern == '*')
		pattern++;
	return *pattern == '\0';
}

/* The first key of that type, or with that value; NULL stands for any. */
static KnownKey *
known_keys_find(List *keys, const char *type, const char *base64)
{
	ListCell   *cell;

	foreach(cell, keys)
	{
		KnownKey   *key = (KnownKey *) lfirst(cell);

		if ((type == NULL || strcmp(key->type, type) == 0) &&
			(base64 == NULL || strcmp(key->base64, base64) == 0))
			return key;
	}
	return NULL;
}

/* Appends a line in one write, so that two workers cannot mix theirs. */
static void
known_hosts_add(SshSession *session, KnownHosts *known, HostKey *key)
{
	StringInfoData line;
	StringInfoData content;
	bool		written = false;
	int			error;
	int			fd;

	initStringInfo(&line);
	initStringInfo(&content);
	if (!known->missing &&
		read_whole_file(known->path, SSH_MAX_FILE, &content) &&
		content.len > 0 && content.data[content.len - 1] != '\n')
		appendStringInfoChar(&line, '\n');
	if (session->port == SSH_DEFAULT_PORT)
		appendStringInfoString(&line, session->host);
	else
		appendStringInfo(&line, "[%s]:%d", session->host, session->port);
	appendStringInfo(&line, " %s %s\n", key->type, key->base64);

	fd = OpenTransientFilePerm(known->path, O_WRONLY | O_CREAT | O_APPEND, 0600);
	if (fd < 0 && errno == ENOENT)
	{
		char	   *directory = pstrdup(known->path);

		get_parent_directory(directory);
		if (mkdir(directory, 0700) == 0)
			fd = OpenTransientFilePerm(known->path, O_WRONLY | O_CREAT | O_APPEND, 0600);
	}
	if (fd >= 0)
	{
		errno = ENOSPC;			/* if write() is short and does not say why */
		written = write(fd, line.data, line.len) == line.len;
		error = errno;
		CloseTransientFile(fd);
		errno = error;
	}
	if (!written)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("could not add the host key of \"%s\" port %d to file \"%s\": %m",
						session->host, session->port, known->path),
				 errdetail("The host has shown %s key %s.", key->type, key->fingerprint)));

	ereport(LOG,
			(errmsg("host key of \"%s\" port %d added to file \"%s\"",
					session->host, session->port, known->path),
			 errdetail("The host has shown %s key %s.", key->type, key->fingerprint)));
}


/*
 * The host's key
 */

static void
host_key_check(SshSession *session, KnownHosts *known, bool accept_new)
{
	HostKey    *shown = host_key_shown(session);
	KnownKey   *revoked = known_keys_find(known->revoked, NULL, shown->base64);
	KnownKey   *of_type;
	KnownKey   *any;

	if (revoked != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("host key of \"%s\" port %d is revoked",
						session->host, session->port),
				 errdetail("The host has shown %s key %s, which line %d of file \"%s\" revokes.",
						   shown->type, shown->fingerprint, revoked->line, known->path),
				 errhint("Whoever has the revoked key can pose as this host. Give the host a new key.")));

	if (known_keys_find(known->keys, shown->type, shown->base64) != NULL)
		return;

	/* As ssh does: without an entry for the port the host's own may serve. */
	if (known->keys == NIL &&
		known_keys_find(known->portless_keys, shown->type, shown->base64) != NULL)
		return;

	of_type = known_keys_find(known->keys, shown->type, NULL);
	if (of_type != NULL)
	{
		char	   *expected = host_key_fingerprint(of_type->base64);

		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("host key of \"%s\" port %d has changed",
						session->host, session->port),
				 errdetail("The host has shown %s key %s, but line %d of file \"%s\" has %s.",
						   shown->type, shown->fingerprint, of_type->line, known->path,
						   expected ? expected : "an unreadable key"),
				 errhint("Either somebody poses as this host, or it was installed anew. If you know that it was, "
						 "remove the old key by: ssh-keygen -f %s -R \"%s\". %s",
						 known->path,
						 session->port == SSH_DEFAULT_PORT ? session->host :
						 psprintf("[%s]:%d", session->host, session->port),
						 host_key_advice(session, known, shown))));
	}

	any = known_keys_find(known->keys, NULL, NULL);
	if (any != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("host key of \"%s\" port %d is not known",
						session->host, session->port),
				 errdetail("The host has shown %s key %s, but file \"%s\" has only keys of other types for it (%s on line %d).",
						   shown->type, shown->fingerprint, known->path,
						   any->type, any->line),
				 errhint("%s", host_key_advice(session, known, shown))));

	if (accept_new)
		known_hosts_add(session, known, shown);
	else
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("host key of \"%s\" port %d is not known",
						session->host, session->port),
				 known->missing ?
				 errdetail("The host has shown %s key %s, and file \"%s\" does not exist.",
						   shown->type, shown->fingerprint, known->path) :
				 errdetail("The host has shown %s key %s, and file \"%s\" has no key of this host and port.",
						   shown->type, shown->fingerprint, known->path),
				 errhint("%s", host_key_advice(session, known, shown))));
}

static HostKey *
host_key_shown(SshSession *session)
{
	HostKey    *key = palloc0(sizeof(HostKey));
	size_t		length = 0;
	int			unused;
	const unsigned char *blob =
	(const unsigned char *) libssh2_session_hostkey(session->handle, &length, &unused);
	uint32		type_length = 0;

	/* RFC 4253, 6.6: a key begins with its type, a counted string. */
	if (blob != NULL && length > 4)
		type_length = (uint32) blob[0] << 24 | blob[1] << 16 | blob[2] << 8 | blob[3];
	if (type_length == 0 || type_length > length - 4)
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("SSH server at \"%s\" port %d has shown no usable host key",
						session->host, session->port)));

	key->type = pnstrdup((const char *) blob + 4, type_length);
	key->base64 = encode_base64(blob, length);
	key->fingerprint = host_key_fingerprint(key->base64);
	return key;
}

/* "SHA256:...", or NULL if it is no key. */
static char *
host_key_fingerprint(const char *base64)
{
	size_t		length = strlen(base64);
	size_t		digits = strspn(base64,
								"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/");
	Datum		blob;
	Datum		digest;
	char	   *encoded;

	/* decode() would raise an error of its own for these. */
	if (length == 0 || length % 4 != 0 || length - digits > 2 ||
		strspn(base64 + digits, "=") != length - digits)
		return NULL;

	blob = DirectFunctionCall2(binary_decode, CStringGetTextDatum(base64),
							   CStringGetTextDatum("base64"));
	digest = DirectFunctionCall1(sha256_bytea, blob);
	encoded = encode_base64((unsigned char *) VARDATA_ANY(DatumGetPointer(digest)),
							VARSIZE_ANY_EXHDR(DatumGetPointer(digest)));
	encoded[strcspn(encoded, "=")] = '\0';
	return psprintf("SHA256:%s", encoded);
}

static char *
host_key_advice(SshSession *session, KnownHosts *known, HostKey *key)
{
	const char *name = "*";

	for (int i = 0; i < lengthof(host_key_types); i++)
		if (strcmp(host_key_types[i].type, key->type) == 0)
			name = host_key_types[i].name;

	return psprintf("Compare the fingerprint with what \"ssh-keygen -lf /etc/ssh/ssh_host_%s_key.pub\" shows on the host itself, "
					"then run as OS user \"%s\": ssh-keyscan -p %d %s >> %s",
					name, os_user(), session->port, session->host, known->path);
}


/*
 * Authentication
 */

static void
ssh_authenticate(SshSession *session, const char *key_file, TimestampTz deadline,
				 int timeout_ms)
{
	bool		explicit_file = key_file != NULL && key_file[0] != '\0';
	int			files = explicit_file ? 1 : lengthof(default_key_files);
	StringInfoData refusals;
	int			offered = 0;
	int			unusable = 0;
	bool		only_rsa = true;
	bool		encrypted = false;
	char	   *first_path = NULL;

	ssh_check_methods(session, deadline, timeout_ms);

	initStringInfo(&refusals);
	for (int i = 0; i < files; i++)
	{
		char	   *path = os_home_path(explicit_file ? key_file : default_key_files[i]);
		bool		is_rsa = false;
		int			error = 0;
		KeyFileState state = key_file_look(path, &is_rsa, &error);

		if (state == KEY_FILE_MISSING && !explicit_file)
			continue;
		if (state == KEY_FILE_USABLE)
		{
			if (ssh_offer_key(session, path, &refusals, &is_rsa, deadline, timeout_ms))
			{
				pfree(refusals.data);
				return;
			}
			offered++;
			only_rsa = only_rsa && is_rsa;
			if (first_path == NULL)
				first_path = path;
			continue;
		}

		unusable++;
		if (refusals.len > 0)
			appendStringInfoChar(&refusals, '\n');
		switch (state)
		{
			case KEY_FILE_ENCRYPTED:
				encrypted = true;
				appendStringInfo(&refusals, "Key file \"%s\" is encrypted with a passphrase.", path);
				break;
			case KEY_FILE_NOT_A_KEY:
				appendStringInfo(&refusals, "File \"%s\" is not a private key.", path);
				break;
			default:
				appendStringInfo(&refusals, "Could not read key file \"%s\": %s.", path, strerror(error));
				break;
		}
	}

	if (offered > 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("SSH server at \"%s\" port %d accepts no key of OS user \"%s\" for user \"%s\"",
						session->host, session->port, os_user(), session->user),
				 errdetail("%s", refusals.data),
				 only_rsa && !ssh_has_rsa_sha2() ?
				 errhint("libssh2 %s signs by RSA keys with SHA-1 only, which OpenSSH 8.8 and later refuse. "
						 "Make an ed25519 key as OS user \"%s\": ssh-keygen -t ed25519 -N '' -f ~/.ssh/id_ed25519, "
						 "and add its .pub file to ~%s/.ssh/authorized_keys on \"%s\".",
						 libssh2_version(0), os_user(), session->user, session->host) :
				 errhint("Add the content of %s.pub to ~%s/.ssh/authorized_keys on \"%s\". "
						 "If it is there, sshd may find that file, ~/.ssh or the home directory writable by others (StrictModes): see its log.",
						 first_path, session->user, session->host)));

	if (unusable == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("no SSH key to authenticate with at \"%s\" port %d",
						session->host, session->port),
				 errdetail("None of id_ed25519, id_ecdsa and id_rsa exists in \"%s\".",
						   os_home_path("~/.ssh")),
				 errhint("Make one as OS user \"%s\": ssh-keygen -t ed25519 -N '' -f ~/.ssh/id_ed25519, "
						 "and add its .pub file to ~%s/.ssh/authorized_keys on \"%s\"; or set follow_primary.ssh_key_file.",
						 os_user(), session->user, session->host)));

	ereport(ERROR,
			(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
			 errmsg("no usable SSH key to authenticate with at \"%s\" port %d",
					session->host, session->port),
			 errdetail("%s", refusals.data),
			 encrypted ?
			 errhint("A server process cannot be asked for a passphrase. Use a key without one: ssh-keygen -t ed25519 -N ''.") :
			 errhint("The key must be a private key file that OS user \"%s\" can read.", os_user())));
}

/* Asks what the server accepts: nothing but other methods can be cleared up at once. */
static void
ssh_check_methods(SshSession *session, TimestampTz deadline, int timeout_ms)
{
	const char *methods;
	int			rc;

	do
	{
		methods = libssh2_userauth_list(session->handle, session->user,
										strlen(session->user));
		rc = methods != NULL ? 0 : libssh2_session_last_errno(session->handle);
	} while (ssh_wait(session, rc, deadline));

	if (rc == LIBSSH2_ERROR_EAGAIN)
		ssh_timed_out(session, "authentication", timeout_ms);
	if (methods == NULL && !libssh2_userauth_authenticated(session->handle))
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("SSH server at \"%s\" port %d broke off the authentication of user \"%s\"",
						session->host, session->port, session->user),
				 errdetail("%s.", ssh_last_error(session))));
	if (methods != NULL && strstr(methods, "publickey") == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("SSH server at \"%s\" port %d accepts no keys for user \"%s\"",
						session->host, session->port, session->user),
				 errdetail("It offers: %s.", methods),
				 errhint("Set PubkeyAuthentication in its sshd_config.")));
}

/* Returns true if the server has taken it, else appends why not. */
static bool
ssh_offer_key(SshSession *session, const char *path, StringInfo refusals,
			  bool *was_rsa, TimestampTz deadline, int timeout_ms)
{
	int			rc;

	if (libssh2_userauth_authenticated(session->handle))
		return true;

	/* The public half is in every private key file. */
	do
		rc = libssh2_userauth_publickey_fromfile_ex(session->handle,
													session->user,
													strlen(session->user),
													NULL, path, NULL);
	while (ssh_wait(session, rc, deadline));

	if (rc == LIBSSH2_ERROR_EAGAIN)
		ssh_timed_out(session, "authentication", timeout_ms);
	if (rc == 0)
		return true;

	if (refusals->len > 0)
		appendStringInfoChar(refusals, '\n');
	switch (rc)
	{
		case LIBSSH2_ERROR_AUTHENTICATION_FAILED:
			appendStringInfo(refusals, "Key \"%s\" was refused by the server.", path);
			break;
		case LIBSSH2_ERROR_PUBLICKEY_UNVERIFIED:
			appendStringInfo(refusals, "The signature by key \"%s\" was refused by the server.", path);
			break;
		case LIBSSH2_ERROR_SOCKET_SEND:
		case LIBSSH2_ERROR_SOCKET_RECV:
		case LIBSSH2_ERROR_SOCKET_DISCONNECT:
			ereport(ERROR,
					(errcode(ERRCODE_PROTOCOL_VIOLATION),
					 errmsg("SSH server at \"%s\" port %d broke off the authentication of user \"%s\"",
							session->host, session->port, session->user),
					 errdetail("%s.", ssh_last_error(session)),
					 errhint("Its log says why; too many keys tried (MaxAuthTries) is one reason.")));
			break;
		default:
			*was_rsa = false;
			appendStringInfo(refusals, "Key \"%s\" could not be used: %s.", path, ssh_last_error(session));
			break;
	}
	return false;
}

/*
 * Looks into a private key's file.  *is_rsa is set when it surely is an RSA
 * key, *error is an errno with KEY_FILE_MISSING and KEY_FILE_UNREADABLE.
 */
static KeyFileState
key_file_look(const char *path, bool *is_rsa, int *error)
{
	/* "openssh-key-v1", then the cipher's name: the first bytes of "none". */
	static const char *const unencrypted = "b3BlbnNzaC1rZXktdjEAAAAABG5v";

	/* The type's name in that format, which begins at byte 45 = 60th digit. */
	static const char *const rsa = "AAdzc2gtcnNh";
	static const char *const openssh_header = "-----BEGIN OPENSSH PRIVATE KEY-----";
	StringInfoData content;
	KeyFileState state = KEY_FILE_USABLE;
	char	   *body;

	initStringInfo(&content);
	if (!read_whole_file(path, 1024 * 1024, &content))
	{
		*error = errno;
		return errno == ENOENT ? KEY_FILE_MISSING : KEY_FILE_UNREADABLE;
	}

	if (strstr(content.data, "PRIVATE KEY-----") == NULL)
		state = KEY_FILE_NOT_A_KEY;
	else if ((body = strstr(content.data, openssh_header)) != NULL)
	{
		char		digits[72];
		int			count = 0;

		for (body += strlen(openssh_header); *body != '\0' && count < 72; body++)
			if (!isspace((unsigned char) *body))
				digits[count++] = *body;

		if (count < strlen(unencrypted) ||
			memcmp(digits, unencrypted, strlen(unencrypted)) != 0)
			state = KEY_FILE_ENCRYPTED;
		*is_rsa = count == 72 && memcmp(digits + 60, rsa, strlen(rsa)) == 0;
	}
	else
	{
		if (strstr(content.data, "4,ENCRYPTED") != NULL ||
			strstr(content.data, "BEGIN ENCRYPTED PRIVATE KEY") != NULL)
			state = KEY_FILE_ENCRYPTED;
		*is_rsa = strstr(content.data, "BEGIN RSA PRIVATE KEY") != NULL;
	}

	explicit_bzero(content.data, content.len);
	pfree(content.data);
	return state;
}

/* The library that is loaded counts, not the one this was compiled with. */
static bool
ssh_has_rsa_sha2(void)
{
	return libssh2_version(0x010b00) != NULL;
}


/*
 * Commands
 */

void
ssh_run(SshSession *session, const SshCommand *command, SshResult *result)
{
	SshRun	   *run = palloc0(sizeof(SshRun));

	memset(result, 0, sizeof(*result));
	result->end = SSH_END_LOST;
	result->exit_status = -1;
	initStringInfo(&result->out);
	initStringInfo(&result->err);

	run->session = session;
	run->command = command;
	run->result = result;
	run->context = CurrentMemoryContext;
	run->deadline = command->timeout_ms > 0 ? ssh_after(command->timeout_ms) : DT_NOEND;
	initStringInfo(&run->line);

	PG_TRY();
	{
		run_open(run);
		run_until_over(run);
	}
	PG_CATCH();
	{
		run_abandon(run);
		PG_RE_THROW();
	}
	PG_END_TRY();

	run_abandon(run);
	pfree(run->line.data);
	pfree(run);
}

/* Opens a channel and starts the command on it. */
static void
run_open(SshRun *run)
{
	SshSession *session = run->session;
	TimestampTz deadline = Min(run->deadline, ssh_after(SSH_OPEN_CHANNEL_MS));
	const char *doing = "open a channel to";
	int			rc = LIBSSH2_ERROR_SOCKET_DISCONNECT;

	if (ssh_is_alive(session))
	{
		do
		{
			run->channel = libssh2_channel_open_session(session->handle);
			rc = run->channel ? 0 : libssh2_session_last_errno(session->handle);
		} while (ssh_wait(session, rc, deadline));
	}
	if (rc == 0)
	{
		doing = "start a command on";
		do
			rc = libssh2_channel_exec(run->channel, run->command->command);
		while (ssh_wait(session, rc, deadline));
	}
	if (rc != 0)
	{
		char	   *detail = rc == LIBSSH2_ERROR_EAGAIN ? "No answer in time" :
		session->handle == NULL || session->lost ? "The connection is lost" :
		ssh_last_error(session);

		/* Only a refusal leaves the session in order. */
		if (rc != LIBSSH2_ERROR_CHANNEL_FAILURE &&
			rc != LIBSSH2_ERROR_CHANNEL_REQUEST_DENIED)
			session->lost = true;
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("could not %s SSH server \"%s\" port %d",
						doing, session->host, session->port),
				 errdetail("%s.", detail)));
	}
}

static void
run_until_over(SshRun *run)
{
	TimestampTz now = GetCurrentTimestamp();

	run->last_progress = now;
	run->next_tick = now;

	while (!run->over)
	{
		CHECK_FOR_INTERRUPTS();

		run_keep_alive(run);
		run->moved = run->arrived = false;
		if (!run->over)
			run_turn(run);
		if (!run->over && !run->moved && !run->half_sent)
			run_check_closed(run);
		if (!run->over)
			run_check_limits(run);
		if (!run->over && !run->moved)
			run_sleep(run);
	}
}

/*
 * Transfers what can be transferred without waiting.  A step that leaves a
 * packet half sent ends the turn, and begins the next one.
 */
static void
run_turn(SshRun *run)
{
	RunStep		step = run->first_step;

	run->first_step = RUN_WRITE;
	run->half_sent = false;
	for (; step < RUN_STEPS && !run->over; step++)
	{
		if (step == RUN_WRITE)
			run_write(run);
		else
			run_read(run, step);

		if (run->half_sent)
		{
			run->first_step = step;
			return;
		}
	}
}

static bool
run_is_half_sent(SshRun *run)
{
	return (libssh2_session_block_directions(run->session->handle) &
			LIBSSH2_SESSION_BLOCK_OUTBOUND) != 0;
}

static void
run_write(SshRun *run)
{
	const SshCommand *command = run->command;

	while (run->input_sent < command->input_len && !run->input_refused)
	{
		ssize_t		rc = libssh2_channel_write(run->channel,
											   command->input + run->input_sent,
											   command->input_len - run->input_sent);

		if (rc > 0)
		{
			run->input_sent += rc;
			run->moved = true;
		}
		else if (rc == LIBSSH2_ERROR_EAGAIN)
		{
			run->half_sent = run_is_half_sent(run);
			return;
		}
		else if (rc == 0)
			return;
		else if (rc == LIBSSH2_ERROR_CHANNEL_CLOSED ||
				 rc == LIBSSH2_ERROR_CHANNEL_EOF_SENT)
			run->input_refused = true;
		else
		{
			run_lose(run, (int) rc);
			return;
		}
	}
}

static void
run_read(SshRun *run, RunStep step)
{
	int			stream = step == RUN_READ_STDERR ? SSH_EXTENDED_DATA_STDERR : 0;
	char		buffer[SSH_READ_SIZE];

	for (int reads = 0; reads < SSH_READS_PER_TURN && !run->over; reads++)
	{
		ssize_t		rc = libssh2_channel_read_ex(run->channel, stream,
												 buffer, sizeof(buffer));

		if (rc == LIBSSH2_ERROR_EAGAIN)
		{
			run->half_sent = run_is_half_sent(run);
			return;
		}
		if (rc == 0)
			return;
		if (rc < 0)
		{
			run_lose(run, (int) rc);
			return;
		}

		run->moved = run->arrived = true;
		if (step == RUN_READ_STDERR)
			run_take_stderr(run, buffer, rc);
		else if (run->result->out.len + rc > SSH_MAX_OUTPUT)
		{
			run->session->lost = true;
			run_end(run, SSH_END_LOST,
					psprintf("the command wrote more than %d MB to its standard output",
							 SSH_MAX_OUTPUT / (1024 * 1024)));
		}
		else
			appendBinaryStringInfo(&run->result->out, buffer, (int) rc);
	}
}

/* Keeps the tail, and hands out the lines. */
static void
run_take_stderr(SshRun *run, const char *data, size_t length)
{
	StringInfo	err = &run->result->err;

	appendBinaryStringInfo(err, data, (int) length);
	if (err->len > 4 * SSH_STDERR_TAIL)
	{
		memmove(err->data, err->data + err->len - SSH_STDERR_TAIL, SSH_STDERR_TAIL + 1);
		err->len = SSH_STDERR_TAIL;
	}

	if (run->command->on_stderr_line == NULL)
		return;
	for (size_t i = 0; i < length; i++)
	{
		if (data[i] == '\n' || data[i] == '\r')
			run_end_line(run);
		else if (run->line.len < SSH_MAX_LINE)
			appendStringInfoChar(&run->line, data[i]);
	}
}

static void
run_end_line(SshRun *run)
{
	if (run->line.len == 0)
		return;
	run->command->on_stderr_line(run->command->arg, run->line.data);
	MemoryContextSwitchTo(run->context);
	resetStringInfo(&run->line);
}

/*
 * After the remote end's EOF, waits for it to close the channel, which is when
 * it has sent the exit status.  Our own EOF is not sent before: the command
 * may run on without its output, and would take it for the end of its job.
 */
static void
run_check_closed(SshRun *run)
{
	int			rc = libssh2_channel_eof(run->channel);
	TimestampTz deadline;

	if (rc == 1)
		rc = libssh2_channel_wait_closed(run->channel);
	else if (rc == 0)
		return;

	if (rc == LIBSSH2_ERROR_EAGAIN)
		return;
	if (rc == 0)
	{
		deadline = ssh_after(SSH_CLOSE_MS);
		do
			rc = libssh2_channel_close(run->channel);
		while (ssh_wait(run->session, rc, deadline));
	}
	if (rc == 0)
	{
		run->closed = true;
		run_read_status(run);
	}
	else
		run_lose(run, rc);
}

static void
run_read_status(SshRun *run)
{
	SshResult  *result = run->result;
	char	   *signal = NULL;

	if (run->command->on_stderr_line != NULL)
		run_end_line(run);

	(void) libssh2_channel_get_exit_signal(run->channel, &signal, NULL, NULL,
										   NULL, NULL, NULL);
	if (signal != NULL)
	{
		result->signal = pstrdup(signal);
		libssh2_free(run->session->handle, signal);
		run_end(run, SSH_END_SIGNALLED,
				psprintf("the command was ended by signal %s", result->signal));
	}
	else
	{
		result->exit_status = libssh2_channel_get_exit_status(run->channel);
		run_end(run, SSH_END_EXITED, NULL);
	}
}

/*
 * libssh2 does not say when a keepalive is answered, so anything that comes in
 * counts; it has to be seen before a turn reads it.  The message is only sent
 * when the socket takes it whole: libssh2 could not take it up again.
 */
static void
run_keep_alive(SshRun *run)
{
	SshSession *session = run->session;
	struct pollfd ready = {.fd = session->sock,.events = POLLIN | POLLOUT};
	TimestampTz now = GetCurrentTimestamp();

	if (poll(&ready, 1, 0) < 0)
		return;

	if (run->arrived || (ready.revents & POLLIN))
		run->unanswered_since = 0;
	else if (run->unanswered_since != 0 &&
			 TimestampDifferenceExceeds(run->unanswered_since, now, SSH_SILENCE_MS))
	{
		session->lost = true;
		run_end(run, SSH_END_LOST,
				psprintf("the SSH server has answered nothing for %d s",
						 SSH_SILENCE_MS / 1000));
		return;
	}

	if (!run->half_sent && (ready.revents & POLLOUT))
	{
		int			next = 0;
		int			rc = libssh2_keepalive_send(session->handle, &next);

		if (rc != 0)
			run_lose(run, rc);
		else if (next == SSH_KEEPALIVE_S && run->unanswered_since == 0)
			run->unanswered_since = now;
	}
}

static void
run_check_limits(SshRun *run)
{
	const SshCommand *command = run->command;
	TimestampTz now = GetCurrentTimestamp();

	if (run->arrived)
		run->last_progress = now;

	if (now >= run->next_tick)
	{
		if (command->on_tick != NULL)
		{
			if (command->on_tick(command->arg))
				run->last_progress = GetCurrentTimestamp();
			MemoryContextSwitchTo(run->context);
		}
		run->next_tick = ssh_after(command->tick_ms > 0 ? command->tick_ms :
								   SSH_DEFAULT_TICK_MS);
		now = GetCurrentTimestamp();
	}

	if (now >= run->deadline)
		run_end(run, SSH_END_TIMED_OUT,
				psprintf("the command did not end within %d ms", command->timeout_ms));
	else if (command->progress_timeout_ms > 0 &&
			 TimestampDifferenceExceeds(run->last_progress, now,
										command->progress_timeout_ms))
		run_end(run, SSH_END_NO_PROGRESS,
				psprintf("the command made no progress for %d ms",
						 command->progress_timeout_ms));
}

/* Until the socket is ready, the next tick, or a limit. */
static void
run_sleep(SshRun *run)
{
	TimestampTz until = Min(run->deadline, run->next_tick);

	if (run->command->progress_timeout_ms > 0)
		until = Min(until, TimestampTzPlusMilliseconds(run->last_progress,
													   run->command->progress_timeout_ms + 1));
	(void) net_wait(run->session->sock,
					run->half_sent ? WL_SOCKET_WRITEABLE : WL_SOCKET_READABLE,
					until, SSH_DEFAULT_TICK_MS);
}

static void
run_end(SshRun *run, SshEnd end, char *cause)
{
	StringInfo	err = &run->result->err;

	run->over = true;
	run->result->end = end;
	run->result->cause = cause;

	/* Cut the tail to size, at a line's start if it has one. */
	if (err->len > SSH_STDERR_TAIL)
	{
		char	   *start = err->data + err->len - SSH_STDERR_TAIL;
		char	   *newline = memchr(start, '\n', SSH_STDERR_TAIL - 1);

		if (newline != NULL)
			start = newline + 1;
		err->len -= start - err->data;
		memmove(err->data, start, err->len + 1);
	}
}

static void
run_lose(SshRun *run, int rc)
{
	run->session->lost = true;
	run_end(run, SSH_END_LOST,
			rc == LIBSSH2_ERROR_EAGAIN ?
			pstrdup("the SSH server did not close the channel in time") :
			rc == LIBSSH2_ERROR_SOCKET_RECV || rc == LIBSSH2_ERROR_SOCKET_SEND ||
			rc == LIBSSH2_ERROR_SOCKET_DISCONNECT ?
			psprintf("the SSH connection was closed or cut from outside (libssh2 error %d)", rc) :
			psprintf("the SSH connection broke: %s", ssh_last_error(run->session)));
}

/*
 * Closes and frees the channel, whatever its state.  Never raises.  A channel
 * that cannot be closed in order takes the connection with it: the remote end
 * must see EOF in any case, since that is what ends the command there.
 */
static void
run_abandon(SshRun *run)
{
	SshSession *session = run->session;
	TimestampTz deadline = ssh_after(SSH_ABANDON_MS);
	int			rc = 0;

	if (session->handle == NULL)
		return;
	if (run->channel == NULL)
		session->lost = true;
	else if (!session->lost && !run->closed)
	{
		do
			rc = libssh2_channel_send_eof(run->channel);
		while (ssh_wait_quietly(session, rc, deadline));

		do
			rc = libssh2_channel_close(run->channel);
		while (ssh_wait_quietly(session, rc, deadline));
		if (rc != 0)
			session->lost = true;
	}

	if (session->lost)
		(void) shutdown(session->sock, SHUT_RDWR);
	if (run->channel != NULL)
	{
		do
			rc = libssh2_channel_free(run->channel);
		while (ssh_wait_quietly(session, rc, deadline));
		run->channel = NULL;
		if (rc != 0)
			session->lost = true;
	}
}


/*
 * Small things
 */

/* Replaces a leading ~/ by the home directory that the OS knows, not $HOME. */
static char *
os_home_path(const char *path)
{
	struct passwd *entry;

	if (strncmp(path, "~/", 2) != 0)
		return pstrdup(path);
	entry = getpwuid(geteuid());
	if (entry == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("could not look up the home directory of OS user %ld for \"%s\"",
						(long) geteuid(), path)));
	return psprintf("%s/%s", entry->pw_dir, path + 2);
}

static char *
os_user(void)
{
	struct passwd *entry = getpwuid(geteuid());

	if (entry == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("could not look up the name of OS user %ld", (long) geteuid())));
	return pstrdup(entry->pw_name);
}

/* Returns false with errno set if that fails, or it is longer than limit. */
static bool
read_whole_file(const char *path, size_t limit, StringInfo content)
{
	FILE	   *file = AllocateFile(path, "r");
	char		buffer[8192];
	size_t		count;
	int			error = 0;

	if (file == NULL)
		return false;
	while ((count = fread(buffer, 1, sizeof(buffer), file)) > 0)
	{
		if (content->len + count > limit)
		{
			error = EFBIG;
			break;
		}
		appendBinaryStringInfo(content, buffer, (int) count);
	}
	if (error == 0 && ferror(file))
		error = errno;
	FreeFile(file);
	errno = error;
	return error == 0;
}

/* On one line, as SSH writes it; encode() breaks lines. */
static char *
encode_base64(const unsigned char *data, size_t length)
{
	bytea	   *bytes = palloc(VARHDRSZ + length);
	char	   *encoded;
	char	   *from;
	char	   *to;

	SET_VARSIZE(bytes, VARHDRSZ + length);
	memcpy(VARDATA(bytes), data, length);
	encoded = TextDatumGetCString(DirectFunctionCall2(binary_encode,
													  PointerGetDatum(bytes),
													  CStringGetTextDatum("base64")));
	for (from = to = encoded; *from != '\0'; from++)
		if (*from != '\n')
			*to++ = *from;
	*to = '\0';
	return encoded;
}
