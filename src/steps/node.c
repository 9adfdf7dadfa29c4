/*
 * node.c
 *		The node as a server: it is locked, stopped, started, and cleaned up after.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "pgtime.h"

#include "compat.h"
#include "folders.h"
#include "record.h"
#include "steps/lost.h"
#include "steps/node.h"
#include "survey.h"

/* What another job that is refused the lock hears of its holder. */
static char *
lock_owner(const Job *job)
{
	pg_time_t	now = time(NULL);
	char		since[32];

	pg_strftime(since, sizeof(since), "%Y-%m-%d %H:%M:%S UTC", pg_gmtime(&now));
	return psprintf("Job " INT64_FORMAT " of the primary %s:%d has it since %s.",
					job->id, job->primary_host, job->request->primary_port, since);
}

/* Runs clean.sh in one of its modes; raises with the text if that fails. */
static void
clean(Job *job, const char *keep, const char *what_failed, RemoteReply *reply)
{
	RemoteLimits limits = {.progress_timeout_ms = job->request->settings->progress_timeout * 1000};

	remote_run(job->ssh, &remote_clean,
			   JOB_NAMED(job, {"keep", keep}, {"waldir", job->waldir}),
			   TABLESPACES(job), &limits, reply);
	if (!reply->ok)
		step_fail_commonly(job, reply, what_failed);
}

/*
 * Makes sure that no later job removes what a job of another primary put aside,
 * whatever becomes of this one.
 */
static void
keep_foreign(Job *job)
{
	RemoteReply reply;

	if (job->node.foreign_mark)
		clean(job, "keep", "what an interrupted job of another primary replaced could not be kept", &reply);
}

StepResult
node_lock(Job *job)
{
	RemoteLimits limits = {.timeout_ms = FILES_TIMEOUT_MS};
	RemoteReply reply;

	/* A copy that follows a failed rewind goes on under its lock. */
	if (ssh_is_holding(job->ssh))
	{
		job_detail(job, "held already");
		return STEP_DONE;
	}
	remote_hold(job->ssh, &remote_lock,
				JOB_NAMED(job, {"who", lock_owner(job)}, {"beside", job->beside}),
				&limits, &reply);
	if (remote_failed_for(&reply, "locked"))
		step_fail(job, &reply, ERRCODE_OBJECT_IN_USE, "another job is at work",
				  "Wait until it has ended, or end it by follow_primary_cancel() on the server that runs it. "
				  "If that server should not be a primary, stop it first. "
				  "If it hangs, end that process on the node, and call follow_primary() again.");
	if (remote_failed_for(&reply, "no_flock"))
		step_fail(job, &reply, ERRCODE_UNDEFINED_FILE, "the node cannot be locked for this job",
				  "Install util-linux on the node, which has flock, " THEN_CALL_AGAIN);
	if (!reply.ok || !ssh_is_holding(job->ssh))
		step_fail_commonly(job, &reply, "the node cannot be locked for this job");
	if (!remote_says(&reply, "fresh", "yes"))
	{
		const char *taken_from = remote_get(&reply, "taken_from");

		/* Another job may have come and gone since the survey. */
		job->connecting = NULL;
		survey(job);
		keep_foreign(job);
		job_detail(job, "%s%s%s, and another look at the node", step_text(&reply, "file"),
				   taken_from ? ", taken from a job whose host does not answer: " : "",
				   taken_from ? taken_from : "");
		return STEP_NEEDS_PLAN;
	}
	keep_foreign(job);
	job_detail(job, "%s", step_text(&reply, "file"));
	return STEP_DONE;
}

