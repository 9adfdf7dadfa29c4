/*
 * test_doors.c
 *		Doors to internal functions, for the regression tests.
 *
 * The install script does not create these functions; the tests do, as
 * superuser.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "fmgr.h"
#include "utils/builtins.h"

#include "compat.h"
#include "folders.h"
#include "own_row.h"
#include "pcp.h"
#include "plan.h"
#include "record.h"
#include "recovery_conf.h"
#include "remote.h"
#include "request.h"
#include "standby_name.h"
#include "steps/lost.h"
#include "steps/verify.h"
#include "survey.h"

PG_FUNCTION_INFO_V1(follow_primary_unit_slot_name);
PG_FUNCTION_INFO_V1(follow_primary_unit_quote);
PG_FUNCTION_INFO_V1(follow_primary_unit_conninfo);
PG_FUNCTION_INFO_V1(follow_primary_unit_conninfo_complete);
PG_FUNCTION_INFO_V1(follow_primary_unit_is_candidate);
PG_FUNCTION_INFO_V1(follow_primary_unit_recovery_conf);
PG_FUNCTION_INFO_V1(follow_primary_unit_restore_command_guard);
PG_FUNCTION_INFO_V1(follow_primary_unit_plan);
PG_FUNCTION_INFO_V1(follow_primary_unit_reply);
PG_FUNCTION_INFO_V1(follow_primary_unit_survey);
PG_FUNCTION_INFO_V1(follow_primary_unit_answer);
PG_FUNCTION_INFO_V1(follow_primary_unit_value);
PG_FUNCTION_INFO_V1(follow_primary_unit_history);
PG_FUNCTION_INFO_V1(follow_primary_unit_pcp);
PG_FUNCTION_INFO_V1(follow_primary_unit_own_row);

/* (host text) returns text */
Datum
follow_primary_unit_slot_name(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(default_slot_name(text_to_cstring(PG_GETARG_TEXT_PP(0)))));
}

/* (text) returns text */
Datum
follow_primary_unit_quote(PG_FUNCTION_ARGS)
{
	StringInfoData buf;

	initStringInfo(&buf);
	remote_quote(&buf, text_to_cstring(PG_GETARG_TEXT_PP(0)));
	PG_RETURN_TEXT_P(cstring_to_text(buf.data));
}

/* (base, options, host text, port int, user, application_name text) returns text */
Datum
follow_primary_unit_conninfo(PG_FUNCTION_ARGS)
{
	char	   *arg[6] = {NULL};

	for (int i = 0; i < 6; i++)
		if (i != 3 && !PG_ARGISNULL(i))
			arg[i] = text_to_cstring(PG_GETARG_TEXT_PP(i));
	PG_RETURN_TEXT_P(cstring_to_text(conninfo_build(arg[0], arg[1], arg[2],
													PG_GETARG_INT32(3), arg[4],
													arg[5], NULL)));
}

/* (conninfo text, version_num int, database text, seconds int) returns text */
Datum
follow_primary_unit_conninfo_complete(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(conninfo_complete(text_to_cstring(PG_GETARG_TEXT_PP(0)),
													   PG_GETARG_INT32(1),
													   text_to_cstring(PG_GETARG_TEXT_PP(2)),
													   PG_GETARG_INT32(3))));
}

/* (name, synchronous_standby_names text) returns bool */
Datum
follow_primary_unit_is_candidate(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(standby_name_is_candidate(text_to_cstring(PG_GETARG_TEXT_PP(0)),
											 text_to_cstring(PG_GETARG_TEXT_PP(1))));
}

/* (version_num int, conninfo, slot, restore_command text) returns text */
Datum
follow_primary_unit_recovery_conf(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(recovery_conf_render(PG_GETARG_INT32(0),
														  text_to_cstring(PG_GETARG_TEXT_PP(1)),
														  text_to_cstring(PG_GETARG_TEXT_PP(2)),
														  PG_ARGISNULL(3) ? NULL :
														  text_to_cstring(PG_GETARG_TEXT_PP(3)))));
}

