/*
 * node.c
 *		The items of a node that would follow this server: what a job would need of
 *		it is tried, and nothing is changed.
 *
 * Items that need another one that is in error are left out.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "check/item.h"
#include "down.h"
#include "folders.h"
#include "hints.h"
#include "primary_host.h"
#include "process.h"
#include "recovery_conf.h"
#include "record.h"
#include "sql.h"
#include "ssh/net.h"
#include "standby_name.h"
#include "steps/attach.h"
#include "steps/config.h"
#include "steps/connect.h"
#include "steps/step.h"
#include "steps/trial.h"
#include "survey.h"
#include "version.h"
#include "wal.h"

/* How many connections to this server a node tries, one after the other, and one for safety. */
#define CONNECTIONS_OF_NODE	3

/* ---- reaching it ---- */

static void
try_row(Check *check)
{
	request_resolve(check->request);
	found(check, CHECK_OK, "what follow_primary_node and the settings say of it makes sense", NULL);
}

static void
try_ssh(Check *check)
{
	Job		   *job = check->job;

	(void) survey_connect(job);
	survey_ask(job, job->request->node_pgdata, check_limits(check).timeout_ms, &check->survey);
	found(check, CHECK_OK,
		  psprintf("logged in as %s at port %d",
				   job->request->settings->ssh_user[0] ? job->request->settings->ssh_user : "the server's user",
				   job->request->settings->ssh_port), NULL);
}

static void
raise_survey_failure(Check *check)
{
	survey_raise_failure(check->job, &check->survey);
}

static void
try_this_server(Check *check)
{
	found(check, CHECK_ERROR,
		  psprintf("%s is this server itself, which does not know it", check->node),
		  "Set follow_primary.primary_host on this server to the host of its row, and its port if the row has another one.");
}

/*
 * Why a job would refuse the node for one of its facts, the others being as they
 * should be.
 */
static void
refuse_for(Check *check, const NodeFacts *facts)
{
	JobPlan		plan = {0};

	if (plan_refuses(&check->job->primary, facts, &plan))
		found(check, CHECK_ERROR, plan.reason, plan.hint);
}

/* A node with nothing to be refused for. */
static NodeFacts
good_facts(const Check *check)
{
	NodeFacts	facts = {
		.pgdata_state = PGDATA_OK,
		.pgdata = check->job->node.pgdata,
		.bin_version_major = check->job->primary.version_num / 10000,
		.state = NODE_STANDBY
	};

	return facts;
}

/* "15.4" of "postgres (PostgreSQL) 15.4 (Debian ...)" */
static char *
version_number(const char *version)
{
	const char *digits = version ? strpbrk(version, "0123456789") : NULL;

	return digits ? pnstrdup(digits, strcspn(digits, " \n")) : pstrdup("unknown");
}

static void
try_programs(Check *check)
{
	NodeFacts	facts = good_facts(check);
	char	   *theirs = version_number(remote_get(&check->survey, "bin_version"));
	char	   *ours = version_number(PG_VERSION);
	const char *missing = remote_get(&check->tried, "missing_programs");
	const char *dir = check->job->request->settings->node_bin_dir;

	found(check, CHECK_OK, psprintf("PostgreSQL %s in \"%s\"", theirs, dir), NULL);
	if (strcmp(theirs, ours) != 0)
		found(check, CHECK_WARNING,
			  psprintf("the node's programs are of PostgreSQL %s, this server is PostgreSQL %s", theirs, ours),
			  "Install the same minor version on all servers.");
	if (missing && missing[0] != '\0')
		found(check, CHECK_ERROR, psprintf("\"%s\" lacks %s", dir, missing),
			  "Install PostgreSQL's server and client programs there, or set node_bin_dir in the node's row.");
	facts.bin_version_major = check->job->node.bin_version_major;
	refuse_for(check, &facts);
}