StepResult
node_stop(Job *job)
{
	const Settings *settings = job->request->settings;
	RemoteLimits limits = {.timeout_ms = settings->stop_timeout * 1000 + GRACE_MS};
	RemoteReply reply;

	if (job->node.state == NODE_STANDBY)
		job->undo = node_undo_stop;
	remote_run(job->ssh, &remote_stop,
			   JOB_NAMED(job,
						 {"timeout", NUMBER(settings->stop_timeout)},
						 {"command", step_expand_command(job, settings->node_stop_command)},
						 {"keep_wal", job->plan.method == METHOD_REPOINT ? "no" : "yes"},
						 {"segment_size", NUMBER(wal_segment_size)},
						 {"standby", job->node.state == NODE_STANDBY ? "yes" : "no"}),
			   NULL, &limits, &reply);
	if (remote_failed_for(&reply, "timeout"))
	{
		const char *remedy = remote_get(&reply, "remedy");

		/* It is on its way down: to start it would be to wait for that once more. */
		job->undo = NULL;
		step_fail(job, &reply, ERRCODE_SYSTEM_ERROR, "PostgreSQL did not stop in time",
				  psprintf("%sThe server is on its way down, and nobody starts it again: when it has ended, call follow_primary() again, which goes on from there. If it only needs longer, raise follow_primary.stop_timeout.",
						   remedy ? psprintf("On node %s: %s. ", node_name(job), remedy) : ""));
	}
	if (!reply.ok)
		step_fail_commonly(job, &reply, "PostgreSQL could not be stopped");
	if (remote_says(&reply, "promoted", "yes"))
	{
		job->undo = NULL;		/* a primary is nothing that a job starts */
		return step_look_again(job, "the node has been promoted meanwhile");
	}
	if (!remote_says(&reply, "was_running", "yes"))
	{
		const char *written = remote_get(&reply, "control_time");

		if (job->node.state == NODE_DOWN && written && written[0] &&
			job->control_time[0] && strcmp(written, job->control_time) != 0)
			return step_look_again(job, "the node, which was down, has run meanwhile");
		job_detail(job, "was not running");
		return STEP_DONE;
	}
	if (job->node.state == NODE_DOWN)
		return step_look_again(job, "the node, which was down, has been started meanwhile");
	job->wal_saved = false;		/* the server may have written more since */
	job_detail(job, "stopped");
	return STEP_DONE;
}

/*
 * Ends at once the server that this job has started; what it was started by is in
 * the reply.
 */
static void
stop_at_once(Job *job, RemoteReply *reply)
{
	const Settings *settings = job->request->settings;
	RemoteLimits limits = {.timeout_ms = settings->stop_timeout * 1000 + GRACE_MS};

	job->undo = NULL;			/* that would start it again */
	remote_run(job->ssh, &remote_stop,
			   JOB_NAMED(job,
						 {"timeout", NUMBER(settings->stop_timeout)},
						 {"command", step_expand_command(job, settings->node_stop_command)},
						 {"version", NUMBER(job->primary.version_num)},
						 {"demote", "yes"}),
			   NULL, &limits, reply);
}

/* What it was started by, as a sentence, and why it could not be stopped, if it could not. */
static char *
start_of(const RemoteReply *reply)
{
	const char *command = remote_get(reply, "started_by");

	return psprintf("%s%s%s", command ? "It was started by: " : "It was started.", command ? command : "",
					reply->ok ? "" : psprintf("\n%s", reply->messages));
}

void
node_fail_promoted(Job *job)
{
	RemoteReply reply;

	stop_at_once(job, &reply);
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 reply.ok ?
			 errmsg("node %s became a primary after its start, and was stopped at once", node_name(job)) :
			 errmsg("node %s became a primary after its start, and could not be stopped", node_name(job)),
			 errdetail("%s", start_of(&reply)),
			 reply.ok ?
			 errhint("The settings files do not end its recovery: see that no recovery target stands in its start command, in node_start_command or its service's unit, and that nobody promotes it. "
					 "Then call follow_primary() again with when_down => 'rejoin', and with method => 'rewind' or 'basebackup' if it has begun a timeline above this server's: that brings the node back to this server's history.") :
			 errhint("It takes writes that are going to be lost: stop it at once, on host %s: %s/pg_ctl -D %s -m immediate stop",
					 job->request->node_host, job->request->settings->node_bin_dir, job->node.pgdata)));
}

