/*
 * node.c
 *		What can be done to the node, a step each.
 *
 * The scripts know how; this file knows with which values, how long, and what
 * to tell the user when they fail.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "pgtime.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "compat.h"
#include "folders.h"
#include "node.h"
#include "recovery_conf.h"
#include "remote.h"
#include "sql.h"
#include "survey.h"
#include "wal.h"

/* For scripts that only look at or write a few files. */
#define FILES_TIMEOUT_MS	60000

/* Beyond a script's own limit, for it to say what happened. */
#define GRACE_MS			15000

#define ARGUMENTS(...)		((const char *[]) {__VA_ARGS__, NULL})
#define NUMBER(n)			psprintf("%d", (int) (n))

char *
node_name(const Job *job)
{
	return psprintf("%s:%d", job->request->node_host, job->request->node_port);
}

/*
 * A script's failure as an error.  The script's own messages are the detail;
 * among them is the server's log when a start failed.
 */
pg_noreturn static void
fail(const Job *job, const RemoteReply *reply, int sqlstate,
	 const char *what, const char *hint)
{
	ereport(ERROR,
			(errcode(sqlstate),
			 errmsg("%s on node %s", what, node_name(job)),
			 reply->messages[0] ? errdetail("%s", reply->messages) : 0,
			 errhint("%s", hint)));
}

/* The SQLSTATE and hint of the reasons that several scripts share. */
static int
common_sqlstate(const RemoteReply *reply, const char **hint)
{
	if (remote_failed_for(reply, "no_space"))
	{
		*hint = "Make room on the node, then call follow_primary() again.";
		return ERRCODE_DISK_FULL;
	}
	if (remote_failed_for(reply, "permission"))
	{
		*hint = "Give the SSH user the right to write there, then call follow_primary() again.";
		return ERRCODE_INSUFFICIENT_PRIVILEGE;
	}
	if (remote_failed_for(reply, "source_unreachable"))
	{
		*hint = "The node must be able to connect to this server: check pg_hba.conf and listen_addresses here, "
			"the password file there, and follow_primary.primary_host, replication_user and rewind_user.";
		return ERRCODE_CONNECTION_FAILURE;
	}
	if (remote_failed_for(reply, "mount_point"))
	{
		*hint = "What PostgreSQL keeps there has to be on the same file system as the rest. Move it, then call follow_primary() again.";
		return ERRCODE_FEATURE_NOT_SUPPORTED;
	}
	if (remote_failed_for(reply, "swap_unfinished"))
		*hint = "Leave that file as it is, and see that the node's disks are mounted. Then call follow_primary() with method => 'auto', which completes the exchange first.";
	else if (remote_failed_for(reply, "running") || remote_failed_for(reply, "stop_failed"))
		*hint = "If a service manager starts the server again, set follow_primary.node_stop_command and node_start_command, or the columns of the node's row. Then call follow_primary() again.";
	else
		*hint = "Remove the cause, then call follow_primary() again: it looks at the node afresh.";
	return ERRCODE_EXTERNAL_ROUTINE_EXCEPTION;
}

pg_noreturn static void
fail_commonly(const Job *job, const RemoteReply *reply, const char *what)
{
	const char *hint;
	int			sqlstate = common_sqlstate(reply, &hint);

	fail(job, reply, sqlstate, what, hint);
}

/* A script succeeded, but did not say what it is to say. */
pg_noreturn static void
fail_answer(const Job *job, const RemoteReply *reply, const char *what)
{
	fail(job, reply, ERRCODE_PROTOCOL_VIOLATION,
		 psprintf("it is not understood %s", what), CALL_AGAIN);
}

static const char *
text_of(const RemoteReply *reply, const char *key)
{
	const char *text = remote_get(reply, key);

	return text ? text : "unknown";
}

pg_noreturn static void
fail_for_tablespace(const Job *job, const RemoteReply *reply)
{
	fail(job, reply, ERRCODE_OBJECT_IN_USE, "there is no place for a tablespace",
		 "Empty that directory on the node, or move it away, if nothing needs it; then call follow_primary() again.");
}

/* node_start_command and its siblings: %D, %p and %% in them. */
static char *
expand_command(const Job *job, const char *command)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (const char *c = command; *c; c++)
	{
		if (*c == '%' && c[1] == 'D')
			remote_quote(&buf, job->node.pgdata);
		else if (*c == '%' && c[1] == 'p')
			appendStringInfo(&buf, "%d", job->request->node_port);
		else if (*c == '%' && c[1] == '%')
			appendStringInfoChar(&buf, '%');
		else
		{
			appendStringInfoChar(&buf, *c);
			continue;
		}
		c++;
	}
	return buf.data;
}

