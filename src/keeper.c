/*
 * keeper.c
 *		The preloaded workers that keep WAL for siblings, and run the check of
 *		readiness.
 *
 * The primary's keeper writes into follow_primary_slot from where on each node may
 * need WAL: what its slot here has, and for this server itself, should it be
 * rewound one day, the redo point of its last checkpoint.  A row is written when
 * that has moved by a segment, so an idle cluster writes nothing.  By replication
 * the table is on every standby.
 *
 * A standby's keeper has a slot for each other node, which it moves after the
 * table, never past what this server has replayed.  If the standby is promoted,
 * they are the slots that jobs give to the nodes, and the WAL that those need is
 * there.  Which slots are its own the keeper knows by slot_mark.c.  It takes over
 * those of jobs, too, on a former primary; it never touches another one.
 *
 * There are two kinds of process, as of the sweeper: one without a database, which
 * looks for databases with the extension now and then, and one for each database.
 * The latter ends where the extension is not there, or has been dropped.  When each
 * of them has said so, the former drops the slots on a standby: nobody would move them.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "replication/slot.h"
#include "storage/dsm.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "check.h"
#include "keeper.h"
#include "nodes.h"
#include "process.h"
#include "record.h"
#include "settings.h"
#include "slot_mark.h"
#include "sql.h"
#include "ssh/net.h"
#include "sweep.h"

#define TICK_MS			2000
#define LOOK_AGAIN_MS	10000	/* for databases with the extension */
#define PROBE_MS		1000	/* how soon one without it is done with */
#define OWN_ROW_MS		60000	/* how long a name is not looked up again */
#define AWAY_S			86400

static volatile sig_atomic_t reload_pending = false;

static void
handle_reload(SIGNAL_ARGS)
{
	int			save_errno = errno;

	reload_pending = true;
	SetLatch(MyLatch);
	errno = save_errno;
}

static void
reload_if_pending(void)
{
	if (!reload_pending)
		return;
	reload_pending = false;
	ProcessConfigFile(PGC_SIGHUP);
}

/* ---- what a keeper remembers from tick to tick ---- */

typedef struct Keeper
{
	MemoryContext context;		/* as long as the process */
	char	   *own_host;		/* this server's row, as it was known last */
	TimestampTz own_known;
	char	   *last_error;
	TimestampTz next_check;
} Keeper;

/* SQL: the slot that jobs use for a node n of follow_primary_node. */
#define SLOT_OF_NODE(schema) \
	"coalesce((SELECT j.slot_name FROM " schema ".follow_primary_job j " \
	"WHERE lower(j.node_host) = lower(n.host) AND j.node_port = n.port AND j.slot_name IS NOT NULL " \
	"AND j.state IN ('running', 'succeeded') ORDER BY j.id DESC LIMIT 1), " \
	SLOT_OF_ROW ")"

/* Its host may have to be looked up, which is not done at each tick. */
static const char *
own_host(Keeper *keeper, const char *schema)
{
	TimestampTz now = GetCurrentTimestamp();

	if (keeper->own_known == 0 || now >= TimestampTzPlusMilliseconds(keeper->own_known, OWN_ROW_MS))
	{
		const Nodes *nodes = nodes_read(schema);

		/* A name that cannot be looked up for a moment is no reason to drop a slot. */
		if (nodes->own)
		{
			if (keeper->own_host)
				pfree(keeper->own_host);
			keeper->own_host = MemoryContextStrdup(keeper->context, nodes->own->host);
			keeper->own_known = now;
		}
	}
	return keeper->own_host;
}

/* ---- on the primary ---- */

static void
forget_positions(const char *schema)
{
	if (sql_is_true(psprintf("SELECT EXISTS (SELECT FROM %s.follow_primary_slot)", schema), 0, NULL))
		sql_write(psprintf("DELETE FROM %s.follow_primary_slot", schema), 0, NULL, false);
}

