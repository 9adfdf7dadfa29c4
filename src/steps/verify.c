/*
 * verify.c
 *		The proof that a node follows this server.
 *
 * A standby that is shown as streaming may still be a fork: two servers that
 * were promoted separately at the same point accept each other's WAL.  So
 * there are two sides to the proof.  Here: the job's slot is in use by a WAL
 * sender that streams, and the node does not claim to have replayed what was
 * never sent.  There: it is in recovery, receives this timeline through that
 * slot, and shows a row that was written after the slot came into use: the row
 * of this very step.
 *
 * A standby that cannot show the row yet, because its replay is paused or
 * delayed, must have it received; one that shows nothing (hot_standby is off)
 * must have it replayed, by what it tells its WAL sender.  The survey has
 * found by then that its WAL is no fork: it compared the WAL itself.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "compat.h"
#include "login.h"
#include "record.h"
#include "recovery_conf.h"
#include "sql.h"
#include "ssh/net.h"
#include "standby_name.h"
#include "steps/config.h"
#include "steps/connect.h"
#include "steps/node.h"
#include "steps/trial.h"
#include "steps/verify.h"
#include "survey.h"

#define POLL_MS		5

/* How long the node may take to flush a row before it is looked for there. */
#define ARRIVE_MS	50

/* How long the node is looked at before it is asked what holds it up. */
#define LOOK_S		2

/* How long a repointed node may take before it is looked at again. */
#define LOOK_AGAIN_S	1

/*
 * How long the node may refuse the role that asks it: it may have no connection
 * free, or not have replayed yet what lets the role in.
 */
#define REFUSED_MS		4000

/* The WAL sender that has a slot; not by the views, for it is looked for often. */
#define SENDER_OF_SLOT \
	"FROM pg_get_replication_slots() s JOIN pg_stat_get_wal_senders() r ON r.pid = s.active_pid " \
	"WHERE s.slot_name = $1"

/* How the node's WAL sender is seen here, as a phrase, or NULL if it streams. */
static const char *
sender_objection(const Job *job)
{
	const char *slot[] = {job->request->slot_name};
	SqlResult  *row = sql_run("SELECT r.state, r.replay_lsn > r.sent_lsn " SENDER_OF_SLOT, 1, slot);

	if (row->nrows == 0)
		return psprintf("nobody streams through the slot \"%s\"", slot[0]);
	if (sql_value(row, 0, 1) && strcmp(sql_value(row, 0, 1), "t") == 0)
		return "the node has replayed WAL that this server never sent: it is a fork";
	if (sql_value(row, 0, 0) == NULL || strcmp(sql_value(row, 0, 0), "streaming") != 0)
		return psprintf("its WAL sender is in state \"%s\"",
						sql_value(row, 0, 0) ? sql_value(row, 0, 0) : "unknown");
	return NULL;
}

/* What keeps the node from following, as holdup.sh tells. Strings are NULL where unknown. */
typedef struct Holdup
{
	const char *held;			/* what its startup process waits for, as sentences */
	const char *remedy;			/* what ends that */
	const char *words;			/* the last ones of its WAL receiver, or where
								 * they are to be found, as a sentence */
	bool		silent;			/* the former primary does not answer the node */
	const char *former;			/* its host:port */
} Holdup;

/* Where else the log is, which has no last words of the WAL receiver. */
static const char *
log_elsewhere(const char *log)
{
	if (log == NULL)
		return NULL;
	if (strcmp(log, "syslog") == 0)
		return "What its WAL receiver said last is in the node's syslog.";
	if (strcmp(log, "journal") == 0)
		return "What its WAL receiver said last is in the node's journal: see journalctl there.";
	if (strcmp(log, "nowhere") == 0)
		return "What its WAL receiver said last is not known: the node's server has no log.";
	if (strcmp(log, "unknown") == 0)
		return "What its WAL receiver said last is not known: the node's log could not be found.";
	return psprintf("Its WAL receiver has not ended with an error since: the log is %s.", log);
}

