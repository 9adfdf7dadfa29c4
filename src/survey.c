/*
 * survey.c
 *		The facts about this server and the node; nothing is changed.
 *
 * The node is asked in one round trip (src/remote/survey.sh).  Nothing that it
 * says is trusted to be well-formed: what cannot be read is unknown, and the
 * plan knows what to do with unknown.
 */
#include "postgres.h"

#include "access/timeline.h"
#include "access/transam.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "catalog/pg_control.h"
#include "miscadmin.h"
#include "postmaster/postmaster.h"
#include "replication/slot.h"
#include "replication/walsender.h"
#include "storage/fd.h"
#include "utils/pg_lsn.h"

#include <ctype.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "compat.h"
#include "net.h"
#include "recovery_conf.h"
#include "sql.h"
#include "survey.h"

#define SURVEY_TIMEOUT_MS	60000
#define ARCHIVE_TIMEOUT_MS	600000
#define ARCHIVE_PROBES		16
#define WAL_RECORD_HEADER	24	/* SizeOfXLogRecord */
#define RAW_RECORD			64	/* with the longest page header; survey.sh
								 * reads as much */
#define OWN_RAW_RECORD		256 /* that with a checkpoint in it */

static bool
parse_lsn(const char *text, XLogRecPtr *lsn)
{
	unsigned int hi;
	unsigned int lo;

	if (text == NULL || sscanf(text, "%X/%X", &hi, &lo) != 2)
		return false;
	*lsn = ((uint64) hi << 32) | lo;
	return true;
}

/* This server's history, as the backend reads it. */
static void
read_own_history(TimeLineID timeline, History *history)
{
	List	   *entries = readTimeLineHistory(timeline);
	ListCell   *cell;
	int			i = list_length(entries);

	/* The backend's list has the newest timeline first. */
	history->length = i;
	history->stretches = palloc(i * sizeof(Stretch));
	foreach(cell, entries)
	{
		TimeLineHistoryEntry *entry = (TimeLineHistoryEntry *) lfirst(cell);

		i--;
		history->stretches[i].tli = entry->tli;
		history->stretches[i].begin = entry->begin;
		history->stretches[i].end = entry->end;
	}
}

/*
 * Where the oldest segment in pg_wal begins that all later ones follow without
 * a gap, up to the end of WAL.
 */
static XLogRecPtr
oldest_wal(XLogRecPtr flush_lsn)
{
	SqlResult  *row = sql_run("SELECT right(name, 16) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$' "
							  "GROUP BY 1 ORDER BY 1 DESC", 0, NULL);
	XLogRecPtr	oldest = 0;

	for (int i = 0; i < row->nrows; i++)
	{
		uint64		hi = strtoul(pnstrdup(sql_value(row, i, 0), 8), NULL, 16);
		uint64		lo = strtoul(sql_value(row, i, 0) + 8, NULL, 16);
		XLogRecPtr	begin = (hi << 32) + lo * wal_segment_size;

		/* Segments that are prepared for the future come first. */
		if (oldest != 0 && begin + wal_segment_size != oldest && oldest <= flush_lsn)
			break;
		oldest = begin;
	}
	return oldest;
}

static void
survey_primary(Job *job)
{
	PrimaryFacts *facts = &job->primary;
	SqlResult  *row;

	facts->in_recovery = RecoveryInProgress();
	facts->version_num = PG_VERSION_NUM;
	facts->system_id = GetSystemIdentifier();
	facts->full_page_writes = fullPageWrites;
	if (facts->in_recovery)
		return;

	row = sql_run("SELECT pg_walfile_name(pg_current_wal_insert_lsn()), pg_current_wal_flush_lsn()", 0, NULL);
	facts->timeline = (TimeLineID) strtoul(pnstrdup(sql_value(row, 0, 0), 8), NULL, 16);
	parse_lsn(sql_value(row, 0, 1), &facts->flush_lsn);
	read_own_history(facts->timeline, &facts->history);
	facts->oldest_wal = oldest_wal(facts->flush_lsn);
}

/*
 * The rest about this server, asked after the node was: what the node had
 * received by then was flushed here, if it is of this server, and who holds
 * its slot now is no connection that was just ending.
 */
