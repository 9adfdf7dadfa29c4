/*
 * survey.c
 *		The facts about this server and the node; nothing is changed.
 *
 * The node is asked in one round trip (src/remote/survey.sh).  Nothing that it
 * says is trusted to be well-formed: what cannot be read is unknown, and the
 * plan knows what to do with unknown.
 */
#include "postgres.h"

#include "access/timeline.h"
#include "access/xlog.h"
#include "access/xlogrecord.h"
#include "miscadmin.h"
#include "replication/slot.h"
#include "replication/walsender.h"
#include "storage/fd.h"
#include "utils/builtins.h"

#include <sys/stat.h>

#include "compat.h"
#include "divergence.h"
#include "down.h"
#include "login.h"
#include "primary_host.h"
#include "record.h"
#include "recovery_conf.h"
#include "sql.h"
#include "ssh/net.h"
#include "standby_name.h"
#include "survey.h"
#include "wal.h"

#define SURVEY_TIMEOUT_MS	60000
#define RESOLVE_TIMEOUT_MS	2000

/* This server's history, as the backend reads it. */
static void
read_own_history(TimeLineID timeline, History *history)
{
	List	   *entries = readTimeLineHistory(timeline);
	ListCell   *cell;
	int			i = list_length(entries);

	/* The backend's list has the newest timeline first. */
	history->length = i;
	history->stretches = palloc(i * sizeof(Stretch));
	foreach(cell, entries)
	{
		TimeLineHistoryEntry *entry = (TimeLineHistoryEntry *) lfirst(cell);

		i--;
		history->stretches[i].tli = entry->tli;
		history->stretches[i].begin = entry->begin;
		history->stretches[i].end = entry->end;
	}
}

static void
survey_primary(Job *job)
{
	PrimaryFacts *facts = &job->primary;
	SqlResult  *row;

	facts->in_recovery = RecoveryInProgress();
	facts->version_num = PG_VERSION_NUM;
	facts->system_id = GetSystemIdentifier();
	facts->full_page_writes = fullPageWrites;
	if (facts->in_recovery)
		return;

	row = sql_run("SELECT pg_walfile_name(pg_current_wal_insert_lsn()), pg_current_wal_flush_lsn()", 0, NULL);
	facts->timeline = (TimeLineID) strtoul(pnstrdup(sql_value(row, 0, 0), 8), NULL, 16);
	lsn_parse(sql_value(row, 0, 1), &facts->flush_lsn);
	read_own_history(facts->timeline, &facts->history);
	facts->oldest_wal = wal_oldest(facts->flush_lsn);
}

/* Is the address, as text, one of the host's? */
static bool
is_address_of(const char *host, const char *address)
{
	struct addrinfo *all = NULL;
	char		text[NI_MAXHOST];
	bool		found = false;

	if (net_resolve(host, 0, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), RESOLVE_TIMEOUT_MS), &all) != 0)
		return false;
	for (struct addrinfo *a = all; a && !found; a = a->ai_next)
		found = getnameinfo(a->ai_addr, a->ai_addrlen, text, sizeof(text), NULL, 0, NI_NUMERICHOST) == 0 &&
			strcmp(text, address) == 0;
	freeaddrinfo(all);
	return found;
}

/*
 * Finds out who streams through the node's slot.  After a line was cut the node's own WAL
 * sender may live on for as long as wal_sender_timeout says.
 */
static void
find_slot_client(Job *job)
{
	PrimaryFacts *facts = &job->primary;
	const NodeFacts *node = &job->node;
	const char *slot[] = {job->request->slot_name};
	SqlResult  *row = sql_run("SELECT s.active_pid, coalesce(r.application_name, ''), coalesce(host(r.client_addr), '') "
							  "FROM pg_replication_slots s LEFT JOIN pg_stat_replication r ON r.pid = s.active_pid "
							  "WHERE s.slot_name = $1 AND s.active", lengthof(slot), slot);
	const char *their_name = standby_name_in_force(node, facts->version_num);
	const char *name;
	const char *address;

	if (row->nrows == 0)
	{
		facts->slot_active = false; /* it has just ended */
		return;
	}
	name = sql_value(row, 0, 1);
	address = sql_value(row, 0, 2);
	facts->slot_pid = atoi(sql_value(row, 0, 0));
	facts->slot_client = psprintf("\"%s\" at %s, process %d here", name,
								  address[0] ? address : "this host", facts->slot_pid);
	facts->slot_of_node = their_name && strcmp(name, their_name) == 0 &&
		address[0] && is_address_of(job->request->node_host, address);
}

