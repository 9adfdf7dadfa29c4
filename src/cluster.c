/*
 * cluster.c
 *		Many jobs side by side: the whole cluster follows.
 *
 * Each node has a job of its own, with its own worker and row.  The caller starts
 * them and listens to all.  A job for which no background worker or WAL sender is
 * left waits until another one has ended.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "postmaster/postmaster.h"
#include "replication/walsender.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "cluster.h"
#include "compat.h"
#include "own_row.h"
#include "sql.h"
#include "ssh/net.h"
#include "worker.h"

/* How long to wait for a free worker when no job runs. */
#define FREE_WORKER_MS		5000
#define FREE_WORKER_POLL_MS	50

static char *
job_node(const ClusterJob *job)
{
	return psprintf("%s:%d", job->host, job->port);
}

static void
end_by_error(ClusterJob *job, const ErrorData *error)
{
	job->ended = true;
	job->state = "failed";
	job->message = error->detail ? psprintf("%s. %s", error->message, error->detail) : error->message;
	job->hint = error->hint;
	ereport(WARNING,
			(errcode(error->sqlerrcode), errmsg("%s", error->message),
			 error->detail ? errdetail("%s", error->detail) : 0,
			 error->hint ? errhint("%s", error->hint) : 0));
}

/* Makes the job's request. Where the node's row makes none, the job ends by the error. */
static void
make_request(FunctionCallInfo fcinfo, ClusterJob *job, RequestedMethod method,
			 bool rejoin_when_down, bool attach)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		job->request = request_for_node(fcinfo, job->host, job->port, method, rejoin_when_down, attach);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
			ReThrowError(error);
		error->message = psprintf("node %s: %s", job_node(job), error->message);
		end_by_error(job, error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
}

List *
cluster_jobs(FunctionCallInfo fcinfo, RequestedMethod method, bool rejoin_when_down, bool attach)
{
	char	   *schema = extension_schema(fcinfo);
	List	   *jobs = NIL;
	ListCell   *cell;
	CallerIdentity caller;
	SqlResult  *rows;
	char	   *own;

	act_as_owner(fcinfo, &caller);
	rows = sql_read_nodes(schema, "host, port", "ORDER BY node_id, host, port", 0, NULL);
	own = own_row_host(schema);
	resume_caller(&caller);
	if (own == NULL && rows->nrows > 0)
		ereport(NOTICE,
				(errmsg("no row of follow_primary_node is known to be this server's own"),
				 errhint("Set follow_primary.primary_host on each server to the host in its own row.")));
	for (int i = 0; i < rows->nrows; i++)
	{
		ClusterJob *job;

		if (own && strcmp(sql_value(rows, i, 0), own) == 0 && atoi(sql_value(rows, i, 1)) == PostPortNumber)
			continue;
		job = palloc0(sizeof(ClusterJob));
		job->host = sql_value(rows, i, 0);
		job->port = atoi(sql_value(rows, i, 1));
		jobs = lappend(jobs, job);
	}
	foreach(cell, jobs)
		make_request(fcinfo, (ClusterJob *) lfirst(cell), method, rejoin_when_down, attach);
	return jobs;
}

/* Reads how the job ended from its row. */
static void
read_row(const char *schema, ClusterJob *job)
{
	const char *args[] = {psprintf(INT64_FORMAT, job->job_id)};
	char	  **to[] = {&job->state, &job->method, &job->message, &job->hint, &job->elapsed};
	static const char *const columns[] = {
		"state", "method", "coalesce(error, reason)", "hint", "finished_at - started_at"
	};

	for (int i = 0; i < lengthof(columns); i++)
		*to[i] = sql_scalar_latest(psprintf("SELECT (%s)::text FROM %s.follow_primary_job WHERE id = $1::bigint",
											columns[i], schema), lengthof(args), args);
}

/* Ends the job's record here. Returns false if it lacked what others hold, and is to be tried again. */
static bool
end_job(FunctionCallInfo fcinfo, ClusterJob *job, bool others_run)
{
	ErrorData  *error = worker_error(job->worker);
	CallerIdentity caller;

	job->job_id = worker_job_id(job->worker);
	worker_forget(job->worker);
	job->worker = NULL;
	if (error && error->sqlerrcode == ERRCODE_CONFIGURATION_LIMIT_EXCEEDED && others_run)
	{
		ereport(NOTICE, (errmsg("node %s waits: %s", job_node(job), error->message)));
		return false;
	}
	job->ended = true;
	if (error)
		end_by_error(job, error);
	if (job->job_id == 0)
		return true;
	act_as_owner(fcinfo, &caller);
	read_row(job->request->schema, job);
	resume_caller(&caller);
	return true;
}

