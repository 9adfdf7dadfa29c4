/*
 * lost.c
 *		The WAL that only the node has, and is going to lose: it is saved, and
 *		counted.
 *
 * What a batch job has left may be many times the data: so the WAL only gets a
 * second name before the data goes, and is counted when the node follows.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "access/xlog_internal.h"

#include "compat.h"
#include "record.h"
#include "sql.h"
#include "steps/lost.h"

bool
lost_read(const RemoteReply *reply, LostWal *lost)
{
	lost->dir = remote_get(reply, "lost_wal_dir");
	lost->counted = !remote_says(reply, "complete", "unknown");
	if (!lost->counted)
		return lost->dir && lost->dir[0] == '/';
	lost->complete = remote_says(reply, "complete", "yes");
	return remote_number(reply, "lost_wal_bytes", &lost->bytes) &&
		remote_number(reply, "lost_transactions", &lost->transactions) &&
		remote_number(reply, "unarchived", &lost->unarchived) &&
		(lost->complete || remote_says(reply, "complete", "no")) &&
		(lost->bytes > 0 || lost->transactions == 0) &&
		(lost->dir ? lost->dir[0] == '/' && (lost->bytes > 0 || lost->unarchived > 0) :
		 lost->transactions == 0 && lost->unarchived == 0 && (lost->bytes == 0 || lost->complete));
}

/* What is lost, as the step's detail. */
static void
tell(Job *job, const LostWal *lost)
{
	job_detail(job, INT64_FORMAT " bytes of WAL with %s" INT64_FORMAT " transactions%s%s%s%s",
			   lost->bytes, lost->complete ? "" : "at least ", lost->transactions,
			   lost->unarchived > 0 ?
			   psprintf(", and " INT64_FORMAT " older segments that were not archived yet", lost->unarchived) : "",
			   lost->dir ? ", kept in " : lost->bytes > 0 ? ", not kept" : "", lost->dir ? lost->dir : "",
			   lost->complete ? "" : "; not all of it is on the node any more");
}

/* Has an interrupted job begun to change the data? */
static bool
is_changed(const Job *job)
{
	return (job->node.mark == MARK_HALF_CHANGED || job->node.mark == MARK_CLEARED) && !job->node.mark_stale;
}

/*
 * The names of this server's WAL that pg_rewind would write over the node's: on
 * the timeline of the fork, which this server has left, and on later ones than
 * its own, should it have such.  Of its own later timelines nothing is linked.
 */
static const char **
own_names(const Job *job)
{
	XLogSegNo	number = job->plan.fork_lsn / wal_segment_size;
	char		first[MAXFNAMELEN];
	const char *args[] = {first, NUMBER(job->primary.timeline)};
	SqlResult  *rows;
	const char **names;

	XLogFileName(first, job->plan.fork_timeline, number, wal_segment_size);
	rows = sql_run("SELECT name FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}' AND substr(name, 9, 16) > substr($1, 9) "
				   "AND (left(name, 8) = left($1, 8) OR ('x' || left(name, 8))::bit(32)::bigint > $2::bigint)",
				   lengthof(args), args);
	names = palloc0(sizeof(char *) * (rows->nrows + 1));
	for (int i = 0; i < rows->nrows; i++)
		names[i] = sql_value(rows, i, 0);
	return names;
}

/* What comes of the node's data, as stage_wal.sh wants to know. */
static const char *
fate_of_data(const Job *job)
{
	if (job->plan.method == METHOD_BASEBACKUP)
		return "replaced";
	return job->plan.method == METHOD_REWIND ? "rewound" : "kept";
}

static void
nothing_lost(Job *job)
{
	if (job->plan.method != METHOD_BASEBACKUP || job->plan.fork != FORK_NONE)
		job_record_lost_wal(job, "0", "0", NULL, true);
	job_detail(job, "the node has no WAL that this server lacks");
}

void
lost_record_saved(Job *job, const RemoteReply *reply)
{
	const char *dir = remote_get(reply, "lost_wal_dir");

	if (dir == NULL)
		return;
	job->lost_wal_dir = MemoryContextStrdup(job->context, dir);
	job_record_lost_wal(job, NULL, NULL, dir, false);
}