static void
survey_primary_again(Job *job)
{
	PrimaryFacts *facts = &job->primary;
	const char *slot[] = {job->request->slot_name};
	SqlResult  *row;

	row = sql_run("SELECT pg_current_wal_flush_lsn(), "
				  "(SELECT count(*) FROM pg_replication_slots), "
				  "(SELECT count(*) FROM pg_stat_get_wal_senders() WHERE pid IS NOT NULL)", 0, NULL);
	parse_lsn(sql_value(row, 0, 0), &facts->flush_lsn);
	facts->free_slots = max_replication_slots - atoi(sql_value(row, 0, 1));
	facts->free_wal_senders = max_wal_senders - atoi(sql_value(row, 0, 2));

	row = sql_run("SELECT slot_type, active, " SLOT_IS_LOST ", "
				  "restart_lsn IS NULL AND NOT active "
				  "FROM pg_replication_slots WHERE slot_name = $1", 1, slot);
	if (row->nrows > 0)
	{
		facts->slot_exists = true;
		facts->slot_logical = strcmp(sql_value(row, 0, 0), "logical") == 0;
		facts->slot_active = strcmp(sql_value(row, 0, 1), "t") == 0;
		facts->slot_lost = strcmp(sql_value(row, 0, 2), "t") == 0 ||
			strcmp(sql_value(row, 0, 3), "t") == 0;
	}
	if (facts->slot_active)
	{
		const char *node[] = {
			job->request->slot_name, job->request->node_host,
			psprintf("%d", job->request->node_port)
		};

		facts->slot_user = sql_scalar(psprintf("SELECT other FROM (SELECT node_host || ':' || node_port AS other, "
											   "lower(node_host) = lower($2) AND node_port = $3::int AS this "
											   "FROM %s.follow_primary_job WHERE slot_name = $1 AND state = 'succeeded' "
											   "ORDER BY id DESC LIMIT 1) latest WHERE NOT this",
											   job->request->schema),
									  lengthof(node), node);
	}
}

/*
 * The slot of this server that the node streams through, if the job is to give
 * it another one: nobody else would drop it, and it would hold WAL for ever.
 */
static void
find_former_slot(Job *job, const RemoteReply *reply)
{
	const char *slot = remote_get(reply, "sql.receiver_slot");
	const char *args[] = {slot, job->node.application_name};

	if (job->former_slot || slot == NULL || slot[0] == '\0' ||
		strcmp(slot, job->request->slot_name) == 0 ||
		!job->node.receiver_streaming ||
		job->node.receiver_timeline != job->primary.timeline)
		return;
	if (sql_is_true("SELECT EXISTS (SELECT FROM pg_replication_slots s JOIN pg_stat_replication r ON r.pid = s.active_pid "
					"WHERE s.slot_name = $1 AND s.slot_type = 'physical' AND r.application_name = coalesce($2, r.application_name))",
					lengthof(args), args))
		job->former_slot = pstrdup(slot);
}

/*
 * The proof is a row that the rewind role sees on the node.  That it may see it
 * is known here, before anything is touched.
 */
static void
check_rewind_user(const Job *job)
{
	const char *role = job->request->settings->rewind_user;
	const char *schema = job->request->schema;
	const char *args[] = {
		role,
		psprintf("%s.follow_primary_step", schema),
		schema
	};
	char	   *missing;

	missing = sql_scalar("SELECT CASE "
						 "WHEN to_regrole(quote_ident($1)) IS NULL THEN format('CREATE ROLE %I LOGIN', $1) "
						 "WHEN NOT has_database_privilege($1, current_database(), 'CONNECT') "
						 "THEN format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), $1) "
						 "WHEN NOT has_schema_privilege($1, (parse_ident($3))[1], 'USAGE') "
						 "THEN format('GRANT USAGE ON SCHEMA %s TO %I', $3, $1) "
						 "WHEN NOT has_table_privilege($1, $2, 'SELECT') "
						 "THEN format('GRANT pg_monitor TO %I', $1) END",
						 lengthof(args), args);
	if (missing)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role \"%s\" cannot read %s", role, args[1]),
				 errdetail("By a row in it, as follow_primary.rewind_user sees it on the node, the node proves to follow this server."),
				 errhint("%s", psprintf("Run on this server: %s", missing))));
}

/* The header of a WAL record; its checksum and the one before it are in it. */
typedef struct RecordHeader
{
	unsigned char bytes[WAL_RECORD_HEADER];
} RecordHeader;

/*
 * Picks the first n bytes of the record at lsn out of the len bytes that its
 * segment has from there on.  False if they are not all there.
 */
static bool
pick_record(const unsigned char *raw, int len, XLogRecPtr lsn,
			unsigned char *record, int n)
{
	int			from = 0;
	bool		written = false;

	for (int i = 0; i < n; i++)
	{
		if ((lsn + from) % XLOG_BLCKSZ == 0)
			from += XLogSegmentOffset(lsn + from, wal_segment_size) == 0 ?
				SizeOfXLogLongPHD : SizeOfXLogShortPHD;
		if (from >= len)
			return false;
		record[i] = raw[from++];
		written = written || record[i] != 0;
	}
	return written;
}