static void
try_data_directory(Check *check)
{
	const NodeFacts *node = &check->job->node;
	NodeFacts	facts = good_facts(check);

	found(check, CHECK_OK, psprintf("\"%s\"", node->pgdata ? node->pgdata : ""), NULL);
	if (node->mark != MARK_NONE)
		found(check, CHECK_WARNING, "an interrupted job left its mark on the node", CALL_AGAIN);
	if (node->pgdata_state == PGDATA_UNKNOWN && node->not_down == NULL)
		found(check, CHECK_ERROR, "the node is down and its data directory is not known",
			  "Set pgdata in the node's row of follow_primary_node.");
	if (node->pgdata_state == PGDATA_EMPTY)
		found(check, CHECK_WARNING, psprintf("data directory \"%s\" is empty", node->pgdata),
			  "Call follow_primary() on the primary, to have a copy made.");
	facts.pgdata_state = node->pgdata_state;
	facts.not_down = node->not_down;
	facts.not_down_sqlstate = node->not_down_sqlstate;
	facts.not_down_hint = node->not_down_hint;
	facts.port_owner = node->port_owner;
	facts.other_port = node->other_port;
	facts.version_major = node->version_major;
	refuse_for(check, &facts);
}

static void
try_system_identifier(Check *check)
{
	NodeFacts	facts = good_facts(check);

	found(check, CHECK_OK, psprintf(UINT64_FORMAT, check->job->node.system_id), NULL);
	if (check->job->node.system_id == 0)
		found(check, CHECK_ERROR,
			  psprintf("the control file of data directory \"%s\" cannot be read: it may belong to any cluster",
					   check->job->node.pgdata),
			  "Make sure that it is the right directory, and that the SSH user may read it.");
	facts.system_id = check->job->node.system_id;
	refuse_for(check, &facts);
}

/* ---- its configuration ---- */

static void
try_configuration(Check *check)
{
	RemoteLimits limits = check_limits(check);

	if (check->job->node.config_missing)
	{
		found(check, CHECK_ERROR, "the node's postgresql.conf is not known, or not there",
			  "Set config_file in the node's row of follow_primary_node. If the file is lost, restore it.");
		return;
	}
	config_try_write(check->job, &limits);
	found(check, CHECK_OK, psprintf("the settings of a standby go to \"%s\"", job_recovery_file(check->job)), NULL);
}

static void
try_sql(Check *check)
{
	const NodeFacts *node = &check->job->node;
	const Settings *settings = check->job->request->settings;

	if (node->state == NODE_DOWN)
		found(check, CHECK_ERROR, "PostgreSQL does not run on the node",
			  "Start it; or call follow_primary() with when_down => 'rejoin' on the primary.");
	else if (node->refused_login)
		found(check, CHECK_ERROR, psprintf("the node's server refuses the login: %s", node->sql_error), node->refused_login);
	else if (!node->sql)
		found(check, CHECK_ERROR,
			  psprintf("the node cannot be asked: %s", node->sql_error ? node->sql_error : "no SQL connection"),
			  psprintf("Role \"%s\" must be able to connect there to database \"%s\" through the local socket without being asked for a password: check pg_hba.conf and the password file there, and follow_primary.rewind_user.",
					   settings->rewind_user, settings->rewind_database));
	else
		found(check, CHECK_OK, psprintf("as role \"%s\"; %s", settings->rewind_user,
										node->state == NODE_PRIMARY ? "it runs as a primary" : "it is a standby"), NULL);
}

/* Of a primary as well, which is to be a standby then. */
static char *
lower_setting(const Check *check)
{
	return remote_says(&check->survey, "set.hot_standby", "on") ?
		survey_lower_setting(&check->survey) : NULL;
}

static void
try_settings(Check *check)
{
	char	   *lower = lower_setting(check);

	if (lower)
		found(check, CHECK_ERROR, psprintf("%s: it would not replay this server's WAL", lower),
			  "Raise it there and restart the node.");
	else
		found(check, CHECK_OK, "none is lower than this server's", NULL);
}

static void
try_recovery_target(Check *check)
{
	static const char *const names[] = {
		"recovery_target", "recovery_target_name", "recovery_target_time",
		"recovery_target_xid", "recovery_target_lsn", "promote_trigger_file"
	};

	found(check, CHECK_OK, "none is set", NULL);
	for (int i = 0; i < lengthof(names); i++)
	{
		const char *value = remote_get(&check->survey, psprintf("set.%s", names[i]));

		if (value && value[0] != '\0')
			found(check, CHECK_WARNING,
				  psprintf("%s is set to \"%s\", which a primary ignores and a standby obeys", names[i], value),
				  "Remove it from the node's configuration.");
	}
}

/* ---- what the methods need ---- */

