/*
 * slot_mark.c
 *		Which replication slots of this server are this extension's.
 *
 * A slot has no place for a remark, but it has a folder, in which the server
 * looks at files of its own alone (slot.c).  A file there lives as long as the
 * slot, outlives a restart, and is never on another server: neither pg_basebackup
 * nor pg_rewind copies what is in pg_replslot.
 *
 * A slot is made before it can be marked.  So a file beside the folders says what
 * is about to be made; a server that was killed in between finds it.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "storage/fd.h"

#include "compat.h"
#include "slot_mark.h"
#include "sql.h"

static const char *const words[] = {
	[SLOT_OF_KEEPER] = "keeper\n",
	[SLOT_OF_JOB] = "job\n"
};

static char *
mark_file(const char *slot)
{
	return psprintf("pg_replslot/%s/follow_primary", slot);
}

/* The server skips what is no folder there. */
static char *
intent_file(const char *slot)
{
	return psprintf("pg_replslot/%s.follow_primary", slot);
}

SlotMark
slot_mark(const char *slot)
{
	FILE	   *file = AllocateFile(mark_file(slot), "r");
	char		line[16] = "";
	SlotMark	mark = SLOT_OF_OTHERS;

	if (file == NULL)
		return SLOT_OF_OTHERS;
	if (fgets(line, sizeof(line), file))
		for (int i = SLOT_OF_KEEPER; i <= SLOT_OF_JOB; i++)
			if (strcmp(line, words[i]) == 0)
				mark = i;
	FreeFile(file);
	return mark;
}

static void
write_file(const char *path, const char *text)
{
	int			fd = OpenTransientFile(path, O_WRONLY | O_CREAT | O_TRUNC | PG_BINARY);

	if (fd < 0 || write(fd, text, strlen(text)) != strlen(text) || pg_fsync(fd) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not write file \"%s\": %m", path)));
	CloseTransientFile(fd);
}

void
slot_set_mark(const char *slot, SlotMark mark)
{
	write_file(mark_file(slot), words[mark]);
	fsync_fname(psprintf("pg_replslot/%s", slot), true);
}

void
slot_make_for_keeper(const char *slot)
{
	struct stat st;
	const char *intent = intent_file(slot);
	bool		was_intended = stat(intent, &st) == 0;
	bool		exists = sql_is_true("SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1)", 1, &slot);

	if (exists && !was_intended)
		return;
	if (!exists)
	{
		write_file(intent, "");
		fsync_fname("pg_replslot", true);
		sql_run("SELECT pg_create_physical_replication_slot($1, true)", 1, &slot);
	}
	if (slot_mark(slot) == SLOT_OF_OTHERS)
		slot_set_mark(slot, SLOT_OF_KEEPER);
	(void) unlink(intent);
}
