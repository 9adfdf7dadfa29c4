/*
 * worker.h
 *		The background worker of a job, and how a caller starts it.
 */
#ifndef FOLLOW_PRIMARY_WORKER_H
#define FOLLOW_PRIMARY_WORKER_H

#include "request.h"

/*
 * Starts a worker for the request and returns the job's id.  With wait, its
 * progress comes as NOTICEs, and its failure is raised as this session's error
 * with SQLSTATE, detail and hint; a cancel ends the waiting only.  Without, it
 * returns when the job has its row.  Raises 53400 when no worker slot is free.
 */
extern int64 worker_run(const Request *request, bool wait);

/*
 * The same in parts, for a caller who starts several.  worker_start() returns NULL
 * where no worker slot is free.  The job is told whether somebody waits for its
 * end.  The request must live as long as the JobWorker.
 */
typedef struct JobWorker JobWorker;

extern JobWorker *worker_start(const Request *request, bool wait);

/*
 * Passes on what the worker has said as NOTICEs, after a prefix, and returns
 * without waiting; at once when the job has its number.  False when the job has
 * ended, or its worker has not started in time.
 */
extern bool worker_listen(JobWorker *job, const char *prefix);

/* How long to wait between two calls of it; a message sets the latch before. */
#define LISTEN_PAUSE_MS		1000

/* The job's number; 0 until it has its row. */
extern int64 worker_job_id(const JobWorker *job);

/* Why a job that has ended failed, palloc'd; NULL if it did not. */
extern ErrorData *worker_error(const JobWorker *job);

/* Listens no more.  A job that has a row goes on; one without ends. */
extern void worker_forget(JobWorker *job);

/*
 * The process id of a job's worker, or 0 when it has none on this server.
 */
extern int	worker_pid(int64 job_id);

extern PGDLLEXPORT void follow_primary_worker_main(Datum main_arg);

#endif							/* FOLLOW_PRIMARY_WORKER_H */