static void
try_rewind(Check *check)
{
	NodeFacts	facts = check->job->node;
	PrimaryFacts primary = check->job->primary;
	JobPlan		plan = {0};
	char	   *objection;

	/* Of today's data alone: where histories part is a matter of the failover. */
	facts.history_known = false;
	facts.forked_unseen = false;
	facts.timeline = 0;
	primary.timeline = 1;
	primary.full_page_writes = true;
	objection = plan_rewind_objection(&primary, &facts, &plan);
	if (objection)
		found(check, CHECK_WARNING,
			  psprintf("a rewind would not be possible, so the data would be copied: %s", objection),
			  "Set wal_log_hints = on there and restart the node; or enable data checksums.");
	else
		found(check, CHECK_OK, "the node's data can be rewound", NULL);
}

/*
 * Can the trial of files run?  Its programs are there, and the node has been looked
 * at; a setting that is too low is told already.
 */
static bool
can_try_files(const Check *check)
{
	const char *missing = remote_get(&check->tried, "missing_programs");

	return (check->job->node.sql || check->job->node.state == NODE_DOWN) &&
		lower_setting(check) == NULL && missing && missing[0] == '\0' && ssh_is_alive(check->job->ssh);
}

/* Of both sides, and the configuration that the node's server would have to start with. */
static void
try_files(Check *check)
{
	Job		   *job = check->job;

	job->plan.method = METHOD_REWIND;
	if (trial_run(job) == STEP_NEEDS_COPY)
		found(check, CHECK_WARNING, psprintf("a rewind would not be possible, so the data would be copied: %s", job->detail),
			  "Remove from the node's data directory what is in the way.");
	else
		found(check, CHECK_OK, "no file is in the way of a rewind", NULL);
}

static void
try_room(Check *check)
{
	Job		   *job = check->job;
	const Settings *settings = job->request->settings;
	RoomFacts	room;
	JobPlan		plan = {.method = METHOD_BASEBACKUP, .reason = ""};

	folders_look_for_room(job, &room);
	plan_for_room(&job->node, &room, settings->copy_in_place,
				  settings->keep_old_data == KEEP_ALWAYS, &plan);
	if (plan.method == METHOD_REFUSE || plan.in_place)
		found(check, CHECK_WARNING, psprintf("there is no room for a copy beside the data: %s", room.where),
			  plan.hint ? plan.hint : "If a copy is necessary, copy_in_place has the old data removed first.");
	else
		found(check, CHECK_OK, room.where, NULL);
}

/* Runs check.sh, which tries what the following items tell of. */
static void
try_tools(Check *check)
{
	Job		   *job = check->job;
	const Settings *settings = job->request->settings;
	RemoteLimits limits = check_limits(check);
	const char *missing;

	remote_run(job->ssh, &remote_check, JOB_NAMED(job),
			   LIST(step_expand_command(job, settings->node_start_command),
					step_expand_command(job, settings->node_stop_command),
					step_expand_command(job, settings->node_reload_command)),
			   &limits, &check->tried);
	if (!check->tried.ok)
		step_fail_commonly(job, &check->tried, "the tools cannot be tried");
	missing = remote_get(&check->tried, "missing_tools");
	if (missing && missing[0] != '\0')
		found(check, CHECK_ERROR, psprintf("there is no %s on the PATH of the SSH user", missing),
			  "Install it there, or correct the PATH of a shell that is started by SSH.");
	else
		found(check, CHECK_OK, "all are there", NULL);
}

static void
try_service_commands(Check *check)
{
	static const char *const names[] = {
		"node_start_command", "node_stop_command", "node_reload_command"
	};
	const Request *request = check->job->request;
	const Settings *settings = request->settings;
	const char *no_sudo = remote_get(&check->tried, "no_sudo");
	const char *sudoers = remote_get(&check->tried, "sudoers");
	StringInfoData objections;
	StringInfoData wrong;
	StringInfoData hint;

	found(check, CHECK_OK,
		  settings->node_start_command[0] || settings->node_stop_command[0] || settings->node_reload_command[0] ?
		  "they could be run" : "none is set: pg_ctl is used", NULL);
	initStringInfo(&objections);
	initStringInfo(&wrong);
	initStringInfo(&hint);
	for (int i = 0; i < lengthof(names); i++)
	{
		const char *objection = remote_get(&check->tried, psprintf("command_%d", i + 1));

		if (objection == NULL)
			continue;
		appendStringInfo(&wrong, "%sfollow_primary.%s", wrong.len ? ", " : "", names[i]);
		appendStringInfo(&objections, "%s%s could not be run: %s", objections.len ? "; " : "", names[i], objection);
	}
	if (check->job->node.started_with)
		found(check, CHECK_ERROR, psprintf(STARTED_WITH, check->job->node.started_with), STARTED_WITH_HINT);
	if (objections.len == 0)
		return;
	if (no_sudo && no_sudo[0])
		appendStringInfo(&hint, "On the machine %s, as root, install the package sudo. ", request->node_host);
	if (sudoers && sudoers[0])
		appendStringInfo(&hint, "On the machine %s, as root, run: visudo -f /etc/sudoers.d/follow_primary and add this line: %s",
						 request->node_host, sudoers);
	else if (hint.len == 0)
		appendStringInfo(&hint, "Correct %s, or the node's row; or install the program on the machine %s.",
						 wrong.data, request->node_host);
	found(check, CHECK_ERROR, objections.data, hint.data);
}

