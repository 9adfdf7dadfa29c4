/*
 * switchover.c
 *		This standby becomes the primary in place of the one that it follows.
 *
 * What can be found out or done before the stop is: the time without a primary is
 * that of a fast stop and a promotion.  Then the primary is stopped, all its WAL is
 * here, a start there is made to be a standby's, this server is promoted, and every
 * node follows it by a job of its own.
 *
 * At every moment one server is, or will be, the primary.  Up to the commit (see
 * src/remote/switchover.sh) it is the old one, which the watcher on its host or this
 * session starts again.  From the moment that this session has made the file for the
 * watcher, it is this one, whatever becomes of the session: see promoter.c; unless the
 * postmaster ends before this server is promoted.  In between the watcher starts the
 * old one only if this session has ended without having made the file: by an advisory
 * lock that it holds.
 */
#include "postgres.h"

#include <sys/stat.h>
#include <unistd.h>

#include "access/xact.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "catalog/pg_control.h"
#include "miscadmin.h"
#include "postmaster/postmaster.h"
#include "replication/slot.h"
#include "storage/fd.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "check.h"
#include "compat.h"
#include "down.h"
#include "hints.h"
#include "own_row.h"
#include "pcp.h"
#include "promoter.h"
#include "record.h"
#include "recovery_conf.h"
#include "remote.h"
#include "slot_mark.h"
#include "sql.h"
#include "ssh/net.h"
#include "steps/node.h"
#include "steps/step.h"
#include "survey.h"
#include "switchover.h"
#include "timeline.h"

#define POLL_MS				2
#define LOOK_TIMEOUT_MS		30000
#define PCP_ANSWER_MS		1000
#define LOOKUP_MS			1000

/*
 * The name of the file for the watcher; the timeline, the switchover's number, and when
 * the postmaster was started, for as long as which it counts, follow.
 */
#define FILE_PREFIX			"follow_primary_switchover."
#define NEW_FILE			FILE_PREFIX "new"
#define SQL_STARTED			"(extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint"

/* The session gives up so long before the watcher acts. */
#define WATCHER_MARGIN_MS	5000

/* What this standby knows of itself and of its primary. */
typedef struct Switchover
{
	char	   *schema;
	char	   *own_host;		/* this server's, in its row */
	List	   *jobs;			/* of all other nodes */
	ClusterJob *former;			/* the primary's among them */
	Job		   *primary;		/* an SSH session to the primary's host */
	char	   *name;			/* application_name by which this standby streams */
	char	   *slot;			/* that it streams through, or "" */
	TimeLineID	timeline;
	int64		lock;			/* the advisory lock's number */
	char	   *file;			/* for the watcher, relative to the data directory */
	TimestampTz deadline;
	List	   *slots;			/* names of those that were made for it */
	bool		stopped;		/* the primary has been told to stop */
	StringInfoData past;		/* the steps so far, for the former primary's job */
	TimestampTz step_started;
} Switchover;

pg_noreturn static void
refuse(const char *message, const char *detail, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("no switchover: %s", message),
			 errdetail("%s%sThe primary is as it was.", detail ? detail : "", detail ? " " : ""),
			 errhint("%s", hint)));
}

static char *
former_name(const Switchover *s)
{
	return psprintf("%s:%d", s->former->host, s->former->port);
}

static char *
own_name(const Switchover *s)
{
	return psprintf("%s:%d", s->own_host, PostPortNumber);
}

static void
begin_step(Switchover *s)
{
	s->step_started = GetCurrentTimestamp();
}

/* Keeps the step for the record, which can be written after the promotion only. */
static void
end_step(Switchover *s, const char *step, const char *detail)
{
	appendStringInfo(&s->past, "%s\t%s\t", step, timestamptz_to_str(s->step_started));
	appendStringInfo(&s->past, "%s\t%s\n", timestamptz_to_str(GetCurrentTimestamp()), detail);
	ereport(NOTICE, (errmsg("%s%s%s", step, detail[0] ? ": " : "", detail)));
}

/*
 * Connection strings of all nodes but the primary, as its host reaches them: this
 * server's first.
 */
static const char **
other_nodes(const Switchover *s)
{
	const Settings *settings = s->primary->request->settings;
	const char **list = palloc0(sizeof(char *) * (list_length(s->jobs) + 1));
	int			n = 0;
	ListCell   *cell;

	list[n++] = job_tool_conninfo(s->primary, settings->rewind_user, settings->rewind_database);
	foreach(cell, s->jobs)
	{
		const ClusterJob *node = (const ClusterJob *) lfirst(cell);
		Request		request = *s->primary->request;
		Job			job = *s->primary;

		if (node == s->former)
			continue;
		request.primary_port = node->port;
		job.request = &request;
		job.primary_host = node->host;
		list[n++] = job_tool_conninfo(&job, settings->rewind_user, settings->rewind_database);
	}
	return list;
}