/* The same from this server's own history, if its WAL is here. */
static bool
own_record(const History *history, XLogRecPtr lsn, unsigned char *record, int n)
{
	unsigned char raw[OWN_RAW_RECORD];
	XLogSegNo	segment;

	/* A segment in which timelines change is best found under the newest. */
	XLByteToSeg(lsn, segment, wal_segment_size);
	for (int i = history->length - 1; i >= 0; i--)
	{
		XLogSegNo	begin;
		char		path[MAXPGPATH];
		int			fd;
		int			len;

		XLByteToSeg(history->stretches[i].begin, begin, wal_segment_size);
		if (segment < begin)
			continue;
		XLogFilePath(path, history->stretches[i].tli, segment, wal_segment_size);
		fd = BasicOpenFile(path, O_RDONLY | PG_BINARY);
		if (fd < 0)
			continue;
		len = pg_pread(fd, raw, sizeof(raw), XLogSegmentOffset(lsn, wal_segment_size));
		close(fd);
		return pick_record(raw, len, lsn, record, n);
	}
	return false;
}

/* How survey.sh and its answer name a record. */
static char *
record_name(TimeLineID tli, XLogRecPtr lsn)
{
	return psprintf("%X/%X/%X", tli, (uint32) (lsn >> 32), (uint32) lsn);
}

/* The header of a record that the node was asked for, if it has one there. */
static bool
node_header(const RemoteReply *reply, TimeLineID tli, XLogRecPtr lsn,
			RecordHeader *header)
{
	const char *value = remote_get(reply, psprintf("record.%s", record_name(tli, lsn)));
	unsigned char raw[RAW_RECORD];
	int			len = 0;

	while (value && len < RAW_RECORD &&
		   isxdigit((unsigned char) value[0]) && isxdigit((unsigned char) value[1]))
	{
		char		digits[] = {value[0], value[1], '\0'};

		raw[len++] = (unsigned char) strtoul(digits, NULL, 16);
		value += 2;
	}
	return len > 0 && pick_record(raw, len, lsn, header->bytes, WAL_RECORD_HEADER);
}

/*
 * Do both records follow the same one?  A place in a segment that was made for
 * future use holds old WAL, which follows another.
 */
static bool
same_predecessor(const RecordHeader *a, const RecordHeader *b)
{
	return memcmp(a->bytes + offsetof(XLogRecord, xl_prev),
				  b->bytes + offsetof(XLogRecord, xl_prev), sizeof(XLogRecPtr)) == 0;
}

static bool
same_record(const RecordHeader *a, const RecordHeader *b)
{
	return memcmp(a->bytes, b->bytes, WAL_RECORD_HEADER) == 0;
}

/* A line "label: value" of pg_controldata's output, or NULL. */
static char *
control_value(const char *controldata, const char *label)
{
	size_t		len = strlen(label);

	for (const char *line = controldata; line && *line;)
	{
		if (strncmp(line, label, len) == 0 && line[len] == ':')
		{
			line += len + 1;
			line += strspn(line, " \t");
			return pnstrdup(line, strcspn(line, "\n"));
		}
		line = strchr(line, '\n');
		line = line ? line + 1 : NULL;
	}
	return NULL;
}

/*
 * Does the node's history have this stretch too?  One of the same number that
 * begins elsewhere is another timeline, which the histories tell.
 */
static bool
shares(const NodeFacts *node, const Stretch *stretch)
{
	const Stretch *theirs;

	if (!node->history_known)
		return true;
	theirs = history_find(&node->history, stretch->tli);
	return theirs && theirs->begin == stretch->begin;
}

typedef enum Likeness
{
	LIKENESS_UNKNOWN,
	LIKENESS_SAME,
	LIKENESS_OTHER
} Likeness;

/*
 * Is the node's last checkpoint one of this server's history too?  Unlike its
 * WAL files, which a WAL receiver overwrites with what this server sends, the
 * control file tells what the node itself has been through.
 */
