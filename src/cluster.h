/*
 * cluster.h
 *		Many jobs side by side: the whole cluster follows.
 */
#ifndef FOLLOW_PRIMARY_CLUSTER_H
#define FOLLOW_PRIMARY_CLUSTER_H

#include "request.h"

/* A node's job, and how it ended. Strings are NULL where unknown. */
typedef struct ClusterJob
{
	char	   *host;
	int			port;
	Request    *request;		/* NULL: it could not be made; see message */
	struct JobWorker *worker;	/* while the job runs */
	bool		ended;
	int64		job_id;			/* 0: the job has no row */
	char	   *state;			/* as in follow_primary_job */
	char	   *method;
	char	   *message;		/* the reason for the method, or the error */
	char	   *hint;
	char	   *elapsed;		/* an interval as text */
} ClusterJob;

/*
 * Makes a job for each row of follow_primary_node but this server's own.  A row that
 * makes no valid request gets an ended job that says why.  The list and what is in it
 * are palloc'd.
 */
extern List *cluster_jobs(FunctionCallInfo fcinfo, RequestedMethod method,
						  bool rejoin_when_down, bool attach);

/*
 * Runs the jobs side by side, as far as background workers and WAL senders go, and
 * returns when all have ended.  Their NOTICEs begin with the node; a failure is a
 * WARNING and ends no other job.  A cancel ends the waiting: the error's hint says
 * how to end the jobs, which go on.
 */
extern void cluster_run(FunctionCallInfo fcinfo, List *jobs);

#endif							/* FOLLOW_PRIMARY_CLUSTER_H */