/* Writes those positions that have moved by a segment, are new, or are gone. */
static void
write_positions(Keeper *keeper, const char *schema)
{
	const char *args[] = {
		own_host(keeper, schema), GetConfigOption("port", false, false),
		psprintf("%d", wal_segment_size)
	};
	char	   *position = psprintf("SELECT n.host, n.port, slot.name, "
									"CASE WHEN lower(n.host) = lower($1) AND n.port = $2::int THEN c.redo_lsn ELSE s.restart_lsn END AS lsn "
									"FROM %s.follow_primary_node n CROSS JOIN pg_control_checkpoint() c "
									"CROSS JOIN LATERAL (SELECT " SLOT_OF_NODE("%s") " AS name) slot "
									"LEFT JOIN pg_replication_slots s ON s.slot_name = slot.name AND s.slot_type = 'physical' AND NOT (" SLOT_IS_LOST ")",
									schema, schema);
	char	   *moved = psprintf("FROM (%s) p FULL JOIN %s.follow_primary_slot t ON t.node_host = p.host AND t.node_port = p.port "
								 "WHERE (p.lsn IS NULL) <> (t.restart_lsn IS NULL) OR p.lsn < t.restart_lsn OR p.lsn - t.restart_lsn >= $3::numeric OR p.name <> t.slot_name",
								 position, schema);

	if (!sql_is_true(psprintf("SELECT EXISTS (SELECT %s)", moved), lengthof(args), args))
		return;
	sql_write(psprintf("WITH moved AS (SELECT p.*, t.node_host, t.node_port %s), "
					   "gone AS (DELETE FROM %s.follow_primary_slot t USING moved m WHERE m.lsn IS NULL AND $1 IS NOT NULL AND t.node_host = m.node_host AND t.node_port = m.node_port) "
					   "INSERT INTO %s.follow_primary_slot (slot_name, node_host, node_port, restart_lsn, timeline, written_at) "
					   "SELECT name, host, port, lsn, " SQL_TIMELINE ", clock_timestamp() FROM moved WHERE lsn IS NOT NULL "
					   "ON CONFLICT (node_host, node_port) DO UPDATE SET slot_name = excluded.slot_name, restart_lsn = excluded.restart_lsn, "
					   "timeline = excluded.timeline, written_at = excluded.written_at",
					   moved, schema, schema),
			  lengthof(args), args, false);
}

/* A slot that no job has taken yet is of no use to a node that is gone. */
static void
drop_unused_slots(const char *schema)
{
	SqlResult  *slots = sql_run(psprintf("SELECT slot_name FROM pg_replication_slots s WHERE slot_type = 'physical' AND NOT active "
										 "AND NOT EXISTS (SELECT FROM %s.follow_primary_node n WHERE s.slot_name = " SLOT_OF_NODE("%s") ")",
										 schema, schema), 0, NULL);

	for (int i = 0; i < slots->nrows; i++)
	{
		const char *slot = sql_value(slots, i, 0);

		if (slot_mark(slot) != SLOT_OF_KEEPER || !job_try_lock_slot(slot))
			continue;
		if (slot_mark(slot) == SLOT_OF_KEEPER)
			sql_run("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1 AND NOT active", 1, &slot);
		job_unlock_slot(slot);
	}
}

/*
 * Names a slot in the log, once, that holds WAL for a node that has been away for a
 * day.  Since when it is away, and whether it was told, is in the table: it outlives
 * restarts and failovers.
 */
