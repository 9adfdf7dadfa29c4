/*
 * primary.c
 *		What is done on this server: checkpoint and slot.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "miscadmin.h"
#include "postmaster/bgwriter.h"
#include "storage/latch.h"
#include "utils/memutils.h"

#include "compat.h"
#include "record.h"
#include "slot_mark.h"
#include "sql.h"
#include "ssh/net.h"
#include "steps/primary.h"

/* The promotion's own checkpoint may still run when ours is asked for. */
#define CHECKPOINT_TRIES 3
#define CHECKPOINT_POLL_MS	20

/* How soon a client that lives has answered what was just flushed. */
#define SLOT_ANSWER_MS		2000
#define SLOT_RELEASE_MS		2000
#define SLOT_POLL_MS		20

static bool
control_file_is_current(void)
{
	return sql_is_true("SELECT timeline_id = " SQL_TIMELINE " FROM pg_control_checkpoint()",
					   0, NULL);
}

/*
 * Asks for a checkpoint and waits for it.  It may take minutes, in which the
 * node's sshd wants answers.  A failed checkpoint is not seen here: so there is
 * a limit.
 */
static bool
wait_for_checkpoint(Job *job)
{
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "checkpoint",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(scratch);
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													   job->request->settings->progress_timeout * 1000);
	bool		current = false;

	RequestCheckpoint(CHECKPOINT_FAST | CHECKPOINT_FORCE);
	while (!current && GetCurrentTimestamp() < deadline)
	{
		ssh_serve(job->ssh);
		net_pause(CHECKPOINT_POLL_MS);
		current = control_file_is_current();
		MemoryContextReset(scratch);
	}
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(scratch);
	return current;
}

StepResult
primary_checkpoint(Job *job)
{
	/*
	 * Only the timeline matters: once a checkpoint of this timeline is in the
	 * control file, another one would only be an I/O storm.
	 */
	if (control_file_is_current())
	{
		job_detail(job, "not needed");
		return STEP_DONE;
	}
	if (wait_for_checkpoint(job))
		return STEP_DONE;
	for (int i = 0; i < CHECKPOINT_TRIES; i++)
	{
		/* Directly, not by SQL: no transaction is held while it runs. */
		RequestCheckpoint(CHECKPOINT_FAST | CHECKPOINT_FORCE | CHECKPOINT_WAIT);
		if (control_file_is_current())
			return STEP_DONE;
	}
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("this server's control file does not show its timeline yet"),
			 errhint("Call follow_primary() again when the checkpoint of the promotion has ended.")));
}

/* Ends a WAL sender, and waits until it has let the slot go. */
static void
end_sender(const char *slot, const char *pid)
{
	const char *args[] = {slot, pid};

	for (int waited = 0; waited < SLOT_RELEASE_MS; waited += SLOT_POLL_MS)
	{
		if (sql_run("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots "
					"WHERE slot_name = $1 AND active_pid = $2::int", lengthof(args), args)->nrows == 0)
			return;
		net_pause(SLOT_POLL_MS);
	}
}

/*
 * The node does not stream through its slot, as far as it says itself, so that is
 * held by a sender whose client is gone, or by another client.  A standby answers
 * to the step's row, which has just been flushed here.  pg_receivewal reports every
 * ten seconds only, and counts as gone.  Raises 55006 where another client answers;
 * else ends the sender, whose process it returns, or NULL if it ended by itself.
 */
static const char *
free_slot_of_node(const Job *job)
{
	const char *slot = job->request->slot_name;
	const char *args[] = {slot, sql_scalar("SELECT pg_current_wal_flush_lsn()", 0, NULL)};
	const char *pid = NULL;

	for (int waited = 0; waited < SLOT_ANSWER_MS; waited += SLOT_POLL_MS)
	{
		SqlResult  *client = sql_run("SELECT r.write_lsn >= $2::pg_lsn, r.application_name, "
									 "coalesce(host(r.client_addr), 'this host'), r.pid "
									 "FROM pg_replication_slots s JOIN pg_stat_replication r ON r.pid = s.active_pid "
									 "WHERE s.slot_name = $1", lengthof(args), args);

		if (client->nrows == 0)
			return NULL;
		pid = sql_value(client, 0, 3);
		if (sql_value(client, 0, 0) && strcmp(sql_value(client, 0, 0), "t") == 0)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("the node's replication slot \"%s\" is in use by another server", slot),
					 errdetail("The node %s, but \"%s\" at %s, process %s here, streams through the slot.",
							   job->node.state == NODE_DOWN ? "is down" : "does not stream from this server",
							   sql_value(client, 0, 1), sql_value(client, 0, 2), pid),
					 errhint("Give this node a slot_name of its own, or end the other's replication, on this server: SELECT pg_terminate_backend(%s). "
							 "If it is the node, which has come back meanwhile, call follow_primary() again.", pid)));
		net_pause(SLOT_POLL_MS);
	}
	end_sender(slot, pid);
	return pid;
}

