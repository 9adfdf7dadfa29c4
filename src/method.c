/*
 * method.c
 *		Which steps belong to a plan.
 */
#include "postgres.h"

#include "attach.h"
#include "method.h"
#include "node.h"

const Step *
plan_steps(const JobPlan *plan)
{
	if (plan->finish)
		return finish_steps;
	switch (plan->method)
	{
		case METHOD_NONE:
			return none_steps;
		case METHOD_REPOINT:
			return plan->restart ? repoint_restart_steps : repoint_steps;
		case METHOD_REWIND:
			return rewind_steps;
		case METHOD_BASEBACKUP:
			return plan->in_place ? in_place_steps : basebackup_steps;
		case METHOD_SKIP:
		case METHOD_REFUSE:
			break;
	}
	return NULL;
}

bool
step_applies(const Step *step, const Job *job)
{
	if (step->run == attach_node)
		return job->request->node_id >= 0;
	if (step->run == node_lock || step->run == node_clean)
		return job->plan.method != METHOD_NONE || job->node.leftovers;
	return true;
}
