/*
 * connect.c
 *		The proof that what the node reaches as the primary is this server.
 *
 * A virtual address may still lead to the former primary, a name to another
 * cluster or to the node itself.  pg_basebackup would copy whatever answers, and
 * a server that was promoted separately at the same point is not even told by its
 * system identifier, timeline and history.  But a server sees its own connections.
 * So the node makes the connections that the plan needs, by the very strings that
 * will be used, with a name that only this job has, and holds them while this
 * server looks which of them it sees.
 */
#include "postgres.h"

#include "compat.h"
#include "login.h"
#include "record.h"
#include "recovery_conf.h"
#include "sql.h"
#include "steps/config.h"
#include "steps/connect.h"

/* How long a connection is waited for in silence. */
#define TELL_MS		900

/* One look at where connections of the node lead. */
typedef struct Connections
{
	Job		   *job;
	RemoteRun  *run;
	char	   *conninfo;		/* what its server is to have, without passwords; "" =
								 * not looked at */
	char	   *prefix;			/* of all their names */
	TimestampTz tell;			/* when the caller is told that none is made */
} Connections;

/* Answers connect.sh: the IDs of those connections of the job that lead here. */
static char *
connections_seen(void *arg)
{
	const char *prefix[] = {((Connections *) arg)->prefix};
	char	   *seen = sql_scalar("SELECT string_agg(substr(application_name, length($1) + 1), ' ') "
								  "FROM pg_stat_get_activity(NULL) WHERE left(application_name, length($1)) = $1",
								  lengthof(prefix), prefix);

	return psprintf("%s\n", seen ? seen : "");
}

/* What is dropped on the way is known when the time for it is over; who waits hears of it before. */
static bool
tell_silence(void *arg)
{
	Connections *connections = (Connections *) arg;
	const Request *request = connections->job->request;

	if (GetCurrentTimestamp() >= connections->tell)
	{
		job_notice(connections->job, "host %s has no answer yet from \"%s\" port %d, and waits for %d s at most: if none comes, a firewall drops it",
				   request->node_host, connections->job->primary_host, request->primary_port,
				   settings_connection_s(request->settings));
		connections->tell = DT_NOEND;
	}
	return false;
}

pg_noreturn static void
fail_other_server(const Job *job, const RemoteReply *reply)
{
	const Request *request = job->request;

	ereport(ERROR,
			(errcode(ERRCODE_CONNECTION_FAILURE),
			 errmsg("primary_host leads to another server, as seen from node %s", node_name(job)),
			 errdetail("%s\nThis server has system identifier " UINT64_FORMAT ", and is on timeline %u. Nothing was changed.",
					   reply->messages, job->primary.system_id, job->primary.timeline),
			 errhint("On host %s \"%s\" port %d has to lead to this server alone. Correct the name or move the address, or set primary_host and primary_port: "
					 "as arguments, as follow_primary.primary_host, or as primary_host in the node's row of follow_primary_node; " THEN_CALL_AGAIN,
					 request->node_host, job->primary_host, request->primary_port)));
}

/* This server does not let one of the node's connections in. */
pg_noreturn static void
fail_refused(const Job *job, const RemoteReply *reply, const char *conninfo)
{
	const Settings *settings = job->request->settings;
	const char *role = conninfo_value(conninfo, "user");
	char	   *hint;

	if (remote_says(reply, "connection", "3"))
		hint = login_hint(job, LOGIN_TO_PRIMARY, settings->rewind_user, settings->rewind_database, NULL, reply->messages);
	else if (remote_says(reply, "connection", "2") || role == NULL)
		hint = login_hint(job, LOGIN_TO_PRIMARY_FOR_REPLICATION, settings->replication_user, NULL, NULL, reply->messages);
	else
		hint = login_hint(job, LOGIN_TO_PRIMARY_FOR_REPLICATION, role, NULL, conninfo_value(conninfo, "passfile"), reply->messages);
	step_fail(job, reply, ERRCODE_CONNECTION_FAILURE, "a connection to this server cannot be made",
			  hint);
}

/*
 * Begins a look.  The one connection that most plans need is looked at alone, unless
 * that has told before that it leads elsewhere: then a longer look finds out where.
 */