/*
 * The rest about this server.  It is asked after the node: by then this server
 * has flushed all that the node had received from it, and a connection that was
 * just ending no longer holds the slot.
 */
static void
survey_primary_again(Job *job)
{
	PrimaryFacts *facts = &job->primary;
	const char *slot[] = {job->request->slot_name};
	const char *role = job->request->settings->replication_user;
	const char *logins;
	SqlResult  *row;

	logins = sql_scalar("SELECT greatest(rolconnlimit - (SELECT count(*) FROM pg_stat_get_activity(NULL) WHERE usesysid = r.oid), 0) "
						"FROM pg_roles r WHERE rolname = $1 AND rolconnlimit >= 0 AND NOT rolsuper", 1, &role);
	facts->free_logins = logins ? atoi(logins) : -1;
	facts->replication_user = pstrdup(quote_identifier(role));
	row = sql_run("SELECT pg_current_wal_flush_lsn(), "
				  "(SELECT count(*) FROM pg_replication_slots), "
				  "(SELECT count(*) FROM pg_stat_get_wal_senders() WHERE pid IS NOT NULL)", 0, NULL);
	lsn_parse(sql_value(row, 0, 0), &facts->flush_lsn);
	facts->free_slots = max_replication_slots - atoi(sql_value(row, 0, 1));
	facts->free_wal_senders = max_wal_senders - atoi(sql_value(row, 0, 2));

	row = sql_run("SELECT slot_type, active, " SLOT_IS_LOST ", "
				  "restart_lsn IS NULL AND NOT active "
				  "FROM pg_replication_slots WHERE slot_name = $1", 1, slot);
	if (row->nrows > 0)
	{
		facts->slot_exists = true;
		facts->slot_logical = strcmp(sql_value(row, 0, 0), "logical") == 0;
		facts->slot_active = strcmp(sql_value(row, 0, 1), "t") == 0;
		facts->slot_lost = strcmp(sql_value(row, 0, 2), "t") == 0 ||
			strcmp(sql_value(row, 0, 3), "t") == 0;
	}
	if (facts->slot_active)
	{
		const char *node[] = {
			job->request->slot_name, job->request->node_host,
			psprintf("%d", job->request->node_port)
		};

		find_slot_client(job);
		facts->slot_user = sql_scalar(psprintf("SELECT other FROM (SELECT node_host || ':' || node_port AS other, "
											   "lower(node_host) = lower($2) AND node_port = $3::int AS this "
											   "FROM %s.follow_primary_job WHERE slot_name = $1 AND state = 'succeeded' "
											   "ORDER BY id DESC LIMIT 1) latest WHERE NOT this",
											   job->request->schema),
									  lengthof(node), node);
	}
}

/*
 * The slot of this server that the node streams through, where the job gives it
 * another one.  Nobody else would drop the former slot, and it would hold WAL
 * for ever.
 */
static void
find_former_slot(Job *job, const RemoteReply *reply)
{
	const char *slot = remote_get(reply, "sql.receiver_slot");
	const char *args[] = {slot, job->node.application_name};

	if (job->former_slot || slot == NULL || slot[0] == '\0' ||
		(!job->node.receives_from_us && job->node.application_name == NULL) ||
		strcmp(slot, job->request->slot_name) == 0 ||
		!job->node.receiver_streaming ||
		job->node.receiver_timeline != job->primary.timeline)
		return;
	if (sql_is_true("SELECT EXISTS (SELECT FROM pg_replication_slots s JOIN pg_stat_replication r ON r.pid = s.active_pid "
					"WHERE s.slot_name = $1 AND s.slot_type = 'physical' AND r.application_name = coalesce($2, r.application_name))",
					lengthof(args), args))
		job->former_slot = pstrdup(slot);
}

/*
 * The proof that the node follows is a row that the rewind role sees there.
 * Here the job finds out whether the role may see it, before anything is
 * touched.
 */
