/*
 * ssh_hostkey.c
 *		Is the host that answers the one that its name means?
 *
 * Host keys are decided here and not by libssh2's known_hosts functions: those
 * stop at the first line that they cannot read, ignore @revoked lines, know no
 * patterns, and cannot tell a changed key from one of a type that the file
 * does not have.  libssh2 is asked only whether a hashed name is our host's.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fmgr.h"
#include "nodes/pg_list.h"
#include "storage/fd.h"
#include "utils/builtins.h"
#include "utils/formatting.h"

#include "compat.h"
#include "home.h"
#include "ssh/ssh_hostkey.h"
#include "ssh/ssh_session.h"

#define SSH_MAX_FILE			(16 * 1024 * 1024)

/* A line of the known_hosts file. */
typedef struct KnownKey
{
	char	   *type;			/* "ssh-ed25519", ... */
	char	   *base64;
	int			line;
} KnownKey;

struct KnownHosts
{
	char	   *path;
	bool		missing;
	List	   *keys;			/* of this host and port */
	List	   *portless_keys;	/* of this host, without a port; empty when the
								 * port is 22 */
	List	   *revoked;		/* on @revoked lines, whatever the host */
};

/* The key that the host has shown. */
typedef struct HostKey
{
	char	   *type;
	char	   *base64;
	char	   *fingerprint;	/* as ssh-keygen -l shows it */
} HostKey;

/*
 * Host key types in the order of preference, each with the signature methods
 * that go with it.
 */
static const struct
{
	const char *type;
	const char *methods[4];		/* up to a NULL */
	const char *name;			/* in ssh_host_*_key.pub */
}			host_key_types[] =
{
	{"ssh-ed25519", {"ssh-ed25519"}, "ed25519"},
	{"ecdsa-sha2-nistp256", {"ecdsa-sha2-nistp256"}, "ecdsa"},
	{"ecdsa-sha2-nistp384", {"ecdsa-sha2-nistp384"}, "ecdsa"},
	{"ecdsa-sha2-nistp521", {"ecdsa-sha2-nistp521"}, "ecdsa"},
	{"ssh-rsa", {"rsa-sha2-512", "rsa-sha2-256", "ssh-rsa"}, "rsa"},
};

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

KnownHosts *
known_hosts_read(SshSession *session, const char *path)
{
	KnownHosts *known = palloc0(sizeof(KnownHosts));
	StringInfoData content;
	char	   *text;
	char	   *next;
	int			line = 0;

	known->path = own_home_path(path && path[0] ? path : "~/.ssh/known_hosts");

	initStringInfo(&content);
	if (!ssh_read_file(known->path, SSH_MAX_FILE, &content))
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
		ssh_read_file(known->path, SSH_MAX_FILE, &content) &&
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
 * A host usually has a key of each type and shows the one that the client asks
 * for first, so ask first for the types that the known_hosts file can confirm.
 * Only for methods that this libssh2 has: from a list with another one, 1.10
 * takes that out by a strcpy() that overlaps.
 */
void
host_key_prefer_known(SshSession *session, KnownHosts *known)
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
				for (const char *const *method = host_key_types[i].methods; *method; method++)
					if (ssh_has_host_key_method(session, *method))
						appendStringInfo(&methods, "%s%s", methods.len > 0 ? "," : "", *method);

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

static char *
host_key_advice(SshSession *session, KnownHosts *known, HostKey *key)
{
	const char *name = "*";

	for (int i = 0; i < lengthof(host_key_types); i++)
		if (strcmp(host_key_types[i].type, key->type) == 0)
			name = host_key_types[i].name;

	return psprintf("Compare the fingerprint with what \"ssh-keygen -lf /etc/ssh/ssh_host_%s_key.pub\" shows on the host itself, "
					"then run as OS user \"%s\": ssh-keyscan -p %d %s >> %s",
					name, ssh_os_user(), session->port, session->host, known->path);
}

void
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