/*
 * The arguments of configure.sh, which writes the settings file, the include
 * line and standby.signal.  A stopped server's effective values are read back;
 * a running one proves them itself.  They last as long as the caller's block.
 */
#define CONFIGURE_ARGUMENTS(job, content, live) \
	ARGUMENTS((job)->node.pgdata, (job)->request->settings->node_bin_dir, \
			  (job)->config_file, job_recovery_file(job), \
			  NUMBER((job)->primary.version_num), (content), (live), \
			  job_primary_conninfo(job), (job)->request->slot_name)

/* What the SSH user needs of postgresql.conf. */
static char *
include_hint(const Job *job)
{
	return psprintf("Let the SSH user write the file, or end it in this line, and have it nowhere else: include_if_exists = '%s'.",
					job_recovery_file(job));
}

/*
 * pg_rewind's connection runs these four (its documentation, "Notes").  That they
 * may be run is known here, before the node is stopped, if it is this database
 * that pg_rewind connects to: each has its own privileges.
 */
static void
check_rewind_functions(const Job *job)
{
	const char *role = job->request->settings->rewind_user;
	const char *args[] = {role, job->request->settings->rewind_database};
	char	   *missing = sql_scalar("SELECT string_agg(f, ', ') FROM unnest(ARRAY["
									 "'pg_ls_dir(text, boolean, boolean)', 'pg_stat_file(text, boolean)', "
									 "'pg_read_binary_file(text)', 'pg_read_binary_file(text, bigint, bigint, boolean)']) f "
									 "WHERE NOT has_function_privilege($1, 'pg_catalog.' || f, 'EXECUTE') "
									 "AND current_database() = $2",
									 lengthof(args), args);

	if (missing)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role \"%s\" may not run what pg_rewind needs", role),
				 errdetail("It lacks EXECUTE on %s. Nothing was changed.", missing),
				 errhint("Run in database \"%s\" of this server: GRANT EXECUTE ON FUNCTION %s TO %s",
						 args[1], missing, quote_identifier(role))));
}

StepResult
node_connect(Job *job)
{
	const Settings *settings = job->request->settings;
	RemoteLimits limits = {.timeout_ms = FILES_TIMEOUT_MS};
	RemoteReply reply;
	bool		keeps_conninfo = job->node.state == NODE_STANDBY && job->node.conninfo &&
		job->plan.method == METHOD_REWIND;
	RemoteCall	calls[] = {
		{&remote_configure, CONFIGURE_ARGUMENTS(job, "", "check")},
		{&remote_connect,
			ARGUMENTS(settings->node_bin_dir,
					  settings->passfile[0] ? node_path(job, settings->passfile) : "",
					  job_tool_conninfo(job, settings->rewind_user, settings->rewind_database),
					  keeps_conninfo ? "" :
					  psprintf("%s replication=true",
							   job_tool_conninfo(job, settings->replication_user, NULL)))}
	};

	if (job->plan.method == METHOD_REWIND)
		check_rewind_functions(job);
	remote_run_in_turn(job->ssh, calls, lengthof(calls), &limits, &reply);
	if (remote_failed_for(&reply, "config_not_writable"))
		fail(job, &reply, ERRCODE_CONFIG_FILE_ERROR, "the settings of a standby could not be written",
			 psprintf("%s Nothing was changed.", include_hint(job)));
	if (!reply.ok)
		fail_commonly(job, &reply, "a connection to this server cannot be made");
	return STEP_DONE;
}

/* Who has the lock, for those who are refused. */
static char *
lock_owner(const Job *job)
{
	pg_time_t	now = time(NULL);
	char		since[32];

	pg_strftime(since, sizeof(since), "%Y-%m-%d %H:%M:%S UTC", pg_gmtime(&now));
	return psprintf("Job " INT64_FORMAT " of the primary %s:%d has it since %s.",
					job->id, job->primary_host, job->request->primary_port, since);
}

/* Runs clean.sh in one of its modes; raises with the text if that fails. */
static void
clean(Job *job, const char *keep, const char *what_failed, RemoteReply *reply)
{
	RemoteLimits limits = {.progress_timeout_ms = job->request->settings->progress_timeout * 1000};

	remote_run(job->ssh, &remote_clean,
			   WITH_FOLDERS(job, job->node.pgdata, keep, psprintf(INT64_FORMAT, job->id)),
			   &limits, reply);
	if (!reply->ok)
		fail_commonly(job, reply, what_failed);
}