void
survey_check_rewind_user(const Job *job)
{
	const char *role = job->request->settings->rewind_user;
	const char *schema = job->request->schema;
	const char *args[] = {
		role,
		psprintf("%s.follow_primary_step", schema),
		schema
	};
	char	   *missing;

	missing = sql_scalar("SELECT CASE "
						 "WHEN to_regrole(quote_ident($1)) IS NULL THEN format('CREATE ROLE %I LOGIN', $1) "
						 "WHEN NOT r.rolcanlogin THEN format('ALTER ROLE %I LOGIN', $1) "
						 "WHEN r.rolconnlimit BETWEEN 0 AND 1 AND NOT r.rolsuper THEN format('ALTER ROLE %I CONNECTION LIMIT 5', $1) "
						 "WHEN NOT has_database_privilege($1, current_database(), 'CONNECT') "
						 "THEN format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), $1) "
						 "WHEN NOT has_schema_privilege($1, (parse_ident($3))[1], 'USAGE') "
						 "THEN format('GRANT USAGE ON SCHEMA %s TO %I', $3, $1) "
						 "WHEN NOT has_table_privilege($1, $2, 'SELECT') "
						 "THEN format('GRANT pg_monitor TO %I', $1) END "
						 "FROM (SELECT) one LEFT JOIN pg_roles r ON r.rolname = $1",
						 lengthof(args), args);
	if (missing)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role \"%s\" cannot read %s", role, args[1]),
				 errdetail("By a row in it, as follow_primary.rewind_user sees it on the node, the node proves to follow this server."),
				 errhint("%s", psprintf("Run on this server: %s", missing))));
}

/* A copy of a value of the reply, or NULL. */
static char *
value_of(const RemoteReply *reply, const char *key)
{
	const char *value = remote_get(reply, key);

	return value ? pstrdup(value) : NULL;
}

/* A copy of a value of the reply, or "". */
static char *
text_of(const RemoteReply *reply, const char *key)
{
	const char *value = remote_get(reply, key);

	return pstrdup(value ? value : "");
}

/* A number that pg_controldata says; 0 where it does not. */
static uint64
control_number(const RemoteReply *reply, const char *label)
{
	const char *value = remote_control_value(reply, label);

	return value ? strtoull(value, NULL, 10) : 0;
}

/* What the phase of a mark means, which src/remote/mark.sh explains. */
static NodeMark
read_mark(const char *phase, bool stale)
{
	static const struct
	{
		const char *phase;
		NodeMark	mark;
		NodeMark	stale;
	}			phases[] = {
		{"stopped", MARK_BEFORE_CHANGE, MARK_NONE}, /* stale: the server has run since */
		{"recovering", MARK_BEFORE_CHANGE, MARK_BEFORE_CHANGE},
		{"rewinding", MARK_HALF_CHANGED, MARK_HALF_CHANGED},
		{"rewound", MARK_CHANGED, MARK_CHANGED},
		{"clearing", MARK_CLEARED, MARK_CLEARED},

		/* stale: the swap has moved nothing, and the WAL written since is to be saved */
		{"swapping", MARK_HALF_SWAPPED, MARK_BEFORE_CHANGE},
		{"swapped", MARK_CHANGED, MARK_CHANGED},
		{"ready", MARK_CHANGED, MARK_CHANGED}
	};

	if (phase == NULL)
		return MARK_NONE;
	for (int i = 0; i < lengthof(phases); i++)
		if (strcmp(phase, phases[i].phase) == 0)
			return stale ? phases[i].stale : phases[i].mark;
	return MARK_HALF_CHANGED;
}

/*
 * Is the mark from a primary whose history this server does not have?  Then the
 * WAL that its job saved may begin at a later fork.  A job whose row is here
 * belongs to this history, and its fork is the same.
 */
static bool
is_foreign_mark(const Job *job, const char *token)
{
	const Request *request = job->request;
	const char *args[] = {
		token, request->node_host, psprintf("%d", request->node_port)
	};

	return !sql_is_true(psprintf("SELECT EXISTS (SELECT FROM %s.follow_primary_job WHERE token::text = $1 "
								 "AND lower(node_host) = lower($2) AND node_port = $3::int)",
								 request->schema),
						lengthof(args), args);
}

static int
major_of(const char *version)
{
	/* "postgres (PostgreSQL) 15.4 (Debian ...)" or "15" */
	const char *digits = version ? strpbrk(version, "0123456789") : NULL;

	return digits ? atoi(digits) : 0;
}

