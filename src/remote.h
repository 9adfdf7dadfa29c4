/*
 * remote.h
 *		Runs one of the fixed scripts of src/remote on a node.
 */
#ifndef FOLLOW_PRIMARY_REMOTE_H
#define FOLLOW_PRIMARY_REMOTE_H

#include "ssh/ssh_run.h"

/* One of the scripts of src/remote. */
typedef struct RemoteScript
{
	const char *name;
	const char *text;
} RemoteScript;

extern const RemoteScript remote_survey;
extern const RemoteScript remote_archive;
extern const RemoteScript remote_connect;
extern const RemoteScript remote_try;
extern const RemoteScript remote_stop;
extern const RemoteScript remote_start;
extern const RemoteScript remote_check_config;
extern const RemoteScript remote_configure;
extern const RemoteScript remote_repoint;
extern const RemoteScript remote_save_config;
extern const RemoteScript remote_restore_config;
extern const RemoteScript remote_stage_wal;
extern const RemoteScript remote_count_wal;
extern const RemoteScript remote_rewind;
extern const RemoteScript remote_space;
extern const RemoteScript remote_clear;
extern const RemoteScript remote_basebackup;
extern const RemoteScript remote_copy_command;
extern const RemoteScript remote_take_copy;
extern const RemoteScript remote_swap;
extern const RemoteScript remote_verify;
extern const RemoteScript remote_switchover;
extern const RemoteScript remote_holdup;
extern const RemoteScript remote_clean;
extern const RemoteScript remote_lock;
extern const RemoteScript remote_check;
extern const RemoteScript remote_ask;

/* How long a script may take, and who looks on meanwhile (see SshCommand). */
typedef struct RemoteLimits
{
	int			timeout_ms;
	int			progress_timeout_ms;
	void		(*on_stderr_line) (void *arg, const char *line);
	bool		(*on_tick) (void *arg);
	char	   *(*on_ask) (void *arg);	/* answers a script's line ask=yes by a line
										 * on its stdin, which is its own then: see
										 * wrapper.sh */
	void	   *arg;
} RemoteLimits;

typedef struct RemoteValue
{
	char	   *key;
	char	   *value;
} RemoteValue;

/* What a script said. All palloc'd in the caller's context. */
typedef struct RemoteReply
{
	bool		ok;				/* it ended with status 0 */
	int			status;
	char	   *failed;			/* if not ok: the reason in one word, or "" */
	int			nvalues;
	RemoteValue *values;		/* its key=value lines, in order */
	char	   *messages;		/* the tail of its stderr */
} RemoteReply;

/*
 * A named argument of a script, which has it as a variable.  The name is a literal
 * of our code.  The value reaches the script literally; NULL is an empty one.
 */
typedef struct RemoteArgument
{
	const char *name;
	const char *value;
} RemoteArgument;

/*
 * A script's named arguments, as {"standby", "yes"}, {"timeout", NUMBER(60)}, and a
 * list; they last as long as the caller's block.
 */
#define NAMED(...)			((const RemoteArgument[]) {__VA_ARGS__, {NULL, NULL}})
#define LIST(...)			((const char *[]) {__VA_ARGS__, NULL})
#define NUMBER(n)			psprintf(INT64_FORMAT, (int64) (n))

/*
 * Runs the script with the named arguments, and with the list as its positional
 * ones: a NULL-terminated array, or NULL.
 *
 * Returns only what is certain: the script ran to its end and its output is
 * whole.  Raises otherwise:
 *   57014 a cancel request; the remote processes are ended
 *   58000 a time limit, or the held script has ended, 08006 a lost connection:
 *   what happened there is unknown
 */
extern void remote_run(SshSession *session, const RemoteScript *script,
					   const RemoteArgument *named, const char *const *list,
					   const RemoteLimits *limits, RemoteReply *reply);

/*
 * The same in two parts.  The script begins to run while the caller goes on, by
 * remote_hold() alone; remote_end() waits for it, as remote_run() does.  The limits
 * count from there.  The result lives in the current memory context.
 */
typedef struct RemoteRun RemoteRun;
extern RemoteRun *remote_begin(SshSession *session, const RemoteScript *script,
							   const RemoteArgument *named, const char *const *list,
							   const RemoteLimits *limits);
extern void remote_end(SshSession *session, RemoteRun *run, RemoteReply *reply);

/* As for remote_run(). */
typedef struct RemoteCall
{
	const RemoteScript *script;
	const RemoteArgument *named;
	const char *const *list;
} RemoteCall;

/*
 * Runs scripts in turn, in one round trip; the first that fails is the last.
 * The reply has what all of them said.
 */
extern void remote_run_in_turn(SshSession *session, const RemoteCall *calls,
							   int ncalls, const RemoteLimits *limits,
							   RemoteReply *reply);

/*
 * As remote_run(), for a script that goes on after its line held=yes, until the session
 * ends: while it does not, no other script runs.  Returns when it says so, or
 * has failed.
 */
extern void remote_hold(SshSession *session, const RemoteScript *script,
						const RemoteArgument *named,
						const RemoteLimits *limits, RemoteReply *reply);

/* A value by key, or NULL. */
extern const char *remote_get(const RemoteReply *reply, const char *key);

/* Is there a value of that key, and is it this one? */
extern bool remote_says(const RemoteReply *reply, const char *key,
						const char *value);

/* Has the script failed for this reason? */
extern bool remote_failed_for(const RemoteReply *reply, const char *reason);

/*
 * A number of bytes or the like by key.  False, and *number as it was, if there
 * is none, or something else, or more than any machine has: sums of some do not
 * overflow.
 */
extern bool remote_number(const RemoteReply *reply, const char *key, int64 *number);

/*
 * The value of a line "label: value" of pg_controldata's output, which is the
 * value of the key controldata, or NULL.
 */
extern char *remote_control_value(const RemoteReply *reply, const char *label);

/* Parses a script's output; false if the closing marker is not there. */
extern bool remote_parse(const char *out, const char *nonce,
						 RemoteReply *reply);

/* Appends text as one word for a POSIX shell, whatever bytes it holds. */
extern void remote_quote(StringInfo buf, const char *text);

#endif							/* FOLLOW_PRIMARY_REMOTE_H */
