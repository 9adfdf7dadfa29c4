/*
 * ssh_session.h
 *		What the files of this folder share; nobody else includes this, or
 *		libssh2.
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
 */
#ifndef FOLLOW_PRIMARY_SSH_SESSION_H
#define FOLLOW_PRIMARY_SSH_SESSION_H

#define LIBSSH2_DISABLE_DEPRECATION
#include <libssh2.h>
#include <netdb.h>

#include "lib/stringinfo.h"
#include "utils/palloc.h"
#include "utils/timestamp.h"

#include "ssh/ssh_types.h"

#define SSH_DEFAULT_PORT		22
#define SSH_KEEPALIVE_S			10
#define SSH_RECEIVES_PER_CALL	1000

struct SshSession
{
	LIBSSH2_SESSION *handle;
	pgsocket	sock;
	char	   *host;
	int			port;
	char	   *user;
	int			connect_timeout_ms;
	TimestampTz connect_deadline;
	unsigned int receives;		/* calls of recv() so far */
	bool		encrypted;		/* the handshake is done */
	bool		lost;			/* broken, or in the middle of a call that
								 * cannot be taken up again */
	bool		unfinished;		/* a script was given up, and may go on for
								 * seconds */
	bool		may_hurry;		/* see ssh_hurry_when_cancelled() */
	TimestampTz hurry_deadline; /* 0 = no hurry yet */
	LIBSSH2_CHANNEL *shell;		/* of a shell that waits for work, or NULL */
	const struct SshCommand *begun; /* what that shell has been sent ahead, or NULL */
	LIBSSH2_CHANNEL *held;		/* the held script's, or NULL */
	int64		cpu_of_shell;	/* what the one has used of processors, in ms */
	int64		cpu_of_others;	/* what former ones and the held one have */
	char		local_address[NI_MAXHOST];
	MemoryContextCallback on_reset;
};

/* Should the call that returned rc be made again? Waits until it makes sense. */
extern bool ssh_wait(SshSession *session, int rc, TimestampTz deadline);

/* The same for cleaning up: never raises, serves no interrupts. */
extern bool ssh_wait_quietly(SshSession *session, int rc, TimestampTz deadline);

extern TimestampTz ssh_after(int milliseconds);

/* libssh2's message and number, as a phrase. */
extern char *ssh_last_error(SshSession *session);

/* Raises 08001: this part of connecting took too long. */
pg_noreturn extern void ssh_timed_out(SshSession *session, const char *what);

/* Does the library that is loaded know RSA signatures with SHA-2? */
extern bool ssh_has_rsa_sha2(void);

/* A signature method of host keys, as "ssh-ed25519": does this libssh2 know it? */
extern bool ssh_has_host_key_method(SshSession *session, const char *method);

/*
 * Does it know RSA keys only?  So it is when it was built with libgcrypt: then
 * it reads only those in PEM format, and wants the .pub file beside them.
 */
extern bool ssh_only_rsa(SshSession *session);

/* The OS user of this process. */
extern char *ssh_os_user(void);

/* Returns false with errno set if that fails, or it is longer than limit. */
extern bool ssh_read_file(const char *path, size_t limit, StringInfo content);

#endif							/* FOLLOW_PRIMARY_SSH_SESSION_H */
