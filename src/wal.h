/*
 * wal.h
 *		Where the WAL can be had that the node needs: here, or in an archive.
 */
#ifndef FOLLOW_PRIMARY_WAL_H
#define FOLLOW_PRIMARY_WAL_H

#include "job.h"

/*
 * Where the oldest segment in pg_wal begins that all later ones follow without
 * a gap, up to the end of WAL.
 */
extern XLogRecPtr wal_oldest(XLogRecPtr flush_lsn);

/*
 * What a node that is not proven yet may take from an archive: the names of a
 * history's WAL segments and history files, in ranges, a line each, the first and
 * the last name.  Of the last timeline those before oldest: another server may
 * have made one of the same number, and all later WAL can be streamed.
 */
extern char *wal_archived_names(const History *history, XLogRecPtr oldest);

/*
 * Does the restore_command that the node is to have serve the WAL from lsn up
 * to what this server has?  Some of the segments are tried, the first and the
 * last among them.
 */
extern bool wal_archive_serves(Job *job, XLogRecPtr lsn);

/* The same of a command, for the data directory in which it is to be run. */
extern bool wal_command_serves(Job *job, const char *command, const char *pgdata,
							   XLogRecPtr lsn);

/*
 * Can the node have the WAL from lsn on, of this server as it is now, or by
 * its restore_command, which is tried?
 */
extern bool wal_is_available(Job *job, XLogRecPtr lsn);

#endif							/* FOLLOW_PRIMARY_WAL_H */
