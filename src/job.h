/*
 * job.h
 *		One job: what it knows, and the record of its progress.
 */
#ifndef FOLLOW_PRIMARY_JOB_H
#define FOLLOW_PRIMARY_JOB_H

#include "plan.h"
#include "request.h"
#include "ssh.h"

/*
 * A job as it runs, or the survey for a plan, which has no record: id is 0
 * then, and the functions below that record do nothing.  Everything in it
 * lives in its memory context.
 */
typedef struct Job
{
	int64		id;
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
	char	   *waldir;			/* where its pg_wal leads; "" = in PGDATA */
	int			ntablespaces;
	Oid		   *tablespace_oids;
	char	  **tablespaces;	/* their locations on the node */

	char	   *keep_slots;		/* names of slots that the node must keep,
								 * separated by spaces */
	char	   *former_slot;	/* another slot of this server that the node
								 * streamed through, or NULL */

	/* What the steps did. */
	bool		wal_saved;		/* what the node has of WAL behind the fork */
	bool		wal_lost;		/* it has some */
	bool		slot_made;		/* by this job, so it goes if the job fails */
	void		(*undo) (struct Job *job);	/* puts back what a failed job
											 * changed; NULL: nothing to */
	int64		bytes_done;
	int64		bytes_total;
	TimestampTz progress_written;

	/* The step that runs. */
	int			seq;
	const char *step;			/* NULL between steps */
	char	   *detail;

	void		(*notice) (const char *text);	/* to a waiting caller; may be
												 * NULL */
} Job;

/* Inserts the job's row, and takes the lock that says that the job is alive. */
extern void job_record(Job *job);

/*
 * Takes the lock on the node for this job.  Raises 55006 when another job has
 * the node.
 */
extern void job_lock_node(Job *job);

/*
 * Takes the lock on the node's slot name for this job.  Raises 55006 when a
 * job for another node is at work with it.
 */
extern void job_lock_slot(Job *job);

/* The same lock for a moment; false if another has it. Raises nothing. */
extern bool job_try_lock_slot(const char *slot);
extern void job_unlock_slot(const char *slot);

/* Writes method, reason, timeline and fork of the plan, and the facts found. */
extern void job_record_plan(Job *job);

/*
 * Writes the row of a step that is about to run.  Durably, if it may change
 * something: then a crash of this server does not take the row back.
 */
extern void job_begin_step(Job *job, const char *step, bool durably);
extern void job_end_step(Job *job);

/* What the running step found or did; shown when it ends. */
extern void job_detail(Job *job, const char *fmt,...) pg_attribute_printf(2, 3);

/* Writes it durably before the step ends, for the sweep after a crash. */
extern void job_record_detail(Job *job);

/* A line to a caller who waits. */
extern void job_notice(Job *job, const char *fmt,...) pg_attribute_printf(2, 3);

/* How far a copy is. Written at most once a second. */
extern void job_progress(Job *job, int64 bytes_done, int64 bytes_total);

extern void job_record_lost_wal(Job *job, const char *bytes,
								const char *transactions, const char *dir);

/* What people have to do once the job has ended well. */
extern void job_record_hint(Job *job, const char *hint);

/* Ends the job's row: succeeded, skipped. */
extern void job_finish(Job *job, const char *state);

/* Ends the job's row and its running step by an error. */
extern void job_fail(Job *job, const char *state, const ErrorData *error);

/* The hint where nothing else is to be done. */
#define CALL_AGAIN \
	"Call follow_primary() again: it looks at the node afresh and goes on from there."

/*
 * What a worker holds until it ends: advisory locks with a first key of these,
 * and the job's id, or a hash, for the second.  pg_advisory_lock() has 1 or 2
 * for objsubid: nobody can take ours by SQL.
 */
#define JOB_LOCK_CLASS	1718645615	/* also in the view of the install script */
#define NODE_LOCK_CLASS	1718645616
#define SLOT_LOCK_CLASS	1718645617
#define LOCK_OBJSUBID	3			/* there, too */

/* SQL: the locks of live jobs; objid is the job's id, modulo 2^31. */
#define JOB_LOCKS \
	"pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = " CppAsString2(LOCK_OBJSUBID) " " \
	"AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) " \
	"AND classid = " CppAsString2(JOB_LOCK_CLASS) "::oid"

#endif							/* FOLLOW_PRIMARY_JOB_H */
