/*
 * rewind.c
 *		The node's data goes back to the fork, by pg_rewind; the WAL that only the
 *		node has is saved first.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "access/xlog_internal.h"

#include "compat.h"
#include "folders.h"
#include "record.h"
#include "recovery_conf.h"
#include "steps/rewind.h"
#include "wal.h"

bool
rewind_read_lost_wal(const RemoteReply *reply, LostWal *lost)
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

StepResult
rewind_save_wal(Job *job)
{
	RemoteLimits limits = {.progress_timeout_ms = job->request->settings->progress_timeout * 1000};
	RemoteReply reply;
	LostWal		lost;
	bool		fork_known = job->plan.fork == FORK_KNOWN;
	bool		nothing_lost = job->plan.fork == FORK_NONE || job->plan.rejoin;

	/* Once the data has been changed, its WAL is not the node's own. */
	if (job->wal_saved ||
		((job->node.mark == MARK_HALF_CHANGED || job->node.mark == MARK_CLEARED) && !job->node.mark_stale))
	{
		job_detail(job, job->wal_saved ? "done already" :
				   "done by the job that was interrupted");
		return STEP_DONE;
	}
	/* Without a fork a rewind takes nothing away. */
	if (job->node.pgdata_state != PGDATA_OK ||
		(nothing_lost && job->plan.method == METHOD_REWIND))
	{
		job_detail(job, "the node has no WAL that this server lacks");
		return STEP_DONE;
	}
	remote_run(job->ssh, &remote_save_wal,
			   JOB_NAMED(job,
						 {"fork_lsn", nothing_lost ? "none" :
							 fork_known ? lsn_text(job->plan.fork_lsn) : ""},
						 {"fork_tli", fork_known && !nothing_lost ? NUMBER(job->plan.fork_timeline) : ""},
						 {"segment_size", NUMBER(wal_segment_size)},
						 {"node_tli", NUMBER(job->node.timeline)}),
			   NULL, &limits, &reply);
	if (!reply.ok)
		step_fail_commonly(job, &reply, "the WAL that would be lost could not be saved");
	if (!rewind_read_lost_wal(&reply, &lost))
		step_fail_answer(job, &reply, "whether the WAL that would be lost is saved");

	job->wal_saved = true;
	if (!lost.counted)
	{
		job->wal_lost = true;
		job_record_lost_wal(job, NULL, NULL, lost.dir);
		job_detail(job, "all WAL that may be lost, not counted, kept in %s: %s",
				   lost.dir, reply.messages);
		return STEP_DONE;
	}
	job->wal_lost = lost.bytes > 0;
	if (nothing_lost && lost.dir == NULL)
	{
		if (job->plan.rejoin)
			job_record_lost_wal(job, "0", "0", NULL);
		job_detail(job, "the node has no WAL that this server lacks");
		return STEP_DONE;
	}

	/* Where WAL is missing there may be more transactions than were counted. */
	job_record_lost_wal(job, psprintf(INT64_FORMAT, lost.bytes),
						lost.complete ? psprintf(INT64_FORMAT, lost.transactions) : NULL,
						lost.dir);
	job_detail(job, INT64_FORMAT " bytes of WAL with %s" INT64_FORMAT " transactions%s%s%s%s",
			   lost.bytes, lost.complete ? "" : "at least ", lost.transactions,
			   lost.unarchived > 0 ?
			   psprintf(", and " INT64_FORMAT " older segments that were not archived yet", lost.unarchived) : "",
			   lost.dir ? ", kept in " : lost.bytes > 0 ? ", not kept" : "", lost.dir ? lost.dir : "",
			   lost.complete ? "" : "; not all of it is on the node any more");
	return STEP_DONE;
}

/*
 * After a rewind: can the node have the WAL that it asks for next?  The script
 * names no segment when a start has already used up the backup_label.
 */
static bool
can_start_from_next_segment(Job *job, const RemoteReply *reply)
{
	const char *segment = remote_get(reply, "next_segment");
	TimeLineID	tli;
	XLogSegNo	number;

	if (segment == NULL || segment[0] == '\0')
		return true;
	if (!IsXLogFileName(segment))
		step_fail_answer(job, reply, "which WAL it needs next");
	XLogFromFileName(segment, &tli, &number, wal_segment_size);
	return wal_is_available(job, number * wal_segment_size);
}

const char **
rewind_tablespaces(void)
{
	SqlResult  *rows = primary_tablespaces();
	const char **list = palloc0(sizeof(char *) * (2 * rows->nrows + 1));

	for (int i = 0; i < rows->nrows; i++)
	{
		list[2 * i] = sql_value(rows, i, 0);
		list[2 * i + 1] = sql_value(rows, i, 1);
	}
	return list;
}

static bool
may_copy_instead(const Job *job)
{
	return job->request->method == REQUESTED_AUTO;
}

StepResult
rewind_impossible(Job *job, const RemoteReply *reply)
{
	if (!may_copy_instead(job))
		step_fail(job, reply, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
				  "the data cannot be rewound",
				  "Use method => 'auto' or 'basebackup' to have it copied.");
	job_detail(job, "not possible: %s", reply->messages);
	return STEP_NEEDS_COPY;
}

StepResult
rewind_data(Job *job)
{
	const Settings *settings = job->request->settings;
	RemoteLimits limits = {
		.progress_timeout_ms = settings->progress_timeout * 1000,
		.on_stderr_line = step_tool_progress,
		.arg = job
	};
	RemoteReply reply;

	remote_run(job->ssh, &remote_rewind,
			   JOB_NAMED(job,
						 {"config", job->config_file},
						 {"conninfo", job_tool_conninfo(job, settings->rewind_user, settings->rewind_database)},
						 {"passfile", settings->passfile},
						 {"restore_command", job_restore_command(job)},
						 {"version", NUMBER(job->primary.version_num)},
						 {"keep_slots", job->keep_slots},
						 {"lost_tli", job->wal_lost ? NUMBER(job->plan.fork_timeline) : ""},
						 {"fork_lsn", lsn_text(job->plan.fork_lsn)},
						 {"segment_size", NUMBER(wal_segment_size)}),
			   rewind_tablespaces(), &limits, &reply);
	if (remote_failed_for(&reply, "tablespace_in_use"))
		step_fail_for_tablespace(job, &reply);
	if (remote_failed_for(&reply, "needs_copy"))
		return rewind_impossible(job, &reply);
	if (!reply.ok)
		step_fail_commonly(job, &reply, "pg_rewind failed");
	if (!remote_says(&reply, "result", "rewound") &&
		!remote_says(&reply, "result", "not_required"))
		step_fail_answer(job, &reply, "whether the data was rewound");
	if (!can_start_from_next_segment(job, &reply))
	{
		if (!may_copy_instead(job))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("the WAL that node %s needs next is gone", node_name(job)),
					 errdetail("Its data is rewound, but \"%s\" is neither on this server nor served by a restore_command.",
							   remote_get(&reply, "next_segment")),
					 errhint("Use method => 'auto' or 'basebackup' to have the data copied.")));
		job_detail(job, "rewound, but the WAL that it needs next, \"%s\", is gone from this server",
				   remote_get(&reply, "next_segment"));
		return STEP_NEEDS_COPY;
	}
	job_detail(job, "%s", remote_says(&reply, "result", "rewound") ?
			   "rewound" : "no rewind was required");
	return STEP_DONE;
}
