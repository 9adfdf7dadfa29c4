/*
 * plan.c
 *		From facts to a method: none, repoint, rewind, basebackup, skip or
 *		refuse.
 *
 * This is the one place that decides.  It reads nothing but its arguments, and
 * the order of the questions is the order of the damage that a wrong answer
 * would do: is it the right server at all, may it be touched, does it follow
 * already, and only then which method is the cheapest that is safe.
 *
 * What makes a repoint safe is that the WAL which the node has *received*, not
 * only what it has replayed, is a prefix of this primary's history.  Where that is
 * known of a server that was shut down, there is nothing that a rewind would take
 * away, and it only has to be started.  What makes
 * a rewind possible is told by pg_rewind's documentation and its source
 * (sanityChecks() in src/bin/pg_rewind/pg_rewind.c).
 */
#include "postgres.h"

#include "compat.h"
#include "plan.h"

static const char *const names[] = {
	[METHOD_NONE] = "none",
	[METHOD_REPOINT] = "repoint",
	[METHOD_REWIND] = "rewind",
	[METHOD_BASEBACKUP] = "basebackup",
	[METHOD_SKIP] = "skip",
	[METHOD_REFUSE] = "refuse"
};

const char *
method_name(Method method)
{
	return names[method];
}

/* How the WAL of the node stands to the primary's. */
typedef enum WalRelation
{
	REL_UNKNOWN,
	REL_PREFIX,					/* the primary has all that the node has */
	REL_DIVERGED				/* the node has WAL that the primary has not */
} WalRelation;

static void
refuse(JobPlan *plan, int sqlstate, char *reason, char *hint)
{
	plan->method = METHOD_REFUSE;
	plan->sqlstate = sqlstate;
	plan->reason = reason;
	plan->hint = hint;
}

static void
choose(JobPlan *plan, Method method, char *reason)
{
	plan->method = method;
	plan->reason = reason;
}

bool
plan_slot_is_held(const PrimaryFacts *primary, const NodeFacts *node)
{
	/* Of a standby that could not be asked it is not known. */
	return primary->slot_active && !node->uses_slot &&
		(node->state != NODE_STANDBY || node->sql);
}

