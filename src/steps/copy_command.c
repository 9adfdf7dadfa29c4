/*
 * copy_command.c
 *		The node gets a copy from elsewhere, by a command of the DBA's.
 *
 * What pg_basebackup copies is this server by all that it does.  What a command
 * leaves may be of any server and any time: it is taken only when it has proven to
 * be a backup of this server's history, whole as far as this server can tell, from
 * which the node can go on by WAL that is there.  Whatever becomes of it, the node's
 * data is where it was.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "common/relpath.h"

#include "compat.h"
#include "folders.h"
#include "record.h"
#include "recovery_conf.h"
#include "sql.h"
#include "steps/copy_command.h"
#include "wal.h"

/*
 * Checkpoints write down the next OID with those that are logged beforehand
 * (VAR_OID_PREFETCH in PostgreSQL's varsup.c): so much lower ones are older.
 */
#define OIDS_LOGGED_BEFORE	8192

/* What copy_command.sh tells of the copy. */
typedef struct Backup
{
	const char *path;			/* of the copy */
	TimeLineID	timeline;		/* on which it began */
	XLogRecPtr	start;			/* the WAL is needed from there on */
	XLogRecPtr	end;			/* InvalidXLogRecPtr = not known */
	XLogRecPtr	wal_end;		/* up to there the WAL came with it */
	History		history;		/* of the timeline */
	bool		history_known;
	int64		next_oid;
	const char *restore_command;	/* that the command has set; NULL = none */
} Backup;

/* What of the command only the node knows, its script puts into variables. */
static char *
expanded_command(const Job *job)
{
	const CommandValue values[] = {
		{'D', "\"$FOLLOW_PRIMARY_DATA\""},
		{'m', "\"$FOLLOW_PRIMARY_MAP\""},
		{'O', "\"$FOLLOW_PRIMARY_OLD\""},
		{'h', step_quoted(job->request->node_host)},
		{'p', NUMBER(job->request->node_port)},
		{'H', step_quoted(job->primary_host)},
		{'P', NUMBER(job->request->primary_port)},
		{'j', NUMBER(job->id)},
		{'%', "%"},
		{0}
	};

	return step_expand(job->request->settings->copy_command, values);
}

static char *
data_is_untouched(const Job *job, const char *hint)
{
	return psprintf("%s %s", hint, job->plan.in_place ?
					"The node's old data was removed before, to make room." :
					"The node's data is as it was before the copy.");
}

/* What the command left is of no use: removes it, and raises. */
pg_noreturn static void
refuse_backup(Job *job, int sqlstate, const char *what, char *detail, const char *hint)
{
	RemoteLimits limits = {.progress_timeout_ms = job->request->settings->progress_timeout * 1000};
	RemoteReply reply;

	remote_run(job->ssh, &remote_take_copy,
			   JOB_NAMED(job,
						 {"good", "no"},
						 {"version", NUMBER(job->primary.version_num)},
						 {"waldir", job->waldir}),
			   mapped_tablespaces(job, TABLESPACE_OID), &limits, &reply);
	ereport(ERROR,
			(errcode(sqlstate),
			 errmsg("what copy_command left on node %s %s", node_name(job), what),
			 errdetail("%s.", detail),
			 errhint("%s", data_is_untouched(job, hint))));
}

pg_noreturn static void
fail_for_command(Job *job, RemoteReply *reply)
{
	static const struct
	{
		const char *reason;
		int			sqlstate;
		const char *what;
		const char *hint;
	}			reasons[] = {
		{"command_failed", ERRCODE_EXTERNAL_ROUTINE_EXCEPTION, "copy_command failed",
		"Remove the cause, " THEN_CALL_AGAIN},
		{"changed_outside", ERRCODE_EXTERNAL_ROUTINE_EXCEPTION, "copy_command changed the node's own data",
		"Let it write to %D alone, and to the directories that the file %m names. Look at the node's data before anything is started there."},
		{"incomplete", ERRCODE_DATA_CORRUPTED, "what copy_command left is not whole",
		"See that it ends with an exit code other than 0 when it fails, and what it says. Then call follow_primary() again."},
		{"other_version", ERRCODE_FEATURE_NOT_SUPPORTED, "what copy_command left is of another version of PostgreSQL",
		"Let it restore a backup of this server, " THEN_CALL_AGAIN},
		{"other_cluster", ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, "what copy_command left belongs to another cluster",
		"Let it restore a backup of this server, " THEN_CALL_AGAIN},
		{"leads_out", ERRCODE_EXTERNAL_ROUTINE_EXCEPTION, "what copy_command left leads out of its directory",
		"Let it write files instead of links, and the tablespaces to the directories that the file %m names. Then call follow_primary() again."}
	};

	if (remote_failed_for(reply, "tablespace_in_use"))
		step_fail_for_tablespace(job, reply);
	for (int i = 0; i < lengthof(reasons); i++)
		if (remote_failed_for(reply, reasons[i].reason))
			step_fail(job, reply, reasons[i].sqlstate, reasons[i].what,
					  remote_failed_for(reply, "changed_outside") ? reasons[i].hint :
					  data_is_untouched(job, reasons[i].hint));
	step_fail_commonly(job, reply, "the copy failed");
}