static void
try_library(Check *check)
{
	const char *version = remote_get(&check->tried, "library");
	const char *file = remote_get(&check->tried, "library_file");

	if (version == NULL || version[0] == '\0')
		found(check, CHECK_ERROR, "the extension's library is not installed on the node",
			  "Install follow_primary " LIBRARY_VERSION " there: the node may be the primary one day.");
	else if (strcmp(version, LIBRARY_VERSION) != 0)
		found(check, CHECK_ERROR,
			  psprintf("the extension's library on the node, \"%s\", is of version %s, here it is " LIBRARY_VERSION,
					   file ? file : "", version),
			  "Install follow_primary " LIBRARY_VERSION " on the node.");
	else
		found(check, CHECK_OK, psprintf("version %s", version), NULL);
}

static void
try_preload(Check *check)
{
	const char *libraries = remote_get(&check->survey, "set.shared_preload_libraries");

	if (libraries == NULL)
		found(check, CHECK_UNKNOWN,
			  psprintf("role \"%s\" may not see shared_preload_libraries", check->job->request->settings->rewind_user),
			  psprintf("On the primary: GRANT pg_read_all_settings TO %s", check->job->request->settings->rewind_user));
	else if (strstr(libraries, "follow_primary") == NULL)
		found(check, CHECK_WARNING, "the library is not preloaded on the node, so it keeps no WAL for its siblings",
			  "Add follow_primary to shared_preload_libraries there, and restart the node.");
	else
		found(check, CHECK_OK, "the library is preloaded", NULL);
}

/* ---- the way from the node to this server ---- */

/*
 * Each replication connection takes a WAL sender of this server.  No more than
 * these at a time do it for a check, for the standbys need theirs.
 */
#define LANES				2
#define LANE_PAUSE_MS		20
#define MARGIN_MS			1000	/* for the rest of the script */
#define LANE_LOCK_CLASS		1718645618

static void
set_lane_tag(LOCKTAG *tag, int lane)
{
	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, LANE_LOCK_CLASS, lane, 2);
}

/*
 * Returns the lane, or -1 if none became free: then it goes on without.  Not by SQL:
 * where nodes are many, so are those that wait.
 */
static pg_noinline int
enter_lane(const Check *check)
{
	TimestampTz half = check->deadline - (check->deadline - GetCurrentTimestamp()) / 2;
	LOCKTAG		tag;

	do
	{
		for (int lane = 0; lane < LANES; lane++)
		{
			set_lane_tag(&tag, lane);
			if (LockAcquire(&tag, ExclusiveLock, true, true) != LOCKACQUIRE_NOT_AVAIL)
				return lane;
		}
		net_pause(LANE_PAUSE_MS);
	} while (GetCurrentTimestamp() < half);
	return -1;
}

static void
leave_lane(int lane)
{
	LOCKTAG		tag;

	if (lane < 0)
		return;
	set_lane_tag(&tag, lane);
	(void) LockRelease(&tag, ExclusiveLock, true);
}

/* By the very strings that a job gives to the node, and to pg_rewind. */
static void
connect_here(Check *check, bool replication, bool rewind)
{
	Job		   *job = check->job;
	const Settings *settings = job->request->settings;
	MemoryContext context = CurrentMemoryContext;
	volatile int lane = replication ? enter_lane(check) : -1;
	int			least = 1000 * settings_connection_s(settings) + MARGIN_MS;

	PG_TRY();
	{
		(void) connect_try(job, "",
						   rewind ? job_tool_conninfo(job, settings->rewind_user, settings->rewind_database) : "",
						   replication, Max(check_limits(check).timeout_ms, least));
	}
	PG_CATCH();
	{
		ErrorData  *error = sql_recover_quietly(context);

		leave_lane(lane);
		ReThrowError(error);
	}
	PG_END_TRY();
	leave_lane(lane);
}