/* Is this the right server, and one that may be touched? */
bool
plan_refuses(const PrimaryFacts *primary, const NodeFacts *node, JobPlan *plan)
{
	if (primary->in_recovery)
		refuse(plan, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
			   "this server is a standby",
			   "Call follow_primary() on the new primary.");
	else if (node->is_this_server)
		refuse(plan, ERRCODE_INVALID_PARAMETER_VALUE,
			   "the node is this server itself",
			   "Call follow_primary() on the new primary, for every other node.");
	else if (node->port_owner && node->pgdata)
		refuse(plan, ERRCODE_INVALID_PARAMETER_VALUE,
			   psprintf("the server on the node's port uses data directory \"%s\", not \"%s\"",
						node->port_owner, node->pgdata),
			   "Correct node_pgdata or node_port.");
	else if (node->not_down)
		refuse(plan, node->not_down_sqlstate, node->not_down, node->not_down_hint);
	else if (node->pgdata_state == PGDATA_MISSING)
		refuse(plan, ERRCODE_UNDEFINED_FILE,
			   psprintf("data directory \"%s\" does not exist on the node", node->pgdata),
			   "Correct node_pgdata; or create it as an empty directory, owned by the SSH user, to have a copy made there.");
	else if (node->pgdata_state == PGDATA_NOT_PGDATA)
		refuse(plan, ERRCODE_INVALID_PARAMETER_VALUE,
			   psprintf("\"%s\" on the node is not a PostgreSQL data directory", node->pgdata),
			   "Correct node_pgdata. Nothing is deleted there.");
	else if (node->pgdata_state == PGDATA_UNREADABLE)
		refuse(plan, ERRCODE_INSUFFICIENT_PRIVILEGE,
			   psprintf("data directory \"%s\" on the node cannot be read by the SSH user", node->pgdata),
			   "Set follow_primary.ssh_user to the user that owns the data directory.");
	else if (node->pgdata_state == PGDATA_OK && node->system_id != 0 &&
			 node->system_id != primary->system_id)
		refuse(plan, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
			   psprintf("the node belongs to another cluster: its system identifier is " UINT64_FORMAT ", this server's is " UINT64_FORMAT,
						node->system_id, primary->system_id),
			   "Correct node_host, node_port or node_pgdata.");
	else if (node->pgdata_state == PGDATA_OK && node->version_major != 0 &&
			 node->version_major != primary->version_num / 10000)
		refuse(plan, ERRCODE_FEATURE_NOT_SUPPORTED,
			   psprintf("the node's data is of PostgreSQL %d, this server is PostgreSQL %d",
						node->version_major, primary->version_num / 10000),
			   "Streaming replication needs the same major version on both sides.");
	else if (node->bin_version_major != primary->version_num / 10000)
		refuse(plan, ERRCODE_FEATURE_NOT_SUPPORTED,
			   psprintf("the node's programs are of PostgreSQL %d, this server is PostgreSQL %d",
						node->bin_version_major, primary->version_num / 10000),
			   "Set follow_primary.node_bin_dir, or the node's row, to the right directory.");
	else if (node->other_port != 0)
		refuse(plan, ERRCODE_INVALID_PARAMETER_VALUE,
			   psprintf("the server of data directory \"%s\" listens on port %d",
						node->pgdata, node->other_port),
			   "Correct node_pgdata or node_port.");
	else if (node->refused_login)
		refuse(plan, node->refused_sqlstate,
			   psprintf("the node's server refuses the login of the role that has to ask it: %s", node->sql_error),
			   node->refused_login);
	else if (primary->slot_logical)
		refuse(plan, ERRCODE_DUPLICATE_OBJECT,
			   "a logical replication slot of the node's slot name exists",
			   "Give another slot_name.");
	else if (primary->slot_active && primary->slot_user && !(node->uses_slot && node->receives_from_us))
		refuse(plan, ERRCODE_OBJECT_IN_USE,
			   psprintf("the node's replication slot is in use by node %s", primary->slot_user),
			   OWN_SLOT_HINT);
	else if (plan_slot_is_held(primary, node) && node->state != NODE_DOWN && !primary->slot_of_node)
		refuse(plan, ERRCODE_OBJECT_IN_USE,
			   psprintf("the node's replication slot is in use by another server: %s", primary->slot_client),
			   psprintf("Give this node a slot_name of its own. If that is a dead connection, or the other server is not to use this slot, on this server: SELECT pg_terminate_backend(%d).",
						primary->slot_pid));
	else if (node->state == NODE_PRIMARY && node->timeline > primary->timeline)
		refuse(plan, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
			   psprintf("the node runs as a primary on timeline %u, above this server's %u: it may be the newer primary",
						node->timeline, primary->timeline),
			   "Make sure which server is the right primary. If it is this one, stop the other first.");
	else
		return false;
	return true;
}

/*
 * Has the node WAL of its own that the histories do not show?  Two servers
 * that write on one timeline never have the same WAL there.
 */
static bool
forked_unseen(const PrimaryFacts *primary, const NodeFacts *node)
{
	return node->forked_unseen ||
		(node->timeline == primary->timeline &&
		 (node->state == NODE_PRIMARY || node->was_primary ||
		  node->lsn > primary->flush_lsn));
}

/*
 * Did an interrupted job leave something to be done?  The data that it brought
 * is a standby's: where the node has been a primary since, the mark is old.
 */
static bool
is_unfinished(const NodeFacts *node)
{
	return node->mark != MARK_NONE &&
		!(node->mark == MARK_CHANGED && node->was_primary);
}

