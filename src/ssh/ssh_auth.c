/*
 * ssh_auth.c
 *		Authentication by public key.
 *
 * A refusal is the error that users meet most, so each key file is looked
 * into for what libssh2 does not tell: whether it is encrypted, or a key that
 * the linked libssh2 cannot use.
 */
#include "postgres.h"

#include <ctype.h>
#include <unistd.h>

#include "compat.h"
#include "home.h"
#include "ssh/ssh_auth.h"
#include "ssh/ssh_session.h"

/* What ssh_authenticate() needs to know of a private key's file. */
typedef enum KeyFileState
{
	KEY_FILE_USABLE,
	KEY_FILE_MISSING,
	KEY_FILE_UNREADABLE,
	KEY_FILE_ENCRYPTED,
	KEY_FILE_NOT_A_KEY,
	KEY_FILE_NOT_PEM_RSA,		/* these two are for ssh_only_rsa() */
	KEY_FILE_WITHOUT_PUBLIC
} KeyFileState;

static const char *const default_key_files[] =
{
	"~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa"
};

/* Asks what the server accepts: nothing but other methods can be cleared up at once. */
static void
ssh_check_methods(SshSession *session)
{
	const char *methods;
	int			rc;

	do
	{
		methods = libssh2_userauth_list(session->handle, session->user,
										strlen(session->user));
		rc = methods != NULL ? 0 : libssh2_session_last_errno(session->handle);
	} while (ssh_wait(session, rc, session->connect_deadline));

	if (rc == LIBSSH2_ERROR_EAGAIN)
		ssh_timed_out(session, "authentication");
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

/*
 * Returns true if the server has taken it, else appends why not.  public_path
 * is NULL where libssh2 finds the public half in the private key's file.
 */
static bool
ssh_offer_key(SshSession *session, const char *path, const char *public_path,
			  StringInfo refusals, bool *was_rsa)
{
	int			rc;

	if (libssh2_userauth_authenticated(session->handle))
		return true;

	do
		rc = libssh2_userauth_publickey_fromfile_ex(session->handle,
													session->user,
													strlen(session->user),
													public_path, path, NULL);
	while (ssh_wait(session, rc, session->connect_deadline));

	if (rc == LIBSSH2_ERROR_EAGAIN)
		ssh_timed_out(session, "authentication");
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
 * Looks into a private key's file; only_rsa is what ssh_only_rsa() says.
 * *is_rsa is set when it surely is an RSA key, *error is an errno with
 * KEY_FILE_MISSING and KEY_FILE_UNREADABLE.
 */
static KeyFileState
key_file_look(const char *path, bool only_rsa, bool *is_rsa, int *error)
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
	if (!ssh_read_file(path, 1024 * 1024, &content))
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

	if (state == KEY_FILE_USABLE && only_rsa)
	{
		if (strstr(content.data, "BEGIN RSA PRIVATE KEY") == NULL)
			state = KEY_FILE_NOT_PEM_RSA;
		else if (access(psprintf("%s.pub", path), R_OK) != 0)
			state = KEY_FILE_WITHOUT_PUBLIC;
	}

	explicit_bzero(content.data, content.len);
	pfree(content.data);
	return state;
}

void
ssh_authenticate(SshSession *session, const char *key_file)
{
	bool		explicit_file = key_file != NULL && key_file[0] != '\0';
	int			files = explicit_file ? 1 : lengthof(default_key_files);
	bool		pem_rsa = ssh_only_rsa(session);
	const char *make_key = pem_rsa ?
		"ssh-keygen -t rsa -m PEM -N '' -f ~/.ssh/id_rsa" :
		"ssh-keygen -t ed25519 -N '' -f ~/.ssh/id_ed25519";
	StringInfoData refusals;
	int			offered = 0;
	int			unusable = 0;
	bool		only_rsa = true;
	bool		encrypted = false;
	bool		foreign = false;
	char	   *without_public = NULL;
	char	   *first_path = NULL;
	const char *other_user =
		psprintf("If the node lets in another user than \"%s\": set follow_primary.ssh_user, or ssh_user in the node's row.",
				 session->user);

	ssh_check_methods(session);

	initStringInfo(&refusals);
	for (int i = 0; i < files; i++)
	{
		char	   *path = own_home_path(explicit_file ? key_file : default_key_files[i]);
		bool		is_rsa = false;
		int			error = 0;
		KeyFileState state = key_file_look(path, pem_rsa, &is_rsa, &error);

		if (state == KEY_FILE_MISSING && !explicit_file)
			continue;
		if (state == KEY_FILE_USABLE)
		{
			if (ssh_offer_key(session, path,
							  pem_rsa ? psprintf("%s.pub", path) : NULL,
							  &refusals, &is_rsa))
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
			case KEY_FILE_NOT_PEM_RSA:
				foreign = true;
				appendStringInfo(&refusals, "Key file \"%s\" is not an RSA key in PEM format.", path);
				break;
			case KEY_FILE_WITHOUT_PUBLIC:
				without_public = path;
				appendStringInfo(&refusals, "Key file \"%s\" has no file \"%s.pub\" beside it.", path, path);
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
						session->host, session->port, ssh_os_user(), session->user),
				 errdetail("%s", refusals.data),
				 pem_rsa ?
				 errhint("Add the content of %s.pub to ~%s/.ssh/authorized_keys on \"%s\". "
						 "If it is there: libssh2 %s signs by RSA keys with SHA-1 only, so OpenSSH 8.8 and later want "
						 "\"PubkeyAcceptedAlgorithms +ssh-rsa\" in sshd_config; else see sshd's log. %s",
						 first_path, session->user, session->host, libssh2_version(0), other_user) :
				 only_rsa && !ssh_has_rsa_sha2() ?
				 errhint("libssh2 %s signs by RSA keys with SHA-1 only, which OpenSSH 8.8 and later refuse. "
						 "Make an ed25519 key as OS user \"%s\": %s, "
						 "and add its .pub file to ~%s/.ssh/authorized_keys on \"%s\".",
						 libssh2_version(0), ssh_os_user(), make_key, session->user, session->host) :
				 errhint("Add the content of %s.pub to ~%s/.ssh/authorized_keys on \"%s\". "
						 "If it is there, sshd may find that file, ~/.ssh or the home directory writable by others (StrictModes): see its log. "
						 "%s",
						 first_path, session->user, session->host, other_user)));

	if (unusable == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("no SSH key to authenticate with at \"%s\" port %d",
						session->host, session->port),
				 errdetail("None of id_ed25519, id_ecdsa and id_rsa exists in \"%s\".",
						   own_home_path("~/.ssh")),
				 errhint("Make one as OS user \"%s\": %s, "
						 "and add its .pub file to ~%s/.ssh/authorized_keys on \"%s\"; or set follow_primary.ssh_key_file.",
						 ssh_os_user(), make_key, session->user, session->host)));

	ereport(ERROR,
			(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
			 errmsg("no usable SSH key to authenticate with at \"%s\" port %d",
					session->host, session->port),
			 errdetail("%s", refusals.data),
			 without_public != NULL ?
			 errhint("libssh2 %s is built with libgcrypt here, and wants the public key in a file of its own. "
					 "Make it as OS user \"%s\": ssh-keygen -y -f %s > %s.pub",
					 libssh2_version(0), ssh_os_user(), without_public, without_public) :
			 encrypted ?
			 errhint("A server process cannot be asked for a passphrase. Use a key without one, made as OS user \"%s\" by: %s",
					 ssh_os_user(), make_key) :
			 foreign ?
			 errhint("libssh2 %s is built with libgcrypt here, and can use no other keys. "
					 "Make one as OS user \"%s\": %s, and add its .pub file to ~%s/.ssh/authorized_keys on \"%s\".",
					 libssh2_version(0), ssh_os_user(), make_key, session->user, session->host) :
			 errhint("The key must be a private key file that OS user \"%s\" can read.", ssh_os_user())));
}