/*
 * A hot standby needs settings as high as the primary's.  Where they are lower,
 * it ends when it replays that; from 14 on it pauses for ever while its WAL
 * receiver streams (CheckRequiredParameterValues() in xlog.c).
 */
static const char *const needed_settings[] = {
	"max_connections", "max_worker_processes", "max_wal_senders",
	"max_prepared_transactions", "max_locks_per_transaction"
};

char *
survey_lower_setting(const RemoteReply *reply)
{
	for (int i = 0; i < lengthof(needed_settings); i++)
	{
		const char *name = needed_settings[i];
		const char *theirs = remote_get(reply, psprintf("set.%s", name));
		const char *ours = GetConfigOption(name, false, false);

		if (theirs && atoi(theirs) < atoi(ours))
			return psprintf("%s is %s on the node, lower than this server's %s",
							name, theirs, ours);
	}
	return NULL;
}

char *
survey_needed_settings(void)
{
	StringInfoData names;

	initStringInfo(&names);
	for (int i = 0; i < lengthof(needed_settings); i++)
		appendStringInfo(&names, "%s ", needed_settings[i]);
	return sql_scalar("SELECT string_agg(name || '=' || setting || '/' || boot_val, ' ') FROM pg_settings "
					  "WHERE name = ANY (string_to_array($1, ' '))",
					  1, (const char *[]) {names.data});
}

/*
 * The node lets the role in by a password, which has expired here: when the node
 * follows this server it knows that, too, and the proof would fail.
 */
static void
refuse_expired(Job *job)
{
	const Settings *settings = job->request->settings;
	NodeFacts  *node = &job->node;

	node->sql_error = psprintf("the password of role \"%s\" has expired, as the node learns when it follows", settings->rewind_user);
	node->refused_login = login_hint(job, LOGIN_TO_NODE, settings->rewind_user, settings->rewind_database, NULL, node->sql_error);
	node->refused_sqlstate = ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION;
}

/* What a running server said of itself. */
static void
read_running(Job *job, const RemoteReply *reply)
{
	NodeFacts  *node = &job->node;
	const char *written = remote_get(reply, "sql.written");
	const char *signal = remote_get(reply, "signal");
	const char *status = remote_get(reply, "status");
	const char *value;
	XLogRecPtr	lsn;

	node->sql = remote_says(reply, "sql", "yes");
	if (!node->sql)
	{
		value = remote_get(reply, "sql_error");
		node->sql_error = value ? sql_text(value) : NULL;
		if (remote_says(reply, "sql_refused", "yes"))
		{
			node->refused_login = login_hint(job, LOGIN_TO_NODE, job->request->settings->rewind_user,
											 job->request->settings->rewind_database, NULL, node->sql_error);
			node->refused_sqlstate = login_sqlstate(node->sql_error);
		}
		node->hot_standby = status == NULL || strncmp(status, "standby", 7) != 0;
		node->state = (signal && (strstr(signal, "standby.signal") || strstr(signal, "recovery.conf"))) ||
			!node->hot_standby ? NODE_STANDBY : NODE_PRIMARY;
		return;
	}

	if (remote_says(reply, "sql_by_password", "yes"))
		refuse_expired(job);
	value = remote_get(reply, "sql.in_recovery");
	node->state = value && strcmp(value, "true") == 0 ? NODE_STANDBY : NODE_PRIMARY;
	if (node->state == NODE_PRIMARY)
	{
		/* "000000020000000000000003 0/3000060" */
		if (written && strlen(written) > 25 && lsn_parse(written + 25, &node->lsn))
			node->timeline = (TimeLineID) strtoul(pnstrdup(written, 8), NULL, 16);
		return;
	}

	node->lsn = InvalidXLogRecPtr;
	if (lsn_parse(remote_get(reply, "sql.replayed"), &lsn))
		node->lsn = lsn;
	if (lsn_parse(remote_get(reply, "sql.received"), &lsn))
		node->lsn = Max(node->lsn, lsn);
	value = remote_get(reply, "sql.recovery_timeline");
	if (value)
		node->timeline = Max(node->timeline, (TimeLineID) strtoul(value, NULL, 10));
	value = remote_get(reply, "sql.receiver_timeline");
	node->receiver_timeline = value ? (TimeLineID) strtoul(value, NULL, 10) : 0;
	node->timeline = Max(node->timeline, node->receiver_timeline);
	value = remote_get(reply, "sql.receiver");
	node->receiver_streaming = value && strcmp(value, "streaming") == 0;
	value = remote_get(reply, "sql.receiver_slot");
	node->uses_slot = node->receiver_streaming && value &&
		strcmp(value, job->request->slot_name) == 0;
	value = remote_get(reply, "sql.paused");
	node->replay_paused = value && strcmp(value, "true") == 0;
	value = remote_get(reply, "set.primary_conninfo");
	node->conninfo = value ? pstrdup(value) : NULL;
	value = remote_get(reply, "set.recovery_target_timeline");
	node->target_timeline_latest = value && strcmp(value, "latest") == 0;
	value = remote_get(reply, "sql.target");
	node->recovery_target_in_force = value != NULL;
	if (value == NULL)
		value = remote_get(reply, "sql.target_written");
	node->recovery_target = value ? pstrdup(value) : NULL;
	value = remote_get(reply, "set.recovery_min_apply_delay");
	node->replay_delayed = value && strcmp(value, "0") != 0;
	value = remote_get(reply, "set.hot_standby");
	node->hot_standby = value == NULL || strcmp(value, "on") == 0;
	node->lower_setting = node->hot_standby ? survey_lower_setting(reply) : NULL;
	value = remote_get(reply, "set.server_version_num");
	node->conninfo_reloadable = value && atoi(value) >= 130000;
}