static Connections *
begin(Job *job, const char *copy, const char *rewind, bool follow, bool alone, int timeout_ms)
{
	const Settings *settings = job->request->settings;
	MemoryContext caller = MemoryContextSwitchTo(job->context);
	Connections *connections = palloc0(sizeof(Connections));
	RemoteLimits limits = {
		.timeout_ms = timeout_ms,
		.on_ask = connections_seen,
		.on_tick = tell_silence,
		.arg = connections
	};
	char	   *password = "";
	char	   *ssl_password = "";

	job->looks++;
	connections->job = job;
	connections->tell = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), TELL_MS);
	connections->prefix = psprintf("follow_primary_%s_%d.", job->token, job->looks);
	connections->conninfo = follow ?
		conninfo_without_passwords(job_primary_conninfo(job), &password, &ssl_password) : "";
	connections->run =
		remote_begin(job->ssh, &remote_connect,
					 JOB_NAMED(job,
							   {"passfile", settings->passfile},
							   {"host", job->primary_host},
							   {"port", NUMBER(job->request->primary_port)},
							   {"timeout", NUMBER(settings_connection_s(settings))},
							   {"password", password},
							   {"ssl_password", ssl_password},
							   {"db_user", settings->rewind_user},
							   {"db_name", settings->rewind_database},
							   {"look", NUMBER(job->looks)},
							   {"alone", alone && follow && copy[0] == '\0' && rewind[0] == '\0' ? "yes" : "no"}),
					 LIST(connections->conninfo, copy, rewind),
					 &limits);
	MemoryContextSwitchTo(caller);
	return connections;
}

/* Is the node's server to take new settings without a restart? */
static bool
is_reload(const Job *job)
{
	return job->plan.method == METHOD_REPOINT && !job->plan.restart && !job->plan.rejoin;
}

void
connect_begin(Job *job)
{
	if (is_reload(job) && !job->node.foreign_mark)
		job->connecting = begin(job, "", "", true, true, FILES_TIMEOUT_MS);
}

const char *
connect_try(Job *job, const char *copy, const char *rewind, bool follow, int timeout_ms)
{
	Connections *connections = job->connecting;
	RemoteReply reply;
	const char *conninfo;

	job->connecting = NULL;
	if (connections == NULL)
		connections = begin(job, copy, rewind, follow, true, timeout_ms);
	remote_end(job->ssh, connections->run, &reply);
	if (remote_failed_for(&reply, "unseen"))
	{
		connections = begin(job, copy, rewind, follow, false, timeout_ms);
		remote_end(job->ssh, connections->run, &reply);
	}
	conninfo = connections->conninfo;
	if (remote_failed_for(&reply, "other_server"))
		fail_other_server(job, &reply);
	if (remote_failed_for(&reply, "login_refused"))
		fail_refused(job, &reply, conninfo);
	if (remote_failed_for(&reply, "source_unreachable"))
		step_fail(job, &reply, ERRCODE_CONNECTION_FAILURE, "a connection to this server cannot be made",
				  psprintf("From host %s, \"%s\" port %d has to be reached: see that no firewall drops it, that listen_addresses of this server has it, and that primary_host and primary_port are right; "
						   THEN_CALL_AGAIN, job->request->node_host, job->primary_host, job->request->primary_port));
	if (remote_failed_for(&reply, "no_privilege"))
		return step_text(&reply, "lacks");
	if (!reply.ok)
		step_fail_commonly(job, &reply, "a connection to this server cannot be made");
	return NULL;
}

StepResult
connect_prove(Job *job)
{
	const Settings *settings = job->request->settings;
	RemoteLimits tries = {.timeout_ms = FILES_TIMEOUT_MS};
	const char *lacks;

	/* A reload puts back at once what it cannot write. */
	if (!is_reload(job))
		config_try_write(job, &tries);
	if (job->plan.method == METHOD_REWIND)
		config_check_rewind_functions(job);
	lacks = connect_try(job,
						job->plan.method == METHOD_BASEBACKUP && !job->plan.finish ?
						job_tool_conninfo(job, settings->replication_user, NULL) : "",
						job->plan.method == METHOD_REWIND && !job->plan.finish ?
						job_tool_conninfo(job, settings->rewind_user, settings->rewind_database) : "",
						true, FILES_TIMEOUT_MS);
	if (lacks)
		config_fail_rewind_functions(job, lacks);
	return STEP_DONE;
}