/* Where does the node's WAL part from the primary's, if it does? */
static WalRelation
relate(const PrimaryFacts *primary, const NodeFacts *node, JobPlan *plan)
{
	const Stretch *stretch;
	XLogRecPtr	common;

	if (node->timeline == 0 || XLogRecPtrIsInvalid(node->lsn))
		return REL_UNKNOWN;

	stretch = history_find(&primary->history, node->timeline);
	if (node->history_known &&
		history_common(&node->history, &primary->history,
					   &plan->fork_timeline, &common))
		plan->fork_lsn = common;
	else if (stretch)
	{
		plan->fork_timeline = stretch->tli;
		plan->fork_lsn = stretch->end;
	}
	else
		return REL_UNKNOWN;

	if (forked_unseen(primary, node))
	{
		/*
		 * The histories agree and the WAL does not: it differs from the
		 * beginning of the timeline.
		 */
		if (stretch && plan->fork_timeline == stretch->tli)
			plan->fork_lsn = stretch->begin;
		if (node->unseen_fork_timeline != 0 && node->unseen_fork_timeline <= plan->fork_timeline)
		{
			plan->fork_timeline = node->unseen_fork_timeline;
			plan->fork_lsn = history_find(&primary->history, node->unseen_fork_timeline)->begin;
		}
		return REL_DIVERGED;
	}
	if (stretch && plan->fork_timeline == node->timeline)
	{
		XLogRecPtr	end = XLogRecPtrIsInvalid(stretch->end) ? primary->flush_lsn : stretch->end;

		if (node->lsn <= end)
			return REL_PREFIX;
		plan->fork_lsn = end;
	}
	return REL_DIVERGED;
}

static ForkState
fork_state(const NodeFacts *node, const JobPlan *plan)
{
	if (plan->fork_timeline == 0)
		return node->mark == MARK_CHANGED ? FORK_NONE : FORK_UNKNOWN;
	if (!XLogRecPtrIsInvalid(plan->fork_lsn))
		return FORK_KNOWN;
	return plan->diverged ? FORK_UNKNOWN : FORK_NONE;
}

#define NO_CONTROL_FILE "the node's control file cannot be read"

/* Why pg_rewind cannot work, or NULL. */
char *
plan_rewind_objection(const PrimaryFacts *primary, const NodeFacts *node, const JobPlan *plan)
{
	if (node->mark == MARK_CLEARED)
		return "an interrupted job removed the old data to make room for a copy";
	if (node->pgdata_state == PGDATA_EMPTY)
		return psprintf("data directory \"%s\" is empty", node->pgdata);
	if (node->mark == MARK_HALF_CHANGED)
		return "an interrupted job left the data directory half rewound";
	if (node->mark == MARK_HALF_SWAPPED)
		return "an interrupted job left the data directory half replaced";
	if (node->system_id == 0)
		return NO_CONTROL_FILE;
	if (!node->wal_log_hints && !node->checksums)
		return "the node has neither data checksums nor wal_log_hints";
	if (!primary->full_page_writes)
		return "full_page_writes is off on this server";
	if (forked_unseen(primary, node))
		return "the node was promoted separately to the same timeline, which pg_rewind cannot see";
	if (plan->diverged && node->timeline == primary->timeline)
		return "the node's timeline began elsewhere than this server's of the same number, which pg_rewind cannot see";
	if (node->history_known && node->timeline != 0)
	{
		TimeLineID	tli;
		XLogRecPtr	lsn;

		if (!history_common(&node->history, &primary->history, &tli, &lsn))
			return "the timeline histories of the node and of this server have nothing in common";
	}
	return NULL;
}

/* Why the node could not go on from the end of its WAL, or NULL. */
static char *
wal_objection(const PrimaryFacts *primary, const NodeFacts *node,
			  WalRelation relation)
{
	if (relation != REL_PREFIX || node->lsn >= primary->oldest_wal || node->archive_serves)
		return NULL;
	return psprintf("the WAL that the node needs next, at %s, is no longer on this server, and %s",
					lsn_text(node->lsn),
					node->restore_command && node->restore_command[0] ?
					"the node's restore_command does not serve it" :
					"the node has no restore_command");
}