static PgdataState
read_pgdata_state(const char *state)
{
	static const struct
	{
		const char *word;
		PgdataState state;
	}			words[] = {
		{"unknown", PGDATA_UNKNOWN},
		{"missing", PGDATA_MISSING},
		{"empty", PGDATA_EMPTY},
		{"unreadable", PGDATA_UNREADABLE},
		{"ok", PGDATA_OK}
	};

	if (state == NULL)
		return PGDATA_UNKNOWN;
	for (int i = 0; i < lengthof(words); i++)
		if (strcmp(state, words[i].word) == 0)
			return words[i].state;
	return PGDATA_NOT_PGDATA;
}

/* What earlier jobs left on the node. */
static void
read_left_over(NodeFacts *node, const RemoteReply *reply)
{
	node->leftovers = remote_says(reply, "leftovers", "yes");
	node->uncounted = remote_says(reply, "uncounted", "yes");
	node->mark_stale = remote_says(reply, "mark_stale", "yes");
	node->mark = read_mark(remote_get(reply, "mark_phase"), node->mark_stale);
}

/* The node's data directory, configuration and programs, and who has its port. */
static void
read_place(Job *job, const RemoteReply *reply)
{
	NodeFacts  *node = &job->node;
	const char *value;

	node->pgdata = value_of(reply, "pgdata");
	node->pgdata_state = node->pgdata ? read_pgdata_state(remote_get(reply, "pgdata_state")) : PGDATA_UNKNOWN;
	node->version_major = major_of(remote_get(reply, "version"));
	node->bin_version_major = major_of(remote_get(reply, "bin_version"));
	node->config_missing = remote_says(reply, "config_missing", "yes");
	value = remote_get(reply, "recovery_file_taken");
	node->recovery_file_taken = value ? pstrdup(value) : NULL;
	value = remote_get(reply, "started_with");
	node->started_with = value ? pstrdup(value) : NULL;
	job->restore_copied = remote_says(reply, "restore_copied", "yes");
	job->beside = text_of(reply, "beside");
	job->control_time = text_of(reply, "control_time");
	job->node_home = text_of(reply, "home");
	job->config_file = text_of(reply, "config_file");
	job->waldir = text_of(reply, "waldir");
	job->log_file = text_of(reply, "log_file");
	job->log_size = text_of(reply, "log_size");

	value = remote_get(reply, "port_owner");
	if (value && value[0] != '\0' && node->pgdata && strcmp(value, node->pgdata) != 0)
		node->port_owner = pstrdup(value);
	value = remote_get(reply, "running_port");
	if (value && atoi(value) != job->request->node_port)
		node->other_port = atoi(value);
}

static void
read_tablespaces(Job *job, const RemoteReply *reply)
{
	job->tablespaces = palloc0(sizeof(char *) * (reply->nvalues + 1));
	job->tablespace_oids = palloc0(sizeof(Oid) * (reply->nvalues + 1));
	for (int i = 0; i < reply->nvalues; i++)
		if (strncmp(reply->values[i].key, "tablespace.", 11) == 0)
		{
			job->tablespace_oids[job->ntablespaces] =
				(Oid) strtoul(reply->values[i].key + 11, NULL, 10);
			job->tablespaces[job->ntablespaces++] = pstrdup(reply->values[i].value);
		}
}

