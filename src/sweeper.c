/*
 * sweeper.c
 *		Cleans up, on this server, after jobs whose workers could not.
 *
 * A worker that died is started again by the postmaster and sweeps, and so does
 * each call of follow_primary().  But no postmaster remembers the workers of the
 * one before it, as after pg_ctl stop -m immediate, nor has a standby that is
 * promoted any.  Where the library is preloaded, a worker sweeps then: the
 * standbys see it in the rows, which is all that they can see of another server.
 *
 * It is two kinds of process: one without a database, which finds all there
 * are, and for each of them one that sweeps, one after the other.  The log may
 * have a FATAL of one whose database was dropped meanwhile; it means nothing.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/rel.h"

#include "compat.h"
#include "job.h"
#include "net.h"
#include "primary.h"
#include "sql.h"
#include "sweeper.h"
#include "worker.h"

#define LOCK_TIMEOUT		"2s"
#define SWEEP_TRIES			5
#define SWEEP_PAUSE_MS		5000

void
sweeper_register(void)
{
	BackgroundWorker worker = worker_of("follow_primary_sweeper_main");

	strlcpy(worker.bgw_name, "follow_primary sweeper", BGW_MAXLEN);
	RegisterBackgroundWorker(&worker);
}

static void
sweep(const char *schema)
{
	const char *args[] = {CALL_AGAIN, SLOT_MADE};
	SqlResult  *slots;
	bool		cancelled = false;

	/*
	 * From these steps on the node's data, or settings, may want the slot.  What
	 * a former primary's job has made is not here.
	 */
	slots = sql_write(psprintf("WITH job AS (UPDATE %s.follow_primary_job j SET state = 'interrupted', finished_at = clock_timestamp(), "
							   "error_code = '57P01', error = 'this server has no worker for it: it ended without a word, or was another server''s', hint = $1 "
							   "WHERE state = 'running' AND NOT EXISTS (SELECT FROM " JOB_LOCKS " AND objid::bigint = j.id %% 2147483648) "
							   "RETURNING id, slot_name, timeline), "
							   "step AS (UPDATE %s.follow_primary_step s SET state = 'interrupted', finished_at = clock_timestamp() "
							   "FROM job WHERE s.job_id = job.id AND s.state = 'running') "
							   "SELECT slot_name FROM job JOIN %s.follow_primary_step s ON s.job_id = job.id "
							   "JOIN pg_replication_slots r USING (slot_name) "
							   "WHERE s.step = 'slot' AND s.detail = job.slot_name || $2 "
							   "AND job.timeline = " SQL_TIMELINE " AND r.slot_type = 'physical' "
							   "AND NOT EXISTS (SELECT FROM %s.follow_primary_step o WHERE o.job_id = job.id "
							   "AND o.step IN ('rewind', 'swap', 'configure', 'repoint'))",
							   schema, schema, schema, schema),
					  lengthof(args), args, true);

	for (int i = 0; i < slots->nrows; i++)
	{
		const char *slot = sql_value(slots, i, 0);

		/* Else a live job has use for it. */
		if (job_try_lock_slot(slot))
		{
			primary_drop_slot(slot);
			/* No later sweep sees it. */
			if (QueryCancelPending)
			{
				cancelled = true;
				QueryCancelPending = false;
				primary_drop_slot(slot);
			}
			job_unlock_slot(slot);
		}
	}
	if (cancelled)
		InterruptPending = QueryCancelPending = true;
}

/* A prepared transaction may hold a lock for ever: that is no matter of this job. */
void
sweeper_sweep(const char *schema)
{
	MemoryContext context = CurrentMemoryContext;
	ErrorData  *volatile error = NULL;

	SetConfigOption("lock_timeout", LOCK_TIMEOUT, PGC_USERSET, PGC_S_OVERRIDE);
	PG_TRY();
	{
		sweep(schema);
	}
	PG_CATCH();
	{
		error = sql_recover(context);
	}
	PG_END_TRY();
	SetConfigOption("lock_timeout", "0", PGC_USERSET, PGC_S_OVERRIDE);
	if (error && error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE)
		ReThrowError(error);
}

/*
 * The owner of a schema who is no superuser could have tables of their own in
 * the place of ours: see extension_schema().
 */
static char *
find_schema(void)
{
	return sql_scalar("SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace "
					  "JOIN pg_database d ON d.datname = current_database() "
					  "JOIN pg_roles r ON r.oid = CASE WHEN n.nspowner = to_regrole('pg_database_owner') THEN d.datdba ELSE n.nspowner END "
					  "WHERE e.extname = 'follow_primary' AND r.rolsuper",
					  0, NULL);
}

void
sweeper_sweep_database(void)
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
			schema = find_schema();
			if (schema)
				sweep(schema);
			done = true;
		}
		PG_CATCH();
		{
			(void) sql_recover(context);
		}
		PG_END_TRY();
	}
}

/* The databases that take connections. */
static Oid *
find_databases(int *n)
{
	MemoryContext context = CurrentMemoryContext;
	int			capacity = 16;
	Oid		   *found = palloc(sizeof(Oid) * capacity);
	Relation	relation;
	SysScanDesc scan;
	HeapTuple	tuple;

	*n = 0;
	StartTransactionCommand();
	relation = relation_open(DatabaseRelationId, AccessShareLock);
	scan = systable_beginscan(relation, InvalidOid, false, NULL, 0, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_database database = (Form_pg_database) GETSTRUCT(tuple);

		/* -2: what an interrupted DROP DATABASE left */
		if (!database->datallowconn || database->datconnlimit < -1)
			continue;
		if (*n == capacity)
			found = repalloc(found, sizeof(Oid) * (capacity *= 2));
		found[(*n)++] = DATABASE_OID(tuple);
	}
	systable_endscan(scan);
	relation_close(relation, AccessShareLock);
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	return found;
}

static void
sweep_all(void)
{
	Oid		   *databases;
	int			n;

	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	databases = find_databases(&n);
	for (int i = 0; i < n; i++)
	{
		BackgroundWorker worker = worker_of("follow_primary_sweeper_main");
		BackgroundWorkerHandle *handle;

		strlcpy(worker.bgw_name, "follow_primary sweeper of a database", BGW_MAXLEN);
		strlcpy(worker.bgw_type, "follow_primary sweeper", BGW_MAXLEN);
		worker.bgw_restart_time = BGW_NEVER_RESTART;
		worker.bgw_main_arg = ObjectIdGetDatum(databases[i]);
		worker.bgw_notify_pid = MyProcPid;
		/* The postmaster starts this process again, to try all of them once more. */
		if (!RegisterDynamicBackgroundWorker(&worker, &handle))
			ereport(ERROR,
					(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					 errmsg("no background worker is free to see whether jobs of follow_primary were interrupted"),
					 errdetail("All of max_worker_processes (%d) are in use; it is tried again in %d s.",
							   max_worker_processes, WORKER_RESTART_S),
					 errhint("Raise max_worker_processes, or take follow_primary out of shared_preload_libraries.")));
		if (WaitForBackgroundWorkerShutdown(handle) == BGWH_POSTMASTER_DIED)
			proc_exit(1);
	}
}

void
follow_primary_sweeper_main(Datum main_arg)
{
	Oid			database = DatumGetObjectId(main_arg);

	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	if (OidIsValid(database))
	{
		sql_start_worker(database);
		pgstat_report_activity(STATE_RUNNING, "follow_primary: looking for interrupted jobs");
		sweeper_sweep_database();
	}
	else
		sweep_all();
}