/*
 * Why the node could not go on from the fork after a rewind, or NULL.  It would
 * need the WAL from there on, which only an archive might still have.
 */
static char *
fork_objection(const PrimaryFacts *primary, const NodeFacts *node,
			   const JobPlan *plan)
{
	if (!plan->diverged || plan->fork_lsn >= primary->oldest_wal ||
		(node->restore_command && node->restore_command[0]))
		return NULL;
	return psprintf("the WAL since the fork at %s is no longer on this server, and the node has no restore_command",
					lsn_text(plan->fork_lsn));
}

/* Why a repoint is not safe or not possible, or NULL. */
static char *
repoint_objection(const PrimaryFacts *primary, const NodeFacts *node,
				  WalRelation relation, const JobPlan *plan)
{
	if (node->state == NODE_DOWN && !node->ended_here)
		return "the node is down";
	if (node->state == NODE_PRIMARY)
		return "the node runs as a primary";
	if (node->state == NODE_STANDBY && !node->sql)
		return psprintf("the node cannot be asked what it has received: %s",
						node->sql_error ? node->sql_error : "no SQL connection");
	if (node->mark != MARK_NONE && node->mark != MARK_BEFORE_CHANGE)
		return "an interrupted job left its mark on the node";
	if (node->system_id == 0)
		return NO_CONTROL_FILE;
	if (relation == REL_UNKNOWN)
		return "it is not known how far the node's WAL reaches";
	if (relation == REL_DIVERGED)
		return psprintf("the node has received WAL up to %s on timeline %u, which parts from this server's history at %s",
						lsn_text(node->lsn), node->timeline,
						lsn_text(plan->fork_lsn));
	return NULL;
}

/* Does this server lack a slot or WAL senders for a node that follows? */
static void
refuse_for_limits(const PrimaryFacts *primary, const NodeFacts *node, JobPlan *plan)
{
	/* A copy streams its WAL beside its data. */
	int			senders = plan->method == METHOD_BASEBACKUP && !plan->finish ? 2 :
		primary->slot_active && node->uses_slot ? 0 : 1;

	if (!primary->slot_exists && primary->free_slots < 1)
		refuse(plan, ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
			   "no replication slot is free on this server",
			   "Drop a slot that nobody needs (see pg_replication_slots), or raise max_replication_slots.");
	else if (primary->free_wal_senders < senders)
		refuse(plan, ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
			   psprintf("no WAL sender is free on this server: the node needs %d, %d are left",
						senders, Max(0, primary->free_wal_senders)),
			   "End a client that nobody needs (see pg_stat_replication), or raise max_wal_senders.");
	else if (primary->free_logins >= 0 && primary->free_logins < senders)
		refuse(plan, ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
			   psprintf("the connection limit of role %s is reached: the node needs %d, %d are left",
						primary->replication_user, senders, primary->free_logins),
			   psprintf("Run on this server: ALTER ROLE %s CONNECTION LIMIT -1; or with a limit that leaves each node two.",
						primary->replication_user));
}

/* May the node be touched at all? If not, the plan says why. */
static bool
may_be_touched(const PrimaryFacts *primary, const NodeFacts *node,
			   bool rejoin_when_down, JobPlan *plan)
{
	if (plan_refuses(primary, node, plan))
		return false;
	/* A node that a job of this extension stopped is not down by itself. */
	if (node->state == NODE_DOWN && !rejoin_when_down && !is_unfinished(node))
	{
		choose(plan, METHOD_SKIP,
			   node->pgdata_state == PGDATA_UNKNOWN && node->other_servers ?
			   psprintf("the node is down: nothing listens on its port; its host has %s", node->other_servers) :
			   "the node is down");
		plan->hint = "Pass when_down => 'rejoin' to have it started as a standby.";
		return false;
	}
	if (node->pgdata_state == PGDATA_UNKNOWN)
	{
		refuse(plan, ERRCODE_INVALID_PARAMETER_VALUE,
			   "the node is down and its data directory is not known",
			   "Pass node_pgdata, or set pgdata in the node's row of follow_primary_node.");
		return false;
	}
	if (node->config_missing && node->pgdata_state == PGDATA_OK &&
		!is_unfinished(node))
	{
		refuse(plan, ERRCODE_CONFIG_FILE_ERROR,
			   "the node's postgresql.conf is not known, or not there",
			   "Set config_file in the node's row of follow_primary_node. If the file is lost, restore it.");
		return false;
	}
	return true;
}