/* Asks the node what holds it up; also whether its former primary answers, if so wanted. */
static void
ask_holdup(Job *job, bool ask_former, Holdup *holdup)
{
	const Settings *settings = job->request->settings;
	RemoteLimits limits = {.timeout_ms = FILES_TIMEOUT_MS};
	RemoteReply reply;
	char	   *host = conninfo_value(job->former_conninfo, "hostaddr");
	char	   *port = conninfo_value(job->former_conninfo, "port");
	char	   *us = psprintf("%s:%d", job->primary_host, job->request->primary_port);

	memset(holdup, 0, sizeof(*holdup));
	if (host == NULL)
		host = conninfo_value(job->former_conninfo, "host");
	if (port == NULL)
		port = DEF_PGPORT_STR;
	holdup->former = host ? psprintf("%s:%s", host, port) : us;
	remote_run(job->ssh, &remote_holdup,
			   JOB_NAMED(job,
						 {"db_user", settings->rewind_user},
						 {"db_name", settings->rewind_database},
						 {"passfile", settings->passfile},
						 {"host", job->primary_host},
						 {"port", NUMBER(job->request->primary_port)},
						 {"log_file", job->log_file},
						 {"log_size", job->log_size},
						 {"former_host", ask_former && strcmp(holdup->former, us) != 0 ? host : ""},
						 {"former_port", port}),
			   NULL, &limits, &reply);
	if (!reply.ok)
		return;
	holdup->held = remote_get(&reply, "held");
	holdup->remedy = remote_get(&reply, "remedy");
	holdup->words = remote_get(&reply, "receiver");
	holdup->words = holdup->words ? psprintf("Its WAL receiver said last: %s", sql_text(holdup->words)) :
		log_elsewhere(remote_get(&reply, "log"));
	holdup->silent = remote_says(&reply, "former", "silent");
}

/*
 * Are the new settings better for the node than the former ones?  So they are where
 * it streams by them, and where all that it lacks is that something there ends, while
 * the former primary does not answer.
 */
static bool
is_left_in_place(const Job *job, const Holdup *holdup)
{
	return job->undo && job->plan.method == METHOD_REPOINT &&
		(sender_objection(job) == NULL || (holdup->held && holdup->silent));
}

/*
 * Leaves settings and slot to the node, which follows by itself when it can; what
 * the job saved to put back goes.
 */
static void
leave_in_place(Job *job)
{
	MemoryContext context = CurrentMemoryContext;

	job->undo = NULL;
	job->slot_made = false;
	PG_TRY();
	{
		config_forget(job);
	}
	PG_CATCH();
	{
		(void) sql_recover(context);
	}
	PG_END_TRY();
	job->undone = psprintf("The new settings are left in place%s, and so is the slot \"%s\": the node follows by itself when it can.%s",
						   job->silent_primary ?
						   psprintf(", for the former ones lead to %s, which does not answer the node", job->silent_primary) : "",
						   job->request->slot_name,
						   job->gated ? " Its restore_command fetches no WAL behind the fork until a call has proven that the node follows: call again then." : "");
}

/*
 * Data that an interrupted job brought may prove to be too old by now: then it
 * is copied anew.  Of any other node the error tells what holds it up.
 */
static StepResult
not_proven(Job *job, const char *detail)
{
	Holdup		holdup;
	StringInfoData all;

	if (job->plan.finish && job->request->method != REQUESTED_REWIND)
	{
		job_detail(job, "what an interrupted job brought does not follow: %s", detail);
		return STEP_NEEDS_COPY;
	}
	ask_holdup(job, job->undo != NULL, &holdup);
	if (holdup.silent)
		job->silent_primary = MemoryContextStrdup(job->context, holdup.former);
	if (is_left_in_place(job, &holdup))
		leave_in_place(job);
	initStringInfo(&all);
	appendStringInfoString(&all, detail);
	if (holdup.held)
		appendStringInfo(&all, "\n%s", sql_text(holdup.held));
	if (holdup.words)
		appendStringInfo(&all, "\n%s", holdup.words);
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("node %s does not prove to follow this server", node_name(job)),
			 errdetail("%s", all.data),
			 holdup.remedy ?
			 errhint("On node %s: %s. Then call follow_primary() again.", node_name(job), holdup.remedy) :
			 errhint("See the node's server log. If it only needs longer, raise follow_primary.verify_timeout; " THEN_CALL_AGAIN)));
}

