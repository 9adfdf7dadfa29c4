/*
 * record.c
 *		The record of a job's progress, in follow_primary_job and
 *		follow_primary_step.
 *
 * Every function is a transaction of its own, committed before any network
 * work goes on.  None waits for a standby, which may be the very one that is
 * being made.  What a crash of this server must not take back is flushed: that
 * there is a job, that a step is about to change something, what was lost, and
 * how the job ended.
 */
#include "postgres.h"

#include <sys/resource.h>

#include "catalog/pg_collation.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/formatting.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "record.h"
#include "sql.h"
#include "ssh/net.h"

#define PROGRESS_INTERVAL_MS 1000
#define SLOT_POLL_MS		50

#define TEXT_INT64(value)	psprintf(INT64_FORMAT, (int64) (value))

char *
node_name(const Job *job)
{
	return psprintf("%s:%d", job->request->node_host, job->request->node_port);
}

void
job_error_context(void *arg)
{
	const Job  *job = (const Job *) arg;

	if (job->step)
		errcontext("follow_primary job " INT64_FORMAT ", node %s:%d, step %s",
				   job->id, job->request->node_host, job->request->node_port, job->step);
	else
		errcontext("follow_primary job " INT64_FORMAT ", node %s:%d",
				   job->id, job->request->node_host, job->request->node_port);
}

void
job_log_begin(const Job *job)
{
	ereport(LOG,
			(errmsg("follow_primary job " INT64_FORMAT " for node %s: begun, method %s, slot \"%s\"",
					job->id, node_name(job), requested_method_name(job->request->method),
					job->request->slot_name),
			 errhidecontext(true)));
}

void
job_log_end(const Job *job, const char *state, const ErrorData *error)
{
	/*
	 * errfinish() looks for interrupts after a message. The job has ended: another
	 * signal, as the second of the two that the postmaster sends to each process
	 * at a shutdown, must not keep its end from being recorded.
	 */
	HOLD_CANCEL_INTERRUPTS();
	if (error)
		ereport(LOG,
				(errmsg("follow_primary job " INT64_FORMAT " for node %s: %s%s%s: %s",
						job->id, node_name(job), state, job->step ? " at step " : "",
						job->step ? job->step : "", error->message),
				 error->detail ? errdetail_internal("%s", error->detail) : 0,
				 error->hint ? errhint("%s", error->hint) : 0,
				 errhidecontext(true)));
	else
		ereport(LOG,
				(errmsg("follow_primary job " INT64_FORMAT " for node %s: %s%s%s: %s",
						job->id, node_name(job), state,
						job->plan.method == METHOD_SKIP ? "" : " by ",
						job->plan.method == METHOD_SKIP ? "" : method_name(job->plan.method),
						job->plan.reason),
				 errhidecontext(true)));
	RESUME_CANCEL_INTERRUPTS();
}

/* Takes a lock of job.h until this worker ends; false if another has it. */
static bool
take_lock(uint32 class, uint32 key)
{
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, class, key, LOCK_OBJSUBID);
	return LockAcquire(&tag, ExclusiveLock, true, true) != LOCKACQUIRE_NOT_AVAIL;
}

static uint32
hash_of(const char *text)
{
	return DatumGetUInt32(DirectFunctionCall1Coll(hashtext, C_COLLATION_OID,
												  CStringGetTextDatum(text)));
}

/* A random UUID (RFC 4122, version 4); the server has a function for it from 13 on only. */
char *
record_new_token(void)
{
	unsigned char b[16];

	if (!pg_strong_random(b, sizeof(b)))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate random values")));
	b[6] = (b[6] & 0x0f) | 0x40;
	b[8] = (b[8] & 0x3f) | 0x80;
	return psprintf("%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
					b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7],
					b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
}