static Likeness
compare_checkpoint(const PrimaryFacts *primary, const NodeFacts *node,
				   const char *control)
{
	const char *tli = control_value(control, "Latest checkpoint's TimeLineID");
	const char *xid = control_value(control, "Latest checkpoint's NextXID");
	const char *oid = control_value(control, "Latest checkpoint's NextOID");
	const char *text = control_value(control, "Time of latest checkpoint");
	unsigned int epoch;
	unsigned int next_xid;
	const Stretch *stretch;
	XLogRecPtr	lsn;
	XLogRecPtr	redo;
	unsigned char record[SizeOfXLogRecord + SizeOfXLogRecordDataHeaderShort + sizeof(CheckPoint)];
	XLogRecord	header;
	CheckPoint	checkpoint;
	time_t		when;
	struct tm  *utc;
	char		when_text[128];

	/*
	 * A standby's control file has the next XID of the latest checkpoint that
	 * it has replayed (xlog_redo() in xlog.c), whose place it takes over only
	 * at its next restartpoint: it may be later.
	 */
	if (tli == NULL || oid == NULL || text == NULL ||
		xid == NULL || sscanf(xid, "%u:%u", &epoch, &next_xid) != 2 ||
		!parse_lsn(control_value(control, "Latest checkpoint location"), &lsn) ||
		!parse_lsn(control_value(control, "Latest checkpoint's REDO location"), &redo))
		return LIKENESS_UNKNOWN;
	stretch = history_find(&primary->history, (TimeLineID) strtoul(tli, NULL, 10));
	if (stretch == NULL || !shares(node, stretch) || lsn < stretch->begin ||
		(!XLogRecPtrIsInvalid(stretch->end) && lsn >= stretch->end) ||
		lsn + sizeof(record) > primary->flush_lsn ||
		!own_record(&primary->history, lsn, record, sizeof(record)))
		return LIKENESS_UNKNOWN;

	memcpy(&header, record, SizeOfXLogRecord);
	memcpy(&checkpoint, record + SizeOfXLogRecord + SizeOfXLogRecordDataHeaderShort,
		   sizeof(CheckPoint));
	if (header.xl_rmid != RM_XLOG_ID ||
		((header.xl_info & ~XLR_INFO_MASK) != XLOG_CHECKPOINT_SHUTDOWN &&
		 (header.xl_info & ~XLR_INFO_MASK) != XLOG_CHECKPOINT_ONLINE))
		return LIKENESS_OTHER;
	when = (time_t) checkpoint.time;
	utc = gmtime(&when);
	if (utc == NULL ||
		strftime(when_text, sizeof(when_text), "%a %b %e %H:%M:%S %Y", utc) == 0)
		return LIKENESS_OTHER;
	if (checkpoint.redo == redo && checkpoint.nextOid == strtoul(oid, NULL, 10) &&
		CHECKPOINT_NEXT_XID(&checkpoint) <= ((uint64) epoch << 32 | next_xid) &&
		strcmp(when_text, text) == 0)
		return LIKENESS_SAME;
	return LIKENESS_OTHER;
}

/*
 * Looks into the node's WAL where that of this server's history begins a
 * timeline, and at the node's last checkpoint.  The first record of a timeline
 * holds the time of the promotion, so a server that was promoted separately to
 * the same timeline has another one there.  And a node that is still on the
 * timeline before must have none there: if it has, it has WAL that this server
 * has not, replayed or not.
 */
static void
compare_wal(Job *job, const RemoteReply *reply)
{
	NodeFacts  *node = &job->node;
	const History *history = &job->primary.history;
	RecordHeader ours;
	RecordHeader theirs;

	for (int i = 1; i < history->length; i++)
	{
		XLogRecPtr	begin = history->stretches[i].begin;

		if (!own_record(history, begin, ours.bytes, WAL_RECORD_HEADER))
			continue;
		if (node->timeline >= history->stretches[i].tli &&
			shares(node, &history->stretches[i]) &&
			node_header(reply, history->stretches[i].tli, begin, &theirs) &&
			same_predecessor(&ours, &theirs) && !same_record(&ours, &theirs))
			node->forked_unseen = true;
		if (node->timeline == history->stretches[i - 1].tli &&
			node_header(reply, node->timeline, begin, &theirs) &&
			same_predecessor(&ours, &theirs))
			node->lsn = Max(node->lsn, begin + WAL_RECORD_HEADER);
	}

	switch (compare_checkpoint(&job->primary, node, remote_get(reply, "controldata")))
	{
		case LIKENESS_OTHER:
			node->forked_unseen = true;
			break;
		case LIKENESS_SAME:
			if (node->clean_shutdown)
				node->was_primary = false;	/* a copy of this server */
			break;
		case LIKENESS_UNKNOWN:
			break;
	}
}

static NodeMark
read_mark(const char *mark)
{
	if (mark == NULL)
		return MARK_NONE;
	if (strstr(mark, "phase=ready") || strstr(mark, "phase=rewound"))
		return MARK_CHANGED;
	if (strstr(mark, "phase=swapping"))
		return MARK_HALF_SWAPPED;
	if (strstr(mark, "phase=clearing"))
		return MARK_CLEARED;
	if (strstr(mark, "phase=recovering") || strstr(mark, "phase=stopped"))
		return MARK_BEFORE_CHANGE;
	return MARK_HALF_CHANGED;
}

static int
major_of(const char *version)
{
	/* "postgres (PostgreSQL) 15.4 (Debian ...)" or "15" */
	const char *digits = version ? strpbrk(version, "0123456789") : NULL;

	return digits ? atoi(digits) : 0;
}

