/*
 * sql.c
 *		SQL on this server, one statement at a time.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "sql.h"

/* How long follow_primary_node is waited for where somebody has locked it. */
#define READ_LOCK_MS	5000

#define SQL_MAX_ARGS 40

/* A worker's: the server's code needs one between transactions. */
static ResourceOwner worker_owner = NULL;

void
sql_keep_owner(ResourceOwner owner)
{
	worker_owner = owner;
	CurrentResourceOwner = owner;
}

char *
sql_text(const char *text)
{
	char	   *copy;

	if (pg_verifymbstr(text, strlen(text), true))
		return (char *) text;
	copy = pstrdup(text);
	for (char *c = copy; *c; c++)
		if (IS_HIGHBIT_SET(*c))
			*c = '?';
	return copy;
}

/* Copies the result of the last SPI statement into the given context. */
static SqlResult *
copy_result(MemoryContext context)
{
	MemoryContext spi_context = MemoryContextSwitchTo(context);
	SqlResult  *result = palloc0(sizeof(SqlResult));

	if (SPI_tuptable)
	{
		result->nrows = (int) SPI_processed;
		result->ncols = SPI_tuptable->tupdesc->natts;
		result->names = palloc0(sizeof(char *) * Max(1, result->ncols));
		for (int col = 0; col < result->ncols; col++)
			result->names[col] = SPI_fname(SPI_tuptable->tupdesc, col + 1);
		result->values = palloc0(sizeof(char *) * Max(1, result->nrows * result->ncols));
		for (int row = 0; row < result->nrows; row++)
			for (int col = 0; col < result->ncols; col++)
				sql_value(result, row, col) = SPI_getvalue(SPI_tuptable->vals[row],
														   SPI_tuptable->tupdesc,
														   col + 1);
	}
	MemoryContextSwitchTo(spi_context);
	return result;
}

void
sql_hold_up_replay(void)
{
	VirtualTransactionId self;

	GET_VXID_FROM_PGPROC(self, *MyProc);
	if (LocalTransactionIdIsValid(self.localTransactionId) &&
		!LocalTransactionIdIsValid(MyProc->fpLocalTransactionId))
		VirtualXactLockTableInsert(self);
}

void
sql_let_replay_go_on(void)
{
	if (RecoveryInProgress() && !TransactionIdIsValid(OWN_XMIN))
		VirtualXactLockTableCleanup();
}

/*
 * A read-only SPI call uses the active snapshot as it is; any other takes a new
 * one for itself.
 */
static SqlResult *
run(const char *statement, int nargs, const char *const *args, bool latest, bool durable)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	bool		own_transaction = !IsTransactionState();
	SqlResult  *result;
	Oid			types[SQL_MAX_ARGS];
	Datum		values[SQL_MAX_ARGS];
	char		nulls[SQL_MAX_ARGS];

	Assert(nargs <= SQL_MAX_ARGS);
	if (own_transaction)
	{
		SetCurrentStatementStartTimestamp();
		StartTransactionCommand();
	}
	sql_hold_up_replay();
	SPI_connect();
	PushActiveSnapshot(latest ? GetLatestSnapshot() : GetTransactionSnapshot());
	for (int i = 0; i < nargs; i++)
	{
		types[i] = TEXTOID;
		nulls[i] = args[i] ? ' ' : 'n';
		values[i] = args[i] ? CStringGetTextDatum(sql_text(args[i])) : (Datum) 0;
	}
	if (SPI_execute_with_args(statement, nargs, types, values, nulls, latest, 0) < 0)
		elog(ERROR, "could not execute: %s", statement);
	result = copy_result(context);
	PopActiveSnapshot();
	SPI_finish();
	/* A caller without a snapshot has none by this, either. */
	InvalidateCatalogSnapshotConditionally();
	sql_let_replay_go_on();
	/* Not by ForceSyncCommit(), for which each standby flushes its control file, too. */
	if (durable)
		(void) set_config_option("synchronous_commit", "local", PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_LOCAL, true, 0, false);
	if (own_transaction)
	{
		CommitTransactionCommand();
		CurrentResourceOwner = owner;
	}
	MemoryContextSwitchTo(context);
	return result;
}

SqlResult *
sql_run(const char *statement, int nargs, const char *const *args)
{
	return run(statement, nargs, args, false, false);
}

SqlResult *
sql_write(const char *statement, int nargs, const char *const *args, bool durably)
{
	return run(statement, nargs, args, false, durably);
}

SqlResult *
sql_read_nodes(const char *schema, const char *columns, const char *rest, int nargs, const char *const *args)
{
	char	   *table = psprintf("%s.follow_primary_node", schema);
	MemoryContext context = CurrentMemoryContext;
	SqlResult  *result;
	int			nest_level = IsTransactionState() ? NewGUCNestLevel() : 0;

	/* A worker has its own limit, and no transaction here. */
	if (nest_level > 0 && (LockTimeout == 0 || LockTimeout > READ_LOCK_MS))
		(void) set_config_option("lock_timeout", psprintf("%d", READ_LOCK_MS), PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	PG_TRY();
	{
		result = sql_run(psprintf("SELECT %s FROM %s %s", columns, table, rest), nargs, args);
	}
	PG_CATCH();
	{
		if (geterrcode() != ERRCODE_LOCK_NOT_AVAILABLE)
			PG_RE_THROW();
		MemoryContextSwitchTo(context);
		FlushErrorState();
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("table %s cannot be read: somebody has a lock on it", table),
				 errhint("On this server: SELECT pid, mode FROM pg_locks WHERE relation = '%s'::regclass shows who. End that session, then call it again.", table)));
	}
	PG_END_TRY();
	if (nest_level > 0)
		AtEOXact_GUC(false, nest_level);
	return result;
}

char *
sql_scalar(const char *statement, int nargs, const char *const *args)
{
	SqlResult  *result = sql_run(statement, nargs, args);

	return result->nrows > 0 ? sql_value(result, 0, 0) : NULL;
}

bool
sql_is_true(const char *statement, int nargs, const char *const *args)
{
	char	   *value = sql_scalar(statement, nargs, args);

	return value != NULL && strcmp(value, "t") == 0;
}

char *
sql_scalar_latest(const char *statement, int nargs, const char *const *args)
{
	SqlResult  *result = run(statement, nargs, args, true, false);

	return result->nrows > 0 ? sql_value(result, 0, 0) : NULL;
}

ErrorData *
sql_recover_quietly(MemoryContext context)
{
	ErrorData  *error;

	HOLD_INTERRUPTS();
	MemoryContextSwitchTo(context);
	error = CopyErrorData();
	FlushErrorState();
	AbortCurrentTransaction();
	CurrentResourceOwner = worker_owner;
	MemoryContextSwitchTo(context);
	RESUME_INTERRUPTS();
	return error;
}

ErrorData *
sql_recover(MemoryContext context)
{
	HOLD_INTERRUPTS();
	MemoryContextSwitchTo(context);
	EmitErrorReport();
	RESUME_INTERRUPTS();
	return sql_recover_quietly(context);
}