/* Runs a part of switchover.sh on the primary's host. */
static void
run_part(const Switchover *s, const char *action, int timeout_ms, RemoteReply *reply)
{
	const Job  *job = s->primary;
	const Settings *settings = job->request->settings;
	RemoteLimits limits = {.timeout_ms = timeout_ms};

	remote_run(job->ssh, &remote_switchover,
			   JOB_NAMED(job,
						 {"action", action},
						 {"db_user", settings->rewind_user},
						 {"db_name", settings->rewind_database},
						 {"passfile", settings->passfile},
						 {"standby", s->name ? s->name : ""},
						 {"slot", s->slot ? s->slot : ""},
						 {"timeout", NUMBER((s->deadline - GetCurrentTimestamp()) / USECS_PER_SEC)},
						 {"candidate", job_tool_conninfo(job, settings->rewind_user, settings->rewind_database)},
						 {"own", own_name(s)},
						 {"lock", psprintf(INT64_FORMAT, s->lock)},
						 {"file", s->file ? s->file : ""},
						 {"config", job->config_file},
						 {"start_command", step_expand_command(job, settings->node_start_command)},
						 {"stop_command", step_expand_command(job, settings->node_stop_command)},
						 {"segment_size", NUMBER(wal_segment_size)}),
			   other_nodes(s), &limits, reply);
}

/* The row of the primary that this standby follows, streaming or not. */
static void
find_primary(Switchover *s)
{
	SqlResult  *row = sql_run("SELECT sender_host, sender_port FROM pg_stat_wal_receiver WHERE status = 'streaming'", 0, NULL);
	char	   *conninfo = sql_scalar("SELECT current_setting('primary_conninfo')", 0, NULL);
	char	   *host = row->nrows > 0 ? sql_value(row, 0, 0) : conninfo_value(conninfo, "host");
	char	   *port = row->nrows > 0 ? sql_value(row, 0, 1) : conninfo_value(conninfo, "port");
	ListCell   *cell;

	if (host == NULL)
		refuse("this standby does not stream from a primary",
			   "It has no WAL receiver, and its primary_conninfo names no host.",
			   "Call it on a standby that streams. If the primary is lost, this is a failover: promote this server, then call follow_primary_all().");
	if (port == NULL)
		port = psprintf("%d", DEF_PGPORT);
	foreach(cell, s->jobs)
	{
		ClusterJob *job = (ClusterJob *) lfirst(cell);

		if (job->port == atoi(port) &&
			net_compare_hosts(job->host, host,
							  TimestampTzPlusMilliseconds(GetCurrentTimestamp(), LOOKUP_MS)) == HOST_SAME)
			s->former = job;
	}
	if (s->former == NULL)
		refuse("the primary has no row in follow_primary_node",
			   psprintf("This standby follows %s:%s.", host, port),
			   psprintf("On the primary: INSERT INTO %s.follow_primary_node (host, port, pgdata) VALUES (...). Its host is the name by which nodes reach it.",
						s->schema));
	if (s->former->request == NULL)
		refuse("the row of the primary in follow_primary_node is not valid", s->former->message,
			   "Correct it on the primary.");
}

/* The WAL receiver must stream; it tells through which slot, and by which name. */
static void
look_at_receiver(Switchover *s)
{
	SqlResult  *row = sql_run("SELECT status, coalesce(slot_name, ''), received_tli, conninfo, "
							  "pg_is_wal_replay_paused(), current_setting('recovery_min_apply_delay', true), "
							  "current_setting('cluster_name') FROM (SELECT) one LEFT JOIN pg_stat_wal_receiver ON true",
							  0, NULL);

	if (sql_value(row, 0, 0) == NULL || strcmp(sql_value(row, 0, 0), "streaming") != 0)
		refuse("this standby does not stream from its primary",
			   sql_value(row, 0, 0) ? psprintf("Its WAL receiver is in state \"%s\".", sql_value(row, 0, 0)) :
			   "It has no WAL receiver.",
			   "See this server's log and primary_conninfo. If the primary is lost, this is a failover: promote this server, then call follow_primary_all().");
	if (strcmp(sql_value(row, 0, 4), "t") == 0)
		refuse("replay is paused on this standby", NULL, "SELECT pg_wal_replay_resume() on this server.");
	if (sql_value(row, 0, 5) && strcmp(sql_value(row, 0, 5), "0") != 0)
		refuse("this standby delays its replay", psprintf("recovery_min_apply_delay is %s.", sql_value(row, 0, 5)),
			   "Call it on another standby, or reset recovery_min_apply_delay on this server.");
	s->slot = sql_value(row, 0, 1);
	s->timeline = (TimeLineID) strtoul(sql_value(row, 0, 2), NULL, 10);
	s->file = psprintf(FILE_PREFIX "%u." INT64_FORMAT ".%s", s->timeline, s->lock,
					   sql_scalar("SELECT " SQL_STARTED, 0, NULL));
	s->name = conninfo_value(sql_value(row, 0, 3), "application_name");
	if (s->name == NULL)
		s->name = sql_value(row, 0, 6)[0] ? sql_value(row, 0, 6) : "walreceiver";
}