/* What a running server said of itself. */
static void
read_running(Job *job, const RemoteReply *reply)
{
	NodeFacts  *node = &job->node;
	const char *written = remote_get(reply, "sql.written");
	const char *signal = remote_get(reply, "signal");
	const char *status = remote_get(reply, "status");
	const char *value;
	XLogRecPtr	lsn;

	node->sql = remote_says(reply, "sql", "yes");
	if (!node->sql)
	{
		value = remote_get(reply, "sql_error");
		node->sql_error = value ? sql_text(value) : NULL;
		node->hot_standby = status == NULL || strncmp(status, "standby", 7) != 0;
		node->state = (signal && strstr(signal, "standby.signal")) || !node->hot_standby ?
			NODE_STANDBY : NODE_PRIMARY;
		return;
	}

	value = remote_get(reply, "sql.in_recovery");
	node->state = value && strcmp(value, "true") == 0 ? NODE_STANDBY : NODE_PRIMARY;
	if (node->state == NODE_PRIMARY)
	{
		/* "000000020000000000000003 0/3000060" */
		if (written && strlen(written) > 25 && parse_lsn(written + 25, &node->lsn))
			node->timeline = (TimeLineID) strtoul(pnstrdup(written, 8), NULL, 16);
		return;
	}

	node->lsn = InvalidXLogRecPtr;
	if (parse_lsn(remote_get(reply, "sql.replayed"), &lsn))
		node->lsn = lsn;
	if (parse_lsn(remote_get(reply, "sql.received"), &lsn))
		node->lsn = Max(node->lsn, lsn);
	value = remote_get(reply, "sql.recovery_timeline");
	if (value)
		node->timeline = Max(node->timeline, (TimeLineID) strtoul(value, NULL, 10));
	value = remote_get(reply, "sql.receiver_timeline");
	node->receiver_timeline = value ? (TimeLineID) strtoul(value, NULL, 10) : 0;
	node->timeline = Max(node->timeline, node->receiver_timeline);
	value = remote_get(reply, "sql.receiver");
	node->receiver_streaming = value && strcmp(value, "streaming") == 0;
	value = remote_get(reply, "sql.receiver_slot");
	node->uses_slot = node->receiver_streaming && value &&
		strcmp(value, job->request->slot_name) == 0;
	value = remote_get(reply, "sql.paused");
	node->replay_paused = value && strcmp(value, "true") == 0;
	value = remote_get(reply, "set.primary_conninfo");
	node->conninfo = value ? pstrdup(value) : NULL;
	node->application_name = conninfo_value(node->conninfo, "application_name");
	value = remote_get(reply, "set.recovery_target_timeline");
	node->target_timeline_latest = value && strcmp(value, "latest") == 0;
	value = remote_get(reply, "set.recovery_min_apply_delay");
	node->replay_delayed = value && strcmp(value, "0") != 0;
	value = remote_get(reply, "set.hot_standby");
	node->hot_standby = value == NULL || strcmp(value, "on") == 0;
	value = remote_get(reply, "set.server_version_num");
	node->conninfo_reloadable = value && atoi(value) >= 130000;
}

