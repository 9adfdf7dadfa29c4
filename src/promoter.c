/*
 * promoter.c
 *		The worker that keeps a switchover's promise to promote this server.
 *
 * By making a file the session tells the former primary's watcher, which can only ask
 * this server, that this one will be promoted: the watcher starts nothing then.  But
 * the session can be killed before it has asked for the promotion, and the server
 * crash, which forgets what was asked, between the request and the end of recovery.
 * The postmaster lives on; it starts this worker again, which asks for the promotion,
 * as often as it takes.  With the postmaster the worker is gone, and so is what was
 * asked for (RemovePromoteSignalFiles() in postmaster.c): the file counts for as long
 * as the postmaster runs.
 *
 * While the session has its lock, the promotion is its own business.
 */
#include "postgres.h"

#include <sys/stat.h>
#include <unistd.h>

#include "access/xlog.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "tcop/tcopprot.h"
#include "utils/fmgrprotos.h"

#include "compat.h"
#include "process.h"
#include "promoter.h"
#include "ssh/net.h"

#define LOOK_MS			100
#define ASK_AGAIN_MS	1000
#define RESTART_S		1

typedef struct Promise
{
	Oid			database;
	int64		lock;
	char		file[BGW_EXTRALEN - sizeof(Oid) - sizeof(int64) * 2];
} Promise;

void
promoter_start(const char *file, int64 lock, TimestampTz deadline)
{
	BackgroundWorker worker = process_of("follow_primary_promoter_main");
	BackgroundWorkerHandle *handle;
	Promise		promise = {.database = MyDatabaseId, .lock = lock};
	pid_t		pid;

	if (strlcpy(promise.file, file, sizeof(promise.file)) >= sizeof(promise.file))
		elog(ERROR, "file name \"%s\" is too long", file);
	memcpy(worker.bgw_extra, &promise, sizeof(promise));
	strlcpy(worker.bgw_name, "follow_primary promoter", BGW_MAXLEN);
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS;
	worker.bgw_start_time = BgWorkerStart_ConsistentState;
	worker.bgw_restart_time = RESTART_S;
	worker.bgw_notify_pid = MyProcPid;
	if (!RegisterDynamicBackgroundWorker(&worker, &handle))
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("no background worker is free for the promotion"),
				 errdetail("All of max_worker_processes (%d) of this server are in use. The primary is as it was.", max_worker_processes),
				 errhint("Raise max_worker_processes, or wait until other workers have ended.")));

	/* What the postmaster has not read yet, it would forget in a crash. */
	while (GetBackgroundWorkerPid(handle, &pid) != BGWH_STARTED)
	{
		if (GetCurrentTimestamp() >= deadline)
			ereport(ERROR,
					(errcode(ERRCODE_SYSTEM_ERROR),
					 errmsg("the background worker for the promotion does not start"),
					 errhint("See this server's log.")));
		net_pause(LOOK_MS / 10);
	}
}

/* Has the session ended, or its call? */
static bool
session_has_ended(const Promise *promise)
{
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, promise->database, (uint32) (promise->lock >> 32), (uint32) promise->lock, 1);
	if (LockAcquire(&tag, ExclusiveLock, true, true) == LOCKACQUIRE_NOT_AVAIL)
		return false;
	LockRelease(&tag, ExclusiveLock, true);
	return true;
}

void
follow_primary_promoter_main(Datum main_arg)
{
	Promise		promise;
	struct stat st;
	bool		asked = false;

	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	memcpy(&promise, MyBgworkerEntry->bgw_extra, sizeof(promise));
	while (RecoveryInProgress())
	{
		if (session_has_ended(&promise))
		{
			if (stat(promise.file, &st) != 0 && errno == ENOENT)
				return;
			if (!asked)
				ereport(LOG,
						(errmsg("follow_primary: the session of the switchover has ended, and this server is promoted as that has promised")));
			asked = true;
			ASK_FOR_PROMOTION();
			net_pause(ASK_AGAIN_MS);
		}
		else
			net_pause(LOOK_MS);
	}
	if (asked)
	{
		/* a request more than the startup process needed */
		(void) unlink(PROMOTE_SIGNAL_FILE);
		(void) unlink(promise.file);
	}
}