/* (command text) returns text */
Datum
follow_primary_unit_restore_command_guard(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(restore_command_guard(text_to_cstring(PG_GETARG_TEXT_PP(0)))));
}

/* A fact "name=value" among words, or the default. */
static const char *
fact(char *const *words, const char *name, const char *missing)
{
	for (; *words; words++)
		if (strncmp(*words, name, strlen(name)) == 0 && (*words)[strlen(name)] == '=')
			return *words + strlen(name) + 1;
	return missing;
}

#define YES(name, missing) (strcmp(fact(words, name, missing), "yes") == 0)
#define INT(name, missing) atoi(fact(words, name, missing))

static XLogRecPtr
lsn_fact(char *const *words, const char *name, const char *missing)
{
	XLogRecPtr	lsn = InvalidXLogRecPtr;

	(void) lsn_parse(fact(words, name, missing), &lsn);
	return lsn;
}

/* A history "1@0/13000000,2@0/15000000,3": ended stretches, then the last. */
static void
history_fact(char *const *words, const char *name, const char *missing,
			 TimeLineID tli, History *history)
{
	StringInfoData text;
	char	   *copy = pstrdup(fact(words, name, missing));

	initStringInfo(&text);
	for (char *part = strtok(copy, ","); part; part = strtok(NULL, ","))
	{
		char	   *at = strchr(part, '@');

		if (at)
			appendStringInfo(&text, "%.*s\t%s\tno recovery target specified\n",
							 (int) (at - part), part, at + 1);
	}
	if (!history_parse(text.data, tli, history))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("not a history: %s", fact(words, name, missing))));
}

/*
 * (facts text) returns text: "method sqlstate (restart) (in place) (fork at ...): reason".  Facts are words
 * name=value; those left out are of a healthy cluster after a failover from
 * timeline 1 to timeline 2 at 0/13000000, whose node is a standby that has
 * received 0/13000000.
 */