static void
tell_away(const char *schema)
{
	char	   *changed = psprintf("SELECT t.node_host, t.node_port, NOT s.active AS away, NOT s.active AND "
								   "coalesce(t.away_since < clock_timestamp() - interval '%d s', false) AS long_away "
								   "FROM %s.follow_primary_slot t JOIN pg_replication_slots s ON s.slot_name = t.slot_name "
								   "WHERE s.slot_type = 'physical' AND s.restart_lsn IS NOT NULL",
								   AWAY_S, schema);
	char	   *where = "t.node_host = c.node_host AND t.node_port = c.node_port AND "
		"(c.away <> (t.away_since IS NOT NULL) OR c.long_away <> t.away_told)";
	SqlResult  *told;

	if (!sql_is_true(psprintf("SELECT EXISTS (SELECT FROM %s.follow_primary_slot t JOIN (%s) c ON %s)", schema, changed, where), 0, NULL))
		return;
	told = sql_write(psprintf("WITH written AS (UPDATE %s.follow_primary_slot t SET away_told = c.long_away, "
							  "away_since = CASE WHEN c.away THEN coalesce(t.away_since, clock_timestamp()) END "
							  "FROM (%s) c WHERE %s RETURNING t.*) "
							  "SELECT s.slot_name, w.node_host || ':' || w.node_port, pg_size_pretty(pg_current_wal_lsn() - s.restart_lsn) "
							  "FROM written w JOIN pg_replication_slots s ON s.slot_name = w.slot_name WHERE w.away_told ORDER BY 1",
							  schema, changed, where), 0, NULL, false);
	for (int i = 0; i < told->nrows; i++)
		ereport(WARNING,
				(errmsg("node %s has been away for more than a day, and replication slot \"%s\" holds %s of WAL for it",
						sql_value(told, i, 1), sql_value(told, i, 0), sql_value(told, i, 2)),
				 errhint("Let it follow again. If it is gone for good, remove its row from follow_primary_node and drop the slot.")));
}

/* ---- on a standby ---- */

/* Moves a slot of the keeper to where the node's own is, as far as this server has replayed. */
static void
advance_slot(const char *slot, const char *lsn)
{
	const char *args[] = {slot, lsn};

	sql_run("SELECT pg_replication_slot_advance(slot_name, least($2::pg_lsn, pg_last_wal_replay_lsn())) FROM pg_replication_slots "
			"WHERE slot_name = $1 AND NOT active AND restart_lsn < least($2::pg_lsn, pg_last_wal_replay_lsn())",
			lengthof(args), args);
}

static void
drop_slot(const char *slot)
{
	sql_run("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1 AND NOT active", 1, &slot);
}

/* Drops those of its slots that are for no node any more, or have lost their WAL. */
static void
drop_other_slots(const char *schema, const char *wanted)
{
	SqlResult  *slots = sql_run(psprintf("SELECT slot_name FROM pg_replication_slots WHERE slot_type = 'physical' AND NOT active "
										 "AND (" SLOT_IS_LOST " OR slot_name NOT IN (SELECT slot_name FROM (%s) wanted))", wanted), 0, NULL);

	for (int i = 0; i < slots->nrows; i++)
		if (slot_mark(sql_value(slots, i, 0)) != SLOT_OF_OTHERS)
			drop_slot(sql_value(slots, i, 0));
}

/*
 * SQL: the slots that this standby is to have, or NULL where it does not know which row
 * is its own.  Other statements contain it, so it has no arguments $1 and $2 of its own.
 */
static char *
wanted_slots(Keeper *keeper, const char *schema)
{
	const char *own = own_host(keeper, schema);

	if (!setting_sibling_slots)
		return "SELECT NULL::name AS slot_name, NULL::pg_lsn AS restart_lsn WHERE false";
	if (own == NULL)
		return NULL;
	return psprintf("SELECT t.slot_name::name, t.restart_lsn FROM %s.follow_primary_slot t JOIN %s.follow_primary_node n ON n.host = t.node_host AND n.port = t.node_port "
					"WHERE NOT (lower(n.host) = lower(%s) AND n.port = %s) AND t.slot_name <> coalesce((SELECT slot_name FROM pg_stat_wal_receiver), '')",
					schema, schema, quote_literal_cstr(own), GetConfigOption("port", false, false));
}

static void
keep_slots(Keeper *keeper, const char *schema)
{
	char	   *wanted = wanted_slots(keeper, schema);
	SqlResult  *slots;

	/* A slot for this server itself would be advanced by nobody. */
	if (wanted == NULL)
		return;
	drop_other_slots(schema, wanted);
	slots = sql_run(psprintf("SELECT w.slot_name, w.restart_lsn, s.slot_name IS NOT NULL FROM (%s) w LEFT JOIN pg_replication_slots s USING (slot_name)", wanted), 0, NULL);
	for (int i = 0; i < slots->nrows; i++)
	{
		const char *slot = sql_value(slots, i, 0);

		slot_make_for_keeper(slot);
		if (slot_mark(slot) != SLOT_OF_OTHERS)
			advance_slot(slot, sql_value(slots, i, 1));
	}
}

