/*
 * ssh_session.c
 *		What the parts of an SSH connection share: waiting, and small helpers.
 */
#include "postgres.h"

#include <poll.h>
#include <pwd.h>
#include <unistd.h>

#include "storage/fd.h"
#include "storage/latch.h"

#include "compat.h"
#include "ssh/net.h"
#include "ssh/ssh_session.h"

TimestampTz
ssh_after(int milliseconds)
{
	return TimestampTzPlusMilliseconds(GetCurrentTimestamp(), milliseconds);
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

char *
ssh_last_error(SshSession *session)
{
	char	   *message = NULL;
	int			code = libssh2_session_last_error(session->handle, &message, NULL, 0);

	return psprintf("%s (libssh2 error %d)",
					message && message[0] ? message : "no reason given", code);
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