/* Tells a waiting caller what is missing, and what holds it up. */
static void
tell_missing(Job *job, JobWait *wait, const char *missing)
{
	Holdup		holdup;

	if (!job_is_silent(wait))
		return;
	ask_holdup(job, false, &holdup);
	job_tell_waiting(job, wait, psprintf("%s%s%s%s%s", missing,
										 holdup.held ? ". " : "", holdup.held ? sql_text(holdup.held) : "",
										 holdup.words ? holdup.held ? " " : ". " : "",
										 holdup.words ? holdup.words : ""));
}

/*
 * Returns NULL when the node has told its WAL sender that it replayed up to
 * lsn, else what is missing, as a phrase.
 */
static const char *
replay_objection(const Job *job, const char *lsn)
{
	const char *args[] = {job->request->slot_name, lsn};

	return sql_is_true("SELECT r.replay_lsn >= $2::pg_lsn " SENDER_OF_SLOT, lengthof(args), args) ? NULL :
		"the node does not replay what is written here";
}

/*
 * Waits until the node's WAL sender streams and, where lsn is not NULL, until
 * the node has told it that it replayed up to lsn.  To ask the node before
 * would only be a burden.  Looks once at least.  Returns what was missing in
 * the end, or NULL.
 */
static const char *
wait_for_sender(const Job *job, const char *lsn, TimestampTz deadline)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext scratch = AllocSetContextCreate(caller, "verify", ALLOCSET_SMALL_SIZES);
	const char *objection;

	for (;;)
	{
		MemoryContextReset(scratch);
		MemoryContextSwitchTo(scratch);
		objection = sender_objection(job);
		if (objection == NULL && lsn != NULL)
			objection = replay_objection(job, lsn);
		MemoryContextSwitchTo(caller);
		if (objection == NULL || GetCurrentTimestamp() >= deadline)
			break;
		ssh_serve(job->ssh);
		net_pause(POLL_MS);
	}
	if (objection)
		objection = pstrdup(objection);
	MemoryContextDelete(scratch);
	return objection;
}

/*
 * Did a repointed node receive more of the former primary's WAL after it was
 * surveyed?  That one may still run, as it does in a switchover.
 */
static bool
was_overtaken(Job *job)
{
	JobPlan		now;

	survey(job);
	plan_choose(&job->primary, &job->node, REQUESTED_AUTO, true, &now);
	job_detail(job, "it has received more WAL since it was surveyed");
	return now.diverged;
}

/* What stands between the job and a proof: see wait_for_node(). */
typedef struct Proof
{
	Job		   *job;
	TimestampTz deadline;		/* of this look */
	char	   *written;		/* the end of the WAL of the row that must arrive;
								 * NULL while it is not written */
	bool		connected;		/* connect_again() has let it connect */
} Proof;

/* Writes the row that must arrive: not before the node streams. */
static void
write_row(Proof *proof)
{
	job_record_streaming(proof->job);
	proof->written = sql_scalar("SELECT pg_current_wal_flush_lsn()", 0, NULL);
}

/* Has the node said that it has flushed the row? */
static bool
has_arrived(const Proof *proof)
{
	const char *args[] = {proof->job->request->slot_name, proof->written};

	return proof->written &&
		sql_is_true("SELECT r.flush_lsn >= $2::pg_lsn " SENDER_OF_SLOT, lengthof(args), args);
}

/*
 * Waits for the node to say so, if it does soon: to look for the row before costs
 * the node two processes, and each further look as many.
 */
static void
wait_for_arrival(const Proof *proof)
{
	for (int waited = 0; waited < ARRIVE_MS && !has_arrived(proof); waited += POLL_MS)
		net_pause(POLL_MS);
}

