/*
 * folders.c
 *		The folders that hold a node's data, and the room for a copy of them.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "utils/memutils.h"

#include "compat.h"
#include "folders.h"
#include "record.h"

/* What a copy brings of WAL: the segment that it begins in, and one more. */
#define WAL_OF_A_COPY		(2 * (int64) wal_segment_size)

SqlResult *
primary_tablespaces(void)
{
	return sql_run("SELECT oid, pg_tablespace_location(oid) FROM pg_tablespace "
				   "WHERE pg_tablespace_location(oid) LIKE '/%' ORDER BY oid", 0, NULL);
}

char *
node_tablespace(const Job *job, Oid oid, char *here)
{
	for (int i = 0; job && i < job->ntablespaces; i++)
		if (job->tablespace_oids[i] == oid)
			return job->tablespaces[i];
	return here;
}

const char **
mapped_tablespaces(const Job *job, int column)
{
	SqlResult  *rows = primary_tablespaces();
	const char **list = palloc0(sizeof(char *) * (2 * rows->nrows + 1));

	for (int i = 0; i < rows->nrows; i++)
	{
		list[2 * i] = sql_value(rows, i, column);
		list[2 * i + 1] = node_tablespace(job, (Oid) strtoul(sql_value(rows, i, TABLESPACE_OID), NULL, 10),
										  sql_value(rows, i, TABLESPACE_LOCATION));
	}
	return list;
}

/* Adds the tablespaces that only this server has to the node's folders. */
static void
add_new_tablespaces(Job *job)
{
	SqlResult  *rows = primary_tablespaces();
	MemoryContext caller = MemoryContextSwitchTo(job->context);
	int			capacity = job->ntablespaces + rows->nrows + 1;
	char	  **locations = palloc0(sizeof(char *) * capacity);
	Oid		   *oids = palloc0(sizeof(Oid) * capacity);
	int			n = job->ntablespaces;

	memcpy(locations, job->tablespaces, sizeof(char *) * n);
	memcpy(oids, job->tablespace_oids, sizeof(Oid) * n);
	for (int i = 0; i < rows->nrows; i++)
	{
		Oid			oid = (Oid) strtoul(sql_value(rows, i, 0), NULL, 10);
		char	   *here = sql_value(rows, i, 1);

		if (node_tablespace(job, oid, here) == here)
		{
			oids[n] = oid;
			locations[n++] = pstrdup(here);
		}
	}
	job->tablespaces = locations;
	job->tablespace_oids = oids;
	job->ntablespaces = n;
	MemoryContextSwitchTo(caller);
}

/* How space.sh numbers them. */
enum
{
	FOLDER_PGDATA,
	FOLDER_WAL,
	FOLDER_TABLESPACE
};

/* What a copy will take up in each folder: the caller frees. */
static int64 *
needed_room(const Job *job)
{
	int64	   *needed = palloc0(sizeof(int64) * (FOLDER_TABLESPACE + job->ntablespaces));
	SqlResult  *rows = sql_run("SELECT oid, pg_tablespace_size(oid), pg_tablespace_location(oid) LIKE '/%' "
							   "FROM pg_tablespace", 0, NULL);

	for (int i = 0; i < rows->nrows; i++)
	{
		Oid			oid = (Oid) strtoul(sql_value(rows, i, 0), NULL, 10);
		int64		size = sql_value(rows, i, 1) ? strtoll(sql_value(rows, i, 1), NULL, 10) : 0;

		if (strcmp(sql_value(rows, i, 2), "t") != 0)
			needed[FOLDER_PGDATA] += size;
		else
			for (int j = 0; j < job->ntablespaces; j++)
				if (job->tablespace_oids[j] == oid)
					needed[FOLDER_TABLESPACE + j] += size;
	}
	needed[job->waldir[0] ? FOLDER_WAL : FOLDER_PGDATA] += WAL_OF_A_COPY;
	return needed;
}

bool
folders_missing_room(const Job *job, const RemoteReply *reply, const int64 *needed,
					 StringInfo where, int64 *missing)
{
	int64		all_needed = 0;
	int64		all_room = 0;
	int			n = FOLDER_TABLESPACE + job->ntablespaces;

	*missing = 0;
	for (int i = 0; i < n; i++)
	{
		const char *device = remote_get(reply, psprintf("device_%d", i));
		int64		room;
		int64		need = 0;
		bool		first = true;

		if (i == FOLDER_WAL && job->waldir[0] == '\0')
			continue;
		if (device == NULL || !remote_number(reply, psprintf("free_%d", i), &room))
			return false;
		for (int j = 0; j < n; j++)
		{
			const char *other = remote_get(reply, psprintf("device_%d", j));
			int64		freed;

			if (other == NULL || strcmp(other, device) != 0)
				continue;
			first = first && j >= i;
			need += needed[j];
			if (remote_number(reply, psprintf("unfinished_%d", j), &freed))
				room += freed;
			if (remote_number(reply, psprintf("used_%d", j), &freed))
				room += freed;
		}
		if (!first)
			continue;
		all_needed += need;
		all_room += room;
		if (room >= need)
			continue;
		*missing += need - room;
		if (where)
			appendStringInfo(where, "%son the file system of \"%s\" about " INT64_FORMAT " MB are needed, " INT64_FORMAT " MB are free, " INT64_FORMAT " MB are missing",
							 where->len > 0 ? "; " : "",
							 i == FOLDER_PGDATA ? job->node.pgdata :
							 i == FOLDER_WAL ? job->waldir :
							 job->tablespaces[i - FOLDER_TABLESPACE],
							 need >> 20, room >> 20, ((need - room - 1) >> 20) + 1);
	}
	if (where && *missing == 0)
		appendStringInfo(where, INT64_FORMAT " MB needed, " INT64_FORMAT " MB free",
						 all_needed >> 20, all_room >> 20);
	return true;
}

/*
 * Asks for the room, and returns the bytes that are missing; with used, those
 * that are missing once the old data is removed.
 */
static int64
ask_for_room(Job *job, bool used, const int64 *needed, StringInfo where)
{
	RemoteLimits limits = {.timeout_ms = job->request->settings->progress_timeout * 1000};
	RemoteReply reply;
	int64		missing;

	remote_run(job->ssh, &remote_space,
			   JOB_NAMED(job,
						 {"version", NUMBER(job->primary.version_num)},
						 {"used", used ? "yes" : "no"},
						 {"waldir", job->waldir}),
			   TABLESPACES(job), &limits, &reply);
	if (!reply.ok || !folders_missing_room(job, &reply, needed, where, &missing))
		ereport(ERROR,
				(errcode(ERRCODE_EXTERNAL_ROUTINE_EXCEPTION),
				 errmsg("the free space on node %s could not be found out", node_name(job)),
				 reply.messages[0] ? errdetail("%s", reply.messages) : 0));
	return missing;
}

void
folders_look_for_room(Job *job, RoomFacts *room)
{
	int64	   *needed;
	StringInfoData where;

	memset(room, 0, sizeof(*room));
	add_new_tablespaces(job);
	needed = needed_room(job);
	initStringInfo(&where);
	room->missing = ask_for_room(job, false, needed, &where);
	room->where = where.data;
	if (room->missing > 0)
		room->missing_without_old = ask_for_room(job, true, needed, NULL);
}