/* Reads what the script says of the copy. False if it does not say all that it is to say. */
static bool
read_backup(const RemoteReply *reply, Backup *backup)
{
	const char *history = remote_get(reply, "history");
	int64		timeline;
	int64		segments;

	memset(backup, 0, sizeof(*backup));
	backup->path = remote_get(reply, "path");
	if (backup->path == NULL || backup->path[0] != '/' ||
		!remote_number(reply, "timeline", &timeline) || timeline < 1 || timeline > PG_UINT32_MAX ||
		!remote_number(reply, "segments", &segments) ||
		!remote_number(reply, "next_oid", &backup->next_oid) ||
		!lsn_parse(remote_get(reply, "start"), &backup->start))
		return false;
	backup->timeline = (TimeLineID) timeline;
	(void) lsn_parse(remote_get(reply, "end"), &backup->end);
	backup->history_known = history && history[0] &&
		history_parse(history, backup->timeline, &backup->history);
	backup->wal_end = backup->start;
	if (segments > 0)
		backup->wal_end = backup->start - backup->start % wal_segment_size + segments * wal_segment_size;
	/* What follows its end may be a segment that was made for future use. */
	if (backup->end != InvalidXLogRecPtr)
		backup->wal_end = Min(backup->wal_end, Max(backup->start, backup->end));
	backup->restore_command = remote_get(reply, "restore_command");
	if (backup->restore_command && backup->restore_command[0] == '\0')
		backup->restore_command = NULL;
	return true;
}

/* Is the backup of this server's history up to its end? Else it is refused. */
static void
check_history(Job *job, const Backup *backup)
{
	static const char *const hint = "Let copy_command restore a backup that was taken on this server since its promotion, or one that had ended before.";
	const History *ours = &job->primary.history;
	const Stretch *stretch = history_find(ours, backup->timeline);
	TimeLineID	timeline = backup->timeline;
	XLogRecPtr	fork = 0;

	if (stretch == NULL ||
		(backup->history_known &&
		 (!history_common(&backup->history, ours, &timeline, &fork) || timeline != backup->timeline)))
		refuse_backup(job, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, "is of another history",
					  psprintf("It is a backup of timeline %u, which %s", backup->timeline,
							   stretch == NULL ? "is none of this server's" :
							   psprintf("parts from this server's history at %s", lsn_text(fork))), hint);
	if (stretch->end == InvalidXLogRecPtr)
	{
		if (!lsn_parse(sql_scalar("SELECT pg_current_wal_flush_lsn()", 0, NULL), &job->primary.flush_lsn) ||
			Max(backup->start, backup->end) > job->primary.flush_lsn)
			refuse_backup(job, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, "is of another history",
						  psprintf("It is a backup up to %s on timeline %u, where this server has WAL up to %s",
								   lsn_text(Max(backup->start, backup->end)), backup->timeline,
								   lsn_text(job->primary.flush_lsn)), hint);
		return;
	}
	if (Max(backup->start, backup->end) > stretch->end)
		refuse_backup(job, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, "is of another history",
					  psprintf("It is a backup from %s to %s on timeline %u, which this server left at %s",
							   lsn_text(backup->start),
							   backup->end == InvalidXLogRecPtr ? "a point that is not known" : lsn_text(backup->end),
							   backup->timeline, lsn_text(stretch->end)), hint);
	if (backup->end == InvalidXLogRecPtr)
		refuse_backup(job, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, "may be of another history",
					  psprintf("It is a backup from %s on timeline %u, which this server left at %s; where it ended is told neither by a manifest nor by its history file, which no restore_command serves",
							   lsn_text(backup->start), backup->timeline, lsn_text(stretch->end)), hint);
}

/* Can the node have the WAL from the end of what came with the copy? Else it is refused. */
static void
check_wal(Job *job, const Backup *backup)
{
	const char *own = job_restore_command(job);

	job->primary.oldest_wal = wal_oldest(job->primary.flush_lsn);
	if (backup->wal_end >= job->primary.oldest_wal ||
		(backup->restore_command &&
		 wal_command_serves(job, backup->restore_command, backup->path, backup->wal_end)) ||
		(backup->restore_command == NULL && own &&
		 wal_command_serves(job, own, backup->path, backup->wal_end)))
		return;
	refuse_backup(job, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, "needs WAL that is gone",
				  psprintf("It needs the WAL from %s on; this server has it from %s on, and %s",
						   lsn_text(backup->wal_end), lsn_text(job->primary.oldest_wal),
						   backup->restore_command ? "the restore_command that copy_command has set does not serve it" :
						   own ? "the node's restore_command does not serve it" :
						   "there is no restore_command"),
				  "Take a newer backup, or set a restore_command that serves that WAL. Then call follow_primary() again.");
}

