/*
 * methods.c
 *		Every method, its steps in order.
 *
 * A method goes one of these ways:
 *
 *	NONE		the node follows already: only the proof is made
 *	REPOINT		a running standby gets new settings, its data untouched; it has a
 *				prefix of this server's WAL and streams the rest, so no
 *				checkpoint is needed, and nothing is stopped
 *	RESTART		the same for settings that only a start reads
 *	REJOIN		the same for a server that was shut down, and has no WAL that this
 *				server lacks, as the former primary after a switchover.  What it has
 *				not archived is saved, for a standby archives nothing, and the slots
 *				of its life as a primary go
 *	REWIND		a diverged or stopped node goes back to the fork
 *	COPY		a new copy beside what the node has.  Its server, if it runs, goes
 *				on until the copy is complete and verified; the old data stays
 *				until the new standby is proven
 *	IN_PLACE	the same where there is no room for both: what would be lost is
 *				saved, and the old data goes before the copy is made.  What can
 *				be tried is tried before
 *	FINISH		goes on after a job that ended between the swap, or the rewind,
 *				and the proof
 */
#include "postgres.h"

#include "lib/stringinfo.h"

#include "methods.h"
#include "steps/attach.h"
#include "steps/config.h"
#include "steps/connect.h"
#include "steps/copy.h"
#include "steps/lost.h"
#include "steps/node.h"
#include "steps/primary.h"
#include "steps/rewind.h"
#include "steps/trial.h"
#include "steps/verify.h"

#define NONE		0x01
#define REPOINT		0x02
#define RESTART		0x04
#define REWIND		0x08
#define COPY		0x10
#define IN_PLACE	0x20
#define FINISH		0x40
#define REJOIN		0x80

#define NEW_DATA	(REWIND | COPY | IN_PLACE)
#define STARTS		(RESTART | REJOIN | NEW_DATA | FINISH)
#define CHANGES		(REPOINT | STARTS)
#define ALL			(NONE | CHANGES)

/* A node that follows already is locked and cleaned only if a job left something there. */
static bool
has_work(const Job *job)
{
	return job->plan.method != METHOD_NONE || job->node.leftovers;
}

/* What a rewind or a copy discards is counted when the node follows; so is what an interrupted one did. */
static bool
has_uncounted(const Job *job)
{
	return ((job->plan.method == METHOD_REWIND || job->plan.method == METHOD_BASEBACKUP) &&
			!job->plan.finish) || job->node.uncounted;
}

static bool
is_attached(const Job *job)
{
	return job->request->attach && job->request->node_id >= 0;
}

/* What the copy's command has set to fetch WAL with is not kept when the node streams. */
static bool
fetches_as_copied(const Job *job)
{
	return job->restore_copied;
}

/* The node connects for the next step's proof while it is locked. */
static StepResult
lock(Job *job)
{
	if (!ssh_is_holding(job->ssh))
		connect_begin(job);
	return node_lock(job);
}

/*
 * The slot comes before the checkpoint, which would remove the WAL that a rewound
 * node starts from.  The checkpoint comes before the rewind: until the promotion's
 * own has ended, this server's control file shows the old timeline, and pg_rewind
 * would see nothing to do.
 */
static const Step steps[] = {
	{"lock", lock, ALL, has_work, .leaves_nothing = true},
	{"connect", connect_prove, CHANGES, .leaves_nothing = true},
	{"try", trial_run, RESTART | REJOIN | NEW_DATA},
	{"slot", primary_ensure_slot, CHANGES},
	{"checkpoint", primary_checkpoint, REWIND},
	{"space", copy_check_space, COPY | IN_PLACE},
	{"copy", copy_make, COPY},
	{"stop", node_stop, RESTART | REJOIN | NEW_DATA},
	{"save_config", config_save, NEW_DATA},
	{"save_wal", lost_save, REJOIN | NEW_DATA},
	{"rewind", rewind_data, REWIND, .wants_slot = true},
	{"clear", copy_clear, IN_PLACE},
	{"copy", copy_make, IN_PLACE},
	{"swap", copy_swap, COPY | IN_PLACE | FINISH, .wants_slot = true},
	{"repoint", config_repoint, REPOINT, .wants_slot = true},
	{"configure", config_write, STARTS, .wants_slot = true},
	{"start", node_start, STARTS},
	{"verify", verify_follows, ALL, .leaves_nothing = true},
	{"settle", config_settle, COPY | IN_PLACE | FINISH, fetches_as_copied},
	{"attach", attach_node, ALL, is_attached},
	{"clean", node_clean, ALL, has_work},
	{"count", lost_count, ALL, has_uncounted}
};

/* The way that a plan goes; 0 for one that has no steps. */
static int
way_of(const JobPlan *plan)
{
	if (plan->finish)
		return FINISH;
	switch (plan->method)
	{
		case METHOD_NONE:
			return NONE;
		case METHOD_REPOINT:
			return plan->rejoin ? REJOIN : plan->restart ? RESTART : REPOINT;
		case METHOD_REWIND:
			return REWIND;
		case METHOD_BASEBACKUP:
			return plan->in_place ? IN_PLACE : COPY;
		case METHOD_SKIP:
		case METHOD_REFUSE:
			break;
	}
	return 0;
}

const Step *
method_next_step(const Job *job, const Step *step)
{
	int			way = way_of(&job->plan);

	for (step = step ? step + 1 : steps; step < steps + lengthof(steps); step++)
		if ((step->ways & way) != 0 && (step->applies == NULL || step->applies(job)))
			return step;
	return NULL;
}

char *
methods_slot_steps(void)
{
	StringInfoData names;

	initStringInfo(&names);
	for (int i = 0; i < lengthof(steps); i++)
		if (steps[i].wants_slot)
			appendStringInfo(&names, "%s%s", names.len > 0 ? "," : "", steps[i].name);
	return names.data;
}