/*
 * Where a pgpool may be that knows these servers: it is where pcp_host says, or, if
 * the nodes have numbers of its, where the call comes from, as for a job.
 */
static char *
pcp_host(const Switchover *s)
{
	const Request *request = s->former->request;

	if (request->settings->pcp_host[0])
		return request->settings->pcp_host;
	if (request->node_id < 0)
		return NULL;
	return request->client_host ? request->client_host : "localhost";
}

/*
 * A pgpool in front would fail over by itself: it has a switchover of its own.  Where
 * none answers, the nodes are not attached to it, either.
 */
static void
refuse_for_pgpool(const Switchover *s)
{
	const Settings *settings = s->former->request->settings;
	PcpTarget	target = {
		.host = pcp_host(s), .port = settings->pcp_port, .user = settings->pcp_user,
		.pass_file = settings->pcp_pass_file, .connect_timeout_ms = PCP_ANSWER_MS
	};
	MemoryContext context = CurrentMemoryContext;
	const char *own[] = {s->own_host, psprintf("%d", PostPortNumber)};
	char	   *id;
	ListCell   *cell;
	volatile bool answers = false;

	if (target.host == NULL)
		return;
	PG_TRY();
	{
		(void) pcp_node_count(&target, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), PCP_ANSWER_MS));
		answers = true;
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
			PG_RE_THROW();
		FlushErrorState();
		/* A missing password is found before it is known whether anything listens. */
		answers = error->sqlerrcode == ERRCODE_INVALID_PASSWORD &&
			net_probe(target.host, target.port,
					  TimestampTzPlusMilliseconds(GetCurrentTimestamp(), PCP_ANSWER_MS)) == NET_OK;
		ereport(NOTICE, (errmsg("pgpool at %s:%d: %s", target.host, target.port, error->message)));
	}
	PG_END_TRY();
	if (!answers)
	{
		foreach(cell, s->jobs)
		{
			ClusterJob *job = (ClusterJob *) lfirst(cell);

			if (job->request)
				job->request->attach = false;
		}
		return;
	}
	id = sql_scalar(psprintf("SELECT node_id FROM %s.follow_primary_node WHERE host = $1 AND port = $2::int", s->schema),
					lengthof(own), own);
	refuse("pgpool would fail over by itself when the primary is stopped",
		   psprintf("pgpool answers at %s:%d.", target.host, target.port),
		   psprintf("Let pgpool do it: pcp_promote_node -s -h %s -p %d -U %s -w -n %s. It calls follow_primary() for the other nodes.",
					target.host, target.port, target.user, id ? id : "NODE_ID_OF_THIS_SERVER"));
}

/* An SSH session to the primary's host, and what it says of itself. */
static void
connect_to_primary(Switchover *s)
{
	Job		   *job = palloc0(sizeof(Job));
	RemoteReply reply;

	s->primary = job;
	job->context = CurrentMemoryContext;
	job->request = s->former->request;
	job->primary_host = s->own_host;
	job->primary.version_num = PG_VERSION_NUM;
	job->primary.system_id = GetSystemIdentifier();
	(void) survey_connect(job);
	survey_ask(job, job->request->node_pgdata, LOOK_TIMEOUT_MS, &reply);
	survey_raise_failure(job, &reply);
	survey_read_node(job, &reply);
	down_prove(job, &reply, false);
	if (job->node.not_down)
		refuse(psprintf("the primary %s cannot be asked: %s", former_name(s), job->node.not_down), NULL, job->node.not_down_hint);
	if (job->node.pgdata == NULL || job->node.pgdata_state != PGDATA_OK)
		refuse("the primary's data directory is not known", reply.messages,
			   "Set pgdata in the primary's row of follow_primary_node.");
	if (job->node.system_id != job->primary.system_id)
		refuse("the server that this standby streams from is of another cluster than the one on the primary's host", NULL,
			   "Correct host and port in the primary's row of follow_primary_node.");
}

