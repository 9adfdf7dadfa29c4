/*
 * process.c
 *		The processes of this library: what the postmaster is asked for, and how
 *		they begin.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/rel.h"
#include "utils/resowner.h"

#include "compat.h"
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
	/* To compile one of our statements would take longer than it runs. */
	{"jit", "off"},
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

Oid *
process_databases(int *n)
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