/* Raises 55P03 with the session that has locked a table of the record, if it is still there. */
pg_noreturn static void
fail_for_lock(const Job *job)
{
	const char *tables[] = {
		psprintf("%s.follow_primary_job", job->request->schema),
		psprintf("%s.follow_primary_step", job->request->schema)
	};
	SqlResult  *locks = sql_run("SELECT l.relation::regclass, l.mode, coalesce(l.pid::text, ''), coalesce(a.usename, ''), "
								"coalesce(a.application_name, ''), coalesce(a.state, ''), coalesce(p.gid, '') FROM pg_locks l "
								"LEFT JOIN pg_stat_activity a ON a.pid = l.pid "
								"LEFT JOIN pg_prepared_xacts p ON l.pid IS NULL AND split_part(l.virtualtransaction, '/', 2) = p.transaction::text "
								"WHERE l.locktype = 'relation' AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
								"AND l.relation IN ($1::regclass, $2::regclass) AND l.pid IS DISTINCT FROM pg_backend_pid() "
								"AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock') "
								"ORDER BY l.granted DESC LIMIT 1",
								lengthof(tables), tables);
	bool		found = locks->nrows > 0;
	bool		prepared = found && sql_value(locks, 0, 2)[0] == '\0';

	ereport(ERROR,
			(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
			 errmsg("the record of the job cannot be written: somebody holds a lock on it"),
			 !found ? 0 : prepared ?
			 errdetail("The prepared transaction \"%s\" has a lock (%s) on table %s.",
					   sql_value(locks, 0, 6), sql_value(locks, 0, 1), sql_value(locks, 0, 0)) :
			 errdetail("Process %s (user \"%s\", application \"%s\", %s) has a lock (%s) on table %s.",
					   sql_value(locks, 0, 2), sql_value(locks, 0, 3), sql_value(locks, 0, 4),
					   sql_value(locks, 0, 5), sql_value(locks, 0, 1), sql_value(locks, 0, 0)),
			 !found ? errhint("%s", CALL_AGAIN) : prepared ?
			 errhint("On this server: ROLLBACK PREPARED or COMMIT PREPARED '%s'. Then call follow_primary() again.",
					 sql_value(locks, 0, 6)) :
			 errhint("On this server: SELECT pg_terminate_backend(%s); " THEN_CALL_AGAIN,
					 sql_value(locks, 0, 2))));
}

/*
 * Writes a row of the record.  Waits no longer for a lock than the process may:
 * raises 55P03 then, with who has it.
 */
static void
record_write(const Job *job, const char *statement, int nargs, const char *const *args, bool durably)
{
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		sql_write(statement, nargs, args, durably);
	}
	PG_CATCH();
	{
		if (geterrcode() != ERRCODE_LOCK_NOT_AVAILABLE)
			PG_RE_THROW();
		(void) sql_recover(context);
		fail_for_lock(job);
	}
	PG_END_TRY();
}

void
job_record(Job *job)
{
	const Request *request = job->request;
	const char *table[] = {psprintf("%s.follow_primary_job", request->schema)};
	const char *args[] = {
		job->token = record_new_token(),
		request->node_host,
		TEXT_INT64(request->node_port),
		request->node_pgdata,
		request->node_id >= 0 ? TEXT_INT64(request->node_id) : NULL,
		request->primary_host,
		TEXT_INT64(request->primary_port),
		request->slot_name,
		requested_method_name(request->method),
		TEXT_INT64(MyProcPid),
		sql_scalar("SELECT nextval(pg_get_serial_sequence($1, 'id'))", lengthof(table), table)
	};

	/* The lock comes first: who sees the row sees the lock, too. */
	job->id = strtoll(args[lengthof(args) - 1], NULL, 10);
	(void) take_lock(JOB_LOCK_CLASS, job->id % 2147483648);
	record_write(job, psprintf("INSERT INTO %s.follow_primary_job (token, node_host, node_port, node_pgdata, node_id, "
							   "primary_host, primary_port, slot_name, requested_method, state, started_at, worker_pid, timeline, id) "
							   "OVERRIDING SYSTEM VALUE "
							   "VALUES ($1::uuid, $2, $3::int, $4, $5::int, $6, $7::int, $8, $9, 'running', clock_timestamp(), $10::int, "
							   SQL_TIMELINE ", $11::bigint)",
							   request->schema),
				 lengthof(args), args, true);
}

void
job_record_past(Job *job)
{
	const char *args[] = {TEXT_INT64(job->id), job->request->past};
	char	   *last;

	if (job->request->past == NULL)
		return;
	last = sql_write(psprintf("WITH past AS (SELECT n, string_to_array(line, E'\\t') AS w "
							  "FROM unnest(string_to_array(rtrim($2, E'\\n'), E'\\n')) WITH ORDINALITY l (line, n)), "
							  "job AS (UPDATE %s.follow_primary_job SET started_at = (SELECT min(w[2]::timestamptz) FROM past) WHERE id = $1::bigint) "
							  "INSERT INTO %s.follow_primary_step (job_id, seq, step, state, started_at, finished_at, detail) "
							  "SELECT $1::bigint, n, w[1], 'succeeded', w[2]::timestamptz, w[3]::timestamptz, nullif(w[4], '') FROM past "
							  "RETURNING (SELECT max(n) FROM past)",
							  job->request->schema, job->request->schema),
					 lengthof(args), args, false)->values[0];
	job->seq = atoi(last);
}

