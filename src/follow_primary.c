/*
 * follow_primary.c
 *		Module entry.
 *
 * SELECT follow_primary('db3') on a new primary makes another node follow it.
 * A call travels through the files in this order:
 *
 *	functions.c	the SQL-callable functions
 *	request.c	arguments, node row and settings become one value
 *	worker.c	a background worker takes it, and runs the job:
 *	survey.c	facts about this server and the node, with divergence.c (does
 *				its WAL leave our history?) and wal.c (who has what it needs?)
 *	plan.c		facts to method, a pure function
 *	folders.c	where a node's data is, and the room for a copy
 *	method_*.c	the steps of each method, done by node.c, primary.c,
 *				verify.c and attach.c
 *	job.c		the record of all that
 *	sweeper.c	cleans up on this server where a worker could not
 *
 * Below them, remote.c runs the scripts of src/remote over ssh.c, pcp.c talks
 * to pgpool, sql.c to this server; snapshot.c frees a waiting caller of its
 * snapshot.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"

#include "compat.h"
#include "settings.h"
#include "sweeper.h"

PG_MODULE_MAGIC;

void		_PG_init(void);

void
_PG_init(void)
{
	settings_define();
	if (process_shared_preload_libraries_in_progress && !IsBinaryUpgrade)
		sweeper_register();
}
