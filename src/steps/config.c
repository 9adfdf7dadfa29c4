/*
 * config.c
 *		The node's configuration: it is saved, put back, and made that of a standby
 *		of this server.
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "compat.h"
#include "record.h"
#include "recovery_conf.h"
#include "sql.h"
#include "steps/config.h"
#include "steps/node.h"
#include "wal.h"

/*
 * What the node may take from its archive before it is proven to follow.  A
 * running one that has no restore_command needs none of it.
 */
static char *
archived_names(const Job *job)
{
	if (job->node.state != NODE_DOWN && job_restore_command(job) == NULL && !job->restore_copied)
		return "";
	return wal_archived_names(&job->primary.history, wal_oldest(job->primary.flush_lsn));
}

/*
 * The arguments of configure.sh, which writes the settings file, the include
 * line and standby.signal.  A stopped server's effective values are read back;
 * a running one proves them itself.
 */
#define CONFIGURE_NAMED(job, settings_text, runs, ...) \
	JOB_NAMED(job, \
			  {"config", (job)->config_file}, \
			  {"recovery_file", job_recovery_file(job)}, \
			  {"version", NUMBER((job)->primary.version_num)}, \
			  {"content", settings_text}, \
			  {"live", runs}, \
			  {"expect_conninfo", job_primary_conninfo(job)}, \
			  {"expect_slot", (job)->request->slot_name}, \
			  {"restore_command", job_restore_command(job)}, \
			  {"served", archived_names(job)}, ##__VA_ARGS__)

/* The arguments of repoint.sh, which keeps what configure.sh will change. */
#define REPOINT_NAMED(job, what) \
	JOB_NAMED(job, \
			  {"action", what}, \
			  {"config", (job)->config_file}, \
			  {"recovery_file", job_recovery_file(job)}, \
			  {"keep_slots", (job)->keep_slots}, \
			  {"command", step_expand_command(job, (job)->request->settings->node_reload_command)})

/* What the SSH user needs to be able to do with postgresql.conf. */
static char *
include_hint(const Job *job)
{
	return psprintf("Let the SSH user write the file, or end it in this line, and have it nowhere else: include_if_exists = '%s'.",
					job_recovery_file(job));
}

pg_noreturn static void
fail_not_writable(const Job *job, const RemoteReply *reply)
{
	step_fail(job, reply, ERRCODE_CONFIG_FILE_ERROR, "the settings of a standby could not be written",
			  psprintf("%s Nothing was changed.", include_hint(job)));
}

void
config_try_write(Job *job, const RemoteLimits *limits)
{
	RemoteReply reply;

	remote_run(job->ssh, &remote_check_config, CONFIGURE_NAMED(job, "", ""), NULL, limits, &reply);
	if (remote_failed_for(&reply, "config_not_writable"))
		fail_not_writable(job, &reply);
	if (!reply.ok)
		step_fail_commonly(job, &reply, "the configuration cannot be read");
}

void
config_fail_rewind_functions(const Job *job, const char *missing)
{
	const Settings *settings = job->request->settings;

	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("role \"%s\" may not run what pg_rewind needs", settings->rewind_user),
			 errdetail("It lacks EXECUTE on %s. Nothing was changed.", missing),
			 errhint("Run in database \"%s\" of this server: GRANT EXECUTE ON FUNCTION %s TO %s",
					 settings->rewind_database, missing, quote_identifier(settings->rewind_user))));
}

/*
 * pg_rewind's connection runs these four functions (its documentation,
 * "Notes").  Each database has its own privileges: this server can look at them
 * before the node is stopped where pg_rewind connects to this database.
 */
void
config_check_rewind_functions(const Job *job)
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
		config_fail_rewind_functions(job, missing);
}

char *
config_named_by_job(const Job *job)
{
	const Settings *settings = job->request->settings;
	const char *restore_command = job_restore_command(job);
	const char *const named[] = {
		job_primary_conninfo(job),
		settings->replication_options,
		settings->passfile,
		settings->archive_dir,
		restore_command ? restore_command : "",
		step_expand_command(job, settings->node_start_command),
		step_expand_command(job, settings->node_stop_command),
		step_expand_command(job, settings->node_reload_command),
		settings->copy_command,
		job_recovery_file(job)
	};
	StringInfoData lines;

	initStringInfo(&lines);
	for (int i = 0; i < lengthof(named); i++)
		appendStringInfo(&lines, "%s\n", named[i]);
	return lines.data;
}

StepResult
config_save(Job *job)
{
	RemoteLimits limits = {.timeout_ms = FILES_TIMEOUT_MS};
	RemoteReply reply;

	if (job->node.pgdata_state != PGDATA_OK)
	{
		job_detail(job, "there is none");
		return STEP_DONE;
	}
	remote_run(job->ssh, &remote_save_config,
			   JOB_NAMED(job, {"config", job->config_file}, {"keep_slots", job->keep_slots},
						 {"own", config_named_by_job(job)}),
			   NULL, &limits, &reply);
	if (!reply.ok)
		step_fail_commonly(job, &reply, "the node's own files could not be saved");
	job_detail(job, "%s files, and %s folders to keep", step_text(&reply, "saved"),
			   step_text(&reply, "folders"));
	return STEP_DONE;
}

void
config_lend(Job *job)
{
	RemoteLimits limits = {.progress_timeout_ms = job->request->settings->progress_timeout * 1000};
	RemoteReply reply;

	if ((job->node.mark != MARK_HALF_CHANGED && job->node.mark != MARK_CLEARED) || job->node.mark_stale)
		return;
	remote_run(job->ssh, &remote_restore_config, JOB_NAMED(job, {"final", "no"}), NULL, &limits, &reply);
	if (!reply.ok && !remote_failed_for(&reply, "not_saved"))
		step_fail_commonly(job, &reply, "the node's own files could not be put back");
}