/* Whatever becomes of this job, no later one removes what was put aside. */
static void
keep_foreign(Job *job)
{
	RemoteReply reply;

	if (job->node.foreign_mark)
		clean(job, "keep", "what an interrupted job of another primary replaced could not be kept", &reply);
}

StepResult
node_lock(Job *job)
{
	RemoteLimits limits = {.timeout_ms = FILES_TIMEOUT_MS};
	RemoteReply reply;

	/* A copy after a rewind that was not possible goes on under its lock. */
	if (ssh_is_holding(job->ssh))
	{
		job_detail(job, "held already");
		return STEP_DONE;
	}
	remote_hold(job->ssh, &remote_lock,
				ARGUMENTS(job->node.pgdata, lock_owner(job), job->beside),
				&limits, &reply);
	if (remote_failed_for(&reply, "locked"))
		fail(job, &reply, ERRCODE_OBJECT_IN_USE, "another job is at work",
			 "Wait until it has ended, or end it by follow_primary_cancel() on the server that runs it. "
			 "If that server should not be a primary, stop it first. "
			 "If it hangs, end that process on the node, and call follow_primary() again.");
	if (remote_failed_for(&reply, "no_flock"))
		fail(job, &reply, ERRCODE_UNDEFINED_FILE, "the node cannot be locked for this job",
			 "Install util-linux on the node, which has flock, then call follow_primary() again.");
	if (!reply.ok || !ssh_is_holding(job->ssh))
		fail_commonly(job, &reply, "the node cannot be locked for this job");
	if (!remote_says(&reply, "fresh", "yes"))
	{
		const char *taken_from = remote_get(&reply, "taken_from");

		/* Another job may have come and gone since the survey. */
		survey(job);
		keep_foreign(job);
		job_detail(job, "%s%s%s, and another look at the node", text_of(&reply, "file"),
				   taken_from ? ", taken from a job whose host does not answer: " : "",
				   taken_from ? taken_from : "");
		return STEP_NEEDS_PLAN;
	}
	keep_foreign(job);
	job_detail(job, "%s", text_of(&reply, "file"));
	return STEP_DONE;
}

/*
 * The node was a standby when it was surveyed, before a copy of hours perhaps,
 * and has been promoted since, or it was down: whose primary it is, and what it
 * has written, is for a new plan.
 */
static StepResult
look_again(Job *job, const char *why)
{
	job->wal_saved = false;
	survey(job);
	job_detail(job, "%s", why);
	return STEP_NEEDS_PLAN;
}

StepResult
node_stop(Job *job)
{
	const Settings *settings = job->request->settings;
	RemoteLimits limits = {.timeout_ms = settings->stop_timeout * 1000 + GRACE_MS};
	RemoteReply reply;

	if (job->node.state == NODE_STANDBY)
		job->undo = node_undo_stop;
	remote_run(job->ssh, &remote_stop,
			   ARGUMENTS(job->node.pgdata, settings->node_bin_dir,
						 NUMBER(settings->stop_timeout),
						 expand_command(job, settings->node_stop_command),
						 psprintf(INT64_FORMAT, job->id),
						 job->node.state == NODE_STANDBY ? "yes" : "no"),
			   &limits, &reply);
	if (remote_failed_for(&reply, "timeout"))
		fail(job, &reply, ERRCODE_SYSTEM_ERROR, "PostgreSQL did not stop in time",
			 "Raise follow_primary.stop_timeout, or see what holds the server up, then call follow_primary() again.");
	if (!reply.ok)
		fail_commonly(job, &reply, "PostgreSQL could not be stopped");
	if (remote_says(&reply, "promoted", "yes"))
		return look_again(job, "the node has been promoted meanwhile");
	if (!remote_says(&reply, "was_running", "yes"))
	{
		const char *written = remote_get(&reply, "control_time");

		if (job->node.state == NODE_DOWN && written && written[0] &&
			job->control_time[0] && strcmp(written, job->control_time) != 0)
			return look_again(job, "the node, which was down, has run meanwhile");
		job_detail(job, "was not running");
		return STEP_DONE;
	}
	if (job->node.state == NODE_DOWN)
		return look_again(job, "the node, which was down, has been started meanwhile");
	job->wal_saved = false;		/* it may have written more since */
	job_detail(job, "stopped");
	return STEP_DONE;
}