/*
 * Tries all connections at once, for speed.  If one fails, each item tries its own, to
 * find out which; but not if the time was over, for nobody would answer then, either.
 */
static bool
connects_by_all(Check *check)
{
	MemoryContext context = CurrentMemoryContext;
	TimestampTz begin = GetCurrentTimestamp();
	volatile bool connects = false;

	PG_TRY();
	{
		connect_here(check, true, true);
		connects = true;
	}
	PG_CATCH();
	{
		ErrorData  *error = sql_recover_quietly(context);

		check->unanswered = error->sqlerrcode == ERRCODE_CONNECTION_FAILURE &&
			TimestampDifferenceExceeds(begin, GetCurrentTimestamp(), 1000 * settings_connection_s(check->job->request->settings));
		if (check->unanswered || error->sqlerrcode != ERRCODE_CONNECTION_FAILURE)
			ReThrowError(error);
	}
	PG_END_TRY();
	return connects;
}

static void
try_replication(Check *check)
{
	check->connects = connects_by_all(check);
	if (!check->connects)
		connect_here(check, true, false);
	found(check, CHECK_OK, psprintf("the node reaches this server at %s:%d",
									check->job->primary_host, check->job->request->primary_port), NULL);
}

static void
try_rewind_role(Check *check)
{
	if (!check->connects)
		connect_here(check, false, true);
	survey_check_rewind_user(check->job);
	config_check_rewind_functions(check->job);
	found(check, CHECK_OK, psprintf("role \"%s\" reaches this server, and may do what it has to",
									check->job->request->settings->rewind_user), NULL);
}

static void
try_wal(Check *check)
{
	const Job  *job = check->job;
	const char *slot[] = {job->request->slot_name};
	SqlResult  *row = sql_run("SELECT slot_type, " SLOT_IS_LOST ", restart_lsn FROM pg_replication_slots WHERE slot_name = $1", 1, slot);
	XLogRecPtr	restart = InvalidXLogRecPtr;
	const char *keep = GetConfigOption(PG_VERSION_NUM >= 130000 ? "wal_keep_size" : "wal_keep_segments", false, false);
	bool		archive = job_restore_command(job) != NULL;

	if (row->nrows > 0 && strcmp(sql_value(row, 0, 0), "physical") != 0)
	{
		found(check, CHECK_ERROR, psprintf("a logical replication slot of the node's slot name \"%s\" exists on this server", slot[0]),
			  "Give the node another slot_name.");
		return;
	}
	if (row->nrows > 0 && strcmp(sql_value(row, 0, 1), "t") != 0 && sql_value(row, 0, 2))
		(void) lsn_parse(sql_value(row, 0, 2), &restart);

	if (!XLogRecPtrIsInvalid(job->node.lsn) && job->node.lsn < job->primary.oldest_wal && !archive)
		found(check, CHECK_ERROR,
			  psprintf("the WAL that the node needs next, from %s on, is gone from this server", lsn_text(job->node.lsn)),
			  "If this server became the primary now, the node's data would be copied.");
	else if (!XLogRecPtrIsInvalid(restart))
		found(check, CHECK_OK, psprintf("kept by replication slot \"%s\" from %s on", slot[0], lsn_text(restart)), NULL);
	else if (strcmp(keep, "0") != 0)
		found(check, CHECK_OK, psprintf("some is kept by wal_keep_size"), NULL);
	else if (archive)
		found(check, CHECK_OK, "the node's restore_command has it from the archive", NULL);
	else
		found(check, CHECK_WARNING, "nothing on this server keeps WAL for the node, and there is no archive",
			  "Preload the library on all servers and leave follow_primary.sibling_slots on; or set wal_keep_size, or archive_dir.");
}

/* ---- pgpool ---- */