/* A job drops the logical slots of a former primary: nobody can use them on a standby. */
static void
tell_lost_slots(const char *logical_slots)
{
	char	   *lost = sql_scalar("SELECT string_agg(name, ', ') FROM regexp_split_to_table($1, ' ') name WHERE name <> '' "
								  "AND NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = name AND " SLOT_OUTLIVES_FAILOVER ")",
								  1, &logical_slots);

	if (lost)
		ereport(WARNING,
				(errmsg("logical replication slots of the primary end with this switchover: %s", lost),
				 errdetail("They are not on this server, or not ready; who reads from them misses what is written until they are made anew here."),
				 errhint("From PostgreSQL 17 on the server copies those with failover = true to standbys with sync_replication_slots = on: see pg_replication_slots here. Make the others anew after the switchover, before applications write, and have subscribers refresh their data.")));
}

/* Does something speak against it that the primary knows? */
static void
look_at_primary(Switchover *s)
{
	RemoteReply reply;
	int64		waiting;
	const char *unasked;

	run_part(s, "look", LOOK_TIMEOUT_MS, &reply);
	if (remote_failed_for(&reply, "candidate"))
		refuse("the primary's host cannot ask this server, as its watcher would have to", reply.messages,
			   "Let the rewind role connect from there: pg_hba.conf here, the password file there.");
	if (remote_failed_for(&reply, "other_primary"))
		refuse("there is a second primary", reply.messages,
			   "Make sure which of them is the right one. On that: SELECT * FROM follow_primary_all().");
	if (!reply.ok)
		refuse("the primary cannot be asked", reply.messages,
			   "Let the rewind role connect by the local socket there: pg_hba.conf and the password file of the primary's host.");
	if (!remote_says(&reply, "in_recovery", "f"))
		refuse(psprintf("the server on %s is no primary", former_name(s)), NULL,
			   "Correct host and port in its row of follow_primary_node.");
	if (!remote_says(&reply, "system_id", psprintf(UINT64_FORMAT, GetSystemIdentifier())) ||
		!remote_says(&reply, "timeline", psprintf("%u", s->timeline)))
		refuse(psprintf("the server on %s is not the one that this standby streams from", former_name(s)), NULL,
			   "Correct host and port in its row of follow_primary_node.");
	if (!remote_says(&reply, "standbys", "1"))
		refuse(psprintf("the primary does not show this standby as streaming by the name \"%s\"", s->name), NULL,
			   "Give each standby an application_name, or cluster_name, of its own.");
	if (!remote_says(&reply, "candidate", "t|t|f"))
		refuse("the primary's host reaches another server under this server's name",
			   psprintf("It was asked at %s:%d.", s->own_host, PostPortNumber),
			   "Correct this server's row in follow_primary_node, or follow_primary.primary_host.");
	if (!remote_says(&reply, "copies", "0"))
		refuse("a base backup of the primary is running", NULL, "Wait for its end; see pg_stat_progress_basebackup there.");
	unasked = remote_get(&reply, "unasked");
	if (unasked && unasked[0])
		ereport(WARNING,
				(errmsg("of a node that does not answer it is not known whether it is a second primary"),
				 errdetail("The primary's host cannot ask: %s.", unasked),
				 errhint("If it may have been promoted, see to it before it is reached again. If it runs, let the rewind role connect from the primary's host.")));
	tell_lost_slots(remote_get(&reply, "logical_slots"));
	if (!remote_number(&reply, "ready", &waiting))
		refuse("the primary does not tell how much WAL waits to be archived", reply.messages, CALL_AGAIN);
	if (setting_max_archive_backlog >= 0 && waiting > setting_max_archive_backlog)
		refuse(psprintf("WAL waits to be archived on the primary: " INT64_FORMAT " segments", waiting),
			   psprintf("follow_primary.max_archive_backlog is %d.", setting_max_archive_backlog),
			   "See pg_stat_archiver there, and the server's log.");
	if (waiting > 0 && remote_says(&reply, "archiver_fails", "t"))
		ereport(WARNING,
				(errmsg("the primary's archive_command fails, and " INT64_FORMAT " segments wait for it", waiting),
				 errdetail("What it has not archived when it stops is kept on its host, in %s.follow_primary/lost_wal-JOB.",
						   s->primary->node.pgdata),
				 errhint("Archive it from there by hand: no server does.")));
}

/* The file that the session of that switchover made, to promote this server, or NULL. */
static char *
file_of(const char *number)
{
	const char *args[] = {FILE_PREFIX, number};

	return sql_scalar("SELECT f FROM pg_ls_dir('.') f WHERE starts_with(f, $1) "
					  "AND split_part(f, '.', 3) = $2 AND split_part(f, '.', 4) = " SQL_STARTED "::text",
					  lengthof(args), args);
}