/* Returns the state that the started server is in. */
static const char *
start(const Job *job)
{
	const Settings *settings = job->request->settings;
	RemoteLimits limits = {.timeout_ms = settings->start_timeout * 1000 + GRACE_MS};
	RemoteReply reply;

	remote_run(job->ssh, &remote_start,
			   ARGUMENTS(job->node.pgdata, settings->node_bin_dir, job->config_file,
						 NUMBER(settings->start_timeout),
						 expand_command(job, settings->node_start_command), ""),
			   &limits, &reply);
	if (remote_failed_for(&reply, "timeout"))
		fail(job, &reply, ERRCODE_SYSTEM_ERROR, "PostgreSQL did not start in time",
			 "See the server's log above. If it needs longer, raise follow_primary.start_timeout; then call follow_primary() again.");
	if (!reply.ok)
		fail(job, &reply, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, "PostgreSQL did not start",
			 "See the server's log above, remove the cause, then call follow_primary() again.");
	return text_of(&reply, "status");
}

StepResult
node_start(Job *job)
{
	job_detail(job, "%s", start(job));
	return STEP_DONE;
}

void
node_undo_stop(Job *job)
{
	start(job);
}

StepResult
node_save_config(Job *job)
{
	RemoteLimits limits = {.timeout_ms = FILES_TIMEOUT_MS};
	RemoteReply reply;

	if (job->node.pgdata_state != PGDATA_OK)
	{
		job_detail(job, "there is none");
		return STEP_DONE;
	}
	remote_run(job->ssh, &remote_save_config,
			   ARGUMENTS(job->node.pgdata, psprintf(INT64_FORMAT, job->id), job->config_file,
						 job->keep_slots),
			   &limits, &reply);
	if (!reply.ok)
		fail_commonly(job, &reply, "the configuration could not be saved");
	job_detail(job, "%s files", text_of(&reply, "saved"));
	return STEP_DONE;
}

bool
node_read_lost_wal(const RemoteReply *reply, LostWal *lost)
{
	lost->dir = remote_get(reply, "lost_wal_dir");
	lost->counted = !remote_says(reply, "complete", "unknown");
	if (!lost->counted)
		return lost->dir && lost->dir[0] == '/';
	lost->complete = remote_says(reply, "complete", "yes");
	return remote_number(reply, "lost_wal_bytes", &lost->bytes) &&
		remote_number(reply, "lost_transactions", &lost->transactions) &&
		remote_number(reply, "unarchived", &lost->unarchived) &&
		(lost->complete || remote_says(reply, "complete", "no")) &&
		(lost->bytes > 0 || lost->transactions == 0) &&
		(lost->bytes > 0 || lost->unarchived > 0 ? lost->dir && lost->dir[0] == '/' : lost->dir == NULL);
}

StepResult
node_save_wal(Job *job)
{
	RemoteLimits limits = {.progress_timeout_ms = job->request->settings->progress_timeout * 1000};
	RemoteReply reply;
	LostWal		lost;
	bool		fork_known = job->plan.fork_timeline != 0 &&
		!XLogRecPtrIsInvalid(job->plan.fork_lsn);
	bool		nothing_lost = !fork_known &&
		(job->plan.fork_timeline == 0 ? job->node.mark == MARK_CHANGED : !job->plan.diverged);

	/* What is there once the data has been changed is not the node's own. */
	if (job->wal_saved ||
		((job->node.mark == MARK_HALF_CHANGED || job->node.mark == MARK_CLEARED) && !job->node.mark_stale))
	{
		job_detail(job, job->wal_saved ? "done already" :
				   "done by the job that was interrupted");
		return STEP_DONE;
	}
	/* Without a fork a rewind takes nothing away. */
	if (job->node.pgdata_state != PGDATA_OK ||
		(nothing_lost && job->plan.method == METHOD_REWIND))
	{
		job_detail(job, "the node has no WAL that this server lacks");
		return STEP_DONE;
	}
	remote_run(job->ssh, &remote_save_wal,
			   ARGUMENTS(job->node.pgdata, job->request->settings->node_bin_dir,
						 fork_known ? lsn_text(job->plan.fork_lsn) :
						 nothing_lost ? "none" : "",
						 fork_known ? psprintf("%u", job->plan.fork_timeline) : "",
						 psprintf(INT64_FORMAT, job->id),
						 NUMBER(wal_segment_size),
						 psprintf("%u", job->node.timeline)),
			   &limits, &reply);
	if (!reply.ok)
		fail_commonly(job, &reply, "the WAL that would be lost could not be saved");
	if (!node_read_lost_wal(&reply, &lost))
		fail_answer(job, &reply, "whether the WAL that would be lost is saved");

	job->wal_saved = true;
	if (!lost.counted)
	{
		job->wal_lost = true;
		job_record_lost_wal(job, NULL, NULL, lost.dir);
		job_detail(job, "all WAL that may be lost, not counted, kept in %s: %s",
				   lost.dir, reply.messages);
		return STEP_DONE;
	}
	job->wal_lost = lost.bytes > 0;
	if (nothing_lost && lost.dir == NULL)
	{
		job_detail(job, "the node has no WAL that this server lacks");
		return STEP_DONE;
	}

	/* Where WAL is missing there may be more transactions than were counted. */
	job_record_lost_wal(job, psprintf(INT64_FORMAT, lost.bytes),
						lost.complete ? psprintf(INT64_FORMAT, lost.transactions) : NULL,
						lost.dir);
	job_detail(job, INT64_FORMAT " bytes of WAL with %s" INT64_FORMAT " transactions%s%s%s%s",
			   lost.bytes, lost.complete ? "" : "at least ", lost.transactions,
			   lost.unarchived > 0 ?
			   psprintf(", and " INT64_FORMAT " older segments that were not archived yet", lost.unarchived) : "",
			   lost.dir ? ", kept in " : "", lost.dir ? lost.dir : "",
			   lost.complete ? "" : "; not all of it is on the node any more");
	return STEP_DONE;
}

