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
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "miscadmin.h"
#include "postmaster/postmaster.h"
#include "replication/slot.h"
#include "replication/walsender.h"
#include "storage/fd.h"
#include "utils/pg_lsn.h"

#include <sys/stat.h>
#include <unistd.h>

#include "compat.h"
#include "net.h"
#include "recovery_conf.h"
#include "sql.h"
#include "survey.h"

#define SURVEY_TIMEOUT_MS	60000
#define WAL_RECORD_HEADER	24	/* SizeOfXLogRecord; survey.sh reads as much */

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

static void
survey_primary(Job *job)
{
	PrimaryFacts *facts = &job->primary;
	const char *slot[] = {job->request->slot_name};
	SqlResult  *row;

	facts->in_recovery = RecoveryInProgress();
	facts->version_num = PG_VERSION_NUM;
	facts->system_id = GetSystemIdentifier();
	facts->full_page_writes = fullPageWrites;
	if (facts->in_recovery)
		return;

	row = sql_run("SELECT pg_walfile_name(pg_current_wal_insert_lsn()), pg_current_wal_flush_lsn(), "
				  "(SELECT count(*) FROM pg_replication_slots), "
				  "(SELECT count(*) FROM pg_stat_get_wal_senders() WHERE pid IS NOT NULL)", 0, NULL);
	facts->timeline = (TimeLineID) strtoul(pnstrdup(sql_value(row, 0, 0), 8), NULL, 16);
	parse_lsn(sql_value(row, 0, 1), &facts->flush_lsn);
	facts->free_slots = max_replication_slots - atoi(sql_value(row, 0, 2));
	facts->free_wal_senders = max_wal_senders - atoi(sql_value(row, 0, 3));
	read_own_history(facts->timeline, &facts->history);

	/* The oldest segment that all later ones follow without a gap. */
	row = sql_run("SELECT right(name, 16) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$' "
				  "GROUP BY 1 ORDER BY 1 DESC", 0, NULL);
	for (int i = 0; i < row->nrows; i++)
	{
		uint64		hi = strtoul(pnstrdup(sql_value(row, i, 0), 8), NULL, 16);
		uint64		lo = strtoul(sql_value(row, i, 0) + 8, NULL, 16);
		XLogRecPtr	begin = (hi << 32) + lo * wal_segment_size;

		/* Segments that are prepared for the future come first. */
		if (facts->oldest_wal != 0 && begin + wal_segment_size != facts->oldest_wal &&
			facts->oldest_wal <= facts->flush_lsn)
			break;
		facts->oldest_wal = begin;
	}

	row = sql_run("SELECT slot_type, active, " SLOT_IS_LOST ", "
				  "restart_lsn IS NULL AND NOT active, application_name "
				  "FROM pg_replication_slots s LEFT JOIN pg_stat_replication r ON r.pid = s.active_pid "
				  "WHERE slot_name = $1", 1, slot);
	if (row->nrows > 0)
	{
		facts->slot_exists = true;
		facts->slot_logical = strcmp(sql_value(row, 0, 0), "logical") == 0;
		facts->slot_active = strcmp(sql_value(row, 0, 1), "t") == 0;
		facts->slot_lost = strcmp(sql_value(row, 0, 2), "t") == 0 ||
			strcmp(sql_value(row, 0, 3), "t") == 0;
		facts->slot_client = sql_value(row, 0, 4);
	}
}

/*
 * The header, checksum included, of the first record that this server wrote or
 * replayed on a timeline, in hexadecimal, or NULL if its WAL is gone.  It holds
 * the time of the promotion, so another server that was promoted separately
 * to the same timeline has another one there.
 */
static char *
first_record(const Stretch *stretch, TimeLineID last_timeline)
{
	XLogSegNo	segment;
	char		path[MAXPGPATH];
	uint64		offset = XLogSegmentOffset(stretch->begin, wal_segment_size);
	unsigned char header[WAL_RECORD_HEADER];
	char	   *text = palloc(2 * WAL_RECORD_HEADER + 1);
	int			fd;
	bool		whole;

	if (offset == 0)
		offset += SizeOfXLogLongPHD;
	else if (offset % XLOG_BLCKSZ == 0)
		offset += SizeOfXLogShortPHD;
	XLByteToSeg(stretch->begin, segment, wal_segment_size);
	XLogFilePath(path, stretch->tli, segment, wal_segment_size);
	fd = BasicOpenFile(path, O_RDONLY | PG_BINARY);
	if (fd < 0)
		return NULL;
	whole = pread(fd, header, sizeof(header), offset) == sizeof(header);
	close(fd);
	if (!whole)
		return NULL;
	for (int i = 0; i < WAL_RECORD_HEADER; i++)
		sprintf(text + 2 * i, "%02x", header[i]);
	return text;
}