void
survey_read_node(Job *job, const RemoteReply *reply)
{
	NodeFacts  *node = &job->node;
	XLogRecPtr	end;
	const char *state = remote_get(reply, "pgdata_state");
	const char *control = remote_get(reply, "controldata");
	const char *value;
	char	   *key;

	if (state == NULL || strcmp(state, "unknown") == 0)
		node->pgdata_state = PGDATA_UNKNOWN;
	else if (strcmp(state, "missing") == 0)
		node->pgdata_state = PGDATA_MISSING;
	else if (strcmp(state, "empty") == 0)
		node->pgdata_state = PGDATA_EMPTY;
	else if (strcmp(state, "unreadable") == 0)
		node->pgdata_state = PGDATA_UNREADABLE;
	else if (strcmp(state, "ok") == 0)
		node->pgdata_state = PGDATA_OK;
	else
		node->pgdata_state = PGDATA_NOT_PGDATA;

	value = remote_get(reply, "pgdata");
	node->pgdata = value ? pstrdup(value) : NULL;
	if (value == NULL)
		node->pgdata_state = PGDATA_UNKNOWN;
	value = remote_get(reply, "beside");
	job->beside = pstrdup(value ? value : "");
	node->version_major = major_of(remote_get(reply, "version"));
	node->bin_version_major = major_of(remote_get(reply, "bin_version"));
	node->mark = read_mark(remote_get(reply, "mark"));
	node->leftovers = remote_says(reply, "leftovers", "yes");
	value = remote_get(reply, "home");
	job->node_home = pstrdup(value ? value : "");
	value = remote_get(reply, "config_file");
	job->config_file = pstrdup(value ? value : "");
	node->config_missing = remote_says(reply, "config_missing", "yes");
	value = remote_get(reply, "waldir");
	job->waldir = pstrdup(value ? value : "");
	value = remote_get(reply, "port_owner");
	if (value && value[0] != '\0' && node->pgdata && strcmp(value, node->pgdata) != 0)
		node->port_owner = pstrdup(value);
	value = remote_get(reply, "running_port");
	if (value && atoi(value) != job->request->node_port)
		node->other_port = atoi(value);

	job->tablespaces = palloc0(sizeof(char *) * (reply->nvalues + 1));
	job->tablespace_oids = palloc0(sizeof(Oid) * (reply->nvalues + 1));
	for (int i = 0; i < reply->nvalues; i++)
		if (strncmp(reply->values[i].key, "tablespace.", 11) == 0)
		{
			job->tablespace_oids[job->ntablespaces] =
				(Oid) strtoul(reply->values[i].key + 11, NULL, 10);
			job->tablespaces[job->ntablespaces++] = pstrdup(reply->values[i].value);
		}

	if (control)
	{
		node->system_id = 0;
		if ((value = control_value(control, "Database system identifier")) != NULL)
			node->system_id = strtoull(value, NULL, 10);
		value = control_value(control, "Database cluster state");
		node->clean_shutdown = value && strncmp(value, "shut down", 9) == 0;
		node->was_primary = value && strcmp(value, "in archive recovery") != 0 &&
			strcmp(value, "shut down in recovery") != 0;
		value = control_value(control, "wal_log_hints setting");
		node->wal_log_hints = value && strcmp(value, "on") == 0;
		value = control_value(control, "Data page checksum version");
		node->checksums = value && atoi(value) > 0;
		value = control_value(control, "Latest checkpoint's TimeLineID");
		node->timeline = value ? (TimeLineID) strtoul(value, NULL, 10) : 0;
		parse_lsn(control_value(control, "Latest checkpoint location"), &node->lsn);
		if (node->was_primary)
			node->lsn += WAL_RECORD_HEADER; /* the checkpoint begins there */
		else if (parse_lsn(control_value(control, "Minimum recovery ending location"), &end))
			node->lsn = Max(node->lsn, end);
		value = control_value(control, "Min recovery ending loc's timeline");
		if (value && (TimeLineID) strtoul(value, NULL, 10) > node->timeline)
			node->timeline = (TimeLineID) strtoul(value, NULL, 10);
		value = remote_get(reply, "wal_timeline");
		if (value && value[0])
			node->timeline = Max(node->timeline, (TimeLineID) strtoul(value, NULL, 16));
		value = remote_get(reply, "signal");
		if (value && strstr(value, "backup_label"))
			node->was_primary = false;	/* what a copy's control data says is its source's */
	}

	value = remote_get(reply, "set.restore_command");
	node->restore_command = value ? pstrdup(value) : NULL;
	if (remote_get(reply, "pid"))
		read_running(job, reply);
	else
		node->state = NODE_DOWN;
	node->was_primary = node->was_primary && node->state == NODE_DOWN;

	if (node->timeline != 0)
	{
		key = psprintf("history.%08X", node->timeline);
		value = remote_get(reply, key);
		if (value != NULL || node->timeline == 1)
			node->history_known = history_parse(value, node->timeline, &node->history);
	}

	compare_wal(job, reply);
}

/*
 * The physical slots on the node that belong to standbys of its own.  Those of
 * its life as a primary go: their standbys follow this server, and have slots
 * here or will; so do those that nobody uses on a former primary.
 */
static char *
downstream_slots(const Job *job, const RemoteReply *reply)
{
	const char *state = control_value(remote_get(reply, "controldata"), "Database cluster state");
	bool		is_standby = job->node.state == NODE_STANDBY ||
		(job->node.state == NODE_DOWN && state && strstr(state, "recovery"));
	StringInfoData names;

	initStringInfo(&names);
	for (int i = 0; i < reply->nvalues; i++)
	{
		const char *name = reply->values[i].key + 5;
		const char *kind = reply->values[i].value;
		bool		active = strstr(kind, " active") != NULL;

		if (strncmp(reply->values[i].key, "slot.", 5) != 0 ||
			strncmp(kind, "physical", 8) != 0 || (!is_standby && !active))
			continue;
		if (!(is_standby && active))
		{
			char	   *known = sql_scalar(psprintf("SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1) "
													"OR EXISTS (SELECT FROM %s.follow_primary_node "
													"WHERE regexp_replace(lower(host), '[^a-z0-9]', '_', 'g') = $1)",
													job->request->schema),
										   1, &name);

			if (known == NULL || strcmp(known, "f") != 0)
				continue;
		}
		appendStringInfo(&names, "%s%s", names.len > 0 ? " " : "", name);
	}
	return names.data;
}