/*
 * The primary is down, or has been started as a standby.  If an earlier switchover to this
 * server has stopped it, and came to the promotion, this one goes on from there: all WAL
 * is here.  If it did not, this one starts the primary again, as the watcher would, when
 * its time is over.  Returns whether only the promotion is left.
 */
static bool
find_interrupted(Switchover *s)
{
	RemoteReply reply;
	bool		is_down = s->primary->node.state == NODE_DOWN;
	const char *unasked;
	TimestampTz limit = s->deadline - (s->deadline - GetCurrentTimestamp()) / 3;

	run_part(s, "look", LOOK_TIMEOUT_MS, &reply);
	if (!remote_says(&reply, "pending", own_name(s)))
	{
		if (is_down)
			refuse(psprintf("the primary %s is down", former_name(s)), NULL,
				   "Start it. If it is lost, this is a failover: promote this server, then call follow_primary_all().");
		return false;
	}
	if (remote_get(&reply, "pending_number"))
		s->file = file_of(remote_get(&reply, "pending_number"));
	if (s->file)
		return true;

	/* Its state may be of long ago: it is made the primary only if there surely is none. */
	unasked = remote_get(&reply, "unasked");
	if (!is_down && !remote_failed_for(&reply, "other_primary") && (!reply.ok || (unasked && unasked[0])))
		refuse(psprintf("the server on %s runs as a standby since a switchover was cut short, and whether another node is the primary is not known", former_name(s)),
			   reply.ok ? psprintf("Its host cannot ask: %s.", unasked) : reply.messages,
			   "Start those nodes, and call it again. If they are lost: promote this server, then call follow_primary_all().");
	if (is_down || reply.ok)
		run_part(s, "back", s->primary->request->settings->start_timeout * 1000 + GRACE_MS, &reply);
	if (remote_failed_for(&reply, "other_primary"))
		refuse(psprintf("the primary %s %s, and another node has become one", former_name(s), is_down ? "is down" : "is a standby now"), reply.messages,
			   "On that one: SELECT * FROM follow_primary_all(when_down => 'rejoin').");
	if (!reply.ok)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the primary %s could not be started again", former_name(s)),
				 errdetail("%s", reply.messages),
				 errhint("Start it by hand. If it is lost, promote this server, then call follow_primary_all().")));
	ereport(NOTICE, (errmsg("the primary %s, stopped by an earlier switchover, has been started again", former_name(s))));
	while (!sql_is_true("SELECT EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming')", 0, NULL) &&
		   GetCurrentTimestamp() < limit)
		net_pause(POLL_MS * 10);
	return false;
}

/* The primary's position now must be replayed here within a part of the time. */
static void
wait_until_close(Switchover *s)
{
	RemoteReply reply;
	XLogRecPtr	flushed;
	XLogRecPtr	here = InvalidXLogRecPtr;
	TimestampTz limit = GetCurrentTimestamp() + (s->deadline - GetCurrentTimestamp()) / 3;

	run_part(s, "look", LOOK_TIMEOUT_MS, &reply);
	if (!reply.ok || !lsn_parse(remote_get(&reply, "flushed"), &flushed))
		refuse("the primary cannot be asked", reply.messages, CALL_AGAIN);
	for (;;)
	{
		(void) lsn_parse(sql_scalar("SELECT pg_last_wal_replay_lsn()", 0, NULL), &here);
		if (here >= flushed)
			return;
		if (GetCurrentTimestamp() >= limit)
			refuse("this standby is too far behind",
				   psprintf("It has replayed up to %s; the primary had written %s already.", lsn_text(here), lsn_text(flushed)),
				   "Wait until it has caught up, or give a longer timeout.");
		ssh_serve(s->primary->ssh);
		net_pause(POLL_MS * 5);
	}
}

/* All that can be done while the primary still serves. */
static void
prepare(Switchover *s)
{
	RemoteReply reply;
	ListCell   *cell;

	promoter_start(s->file, s->lock, s->deadline);
	(void) node_lock(s->primary);
	foreach(cell, s->jobs)
	{
		const ClusterJob *job = (const ClusterJob *) lfirst(cell);
		const char *slot[] = {job->request ? job->request->slot_name : NULL};

		if (slot[0] == NULL || sql_is_true("SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1)", 1, slot))
			continue;
		s->slots = lappend(s->slots, pstrdup(slot[0]));
		sql_run("SELECT pg_create_physical_replication_slot($1, true)", 1, slot);
		slot_set_mark(slot[0], SLOT_OF_JOB);
	}
	run_part(s, "prepare", s->primary->request->settings->progress_timeout * 1000, &reply);
	if (!reply.ok || remote_says(&reply, "checkpoint", "no"))
		ereport(NOTICE,
				(errmsg("the primary makes no checkpoint before it is stopped: the stop takes as long as one"),
				 errdetail("%s", reply.messages),
				 errhint("Let the rewind role make checkpoints: GRANT pg_checkpoint TO %s, from PostgreSQL 15 on.",
						 s->primary->request->settings->rewind_user)));
	wait_until_close(s);
}

