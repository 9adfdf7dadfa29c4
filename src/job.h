/*
 * job.h
 *		One job: what it knows.
 */
#ifndef FOLLOW_PRIMARY_JOB_H
#define FOLLOW_PRIMARY_JOB_H

#include "utils/timestamp.h"

#include "plan.h"
#include "remote.h"
#include "request.h"
#include "ssh/ssh.h"

/*
 * A job as it runs, or the survey for a plan, which has no record: id is 0
 * then, and the functions of record.h that record do nothing.  Everything in it
 * lives in its memory context.
 */
typedef struct Job
{
	int64		id;
	char	   *token;			/* a UUID that no other job has */
	MemoryContext context;
	const Request *request;
	SshSession *ssh;			/* NULL until connected */
	PrimaryFacts primary;
	NodeFacts	node;
	JobPlan		plan;

	/* What the survey found that the steps need, and the plan does not. */
	char	   *primary_host;	/* the name under which the node reaches us */
	char	   *node_home;		/* home directory of the SSH user there */
	char	   *config_file;	/* the node's; "" = in its data directory */
	char	   *control_time;	/* when its control file was written; "" = not
								 * known */
	char	   *beside;			/* when a file beside its data directory last came
								 * or went; "" = not known */
	char	   *log_file;		/* of its server; "" = not known */
	char	   *log_size;		/* where that ended */
	char	   *waldir;			/* where its pg_wal leads; "" = in PGDATA */
	int			ntablespaces;
	Oid		   *tablespace_oids;
	char	  **tablespaces;	/* their locations on the node */

	char	   *keep_slots;		/* names of slots that the node must keep,
								 * separated by spaces */
	char	   *former_conninfo;	/* the node's primary_conninfo before the job
									 * changed it, or NULL */
	char	   *former_slot;	/* another slot of this server that the node
								 * streamed through, or NULL */

	/* What the steps did. */
	struct Connections *connecting; /* what connect_begin() has begun, or NULL */
	int			looks;			/* at where the node's connections lead */
	bool		restore_copied; /* the copy fetches WAL as the command has set that
								 * made it; or that of an interrupted job does */
	bool		wal_saved;		/* what the node has of WAL behind the fork */
	bool		wal_lost;		/* it has some */
	char	   *lost_wal_dir;	/* where it is, not counted yet; else NULL */
	char	   *hint;			/* what people have to do, as recorded, or NULL */
	bool		started;		/* the node's server, by this job */
	bool		gated;			/* its restore_command is behind a gate */
	bool		slot_made;		/* by this job, so it goes if the job fails */
	void		(*undo) (struct Job *job);	/* puts back what a failed job
											 * changed, and says so in undone;
											 * NULL: nothing to */
	char	   *undone;			/* what the undo did, as a sentence, or NULL */
	char	   *silent_primary; /* host:port of the former primary, which does not
								 * answer the node; NULL = not known so */
	int64		cpu_node;		/* what the scripts have used of the node's
								 * processors, in ms; 0 = not known */
	int64		bytes_done;
	int64		bytes_total;
	TimestampTz progress_written;

	/* The step that runs. */
	int			seq;
	const char *step;			/* NULL between steps */
	TimestampTz step_began;
	char	   *detail;

	bool		waited_for;		/* by its caller, who hears of it */
	bool		pgpool_answered;	/* when the job began: it may be on its way
									 * back, or to another host */
	void		(*notice) (const char *text);	/* to a waiting caller; may be
												 * NULL */
} Job;

/* The named arguments of a script for a job: those that all scripts have, and more. */
#define JOB_NAMED(job, ...) \
	NAMED({"pgdata", (job)->node.pgdata}, \
		  {"bin", (job)->request->settings->node_bin_dir}, \
		  {"job", NUMBER((job)->id)}, \
		  {"token", (job)->token}, ##__VA_ARGS__)

#endif							/* FOLLOW_PRIMARY_JOB_H */
