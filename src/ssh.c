/*
 * ssh.c
 *		One SSH connection to a node, by libssh2: connecting, waiting,
 *		disconnecting.
 */
#include "postgres.h"

#include <poll.h>
#include <pwd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "storage/fd.h"
#include "storage/latch.h"
#include "utils/memutils.h"

#include "compat.h"
#include "net.h"
#include "ssh_private.h"

#define SSH_DISCONNECT_MS		1000

static void ssh_init_library(void);
static void ssh_disconnect_callback(void *arg);
static int	ssh_blocked_on(SshSession *session);
static void ssh_open_socket(SshSession *session);
static void ssh_handshake(SshSession *session, KnownHosts *known);


/*
 * Sessions
 */

/*
 * recv() for libssh2, which goes on reading as long as there is something, for
 * ever if the server so wishes: now and then it is told to wait, for the
 * deadline and interrupts to be looked at.
 */
static
LIBSSH2_RECV_FUNC(ssh_receive)
{
	SshSession *session = (SshSession *) *abstract;
	ssize_t		rc;

	if (++session->receives % SSH_RECEIVES_PER_CALL == 0)
		return -EAGAIN;
	rc = recv(socket, buffer, length, flags);
	if (rc >= 0)
		return rc;
	return errno == EINTR || errno == EWOULDBLOCK ? -EAGAIN : -errno;
}

SshSession *
ssh_connect(const SshTarget *target)
{
	SshSession *session = palloc0(sizeof(SshSession));

	ssh_init_library();

	session->sock = PGINVALID_SOCKET;
	session->host = pstrdup(target->host);
	session->port = target->port;
	session->user = target->user && target->user[0] ? pstrdup(target->user) : ssh_os_user();
	session->connect_timeout_ms = target->connect_timeout_ms;
	session->connect_deadline = ssh_after(target->connect_timeout_ms);

	/* Whatever becomes of the caller, the session ends with its memory. */
	session->on_reset.func = ssh_disconnect_callback;
	session->on_reset.arg = session;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, &session->on_reset);

	PG_TRY();
	{
		KnownHosts *known = NULL;

		session->handle = libssh2_session_init_ex(NULL, NULL, NULL, session);
		if (session->handle == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_OUT_OF_MEMORY),
					 errmsg("could not start an SSH session: out of memory")));
		libssh2_session_set_blocking(session->handle, 0);
		libssh2_session_callback_set(session->handle, LIBSSH2_CALLBACK_RECV,
									 (void *) ssh_receive);
		libssh2_keepalive_config(session->handle, 1, SSH_KEEPALIVE_S);

		if (target->host_key_checking != SSH_HOST_KEY_OFF)
			known = known_hosts_read(session, target->known_hosts_file);

		ssh_open_socket(session);
		ssh_handshake(session, known);
		if (known != NULL)
			host_key_check(session, known,
						   target->host_key_checking == SSH_HOST_KEY_ACCEPT_NEW);
		ssh_authenticate(session, target->key_file);
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

		ssh_release(session);
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

bool
ssh_wait(SshSession *session, int rc, TimestampTz deadline)
{
	if (rc != LIBSSH2_ERROR_EAGAIN)
		return false;
	return net_wait(session->sock, ssh_blocked_on(session), deadline, 1000);
}

bool
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

char *
ssh_last_error(SshSession *session)
{
	char	   *message = NULL;
	int			code = libssh2_session_last_error(session->handle, &message, NULL, 0);

	return psprintf("%s (libssh2 error %d)",
					message && message[0] ? message : "no reason given", code);
}

TimestampTz
ssh_after(int milliseconds)
{
	return TimestampTzPlusMilliseconds(GetCurrentTimestamp(), milliseconds);
}


/*
 * Connecting
 */

static void
ssh_open_socket(SshSession *session)
{
	struct sockaddr_storage address;
	socklen_t	length = sizeof(address);
	NetFailure	failure;
	char	   *cause;

	session->sock = net_try_connect(session->host, session->port,
									session->connect_deadline, &failure, &cause);
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
ssh_handshake(SshSession *session, KnownHosts *known)
{
	int			rc;

	host_key_prefer_known(session, known);

	do
		rc = libssh2_session_handshake(session->handle, session->sock);
	while (ssh_wait(session, rc, session->connect_deadline));

	if (rc == LIBSSH2_ERROR_EAGAIN)
		ssh_timed_out(session, "handshake");
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
				 ssh_only_rsa(session) ?
				 errhint("libssh2 %s is built with libgcrypt here, and knows RSA host keys with SHA-1 signatures only. "
						 "If the host has no RSA key, make one there by \"ssh-keygen -A\" and restart sshd. "
						 "OpenSSH 8.8 and later also want \"HostKeyAlgorithms +ssh-rsa\" in its sshd_config.",
						 libssh2_version(0)) :
				 !ssh_has_rsa_sha2() ?
				 errhint("libssh2 %s knows RSA host keys with SHA-1 signatures only, which OpenSSH 8.8 and later do not offer. "
						 "If the host has only an RSA key, make others there by \"ssh-keygen -A\" and restart sshd.",
						 libssh2_version(0)) :
				 errhint("The server shares no method with libssh2 %s: see KexAlgorithms, HostKeyAlgorithms, Ciphers and MACs in its sshd_config.",
						 libssh2_version(0))));
	}
	session->encrypted = true;
}

void
ssh_timed_out(SshSession *session, const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION),
			 errmsg("SSH %s with \"%s\" port %d did not end within %d ms",
					what, session->host, session->port, session->connect_timeout_ms),
			 errhint("Check that an SSH server listens on this port and that the host is not overloaded, or raise follow_primary.connect_timeout.")));
}

/* The library that is loaded counts, not the one this was compiled with. */
bool
ssh_has_rsa_sha2(void)
{
	return libssh2_version(0x010b00) != NULL;
}

bool
ssh_has_host_key_method(SshSession *session, const char *method)
{
	const char **methods;
	int			count = libssh2_session_supported_algs(session->handle,
													   LIBSSH2_METHOD_HOSTKEY, &methods);
	bool		found = false;

	if (count < 0)
		return false;
	for (int i = 0; i < count && !found; i++)
		found = strcmp(methods[i], method) == 0;
	libssh2_free(session->handle, methods);
	return found;
}

bool
ssh_only_rsa(SshSession *session)
{
	return !ssh_has_host_key_method(session, "ssh-ed25519") &&
		!ssh_has_host_key_method(session, "ecdsa-sha2-nistp256");
}


/*
 * Small things
 */

char *
ssh_home_path(const char *path)
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

char *
ssh_os_user(void)
{
	struct passwd *entry = getpwuid(geteuid());

	if (entry == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("could not look up the name of OS user %ld", (long) geteuid())));
	return pstrdup(entry->pw_name);
}

bool
ssh_read_file(const char *path, size_t limit, StringInfo content)
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