Datum
follow_primary_unit_plan(PG_FUNCTION_ARGS)
{
	char	   *copy = text_to_cstring(PG_GETARG_TEXT_PP(0));
	char	   *words[64] = {NULL};
	int			n = 0;
	PrimaryFacts primary = {0};
	NodeFacts	node = {0};
	JobPlan		plan;
	RoomFacts	room;
	const char *value;
	RequestedMethod requested = REQUESTED_AUTO;

	for (char *word = strtok(copy, " \n"); word && n < lengthof(words) - 1; word = strtok(NULL, " \n"))
		words[n++] = word;

	for (int i = REQUESTED_AUTO; i <= REQUESTED_BASEBACKUP; i++)
		if (strcmp(fact(words, "asked", "auto"), requested_method_name(i)) == 0)
			requested = i;

	primary.in_recovery = YES("p.standby", "no");
	primary.system_id = 1;
	primary.version_num = 150000;
	primary.timeline = INT("p.tli", "2");
	history_fact(words, "p.history", "1@0/13000000", primary.timeline, &primary.history);
	primary.flush_lsn = lsn_fact(words, "p.lsn", "0/14000000");
	primary.oldest_wal = lsn_fact(words, "p.oldest", "0/1000000");
	primary.full_page_writes = YES("p.fpw", "yes");
	primary.slot_exists = YES("p.slot", "no");
	primary.slot_active = YES("p.slot_active", "no");
	primary.slot_user = YES("p.slot_user", "no") ? "other:5432" : NULL;
	primary.slot_client = "\"other\" at 10.0.0.9, process 4711 here";
	primary.slot_pid = 4711;
	primary.slot_of_node = YES("p.slot_of_node", "no");
	primary.slot_logical = YES("p.slot_logical", "no");
	primary.free_slots = INT("p.free_slots", "5");
	primary.free_wal_senders = INT("p.free_senders", "5");
	primary.free_logins = INT("p.free_logins", "-1");
	primary.replication_user = "repl";

	value = fact(words, "pgdata", "ok");
	node.pgdata_state = strcmp(value, "missing") == 0 ? PGDATA_MISSING :
		strcmp(value, "empty") == 0 ? PGDATA_EMPTY :
		strcmp(value, "foreign") == 0 ? PGDATA_NOT_PGDATA :
		strcmp(value, "unreadable") == 0 ? PGDATA_UNREADABLE :
		strcmp(value, "unknown") == 0 ? PGDATA_UNKNOWN : PGDATA_OK;
	node.pgdata = "/data";
	value = fact(words, "state", "standby");
	node.state = strcmp(value, "primary") == 0 ? NODE_PRIMARY :
		strcmp(value, "down") == 0 ? NODE_DOWN : NODE_STANDBY;
	node.is_this_server = YES("self", "no");
	node.port_owner = YES("other_owner", "no") ? "/other" : NULL;
	if (YES("not_down", "no"))
	{
		node.not_down = "(who has its port)";
		node.not_down_sqlstate = ERRCODE_OBJECT_IN_USE;
	}
	node.other_servers = YES("other_servers", "no") ? "(a server)" : NULL;
	node.other_port = INT("other_port", "0");
	node.sql = YES("sql", "yes");
	node.sql_error = "no password";
	if (YES("refused", "no"))
	{
		node.refused_login = "a line of pg_hba.conf";
		node.refused_sqlstate = ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION;
	}
	node.version_major = INT("version", "15");
	node.bin_version_major = INT("bin", "15");
	node.system_id = INT("sysid", "1");
	node.was_primary = YES("was_primary", "no");
	node.ended_here = YES("ended_here", "no");
	node.wal_log_hints = YES("hints", "yes");
	node.checksums = YES("checksums", "no");
	value = fact(words, "mark", "none");
	node.mark = strcmp(value, "before") == 0 ? MARK_BEFORE_CHANGE :
		strcmp(value, "half") == 0 ? MARK_HALF_CHANGED :
		strcmp(value, "cleared") == 0 ? MARK_CLEARED :
		strcmp(value, "swapping") == 0 ? MARK_HALF_SWAPPED :
		strcmp(value, "changed") == 0 ? MARK_CHANGED : MARK_NONE;
	node.foreign_mark = YES("keep_foreign", "no");
	node.config_missing = YES("no_config", "no");
	node.recovery_file_taken = YES("file_taken", "no") ? "is the file \"/data/postgresql.conf\"" : NULL;
	node.started_with = YES("started_with", "no") ? "restore_command" : NULL;
	node.timeline = INT("tli", "1");
	node.lsn = lsn_fact(words, "lsn", "0/13000000");
	node.history_known = node.timeline == 1 || fact(words, "history", NULL) != NULL;
	if (node.history_known)
		history_fact(words, "history", "", node.timeline, &node.history);
	node.forked_unseen = YES("forked", "no");
	node.unseen_fork_timeline = INT("forked_at", "0");
	node.receiver_streaming = YES("streaming", "no");
	node.receiver_timeline = INT("receiver_tli", "0");
	node.uses_slot = YES("uses_slot", "no");
	node.receives_from_us = YES("from_us", "yes");
	node.conninfo_reloadable = YES("reloadable", "yes");
	node.target_timeline_latest = YES("latest", "yes");
	node.restore_command = YES("archive", "no") ? "cp" : NULL;
	node.archive_serves = YES("archive", "no");
	node.archive_needs_restart = YES("archive_restart", "no");
	node.replay_paused = YES("paused", "no");
	node.recovery_target_in_force = YES("target", "no");
	node.recovery_target = strcmp(fact(words, "target", "no"), "no") != 0 ? "recovery_target_time" : NULL;
	node.lower_setting = YES("too_low", "no") ? "(a setting) is lower on the node" : NULL;

	plan_choose(&primary, &node, requested, YES("rejoin", "no"), &plan);
	room.missing = (int64) INT("missing", "0") << 20;
	room.missing_without_old = (int64) INT("missing_without_old", "0") << 20;
	room.where = "(where)";
	plan_for_room(&node, &room, YES("in_place", "no"), YES("keep", "no"), &plan);
	PG_RETURN_TEXT_P(cstring_to_text(psprintf("%s%s%s%s%s: %s",
											  method_name(plan.method),
											  plan.sqlstate ? psprintf(" %s", unpack_sql_state(plan.sqlstate)) : "",
											  plan.restart ? " (restart)" : plan.rejoin ? " (rejoin)" : "",
											  plan.in_place ? " (in place)" : "",
											  plan.diverged ?
											  psprintf(" (fork at %s on %u)",
													   lsn_text(plan.fork_lsn),
													   plan.fork_timeline) : "",
											  plan.reason)));
}

