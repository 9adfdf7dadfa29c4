/*
 * functions.c
 *		The SQL-callable functions.
 */
#include "postgres.h"

#include <signal.h>

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "cluster.h"
#include "compat.h"
#include "job.h"
#include "methods.h"
#include "request.h"
#include "result_set.h"
#include "run.h"
#include "snapshot.h"
#include "sql.h"
#include "ssh/net.h"
#include "survey.h"
#include "switchover.h"
#include "worker.h"

PG_FUNCTION_INFO_V1(follow_primary);
PG_FUNCTION_INFO_V1(follow_primary_plan);
PG_FUNCTION_INFO_V1(follow_primary_cancel);
PG_FUNCTION_INFO_V1(follow_primary_interrupted);
PG_FUNCTION_INFO_V1(follow_primary_wait);
PG_FUNCTION_INFO_V1(follow_primary_all);
PG_FUNCTION_INFO_V1(follow_primary_switchover);

/* Places of the arguments that come after the request's. */
#define ARG_WAIT		10		/* of follow_primary() */
#define ARG_ATTACH		11
#define ARG_PLAN_ATTACH	10		/* of follow_primary_plan() */

#define WAIT_POLL_MS	50

/* Refuses on a standby. The command is for the message. */
static void
require_primary(const char *command)
{
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this server is a standby"),
				 errdetail("A node is made to follow a primary by that primary."),
				 errhint("Call %s on the new primary.", command)));
	PreventCommandIfReadOnly(command);
}

static void
require_argument(FunctionCallInfo fcinfo, int arg, const char *name)
{
	if (PG_ARGISNULL(arg))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not be null", name)));
}

Datum
follow_primary(PG_FUNCTION_ARGS)
{
	Request    *request;
	bool		wait;
	bool		released;
	int64		job_id;

	require_primary("follow_primary()");
	require_argument(fcinfo, ARG_WAIT, "wait");
	wait = PG_GETARG_BOOL(ARG_WAIT);
	request = request_from_call(fcinfo, ARG_ATTACH);
	released = wait && snapshot_release(fcinfo);
	job_id = worker_run(request, wait);
	if (released)
		snapshot_retake();
	PG_RETURN_INT64(job_id);
}

/* The names of the plan's steps, for people. */
static ArrayType *
step_names(const Job *job)
{
	Datum		names[32];
	int			n = 0;

	for (const Step *step = method_next_step(job, NULL); step; step = method_next_step(job, step))
		names[n++] = CStringGetTextDatum(step->name);
	return construct_array(names, n, TEXTOID, -1, false, 'i');
}

Datum
follow_primary_plan(PG_FUNCTION_ARGS)
{
	TupleDesc	tupdesc;
	Tuplestorestate *set;
	Job		   *job = palloc0(sizeof(Job));
	CallerIdentity caller;
	Datum		values[3];
	bool		nulls[3] = {false, false, false};
	bool		released;

	require_set(fcinfo);
	job->context = CurrentMemoryContext;
	job->request = request_from_call(fcinfo, ARG_PLAN_ATTACH);
	released = snapshot_release(fcinfo);
	act_as_owner(fcinfo, &caller);
	PG_TRY();
	{
		survey(job);
		plan_job(job, job->request->method, job->request->rejoin_when_down);
	}
	PG_CATCH();
	{
		ssh_disconnect(job->ssh);
		PG_RE_THROW();
	}
	PG_END_TRY();
	resume_caller(&caller);
	ssh_disconnect(job->ssh);
	if (released)
		snapshot_retake();

	set = begin_set(fcinfo, &tupdesc);
	values[0] = CStringGetTextDatum(method_name(job->plan.method));
	values[1] = CStringGetTextDatum(job->plan.hint ?
									psprintf("%s. %s", job->plan.reason, job->plan.hint) :
									job->plan.reason);
	values[2] = PointerGetDatum(step_names(job));
	tuplestore_putvalues(set, tupdesc, values, nulls);
	return (Datum) 0;
}

/* The function's result: a row for each job. */
static void
put_jobs(FunctionCallInfo fcinfo, List *jobs)
{
	TupleDesc	tupdesc;
	Tuplestorestate *set;
	AttInMetadata *meta;
	ListCell   *cell;

	set = begin_set(fcinfo, &tupdesc);
	meta = TupleDescGetAttInMetadata(tupdesc);
	foreach(cell, jobs)
	{
		const ClusterJob *job = (const ClusterJob *) lfirst(cell);
		char	   *values[] = {
			job->job_id ? psprintf(INT64_FORMAT, job->job_id) : NULL, job->host,
			psprintf("%d", job->port), job->state, job->method, job->message,
			job->hint, job->elapsed
		};

		tuplestore_puttuple(set, BuildTupleFromCStrings(meta, values));
	}
}

Datum
follow_primary_all(PG_FUNCTION_ARGS)
{
	static const char *const names[] = {"method", "when_down", "attach"};
	List	   *jobs;
	bool		released;

	require_set(fcinfo);
	require_primary("follow_primary_all()");
	for (int i = 0; i < lengthof(names); i++)
		require_argument(fcinfo, i, names[i]);
	jobs = cluster_jobs(fcinfo, request_parse_method(text_to_cstring(PG_GETARG_TEXT_PP(0))),
						request_parse_when_down(text_to_cstring(PG_GETARG_TEXT_PP(1))),
						PG_GETARG_BOOL(2));
	released = snapshot_release(fcinfo);
	cluster_run(fcinfo, jobs);
	if (released)
		snapshot_retake();

	put_jobs(fcinfo, jobs);
	return (Datum) 0;
}

