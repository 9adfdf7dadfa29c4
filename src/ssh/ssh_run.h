/*
 * ssh_run.h
 *		Scripts that run over an SSH connection.
 */
#ifndef FOLLOW_PRIMARY_SSH_RUN_H
#define FOLLOW_PRIMARY_SSH_RUN_H

#include "lib/stringinfo.h"

#include "ssh/ssh_types.h"

/* How a script ended. */
typedef enum SshEnd
{
	SSH_END_DONE,				/* its mark has come */
	SSH_END_EXITED,				/* its shell ended before */
	SSH_END_SIGNALLED,			/* its shell was ended by a signal */
	SSH_END_TIMED_OUT,			/* deadline passed; channel closed */
	SSH_END_NO_PROGRESS,		/* nothing arrived, and on_tick saw nothing
								 * move, for progress_timeout_ms; channel
								 * closed */
	SSH_END_LOST,				/* the connection broke */
	SSH_END_HELD,				/* it goes on beside those that follow */
	SSH_END_UNHELD				/* the held one has ended, so this one was not
								 * started, or its channel is closed */
} SshEnd;

/*
 * A script to run.  The shell's command is parsed by the remote account's login
 * shell, whichever that is: it is a constant without quotes that shells disagree
 * on, and all that is variable is input.
 */
typedef struct SshCommand
{
	const char *shell;			/* starts a shell that reads its stdin */
	const char *input;			/* what the shell gets to read: one compound
								 * command, so that it has read all of it
								 * before it runs it.  Its stdin stays open;
								 * EOF there is to end whatever it runs */
	size_t		input_len;
	const char *end_mark;		/* ends the script where it comes on stdout, up
								 * to the line's end, and on stderr */
	int			timeout_ms;		/* 0 = no limit but progress_timeout_ms */
	int			progress_timeout_ms;	/* 0 = no such limit */

	/*
	 * The script is held once its stdout contains hold_at, if not NULL: it goes
	 * on, in a shell of its own, until the session ends, and says nothing more
	 * until its own end.  A session holds one script at most.
	 */
	const char *hold_at;

	/*
	 * Once its stdout contains ask_at, if not NULL, the script has asked a
	 * question, for which it has stdin to itself: on_ask() returns what is sent
	 * there.  May run SQL in a transaction of its own.
	 */
	const char *ask_at;
	char	   *(*on_ask) (void *arg);

	/*
	 * Called for every complete line of stderr (also those ended by a
	 * carriage return, as progress meters write them) that is not empty, cut
	 * off after 8 kB. May be NULL.
	 */
	void		(*on_stderr_line) (void *arg, const char *line);

	/*
	 * Called about once a second while the script runs.  Returns true if it saw
	 * progress from elsewhere.  May run SQL in a transaction of its own.  May be
	 * NULL.
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
	char	   *cause;			/* else what happened, as a phrase, or NULL */
	StringInfoData out;			/* stdout, up to SSH_MAX_OUTPUT bytes: more
								 * than that ends the script as SSH_END_LOST */
	StringInfoData err;			/* the last SSH_STDERR_TAIL bytes of stderr */
} SshResult;

#define SSH_MAX_OUTPUT	(16 * 1024 * 1024)
#define SSH_STDERR_TAIL	(16 * 1024)

/*
 * Runs a script to its end, in the session's shell, which is started if there is
 * none.  Raises ERROR on a cancel request or when no shell can be started
 * (08006); the channel is closed then, so that the remote side sees EOF on its
 * stdin and ends.  After SSH_END_LOST the session can only be disconnected;
 * also after a time limit or an ERROR if the script did not end within two
 * seconds of that EOF: ask ssh_is_alive.
 *
 * A server that answers no keepalive for a minute counts as lost.  Output is
 * raw bytes, not checked for any encoding.
 */
extern void ssh_run(SshSession *session, const SshCommand *command,
					SshResult *result);

/*
 * Sends a script ahead to the shell that waits for work: it begins, and ssh_run()
 * of the same command, which the caller keeps until then, goes on from there.  Only
 * a script that is to be held may run in between; any other gives it up.  Does
 * nothing where no shell waits.  Never raises.
 */
extern void ssh_begin(SshSession *session, const SshCommand *command);

/*
 * Is there a held script?  As far as is known: it may have ended since the last
 * one ran.
 */
extern bool ssh_is_holding(const SshSession *session);

/*
 * To be called now and then while nothing runs: an sshd with ClientAliveInterval
 * asks whether we are there, and would hang up.  Accepts NULL, never raises.
 */
extern void ssh_serve(SshSession *session);

/*
 * From now on the caller holds cancel requests (HOLD_CANCEL_INTERRUPTS()) while
 * scripts run.  A request that is pending, or comes, does not end them, but they
 * are given SSH_HURRY_MS from then on, all together; after that they end as those
 * whose time limit has passed.
 */
extern void ssh_hurry_when_cancelled(SshSession *session);

#define SSH_HURRY_MS	5000

/*
 * The shell that ran the last script has used so much of the other side's
 * processors by now, for that one and those before; or the held script has.
 */
extern void ssh_note_cpu(SshSession *session, int64 milliseconds, bool held);

/* What all scripts of the session have used, as far as it was noted, in ms. */
extern int64 ssh_cpu(const SshSession *session);

/* Is the session still usable? */
extern bool ssh_is_alive(const SshSession *session);

/* Ends the held script, if there is one, and an idle shell. Never raises. */
extern void ssh_release(SshSession *session);

#endif							/* FOLLOW_PRIMARY_SSH_RUN_H */
