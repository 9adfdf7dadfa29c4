/*
 * snapshot.c
 *		A caller who waits for hours holds no snapshot.
 *
 * As long as a session has a snapshot, VACUUM keeps every row, in all tables,
 * that the snapshot might see.  The executor holds one through a query: the
 * active one, one of the query and one of its execution state.  A query that is
 * nothing but "SELECT follow_primary(constants)", or "SELECT ... FROM
 * follow_primary_plan(constants)", be its rows sorted or summed up, has no use for
 * them: when the function runs, its arguments are computed, and what comes after has
 * new ones.  On a standby, they would even stop replay (sql.h).
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/execdesc.h"
#include "nodes/execnodes.h"
#include "nodes/plannodes.h"
#include "nodes/primnodes.h"
#include "tcop/pquery.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"

#include "snapshot.h"
#include "sql.h"

/* A call of this very function with nothing that is computed. */
static bool
is_plain_call(const Node *expr, Oid function)
{
	const FuncExpr *call = (const FuncExpr *) expr;
	ListCell   *cell;

	if (expr == NULL || !IsA(expr, FuncExpr) || call->funcid != function)
		return false;
	foreach(cell, call->args)
	{
		const Node *argument = lfirst(cell);

		if (!IsA(argument, Const) &&
			!(IsA(argument, Param) &&
			  ((const Param *) argument)->paramkind == PARAM_EXTERN))
			return false;
	}
	return true;
}

/* Does the node only go over rows of the one node below it? */
static bool
is_above_one(const Plan *plan)
{
	return plan->lefttree != NULL && plan->righttree == NULL &&
		(IsA(plan, Agg) || IsA(plan, WindowAgg) || IsA(plan, Unique) ||
		 IsA(plan, Sort) || IsA(plan, Limit) || IsA(plan, Result));
}

/* What a plan calls, as its only column or as what is in FROM, and nothing before it. */
static const Node *
only_call(const Plan *plan)
{
	while (is_above_one(plan))
		plan = plan->lefttree;
	if (IsA(plan, FunctionScan))
	{
		const FunctionScan *scan = (const FunctionScan *) plan;

		return list_length(scan->functions) == 1 ?
			linitial_node(RangeTblFunction, scan->functions)->funcexpr : NULL;
	}
	if (!IsA(plan, Result) || plan->lefttree != NULL ||
		((const Result *) plan)->resconstantqual != NULL ||
		list_length(plan->targetlist) != 1)
		return NULL;
	return (const Node *) linitial_node(TargetEntry, plan->targetlist)->expr;
}

bool
snapshot_release(FunctionCallInfo fcinfo)
{
	Portal		portal = ActivePortal;
	QueryDesc  *query;
	const Plan *plan;

	/* At these isolation levels all statements of a transaction share one snapshot. */
	if (IsolationUsesXactSnapshot())
		return false;

	/* Sent by a client: not by a function, nor through a cursor. */
	if (portal == NULL || portal->status != PORTAL_ACTIVE ||
		portal->strategy != PORTAL_ONE_SELECT || portal->name[0] != '\0' ||
		portal->queryDesc == NULL || portal->queryDesc->estate == NULL)
		return false;

	/* Without WITH and subqueries. */
	query = portal->queryDesc;
	plan = query->plannedstmt->planTree;
	if (plan->initPlan != NIL || query->plannedstmt->subplans != NIL ||
		!is_plain_call(only_call(plan), fcinfo->flinfo->fn_oid))
		return false;

	/* Nor is it another call, of a function that the same query has. */
	if (portal->activeSubid != GetCurrentSubTransactionId() ||
		!ActiveSnapshotSet() || GetActiveSnapshot() != query->snapshot)
		return false;

	PopActiveSnapshot();
	UnregisterSnapshotFromOwner(query->estate->es_snapshot, portal->resowner);
	query->estate->es_snapshot = InvalidSnapshot;
	UnregisterSnapshotFromOwner(query->snapshot, portal->resowner);
	query->snapshot = InvalidSnapshot;
	InvalidateCatalogSnapshotConditionally();
	sql_let_replay_go_on();
	return true;
}

void
snapshot_retake(void)
{
	Portal		portal = ActivePortal;
	QueryDesc  *query = portal->queryDesc;

	sql_hold_up_replay();
	query->snapshot = RegisterSnapshotOnOwner(GetTransactionSnapshot(), portal->resowner);
	query->estate->es_snapshot = RegisterSnapshotOnOwner(query->snapshot, portal->resowner);
	PushActiveSnapshot(query->snapshot);
}
