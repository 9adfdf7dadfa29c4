/*
 * candidate.c
 *		The items of this server alone, as the primary that it may become.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "miscadmin.h"
#include "replication/slot.h"
#include "replication/walsender.h"
#include "utils/guc.h"

#include "compat.h"
#include "check/item.h"
#include "nodes.h"
#include "sql.h"
#include "version.h"

/* A worker for a copy's second WAL sender, and one for each node. */
#define SENDERS_OF_A_COPY	2

static void
try_name(Check *check)
{
	const Nodes *nodes = nodes_read(check->job->request->schema);

	if (nodes->nrows == 0)
		found(check, CHECK_WARNING, "follow_primary_node has no rows, so there is no node to look at",
			  "On the primary, insert a row for each server, this one included.");
	else if (nodes->own == NULL)
		found(check, CHECK_WARNING,
			  psprintf("no row of follow_primary_node is known to be this server's own; its name may be %s", nodes->own_name),
			  "On the primary, insert a row for this server; or set follow_primary.primary_host on this server to the host in its row.");
	else
		found(check, CHECK_OK, psprintf("%s, by its own row", nodes->own_name), NULL);
}

static void
try_extension(Check *check)
{
	char	   *version = sql_scalar("SELECT extversion FROM pg_extension WHERE extname = 'follow_primary'", 0, NULL);

	if (version == NULL || strcmp(version, LIBRARY_VERSION) != 0)
		found(check, CHECK_ERROR,
			  psprintf("the extension's objects are of version %s, the library is of version " LIBRARY_VERSION,
					   version ? version : "unknown"),
			  "On the primary, in this database: ALTER EXTENSION follow_primary UPDATE; or install the same version on all servers.");
	else
		found(check, CHECK_OK, "version " LIBRARY_VERSION ", objects and library", NULL);
}

static bool
is_preloaded(void)
{
	const char *libraries = GetConfigOption("shared_preload_libraries", false, false);

	return libraries && strstr(libraries, "follow_primary") != NULL;
}

static void
try_preload(Check *check)
{
	if (!is_preloaded())
		found(check, CHECK_WARNING,
			  "the library is not preloaded: this server keeps no WAL for its siblings, and does not clean up after a crash",
			  "Add follow_primary to shared_preload_libraries, and restart this server.");
	else
		found(check, CHECK_OK, "the library is preloaded", NULL);
}

static void
try_wal_level(Check *check)
{
	const char *level = GetConfigOption("wal_level", false, false);

	if (strcmp(level, "minimal") == 0)
		found(check, CHECK_ERROR, "wal_level is minimal: no node could follow this server",
			  "Set wal_level = replica and restart this server.");
	else
		found(check, CHECK_OK, pstrdup(level), NULL);
}

static void
try_wal_log_hints(Check *check)
{
	bool		checksums = strcmp(GetConfigOption("data_checksums", false, false), "on") == 0;

	if (!checksums && strcmp(GetConfigOption("wal_log_hints", false, false), "on") != 0)
		found(check, CHECK_WARNING,
			  "this server has neither data checksums nor wal_log_hints: it could not be rewound later, its data would be copied",
			  "Set wal_log_hints = on and restart this server; or enable data checksums.");
	else
		found(check, CHECK_OK, pstrdup(checksums ? "data checksums are enabled" : "wal_log_hints is on"), NULL);
}

static void
try_full_page_writes(Check *check)
{
	if (strcmp(GetConfigOption("full_page_writes", false, false), "on") != 0)
		found(check, CHECK_WARNING, "full_page_writes is off: no node could be rewound to follow this server",
			  "Set full_page_writes = on and reload this server.");
	else
		found(check, CHECK_OK, "on", NULL);
}

/* Are there enough of something that is limited, for all nodes at once? */
static void
enough(Check *check, int needed, int available, const char *what, const char *setting)
{
	if (available < needed)
		found(check, CHECK_ERROR, psprintf("%d %s for %d nodes, %d needed", Max(0, available), what, check->nnodes, needed),
			  psprintf("Raise %s on this server, on all others as well, and restart them.", setting));
	else
		found(check, CHECK_OK, psprintf("%d %s, %d needed", available, what, needed), NULL);
}

/* Those that are not the nodes' own already. */
static void
try_replication_slots(Check *check)
{
	char	   *others = sql_scalar(psprintf("SELECT count(*) FROM pg_replication_slots s WHERE NOT EXISTS ("
											 "SELECT FROM %s.follow_primary_node n WHERE s.slot_name = " SLOT_OF_ROW ")",
											 check->job->request->schema), 0, NULL);

	enough(check, check->nnodes, max_replication_slots - atoi(others), "replication slots are left", "max_replication_slots");
}

/* The WAL senders of today do not count: after a failover their standbys connect anew. */
static void
try_wal_senders(Check *check)
{
	enough(check, check->nnodes == 0 ? 0 : check->nnodes - 1 + SENDERS_OF_A_COPY, max_wal_senders,
		   "WAL senders", "max_wal_senders");
}

