/*
 * run.c
 *		The job's loop: survey, plan, steps.
 */
#include "postgres.h"

#include "miscadmin.h"

#include "compat.h"
#include "folders.h"
#include "methods.h"
#include "record.h"
#include "run.h"
#include "sql.h"
#include "steps/attach.h"
#include "steps/primary.h"
#include "survey.h"
#include "sweep.h"

/* How often a job may find that the node is not what it planned for. */
#define MAX_PLANS			3

/* Runs the plan's steps in order, until one has another result than STEP_DONE. */
static StepResult
run_steps(Job *job)
{
	for (const Step *step = method_next_step(job, NULL); step; step = method_next_step(job, step))
	{
		StepResult	result;

		job_begin_step(job, step->name, !step->leaves_nothing);
		result = step->run(job);
		job_end_step(job);
		if (result != STEP_DONE)
			return result;
		CHECK_FOR_INTERRUPTS();
	}
	return STEP_DONE;
}

/* Makes the plan of a copy fit the room on the node. */
static void
plan_room(Job *job)
{
	const Settings *settings = job->request->settings;
	RoomFacts	room;

	if (job->plan.method != METHOD_BASEBACKUP || job->plan.finish)
		return;
	folders_look_for_room(job, &room);
	plan_for_room(&job->node, &room, settings->copy_in_place,
				  settings->keep_old_data == KEEP_ALWAYS, &job->plan);
}

void
plan_job(Job *job, RequestedMethod requested, bool rejoin_when_down)
{
	plan_choose(&job->primary, &job->node, requested, rejoin_when_down, &job->plan);
	plan_room(job);
}

/* The step that decides. Raises an error where the plan is to refuse. */
static void
make_plan(Job *job, bool is_first)
{
	const Request *request = job->request;
	JobPlan    *plan = &job->plan;

	job_begin_step(job, "plan", false);
	plan_job(job, request->method, request->rejoin_when_down);
	job_detail(job, "%s: %s", method_name(plan->method), plan->reason);
	job_record_plan(job);
	if (plan->method == METHOD_REFUSE)
		ereport(ERROR,
				(errcode(plan->sqlstate), errmsg("%s", plan->reason),
				 is_first && !job->slot_made ? errdetail("Nothing was changed, neither here nor on the node.") : 0,
				 errhint("%s", plan->hint)));
	job_end_step(job);
}

pg_noreturn static void
fail_changing(const Job *job)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("node %s changes while it is worked on", node_name(job)),
			 errhint("See what else is at work there, " THEN_CALL_AGAIN)));
}

/*
 * A step has found that only a copy helps.  The facts are not what they were, nor
 * where the node's WAL parts from this server's.
 */
static void
copy_instead(Job *job)
{
	JobPlan    *plan = &job->plan;
	char	   *reason = psprintf("%s; %s", plan->reason, job->detail);

	job_begin_step(job, "survey", false);
	survey(job);
	job_end_step(job);
	plan_choose(&job->primary, &job->node, REQUESTED_BASEBACKUP, true, plan);
	plan->finish = false;		/* the interrupted job's data was not enough */
	if (plan->method == METHOD_BASEBACKUP)
		plan->reason = reason;
	plan_room(job);
	if (plan->method == METHOD_REFUSE)
		ereport(ERROR,
				(errcode(plan->sqlstate), errmsg("a copy is necessary, but %s", plan->reason),
				 errdetail("What was done before is not enough: %s.", reason),
				 errhint("%s", plan->hint)));
	job_record_plan(job);
	job_notice(job, "a copy is made: %s", plan->reason);
	if (run_steps(job) != STEP_DONE)
		fail_changing(job);
}

static void
disconnect(Job *job)
{
	if (job->ssh)
		job->cpu_node += ssh_cpu(job->ssh);
	ssh_disconnect(job->ssh);
	job->ssh = NULL;
}

/*
 * Disconnects before the row says that the job has ended: a caller who sees
 * that may call again at once, and nothing of this job may be left on the node.
 */
static void
end_well(Job *job, const char *state)
{
	disconnect(job);
	job_finish(job, state);
}

void
run_job(Job *job)
{
	JobPlan    *plan = &job->plan;
	StepResult	result;

	job_lock_node(job);
	sweep(job->request->schema, job->id);
	job_lock_slot(job);

	job_begin_step(job, "survey", false);
	attach_check_node_id(job);
	survey(job);
	job_end_step(job);

	for (int plans = 1;; plans++)
	{
		make_plan(job, plans == 1);
		if (plan->method == METHOD_SKIP)
		{
			primary_drop_made_slot(job);
			job_notice(job, "node %s is skipped: %s. %s", node_name(job), plan->reason, plan->hint);
			end_well(job, "skipped");
			return;
		}
		job->undo = NULL;		/* the new plan makes use of what was done */
		result = run_steps(job);
		if (result != STEP_NEEDS_PLAN)
			break;
		if (plans == MAX_PLANS)
			fail_changing(job);
	}
	if (result == STEP_NEEDS_COPY)
		copy_instead(job);
	primary_drop_former_slot(job);
	QueryCancelPending = false; /* too late: it is done, and proven */
	end_well(job, "succeeded");
	job_notice(job, "node %s follows this server", node_name(job));
}

/* A cancel request does not end the undo, but bounds it: see ssh_hurry_when_cancelled(). */
static void
undo(Job *job, bool in_hurry)
{
	MemoryContext context = CurrentMemoryContext;

	if (job->undo == NULL)
		return;
	if (job->ssh == NULL || !ssh_is_alive(job->ssh))
	{
		job->undone = "What the job has changed on the node is not put back, for the connection is lost.";
		return;
	}
	QueryCancelPending = in_hurry;
	ssh_hurry_when_cancelled(job->ssh);
	PG_TRY();
	{
		/* Not around all this: an error ends the hold by itself. */
		HOLD_CANCEL_INTERRUPTS();
		job->undo(job);
		RESUME_CANCEL_INTERRUPTS();
	}
	PG_CATCH();
	{
		ErrorData  *error = sql_recover(context);

		job->undone = psprintf("What the job has changed on the node could not be put back: %s%s%s",
							   error->message, error->detail ? ": " : "", error->detail ? error->detail : "");
	}
	PG_END_TRY();
}

void
run_clean_up(Job *job, bool in_hurry)
{
	undo(job, in_hurry);
	QueryCancelPending = false;
	disconnect(job);
	primary_drop_made_slot(job);
}
