/*
 * sweep.c
 *		Cleans up, on this server, after jobs whose workers could not.
 */
#include "postgres.h"

#include "miscadmin.h"

#include "compat.h"
#include "methods.h"
#include "process.h"
#include "record.h"
#include "sql.h"
#include "ssh/net.h"
#include "steps/primary.h"
#include "sweep.h"

#define LOCK_TIMEOUT		"2s"
#define SWEEP_TRIES			5
#define SWEEP_PAUSE_MS		5000

static void
sweep_rows(const char *schema, int64 own_job)
{
	const char *args[] = {CALL_AGAIN, methods_slot_steps()};
	const char *own[] = {psprintf(INT64_FORMAT, own_job)};
	SqlResult  *slots;

	/* As a rule no other job runs, which is soon seen. */
	if (!sql_is_true(psprintf("SELECT EXISTS (SELECT FROM %s.follow_primary_job WHERE state = 'running' AND id <> $1::bigint)", schema),
					 lengthof(own), own))
		return;

	/* A slot that a former primary's job made is not on this server. */
	slots = sql_write(psprintf("WITH job AS (UPDATE %s.follow_primary_job j SET state = 'interrupted', finished_at = clock_timestamp(), "
							   "error_code = '57P01', error = 'this server has no worker for it: it ended without a word, or was another server''s', hint = $1 "
							   "WHERE state = 'running' AND NOT EXISTS (SELECT FROM " JOB_LOCKS " AND objid::bigint = j.id %% 2147483648) "
							   "RETURNING id, slot_name, slot_made, timeline), "
							   "step AS (UPDATE %s.follow_primary_step s SET state = 'interrupted', finished_at = clock_timestamp() "
							   "FROM job WHERE s.job_id = job.id AND s.finished_at IS NULL) "
							   "SELECT slot_name FROM job JOIN pg_replication_slots r USING (slot_name) "
							   "WHERE job.slot_made AND job.timeline = " SQL_TIMELINE " AND r.slot_type = 'physical' "
							   "AND NOT EXISTS (SELECT FROM %s.follow_primary_step o WHERE o.job_id = job.id "
							   "AND o.step = ANY (string_to_array($2, ',')))",
							   schema, schema, schema),
					  lengthof(args), args, true);

	for (int i = 0; i < slots->nrows; i++)
	{
		const char *slot = sql_value(slots, i, 0);

		/* Where the lock is taken, a live job uses the slot. */
		if (job_try_lock_slot(slot))
		{
			primary_drop_slot(slot);
			job_unlock_slot(slot);
		}
	}
}

/* A prepared transaction may hold a lock for ever, which must not hold up this job. */
void
sweep(const char *schema, int64 own_job)
{
	MemoryContext context = CurrentMemoryContext;
	ErrorData  *volatile error = NULL;

	SetConfigOption("lock_timeout", LOCK_TIMEOUT, PGC_USERSET, PGC_S_OVERRIDE);
	PG_TRY();
	{
		sweep_rows(schema, own_job);
	}
	PG_CATCH();
	{
		error = sql_recover(context);
	}
	PG_END_TRY();
	SetConfigOption("lock_timeout", PROCESS_LOCK_TIMEOUT, PGC_USERSET, PGC_S_OVERRIDE);
	if (error && error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE)
		ReThrowError(error);
}

/*
 * A schema's owner who is no superuser could put other tables in the place of
 * the extension's: see extension_schema().
 */
char *
sweep_find_schema(void)
{
	return sql_scalar("SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace "
					  "JOIN pg_database d ON d.datname = current_database() "
					  "JOIN pg_roles r ON r.oid = CASE WHEN n.nspowner = to_regrole('pg_database_owner') THEN d.datdba ELSE n.nspowner END "
					  "WHERE e.extname = 'follow_primary' AND e.extversion <> '1.0' AND r.rolsuper",
					  0, NULL);
}

void
sweep_database(void)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool done = false;

	SetConfigOption("lock_timeout", LOCK_TIMEOUT, PGC_USERSET, PGC_S_OVERRIDE);
	for (volatile int tries = 0; tries < SWEEP_TRIES && !done; tries++)
	{
		PG_TRY();
		{
			char	   *schema;

			if (tries > 0)
				net_pause(SWEEP_PAUSE_MS);
			schema = sweep_find_schema();
			if (schema)
				sweep_rows(schema, 0);
			done = true;
		}
		PG_CATCH();
		{
			(void) sql_recover(context);
		}
		PG_END_TRY();
	}
}
