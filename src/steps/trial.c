/*
 * trial.c
 *		What a method will need is tried before its first stop.
 *
 * A rewind that dies half-way costs a copy, and a server that does not come up
 * again costs the standby.  What would end them is there before: a file that may
 * not be read here or written there, settings that no server starts with, a
 * login that is refused.
 */
#include "postgres.h"

#include <sys/stat.h>

#include "miscadmin.h"

#include "compat.h"
#include "folders.h"
#include "login.h"
#include "readable.h"
#include "record.h"
#include "recovery_conf.h"
#include "sql.h"
#include "steps/config.h"
#include "steps/primary.h"
#include "steps/rewind.h"
#include "steps/trial.h"
#include "survey.h"

#define NOTHING_CHANGED	"Nothing was changed."

/* Can this server's files be read to their end? */
static void
check_own_files(const Job *job)
{
	bool		for_rewind = job->plan.method == METHOD_REWIND;
	Obstacle   *found = readable_obstacle(for_rewind);
	char	   *path;

	if (found == NULL)
		return;
	path = step_quoted(found->path);
	if (found->kind == OBSTACLE_UNREADABLE)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("a %s of node %s needs all files of this server, which may not read one of them",
						for_rewind ? "rewind" : "copy", node_name(job)),
				 errdetail("%s: %s. " NOTHING_CHANGED, found->path, found->cause),
				 errhint("Run on this server, as root: chown -R --reference=%s %s && chmod -R u+rwX %s; or move it out of the data directory. Then call follow_primary() again.",
						 DataDir, path, path)));
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("pg_rewind cannot rewind node %s: it would fail at what is no file in the data directory of this server", node_name(job)),
			 errdetail("%s: %s. " NOTHING_CHANGED, found->path, found->cause),
			 errhint("On this server, remove or move it: rm %s. If it is the server's own socket, change unix_socket_directories. Then call follow_primary() again; or with method => 'basebackup', which leaves it out.",
					 path)));
}

/* pg_rewind removes the folders that this server lacks, and cannot remove a mount point. */
static void
check_mounts(const Job *job, const RemoteReply *reply)
{
	const char *mounts = remote_get(reply, "mounts");
	struct stat st;

	while (mounts && *mounts)
	{
		size_t		len = strcspn(mounts, "\n");
		char	   *folder = psprintf("%s/%s", DataDir, pnstrdup(mounts, len));

		if (stat(folder, &st) != 0 && errno == ENOENT)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("pg_rewind cannot rewind node %s: it would have to remove a mount point", node_name(job)),
					 errdetail("%s/%s is mounted there, and this server has no such folder. " NOTHING_CHANGED,
							   job->node.pgdata, pnstrdup(mounts, len)),
					 errhint("Unmount it on the node, or run on this server: mkdir -m 0700 %s. Then call follow_primary() again.", step_quoted(folder))));
		mounts += len + strspn(mounts + len, "\n");
	}
}

pg_noreturn static void
fail_in_the_way(const Job *job, const RemoteReply *reply)
{
	const char *account = step_text(reply, "account");
	bool		ours = strcmp(account, step_text(reply, "owner")) == 0;
	char	   *path = step_quoted(step_text(reply, "path"));
	char	   *command;

	if (remote_says(reply, "kind", "name"))
		step_fail(job, reply, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
				  "the data directory has a file with a line break in its name, which could not be kept",
				  psprintf("On the node %s, rename it, or move it out of the data directory. Then call follow_primary() again. " NOTHING_CHANGED,
						   node_name(job)));
	if (remote_says(reply, "kind", "unreadable"))
		step_fail(job, reply, ERRCODE_INSUFFICIENT_PRIVILEGE,
				  "one of its own files in the data directory cannot be read, so it could not be kept",
				  psprintf("On the node %s, %s %s; or move it out of the data directory. Then call follow_primary() again. " NOTHING_CHANGED,
						   node_name(job), ours ? "run: chmod u+r" : psprintf("run as root: chown %s %s && chmod u+r", account, path), path));
	if (remote_says(reply, "kind", "folder"))
		command = ours ? psprintf("run: chmod u+rwx %s", path) :
			psprintf("run as root: chown -R %s %s && chmod -R u+rwX %s", account, path, path);
	else if (remote_says(reply, "kind", "readonly"))
		command = psprintf("where the file system is mounted for reading only, run as root: mount -o remount,rw %s; or unmount it",
						   step_quoted(step_text(reply, "mount")));
	else if (remote_says(reply, "kind", "mount"))
		command = psprintf("run as root: umount %s", path);
	else
		command = psprintf("run as root: chattr -i -a %s", path);
	step_fail(job, reply, ERRCODE_INSUFFICIENT_PRIVILEGE,
			  "the data directory has what can be neither replaced nor removed",
			  psprintf("On the node %s, %s; or move it out of the data directory. Then call follow_primary() again. " NOTHING_CHANGED,
					   node_name(job), command));
}

