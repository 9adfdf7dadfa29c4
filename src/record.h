/*
 * record.h
 *		The record of a job: its rows, its locks, and what a waiting caller hears.
 */
#ifndef FOLLOW_PRIMARY_RECORD_H
#define FOLLOW_PRIMARY_RECORD_H

#include "job.h"

/* "host:port" of the node, for messages. */
extern char *node_name(const Job *job);

/* An error context callback: job, node and step; arg is the job. */
extern void job_error_context(void *arg);

/* One line in the server log for a job's begin, and one for its end; error may be NULL. */
extern void job_log_begin(const Job *job);
extern void job_log_end(const Job *job, const char *state, const ErrorData *error);

/* A UUID, for a job's token. */
extern char *record_new_token(void);

/* Inserts the job's row, and takes the lock that says that the job is alive. */
extern void job_record(Job *job);

/* Writes the steps that were taken before the job had a row, and when they began. */
extern void job_record_past(Job *job);

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

/* Writes durably that the node streams, which the node is to show. */
extern void job_record_streaming(Job *job);

/* Writes durably that the job is about to make its slot, for the sweep after a crash. */
extern void job_record_slot_made(Job *job);

/* A line to a caller who waits. */
extern void job_notice(Job *job, const char *fmt,...) pg_attribute_printf(2, 3);

/* For what a step waits for. Zero it before the first call of job_tell_waiting(). */
typedef struct JobWait
{
	TimestampTz since;
	TimestampTz told;
} JobWait;

/* How often a waiting caller hears what is still missing. */
#define JOB_TELL_MS		5000

/* Tells a waiting caller what is missing, if it has been silent for JOB_TELL_MS. */
extern void job_tell_waiting(Job *job, JobWait *wait, const char *missing);

/* Is it time for that? */
extern bool job_is_silent(JobWait *wait);

/* How far a copy is. Written at most once a second. */
extern void job_progress(Job *job, int64 bytes_done, int64 bytes_total);

extern void job_record_lost_wal(Job *job, const char *bytes,
								const char *transactions, const char *dir, bool counted);

/*
 * The figures of what is saved in saved_dir, for all jobs that name it, and the one
 * with the token saved_by; for this one, if there is none.  dir is where it stays:
 * saved_dir, or NULL.
 */
extern void job_record_counted(Job *job, const char *saved_dir, const char *saved_by, const char *bytes,
							   const char *transactions, const char *dir);

/* What people have to do once the job has ended; NULL = nothing. An error adds its own hint. */
extern void job_record_hint(Job *job, const char *hint);

/* Ends the job's row: succeeded, skipped. */
extern void job_finish(Job *job, const char *state);

/* Ends the job's row and its running step by an error. */
extern void job_fail(Job *job, const char *state, const ErrorData *error);

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

#endif							/* FOLLOW_PRIMARY_RECORD_H */