/* Does the node follow already, or is only the rest of an interrupted job to be done? */
static bool
is_done_or_unfinished(const PrimaryFacts *primary, const NodeFacts *node,
					  RequestedMethod requested, WalRelation relation, JobPlan *plan)
{
	/* The data that a job brought may be of another primary's history by now. */
	if (node->state == NODE_DOWN &&
		(((requested == REQUESTED_AUTO || requested == REQUESTED_REWIND) &&
		  node->mark == MARK_CHANGED && node->pgdata_state == PGDATA_OK &&
		  relation != REL_DIVERGED && is_unfinished(node)) ||
		 ((requested == REQUESTED_AUTO || requested == REQUESTED_BASEBACKUP) &&
		  node->mark == MARK_HALF_SWAPPED)))
	{
		choose(plan, requested == REQUESTED_REWIND ? METHOD_REWIND : METHOD_BASEBACKUP,
			   "an interrupted job has brought the data already: only what was left is done");
		plan->finish = true;
		return true;
	}
	/* The proof comes with the verify step. */
	if (requested == REQUESTED_AUTO && node->state == NODE_STANDBY &&
		relation == REL_PREFIX && node->mark != MARK_HALF_CHANGED &&
		node->receiver_streaming && node->recovery_target == NULL &&
		node->receiver_timeline == primary->timeline &&
		primary->slot_active && node->uses_slot && node->receives_from_us && !node->other_name)
	{
		choose(plan, METHOD_NONE, "the node follows this server already");
		return true;
	}
	return false;
}

/* Refuses to choose by itself for a node that may be the one to keep. */
static bool
is_for_people_to_decide(const PrimaryFacts *primary, const NodeFacts *node, JobPlan *plan)
{
	/* The timeline of half-changed data tells nothing. */
	if (node->timeline > primary->timeline &&
		(node->state != NODE_DOWN || node->pgdata_state == PGDATA_OK) &&
		(node->mark == MARK_NONE || node->mark == MARK_BEFORE_CHANGE || node->mark == MARK_CHANGED))
	{
		refuse(plan, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
			   psprintf(node->state != NODE_DOWN ?
						"the node is on timeline %u, above this server's %u" :
						"the node's data is on timeline %u, above this server's %u: it may have been the newer primary",
						node->timeline, primary->timeline),
			   "Make sure which server is the right primary. If it is this one, ask for method => 'rewind' or 'basebackup'.");
		return true;
	}
	if (node->pgdata_state == PGDATA_OK &&
		node->system_id == 0 && node->mark == MARK_NONE)
	{
		refuse(plan, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
			   psprintf("the control file of data directory \"%s\" cannot be read: it may belong to any cluster",
						node->pgdata),
			   "Make sure that it is the right directory. If it is, ask for method => 'basebackup'.");
		return true;
	}
	return false;
}

/* Chooses a method that was asked for, or refuses it by the objection to it. */
static void
choose_requested(JobPlan *plan, Method method, const char *objection, char *hint)
{
	if (objection)
		refuse(plan, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
			   psprintf("a %s is not possible: %s", method_name(method), objection), hint);
	else
		choose(plan, method, "asked for");
}