void
job_lock_node(Job *job)
{
	const Request *request = job->request;
	const char *others[] = {
		request->node_host, TEXT_INT64(request->node_port), TEXT_INT64(job->id)
	};

	if (!take_lock(NODE_LOCK_CLASS, hash_of(psprintf("%s:%d", asc_tolower(request->node_host, strlen(request->node_host)),
													 request->node_port))))
	{
		SqlResult  *other = sql_run(psprintf("SELECT id, started_at, worker_pid FROM %s.follow_primary_job "
											 "WHERE lower(node_host) = lower($1) AND node_port = $2::int "
											 "AND id <> $3::bigint AND state = 'running' ORDER BY id DESC LIMIT 1",
											 request->schema),
									lengthof(others), others);

		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("another job has node %s:%d", request->node_host, request->node_port),
				 other->nrows == 0 ? 0 :
				 errdetail("Job %s has it since %s, in process %s.",
						   sql_value(other, 0, 0), sql_value(other, 0, 1), sql_value(other, 0, 2)),
				 other->nrows == 0 ? 0 :
				 errhint("Wait for it by SELECT %s.follow_primary_wait(%s), or end it by SELECT %s.follow_primary_cancel(%s).",
						 request->schema, sql_value(other, 0, 0),
						 request->schema, sql_value(other, 0, 0))));
	}
}

bool
job_try_lock_slot(const char *slot)
{
	return take_lock(SLOT_LOCK_CLASS, hash_of(slot));
}

void
job_unlock_slot(const char *slot)
{
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, SLOT_LOCK_CLASS, hash_of(slot), LOCK_OBJSUBID);
	LockRelease(&tag, ExclusiveLock, true);
}

/*
 * Two nodes on one host have the same slot name by default, and pgpool starts
 * their jobs side by side.  A job that is still being planned may skip its
 * node, so this one waits for it.  The survey sees what a job that has ended
 * did with the slot.
 */
void
job_lock_slot(Job *job)
{
	const Request *request = job->request;
	const char *slot[] = {request->slot_name, TEXT_INT64(job->id)};
	MemoryContext scratch = AllocSetContextCreate(job->context, "slot lock",
												  ALLOCSET_SMALL_SIZES);

	while (!job_try_lock_slot(request->slot_name))
	{
		SqlResult  *other;

		MemoryContextSwitchTo(scratch);
		other = sql_run(psprintf("SELECT id, node_host || ':' || node_port FROM %s.follow_primary_job "
								 "WHERE slot_name = $1 AND id <> $2::bigint AND state = 'running' "
								 "AND method IS NOT NULL ORDER BY id LIMIT 1",
								 request->schema),
						lengthof(slot), slot);

		if (other->nrows > 0)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("the node's replication slot \"%s\" is in use by node %s",
							request->slot_name, sql_value(other, 0, 1)),
					 errdetail("Job %s is at work with it. Nothing was changed, neither here nor on the node.",
							   sql_value(other, 0, 0)),
					 errhint("%s", OWN_SLOT_HINT)));
		MemoryContextSwitchTo(job->context);
		MemoryContextReset(scratch);
		net_pause(SLOT_POLL_MS);
	}
	MemoryContextDelete(scratch);
}

void
job_record_plan(Job *job)
{
	const char *args[] = {
		TEXT_INT64(job->id),
		method_name(job->plan.method),
		job->plan.reason,
		job->primary.timeline ? TEXT_INT64(job->primary.timeline) : NULL,
		job->plan.diverged ? lsn_text(job->plan.fork_lsn) : NULL,
		job->node.pgdata,
		job->primary_host
	};

	if (job->id != 0)
		record_write(job, psprintf("UPDATE %s.follow_primary_job SET method = $2, reason = $3, timeline = $4::bigint, "
								   "fork_lsn = $5::pg_lsn, node_pgdata = coalesce($6, node_pgdata), "
								   "primary_host = coalesce($7, primary_host) WHERE id = $1::bigint",
								   job->request->schema),
					 lengthof(args), args, false);
}

void
job_begin_step(Job *job, const char *step, bool durably)
{
	const char *args[] = {
		TEXT_INT64(job->id), TEXT_INT64(++job->seq), step
	};

	job->step = step;
	job->step_began = GetCurrentTimestamp();
	job->detail = NULL;
	if (job->id == 0)
		return;
	record_write(job, psprintf("WITH step AS (INSERT INTO %s.follow_primary_step (job_id, seq, step, state, started_at) "
							   "VALUES ($1::bigint, $2::int, $3, 'running', clock_timestamp())) "
							   "UPDATE %s.follow_primary_job SET step = $3 WHERE id = $1::bigint",
							   job->request->schema, job->request->schema),
				 lengthof(args), args, durably);
	pgstat_report_activity(STATE_RUNNING,
						   psprintf("follow_primary job " INT64_FORMAT ": %s:%d: %s",
									job->id, job->request->node_host,
									job->request->node_port, step));
}