/* Where the record of a shutdown checkpoint ends that begins at lsn. */
static XLogRecPtr
checkpoint_end(XLogRecPtr lsn)
{
	Size		length = SizeOfXLogRecord + SizeOfXLogRecordDataHeaderShort + sizeof(CheckPoint);
	XLogRecPtr	end = lsn + length;

	if (lsn / XLOG_BLCKSZ != (end - 1) / XLOG_BLCKSZ)
		end += (end - 1) / wal_segment_size != lsn / wal_segment_size ? SizeOfXLogLongPHD : SizeOfXLogShortPHD;
	return end;
}

/* The first bytes of the record here, in hexadecimal, or NULL if they are not to be read. */
static char *
own_first_bytes(XLogRecPtr lsn, TimeLineID timeline)
{
	char		path[MAXPGPATH];
	unsigned char bytes[SizeOfXLogRecord];
	XLogSegNo	segment;
	StringInfoData text;
	int			fd;
	ssize_t		n;

	XLByteToSeg(lsn, segment, wal_segment_size);
	XLogFilePath(path, timeline, segment, wal_segment_size);
	fd = OpenTransientFile(path, O_RDONLY | PG_BINARY);
	if (fd < 0)
		return NULL;
	n = pg_pread(fd, bytes, sizeof(bytes), XLogSegmentOffset(lsn, wal_segment_size));
	CloseTransientFile(fd);
	if (n != sizeof(bytes))
		return NULL;
	initStringInfo(&text);
	for (int i = 0; i < lengthof(bytes); i++)
		appendStringInfo(&text, "%02x", bytes[i]);
	return text.data;
}

/* The primary shuts down, and all its WAL is here. Returns where that ends. */
static XLogRecPtr
stop_primary(Switchover *s)
{
	RemoteReply reply;
	XLogRecPtr	checkpoint;
	XLogRecPtr	end;
	char	   *record;
	char	   *own;

	s->stopped = true;
	run_part(s, "stop", (s->deadline - GetCurrentTimestamp()) / 1000 + GRACE_MS, &reply);
	if (!reply.ok || !lsn_parse(remote_get(&reply, "end"), &checkpoint))
		ereport(ERROR,
				(errcode(ERRCODE_SYSTEM_ERROR),
				 errmsg("the primary %s did not shut down in time", former_name(s)),
				 errdetail("%s", reply.messages),
				 errhint("See what holds it up there, or give a longer timeout.")));
	end = checkpoint_end(checkpoint);
	for (;;)
	{
		char	   *received = sql_scalar("SELECT pg_last_wal_receive_lsn() >= $1::pg_lsn AND pg_last_wal_replay_lsn() >= $1::pg_lsn",
										  1, (const char *[]) {lsn_text(end)});

		if (received && strcmp(received, "t") == 0)
			break;
		if (GetCurrentTimestamp() >= s->deadline - (TimestampTz) WATCHER_MARGIN_MS * 1000)
			ereport(ERROR,
					(errcode(ERRCODE_SYSTEM_ERROR),
					 errmsg("the WAL of the primary %s did not arrive here in time", former_name(s)),
					 errdetail("Its last record ends at %s; this standby has received %s.", lsn_text(end),
							   sql_scalar("SELECT pg_last_wal_receive_lsn()", 0, NULL)),
					 errhint("See this server's log.")));
		net_pause(POLL_MS);
	}
	record = pstrdup(remote_get(&reply, "record") ? remote_get(&reply, "record") : "");
	own = own_first_bytes(checkpoint, s->timeline);
	if (own == NULL || record[0] == '\0' || strcmp(own, record) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("this standby has other WAL at %s than the primary %s", lsn_text(checkpoint), former_name(s)),
				 errhint("Make this standby anew.")));
	return end;
}

/*
 * For the watcher: from now on this server will be promoted.  It is there as a whole or not
 * at all, for nobody can take it back, and on disk before the promotion begins.
 */
static void
make_file(const Switchover *s)
{
	int			fd = OpenTransientFile(NEW_FILE, O_WRONLY | O_CREAT | O_TRUNC | PG_BINARY);

	if (fd < 0 || write(fd, "x", 1) != 1 || pg_fsync(fd) != 0 || CloseTransientFile(fd) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not write file \"%s\": %m", NEW_FILE)));
	(void) durable_rename(NEW_FILE, s->file, ERROR);
}

