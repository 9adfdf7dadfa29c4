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
 * The process id of a job's worker, or 0 when it has none on this server.
 */
extern int	worker_pid(int64 job_id);

extern PGDLLEXPORT void follow_primary_worker_main(Datum main_arg);

#endif							/* FOLLOW_PRIMARY_WORKER_H */
