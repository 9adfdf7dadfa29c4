/*
 * step.h
 *		What all steps share.
 */
#ifndef FOLLOW_PRIMARY_STEP_H
#define FOLLOW_PRIMARY_STEP_H

#include "compat.h"
#include "job.h"
#include "remote.h"

typedef enum StepResult
{
	STEP_DONE,
	STEP_NEEDS_COPY,			/* it failed for a reason that a copy cures */
	STEP_NEEDS_PLAN				/* the node is not any more what was planned
								 * for; job has the new facts */
} StepResult;

/* For scripts that only look at or write a few files. */
#define FILES_TIMEOUT_MS	60000

/* Beyond a script's own limit, for it to say what happened. */
#define GRACE_MS			15000

/*
 * Raises a script's failure as an error: "WHAT on node HOST:PORT".  The script's
 * own messages are the detail; among them is the server's log when a start failed.
 */
pg_noreturn extern void step_fail(const Job *job, const RemoteReply *reply, int sqlstate,
								  const char *what, const char *hint);

/* The same, with the SQLSTATE and hint of the reasons that several scripts share. */
pg_noreturn extern void step_fail_commonly(const Job *job, const RemoteReply *reply,
										   const char *what);

/* The same, for a script that succeeded but did not say what it is to say. */
pg_noreturn extern void step_fail_answer(const Job *job, const RemoteReply *reply,
										 const char *what);

pg_noreturn extern void step_fail_for_tablespace(const Job *job, const RemoteReply *reply);

/* A value of the reply by key, or "unknown". */
extern const char *step_text(const RemoteReply *reply, const char *key);

/* What %LETTER in a command of the DBA's becomes; the last one's letter is 0. */
typedef struct CommandValue
{
	char		letter;
	const char *text;
} CommandValue;

extern char *step_expand(const char *command, const CommandValue *values);

/* A text as a word of the shell. */
extern char *step_quoted(const char *text);

/* node_start_command and its siblings, with %D, %p and %% replaced. */
extern char *step_expand_command(const Job *job, const char *command);

/* For RemoteLimits.on_stderr_line: shows the progress of pg_rewind and pg_basebackup; arg is the job. */
extern void step_tool_progress(void *arg, const char *line);

/*
 * Surveys the node anew, and returns STEP_NEEDS_PLAN.  The node was a standby
 * when it was surveyed, before a copy of hours perhaps, and has been promoted
 * since; or it was down and has run.  The new plan finds out whose primary it
 * is and what it has written.
 */
extern StepResult step_look_again(Job *job, const char *why);

#endif							/* FOLLOW_PRIMARY_STEP_H */