/* Refuses what is no moment, and no caller, for a switchover. */
static void
check_switchover(FunctionCallInfo fcinfo)
{
	if (!superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("only a superuser may make a switchover")));
	if (!RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this server is the primary already"),
				 errhint("Call follow_primary_switchover() on the standby that is to become the primary. If a switchover to this server was interrupted: SELECT * FROM %s.follow_primary_all(when_down => 'rejoin').",
						 extension_schema(fcinfo))));
	if (IsTransactionBlock())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("follow_primary_switchover() cannot run inside a transaction block"),
				 errhint("Call it by itself.")));
	if (PG_VERSION_NUM < 120000)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a switchover needs PostgreSQL 12 or later")));
}

#define MIN_SWITCHOVER_S	10
#define MAX_SWITCHOVER_S	3600

Datum
follow_primary_switchover(PG_FUNCTION_ARGS)
{
	Interval   *timeout;
	List	   *jobs;
	double		seconds;
	bool		released;

	require_set(fcinfo);
	require_argument(fcinfo, 0, "timeout");
	timeout = PG_GETARG_INTERVAL_P(0);
	seconds = timeout->month != 0 || timeout->day != 0 ? -1 : timeout->time / (double) USECS_PER_SEC;
	if (seconds < MIN_SWITCHOVER_S || seconds > MAX_SWITCHOVER_S)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for argument \"%s\"", "timeout"),
				 errdetail("It is not between %d seconds and an hour.", MIN_SWITCHOVER_S)));
	check_switchover(fcinfo);
	released = snapshot_release(fcinfo);
	jobs = switchover_run(fcinfo, (int) (seconds * 1000));
	if (released)
		snapshot_retake();
	put_jobs(fcinfo, jobs);
	return (Datum) 0;
}

/*
 * What a job's row says at this moment, whatever snapshot the caller's
 * transaction has; NULL if there is none.
 */
static char *
row_state(FunctionCallInfo fcinfo, int64 job_id)
{
	const char *args[] = {psprintf(INT64_FORMAT, job_id)};
	CallerIdentity caller;
	char	   *state;

	act_as_owner(fcinfo, &caller);
	state = sql_scalar_latest(psprintf("SELECT state FROM %s.follow_primary_job WHERE id = $1::bigint",
									   extension_schema(fcinfo)), lengthof(args), args);
	resume_caller(&caller);
	return state;
}

/*
 * The state of a job at this moment: "interrupted" if its row says "running" and
 * no worker has it.  Raises 42704 if there is no such job.
 */
static const char *
job_state(FunctionCallInfo fcinfo, int64 job_id)
{
	const char *state = row_state(fcinfo, job_id);

	if (state == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("there is no job " INT64_FORMAT, job_id),
				 errhint("The table follow_primary_job lists the jobs.")));
	if (strcmp(state, "running") != 0 || RecoveryInProgress() || worker_pid(job_id) != 0)
		return state;

	/* The worker may have written its last word since that look at the row. */
	state = row_state(fcinfo, job_id);
	return state == NULL || strcmp(state, "running") == 0 ? "interrupted" : state;
}

/*
 * For a view, whose snapshot is older than any look at the locks: a job whose row
 * said "running" may have ended in good order since.  In a schema whose owner is
 * no superuser there are no jobs, and nobody may read its tables as one.
 */
Datum
follow_primary_interrupted(PG_FUNCTION_ARGS)
{
	int64		job_id = PG_GETARG_INT64(0);
	const char *state;

	if (RecoveryInProgress() || worker_pid(job_id) != 0)
		PG_RETURN_BOOL(false);
	if (!extension_schema_is_safe(fcinfo))
		PG_RETURN_BOOL(true);
	state = row_state(fcinfo, job_id);
	PG_RETURN_BOOL(state != NULL && (strcmp(state, "running") == 0 || strcmp(state, "interrupted") == 0));
}

Datum
follow_primary_cancel(PG_FUNCTION_ARGS)
{
	int64		job_id = PG_GETARG_INT64(0);
	int			pid;

	if (strcmp(job_state(fcinfo, job_id), "running") != 0)
		PG_RETURN_BOOL(false);
	pid = worker_pid(job_id);
	PG_RETURN_BOOL(pid != 0 && kill(pid, SIGINT) == 0);
}

Datum
follow_primary_wait(PG_FUNCTION_ARGS)
{
	int64		job_id;
	TimestampTz deadline = DT_NOEND;
	bool		released;
	text	   *result;
	MemoryContext context = CurrentMemoryContext;
	MemoryContext scratch;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	job_id = PG_GETARG_INT64(0);
	if (!PG_ARGISNULL(1))
		deadline = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
														   TimestampTzGetDatum(GetCurrentTimestamp()),
														   PG_GETARG_DATUM(1)));
	scratch = AllocSetContextCreate(context, "follow_primary wait", ALLOCSET_SMALL_SIZES);
	released = snapshot_release(fcinfo);
	for (;;)
	{
		const char *state;

		MemoryContextReset(scratch);
		MemoryContextSwitchTo(scratch);
		state = job_state(fcinfo, job_id);
		MemoryContextSwitchTo(context);
		if (strcmp(state, "running") != 0 || GetCurrentTimestamp() >= deadline)
		{
			result = cstring_to_text(state);
			break;
		}
		net_pause(WAIT_POLL_MS);
	}
	MemoryContextDelete(scratch);
	if (released)
		snapshot_retake();
	PG_RETURN_TEXT_P(result);
}