static void
choose_cheapest(const NodeFacts *node, char *no_repoint, char *no_rewind, JobPlan *plan)
{
	const char *state = node->state == NODE_PRIMARY ? "runs as a primary" :
		node->state == NODE_STANDBY ? "is a standby" : "is down";

	if (no_repoint == NULL && node->state == NODE_DOWN)
		choose(plan, METHOD_REPOINT,
			   psprintf("the node was shut down, and its WAL up to %s on timeline %u is part of this server's history",
						lsn_text(node->lsn), node->timeline));
	else if (no_repoint == NULL)
		choose(plan, METHOD_REPOINT,
			   psprintf("the node's WAL up to %s on timeline %u is part of this server's history",
						lsn_text(node->lsn), node->timeline));
	else if (no_rewind)
		choose(plan, METHOD_BASEBACKUP, no_rewind);
	else if (node->state == NODE_STANDBY)
		choose(plan, METHOD_REWIND, no_repoint);
	else if (plan->diverged)
		choose(plan, METHOD_REWIND,
			   psprintf("the node %s and has WAL after the fork at %s on timeline %u",
						state, lsn_text(plan->fork_lsn), plan->fork_timeline));
	else
		choose(plan, METHOD_REWIND, psprintf("the node %s", state));
}

/* What the new settings need to take effect, or why they would not. */
static void
plan_repoint(const PrimaryFacts *primary, const NodeFacts *node, JobPlan *plan)
{
	if (node->state == NODE_DOWN)
	{
		plan->rejoin = true;
		return;
	}
	plan->restart = !node->conninfo_reloadable || !node->target_timeline_latest ||
		node->recovery_target_in_force ||
		(node->lsn < primary->oldest_wal && node->archive_needs_restart);

	/*
	 * A paused standby does not even connect to another primary.  One that has
	 * reached its recovery target would be promoted if it was told to go on; a
	 * start without the target ends the pause.
	 */
	if (node->replay_paused && !node->recovery_target_in_force)
		refuse(plan, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
			   "recovery is paused on the node: it follows nobody else until it goes on",
			   "Call SELECT pg_wal_replay_resume() on the node, then follow_primary() again. method => 'rewind' restarts the node, which ends the pause.");
	if (!plan->restart && node->lower_setting)
		refuse(plan, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
			   psprintf("%s: it would not replay this server's WAL", node->lower_setting),
			   "Raise it there and restart the node, " THEN_CALL_AGAIN);
}

static void
choose_method(const PrimaryFacts *primary, const NodeFacts *node,
			  RequestedMethod requested, WalRelation relation, JobPlan *plan)
{
	char	   *no_wal = wal_objection(primary, node, relation);
	char	   *no_repoint = repoint_objection(primary, node, relation, plan);
	char	   *no_rewind = plan_rewind_objection(primary, node, plan);

	if (no_repoint == NULL)
		no_repoint = no_wal;
	if (no_rewind == NULL && node->state == NODE_DOWN && plan->diverged &&
		node->mark == MARK_CHANGED && is_unfinished(node))
		no_rewind = "what an interrupted job brought is not of this server's history";
	if (no_rewind == NULL)
		no_rewind = no_wal;
	if (no_rewind == NULL)
		no_rewind = fork_objection(primary, node, plan);

	switch (requested)
	{
		case REQUESTED_REPOINT:
			choose_requested(plan, METHOD_REPOINT, no_repoint,
							 "Use method => 'auto', 'rewind' or 'basebackup'.");
			break;
		case REQUESTED_REWIND:
			choose_requested(plan, METHOD_REWIND, no_rewind,
							 "Use method => 'auto' or 'basebackup'.");
			break;
		case REQUESTED_BASEBACKUP:
			choose_requested(plan, METHOD_BASEBACKUP, NULL, NULL);
			break;
		case REQUESTED_AUTO:
			choose_cheapest(node, no_repoint, no_rewind, plan);
			break;
	}
	if (plan->method == METHOD_REPOINT)
		plan_repoint(primary, node, plan);
}