/* Bytes as the string that a script's output arrives as. */
static char *
output_argument(FunctionCallInfo fcinfo, int arg)
{
	bytea	   *bytes = PG_GETARG_BYTEA_PP(arg);

	return pnstrdup(VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes));
}

/* (output bytea) returns bytea: the values of a script's output, each after its key */
Datum
follow_primary_unit_reply(PG_FUNCTION_ARGS)
{
	RemoteReply reply = {0};
	StringInfoData buf;
	bytea	   *result;

	initStringInfo(&buf);
	if (remote_parse(output_argument(fcinfo, 0), "nonce", &reply))
		for (int i = 0; i < reply.nvalues; i++)
			appendStringInfo(&buf, "%s=%s\n", reply.values[i].key, reply.values[i].value);
	result = palloc(VARHDRSZ + buf.len);
	SET_VARSIZE(result, VARHDRSZ + buf.len);
	memcpy(VARDATA(result), buf.data, buf.len);
	PG_RETURN_BYTEA_P(result);
}

/*
 * (output bytea, port int) returns text: the method and reason that follow from
 * what survey.sh said, for a primary on timeline 3
 */
Datum
follow_primary_unit_survey(PG_FUNCTION_ARGS)
{
	RemoteReply reply = {0};
	Settings	settings = {.rewind_user = "rewind",.rewind_database = "postgres",.passfile = ""};
	Request		request = {.node_host = "node",.node_port = PG_GETARG_INT32(1),.slot_name = "node",.settings = &settings};
	Job		   *job = palloc0(sizeof(Job));

	if (!remote_parse(output_argument(fcinfo, 0), "nonce", &reply))
		PG_RETURN_TEXT_P(cstring_to_text("not whole"));
	job->context = CurrentMemoryContext;
	job->request = &request;
	job->primary.system_id = GetSystemIdentifier();
	job->primary.version_num = PG_VERSION_NUM;
	job->primary.timeline = 3;
	(void) history_parse("1\t0/1000000\n2\t0/1800000\n", 3, &job->primary.history);
	job->primary.flush_lsn = GetXLogInsertRecPtr();
	job->primary.full_page_writes = true;
	job->primary.free_slots = job->primary.free_wal_senders = 2;
	job->primary.free_logins = -1;
	survey_read_node(job, &reply);
	plan_choose(&job->primary, &job->node, REQUESTED_AUTO, true, &job->plan);
	PG_RETURN_TEXT_P(cstring_to_text(psprintf("%s: %s", method_name(job->plan.method),
											  job->plan.reason)));
}

/*
 * (script text, output bytea) returns text: what is understood of the answer of
 * count_wal.sh, of verify.sh, or of space.sh for a node with a WAL folder and a
 * tablespace, whose copies need 1, 2 and 3 MB
 */