/* pg_rewind -P and pg_basebackup -P write "  1234/56789 kB (2%) copied". */
static void
tool_progress(void *arg, const char *line)
{
	long long	done;
	long long	total;
	char		unit;

	if (sscanf(line, " %lld/%lld %cB", &done, &total, &unit) == 3 && unit == 'k')
		job_progress((Job *) arg, done * 1024, total * 1024);
}

/*
 * After a rewind: can the node have the WAL that it asks for next?  It tells of
 * none when there is no backup_label any more, as after a start.
 */
static bool
can_start_from_next_segment(Job *job, const RemoteReply *reply)
{
	const char *segment = remote_get(reply, "next_segment");
	TimeLineID	tli;
	XLogSegNo	number;

	if (segment == NULL || segment[0] == '\0')
		return true;
	if (!IsXLogFileName(segment))
		fail_answer(job, reply, "which WAL it needs next");
	XLogFromFileName(segment, &tli, &number, wal_segment_size);
	return wal_is_available(job, number * wal_segment_size);
}

/* The arguments of rewind.sh. */
static const char **
rewind_arguments(Job *job)
{
	const Settings *settings = job->request->settings;
	char	   *restore_command = job_restore_command(job);
	SqlResult  *rows = primary_tablespaces();
	const char *fixed[] = {
		job->node.pgdata,
		settings->node_bin_dir,
		job->config_file,
		job_tool_conninfo(job, settings->rewind_user, settings->rewind_database),
		settings->passfile[0] ? node_path(job, settings->passfile) : "",
		restore_command ? restore_command : "",
		psprintf(INT64_FORMAT, job->id),
		NUMBER(job->primary.version_num),
		job->keep_slots,
		job->wal_lost ? psprintf("%u", job->plan.fork_timeline) : "",
		lsn_text(job->plan.fork_lsn),
		NUMBER(wal_segment_size)
	};
	const char **all = palloc0(sizeof(char *) * (lengthof(fixed) + 2 * rows->nrows + 1));
	int			n = lengthof(fixed);

	memcpy(all, fixed, sizeof(fixed));
	for (int i = 0; i < rows->nrows; i++)
	{
		all[n++] = sql_value(rows, i, 0);
		all[n++] = sql_value(rows, i, 1);
	}
	return all;
}