/*
 * The files of this server's relations that are older than the copy: it must have
 * them.  Databases and relations that are younger have higher numbers, unless these
 * have begun anew since.  Of a relation that is not logged a backup has none but its
 * empty one.
 */
static char *
files_older_than(const Backup *backup)
{
	const char *args[] = {
		NUMBER(backup->next_oid), NUMBER(Max(0, backup->next_oid - OIDS_LOGGED_BEFORE)),
		TABLESPACE_VERSION_DIRECTORY
	};

	return sql_scalar("WITH folder AS ("
					  "SELECT 'global' AS database, 'global' AS dir "
					  "UNION ALL SELECT oid::text, 'base/' || oid FROM pg_database WHERE oid::text::bigint < $2::bigint "
					  "UNION ALL SELECT d.oid::text, format('pg_tblspc/%s/%s/%s', t.oid, $3, d.oid) FROM pg_database d, pg_tablespace t "
					  "WHERE d.oid::text::bigint < $2::bigint AND t.oid::text::bigint < $2::bigint AND pg_tablespace_location(t.oid) <> ''), "
					  "file AS (SELECT database, dir, name FROM folder, pg_ls_dir(dir, true, false) name), "
					  "older AS (SELECT database, dir, name FROM file "
					  "WHERE CASE WHEN name ~ '^[0-9]+$' THEN name::bigint < $2::bigint ELSE false END) "
					  "SELECT string_agg(DISTINCT o.database || '/' || o.name, E'\\n') FROM older o "
					  "LEFT JOIN file i ON i.dir = o.dir AND i.name = o.name || '_init' WHERE i.name IS NULL "
					  "AND (SELECT next_oid::text::bigint FROM pg_control_checkpoint()) >= $1::bigint",
					  lengthof(args), args);
}

/*
 * The command as it is to be in the settings of the node: the directory that the
 * copy was made in has another name then.
 */
static char *
restore_command_to_keep(const Job *job, const Backup *backup)
{
	StringInfoData buf;
	size_t		length = strlen(backup->path);

	initStringInfo(&buf);
	for (const char *c = backup->restore_command; *c;)
	{
		if (strncmp(c, backup->path, length) == 0)
		{
			appendStringInfoString(&buf, job->node.pgdata);
			c += length;
		}
		else
			appendStringInfoChar(&buf, *c++);
	}
	return restore_command_setting(restore_command_guard(buf.data));
}

static void
take_backup(Job *job, const Backup *backup)
{
	RemoteLimits limits = {.progress_timeout_ms = job->request->settings->progress_timeout * 1000};
	RemoteReply reply;
	const char *own = job->node.restore_command;
	int64		bytes;

	remote_run(job->ssh, &remote_take_copy,
			   JOB_NAMED(job,
						 {"version", NUMBER(job->primary.version_num)},
						 {"waldir", job->waldir},
						 {"files", files_older_than(backup)},
						 {"restore_command", backup->restore_command ? restore_command_to_keep(job, backup) : ""},
						 {"own_restore_command", own && own[0] ? restore_command_setting(own) : ""}),
			   mapped_tablespaces(job, TABLESPACE_OID), &limits, &reply);
	if (!reply.ok)
		fail_for_command(job, &reply);
	job->restore_copied = backup->restore_command != NULL;
	if (remote_number(&reply, "bytes", &bytes))
		job_progress(job, bytes, bytes);
}

void
copy_by_command(Job *job)
{
	RemoteLimits limits = {
		.progress_timeout_ms = job->request->settings->progress_timeout * 1000,
		.on_stderr_line = step_tool_progress,
		.arg = job
	};
	RemoteReply reply;
	Backup		backup;

	remote_run(job->ssh, &remote_copy_command,
			   JOB_NAMED(job,
						 {"command", expanded_command(job)},
						 {"passfile", job->request->settings->passfile},
						 {"version", NUMBER(job->primary.version_num)},
						 {"system_id", psprintf(UINT64_FORMAT, job->primary.system_id)},
						 {"total", sql_scalar("SELECT sum(pg_tablespace_size(oid))::bigint / 1024 FROM pg_tablespace", 0, NULL)},
						 {"restore_command", job_restore_command(job)},
						 {"waldir", job->waldir}),
			   mapped_tablespaces(job, TABLESPACE_OID), &limits, &reply);
	if (!reply.ok)
		fail_for_command(job, &reply);
	if (!read_backup(&reply, &backup))
		step_fail_answer(job, &reply, "what copy_command left");
	check_history(job, &backup);
	check_wal(job, &backup);
	take_backup(job, &backup);
	job_detail(job, INT64_FORMAT " MB by copy_command, a backup of timeline %u from %s on",
			   job->bytes_done >> 20, backup.timeline, lsn_text(backup.start));
}