/* Are there WAL senders for one job more?  Those that run may not have theirs yet. */
static bool
is_room_for_one_more(int running)
{
	char	   *used = sql_scalar("SELECT count(*) FROM pg_stat_get_wal_senders() WHERE pid IS NOT NULL", 0, NULL);

	return running == 0 || max_wal_senders - atoi(used) > running;
}

/* Starts jobs while there is room for them. Returns whether some have to wait. */
static bool
start_jobs(List *jobs, int *running)
{
	ListCell   *cell;

	foreach(cell, jobs)
	{
		ClusterJob *job = (ClusterJob *) lfirst(cell);

		if (job->ended || job->worker)
			continue;
		if (!is_room_for_one_more(*running) || (job->worker = worker_start(job->request, true)) == NULL)
			return true;
		(*running)++;
	}
	return false;
}

/* Listens to all jobs. Returns whether one has ended, so that others may begin. */
static bool
listen_to_jobs(FunctionCallInfo fcinfo, List *jobs, int *running)
{
	bool		one_ended = false;
	ListCell   *cell;

	foreach(cell, jobs)
	{
		ClusterJob *job = (ClusterJob *) lfirst(cell);

		if (job->worker == NULL || worker_listen(job->worker, psprintf("%s: ", job_node(job))))
			continue;
		(*running)--;
		if (end_job(fcinfo, job, *running > 0))
			one_ended = true;
	}
	return one_ended;
}

/* How to end the jobs that go on, or NULL if there is none. */
static char *
cancel_hint(List *jobs)
{
	StringInfoData ids;
	ListCell   *cell;
	const char *schema = NULL;

	initStringInfo(&ids);
	foreach(cell, jobs)
	{
		ClusterJob *job = (ClusterJob *) lfirst(cell);

		if (job->worker == NULL || worker_job_id(job->worker) == 0)
			continue;
		schema = job->request->schema;
		appendStringInfo(&ids, "%s" INT64_FORMAT, ids.len > 0 ? "," : "", worker_job_id(job->worker));
	}
	return schema == NULL ? NULL :
		psprintf("The jobs that have begun go on; SELECT %s.follow_primary_cancel(id) FROM unnest('{%s}'::bigint[]) id ends them. Those that waited have not begun.",
				 schema, ids.data);
}

static void
forget_jobs(List *jobs)
{
	ListCell   *cell;

	foreach(cell, jobs)
	{
		ClusterJob *job = (ClusterJob *) lfirst(cell);

		if (job->worker)
			worker_forget(job->worker);
		job->worker = NULL;
	}
}

/* Starts what can be started, and listens until all have ended. */
static void
run_all(FunctionCallInfo fcinfo, List *jobs)
{
	int			running = 0;
	bool		start = true;
	bool		told = false;
	TimestampTz idle_since = 0;

	for (;;)
	{
		bool		waiting = false;

		if (start || running == 0)
			waiting = start_jobs(jobs, &running);
		/* The postmaster frees the place of a worker a moment after its end. */
		if (running > 0)
			idle_since = 0;
		else if (waiting && idle_since == 0)
			idle_since = GetCurrentTimestamp();
		if (waiting && running == 0 &&
			!TimestampDifferenceExceeds(idle_since, GetCurrentTimestamp(), FREE_WORKER_MS))
		{
			net_pause(FREE_WORKER_POLL_MS);
			continue;
		}
		if (waiting && running == 0)
			ereport(ERROR,
					(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					 errmsg("no background worker is free for a job"),
					 errdetail("All of max_worker_processes (%d) are in use.", max_worker_processes),
					 errhint("Wait for other jobs to end, or raise max_worker_processes. The nodes that have no job yet are as they were.")));
		if (waiting && !told)
			ereport(NOTICE,
					(errmsg("%d nodes are worked on, the others wait until a background worker and a WAL sender are free", running)));
		told |= waiting;
		if (running == 0)
			break;
		start = listen_to_jobs(fcinfo, jobs, &running);
		if (!start && running > 0)
			net_pause(LISTEN_PAUSE_MS);
	}
}

void
cluster_run(FunctionCallInfo fcinfo, List *jobs)
{
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		run_all(fcinfo, jobs);
	}
	PG_CATCH();
	{
		ErrorData  *error;
		char	   *hint;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		hint = cancel_hint(jobs);
		if (hint)
			error->hint = hint;
		forget_jobs(jobs);
		ReThrowError(error);
	}
	PG_END_TRY();
}
