/*
 * wal.c
 *		Where the WAL can be had that the node needs: here, or in an archive.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "access/xlog_internal.h"

#include "compat.h"
#include "recovery_conf.h"
#include "remote.h"
#include "sql.h"
#include "wal.h"

#define ARCHIVE_TIMEOUT_MS	600000
#define ARCHIVE_PROBES		16

XLogRecPtr
wal_oldest(XLogRecPtr flush_lsn)
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

/* Adds a line: the first and the last segment of a range, if there is any in it. */
static void
add_segments(StringInfo names, TimeLineID tli, XLogSegNo first, XLogSegNo end)
{
	char		name[MAXFNAMELEN];

	if (first >= end)
		return;
	XLogFileName(name, tli, first, wal_segment_size);
	appendStringInfo(names, "%s ", name);
	XLogFileName(name, tli, end - 1, wal_segment_size);
	appendStringInfo(names, "%s\n", name);
}

char *
wal_archived_names(const History *history, XLogRecPtr oldest)
{
	StringInfoData names;
	XLogSegNo	here = oldest / wal_segment_size;
	TimeLineID	newest = 1;

	initStringInfo(&names);
	for (int i = 0; i < history->length; i++)
	{
		const Stretch *stretch = &history->stretches[i];
		XLogSegNo	first = stretch->begin / wal_segment_size;
		bool		is_last = i + 1 == history->length;

		/* Only under the new timeline is the segment of a switchpoint all ours. */
		add_segments(&names, stretch->tli, first,
					 is_last ? here : stretch->end / wal_segment_size);
		if (first < here)
			newest = stretch->tli;
	}
	/* A server looks for one history after the other. */
	if (newest > 1)
		appendStringInfo(&names, "00000002.history %08X.history\n", newest);
	return names.data;
}

bool
wal_command_serves(Job *job, const char *command, const char *pgdata, XLogRecPtr lsn)
{
	XLogSegNo	first = lsn / wal_segment_size;
	XLogSegNo	last = job->primary.oldest_wal / wal_segment_size - 1;
	RemoteLimits limits = {.timeout_ms = ARCHIVE_TIMEOUT_MS};
	RemoteReply reply;
	const char *segments[ARCHIVE_PROBES + 1];
	int			n = 0;

	for (int i = 0; i < ARCHIVE_PROBES; i++)
	{
		XLogSegNo	segment = first + (last - first) * i / (ARCHIVE_PROBES - 1);

		if (i == 0 || segment > first + (last - first) * (i - 1) / (ARCHIVE_PROBES - 1))
			segments[n++] = segment_name(&job->primary.history, segment);
	}
	segments[n] = NULL;
	remote_run(job->ssh, &remote_archive,
			   JOB_NAMED(job,
						 {"pgdata", pgdata},
						 {"command", command},
						 {"segment_size", NUMBER(wal_segment_size)}),
			   segments, &limits, &reply);
	return reply.ok && remote_says(&reply, "served", "yes");
}

bool
wal_archive_serves(Job *job, XLogRecPtr lsn)
{
	char	   *command = job_restore_command(job);

	return command && wal_command_serves(job, command, job->node.pgdata, lsn);
}

bool
wal_is_available(Job *job, XLogRecPtr lsn)
{
	job->primary.oldest_wal = wal_oldest(job->primary.flush_lsn);
	return lsn >= job->primary.oldest_wal || wal_archive_serves(job, lsn);
}