static void
try_workers(Check *check)
{
	int			waiting = 0;
	char	   *used = sql_scalar("SELECT count(*) FROM pg_stat_activity WHERE backend_type NOT IN ("
								  "'client backend', 'walsender', 'autovacuum worker', 'autovacuum launcher', 'startup', "
								  "'background writer', 'checkpointer', 'walwriter', 'walreceiver', 'archiver', 'walsummarizer', "
								  "'slotsync worker', 'io worker', 'logger', 'parallel worker') "
								  "AND backend_type NOT LIKE 'follow\\_primary check%'", 0, NULL);

	/* These begin at the promotion, and have reserved their places already. */
	if (RecoveryInProgress())
		waiting = (is_preloaded() ? 1 : 0) +
			(strcmp(GetConfigOption("max_logical_replication_workers", false, false), "0") != 0 ? 1 : 0);

	enough(check, check->nnodes, max_worker_processes - waiting - atoi(used), "background workers are free", "max_worker_processes");
}

static void
try_kept_wal(Check *check)
{
#if PG_VERSION_NUM >= 130000
	SqlResult  *rows = sql_run("SELECT slot_name, wal_status FROM pg_replication_slots WHERE wal_status <> 'reserved' ORDER BY 1", 0, NULL);
	StringInfoData slots;

	if (rows->nrows > 0)
	{
		initStringInfo(&slots);
		for (int i = 0; i < rows->nrows; i++)
			appendStringInfo(&slots, "%s\"%s\" (%s)", i > 0 ? ", " : "", sql_value(rows, i, 0), sql_value(rows, i, 1));
		found(check, CHECK_WARNING,
			  psprintf("replication slots hold more WAL than max_wal_size, or have lost it: %s", slots.data),
			  "See which node is away (follow_primary_cluster), and let it follow again. If it is gone for good, remove its row and its slot. max_slot_wal_keep_size bounds what slots hold.");
		return;
	}
	found(check, CHECK_OK,
		  psprintf("max_slot_wal_keep_size is %s", GetConfigOptionByName("max_slot_wal_keep_size", NULL, false)), NULL);
#else
	found(check, CHECK_OK, "nothing bounds what slots hold", NULL);
#endif
}

#if PG_VERSION_NUM >= 170000
static void
try_synchronized_standby_slots(Check *check)
{
	const Nodes *nodes = nodes_read(check->job->request->schema);
	const char *value = GetConfigOption("synchronized_standby_slots", false, false);
	StringInfoData slots;		/* of the nodes: this server's own is on the others */
	const char *args[2] = {value};
	char	   *missing;

	initStringInfo(&slots);
	for (int i = 0; i < nodes->nrows; i++)
		if (!nodes->rows[i].is_this_server)
			appendStringInfo(&slots, "%s,", nodes->rows[i].slot_name);
	args[1] = slots.data;
	missing = sql_scalar("SELECT string_agg(name, ', ') FROM (SELECT trim(BOTH ' \"' FROM n) AS name "
						 "FROM regexp_split_to_table($1, ',') n) names "
						 "WHERE name <> '' AND name <> ALL (string_to_array($2, ',')) "
						 "AND NOT EXISTS (SELECT FROM pg_replication_slots s WHERE s.slot_name = name AND s.slot_type = 'physical')",
						 lengthof(args), args);
	if (missing)
		found(check, CHECK_ERROR,
			  psprintf("synchronized_standby_slots names %s, which no other node has for its slot here: logical subscribers would wait for ever", missing),
			  "Correct synchronized_standby_slots on this server, which names the other nodes' slots alone; or slot_name in the nodes' rows.");
	else
		found(check, CHECK_OK, value[0] ? pstrdup(value) : "not set", NULL);
}
#endif

#if PG_VERSION_NUM >= 180000
static void
try_idle_replication_slot_timeout(Check *check)
{
	const char *value = GetConfigOption("idle_replication_slot_timeout", false, false);

	if (strcmp(value, "0") != 0)
		found(check, CHECK_WARNING,
			  "idle_replication_slot_timeout is set: slots that keep WAL for siblings are not used before a failover, and are invalidated",
			  "Set idle_replication_slot_timeout = 0; max_slot_wal_keep_size bounds what slots hold.");
	else
		found(check, CHECK_OK, "0", NULL);
}
#endif

static const CheckItem items[] = {
	{"name", try_name},
	{"extension", try_extension},
	{"preload", try_preload},
	{"wal_level", try_wal_level},
	{"wal_log_hints", try_wal_log_hints},
	{"full_page_writes", try_full_page_writes},
	{"kept_wal", try_kept_wal},
#if PG_VERSION_NUM >= 170000
	{"synchronized_standby_slots", try_synchronized_standby_slots},
#endif
#if PG_VERSION_NUM >= 180000
	{"idle_replication_slot_timeout", try_idle_replication_slot_timeout},
#endif
};

/* What all nodes need together. */
static const CheckItem shared_items[] = {
	{"replication_slots", try_replication_slots},
	{"wal_senders", try_wal_senders},
	{"workers", try_workers}
};

void
check_candidate(Check *check)
{
	for (int i = 0; i < lengthof(items); i++)
		check_try_item(check, items[i].name, items[i].try);
	for (int i = 0; check->whole && i < lengthof(shared_items); i++)
		check_try_item(check, shared_items[i].name, shared_items[i].try);
}