StepResult
primary_ensure_slot(Job *job)
{
	const char *slot[] = {job->request->slot_name};
	PrimaryFacts *facts = &job->primary;

	if (facts->slot_exists && facts->slot_lost)
	{
		sql_run("SELECT pg_drop_replication_slot($1)", 1, slot);
		facts->slot_exists = false;
	}
	if (facts->slot_exists)
	{
		const char *ended = plan_slot_is_held(facts, &job->node) ? free_slot_of_node(job) : NULL;

		/* The keeper had it for this moment; now it is the node's. */
		if (slot_mark(slot[0]) == SLOT_OF_KEEPER)
			slot_set_mark(slot[0], SLOT_OF_JOB);
		job_detail(job, "%s, which was there%s", slot[0],
				   ended ? psprintf("; its WAL sender of a connection that is lost, process %s, was ended", ended) : "");
		return STEP_DONE;
	}
	/* Recorded before: a job that dies in between would leave the slot behind. */
	job_record_slot_made(job);
	HOLD_INTERRUPTS();
	sql_run("SELECT pg_create_physical_replication_slot($1, true)", 1, slot);
	job->slot_made = true;
	RESUME_INTERRUPTS();
	slot_set_mark(slot[0], SLOT_OF_JOB);
	facts->slot_exists = true;
	job_detail(job, "%s, made", slot[0]);
	return STEP_DONE;
}

/* Returns false if a signal came in between. */
static bool
try_drop_slot(const char *slot, const char *client)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool cancelled = false;

	PG_TRY();
	{
		if (client)
			sql_run("SELECT pg_terminate_backend(pid) FROM pg_stat_replication "
					"WHERE application_name = $1", 1, &client);
		for (int waited = 0; waited < SLOT_RELEASE_MS; waited += SLOT_POLL_MS)
		{
			char	   *active = sql_scalar("SELECT active FROM pg_replication_slots WHERE slot_name = $1",
											1, &slot);

			if (active == NULL || strcmp(active, "f") == 0)
				break;
			(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
							 SLOT_POLL_MS, PG_WAIT_EXTENSION);
			ResetLatch(MyLatch);
		}
		sql_run("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots "
				"WHERE slot_name = $1 AND NOT active", 1, &slot);
	}
	PG_CATCH();
	{
		cancelled = sql_recover(context)->sqlerrcode == ERRCODE_QUERY_CANCELED;
	}
	PG_END_TRY();
	return !cancelled;
}

/*
 * Drops a slot that is free, or soon is. Ends the client of that name first, if
 * there is one.  No signal keeps it from that, for no later sweep sees the slot; a
 * job that is to end ends at its next interrupt check.
 */
static void
drop_slot(const char *slot, const char *client)
{
	bool		cancelled = false;

	while (!try_drop_slot(slot, client))
		cancelled = true;
	if (cancelled)
		InterruptPending = QueryCancelPending = true;
}

void
primary_drop_slot(const char *slot)
{
	drop_slot(slot, NULL);
}

void
primary_drop_made_slot(Job *job)
{
	if (!job->slot_made)
		return;
	job->slot_made = false;

	/* The server's end of an interrupted copy may not have noticed yet. */
	drop_slot(job->request->slot_name, psprintf("follow_primary_job_" INT64_FORMAT, job->id));
}

void
primary_drop_former_slot(Job *job)
{
	if (job->former_slot)
		primary_drop_slot(job->former_slot);
}
