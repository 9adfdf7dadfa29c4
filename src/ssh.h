/*
 * ssh.h
 *		One SSH connection to a node, and commands run over it.
 *
 * The files ssh*.c are the only ones that know libssh2.  Everything here waits
 * on the process latch, up to absolute deadlines, and checks for interrupts.
 */
#ifndef FOLLOW_PRIMARY_SSH_H
#define FOLLOW_PRIMARY_SSH_H

#include "lib/stringinfo.h"
#include "utils/timestamp.h"

typedef enum SshHostKeyChecking
{
	SSH_HOST_KEY_STRICT,		/* the key must be in the known_hosts file */
	SSH_HOST_KEY_ACCEPT_NEW,	/* an unknown key is added, a changed one
								 * refused */
	SSH_HOST_KEY_OFF			/* not looked at */
} SshHostKeyChecking;

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

typedef struct SshSession SshSession;

/* How a command ended. */
typedef enum SshEnd
{
	SSH_END_EXITED,				/* remote EOF, channel closed, exit status
								 * read */
	SSH_END_SIGNALLED,			/* ended by a signal there */
	SSH_END_TIMED_OUT,			/* deadline passed; channel closed */
	SSH_END_NO_PROGRESS,		/* nothing arrived, and on_tick saw nothing
								 * move, for progress_timeout_ms; channel
								 * closed */
	SSH_END_LOST,				/* the connection broke */
	SSH_END_HELD,				/* it goes on beside the commands that follow */
	SSH_END_UNHELD				/* the held command has ended, so this one was
								 * not started, or its channel is closed */
} SshEnd;

/*
 * A command to run.  The command text is parsed by the remote account's login
 * shell, whichever that is; callers keep it a constant without quotes that
 * shells disagree on, and send everything variable as input.
 */
typedef struct SshCommand
{
	const char *command;
	const char *input;			/* sent to its stdin, which then stays open
								 * until the command ends */
	size_t		input_len;
	int			timeout_ms;		/* 0 = no limit but progress_timeout_ms */
	int			progress_timeout_ms;	/* 0 = no such limit */

	/*
	 * If not NULL, the command is held once its stdout contains this text: it
	 * goes on, with its stdin open, until the session ends, and says nothing
	 * more until its own end.  A session holds one command at most.
	 */
	const char *hold_at;

	/*
	 * Called for every complete line of stderr (also those ended by a
	 * carriage return, as progress meters write them) that is not empty, cut
	 * off after 8 kB. May be NULL.
	 */
	void		(*on_stderr_line) (void *arg, const char *line);

	/*
	 * Called about once a second while the command runs; returns true if it
	 * saw progress from elsewhere. May run SQL in a transaction of its own.
	 * May be NULL.
	 */
	bool		(*on_tick) (void *arg);
	void	   *arg;
} SshCommand;

/* What came of it. The strings are palloc'd in the caller's context. */
typedef struct SshResult
{
	SshEnd		end;
	int			exit_status;	/* with SSH_END_EXITED */
	char	   *signal;			/* with SSH_END_SIGNALLED: "KILL", ... */
	char	   *cause;			/* else why it is not SSH_END_EXITED, as a
								 * phrase; NULL if it is */
	StringInfoData out;			/* stdout, up to SSH_MAX_OUTPUT bytes: more
								 * than that ends the command as SSH_END_LOST */
	StringInfoData err;			/* the last SSH_STDERR_TAIL bytes of stderr */
} SshResult;

#define SSH_MAX_OUTPUT	(16 * 1024 * 1024)
#define SSH_STDERR_TAIL	(16 * 1024)

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

/*
 * Runs a command to its end.  Raises ERROR on a cancel request or when no
 * channel can be opened (08006); the channel is closed then, so that the
 * remote side sees EOF on its stdin and ends.  After SSH_END_LOST the session
 * can only be disconnected; also after a time limit or an ERROR if the command
 * did not end within two seconds of that EOF: ask ssh_is_alive.
 *
 * A server that answers no keepalive for a minute counts as lost.  Output is
 * raw bytes, not checked for any encoding.
 */
extern void ssh_run(SshSession *session, const SshCommand *command,
					SshResult *result);

/*
 * Is there a held command?  As far as is known: it may have ended since the
 * last command ran.
 */
extern bool ssh_is_holding(const SshSession *session);

/* Is the session still usable? */
extern bool ssh_is_alive(const SshSession *session);

/* This host's address as the kernel chose it for this connection. */
extern const char *ssh_local_address(const SshSession *session);

/*
 * Ends the session, and first the held command, which gets a second for it.
 * Accepts NULL, may be called twice, never raises.
 */
extern void ssh_disconnect(SshSession *session);

#endif							/* FOLLOW_PRIMARY_SSH_H */