/* By settings that win over those of its files it may replay what is not of this server. */
pg_noreturn static void
fail_started_with(Job *job, const char *names)
{
	RemoteReply reply;

	stop_at_once(job, &reply);
	ereport(ERROR,
			(errcode(ERRCODE_CONFIG_FILE_ERROR),
			 reply.ok ?
			 errmsg("node %s was started with settings that win over those of the job, and was stopped at once", node_name(job)) :
			 errmsg("node %s was started with settings that win over those of the job, and could not be stopped", node_name(job)),
			 errdetail("Its start command sets %s. %s", names, start_of(&reply)),
			 errhint(STARTED_WITH_HINT)));
}

/*
 * Starts the node's server; again: as the standby that it was before.  Returns the
 * state that it is in, and in *emptied whether recovery targets were emptied.
 */
static const char *
start(Job *job, bool again, bool *emptied)
{
	const Settings *settings = job->request->settings;
	RemoteLimits limits = {.timeout_ms = settings->start_timeout * 1000 + GRACE_MS};
	RemoteReply reply;

	remote_run(job->ssh, &remote_start,
			   JOB_NAMED(job,
						 {"config", job->config_file},
						 {"timeout", NUMBER(settings->start_timeout)},
						 {"command", step_expand_command(job, settings->node_start_command)},
						 {"again", again ? "yes" : "no"}),
			   NULL, &limits, &reply);
	if (emptied)
		*emptied = remote_says(&reply, "emptied", "yes");
	if (remote_failed_for(&reply, "timeout"))
		step_fail(job, &reply, ERRCODE_SYSTEM_ERROR, "PostgreSQL did not start in time",
				  "See the server's log above. If it needs longer, raise follow_primary.start_timeout; " THEN_CALL_AGAIN);
	if (!reply.ok)
		step_fail(job, &reply, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, "PostgreSQL did not start",
				  "See the server's log above, remove the cause, " THEN_CALL_AGAIN);
	if (remote_says(&reply, "promoted", "yes"))
		node_fail_promoted(job);
	if (remote_get(&reply, "started_with"))
		fail_started_with(job, remote_get(&reply, "started_with"));
	job->started = true;
	return step_text(&reply, "status");
}

StepResult
node_start(Job *job)
{
	job_detail(job, "%s", start(job, false, NULL));
	return STEP_DONE;
}

void
node_undo_stop(Job *job)
{
	bool		emptied;

	start(job, true, &emptied);
	job->undone = emptied ?
		"The node's server was started again. The recovery targets in its settings, with which it could have become a primary, are emptied." :
		"The node's server was started again.";
}

/* How people remove the replaced data that is kept: paths, one a line. */
static const char *
removal_hint(const Job *job, const char *kept)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfo(&buf, "The replaced data is kept. When nobody needs it any more, on node %s: rm -r",
					 node_name(job));
	while (*kept)
	{
		size_t		len = strcspn(kept, "\n");

		appendStringInfoChar(&buf, ' ');
		remote_quote(&buf, pnstrdup(kept, len));
		kept += len + strspn(kept + len, "\n");
	}
	return buf.data;
}

#define NOT_CLEANED	"it follows, but what the job left beside its data could not be removed,"

void
node_remove_mark(Job *job)
{
	RemoteReply reply;

	clean(job, "mark", NOT_CLEANED, &reply);
}

StepResult
node_clean(Job *job)
{
	RemoteReply reply;
	const char *kept;

	clean(job, job->request->settings->keep_old_data == KEEP_ALWAYS ? "always" : "until_proven",
		  NOT_CLEANED, &reply);
	lost_record_saved(job, &reply);
	kept = remote_get(&reply, "kept");
	if (kept && kept[0])
	{
		job_detail(job, "the replaced data is kept in %s%s", kept,
				   job->node.foreign_mark ? "\nsince another primary's job began with it, which may not have saved all WAL that is lost by this one" : "");
		job_record_hint(job, removal_hint(job, kept));
	}
	return STEP_DONE;
}