void
plan_choose(const PrimaryFacts *primary, const NodeFacts *node,
			RequestedMethod requested, bool rejoin_when_down,
			JobPlan *plan)
{
	WalRelation relation;

	memset(plan, 0, sizeof(*plan));
	if (!may_be_touched(primary, node, rejoin_when_down, plan))
		return;
	relation = relate(primary, node, plan);
	plan->diverged = relation == REL_DIVERGED;
	plan->fork = fork_state(node, plan);
	if (!is_done_or_unfinished(primary, node, requested, relation, plan) &&
		!(requested == REQUESTED_AUTO && is_for_people_to_decide(primary, node, plan)))
		choose_method(primary, node, requested, relation, plan);
	if (plan->method == METHOD_REPOINT || plan->method == METHOD_REWIND ||
		plan->method == METHOD_BASEBACKUP)
	{
		refuse_for_limits(primary, node, plan);
		if (node->recovery_file_taken)
			refuse(plan, ERRCODE_CONFIG_FILE_ERROR,
				   psprintf("follow_primary.recovery_file, which each job writes anew, %s on the node",
							node->recovery_file_taken),
				   "Set follow_primary.recovery_file, or recovery_file in the node's row of follow_primary_node, to a file for a standby's settings alone; or move what is none to postgresql.conf.");
		if (node->started_with)
			refuse(plan, ERRCODE_CONFIG_FILE_ERROR,
				   psprintf(STARTED_WITH, node->started_with), STARTED_WITH_HINT);
	}
}

void
plan_for_room(const NodeFacts *node, const RoomFacts *room,
			  bool copy_in_place, bool keep_old_data, JobPlan *plan)
{
	bool		has_data = node->pgdata_state == PGDATA_OK;
	bool		cleared = node->mark == MARK_CLEARED && !node->mark_stale;
	char	   *lacking;

	if (plan->method != METHOD_BASEBACKUP || plan->finish || room->missing == 0)
		return;
	lacking = psprintf("there is no room for a copy%s: %s",
					   has_data ? " beside the data" : "", room->where);

	/* Data that an interrupted job has begun to remove is of no use any more. */
	if (room->missing_without_old > 0 || (!has_data && !cleared))
		refuse(plan, ERRCODE_DISK_FULL, lacking,
			   has_data ?
			   psprintf("Make room on the node. Even without its old data " INT64_FORMAT " MB would be missing.",
						(room->missing_without_old >> 20) + 1) :
			   "Make room on the node, " THEN_CALL_AGAIN);
	else if (!copy_in_place && !cleared)
		refuse(plan, ERRCODE_DISK_FULL, lacking,
			   "Make room on the node. Or set follow_primary.copy_in_place, or copy_in_place in the node's row: then the old data is removed before the copy is made, and there is none if the copy fails.");
	else if (keep_old_data && !cleared)
		refuse(plan, ERRCODE_DISK_FULL, lacking,
			   "Make room on the node. keep_old_data = always forbids that the old data makes room for the copy.");
	else if (node->foreign_mark && !cleared)
		refuse(plan, ERRCODE_DISK_FULL, lacking,
			   "Make room on the node. Another primary's job began to replace its data, which may hold the only copy of some WAL. "
			   "If nobody needs that, remove the files \"keep\" and \"mark\", as far as they are there, in the folder \"job\" of the directory beside the data directory whose name ends in .follow_primary.");
	else if (plan->fork == FORK_UNKNOWN &&
			 (node->mark == MARK_NONE || node->mark == MARK_BEFORE_CHANGE))
		refuse(plan, ERRCODE_DISK_FULL, lacking,
			   "Make room on the node. The old data is not removed before: it is not known which of its WAL would be lost and has to be saved.");
	else
	{
		plan->in_place = true;
		plan->reason = psprintf("%s; there is no room for both, so the old data is removed before its replacement is proven",
								plan->reason);
	}
}