static void
promote(Switchover *s)
{
	TimestampTz limit = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), LOOK_TIMEOUT_MS);

	make_file(s);
	(void) sql_scalar("SELECT pg_promote(false)", 0, NULL);
	while (RecoveryInProgress())
	{
		if (GetCurrentTimestamp() >= limit)
			ereport(ERROR,
					(errcode(ERRCODE_SYSTEM_ERROR),
					 errmsg("this server has been told to promote itself, and is not a primary yet"),
					 errdetail("The former primary is stopped, and a standby when it is started."),
					 errhint("See this server's log. When it is the primary: SELECT * FROM %s.follow_primary_all(when_down => 'rejoin').", s->schema)));
		net_pause(POLL_MS);
		ABSORB_BARRIERS();
	}
}

/* After an error: the slots that were made would hold WAL for nobody. */
static void
drop_slots(Switchover *s)
{
	MemoryContext context = CurrentMemoryContext;
	ListCell   *cell;

	foreach(cell, s->slots)
	{
		PG_TRY();
		{
			ReplicationSlotDrop((const char *) lfirst(cell), true);
		}
		PG_CATCH();
		{
			MemoryContextSwitchTo(context);
			FlushErrorState();
		}
		PG_END_TRY();
	}
}

/*
 * Has the promise been made?  The promoter removes the file after the promotion, so that is
 * looked at last; and what cannot be looked at is taken for made.
 */
static bool
is_promised(const Switchover *s)
{
	struct stat st;

	return stat(s->file, &st) == 0 || errno != ENOENT || !RecoveryInProgress();
}

/* After an error: the primary is again what it was, unless this server is promoted, or will be. */
static void
go_back(Switchover *s)
{
	MemoryContext context = CurrentMemoryContext;

	if (!s->stopped || s->primary->ssh == NULL || !ssh_is_alive(s->primary->ssh) || is_promised(s))
		return;
	PG_TRY();
	{
		RemoteReply reply;

		run_part(s, "back", s->primary->request->settings->start_timeout * 1000 + GRACE_MS, &reply);
		ereport(WARNING,
				(errmsg(reply.ok ? "the primary %s has been started again" : "the primary %s could not be started again",
						former_name(s)),
				 reply.ok ? 0 : errdetail("%s", reply.messages)));
	}
	PG_CATCH();
	{
		/* The watcher there does it. */
		MemoryContextSwitchTo(context);
		FlushErrorState();
		ereport(WARNING,
				(errmsg("the primary %s is started again by the watcher on its host, when the time limit is over", former_name(s))));
	}
	PG_END_TRY();
}

/*
 * What is wrong with this server as the primary, or with a node that would follow it.
 * A pgpool that does not answer is no obstacle.
 */
static void
refuse_for_check(const Switchover *s)
{
	const CheckAnswer *answer = check_run(check_ask_all(s->schema, false));

	for (int i = 0; i < answer->nrows; i++)
	{
		const CheckRow *row = &answer->rows[i];

		if (strcmp(row->status, "error") == 0 && strcmp(row->item, "pgpool") != 0)
			refuse(psprintf("%s, %s: %s", row->node ? row->node : row->candidate, row->item, row->message),
				   "SELECT * FROM follow_primary_check() on this server shows all of them.",
				   row->hint ? row->hint : CALL_AGAIN);
	}
}

/* A new connection to the primary's host, and its lock; false if there is none by the deadline. */
static bool
connect_again(Switchover *s)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool connected = false;

	ssh_disconnect(s->primary->ssh);
	s->primary->ssh = NULL;
	while (!connected && GetCurrentTimestamp() < s->deadline)
	{
		PG_TRY();
		{
			(void) survey_connect(s->primary);
			(void) node_lock(s->primary);
			connected = true;
		}
		PG_CATCH();
		{
			MemoryContextSwitchTo(context);
			if (geterrcode() == ERRCODE_QUERY_CANCELED)
				PG_RE_THROW();
			FlushErrorState();
			ssh_disconnect(s->primary->ssh);
			s->primary->ssh = NULL;
			net_pause(POLL_MS * 20);
		}
		PG_END_TRY();
	}
	return connected;
}

/*
 * The connection broke while the primary's host was told to commit: that alone knows
 * whether it has.  To promote this server, or to start the primary again, before it has
 * told may make two primaries.
 */
