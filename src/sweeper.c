/*
 * sweeper.c
 *		The preloaded worker that cleans up after jobs whose workers could not.
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

#include "miscadmin.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"

#include "compat.h"
#include "process.h"
#include "sweep.h"
#include "sweeper.h"

void
sweeper_register(void)
{
	BackgroundWorker worker = process_of("follow_primary_sweeper_main");

	strlcpy(worker.bgw_name, "follow_primary sweeper", BGW_MAXLEN);
	RegisterBackgroundWorker(&worker);
}

static void
sweep_all(void)
{
	Oid		   *databases;
	int			n;

	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	databases = process_databases(&n);
	for (int i = 0; i < n; i++)
	{
		BackgroundWorker worker = process_of("follow_primary_sweeper_main");
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
							   max_worker_processes, PROCESS_RESTART_S),
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
		process_start(database);
		pgstat_report_activity(STATE_RUNNING, "follow_primary: looking for interrupted jobs");
		sweep_database();
	}
	else
		sweep_all();
}
