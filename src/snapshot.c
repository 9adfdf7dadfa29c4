/*
 * snapshot.c
 *		A caller who waits for hours holds no snapshot.
 *
 * As long as a session has a snapshot, VACUUM keeps every row, in all tables,
 * that the snapshot might see.  The executor holds one through a query: the
 * active one, one of the query and one of its execution state.  A query that is
 * nothing but "SELECT follow_primary(constants)" has no use for them: when the
 * function runs, its arguments are computed, and its result is sent as it is.
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

/* A call of this very function with nothing that is computed. */
static bool
is_plain_call(const Expr *expr, Oid function)
{
	const FuncExpr *call = (const FuncExpr *) expr;
	ListCell   *cell;

	if (!IsA(expr, FuncExpr) || call->funcid != function)
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

bool
snapshot_release(FunctionCallInfo fcinfo)
{
	Portal		portal = ActivePortal;
	QueryDesc  *query;
	const Plan *plan;

	/* Else the transaction's first snapshot is that of all its statements. */
	if (IsolationUsesXactSnapshot())
		return false;

	/* Sent by a client: not by a function, nor through a cursor. */
	if (portal == NULL || portal->status != PORTAL_ACTIVE ||
		portal->strategy != PORTAL_ONE_SELECT || portal->name[0] != '\0' ||
		portal->queryDesc == NULL || portal->queryDesc->estate == NULL)
		return false;

	/* Without FROM, WHERE and WITH, and of one column. */
	query = portal->queryDesc;
	plan = query->plannedstmt->planTree;
	if (!IsA(plan, Result) || plan->lefttree != NULL || plan->initPlan != NIL ||
		((const Result *) plan)->resconstantqual != NULL ||
		query->plannedstmt->subplans != NIL ||
		list_length(plan->targetlist) != 1 ||
		!is_plain_call(linitial_node(TargetEntry, plan->targetlist)->expr,
					   fcinfo->flinfo->fn_oid))
		return false;

	PopActiveSnapshot();
	UnregisterSnapshotFromOwner(query->estate->es_snapshot, portal->resowner);
	query->estate->es_snapshot = InvalidSnapshot;
	UnregisterSnapshotFromOwner(query->snapshot, portal->resowner);
	query->snapshot = InvalidSnapshot;
	return true;
}

void
snapshot_retake(void)
{
	Portal		portal = ActivePortal;
	QueryDesc  *query = portal->queryDesc;
	Snapshot	snapshot = GetTransactionSnapshot();

	query->snapshot = RegisterSnapshotOnOwner(snapshot, portal->resowner);
	query->estate->es_snapshot = RegisterSnapshotOnOwner(snapshot, portal->resowner);
	PushActiveSnapshot(query->snapshot);
}
