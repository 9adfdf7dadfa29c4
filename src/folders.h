/*
 * folders.h
 *		The folders that hold a node's data, and the room for a copy of them.
 *
 * They are its data directory, its WAL directory where that is a folder or a
 * mount point of its own, and its tablespaces.  How a copy takes their place is
 * told in src/remote/folders.sh.
 */
#ifndef FOLLOW_PRIMARY_FOLDERS_H
#define FOLLOW_PRIMARY_FOLDERS_H

#include "job.h"
#include "remote.h"
#include "sql.h"

/* The node's tablespaces, as scripts take them: a list of locations. */
#define TABLESPACES(job)	((const char *const *) (job)->tablespaces)

/* This server's tablespaces: OID, location. Those within PGDATA go with it. */
extern SqlResult *primary_tablespaces(void);

/*
 * Where a tablespace of this server is, or is to be, on the node: where the
 * node has it, else, or where job is NULL, at the same place as here.
 */
extern char *node_tablespace(const Job *job, Oid oid, char *here);

/* Columns of primary_tablespaces(). */
#define TABLESPACE_OID		0
#define TABLESPACE_LOCATION	1

/*
 * This server's tablespaces, as scripts take them: of each the column, and what
 * node_tablespace() says.  A rewind, whose job is NULL, puts them where they are here.
 */
extern const char **mapped_tablespaces(const Job *job, int column);

/*
 * How much room a copy needs on the node, and what is missing.  From now on
 * the job's folders are also those of tablespaces that only this server has.
 */
extern void folders_look_for_room(Job *job, RoomFacts *room);

/*
 * What space.sh said: the bytes that are missing for a copy that needs so many
 * in PGDATA, the WAL's folder and each tablespace.  With where, tells it of each
 * file system; if nothing is missing, what is needed and free.  False if not all
 * is said that there is to say.
 */
extern bool folders_missing_room(const Job *job, const RemoteReply *reply,
								 const int64 *needed, StringInfo where,
								 int64 *missing);

#endif							/* FOLLOW_PRIMARY_FOLDERS_H */