/* Runs try.sh, and raises what it has found, but for reasons that only copies and rewinds have. */
static void
look_at_node(Job *job, const char *method, const char *outcome, RemoteReply *reply)
{
	const Settings *settings = job->request->settings;
	RemoteLimits limits = {.progress_timeout_ms = settings->progress_timeout * 1000};
	bool		untouched = job->node.mark == MARK_NONE || job->node.mark == MARK_BEFORE_CHANGE;

	remote_run(job->ssh, &remote_try,
			   JOB_NAMED(job,
						 {"method", method},
						 {"untouched", untouched ? "yes" : "no"},
						 {"config", job->config_file},
						 {"db_user", settings->rewind_user},
						 {"db_name", sql_scalar("SELECT current_database()", 0, NULL)},
						 {"asked_db", settings->rewind_database},
						 {"expired", login_password_expired(settings->rewind_user) ? "yes" : "no"},
						 {"passfile", settings->passfile},
						 {"port", NUMBER(job->request->node_port)},
						 {"needed", survey_needed_settings()},
						 {"own", config_named_by_job(job)},
						 {"start_command", step_expand_command(job, settings->node_start_command)}),
			   job->plan.method == METHOD_REWIND ? mapped_tablespaces(NULL, TABLESPACE_OID) : NULL,
			   &limits, reply);
	if (remote_failed_for(reply, "frozen"))
		step_fail(job, reply, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, "PostgreSQL does nothing that it is told",
				  psprintf("On the node %s, run: kill -CONT %s. Then call follow_primary() again. %s",
						   node_name(job), step_text(reply, "process"), outcome));
	if (remote_failed_for(reply, "no_program"))
		step_fail(job, reply, ERRCODE_UNDEFINED_FILE, "a program of PostgreSQL is missing",
				  psprintf("Install PostgreSQL's server and client programs there; or set follow_primary.node_bin_dir, or node_bin_dir in the node's row. %s", outcome));
	if (remote_failed_for(reply, "settings_broken"))
		step_fail(job, reply, ERRCODE_CONFIG_FILE_ERROR, "PostgreSQL does not take its configuration as it is now",
				  psprintf("Correct it on the node %s, " THEN_CALL_AGAIN " %s", node_name(job), outcome));
	if (remote_failed_for(reply, "login_refused"))
		step_fail(job, reply, login_sqlstate(reply->messages), "PostgreSQL refuses the login that the proof needs",
				  psprintf("%s %s", login_hint(job, LOGIN_TO_NODE, settings->rewind_user, step_text(reply, "database"), NULL, reply->messages),
						   outcome));
}

StepResult
trial_run(Job *job)
{
	RemoteReply reply;

	if (job->plan.method == METHOD_REPOINT)
	{
		look_at_node(job, "restart", NOTHING_CHANGED, &reply);
		return STEP_DONE;
	}
	check_own_files(job);
	look_at_node(job, job->plan.method == METHOD_REWIND ? "rewind" : "copy", NOTHING_CHANGED, &reply);
	if (remote_failed_for(&reply, "in_the_way"))
		fail_in_the_way(job, &reply);
	if (remote_failed_for(&reply, "tablespace_in_use"))
		step_fail_for_tablespace(job, &reply);
	if (remote_failed_for(&reply, "needs_copy"))
		return rewind_impossible(job, &reply);
	if (!reply.ok)
		step_fail_commonly(job, &reply, "what the method needs is not there");
	if (job->plan.method == METHOD_REWIND)
		check_mounts(job, &reply);
	return STEP_DONE;
}

void
trial_after_repoint(Job *job)
{
	RemoteReply reply;

	look_at_node(job, "restart", "The node's former settings are put back.", &reply);
}