/*
 * A node that seemed to follow already has not shown that it can connect.  Its WAL
 * sender still seems to stream after the network has begun to lose what it sends.
 */
static void
connect_again(Proof *proof)
{
	if (proof->job->plan.method != METHOD_NONE || proof->connected || has_arrived(proof))
		return;
	(void) connect_try(proof->job, "", "", true, FILES_TIMEOUT_MS);
	proof->connected = true;
}

/* Answers verify.sh, which is about to look for the row: writes it when the node streams. */
static char *
answer_when_written(void *arg)
{
	Proof	   *proof = (Proof *) arg;

	if (wait_for_sender(proof->job, NULL, proof->deadline) == NULL)
	{
		write_row(proof);
		wait_for_arrival(proof);
	}
	return psprintf("%s\n", proof->written ? proof->written : "");
}

/* Runs verify.sh for so many seconds. */
static void
look_on_node(Proof *proof, int seconds, RemoteReply *reply)
{
	const Job  *job = proof->job;
	const Settings *settings = job->request->settings;
	RemoteLimits limits = {
		.timeout_ms = seconds * 1000 + GRACE_MS,
		.on_ask = answer_when_written,
		.arg = proof
	};

	remote_run(job->ssh, &remote_verify,
			   JOB_NAMED(job,
						 {"db_user", settings->rewind_user},
						 {"passfile", settings->passfile},
						 {"slot", job->request->slot_name},
						 {"timeline", NUMBER(job->primary.timeline)},
						 {"database", sql_scalar("SELECT current_database()", 0, NULL)},
						 {"schema", job->request->schema},
						 {"seq", NUMBER(job->seq)},
						 {"timeout", NUMBER(seconds)},
						 {"limit", NUMBER(job->plan.method == METHOD_REPOINT ? seconds : settings->verify_timeout)},
						 {"started", job->started ? "yes" : "no"}),
			   NULL, &limits, reply);
}

/*
 * Waits until the node shows that it follows; returns what it lacks after so
 * many seconds, as a phrase, or NULL.  The job writes the row as soon as the
 * node streams, while the script on the node is about to look for it.  A node
 * that takes no connections is not asked for it, but has to stream as well.
 */
static const char *
wait_for_node(Proof *proof, int seconds, RemoteReply *reply)
{
	const char *objection;

	proof->deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), seconds * 1000);
	proof->written = NULL;
	look_on_node(proof, seconds, reply);
	if (reply->ok && proof->written == NULL)
	{
		objection = wait_for_sender(proof->job, NULL, proof->deadline);
		if (objection)
			return objection;
		write_row(proof);
	}
	if (reply->ok)
		return NULL;
	objection = proof->written ? NULL : sender_objection(proof->job);
	return objection ? objection : reply->messages;
}

const char *
verify_seen(const RemoteReply *reply)
{
	return remote_says(reply, "seen", "row") ? "shows what is written here" :
		remote_says(reply, "seen", "nothing") ? "replays what is written here; it shows nothing, for hot_standby is off" :
		remote_says(reply, "seen", "paused") ? "has received what is written here; it does not show it yet, for recovery is paused" :
		remote_says(reply, "seen", "delayed") ? "has received what is written here; it does not show it yet, for recovery_min_apply_delay is set" :
		NULL;
}

/*
 * Was the node a candidate for synchronous replication, by this server's settings or
 * its own, which it had as the former primary or like that one, and is it none by its
 * name here?  Commits may wait for a standby of its old name, or not wait any more.
 */