/* Ends the running step's row. */
static void
end_step(Job *job, const char *state, const char *detail)
{
	const char *args[] = {
		TEXT_INT64(job->id), TEXT_INT64(job->seq), state, detail
	};

	if (job->id != 0)
		record_write(job, psprintf("UPDATE %s.follow_primary_step SET state = $3, finished_at = clock_timestamp(), detail = $4 "
								   "WHERE job_id = $1::bigint AND seq = $2::int",
								   job->request->schema),
					 lengthof(args), args, false);
}

void
job_end_step(Job *job)
{
	end_step(job, "succeeded", job->detail);
	job_notice(job, "%s%s%s", job->step,
			   job->detail ? ": " : "", job->detail ? job->detail : "");
	job->step = NULL;
}

static char *format(const char *fmt, va_list args) pg_attribute_printf(1, 0);

static char *
format(const char *fmt, va_list args)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (;;)
	{
		va_list		copy;
		int			needed;

		va_copy(copy, args);
		needed = appendStringInfoVA(&buf, fmt, copy);
		va_end(copy);
		if (needed == 0)
			break;
		enlargeStringInfo(&buf, needed);
	}
	return buf.data;
}

void
job_detail(Job *job, const char *fmt,...)
{
	MemoryContext caller = MemoryContextSwitchTo(job->context);
	va_list		args;

	va_start(args, fmt);
	job->detail = format(fmt, args);
	va_end(args);
	MemoryContextSwitchTo(caller);
}

void
job_record_streaming(Job *job)
{
	const char *args[] = {TEXT_INT64(job->id), TEXT_INT64(job->seq)};

	record_write(job, psprintf("UPDATE %s.follow_primary_step SET state = 'streaming' "
							   "WHERE job_id = $1::bigint AND seq = $2::int", job->request->schema),
				 lengthof(args), args, true);
}

void
job_record_slot_made(Job *job)
{
	const char *args[] = {TEXT_INT64(job->id)};

	record_write(job, psprintf("UPDATE %s.follow_primary_job SET slot_made = true WHERE id = $1::bigint",
							   job->request->schema),
				 lengthof(args), args, true);
}

void
job_notice(Job *job, const char *fmt,...)
{
	va_list		args;

	if (job->notice == NULL)
		return;
	va_start(args, fmt);
	job->notice(format(fmt, args));
	va_end(args);
}

bool
job_is_silent(JobWait *wait)
{
	TimestampTz now = GetCurrentTimestamp();

	if (wait->since == 0)
		wait->since = wait->told = now;
	return TimestampDifferenceExceeds(wait->told, now, JOB_TELL_MS);
}

void
job_tell_waiting(Job *job, JobWait *wait, const char *missing)
{
	if (!job_is_silent(wait))
		return;
	wait->told = GetCurrentTimestamp();
	job_notice(job, "%s: %d s so far: %s", job->step,
			   (int) ((wait->told - wait->since) / USECS_PER_SEC), missing);
}

/* How far the running step is: bytes, rate, and how much longer it takes at that rate. */
static void
tell_progress(Job *job, TimestampTz now)
{
	double		rate = job->bytes_done * 1000000.0 / Max(1, now - job->step_began);
	const char *far = job->bytes_total <= 0 ?
		psprintf("%d MB", (int) (job->bytes_done >> 20)) :
		psprintf("%d%% of %d MB", (int) (100 * job->bytes_done / job->bytes_total),
				 (int) (job->bytes_total >> 20));

	job_notice(job, "%s: %s, %.1f MB/s%s", job->step, far, rate / (1024 * 1024),
			   job->bytes_done < job->bytes_total && rate >= 1 ?
			   psprintf(", %.0f s left", (job->bytes_total - job->bytes_done) / rate) : "");
}