/*
 * The file of a segment of this server's history: under the newest timeline in
 * it, for only that one is known to hold nothing else.
 */
static char *
segment_name(const History *history, XLogSegNo segment)
{
	char	   *name = palloc(MAXFNAMELEN);
	int			i = history->length - 1;

	while (i > 0 && history->stretches[i].begin / wal_segment_size > segment)
		i--;
	XLogFileName(name, history->stretches[i].tli, segment, wal_segment_size);
	return name;
}

/*
 * Does the restore_command that the node is to have serve the WAL from lsn up
 * to what this server has?  Some of the segments are tried, the first and the
 * last among them.
 */
static bool
archive_serves(Job *job, XLogRecPtr lsn)
{
	char	   *command = job_restore_command(job);
	XLogSegNo	first = lsn / wal_segment_size;
	XLogSegNo	last = job->primary.oldest_wal / wal_segment_size - 1;
	RemoteLimits limits = {.timeout_ms = ARCHIVE_TIMEOUT_MS};
	RemoteReply reply;
	const char *arguments[4 + ARCHIVE_PROBES + 1];
	int			n = 0;

	if (command == NULL)
		return false;
	arguments[n++] = job->node.pgdata;
	arguments[n++] = job->request->settings->node_bin_dir;
	arguments[n++] = command;
	arguments[n++] = psprintf("%d", wal_segment_size);
	for (int i = 0; i < ARCHIVE_PROBES; i++)
	{
		XLogSegNo	segment = first + (last - first) * i / (ARCHIVE_PROBES - 1);

		if (i == 0 || segment > first + (last - first) * (i - 1) / (ARCHIVE_PROBES - 1))
			arguments[n++] = segment_name(&job->primary.history, segment);
	}
	arguments[n] = NULL;
	remote_run(job->ssh, &remote_archive, arguments, &limits, &reply);
	return reply.ok && remote_says(&reply, "served", "yes");
}

bool
survey_wal_is_available(Job *job, XLogRecPtr lsn)
{
	job->primary.oldest_wal = oldest_wal(job->primary.flush_lsn);
	return lsn >= job->primary.oldest_wal || archive_serves(job, lsn);
}

/* If the WAL that the node needs next is gone from here, who has it? */
static void
survey_archive(Job *job)
{
	NodeFacts  *node = &job->node;
	char	   *command = job_restore_command(job);

	if (node->pgdata_state != PGDATA_OK || XLogRecPtrIsInvalid(node->lsn) ||
		node->lsn >= job->primary.oldest_wal)
		return;
	node->archive_serves = archive_serves(job, node->lsn);
	node->archive_needs_restart = job->primary.version_num < 140000 && command &&
		(node->restore_command == NULL || strcmp(node->restore_command, command) != 0);
}

/* Is the node's data directory the one that this server runs on? */
static bool
is_this_server(const RemoteReply *reply)
{
	char		boot_id[64] = "";
	const char *theirs = remote_get(reply, "boot_id");
	const char *inode = remote_get(reply, "pgdata_inode");
	struct stat st;
	FILE	   *file = AllocateFile("/proc/sys/kernel/random/boot_id", "r");

	if (file)
	{
		if (fgets(boot_id, sizeof(boot_id), file))
			boot_id[strcspn(boot_id, "\n")] = '\0';
		FreeFile(file);
	}
	return theirs && inode && boot_id[0] != '\0' && strcmp(theirs, boot_id) == 0 &&
		stat(DataDir, &st) == 0 &&
		strcmp(inode, psprintf("%llu:%llu", (unsigned long long) st.st_dev,
							   (unsigned long long) st.st_ino)) == 0;
}

/* listen_addresses, if that is one real address or name. */
static char *
only_listen_address(void)
{
	const char *all = ListenAddresses ? ListenAddresses : "";

	if (all[0] == '\0' || strpbrk(all, ", ") != NULL || strcmp(all, "*") == 0 ||
		strcmp(all, "0.0.0.0") == 0 || strcmp(all, "::") == 0 ||
		strcmp(all, "localhost") == 0)
		return NULL;
	return pstrdup(all);
}

/*
 * Connects to the node.  Returns false when it is down as a whole: neither its
 * SSH nor its PostgreSQL port answers.
 */