/* What pg_controldata says, and where the WAL in pg_wal ends. */
static void
read_control_data(NodeFacts *node, const RemoteReply *reply)
{
	const char *state = remote_control_value(reply, "Database cluster state");
	const char *value;
	XLogRecPtr	end;

	if (remote_get(reply, "controldata") == NULL)
		return;
	node->system_id = control_number(reply, "Database system identifier");
	node->clean_shutdown = state && strncmp(state, "shut down", 9) == 0;
	node->was_primary = state && strcmp(state, "in archive recovery") != 0 &&
		strcmp(state, "shut down in recovery") != 0;
	value = remote_control_value(reply, "wal_log_hints setting");
	node->wal_log_hints = value && strcmp(value, "on") == 0;
	node->checksums = control_number(reply, "Data page checksum version") > 0;

	lsn_parse(remote_control_value(reply, "Latest checkpoint location"), &node->lsn);
	if (node->was_primary)
		node->lsn += SizeOfXLogRecord;	/* the checkpoint begins there */
	else if (lsn_parse(remote_control_value(reply, "Minimum recovery ending location"), &end))
		node->lsn = Max(node->lsn, end);

	node->timeline = Max((TimeLineID) control_number(reply, "Latest checkpoint's TimeLineID"),
						 (TimeLineID) control_number(reply, "Min recovery ending loc's timeline"));
	value = remote_get(reply, "wal_timeline");
	if (value && value[0])
		node->timeline = Max(node->timeline, (TimeLineID) strtoul(value, NULL, 16));

	/* A fresh copy has the control data of its source. */
	value = remote_get(reply, "signal");
	if (value && strstr(value, "backup_label"))
		node->was_primary = false;
}

/* What the node is known by as a standby, whatever its state. */
static void
read_names(NodeFacts *node, const RemoteReply *reply)
{
	node->application_name = conninfo_value(remote_get(reply, "set.primary_conninfo"), "application_name");
	node->cluster_name = value_of(reply, "set.cluster_name");
	node->sync_names = value_of(reply, "set.synchronous_standby_names");
}

void
survey_read_node(Job *job, const RemoteReply *reply)
{
	NodeFacts  *node = &job->node;
	const char *history;

	read_place(job, reply);
	read_left_over(node, reply);
	read_tablespaces(job, reply);
	read_control_data(node, reply);
	read_names(node, reply);
	node->restore_command = restore_command_behind_gate(value_of(reply, "set.restore_command"));
	if (remote_get(reply, "pid"))
		read_running(job, reply);
	else
		node->state = NODE_DOWN;
	node->was_primary = node->was_primary && node->state == NODE_DOWN;

	history = remote_get(reply, psprintf("history.%08X", node->timeline));
	if (node->timeline == 1 || (node->timeline != 0 && history))
		node->history_known = history_parse(history, node->timeline, &node->history);

	divergence_find(&job->primary, node, reply);
	/* What the job behind any other mark put aside comes back with the method that goes on. */
	if (node->mark != MARK_NONE && !remote_says(reply, "mark_phase", "stopped"))
		node->ended_here = false;
}

/* Has this server a slot of that name, or does a node of follow_primary_node? */
static bool
is_slot_of_cluster(const Job *job, const char *name)
{
	SqlResult  *nodes;

	if (sql_is_true("SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1)", 1, &name))
		return true;
	nodes = sql_run(psprintf("SELECT host, slot_name FROM %s.follow_primary_node", job->request->schema), 0, NULL);
	for (int i = 0; i < nodes->nrows; i++)
	{
		const char *slot = sql_value(nodes, i, 1);

		if (strcmp(slot ? slot : default_slot_name(sql_value(nodes, i, 0)), name) == 0)
			return true;
	}
	return false;
}

/*
 * The physical slots on the node that belong to standbys of its own.  The slots
 * of its life as a primary go: their standbys follow this server, and have
 * slots here or will.  So do the slots that nobody uses on a former primary.
 */
