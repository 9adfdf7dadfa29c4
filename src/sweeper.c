/*
 * sweeper.c
 *		Corrects the rows of jobs whose workers could not write how they ended.
 *
 * A worker that died is started again by the postmaster and sweeps, and so does
 * each call of follow_primary().  But no postmaster remembers the workers of the
 * one before it, as after pg_ctl stop -m immediate, nor has a standby that is
 * promoted any.  Where the library is preloaded, a worker sweeps then: the
 * standbys see it in the rows, which is all that they can see of another server.
 *
 * It is two kinds of process: one without a database, which finds all there
 * are, and for each of them one that sweeps, one after the other.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/rel.h"

#include "compat.h"
#include "job.h"
#include "sql.h"
#include "sweeper.h"
#include "worker.h"

/* Of a sweeper for this database; InvalidOid: for all. */
static BackgroundWorker
sweeper(Oid database)
{
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = OidIsValid(database) ? BGW_NEVER_RESTART : WORKER_RESTART_S;
	strlcpy(worker.bgw_library_name, "follow_primary", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "follow_primary_sweeper_main",
			sizeof(worker.bgw_function_name));
	strlcpy(worker.bgw_name, "follow_primary sweeper", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "follow_primary sweeper", BGW_MAXLEN);
	worker.bgw_main_arg = ObjectIdGetDatum(database);
	return worker;
}

void
sweeper_register(void)
{
	BackgroundWorker worker = sweeper(InvalidOid);

	if (!IsBinaryUpgrade)
		RegisterBackgroundWorker(&worker);
}

void
sweeper_sweep(void)
{
	char	   *schema;

	schema = sql_scalar("SELECT quote_ident(nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace "
						"WHERE extname = 'follow_primary'", 0, NULL);
	if (schema)
		job_sweep(schema);
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
	relation = table_open(DatabaseRelationId, AccessShareLock);
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
	table_close(relation, AccessShareLock);
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
		BackgroundWorker worker = sweeper(databases[i]);
		BackgroundWorkerHandle *handle;

		worker.bgw_notify_pid = MyProcPid;
		/* The postmaster starts this process again, to try all of them once more. */
		if (!RegisterDynamicBackgroundWorker(&worker, &handle))
			ereport(ERROR,
					(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					 errmsg("follow_primary has no background worker to see whether jobs were interrupted"),
					 errdetail("All of max_worker_processes (%d) are in use; it is tried again in %d s.",
							   max_worker_processes, WORKER_RESTART_S),
					 errhint("Raise max_worker_processes.")));
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
		sweeper_sweep();
	}
	else
		sweep_all();
	proc_exit(0);
}