StepResult
lost_save(Job *job)
{
	RemoteLimits limits = {.progress_timeout_ms = job->request->settings->progress_timeout * 1000};
	RemoteReply reply;
	LostWal		lost;
	bool		no_fork = job->plan.fork == FORK_NONE || job->plan.rejoin;
	bool		fork_known = job->plan.fork == FORK_KNOWN && !no_fork;
	int64		linked = 0;
	int64		copied = 0;

	/* Once the data has been changed, its WAL is not the node's own. */
	if (job->wal_saved || is_changed(job))
	{
		job_detail(job, job->wal_saved ? "done already" :
				   "done by the job that was interrupted");
		return STEP_DONE;
	}
	/* Without a fork a rewind takes nothing away. */
	if (job->node.pgdata_state != PGDATA_OK ||
		(no_fork && job->plan.method == METHOD_REWIND))
	{
		job_detail(job, "the node has no WAL that this server lacks");
		return STEP_DONE;
	}
	remote_run(job->ssh, &remote_stage_wal,
			   JOB_NAMED(job,
						 {"data", fate_of_data(job)},
						 {"fork_lsn", no_fork ? "none" : fork_known ? lsn_text(job->plan.fork_lsn) : ""},
						 {"fork_tli", fork_known ? NUMBER(job->plan.fork_timeline) : ""},
						 {"segment_size", NUMBER(wal_segment_size)},
						 {"node_tli", NUMBER(job->node.timeline)},
						 {"primary_tli", NUMBER(job->primary.timeline)}),
			   job->plan.method == METHOD_REWIND ? own_names(job) : NULL, &limits, &reply);
	if (!reply.ok)
		step_fail_commonly(job, &reply, "the WAL that would be lost could not be saved");
	if (job->plan.rejoin)
	{
		if (!lost_read(&reply, &lost))
			step_fail_answer(job, &reply, "whether the WAL that would be lost is saved");
		job->wal_saved = true;
		if (lost.dir == NULL)
			nothing_lost(job);
		else
		{
			job_record_lost_wal(job, "0", "0", lost.dir, true);
			tell(job, &lost);
		}
		return STEP_DONE;
	}
	if (!remote_says(&reply, "lost", "yes") && !remote_says(&reply, "lost", "no"))
		step_fail_answer(job, &reply, "whether the WAL that would be lost is saved");
	job->wal_saved = true;
	job->wal_lost = remote_says(&reply, "lost", "yes");
	(void) remote_number(&reply, "linked", &linked);
	(void) remote_number(&reply, "copied", &copied);
	if (linked + copied == 0)
		nothing_lost(job);
	else
		job_detail(job, INT64_FORMAT " segments have a second name, " INT64_FORMAT " are copied", linked, copied);
	return STEP_DONE;
}

/* How anybody does it, should this job end before. */
static const char *
count_hint(const Job *job)
{
	StringInfoData buf;

	initStringInfo(&buf);
	if (job->hint)
		appendStringInfo(&buf, "%s\n", job->hint);
	appendStringInfoString(&buf, "The WAL that was lost is saved, but not counted yet. Call follow_primary() again, which does that");
	if (job->lost_wal_dir && job->plan.fork == FORK_KNOWN)
	{
		appendStringInfo(&buf, ", or read it on node %s: cd ", node_name(job));
		remote_quote(&buf, job->lost_wal_dir);
		appendStringInfo(&buf, " && %s/pg_waldump -p . -t %u -s %s -r Transaction",
						 job->request->settings->node_bin_dir, job->plan.fork_timeline, lsn_text(job->plan.fork_lsn));
	}
	else
		appendStringInfoChar(&buf, '.');
	return buf.data;
}

StepResult
lost_count(Job *job)
{
	RemoteLimits limits = {.progress_timeout_ms = job->request->settings->progress_timeout * 1000};
	const char *counted = "";
	const char *hint = job->hint;

	if (job->lost_wal_dir == NULL && !job->node.uncounted)
	{
		job_detail(job, "there is nothing to count");
		return STEP_DONE;
	}
	job_record_hint(job, count_hint(job));
	for (;;)
	{
		RemoteReply reply;
		LostWal		lost;
		const char *dir;

		remote_run(job->ssh, &remote_count_wal, JOB_NAMED(job, {"counted", counted}), NULL, &limits, &reply);
		if (!reply.ok)
			step_fail_commonly(job, &reply, "it follows, but the WAL that was lost could not be counted");
		dir = remote_get(&reply, "counting");
		if (dir && dir[0] == '\0')
			break;
		if (dir == NULL || dir[0] != '/' || strcmp(dir, counted) == 0 || !lost_read(&reply, &lost))
			step_fail_answer(job, &reply, "how much WAL was lost");
		job_record_counted(job, dir, remote_get(&reply, "saved_by"),
						   lost.counted ? psprintf(INT64_FORMAT, lost.bytes) : NULL,
						   lost.counted && lost.complete ? psprintf(INT64_FORMAT, lost.transactions) : NULL,
						   lost.dir);
		if (lost.counted)
			tell(job, &lost);
		else
			job_detail(job, "all WAL that may be lost, not counted, kept in %s: %s", lost.dir, reply.messages);
		counted = pstrdup(dir);
	}
	job_record_hint(job, hint);
	return STEP_DONE;
}