static char *
downstream_slots(const Job *job, const RemoteReply *reply)
{
	const char *state = remote_control_value(reply, "Database cluster state");
	bool		is_standby = job->node.state == NODE_STANDBY ||
		(job->node.state == NODE_DOWN && state && strstr(state, "recovery"));
	StringInfoData names;

	initStringInfo(&names);
	for (int i = 0; i < reply->nvalues; i++)
	{
		const char *name = reply->values[i].key + 5;
		const char *kind = reply->values[i].value;
		bool		active = strstr(kind, " active") != NULL;

		if (strncmp(reply->values[i].key, "slot.", 5) != 0 ||
			strncmp(kind, "physical", 8) != 0 || (!is_standby && !active))
			continue;
		if (!(is_standby && active))
		{
			if (is_slot_of_cluster(job, name))
				continue;
		}
		appendStringInfo(&names, "%s%s", names.len > 0 ? " " : "", name);
	}
	return names.data;
}

/* If the WAL that the node needs next is gone from here, who has it? */
static void
survey_archive(Job *job)
{
	NodeFacts  *node = &job->node;
	char	   *command = job_restore_command(job);

	if (node->pgdata_state != PGDATA_OK || XLogRecPtrIsInvalid(node->lsn) ||
		node->lsn >= job->primary.oldest_wal)
		return;
	node->archive_serves = wal_archive_serves(job, node->lsn);
	node->archive_needs_restart = job->primary.version_num < 140000 && command &&
		(node->restore_command == NULL || strcmp(node->restore_command, command) != 0);
}

bool
survey_is_this_server(const RemoteReply *reply)
{
	const char *inode = remote_get(reply, "pgdata_inode");
	struct stat st;

	return inode && primary_host_is_shared(reply) && stat(DataDir, &st) == 0 &&
		strcmp(inode, psprintf("%llu:%llu", (unsigned long long) st.st_dev,
							   (unsigned long long) st.st_ino)) == 0;
}

/* Does somebody stream from this server through the node's slot? */
static bool
slot_is_in_use(const Job *job)
{
	const char *slot[] = {job->request->slot_name};

	return sql_is_true("SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1 AND active)",
					   lengthof(slot), slot);
}

bool
survey_connect(Job *job)
{
	const Request *request = job->request;
	const Settings *settings = request->settings;
	MemoryContext context = CurrentMemoryContext;
	SshTarget	target = {
		.host = request->node_host,
		.port = settings->ssh_port,
		.user = settings->ssh_user,
		.key_file = settings->ssh_key_file,
		.known_hosts_file = settings->ssh_known_hosts_file,
		.host_key_checking = (SshHostKeyChecking) settings->ssh_host_key_checking,
		.connect_timeout_ms = settings->connect_timeout * 1000
	};
	ErrorData  *volatile unreachable = NULL;

	PG_TRY();
	{
		job->ssh = ssh_connect(&target);
	}
	PG_CATCH();
	{
		ErrorData  *error;
		NetFailure	failure;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		if (error->sqlerrcode != ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION ||
			request->rejoin_when_down)
			PG_RE_THROW();
		FlushErrorState();

		failure = net_probe(request->node_host, request->node_port,
							TimestampTzPlusMilliseconds(GetCurrentTimestamp(), target.connect_timeout_ms));
		if (failure == NET_OK || failure == NET_UNKNOWN_HOST)
			ReThrowError(error);
		unreachable = error;
	}
	PG_END_TRY();
	if (unreachable && slot_is_in_use(job))
	{
		unreachable->hint = psprintf("The node is not down: it streams from this server through slot \"%s\". %s",
									 job->request->slot_name, unreachable->hint ? unreachable->hint : "");
		ReThrowError(unreachable);
	}
	return unreachable == NULL;
}

/* Does the call give the node another name than the one in force? */
static bool
is_to_be_renamed(const Job *job)
{
	const char *wanted = job->request->application_name;
	const char *name = standby_name_in_force(&job->node, job->primary.version_num);

	return wanted && name && strcmp(wanted, name) != 0;
}

