/*
 * copy.c
 *		The node gets a new copy of this server, beside what it has, or in its
 *		place.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "compat.h"
#include "folders.h"
#include "record.h"
#include "recovery_conf.h"
#include "sql.h"
#include "steps/config.h"
#include "steps/copy.h"
#include "steps/copy_command.h"
#include "steps/lost.h"
#include "survey.h"

StepResult
copy_check_space(Job *job)
{
	RoomFacts	room;

	folders_look_for_room(job, &room);
	job_detail(job, "%s", room.where);
	if ((room.missing > 0) != job->plan.in_place)
		return STEP_NEEDS_PLAN;
	return STEP_DONE;
}

/* What the primary says of the base backup that the node takes. */
static bool
copy_progress(void *arg)
{
	Job		   *job = (Job *) arg;
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "copy progress",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(scratch);
	const char *args[] = {psprintf("follow_primary_job_" INT64_FORMAT, job->id)};
	SqlResult  *row = sql_run(BASE_BACKUP_PROGRESS, lengthof(args), args);
	int64		done;
	int64		total;
	bool		moved = false;

	/* A checkpoint takes as long as it takes. */
	if (row->nrows > 0 && sql_value(row, 0, 2))
		moved = strcmp(sql_value(row, 0, 2), "t") == 0;
	if (row->nrows > 0 && sql_value(row, 0, 0))
	{
		done = strtoll(sql_value(row, 0, 0), NULL, 10);
		total = sql_value(row, 0, 1) ? strtoll(sql_value(row, 0, 1), NULL, 10) : 0;
		moved |= done != job->bytes_done;
		job_progress(job, done, Max(done, total));
	}
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(scratch);
	return moved;
}

/*
 * The slot that the copy streams through.  There is none while the node's old
 * standby runs, which uses the node's slot, or will again in a moment: then a
 * temporary slot of this worker holds the WAL until the new standby is proven,
 * and goes with the worker however it ends.
 */
static const char *
slot_for_copy(const Job *job)
{
	const char *own[] = {psprintf("follow_primary_job_" INT64_FORMAT, job->id)};

	if (job->node.state != NODE_STANDBY)
		return job->request->slot_name;
	sql_run("SELECT pg_create_physical_replication_slot($1, true, true) "
			"WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1)", 1, own);
	return "";
}

StepResult
copy_make(Job *job)
{
	const Settings *settings = job->request->settings;
	RemoteLimits limits = {
		.progress_timeout_ms = settings->progress_timeout * 1000,
		.on_tick = copy_progress,
		.arg = job
	};
	RemoteReply reply;
	int64		bytes;

	config_lend(job);
	if (settings->copy_command[0] != '\0')
	{
		(void) slot_for_copy(job);
		copy_by_command(job);
		return STEP_DONE;
	}
	/* Servers before 13 do not tell. */
	if (job->primary.version_num < 130000)
		limits.on_stderr_line = step_tool_progress;
	remote_run(job->ssh, &remote_basebackup,
			   JOB_NAMED(job,
						 {"conninfo", job_tool_conninfo(job, settings->replication_user, NULL)},
						 {"passfile", settings->passfile},
						 {"slot", slot_for_copy(job)},
						 {"version", NUMBER(job->primary.version_num)},
						 {"max_rate", NUMBER(settings->copy_max_rate)},
						 {"compression", settings->copy_compression},
						 {"waldir", job->waldir}),
			   mapped_tablespaces(job, TABLESPACE_LOCATION), &limits, &reply);
	if (remote_failed_for(&reply, "tablespace_in_use"))
		step_fail_for_tablespace(job, &reply);
	if (remote_failed_for(&reply, "slot_in_use"))
		step_fail(job, &reply, ERRCODE_OBJECT_IN_USE, "the replication slot is in use",
				  "Another server streams through it: give this node another slot_name.");
	if (remote_failed_for(&reply, "verify_failed"))
		step_fail(job, &reply, ERRCODE_DATA_CORRUPTED, "the copy does not verify",
				  job->plan.in_place ?
				  "Look for disk errors on the node, " THEN_CALL_AGAIN :
				  "The node's data is as it was before the copy. Look for disk errors on the node, " THEN_CALL_AGAIN);
	if (!reply.ok)
		step_fail_commonly(job, &reply, "the copy failed");
	if (remote_number(&reply, "bytes", &bytes))
		job_progress(job, bytes, bytes);
	job_detail(job, INT64_FORMAT " MB, %s", job->bytes_done >> 20,
			   remote_says(&reply, "verified", "yes") ? "verified" : "not verified");
	return STEP_DONE;
}

StepResult
copy_clear(Job *job)
{
	RemoteLimits limits = {.progress_timeout_ms = job->request->settings->progress_timeout * 1000};
	RemoteReply reply;
	RoomFacts	room;

	/*
	 * The saved configuration and WAL take room, too; and somebody may have
	 * made room meanwhile.
	 */
	folders_look_for_room(job, &room);
	if (room.missing == 0)
	{
		survey(job);
		job_detail(job, "there is room now");
		return STEP_NEEDS_PLAN;
	}
	if (room.missing_without_old > 0)
		ereport(ERROR,
				(errcode(ERRCODE_DISK_FULL),
				 errmsg("there is no room for a copy on node %s, not even in place of the old data",
						node_name(job)),
				 errdetail("Of the room %s", room.where),
				 errhint("Make room on the node, then call follow_primary() again. The old data is untouched.")));

	job_notice(job, "the old data of node %s is removed now, before its replacement is proven, for there is no room for both",
			   node_name(job));
	remote_run(job->ssh, &remote_clear,
			   JOB_NAMED(job,
						 {"version", NUMBER(job->primary.version_num)},
						 {"waldir", job->waldir}),
			   TABLESPACES(job), &limits, &reply);
	if (remote_failed_for(&reply, "tablespace_in_use"))
		step_fail_for_tablespace(job, &reply);
	if (!reply.ok)
		step_fail_commonly(job, &reply, "the old data could not be removed");
	job->undo = NULL;
	lost_record_saved(job, &reply);
	job_detail(job, "the old data is removed, its replacement not proven yet");
	return STEP_DONE;
}

StepResult
copy_swap(Job *job)
{
	RemoteLimits limits = {.timeout_ms = FILES_TIMEOUT_MS};
	RemoteReply reply;

	if (job->plan.finish && job->node.mark != MARK_HALF_SWAPPED)
	{
		job_detail(job, "the data is in place");
		return STEP_DONE;
	}
	remote_run(job->ssh, &remote_swap, JOB_NAMED(job, {"waldir", job->waldir}),
			   TABLESPACES(job), &limits, &reply);
	if (!reply.ok)
		step_fail_commonly(job, &reply, "the copy could not be brought into place");
	job->undo = NULL;			/* it is not what it was */
	return STEP_DONE;
}