StepResult
node_rewind(Job *job)
{
	const Settings *settings = job->request->settings;
	RemoteLimits limits = {
		.progress_timeout_ms = settings->progress_timeout * 1000,
		.on_stderr_line = tool_progress,
		.arg = job
	};
	RemoteReply reply;

	remote_run(job->ssh, &remote_rewind, rewind_arguments(job), &limits, &reply);
	if (remote_failed_for(&reply, "tablespace_in_use"))
		fail_for_tablespace(job, &reply);
	if (remote_failed_for(&reply, "needs_copy"))
	{
		if (job->plan.copy_if_rewind_fails)
		{
			job_detail(job, "not possible: %s", reply.messages);
			return STEP_NEEDS_COPY;
		}
		fail(job, &reply, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
			 "the data cannot be rewound",
			 "Use method => 'auto' or 'basebackup' to have it copied.");
	}
	if (!reply.ok)
		fail_commonly(job, &reply, "pg_rewind failed");
	if (!remote_says(&reply, "result", "rewound") &&
		!remote_says(&reply, "result", "not_required"))
		fail_answer(job, &reply, "whether the data was rewound");
	if (!can_start_from_next_segment(job, &reply))
	{
		if (!job->plan.copy_if_rewind_fails)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("the WAL that node %s needs next is gone", node_name(job)),
					 errdetail("Its data is rewound, but \"%s\" is neither on this server nor served by a restore_command.",
							   remote_get(&reply, "next_segment")),
					 errhint("Use method => 'auto' or 'basebackup' to have the data copied.")));
		job_detail(job, "rewound, but the WAL that it needs next, \"%s\", is gone from this server",
				   remote_get(&reply, "next_segment"));
		return STEP_NEEDS_COPY;
	}
	job_detail(job, "%s", remote_says(&reply, "result", "rewound") ?
			   "rewound" : "no rewind was required");
	return STEP_DONE;
}

/* What the primary says of the base backup that the node takes. */
static bool
copy_progress(void *arg)
{
	Job		   *job = (Job *) arg;
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "copy progress",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(scratch);
	const char *args[] = {psprintf("follow_primary_job_" INT64_FORMAT, job->id)};
	SqlResult  *row = sql_run(BASE_BACKUP_PROGRESS, lengthof(args), args);
	int64		done;
	int64		total;
	bool		moved = false;

	/* A checkpoint takes what it takes. */
	if (row->nrows > 0 && sql_value(row, 0, 2))
		moved = strcmp(sql_value(row, 0, 2), "t") == 0;
	if (row->nrows > 0 && sql_value(row, 0, 0))
	{
		done = strtoll(sql_value(row, 0, 0), NULL, 10);
		total = sql_value(row, 0, 1) ? strtoll(sql_value(row, 0, 1), NULL, 10) : 0;
		moved |= done != job->bytes_done;
		job_progress(job, done, Max(done, total));
	}
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(scratch);
	return moved;
}

/*
 * The slot for the copy to stream through.  While the node's old standby runs
 * that is none, for it streams through the node's slot, or will again in a
 * moment: then a temporary slot of this worker holds the WAL until the new
 * standby is proven, and goes with the worker however it ends.
 */
static const char *
slot_for_copy(const Job *job)
{
	const char *own[] = {psprintf("follow_primary_job_" INT64_FORMAT, job->id)};

	if (job->node.state != NODE_STANDBY)
		return job->request->slot_name;
	sql_run("SELECT pg_create_physical_replication_slot($1, true, true) "
			"WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1)", 1, own);
	return "";
}

/* The arguments of basebackup.sh. */
static const char **
copy_arguments(Job *job)
{
	const Settings *settings = job->request->settings;
	SqlResult  *rows = primary_tablespaces();
	const char *fixed[] = {
		job->node.pgdata,
		settings->node_bin_dir,
		job_tool_conninfo(job, settings->replication_user, NULL),
		settings->passfile[0] ? node_path(job, settings->passfile) : "",
		slot_for_copy(job),
		psprintf(INT64_FORMAT, job->id),
		NUMBER(job->primary.version_num),
		job->waldir
	};
	const char **all = palloc0(sizeof(char *) * (lengthof(fixed) + 2 * rows->nrows + 1));
	int			n = lengthof(fixed);

	memcpy(all, fixed, sizeof(fixed));
	for (int i = 0; i < rows->nrows; i++)
	{
		all[n++] = sql_value(rows, i, 1);
		all[n++] = node_tablespace(job, (Oid) strtoul(sql_value(rows, i, 0), NULL, 10),
								   sql_value(rows, i, 1));
	}
	return all;
}