/* How survey.sh and its answer name the first record of a timeline. */
static char *
record_name(const Stretch *stretch)
{
	return psprintf("%X/%X/%X", stretch->tli, (uint32) (stretch->begin >> 32),
					(uint32) stretch->begin);
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

static NodeMark
read_mark(const char *mark)
{
	if (mark == NULL)
		return MARK_NONE;
	if (strstr(mark, "phase=ready") || strstr(mark, "phase=rewound"))
		return MARK_CHANGED;
	if (strstr(mark, "phase=swapping"))
		return MARK_HALF_SWAPPED;
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

	node->sql = strcmp(remote_get(reply, "sql"), "yes") == 0;
	if (!node->sql)
	{
		value = remote_get(reply, "sql_error");
		node->sql_error = value ? sql_text(value) : NULL;
		node->state = (signal && strstr(signal, "standby.signal")) ||
			(status && strncmp(status, "standby", 7) == 0) ? NODE_STANDBY : NODE_PRIMARY;
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
	node->receiver_slot = value ? pstrdup(value) : NULL;
	value = remote_get(reply, "sql.paused");
	node->replay_paused = value && strcmp(value, "true") == 0;
	value = remote_get(reply, "set.primary_conninfo");
	node->conninfo = value ? pstrdup(value) : NULL;
	node->application_name = conninfo_value(node->conninfo, "application_name");
	value = remote_get(reply, "set.recovery_target_timeline");
	node->target_timeline_latest = value && strcmp(value, "latest") == 0;
	value = remote_get(reply, "set.hot_standby");
	node->hot_standby = value == NULL || strcmp(value, "on") == 0;
	value = remote_get(reply, "set.server_version_num");
	node->conninfo_reloadable = value && atoi(value) >= 130000;
}

void
survey_read_node(Job *job, const RemoteReply *reply)
{
	NodeFacts  *node = &job->node;
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
	node->version_major = major_of(remote_get(reply, "version"));
	node->bin_version_major = major_of(remote_get(reply, "bin_version"));
	node->mark = read_mark(remote_get(reply, "mark"));
	value = remote_get(reply, "home");
	job->node_home = pstrdup(value ? value : "");
	value = remote_get(reply, "config_file");
	job->config_file = pstrdup(value ? value : "");
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
		value = control_value(control, "wal_log_hints setting");
		node->wal_log_hints = value && strcmp(value, "on") == 0;
		value = control_value(control, "Data page checksum version");
		node->checksums = value && atoi(value) > 0;
		value = control_value(control, "Latest checkpoint's TimeLineID");
		node->timeline = value ? (TimeLineID) strtoul(value, NULL, 10) : 0;
		parse_lsn(control_value(control, "Latest checkpoint location"), &node->lsn);
		value = control_value(control, "Min recovery ending loc's timeline");
		if (value && (TimeLineID) strtoul(value, NULL, 10) > node->timeline)
			node->timeline = (TimeLineID) strtoul(value, NULL, 10);
	}

	value = remote_get(reply, "set.restore_command");
	node->restore_command = value ? pstrdup(value) : NULL;
	if (remote_get(reply, "pid"))
		read_running(job, reply);
	else
		node->state = NODE_DOWN;

	if (node->timeline != 0)
	{
		key = psprintf("history.%08X", node->timeline);
		value = remote_get(reply, key);
		if (value != NULL || node->timeline == 1)
			node->history_known = history_parse(value, node->timeline, &node->history);
	}

	/* Same timelines: is it the same WAL at the beginning of each? */
	for (int i = 1; i < job->primary.history.length; i++)
	{
		const Stretch *stretch = &job->primary.history.stretches[i];
		char	   *ours;

		value = remote_get(reply, psprintf("record.%s", record_name(stretch)));
		if (stretch->tli > node->timeline || value == NULL ||
			strlen(value) != 2 * WAL_RECORD_HEADER ||
			strspn(value, "0") == strlen(value))
			continue;
		ours = first_record(stretch, job->primary.timeline);
		if (ours && strcmp(ours, value) != 0)
			node->forked_unseen = true;
	}
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

	memset(&job->primary, 0, sizeof(job->primary));
	survey_primary(job);
	if (job->primary.in_recovery)
	{
		MemoryContextSwitchTo(caller);
		return;
	}

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
		appendStringInfo(&records, "%s ", record_name(&job->primary.history.stretches[i]));

	remote_run(job->ssh, &remote_survey,
			   (const char *[]) {
		request->node_pgdata ? request->node_pgdata : "",
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
	if (!reply.ok)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FILE),
				 errmsg("node %s:%d cannot be surveyed", request->node_host, request->node_port),
				 errdetail("%s", reply.messages),
				 errhint("Set follow_primary.node_bin_dir, or node_bin_dir in the node's row, to the directory of PostgreSQL's programs there.")));

	survey_read_node(job, &reply);
	job->node.is_this_server = is_this_server(&reply);

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
