/*
 * step.c
 *		What all steps share: how they fail, what they tell scripts, and how they
 *		begin anew.
 *
 * The scripts know how; the steps know with which values, how long, and what to
 * tell the user when a script fails.
 */
#include "postgres.h"

#include "compat.h"
#include "record.h"
#include "steps/step.h"
#include "survey.h"

/* pg_rewind -P, pg_basebackup -P and copy_command.sh write "  1234/56789 kB (2%) copied". */
static bool
is_progress(const char *line, long long *done, long long *total)
{
	char		unit;

	return sscanf(line, " %lld/%lld %cB", done, total, &unit) == 3 && unit == 'k';
}

void
step_tool_progress(void *arg, const char *line)
{
	long long	done;
	long long	total;

	if (is_progress(line, &done, &total))
		job_progress((Job *) arg, done * 1024, total * 1024);
}

/* The messages without the lines that tell how far it was. */
static char *
without_progress(const char *messages)
{
	StringInfoData buf;
	long long	done;
	long long	total;

	initStringInfo(&buf);
	while (*messages)
	{
		size_t		length = strcspn(messages, "\r\n");

		if (!is_progress(messages, &done, &total))
			appendStringInfo(&buf, "%s%.*s", buf.len > 0 ? "\n" : "", (int) length, messages);
		messages += length;
		messages += *messages != '\0';
	}
	return buf.data;
}

/*
 * A script's failure as an error.  The script's own messages are the detail;
 * among them is the server's log when a start failed.
 */
void
step_fail(const Job *job, const RemoteReply *reply, int sqlstate,
		  const char *what, const char *hint)
{
	const char *messages = without_progress(reply->messages);

	ereport(ERROR,
			(errcode(sqlstate),
			 errmsg("%s on node %s", what, node_name(job)),
			 messages[0] ? errdetail("%s", messages) : 0,
			 errhint("%s", hint)));
}

/* The SQLSTATE and hint of the reasons that several scripts share. */
static int
common_sqlstate(const RemoteReply *reply, const char **hint)
{
	if (remote_failed_for(reply, "no_space"))
	{
		*hint = "Make room on the node, " THEN_CALL_AGAIN;
		return ERRCODE_DISK_FULL;
	}
	if (remote_failed_for(reply, "permission"))
	{
		*hint = "Give the SSH user the right to write there, " THEN_CALL_AGAIN;
		return ERRCODE_INSUFFICIENT_PRIVILEGE;
	}
	if (remote_failed_for(reply, "source_unreachable"))
	{
		*hint = MUST_REACH_US_HINT;
		return ERRCODE_CONNECTION_FAILURE;
	}
	if (remote_failed_for(reply, "mount_point"))
	{
		*hint = "What PostgreSQL keeps there has to be on the same file system as the rest. Move it, " THEN_CALL_AGAIN;
		return ERRCODE_FEATURE_NOT_SUPPORTED;
	}
	if (remote_failed_for(reply, "swap_unfinished"))
		*hint = "Leave that file as it is, and see that the node's disks are mounted. Then call follow_primary() with method => 'auto', which completes the exchange first.";
	else if (remote_failed_for(reply, "running") || remote_failed_for(reply, "stop_failed"))
		*hint = "If a service manager starts the server again, set follow_primary.node_stop_command and node_start_command, or the columns of the node's row. Then call follow_primary() again.";
	else
		*hint = "Remove the cause, then call follow_primary() again: it looks at the node afresh.";
	return ERRCODE_EXTERNAL_ROUTINE_EXCEPTION;
}

void
step_fail_commonly(const Job *job, const RemoteReply *reply, const char *what)
{
	const char *hint;
	int			sqlstate = common_sqlstate(reply, &hint);

	step_fail(job, reply, sqlstate, what, hint);
}

/* A script succeeded, but did not say what it is to say. */
void
step_fail_answer(const Job *job, const RemoteReply *reply, const char *what)
{
	step_fail(job, reply, ERRCODE_PROTOCOL_VIOLATION,
			  psprintf("it is not understood %s", what), CALL_AGAIN);
}

const char *
step_text(const RemoteReply *reply, const char *key)
{
	const char *text = remote_get(reply, key);

	return text ? text : "unknown";
}

void
step_fail_for_tablespace(const Job *job, const RemoteReply *reply)
{
	step_fail(job, reply, ERRCODE_OBJECT_IN_USE, "there is no place for a tablespace",
			  "Empty that directory on the node, or move it away, if nothing needs it; " THEN_CALL_AGAIN);
}

char *
step_expand(const char *command, const CommandValue *values)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (const char *c = command; *c; c++)
	{
		const CommandValue *v = values;

		while (v->letter && (*c != '%' || c[1] != v->letter))
			v++;
		if (v->letter == '\0')
		{
			appendStringInfoChar(&buf, *c);
			continue;
		}
		appendStringInfoString(&buf, v->text);
		c++;
	}
	return buf.data;
}

char *
step_quoted(const char *text)
{
	StringInfoData buf;

	initStringInfo(&buf);
	remote_quote(&buf, text);
	return buf.data;
}

char *
step_expand_command(const Job *job, const char *command)
{
	const CommandValue values[] = {
		/* the check asks of a node whose data directory is not known, too */
		{'D', step_quoted(job->node.pgdata ? job->node.pgdata : "")},
		{'p', NUMBER(job->request->node_port)},
		{'%', "%"},
		{0}
	};

	return step_expand(command, values);
}

/*
 * The node was a standby when it was surveyed, before a copy of hours perhaps,
 * and has been promoted since; or it was down and has run.  The new plan finds
 * out whose primary it is and what it has written.
 */
StepResult
step_look_again(Job *job, const char *why)
{
	job->wal_saved = false;
	survey(job);
	job_detail(job, "%s", why);
	return STEP_NEEDS_PLAN;
}
