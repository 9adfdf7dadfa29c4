/*
 * follow_primary.c
 *		Module entry.
 *
 * SELECT follow_primary('db3') on a new primary makes another node follow it.
 * A call travels from the top down; no file includes one that stands above it,
 * and there are no circles:
 *
 *	functions.c		the SQL-callable functions
 *	test_doors.c	doors to internal functions, for the regression tests
 *	keeper.c		preloaded workers: WAL for siblings, and the check now and then
 *	switchover.c	this standby becomes the primary in place of the one that it follows
 *	promoter.c		a worker: promotes this standby if the switchover's session cannot
 *	check.c			readiness: every node is tried, in processes of its own, with
 *		check/candidate.c	the items of this server
 *		check/node.c		the items of a node
 *		check/item.c		how an item is tried
 *	sweeper.c		a preloaded worker: cleans up after the server has crashed
 *	cluster.c		many jobs side by side
 *	worker.c		a background worker takes the request: process, queue, outcome
 *	run.c			the job's loop: survey, plan, steps
 *	sweep.c			cleans up after jobs whose workers could not
 *	methods.c		every method, its steps in order
 *	steps/			a step a function, by what is done to the node:
 *		verify.c		the proof that it follows
 *		attach.c		pgpool gets it back
 *		copy.c			it gets a copy of this server
 *		copy_command.c	the same from elsewhere, by a command of the DBA's
 *		trial.c			what its method will need is tried before
 *		rewind.c		its data goes back to the fork
 *		connect.c		what it reaches as the primary is proven to be this server
 *		config.c		its configuration is kept, and made a standby's
 *		node.c			it is locked, stopped, started, cleaned up after
 *		lost.c			the WAL that only it has is saved, and counted
 *		primary.c		checkpoint and slot of this server
 *		step.c			what the steps share
 *	survey.c		the facts about this server and the node, with
 *		down.c			is a node down whose server was not found?
 *		divergence.c	does the node's WAL leave this server's history?
 *		wal.c			who has the WAL that the node needs?
 *		folders.c		where is its data, and is there room for a copy?
 *		primary_host.c	the name under which the node reaches this server
 *		login.c			what lets a role in that a server has refused?
 *		recovery_conf.c	the settings that make it a standby of this server
 *		standby_name.c	the name by which a primary knows it as its standby
 *	slot_mark.c		whose is a slot of this server?
 *	record.c		the record of a job: rows, locks, NOTICEs; job.h is the job
 *	remote.c		runs the scripts of src/remote on the node
 *	nodes.c			the rows of follow_primary_node, and this server's name
 *	request.c		arguments, node row and settings become one value
 *	own_row.c		which row of follow_primary_node is this server's own?
 *	settings.c		the settings
 *	plan.c			facts to method, a pure function
 *	readable.c		can the files of this server be read?
 *	timeline.c		histories of timelines
 *	pcp.c			pgpool's control protocol
 *	process.c		the processes of this library
 *	result_set.c	what a function returns that returns a set of rows
 *	snapshot.c		frees a waiting caller of its snapshot
 *	sql.c			SQL on this server
 *	ssh/			the only files that know libssh2:
 *		ssh.c			connecting and disconnecting
 *		ssh_hostkey.c	is the host the one that it claims to be?
 *		ssh_auth.c		authentication by public key
 *		ssh_run.c		scripts that run over the connection
 *		ssh_session.c	what these share; ssh_types.h, what others need to know
 *		net.c			TCP connections, and waiting
 *	home.c			paths in a home directory
 *	hints.h			hints that several errors share
 *	version.h		the library's version
 *	compat.h		all that differs between PostgreSQL versions
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"

#include "compat.h"
#include "keeper.h"
#include "settings.h"
#include "sweeper.h"
#include "version.h"

PG_MODULE_MAGIC;

/* What check.sh looks for in the file. */
const char	follow_primary_library_version[] = "follow_primary library version " LIBRARY_VERSION;

void		_PG_init(void);

void
_PG_init(void)
{
	settings_define();
	if (process_shared_preload_libraries_in_progress && !IsBinaryUpgrade)
	{
		sweeper_register();
		keeper_register();
	}
}