/* ---- the check now and then ---- */

static void
put_json(StringInfo buf, const char *key, const char *value)
{
	appendStringInfo(buf, "%s\"%s\":", buf->data[buf->len - 1] == '{' ? "" : ",", key);
	if (value)
		escape_json(buf, value);
	else
		appendStringInfoString(buf, "null");
}

/* Replaces what the last check found, and tells the log what has become worse. */
static void
write_readiness(const char *schema, const CheckAnswer *answer)
{
	StringInfoData json;
	const char *args[1];
	SqlResult  *worse;

	initStringInfo(&json);
	appendStringInfoChar(&json, '[');
	for (int i = 0; i < answer->nrows; i++)
	{
		const CheckRow *row = &answer->rows[i];

		appendStringInfoString(&json, i > 0 ? ",{" : "{");
		put_json(&json, "candidate", row->candidate);
		put_json(&json, "node", row->node);
		put_json(&json, "item", row->item);
		put_json(&json, "status", row->status);
		put_json(&json, "message", row->message);
		put_json(&json, "hint", row->hint);
		appendStringInfoChar(&json, '}');
	}
	appendStringInfoChar(&json, ']');
	args[0] = json.data;
	worse = sql_write(psprintf("WITH new AS (SELECT DISTINCT ON (candidate, node, item) * FROM jsonb_to_recordset($1::jsonb) AS x(candidate text, node text, item text, status text, message text, hint text)), "
							   "gone AS (DELETE FROM %s.follow_primary_readiness r WHERE NOT EXISTS (SELECT FROM new "
							   "WHERE new.candidate = r.candidate AND new.node IS NOT DISTINCT FROM r.node AND new.item = r.item)), "
							   "written AS (INSERT INTO %s.follow_primary_readiness SELECT *, clock_timestamp() FROM new "
							   "ON CONFLICT (candidate, (coalesce(node, ''::text)), item) DO UPDATE SET status = excluded.status, "
							   "message = excluded.message, hint = excluded.hint, checked_at = excluded.checked_at) "
							   "SELECT new.candidate, new.node, new.item, new.message, new.hint FROM new JOIN %s.follow_primary_readiness r "
							   "ON new.candidate = r.candidate AND new.node IS NOT DISTINCT FROM r.node AND new.item = r.item "
							   "WHERE r.status = 'ok' AND new.status = 'error' ORDER BY 1, 2, 3",
							   schema, schema, schema),
					  lengthof(args), args, false);
	for (int i = 0; i < worse->nrows; i++)
		ereport(WARNING,
				(errmsg("if %s became the primary: %s%s: %s", sql_value(worse, i, 0),
						sql_value(worse, i, 1) ? psprintf("node %s, ", sql_value(worse, i, 1)) : "",
						sql_value(worse, i, 2), sql_value(worse, i, 3) ? sql_value(worse, i, 3) : "error"),
				 sql_value(worse, i, 4) ? errhint("%s", sql_value(worse, i, 4)) : 0));
}

static void
check_if_due(Keeper *keeper, const char *schema)
{
	TimestampTz now = GetCurrentTimestamp();

	if (setting_check_interval == 0)
	{
		keeper->next_check = 0;
		return;
	}
	/* The interval may have become shorter. */
	if (keeper->next_check > TimestampTzPlusMilliseconds(now, setting_check_interval * INT64CONST(1000)))
		keeper->next_check = 0;
	if (now < keeper->next_check)
		return;
	keeper->next_check = TimestampTzPlusMilliseconds(now, setting_check_interval * INT64CONST(1000));
	pgstat_report_activity(STATE_RUNNING, "follow_primary: checking readiness everywhere");
	write_readiness(schema, check_run(check_ask_all(schema, true)));
}