static bool
connect_node(Job *job)
{
	const Request *request = job->request;
	const Settings *settings = request->settings;
	MemoryContext context = CurrentMemoryContext;
	SshTarget	target = {
		.host = request->node_host,
		.port = settings->ssh_port,
		.user = settings->ssh_user,
		.key_file = settings->ssh_key_file,
		.known_hosts_file = settings->ssh_known_hosts_file,
		.host_key_checking = (SshHostKeyChecking) settings->ssh_host_key_checking,
		.connect_timeout_ms = settings->connect_timeout * 1000
	};
	volatile bool connected = true;

	PG_TRY();
	{
		job->ssh = ssh_connect(&target);
	}
	PG_CATCH();
	{
		ErrorData  *error;
		NetFailure	failure;
		char	   *cause;
		pgsocket	sock;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		if (error->sqlerrcode != ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION ||
			request->rejoin_when_down)
			PG_RE_THROW();
		FlushErrorState();

		sock = net_try_connect(request->node_host, request->node_port,
							   TimestampTzPlusMilliseconds(GetCurrentTimestamp(), target.connect_timeout_ms),
							   &failure, &cause);
		if (sock != PGINVALID_SOCKET)
			net_close(sock);
		if (failure == NET_OK || failure == NET_UNKNOWN_HOST)
			ReThrowError(error);
		connected = false;
	}
	PG_END_TRY();
	return connected;
}

void
survey(Job *job)
{
	const Request *request = job->request;
	const Settings *settings = request->settings;
	MemoryContext caller = MemoryContextSwitchTo(job->context);
	RemoteLimits limits = {.timeout_ms = SURVEY_TIMEOUT_MS};
	RemoteReply reply;
	StringInfoData records;

	/* A server that a step has stopped cannot be asked again. */
	const char *pgdata = request->node_pgdata ? request->node_pgdata : job->node.pgdata;

	memset(&job->primary, 0, sizeof(job->primary));
	survey_primary(job);
	if (job->primary.in_recovery)
	{
		MemoryContextSwitchTo(caller);
		return;
	}

	check_rewind_user(job);
	memset(&job->node, 0, sizeof(job->node));
	job->ntablespaces = 0;
	if (job->ssh == NULL && !connect_node(job))
	{
		job->node.state = NODE_DOWN;
		job->node.bin_version_major = job->primary.version_num / 10000;
		job_detail(job, "neither SSH nor PostgreSQL answers on %s", request->node_host);
		MemoryContextSwitchTo(caller);
		return;
	}

	initStringInfo(&records);
	for (int i = Max(1, job->primary.history.length - 4); i < job->primary.history.length; i++)
	{
		const Stretch *stretch = &job->primary.history.stretches[i];

		appendStringInfo(&records, "%s %s ", record_name(stretch->tli, stretch->begin),
						 record_name(stretch[-1].tli, stretch->begin));
	}

	remote_run(job->ssh, &remote_survey,
			   (const char *[]) {
		pgdata ? pgdata : "",
			psprintf("%d", request->node_port),
			settings->node_bin_dir,
			request->config_file ? request->config_file : "",
			settings->rewind_user,
			settings->rewind_database,
			settings->passfile,
			psprintf("%d", wal_segment_size),
			request->node_host,
			records.data,
			NULL
	},
			   &limits, &reply);
	if (remote_failed_for(&reply, "foreign_config"))
		ereport(ERROR,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("node %s:%d has another configuration file", request->node_host, request->node_port),
				 errdetail("%s", reply.messages),
				 errhint("Correct config_file or pgdata in the node's row of follow_primary_node.")));
	if (!reply.ok)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FILE),
				 errmsg("node %s:%d cannot be surveyed", request->node_host, request->node_port),
				 errdetail("%s", reply.messages),
				 errhint("Set follow_primary.node_bin_dir, or node_bin_dir in the node's row, to the directory of PostgreSQL's programs there.")));

	survey_read_node(job, &reply);
	survey_primary_again(job);
	find_former_slot(job, &reply);
	job->node.is_this_server = is_this_server(&reply);
	job->keep_slots = downstream_slots(job, &reply);
	if (!job->node.is_this_server)
		survey_archive(job);

	job->primary_host = request->primary_host;
	if (job->primary_host == NULL)
		job->primary_host = only_listen_address();
	if (job->primary_host == NULL && remote_get(&reply, "ssh_client") &&
		remote_get(&reply, "ssh_client")[0] != '\0')
		job->primary_host = pstrdup(remote_get(&reply, "ssh_client"));
	if (job->primary_host == NULL)
		job->primary_host = pstrdup(ssh_local_address(job->ssh));

	job_detail(job, "the node %s; timeline %u, WAL up to %X/%X",
			   job->node.state == NODE_PRIMARY ? "runs as a primary" :
			   job->node.state == NODE_STANDBY ? "is a standby" : "is down",
			   job->node.timeline, (uint32) (job->node.lsn >> 32), (uint32) job->node.lsn);
	MemoryContextSwitchTo(caller);
}
