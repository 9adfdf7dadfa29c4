/*
 * readable.c
 *		Can the files of this server be read from its beginning to its end?
 *
 * pg_rewind and pg_basebackup read nearly all that is in the data directory,
 * whoever has put it there.  pg_rewind does so by functions of this server, when
 * it has begun to change the node: a file of root, or a socket, would leave the
 * node half-changed.  This server can look at them before.
 *
 * What the two leave out is in src/bin/pg_rewind/filemap.c and in
 * src/backend/backup/basebackup.c of PostgreSQL.  pg_rewind follows symbolic links
 * and opens what is no file; pg_basebackup does neither.
 */
#include "postgres.h"

#include <sys/stat.h>
#include <unistd.h>

#include "miscadmin.h"
#include "storage/fd.h"

#include "compat.h"
#include "readable.h"

/* Symbolic links that a path may have before the kernel gives up (SYMLOOP_MAX). */
#define MAX_DEPTH	40

/* A folder and those above it. */
typedef struct Folder
{
	const char *path;			/* relative to the data directory */
	struct stat st;
	const struct Folder *above;
	int			depth;
} Folder;

/* Folders whose contents are relations, or are left out by both. */
static const char *const skipped_folders[] = {
	"./base", "./pg_tblspc",
	"./pg_dynshmem", "./pg_notify", "./pg_replslot", "./pg_serial",
	"./pg_snapshots", "./pg_stat_tmp", "./pg_subtrans"
};

/* Files that are left out by both. */
static const char *const skipped_files[] = {
	"backup_label", "backup_manifest", "current_logfiles.tmp", "postgresql.auto.conf.tmp",
	"postmaster.opts", "postmaster.pid", "tablespace_map"
};

static bool
is_one_of(const char *name, const char *const *names, int n)
{
	for (int i = 0; i < n; i++)
		if (strcmp(name, names[i]) == 0)
			return true;
	return false;
}

static bool
is_skipped_file(const char *name)
{
	return is_one_of(name, skipped_files, lengthof(skipped_files)) ||
		strncmp(name, PG_TEMP_FILES_DIR, strlen(PG_TEMP_FILES_DIR)) == 0 ||
		strncmp(name, "pg_internal.init", strlen("pg_internal.init")) == 0;
}

static Obstacle *
obstacle(ObstacleKind kind, const char *path, const char *cause)
{
	Obstacle   *found = palloc(sizeof(Obstacle));

	found->kind = kind;
	found->path = psprintf("%s/%s", DataDir, path + strlen("./"));
	found->cause = pstrdup(cause);
	return found;
}

/* The folder of the same inode above this one, which a link leads back to. */
static bool
is_above(const Folder *folder, const struct stat *st)
{
	for (; folder; folder = folder->above)
		if (folder->st.st_dev == st->st_dev && folder->st.st_ino == st->st_ino)
			return true;
	return false;
}

static Obstacle *look_into(const Folder *folder, bool for_rewind);

/* A file or a folder that is in one. */
static Obstacle *
look_at(const char *path, const char *name, const Folder *above, bool for_rewind)
{
	Folder		folder = {.path = path, .above = above, .depth = above->depth + 1};

	if (is_skipped_file(name))
		return NULL;
	if ((for_rewind ? stat(path, &folder.st) : lstat(path, &folder.st)) != 0)
	{
		/* It has gone meanwhile, or is a link that leads nowhere, which is ignored. */
		if (errno == ENOENT)
			return NULL;
		return obstacle(errno == ELOOP ? OBSTACLE_LOOP : OBSTACLE_UNREADABLE, path, strerror(errno));
	}
	if (S_ISDIR(folder.st.st_mode))
	{
		if (is_one_of(path, skipped_folders, lengthof(skipped_folders)) ||
			(!for_rewind && strcmp(path, "./pg_wal") == 0))
			return NULL;
		if (folder.depth > MAX_DEPTH || is_above(above, &folder.st))
			return obstacle(OBSTACLE_LOOP, path, strerror(ELOOP));
		return look_into(&folder, for_rewind);
	}
	if (S_ISREG(folder.st.st_mode))
		return access(path, R_OK) == 0 || errno == ENOENT ? NULL :
			obstacle(OBSTACLE_UNREADABLE, path, strerror(errno));
	if (!for_rewind)
		return NULL;
	return obstacle(OBSTACLE_SPECIAL, path,
					S_ISSOCK(folder.st.st_mode) ? "it is a socket" :
					S_ISFIFO(folder.st.st_mode) ? "it is a named pipe" : "it is a device");
}

static Obstacle *
look_into(const Folder *folder, bool for_rewind)
{
	DIR		   *dir = AllocateDir(folder->path);
	struct dirent *entry;
	Obstacle   *found = NULL;

	if (dir == NULL)
		return errno == ENOENT ? NULL : obstacle(OBSTACLE_UNREADABLE, folder->path, strerror(errno));
	while (found == NULL && (entry = ReadDirExtended(dir, folder->path, LOG)) != NULL)
	{
		char	   *path;

		CHECK_FOR_INTERRUPTS();
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		path = psprintf("%s/%s", folder->path, entry->d_name);
		found = look_at(path, entry->d_name, folder, for_rewind);
		pfree(path);
	}
	FreeDir(dir);
	return found;
}

Obstacle *
readable_obstacle(bool for_rewind)
{
	Folder		top = {.path = "."};

	if (stat(top.path, &top.st) != 0)
		return obstacle(OBSTACLE_UNREADABLE, "./", strerror(errno));
	return look_into(&top, for_rewind);
}