static void
tell_of_lost_candidacy(Job *job)
{
	const char *before = standby_name_in_force(&job->node, job->primary.version_num);
	const char *slot[] = {job->request->slot_name};
	const char *now;
	const char *ours = GetConfigOption("synchronous_standby_names", false, false);
	bool		by_ours = standby_name_is_candidate(before, ours);
	char	   *text;

	if (!by_ours && !standby_name_is_candidate(before, job->node.sync_names))
		return;
	now = sql_scalar("SELECT r.application_name FROM pg_replication_slots s "
					 "JOIN pg_stat_replication r ON r.pid = s.active_pid WHERE s.slot_name = $1",
					 lengthof(slot), slot);
	if (now == NULL || standby_name_is_candidate(now, ours))
		return;
	text = psprintf("as \"%s\" the node was a candidate for synchronous replication by synchronous_standby_names of %s; "
					"as \"%s\" it is none by synchronous_standby_names of this server",
					before, by_ours ? "this server" : "the node", now);
	job_notice(job, "%s", text);
	job_detail(job, "%s; %s", job->detail, text);
}

StepResult
verify_follows(Job *job)
{
	const Settings *settings = job->request->settings;
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													   settings->verify_timeout * 1000);
	bool		repointed = job->plan.method == METHOD_REPOINT && !job->plan.rejoin;
	int			seconds = repointed ? LOOK_AGAIN_S : Min(LOOK_S, settings->verify_timeout);
	JobWait		wait = {0};
	RemoteReply reply = {0};
	const char *objection;
	const char *seen;
	Proof		proof = {.job = job};
	TimestampTz refused_since = 0;

	(void) job_is_silent(&wait);
	for (;;)
	{
		objection = wait_for_node(&proof, seconds, &reply);
		if (objection == NULL)
			break;
		if (remote_failed_for(&reply, "promoted"))
			node_fail_promoted(job);
		if (!remote_failed_for(&reply, "login_refused"))
			refused_since = 0;
		else if (refused_since == 0)
			refused_since = GetCurrentTimestamp();
		else if (TimestampDifferenceExceeds(refused_since, GetCurrentTimestamp(), REFUSED_MS))
			step_fail(job, &reply, login_sqlstate(reply.messages), "PostgreSQL refuses the login that the proof needs",
					  login_hint(job, LOGIN_TO_NODE, settings->rewind_user, sql_scalar("SELECT current_database()", 0, NULL), NULL, reply.messages));
		if (GetCurrentTimestamp() >= deadline ||
			remote_failed_for(&reply, "ended"))
			return not_proven(job, psprintf("%s%s%s",
											remote_failed_for(&reply, "ended") ? "" : psprintf("After %d seconds: ", settings->verify_timeout),
											objection,
											job->node.replay_delayed ?
											"; with recovery_min_apply_delay it connects only when what it has is replayed" : ""));
		tell_missing(job, &wait, objection);
		if (repointed && was_overtaken(job))
			return STEP_NEEDS_PLAN;
		if (repointed && seconds == LOOK_AGAIN_S)
			trial_after_repoint(job);
		connect_again(&proof);
		seconds = Max(1, Min(Min(2 * seconds, LOOK_S), (deadline - GetCurrentTimestamp()) / USECS_PER_SEC + 1));
	}

	/* The sender must still stream, in any case. */
	seen = verify_seen(&reply);
	objection = seen == NULL ? "it was not told what the node shows" :
		remote_says(&reply, "seen", "paused") && job->node.lower_setting && job->primary.version_num >= 140000 ?
		psprintf("recovery is paused, for %s", job->node.lower_setting) :
		remote_says(&reply, "seen", "paused") && !job->node.replay_paused ?
		"recovery is paused, which it was not before: its log may tell why" :
		remote_says(&reply, "seen", "nothing") ?
		wait_for_sender(job, proof.written, deadline) : sender_objection(job);
	if (objection)
		return not_proven(job, psprintf("It did, but then %s.", objection));
	job_detail(job, "streams timeline %u through slot \"%s\", and %s",
			   job->primary.timeline, job->request->slot_name, seen);
	tell_of_lost_candidacy(job);
	job->undo = NULL;
	job->slot_made = false;		/* it is the node's, whatever fails now */
	if (job->plan.method == METHOD_REWIND || job->plan.method == METHOD_BASEBACKUP || job->gated)
		node_remove_mark(job);
	return STEP_DONE;
}
