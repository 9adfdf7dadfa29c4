/*
 * ssh.h
 *		One SSH connection to a node.
 *
 * The files of this folder are the only ones that know libssh2.  Everything here
 * waits on the process latch, up to absolute deadlines, and checks for
 * interrupts.
 */
#ifndef FOLLOW_PRIMARY_SSH_H
#define FOLLOW_PRIMARY_SSH_H

#include "ssh/ssh_run.h"

/* Where and as whom to connect. The strings belong to the caller. */
typedef struct SshTarget
{
	const char *host;
	int			port;
	const char *user;			/* "" = this process's OS user */
	const char *key_file;		/* "" = the usual names under ~/.ssh; a
								 * leading ~/ is this user's home */
	const char *known_hosts_file;	/* a leading ~/ is this user's home */
	SshHostKeyChecking host_key_checking;
	int			connect_timeout_ms; /* for TCP, handshake and authentication
									 * together */
} SshTarget;

/*
 * Connects, checks the host key before anything is authenticated, and
 * authenticates by public key.  The session is allocated in the current memory
 * context.  It is ended by ssh_disconnect, or when that context is reset.
 *
 * Raises ERROR, nothing left open:
 *   08001 the name does not resolve, the port refuses, no answer in time
 *   08P01 the SSH handshake failed (with a hint for RSA-only hosts and old
 *         libssh2)
 *   28000 host key unknown, changed or revoked (strict), no usable key file,
 *         key refused, key encrypted or unreadable
 * Detail says what was seen, hint says which command or setting helps.
 */
extern SshSession *ssh_connect(const SshTarget *target);

/* This host's address as the kernel chose it for this connection. */
extern const char *ssh_local_address(const SshSession *session);

/*
 * Ends the session, and first the held script, which gets a second for it.
 * Accepts NULL, may be called twice, never raises.
 */
extern void ssh_disconnect(SshSession *session);

#endif							/* FOLLOW_PRIMARY_SSH_H */
