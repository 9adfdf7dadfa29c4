/*
 * process.c
 *		The processes of this library: what the postmaster is asked for, and how
 *		they begin.
 */
#include "postgres.h"

#include "catalog/pg_authid.h"
#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/resowner.h"

#include "process.h"
#include "sql.h"

/* What the configuration or the database may set otherwise. */
static const char *const session_settings[][2] = {
	{"search_path", "pg_catalog, pg_temp"},
	{"default_transaction_isolation", "read committed"},
	{"default_transaction_read_only", "off"},
	{"statement_timeout", "0"},
	{"lock_timeout", PROCESS_LOCK_TIMEOUT},
	/*
	 * No commit may wait for the standby that is being made, nor for the disk
	 * but where it matters: see sql_write().
	 */
	{"synchronous_commit", "off"},
#if PG_VERSION_NUM >= 170000
	{"transaction_timeout", "0"},
#endif
};

BackgroundWorker
process_of(const char *function)
{
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = PROCESS_RESTART_S;
	strlcpy(worker.bgw_library_name, "follow_primary", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, function, sizeof(worker.bgw_function_name));
	return worker;
}

void
process_start(Oid database)
{
	BackgroundWorkerInitializeConnectionByOid(database, InvalidOid, 0);
	for (int i = 0; i < lengthof(session_settings); i++)
		SetConfigOption(session_settings[i][0], session_settings[i][1],
						PGC_USERSET, PGC_S_OVERRIDE);
	/* Nor does a "role" that is set for the database say who this is. */
	SetUserIdAndSecContext(BOOTSTRAP_SUPERUSERID, 0);
	sql_keep_owner(ResourceOwnerCreate(NULL, "follow_primary"));
}
