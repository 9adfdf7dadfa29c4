/*
 * divergence.c
 *		Whether the node's WAL leaves this server's history where the histories
 *		of their timelines do not tell.
 *
 * Two places tell.  Where this server's history begins a timeline: the first
 * record there holds the time of the promotion, so a server that was promoted
 * separately to the same timeline has another one.  And a node that is still on
 * the timeline before must have none there: if it has, it has WAL that this
 * server has not, replayed or not.  The other place is the node's last
 * checkpoint, which is the last record of all where a primary was shut down.
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "catalog/pg_control.h"
#include "storage/fd.h"

#include <ctype.h>
#include <time.h>
#include <unistd.h>

#include "compat.h"
#include "divergence.h"

#define RAW_RECORD			64	/* with the longest page header; survey.sh
								 * reads as much */
#define OWN_RAW_RECORD		256 /* that with a checkpoint in it */
#define NEWEST_TIMELINES	4	/* whose beginnings are looked at on the node */

/* The header of a WAL record; its checksum and the one before it are in it. */
typedef struct RecordHeader
{
	unsigned char bytes[SizeOfXLogRecord];
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

	/*
	 * A segment in which timelines change is best found under the newest.  What
	 * one has behind its end, as from the archive, is not of this history.
	 */
	XLByteToSeg(lsn, segment, wal_segment_size);
	for (int i = history->length - 1; i >= 0; i--)
	{
		XLogSegNo	begin;
		char		path[MAXPGPATH];
		int			fd;
		int			len;

		if (!XLogRecPtrIsInvalid(history->stretches[i].end) &&
			lsn >= history->stretches[i].end)
			return false;
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

/* How survey.sh's answer names a record. */
static char *
record_name(TimeLineID tli, XLogRecPtr lsn)
{
	return psprintf("%X/%s", tli, lsn_text(lsn));
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
	return len > 0 && pick_record(raw, len, lsn, header->bytes, SizeOfXLogRecord);
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
	return memcmp(a->bytes, b->bytes, SizeOfXLogRecord) == 0;
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
				   const RemoteReply *reply)
{
	const char *tli = remote_control_value(reply, "Latest checkpoint's TimeLineID");
	const char *xid = remote_control_value(reply, "Latest checkpoint's NextXID");
	const char *oid = remote_control_value(reply, "Latest checkpoint's NextOID");
	const char *text = remote_control_value(reply, "Time of latest checkpoint");
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
	uint64		their_xid;

	/*
	 * A standby's control file has the next XID of the latest checkpoint that
	 * it has replayed (xlog_redo() in xlog.c), whose place it takes over only
	 * at its next restartpoint: it may be later.  A primary that was shut down
	 * has what it wrote.
	 */
	if (tli == NULL || oid == NULL || text == NULL ||
		xid == NULL || sscanf(xid, "%u:%u", &epoch, &next_xid) != 2 ||
		!lsn_parse(remote_control_value(reply, "Latest checkpoint location"), &lsn) ||
		!lsn_parse(remote_control_value(reply, "Latest checkpoint's REDO location"), &redo))
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
	their_xid = (uint64) epoch << 32 | next_xid;
	if (checkpoint.redo == redo && checkpoint.nextOid == strtoul(oid, NULL, 10) &&
		(CHECKPOINT_NEXT_XID(&checkpoint) == their_xid ||
		 (CHECKPOINT_NEXT_XID(&checkpoint) < their_xid && !(node->clean_shutdown && node->was_primary))) &&
		strcmp(when_text, text) == 0)
		return LIKENESS_SAME;
	return LIKENESS_OTHER;
}

/* A record for survey.sh to read, under its name, from the segment's file. */
static void
ask_for_record(StringInfo records, TimeLineID tli, XLogRecPtr lsn)
{
	XLogSegNo	segment;
	char		file[MAXFNAMELEN];

	XLByteToSeg(lsn, segment, wal_segment_size);
	XLogFileName(file, tli, segment, wal_segment_size);
	appendStringInfo(records, "%s:%s:%u ", record_name(tli, lsn), file,
					 (unsigned int) XLogSegmentOffset(lsn, wal_segment_size));
}

char *
divergence_records(const History *history)
{
	StringInfoData records;

	initStringInfo(&records);
	for (int i = Max(1, history->length - NEWEST_TIMELINES); i < history->length; i++)
	{
		const Stretch *stretch = &history->stretches[i];

		ask_for_record(&records, stretch->tli, stretch->begin);
		ask_for_record(&records, stretch[-1].tli, stretch->begin);
	}
	return records.data;
}

void
divergence_find(const PrimaryFacts *primary, NodeFacts *node, const RemoteReply *reply)
{
	const History *history = &primary->history;
	RecordHeader ours;
	RecordHeader theirs;
	bool		ends = node->timeline == primary->timeline;

	for (int i = Max(1, history->length - NEWEST_TIMELINES); i < history->length; i++)
	{
		XLogRecPtr	begin = history->stretches[i].begin;

		if (!own_record(history, begin, ours.bytes, SizeOfXLogRecord))
			continue;
		if (node->timeline >= history->stretches[i].tli &&
			shares(node, &history->stretches[i]) &&
			node_header(reply, history->stretches[i].tli, begin, &theirs) &&
			same_predecessor(&ours, &theirs) && !same_record(&ours, &theirs))
		{
			node->forked_unseen = true;
			if (node->unseen_fork_timeline == 0)
				node->unseen_fork_timeline = history->stretches[i].tli;
		}
		if (node->timeline == history->stretches[i - 1].tli)
		{
			if (node_header(reply, node->timeline, begin, &theirs) &&
				same_predecessor(&ours, &theirs))
				node->lsn = Max(node->lsn, begin + SizeOfXLogRecord);
			else
				ends = true;
		}
	}
	node->ended_here = node->clean_shutdown && !node->was_primary && ends;

	switch (compare_checkpoint(primary, node, reply))
	{
		case LIKENESS_OTHER:
			node->forked_unseen = true;
			break;
		case LIKENESS_SAME:
			if (node->clean_shutdown && node->was_primary)
			{
				/* It went no further: it has no WAL of its own. */
				node->ended_here = true;
				node->was_primary = false;
			}
			break;
		case LIKENESS_UNKNOWN:
			break;
	}
}