static void
check_configured(Job *job, const RemoteReply *reply)
{
	if (remote_failed_for(reply, "overridden"))
		step_fail(job, reply, ERRCODE_CONFIG_FILE_ERROR, "other settings win over those of a standby",
				  "Remove the named settings from the node's configuration or its start command, " THEN_CALL_AGAIN);
	if (!reply->ok)
		step_fail(job, reply, ERRCODE_CONFIG_FILE_ERROR, "the settings of a standby could not be written",
				  psprintf("%s Then call follow_primary() again. If its configuration is another one, set config_file in the node's row of follow_primary_node.",
						   include_hint(job)));
	job->gated = remote_says(reply, "gated", "yes");
	job_detail(job, "%s", job_recovery_file(job));
}

pg_noreturn static void
fail_repoint(Job *job, const RemoteReply *reply)
{
	step_fail(job, reply, ERRCODE_CONFIG_FILE_ERROR, "the standby's settings could not be changed",
			  psprintf("Remove the cause, then call follow_primary() again. If it is that a file cannot be written: %s", include_hint(job)));
}

static void
run_repoint(Job *job, const char *action)
{
	RemoteLimits limits = {.timeout_ms = FILES_TIMEOUT_MS};
	RemoteReply reply;

	remote_run(job->ssh, &remote_repoint, REPOINT_NAMED(job, action), NULL, &limits, &reply);
	if (!reply.ok)
		fail_repoint(job, &reply);
}

static void
tell_put_back(Job *job)
{
	job->undone = job->silent_primary ?
		psprintf("The former settings are put back. They lead to %s, which does not answer the node.",
				 job->silent_primary) :
		"The former settings are put back.";
}

/*
 * Puts the settings back that are read at a start.  Whether the server runs depends
 * on how far the job has come; from 13 on a reload takes back what matters, so that
 * none is stopped for that.
 */
static void
undo_restart(Job *job)
{
	const char *put_back;

	if (job->primary.version_num >= 130000)
		run_repoint(job, "undo");
	else
	{
		(void) node_stop(job);
		run_repoint(job, "restore");
	}
	tell_put_back(job);
	put_back = job->undone;
	node_undo_stop(job);
	job->undone = psprintf("%s %s", put_back, job->undone);
}

/* Puts the settings back that a repoint replaced, and reloads. */
static void
undo_repoint(Job *job)
{
	run_repoint(job, "undo");
	tell_put_back(job);
}

void
config_forget(Job *job)
{
	run_repoint(job, "forget");
}

StepResult
config_write(Job *job)
{
	RemoteLimits limits = {.timeout_ms = FILES_TIMEOUT_MS};
	RemoteReply reply;
	char	   *content = job_recovery_conf(job);

	if (job->plan.method == METHOD_REWIND || job->plan.method == METHOD_BASEBACKUP)
	{
		remote_run(job->ssh, &remote_restore_config, JOB_NAMED(job), NULL, &limits, &reply);
		if (remote_failed_for(&reply, "not_saved") &&
			(job->node.pgdata_state != PGDATA_OK || job->plan.finish))
			content = psprintf("%s%s", content, job_identity_conf(job));
		else if (!reply.ok)
			step_fail_commonly(job, &reply, "the node's own files could not be put back");
	}
	/* What was down is what starts as a standby, whatever comes. */
	if (job->plan.method == METHOD_REPOINT && !job->plan.rejoin)
	{
		run_repoint(job, "save");
		job->undo = undo_restart;
	}
	remote_run(job->ssh, &remote_configure, CONFIGURE_NAMED(job, content, "no"),
			   NULL, &limits, &reply);
	check_configured(job, &reply);
	if (job->undo == undo_restart)
		run_repoint(job, "note");
	if (job->plan.rejoin)
		run_repoint(job, "demote");
	return STEP_DONE;
}

StepResult
config_settle(Job *job)
{
	RemoteCall	calls[] = {
		{&remote_configure, CONFIGURE_NAMED(job, job_recovery_conf(job), "yes", {"restore_command", ""})},
		{&remote_repoint, REPOINT_NAMED(job, "reload")}
	};
	RemoteLimits limits = {.timeout_ms = 2 * FILES_TIMEOUT_MS};
	RemoteReply reply;

	remote_run_in_turn(job->ssh, calls, lengthof(calls), &limits, &reply);
	if (remote_failed_for(&reply, "reload_failed"))
		step_fail_commonly(job, &reply, "the settings of the standby that streams by now could not be read again");
	check_configured(job, &reply);
	return STEP_DONE;
}

StepResult
config_repoint(Job *job)
{
	RemoteCall	calls[] = {
		{&remote_repoint, REPOINT_NAMED(job, "save")},
		{&remote_configure, CONFIGURE_NAMED(job, job_recovery_conf(job), "yes")},
		{&remote_repoint, REPOINT_NAMED(job, "reload")}
	};
	RemoteLimits limits = {.timeout_ms = 3 * FILES_TIMEOUT_MS};
	RemoteReply reply;

	/* Puts back what was saved, and is content when nothing was. */
	job->undo = undo_repoint;
	remote_run_in_turn(job->ssh, calls, lengthof(calls), &limits, &reply);
	if (remote_failed_for(&reply, "promoted"))
		return step_look_again(job, "the node has been promoted meanwhile");
	if (remote_failed_for(&reply, "save_failed") || remote_failed_for(&reply, "reload_failed"))
		fail_repoint(job, &reply);
	check_configured(job, &reply);
	return STEP_DONE;
}