/* ---- the processes ---- */

static void
tick(Keeper *keeper, const char *schema)
{
	pgstat_report_activity(STATE_RUNNING, "follow_primary: keeping WAL for siblings");
	if (RecoveryInProgress())
	{
		keep_slots(keeper, schema);
		return;
	}
	if (setting_sibling_slots)
		write_positions(keeper, schema);
	else
		forget_positions(schema);
	drop_unused_slots(schema);
	tell_away(schema);
	check_if_due(keeper, schema);
}

/* An error that comes at each tick is told once. */
static void
tell_error(Keeper *keeper, const ErrorData *error)
{
	if (keeper->last_error && strcmp(keeper->last_error, error->message) == 0)
		return;
	if (keeper->last_error)
		pfree(keeper->last_error);
	keeper->last_error = MemoryContextStrdup(keeper->context, error->message);
	ereport(WARNING,
			(errcode(error->sqlerrcode),
			 errmsg("the keeper of follow_primary cannot go on, and tries again: %s", error->message),
			 error->detail ? errdetail("%s", error->detail) : 0,
			 error->hint ? errhint("%s", error->hint) : 0));
}

/*
 * What the keepers share: the last database that was seen to have no extension.  That a
 * keeper has ended does not tell: it may have failed.
 */
typedef struct Shared
{
	Oid			without;
} Shared;

/* Returns when the extension is not in the database. */
static void
keep_database(Oid database)
{
	Keeper		keeper = {0};
	MemoryContext scratch;

	process_start(database);
	keeper.context = AllocSetContextCreate(TopMemoryContext, "follow_primary keeper", ALLOCSET_SMALL_SIZES);
	scratch = AllocSetContextCreate(TopMemoryContext, "follow_primary keeper's tick", ALLOCSET_DEFAULT_SIZES);
	for (;;)
	{
		volatile bool there = true;

		MemoryContextReset(scratch);
		MemoryContextSwitchTo(scratch);
		reload_if_pending();
		PG_TRY();
		{
			char	   *schema = sweep_find_schema();

			if (schema)
				tick(&keeper, schema);
			there = schema != NULL;
			if (keeper.last_error)
				pfree(keeper.last_error);
			keeper.last_error = NULL;
		}
		PG_CATCH();
		{
			tell_error(&keeper, sql_recover_quietly(scratch));
		}
		PG_END_TRY();
		if (!there)
			return;
		/* For autovacuum to see what was written. */
		pgstat_report_stat(true);
		pgstat_report_activity(STATE_IDLE, NULL);
		net_pause(TICK_MS);
	}
}

typedef struct Database
{
	Oid			oid;
	BackgroundWorkerHandle *handle;
	bool		without;		/* the extension, as its keeper has said before it ended */
} Database;

/* Is the database's keeper there?  A moment after its start it is, if the extension is. */
static bool
is_kept(const Database *database)
{
	pid_t		pid;

	return database->handle && GetBackgroundWorkerPid(database->handle, &pid) != BGWH_STOPPED;
}

static void
start_keeper(Database *database, dsm_segment *seg)
{
	dsm_handle	shared = dsm_segment_handle(seg);
	BackgroundWorker worker = process_of("follow_primary_keeper_main");

	strlcpy(worker.bgw_name, "follow_primary keeper of a database", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "follow_primary keeper", BGW_MAXLEN);
	worker.bgw_start_time = BgWorkerStart_ConsistentState;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_main_arg = ObjectIdGetDatum(database->oid);
	memcpy(worker.bgw_extra, &shared, sizeof(shared));
	worker.bgw_notify_pid = MyProcPid;
	if (database->handle)
		pfree(database->handle);
	if (!RegisterDynamicBackgroundWorker(&worker, &database->handle))
		database->handle = NULL;
}