StepResult
node_copy(Job *job)
{
	const Settings *settings = job->request->settings;
	RemoteLimits limits = {
		.progress_timeout_ms = settings->progress_timeout * 1000,
		.on_tick = copy_progress,
		.arg = job
	};
	RemoteReply reply;
	int64		bytes;

	/* Servers before 13 do not tell. */
	if (job->primary.version_num < 130000)
		limits.on_stderr_line = tool_progress;
	remote_run(job->ssh, &remote_basebackup, copy_arguments(job), &limits, &reply);
	if (remote_failed_for(&reply, "tablespace_in_use"))
		fail_for_tablespace(job, &reply);
	if (remote_failed_for(&reply, "slot_in_use"))
		fail(job, &reply, ERRCODE_OBJECT_IN_USE, "the replication slot is in use",
			 "Another server streams through it: give this node another slot_name.");
	if (remote_failed_for(&reply, "verify_failed"))
		fail(job, &reply, ERRCODE_DATA_CORRUPTED, "the copy does not verify",
			 job->plan.in_place ?
			 "Look for disk errors on the node, then call follow_primary() again." :
			 "The node's data is as it was before the copy. Look for disk errors on the node, then call follow_primary() again.");
	if (!reply.ok)
		fail_commonly(job, &reply, "the copy failed");
	if (remote_number(&reply, "bytes", &bytes))
		job_progress(job, bytes, bytes);
	job_detail(job, INT64_FORMAT " MB, %s", job->bytes_done >> 20,
			   remote_says(&reply, "verified", "yes") ? "verified" : "not verified");
	return STEP_DONE;
}

StepResult
node_clear(Job *job)
{
	RemoteLimits limits = {.progress_timeout_ms = job->request->settings->progress_timeout * 1000};
	RemoteReply reply;
	RoomFacts	room;

	/* What was saved takes room, too; and some may have been made meanwhile. */
	folders_look_for_room(job, &room);
	if (room.missing == 0)
	{
		survey(job);
		job_detail(job, "there is room now");
		return STEP_NEEDS_PLAN;
	}
	if (room.missing_without_old > 0)
		ereport(ERROR,
				(errcode(ERRCODE_DISK_FULL),
				 errmsg("there is no room for a copy on node %s, not even in place of the old data",
						node_name(job)),
				 errdetail("Of the room %s", room.where),
				 errhint("Make room on the node, then call follow_primary() again. The old data is untouched.")));

	job_notice(job, "the old data of node %s is removed now, before its replacement is proven, for there is no room for both",
			   node_name(job));
	remote_run(job->ssh, &remote_clear,
			   WITH_FOLDERS(job, job->node.pgdata,
							psprintf(INT64_FORMAT, job->id),
							NUMBER(job->primary.version_num)),
			   &limits, &reply);
	if (remote_failed_for(&reply, "tablespace_in_use"))
		fail_for_tablespace(job, &reply);
	if (!reply.ok)
		fail_commonly(job, &reply, "the old data could not be removed");
	job->undo = NULL;
	job_detail(job, "the old data is removed, its replacement not proven yet");
	return STEP_DONE;
}

StepResult
node_swap(Job *job)
{
	RemoteLimits limits = {.timeout_ms = FILES_TIMEOUT_MS};
	RemoteReply reply;

	if (job->plan.finish && job->node.mark != MARK_HALF_SWAPPED)
	{
		job_detail(job, "the data is in place");
		return STEP_DONE;
	}
	remote_run(job->ssh, &remote_swap, WITH_FOLDERS(job, job->node.pgdata),
			   &limits, &reply);
	if (!reply.ok)
		fail_commonly(job, &reply, "the copy could not be brought into place");
	job->undo = NULL;			/* it is not what it was */
	return STEP_DONE;
}

static void
check_configured(Job *job, const RemoteReply *reply)
{
	if (remote_failed_for(reply, "overridden"))
		fail(job, reply, ERRCODE_CONFIG_FILE_ERROR, "other settings win over those of a standby",
			 "Remove the named settings from the node's configuration or its start command, then call follow_primary() again.");
	if (!reply->ok)
		fail(job, reply, ERRCODE_CONFIG_FILE_ERROR, "the settings of a standby could not be written",
			 psprintf("%s Then call follow_primary() again. If its configuration is another one, set config_file in the node's row of follow_primary_node.",
					  include_hint(job)));
	job_detail(job, "%s", job_recovery_file(job));
}

pg_noreturn static void
fail_repoint(Job *job, const RemoteReply *reply)
{
	fail(job, reply, ERRCODE_CONFIG_FILE_ERROR, "the standby's settings could not be changed",
		 psprintf("Remove the cause, then call follow_primary() again. If it is that a file cannot be written: %s", include_hint(job)));
}

