/*
 * ssh.c
 *		One SSH connection to a node, by libssh2: connecting and disconnecting.
 */
#include "postgres.h"

#include <sys/socket.h>

#include "utils/memutils.h"

#include "compat.h"
#include "ssh/net.h"
#include "ssh/ssh.h"
#include "ssh/ssh_auth.h"
#include "ssh/ssh_hostkey.h"
#include "ssh/ssh_session.h"

#define SSH_DISCONNECT_MS		1000

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