void
job_progress(Job *job, int64 bytes_done, int64 bytes_total)
{
	TimestampTz now = GetCurrentTimestamp();
	MemoryContext scratch;
	MemoryContext caller;

	job->bytes_done = bytes_done;
	job->bytes_total = bytes_total;
	if (job->id == 0 ||
		(bytes_done < bytes_total &&
		 !TimestampDifferenceExceeds(job->progress_written, now, PROGRESS_INTERVAL_MS)))
		return;
	job->progress_written = now;

	/* A copy may go on for days. */
	scratch = AllocSetContextCreate(CurrentMemoryContext, "progress",
									ALLOCSET_SMALL_SIZES);
	caller = MemoryContextSwitchTo(scratch);
	{
		const char *args[] = {
			TEXT_INT64(job->id), TEXT_INT64(bytes_done), TEXT_INT64(bytes_total)
		};

		/* A lock on the table is no reason to end a copy. */
		PG_TRY();
		{
			sql_write(psprintf("UPDATE %s.follow_primary_job SET bytes_done = $2::bigint, bytes_total = $3::bigint "
							   "WHERE id = $1::bigint", job->request->schema),
					  lengthof(args), args, false);
		}
		PG_CATCH();
		{
			if (geterrcode() != ERRCODE_LOCK_NOT_AVAILABLE)
				PG_RE_THROW();
			(void) sql_recover(scratch);
		}
		PG_END_TRY();
	}
	tell_progress(job, now);
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(scratch);
}

void
job_record_lost_wal(Job *job, const char *bytes, const char *transactions,
					const char *dir, bool counted)
{
	const char *args[] = {TEXT_INT64(job->id), bytes, transactions, dir, counted ? "true" : "false"};

	record_write(job, psprintf("UPDATE %s.follow_primary_job SET lost_wal_bytes = $2::bigint, "
							   "lost_transactions = $3::bigint, lost_wal_dir = $4, lost_counted = $5::boolean WHERE id = $1::bigint",
							   job->request->schema),
				 lengthof(args), args, true);
}

void
job_record_counted(Job *job, const char *saved_dir, const char *saved_by,
				   const char *bytes, const char *transactions, const char *dir)
{
	const char *args[] = {
		TEXT_INT64(job->id), bytes, transactions, dir, saved_dir,
		job->request->node_host, TEXT_INT64(job->request->node_port), saved_by
	};

	record_write(job, psprintf("WITH job AS (SELECT id FROM %s.follow_primary_job "
							   "WHERE (lost_wal_dir = $5 AND node_host = $6 AND node_port = $7::int) OR token::text = $8) "
							   "UPDATE %s.follow_primary_job SET lost_wal_bytes = $2::bigint, "
							   "lost_transactions = $3::bigint, lost_wal_dir = $4, lost_counted = true "
							   "WHERE id IN (SELECT id FROM job) OR (id = $1::bigint AND NOT EXISTS (SELECT FROM job))",
							   job->request->schema, job->request->schema),
				 lengthof(args), args, true);
}

void
job_record_hint(Job *job, const char *hint)
{
	const char *args[] = {TEXT_INT64(job->id), hint};

	job->hint = hint ? MemoryContextStrdup(job->context, hint) : NULL;
	record_write(job, psprintf("UPDATE %s.follow_primary_job SET hint = $2 WHERE id = $1::bigint",
							   job->request->schema),
				 lengthof(args), args, false);
}

/* What this worker has used of this server's processors, in milliseconds. */
static int64
cpu_used(void)
{
	struct rusage usage;

	if (getrusage(RUSAGE_SELF, &usage) != 0)
		return 0;
	return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * INT64CONST(1000) +
		(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1000;
}

/* The columns that every job has at its end; the first three arguments are for these. */
#define SET_ENDED \
	"finished_at = clock_timestamp(), cpu_primary = $2::bigint * interval '1 ms', " \
	"cpu_node = nullif($3::bigint, 0) * interval '1 ms'"
#define ARGS_ENDED(job) \
	TEXT_INT64((job)->id), TEXT_INT64(cpu_used()), TEXT_INT64((job)->cpu_node)

void
job_finish(Job *job, const char *state)
{
	const char *args[] = {ARGS_ENDED(job), state};

	record_write(job, psprintf("UPDATE %s.follow_primary_job SET " SET_ENDED ", state = $4 "
							   "WHERE id = $1::bigint", job->request->schema),
				 lengthof(args), args, true);
}

void
job_fail(Job *job, const char *state, const ErrorData *error)
{
	char	   *text = error->detail ?
		psprintf("%s\n%s", error->message, error->detail) : error->message;
	const char *args[] = {
		ARGS_ENDED(job), state, unpack_sql_state(error->sqlerrcode),
		text, error->hint
	};

	if (job->step)
		end_step(job, state, text);
	job->step = NULL;
	record_write(job, psprintf("UPDATE %s.follow_primary_job SET " SET_ENDED ", state = $4, "
							   "error_code = $5, error = $6, hint = nullif(concat_ws(E'\\n', $7, hint), '') WHERE id = $1::bigint",
							   job->request->schema),
				 lengthof(args), args, true);
}