static void
try_pgpool(Check *check)
{
	const Job  *job = check->job;
	const Request *request = job->request;
	const Settings *settings = request->settings;
	const char *name = standby_name_after_job(&job->node, PG_VERSION_NUM, request->application_name, request->node_host);
	const char *known_as;

	if (settings->pcp_host[0] == '\0')
	{
		found(check, CHECK_UNKNOWN, "follow_primary.pcp_host is not set: at a failover it is the address that pgpool calls from",
			  "Set follow_primary.pcp_host to have it tried.");
		return;
	}
	known_as = attach_try(job);
	if (check->survey.ok && known_as && strcmp(known_as, name) != 0)
		found(check, CHECK_WARNING,
			  psprintf("pgpool at %s:%d knows it by the application_name \"%s\", and it streams as \"%s\" after a job",
					   settings->pcp_host, settings->pcp_port, known_as, name),
			  psprintf("Set backend_application_name%d = '%s' in pgpool.conf, or another application_name in the node's row: pgpool takes the node for one that does not stream, which stops auto_failback.",
					   request->node_id, name));
	else
		found(check, CHECK_OK,
			  psprintf("pgpool at %s:%d has it as node %d; whether pgpool's own psql can log in here cannot be tried",
					   settings->pcp_host, settings->pcp_port, request->node_id), NULL);
}

/* ---- all of them ---- */

static const CheckItem items[] = {
	{"rewind", try_rewind},
	{"room", try_room},
	{"wal", try_wal}
};

static const CheckItem running_items[] = {
	{"settings", try_settings},
	{"recovery_target", try_recovery_target},
	{"preload", try_preload}
};

static const CheckItem tried_items[] = {
	{"programs", try_programs},
	{"service_commands", try_service_commands},
	{"library", try_library}
};

static void
try_if_alive(Check *check, const char *name, ItemTry try)
{
	if (ssh_is_alive(check->job->ssh))
		check_try_item(check, name, try);
}

static void
try_all(Check *check, const CheckItem *some, int n)
{
	for (int i = 0; i < n; i++)
		try_if_alive(check, some[i].name, some[i].try);
}

/* The item that a failed survey of the node is reported under. */
static const char *
failed_item(const RemoteReply *reply)
{
	return remote_failed_for(reply, "foreign_config") ? "configuration" :
		remote_failed_for(reply, "data_gone") ? "data_directory" : "programs";
}

/* What is tried on the node, and from there. */
static void
check_by_ssh(Check *check)
{
	Job		   *job = check->job;
	Settings   *settings = job->request->settings;

	check->deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), settings->connect_timeout * 1000);
	check_try_item(check, "ssh", try_ssh);

	/* The node's own connections have to fail before the session to the node does. */
	settings->progress_timeout = settings->connect_timeout;
	settings->connect_timeout = settings->connect_timeout / CONNECTIONS_OF_NODE;
	if (check->found.status != CHECK_OK)
		return;
	if (!check->survey.ok)
	{
		check_try_item(check, failed_item(&check->survey), raise_survey_failure);
		return;
	}
	survey_read_node(job, &check->survey);
	down_prove(job, &check->survey, false);
	check->is_this_server = survey_is_this_server(&check->survey);
	if (check->is_this_server)
	{
		check_try_item(check, "name", try_this_server);
		return;
	}
	job->primary_host = primary_host_find(job, &check->survey);

	check_try_item(check, "tools", try_tools);
	if (check->tried.ok)
		try_all(check, tried_items, lengthof(tried_items));
	check_try_item(check, "data_directory", try_data_directory);
	if (job->node.pgdata_state != PGDATA_OK)
		return;
	check_try_item(check, "sql", try_sql);
	check_try_item(check, "system_identifier", try_system_identifier);
	if (check->found.status != CHECK_OK)
		return;
	if (job->node.sql)
		try_all(check, running_items, lengthof(running_items));
	try_if_alive(check, "replication", try_replication);
	if (!check->unanswered)
		try_if_alive(check, "rewind_role", try_rewind_role);
	try_all(check, items, lengthof(items));
	try_if_alive(check, "configuration", try_configuration);
	if (check->found.status == CHECK_OK && can_try_files(check))
		check_try_item(check, "files", try_files);
}

void
check_node(Check *check)
{
	const Request *request = check->job->request;
	int			connect_timeout = request->settings->connect_timeout;

	check_try_item(check, "row", try_row);
	if (check->found.status != CHECK_OK)
		return;
	check_by_ssh(check);
	request->settings->connect_timeout = connect_timeout;
	if (request->node_id >= 0)
		check_try_item(check, "pgpool", try_pgpool);
}
