/*
 * rewind.c
 *		The node's data goes back to the fork, by pg_rewind.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "access/xlog_internal.h"

#include "compat.h"
#include "folders.h"
#include "record.h"
#include "recovery_conf.h"
#include "steps/lost.h"
#include "steps/rewind.h"
#include "wal.h"

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
			   mapped_tablespaces(NULL, TABLESPACE_OID), &limits, &reply);
	lost_record_saved(job, &reply);
	/* Its WAL is as before, and may be written to. */
	if (!reply.ok && remote_says(&reply, "changed", "no"))
		job->wal_saved = false;
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