static bool
ask_for_commit(Switchover *s, const char *cause)
{
	RemoteReply reply;

	ereport(WARNING,
			(errmsg("the connection to the host of the primary %s broke, and is made again", former_name(s)),
			 errdetail("%s", cause)));
	if (!connect_again(s))
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("the host of the primary %s cannot be asked whether it has become a standby", former_name(s)),
				 errdetail("The connection broke while it was told so. The primary is stopped."),
				 errhint("When the host is back, call it again. If the host is lost, this is a failover: promote this server, then SELECT * FROM %s.follow_primary_all(when_down => 'rejoin').", s->schema)));
	run_part(s, "ask", LOOK_TIMEOUT_MS, &reply);
	return remote_says(&reply, "committed", "yes");
}

/* From now on the primary is a standby when it is started. */
static void
commit(Switchover *s)
{
	MemoryContext context = CurrentMemoryContext;
	ErrorData  *volatile broken = NULL;
	const char *objection;
	RemoteReply reply;

	PG_TRY();
	{
		run_part(s, "commit", LOOK_TIMEOUT_MS, &reply);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		if (geterrcode() == ERRCODE_QUERY_CANCELED || ssh_is_alive(s->primary->ssh))
			PG_RE_THROW();
		broken = CopyErrorData();
		FlushErrorState();
	}
	PG_END_TRY();
	if (broken)
		objection = ask_for_commit(s, broken->message) ? NULL :
			"The connection broke before the primary's host had been told that it is a standby.";
	else
		objection = reply.ok ? NULL : reply.messages;
	if (objection)
		ereport(ERROR,
				(errcode(ERRCODE_SYSTEM_ERROR),
				 errmsg("the switchover came too late"),
				 errdetail("%s", objection),
				 errhint("Give a longer timeout.")));
}

static void
run_promotion(Switchover *s)
{
	CHECK_FOR_INTERRUPTS();
	HOLD_INTERRUPTS();
	promote(s);
	RESUME_INTERRUPTS();
	end_step(s, "promote", "");
}

/* Up to the promotion. */
static void
change_primary(Switchover *s)
{
	XLogRecPtr	end;

	begin_step(s);
	refuse_for_pgpool(s);
	connect_to_primary(s);
	if (s->primary->node.state != NODE_PRIMARY && find_interrupted(s))
	{
		promoter_start(s->file, s->lock, s->deadline);
		run_promotion(s);
		return;
	}
	look_at_receiver(s);
	look_at_primary(s);
	refuse_for_check(s);
	end_step(s, "check", former_name(s));

	begin_step(s);
	prepare(s);
	end_step(s, "prepare", "");

	begin_step(s);
	end = stop_primary(s);
	end_step(s, "stop", psprintf("all WAL up to %s is here", lsn_text(end)));

	begin_step(s);
	commit(s);
	run_promotion(s);
}

/* Frees the former primary's host of this session; what it does not hear, its jobs will tell it. */
static void
tell_promoted(Switchover *s)
{
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		RemoteReply reply;

		run_part(s, "done", LOOK_TIMEOUT_MS, &reply);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		FlushErrorState();
	}
	PG_END_TRY();
	ssh_disconnect(s->primary->ssh);
	s->primary->ssh = NULL;
	(void) unlink(s->file);
}

List *
switchover_run(FunctionCallInfo fcinfo, int timeout_ms)
{
	Switchover *s = palloc0(sizeof(Switchover));
	uint64		random;

	s->schema = extension_schema(fcinfo);
	s->deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), timeout_ms);
	initStringInfo(&s->past);
	if (!pg_strong_random(&random, sizeof(random)))
		elog(ERROR, "could not generate random values");
	s->lock = (int64) (random >> 2);
	s->own_host = own_row_host(s->schema);
	if (s->own_host == NULL)
		refuse("this server has no row of its own in follow_primary_node", NULL,
			   "Add it on the primary, and set follow_primary.primary_host on this server to the host in it.");
	s->jobs = cluster_jobs(fcinfo, REQUESTED_AUTO, true, true);
	find_primary(s);

	(void) sql_scalar("SELECT pg_advisory_xact_lock($1::bigint)", 1, (const char *[]) {psprintf(INT64_FORMAT, s->lock)});
	PG_TRY();
	{
		change_primary(s);
	}
	PG_CATCH();
	{
		if (s->primary)
		{
			ErrorData  *error;

			MemoryContextSwitchTo(s->primary->context);
			error = CopyErrorData();
			FlushErrorState();
			go_back(s);
			if (RecoveryInProgress())
				drop_slots(s);
			ssh_disconnect(s->primary->ssh);
			ReThrowError(error);
		}
		PG_RE_THROW();
	}
	PG_END_TRY();
	tell_promoted(s);
	s->former->request->past = s->past.data;
	cluster_run(fcinfo, s->jobs);
	return s->jobs;
}
