/*
 * ssh_private.h
 *		What the files ssh*.c share; nobody else includes this, or libssh2.
 *
 *	ssh.c			sessions: connecting, waiting, disconnecting
 *	ssh_hostkey.c	is it the host that it claims to be?
 *	ssh_auth.c		authentication by public key
 *	ssh_run.c		what a shell there is told to run
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
#ifndef FOLLOW_PRIMARY_SSH_PRIVATE_H
#define FOLLOW_PRIMARY_SSH_PRIVATE_H

#define LIBSSH2_DISABLE_DEPRECATION
#include <libssh2.h>
#include <netdb.h>

#include "ssh.h"

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
	LIBSSH2_CHANNEL *shell;		/* of a shell that waits for work, or NULL */
	LIBSSH2_CHANNEL *held;		/* the held script's, or NULL */
	char		local_address[NI_MAXHOST];
	MemoryContextCallback on_reset;
};

/* ssh.c */

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

/* Replaces a leading ~/ by the home directory that the OS knows, not $HOME. */
extern char *ssh_home_path(const char *path);

/* The OS user of this process. */
extern char *ssh_os_user(void);

/* Returns false with errno set if that fails, or it is longer than limit. */
extern bool ssh_read_file(const char *path, size_t limit, StringInfo content);

/* ssh_run.c */

/* Ends the held script, if there is one, and an idle shell. Never raises. */
extern void ssh_release(SshSession *session);

/* ssh_hostkey.c */

typedef struct KnownHosts KnownHosts;

/* What the known_hosts file ("" = the usual one) says of the session's host. */
extern KnownHosts *known_hosts_read(SshSession *session, const char *path);

/* Before the handshake: the order of host key types; known may be NULL. */
extern void host_key_prefer_known(SshSession *session, KnownHosts *known);

/* After it: raises 28000 unless the key that the host has shown is known. */
extern void host_key_check(SshSession *session, KnownHosts *known, bool accept_new);

/* ssh_auth.c */

/* By that key file, or by the usual ones ("" or NULL). Raises 28000. */
extern void ssh_authenticate(SshSession *session, const char *key_file);

#endif							/* FOLLOW_PRIMARY_SSH_PRIVATE_H */