/* Without a database there is no SQL. */
static void
drop_all_slots(void)
{
	MemoryContext outer = CurrentMemoryContext;
	MemoryContext context = AllocSetContextCreate(outer, "follow_primary slots", ALLOCSET_SMALL_SIZES);

	MemoryContextSwitchTo(context);
	for (int i = 0; i < max_replication_slots; i++)
	{
		const ReplicationSlot *slot = &ReplicationSlotCtl->replication_slots[i];
		char		name[NAMEDATALEN] = "";

		LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
		if (slot->in_use)
			strlcpy(name, NameStr(slot->data.name), sizeof(name));
		LWLockRelease(ReplicationSlotControlLock);
		if (name[0] == '\0' || slot_mark(name) == SLOT_OF_OTHERS)
			continue;
		PG_TRY();
		{
			ReplicationSlotDrop(name, true);
			ereport(LOG,
					(errmsg("replication slot \"%s\" has been dropped: no database has follow_primary any more", name)));
		}
		PG_CATCH();
		{
			/* Somebody uses it. */
			(void) sql_recover_quietly(context);
		}
		PG_END_TRY();
	}
	MemoryContextSwitchTo(outer);
	MemoryContextDelete(context);
}

/* Starts a keeper in each database, one after the other; those without the extension end at once. */
static void
keep_all(void)
{
	Database   *known = NULL;
	int			nknown = 0;
	bool		told = false;
	dsm_segment *seg = dsm_create(sizeof(Shared), 0);
	volatile Shared *shared = dsm_segment_address(seg);

	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	MemoryContextSwitchTo(AllocSetContextCreate(TopMemoryContext, "follow_primary keepers", ALLOCSET_DEFAULT_SIZES));
	for (;;)
	{
		int			n;
		Oid		   *oids = process_databases(&n);
		Database   *databases = palloc0(sizeof(Database) * Max(1, n));
		bool		nowhere = true;

		for (int i = 0; i < n; i++)
		{
			databases[i].oid = oids[i];
			for (int j = 0; j < nknown; j++)
				if (known[j].oid == oids[i])
					databases[i].handle = known[j].handle;
		}
		pfree(oids);
		if (known)
			pfree(known);
		known = databases;
		nknown = n;

		for (int i = 0; i < n; i++)
		{
			TimestampTz end = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), PROBE_MS);

			if (is_kept(&known[i]))
				continue;
			shared->without = InvalidOid;
			start_keeper(&known[i], seg);
			if (known[i].handle == NULL && !told)
				ereport(WARNING,
						(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
						 errmsg("no background worker is free for a keeper of follow_primary"),
						 errdetail("All of max_worker_processes (%d) are in use; it is tried again.", max_worker_processes),
						 errhint("Raise max_worker_processes, or take follow_primary out of shared_preload_libraries.")));
			told = known[i].handle == NULL;
			while (is_kept(&known[i]) && GetCurrentTimestamp() < end)
				net_pause(PROBE_MS / 10);
			known[i].without = shared->without == known[i].oid;
		}
		for (int i = 0; i < n; i++)
			nowhere &= known[i].without && !is_kept(&known[i]);
		if (nowhere && RecoveryInProgress())
			drop_all_slots();
		reload_if_pending();
		net_pause(LOOK_AGAIN_MS);
	}
}

void
keeper_register(void)
{
	BackgroundWorker worker = process_of("follow_primary_keeper_main");

	strlcpy(worker.bgw_name, "follow_primary keeper", BGW_MAXLEN);
	worker.bgw_start_time = BgWorkerStart_ConsistentState;
	RegisterBackgroundWorker(&worker);
}

void
follow_primary_keeper_main(Datum main_arg)
{
	Oid			database = DatumGetObjectId(main_arg);

	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, handle_reload);
	BackgroundWorkerUnblockSignals();
	if (OidIsValid(database))
	{
		dsm_handle	shared;
		dsm_segment *seg;

		memcpy(&shared, MyBgworkerEntry->bgw_extra, sizeof(shared));
		/* NULL where the one that started this has ended. */
		seg = dsm_attach(shared);
		if (seg)
			dsm_pin_mapping(seg);
		keep_database(database);
		if (seg)
			((volatile Shared *) dsm_segment_address(seg))->without = database;
	}
	else
		keep_all();
}