Datum
follow_primary_unit_answer(PG_FUNCTION_ARGS)
{
	const char *script = text_to_cstring(PG_GETARG_TEXT_PP(0));
	const int64 needed[] = {1 << 20, 2 << 20, 3 << 20};
	const char *text = "not understood";
	Job			job = {.waldir = "/wal",.ntablespaces = 1,.tablespaces = (char *[]) {"/space"}};
	RemoteReply reply;
	LostWal		lost;
	int64		missing;

	job.node.pgdata = "/data";
	if (!remote_parse(output_argument(fcinfo, 1), "nonce", &reply))
		text = "not whole";
	else if (!reply.ok)
		text = psprintf("failed: %s", reply.failed);
	else if (strcmp(script, "count_wal") == 0 && lost_read(&reply, &lost))
		text = !lost.counted ? psprintf("not counted, in %s", lost.dir) :
			psprintf(INT64_FORMAT " bytes, " INT64_FORMAT " transactions%s%s",
					 lost.bytes, lost.transactions, lost.dir ? " in " : "",
					 lost.dir ? lost.dir : "");
	else if (strcmp(script, "verify") == 0 && verify_seen(&reply))
		text = verify_seen(&reply);
	else if (strcmp(script, "space") == 0 && folders_missing_room(&job, &reply, needed, NULL, &missing))
		text = psprintf(INT64_FORMAT " bytes missing", missing);
	PG_RETURN_TEXT_P(cstring_to_text(sql_text(text)));
}

/*
 * (output bytea, key text) returns text: what the steps can have of any script's
 * answer: whether it failed and for what, whether the key says yes, its number,
 * and its text as a step's detail
 */
Datum
follow_primary_unit_value(PG_FUNCTION_ARGS)
{
	const char *key = text_to_cstring(PG_GETARG_TEXT_PP(1));
	Job			job = {.context = CurrentMemoryContext};
	RemoteReply reply;
	int64		number = -2;

	if (!remote_parse(output_argument(fcinfo, 0), "nonce", &reply))
		PG_RETURN_TEXT_P(cstring_to_text("not whole"));
	(void) remote_number(&reply, key, &number);
	job_detail(&job, "%s|%s|" INT64_FORMAT "|%s",
			   reply.ok ? "ok" : remote_failed_for(&reply, "no_space") ? "no_space" : "failed",
			   remote_says(&reply, key, "yes") ? "yes" : "no",
			   number,
			   remote_get(&reply, key) ? remote_get(&reply, key) : "unknown");
	PG_RETURN_TEXT_P(cstring_to_text(sql_text(job.detail)));
}

/* (file bytea, tli int) returns int: stretches of the history, 0 if it is none */
Datum
follow_primary_unit_history(PG_FUNCTION_ARGS)
{
	History		history;
	bool		valid = history_parse(output_argument(fcinfo, 0), PG_GETARG_INT32(1), &history);

	PG_RETURN_INT32(valid ? history.length : 0);
}

/* (port int, user text, pass_file text) returns text: what pgpool on 127.0.0.1 says of node 0 */
Datum
follow_primary_unit_pcp(PG_FUNCTION_ARGS)
{
	PcpTarget	target = {
		.host = "127.0.0.1",
		.port = PG_GETARG_INT32(0),
		.user = text_to_cstring(PG_GETARG_TEXT_PP(1)),
		.pass_file = text_to_cstring(PG_GETARG_TEXT_PP(2)),
		.connect_timeout_ms = 2000
	};
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), 100);
	PcpNodeInfo info;

	pcp_node_info(&target, 0, deadline, &info);
	PG_RETURN_TEXT_P(cstring_to_text(psprintf("%d nodes, %s:%d is %d",
											  pcp_node_count(&target, deadline),
											  info.host, info.port, info.status)));
}

/* (schema text) returns text */
Datum
follow_primary_unit_own_row(PG_FUNCTION_ARGS)
{
	char	   *host = own_row_host(text_to_cstring(PG_GETARG_TEXT_PP(0)));

	if (host == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(host));
}