void
survey_ask(Job *job, const char *pgdata, int timeout_ms, RemoteReply *reply)
{
	const Request *request = job->request;
	const Settings *settings = request->settings;
	RemoteLimits limits = {.timeout_ms = timeout_ms};

	remote_run(job->ssh, &remote_survey,
			   JOB_NAMED(job,
						 {"pgdata", pgdata},
						 {"port", NUMBER(request->node_port)},
						 {"config", request->config_file},
						 {"db_user", settings->rewind_user},
						 {"db_name", settings->rewind_database},
						 {"passfile", settings->passfile},
						 {"host", request->node_host},
						 {"recovery_file", settings->recovery_file},
						 {"expired", login_password_expired(settings->rewind_user) ? "yes" : "no"},
						 {"start_command", settings->node_start_command},
						 {"records", divergence_records(&job->primary.history)}),
			   NULL, &limits, reply);
}

void
survey_raise_failure(const Job *job, const RemoteReply *reply)
{
	if (remote_failed_for(reply, "foreign_config"))
		ereport(ERROR,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("node %s has another configuration file", node_name(job)),
				 errdetail("%s", reply->messages),
				 errhint("Correct config_file or pgdata in the node's row of follow_primary_node.")));
	if (remote_failed_for(reply, "data_gone"))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("node %s has lost its data since a job worked on it", node_name(job)),
				 errdetail("%s", reply->messages),
				 errhint("Is its disk mounted? If the data is gone for good, remove that file alone, for lost_wal folders in the directory above it are the only copy of what they have; and see that the data directory is there and empty, to have a copy made.")));
	if (!reply->ok)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FILE),
				 errmsg("node %s cannot be surveyed", node_name(job)),
				 errdetail("%s", reply->messages),
				 errhint("Set follow_primary.node_bin_dir, or node_bin_dir in the node's row, to the directory of PostgreSQL's programs there.")));
}

static void
survey_node(Job *job)
{
	RemoteReply reply;
	NodeFacts	before = job->node;
	NodeFacts  *node = &job->node;

	/* A server that a step has stopped cannot be asked again. */
	const char *pgdata = job->request->node_pgdata ? job->request->node_pgdata : before.pgdata;

	memset(node, 0, sizeof(*node));
	job->ntablespaces = 0;
	if (job->ssh == NULL && !survey_connect(job))
	{
		node->state = NODE_DOWN;
		node->bin_version_major = job->primary.version_num / 10000;
		job_detail(job, "neither SSH nor PostgreSQL answers on %s", job->request->node_host);
		return;
	}

	survey_ask(job, pgdata, SURVEY_TIMEOUT_MS, &reply);
	survey_raise_failure(job, &reply);
	survey_read_node(job, &reply);
	down_prove(job, &reply, before.pgdata != NULL);
	if (node->state == NODE_DOWN)
		node->conninfo = before.conninfo;	/* a step of this job stopped it */
	if (before.pgdata)
	{
		/* The files may be the primary's by now. */
		node->application_name = before.application_name;
		node->cluster_name = before.cluster_name;
		node->sync_names = before.sync_names;
	}
	node->other_name = is_to_be_renamed(job);
	survey_primary_again(job);
	node->is_this_server = survey_is_this_server(&reply);
	job->keep_slots = downstream_slots(job, &reply);
	node->foreign_mark = remote_says(&reply, "keep", "yes") ||
		(node->mark != MARK_NONE && node->mark != MARK_BEFORE_CHANGE &&
		 !node->mark_stale && is_foreign_mark(job, remote_get(&reply, "mark_token")));
	if (!node->is_this_server)
		survey_archive(job);

	job->primary_host = primary_host_find(job, &reply);
	node->receives_from_us = remote_says(&reply, "sql.receiver_from",
										 psprintf("%s:%d", job->primary_host, job->request->primary_port));
	find_former_slot(job, &reply);
	if (job->former_conninfo == NULL)
		job->former_conninfo = node->conninfo;

	job_detail(job, "the node %s%s",
			   node->state == NODE_PRIMARY ? "runs as a primary" :
			   node->state == NODE_STANDBY ? "is a standby" :
			   node->not_down ? "is not to be asked" : "is down",
			   node->timeline == 0 || XLogRecPtrIsInvalid(node->lsn) ? "" :
			   psprintf("; timeline %u, WAL up to %s", node->timeline, lsn_text(node->lsn)));
}

void
survey(Job *job)
{
	MemoryContext caller = MemoryContextSwitchTo(job->context);

	memset(&job->primary, 0, sizeof(job->primary));
	survey_primary(job);
	if (!job->primary.in_recovery)
	{
		survey_check_rewind_user(job);
		survey_node(job);
	}
	MemoryContextSwitchTo(caller);
}