static void
run_repoint(Job *job, const char *const *arguments)
{
	RemoteLimits limits = {.timeout_ms = FILES_TIMEOUT_MS};
	RemoteReply reply;

	remote_run(job->ssh, &remote_repoint, arguments, &limits, &reply);
	if (!reply.ok)
		fail_repoint(job, &reply);
}

StepResult
node_configure(Job *job)
{
	RemoteLimits limits = {.timeout_ms = FILES_TIMEOUT_MS};
	RemoteReply reply;
	char	   *content = job_recovery_conf(job);

	if (job->plan.method == METHOD_REWIND || job->plan.method == METHOD_BASEBACKUP)
	{
		remote_run(job->ssh, &remote_restore_config, ARGUMENTS(job->node.pgdata),
				   &limits, &reply);
		if (remote_failed_for(&reply, "not_saved") &&
			(job->node.pgdata_state != PGDATA_OK || job->plan.finish))
			content = psprintf("%s%s", content, job_identity_conf(job));
		else if (!reply.ok)
			fail_commonly(job, &reply, "the configuration could not be put back");
	}
	if (job->plan.method == METHOD_REPOINT)
	{
		run_repoint(job, ARGUMENTS("save", job->node.pgdata, job->request->settings->node_bin_dir,
								   job->config_file, job_recovery_file(job)));
		job->undo = node_undo_restart;
	}
	remote_run(job->ssh, &remote_configure, CONFIGURE_ARGUMENTS(job, content, "no"),
			   &limits, &reply);
	check_configured(job, &reply);
	return STEP_DONE;
}

StepResult
node_repoint(Job *job)
{
	const Settings *settings = job->request->settings;
	RemoteCall	calls[] = {
		{&remote_repoint, ARGUMENTS("save", job->node.pgdata, settings->node_bin_dir,
									job->config_file, job_recovery_file(job))},
		{&remote_configure, CONFIGURE_ARGUMENTS(job, job_recovery_conf(job), "yes")},
		{&remote_repoint, ARGUMENTS("reload", job->node.pgdata, settings->node_bin_dir,
									expand_command(job, settings->node_reload_command))}
	};
	RemoteLimits limits = {.timeout_ms = 3 * FILES_TIMEOUT_MS};
	RemoteReply reply;

	/* Puts back what was saved, and is content when nothing was. */
	job->undo = node_undo_repoint;
	remote_run_in_turn(job->ssh, calls, lengthof(calls), &limits, &reply);
	if (remote_failed_for(&reply, "promoted"))
		return look_again(job, "the node has been promoted meanwhile");
	if (remote_failed_for(&reply, "save_failed") || remote_failed_for(&reply, "reload_failed"))
		fail_repoint(job, &reply);
	check_configured(job, &reply);
	return STEP_DONE;
}

void
node_undo_restart(Job *job)
{
	(void) node_stop(job);
	run_repoint(job, ARGUMENTS("restore", job->node.pgdata, job->request->settings->node_bin_dir));
	start(job);
}

void
node_undo_repoint(Job *job)
{
	const Settings *settings = job->request->settings;

	run_repoint(job, ARGUMENTS("undo", job->node.pgdata, settings->node_bin_dir,
							   expand_command(job, settings->node_reload_command)));
}

/* How people remove the replaced data that is kept: paths, one a line. */
static const char *
removal_hint(const Job *job, const char *kept)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfo(&buf, "The replaced data is kept. When nobody needs it any more, on node %s: rm -r",
					 node_name(job));
	while (*kept)
	{
		size_t		len = strcspn(kept, "\n");

		appendStringInfoChar(&buf, ' ');
		remote_quote(&buf, pnstrdup(kept, len));
		kept += len + strspn(kept + len, "\n");
	}
	return buf.data;
}

#define NOT_CLEANED	"it follows, but what the job left beside its data could not be removed,"

void
node_remove_mark(Job *job)
{
	RemoteReply reply;

	clean(job, "mark", NOT_CLEANED, &reply);
}

StepResult
node_clean(Job *job)
{
	RemoteReply reply;
	const char *kept;

	clean(job, job->request->settings->keep_old_data == KEEP_ALWAYS ? "always" : "until_proven",
		  NOT_CLEANED, &reply);
	kept = remote_get(&reply, "kept");
	if (kept && kept[0])
	{
		job_detail(job, "the replaced data is kept in %s%s", kept,
				   job->node.foreign_mark ? "\nsince another primary's job began with it, which may not have saved all WAL that is lost by this one" : "");
		job_record_hint(job, removal_hint(job, kept));
	}
	return STEP_DONE;
}
