/*
 * worker.c
 *		The background worker of a job, and how a caller starts it.
 *
 * The request goes to the worker by value, in a dynamic shared memory segment
 * that the caller makes.  Back come messages through a queue: the job's id,
 * once its row is written, and the lines for a caller who waits.  They are
 * sent without waiting, and lost if the caller does not read: the record of
 * the job is in its tables.  The outcome stands in the segment itself; the
 * caller reads it when the queue ends, so there is nothing to wait for in vain
 * if the worker dies.
 *
 * The worker holds no transaction but for single statements.  A failure is
 * copied, whatever transaction there is aborted, what can be put back is put
 * back, and only then it is written to the job's row.
 *
 * Where a worker could not write why it ended, as when the whole server went
 * down with it, the postmaster starts it again: not to go on with the job, but
 * to write that it was interrupted, for the standbys to know, too.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/dsm.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/shm_mq.h"
#include "tcop/tcopprot.h"
#include "utils/memutils.h"

#include "compat.h"
#include "process.h"
#include "record.h"
#include "run.h"
#include "sql.h"
#include "ssh/net.h"
#include "sweep.h"
#include "worker.h"

#define QUEUE_SIZE			(64 * 1024)
#define OUTCOME_TEXT		8192

/* How long a caller waits for the worker's first word. */
#define START_TIMEOUT_S		30

/* How often the worker tries to record the job's end. */
#define RECORD_TRIES		3

/* What a message in the queue is, its first byte. */
#define MESSAGE_JOB_ID		'J'
#define MESSAGE_NOTICE		'N'

/* How a job ended, written before the worker leaves the queue. */
typedef struct Outcome
{
	bool		ended;			/* else the worker died without a word */
	int			sqlerrcode;		/* 0 = no error */
	char		message[OUTCOME_TEXT];
	char		detail[OUTCOME_TEXT];
	char		hint[OUTCOME_TEXT];
} Outcome;

/* The segment: this, then the request, then the queue. */
typedef struct Segment
{
	Outcome		outcome;
	bool		taken;			/* a worker has begun with it */
	bool		waited_for;		/* the caller waits for the job's end */
	Size		request_len;
	Size		queue_offset;
	char		request[FLEXIBLE_ARRAY_MEMBER];
} Segment;

/* What the worker needs before it can reach the segment. */
typedef struct WorkerExtra
{
	Oid			database;
	dsm_handle	handle;
} WorkerExtra;

static shm_mq_handle *queue = NULL; /* the worker's end */
static volatile sig_atomic_t terminated = false;

/* ---- the caller's side ---- */

struct JobWorker
{
	const Request *request;
	dsm_segment *seg;
	shm_mq_handle *from;
	BackgroundWorkerHandle *process;
	TimestampTz start_deadline;
	bool		started;
	bool		gone;			/* the queue may still have its last words */
	bool		late;			/* it has not started in time */
	int64		job_id;			/* 0 until the job has its row */
};

JobWorker *
worker_start(const Request *request, bool wait)
{
	StringInfoData buf;
	Segment    *segment;
	Size		size;
	shm_mq	   *mq;
	BackgroundWorker worker;
	WorkerExtra extra;
	JobWorker  *job = palloc0(sizeof(JobWorker));

	initStringInfo(&buf);
	request_send(&buf, request);

	size = MAXALIGN(offsetof(Segment, request) + buf.len);
	job->request = request;
	job->seg = dsm_create(size + QUEUE_SIZE, 0);
	segment = dsm_segment_address(job->seg);
	memset(segment, 0, sizeof(Segment));
	segment->waited_for = wait;
	segment->request_len = buf.len;
	segment->queue_offset = size;
	memcpy(segment->request, buf.data, buf.len);
	mq = shm_mq_create((char *) segment + size, QUEUE_SIZE);
	shm_mq_set_receiver(mq, MyProc);

	worker = process_of("follow_primary_worker_main");
	snprintf(worker.bgw_name, BGW_MAXLEN, "follow_primary %s:%d",
			 request->node_host, request->node_port);
	strlcpy(worker.bgw_type, "follow_primary", BGW_MAXLEN);
	extra.database = MyDatabaseId;
	extra.handle = dsm_segment_handle(job->seg);
	memcpy(worker.bgw_extra, &extra, sizeof(extra));
	worker.bgw_notify_pid = MyProcPid;
	if (!RegisterDynamicBackgroundWorker(&worker, &job->process))
	{
		dsm_detach(job->seg);
		return NULL;
	}

	/* The handle makes the queue end if the worker never starts, or dies. */
	job->from = shm_mq_attach(mq, job->seg, job->process);
	job->start_deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), START_TIMEOUT_S * 1000);
	return job;
}

/* Is there something more to come, though not yet? */
static bool
is_going_on(JobWorker *job)
{
	pid_t		pid;

	if (job->gone)
		return false;
	if (GetBackgroundWorkerPid(job->process, &pid) == BGWH_STARTED)
		job->started = true;
	else if (job->started)
		job->gone = true;

	/*
	 * Where the worker fails before it has attached to the queue, the postmaster
	 * starts it again and the queue does not end.
	 */
	job->late = job->job_id == 0 && GetCurrentTimestamp() >= job->start_deadline;
	return !job->late;
}

bool
worker_listen(JobWorker *job, const char *prefix)
{
	for (;;)
	{
		Size		len;
		void	   *data;
		char	   *text;

		switch (shm_mq_receive(job->from, &len, &data, true))
		{
			case SHM_MQ_SUCCESS:
				text = pnstrdup((char *) data + 1, len - 1);
				if (*(char *) data == MESSAGE_JOB_ID)
				{
					job->job_id = strtoll(text, NULL, 10);
					return true;
				}
				ereport(NOTICE, (errmsg("%s%s", prefix, text)));
				pfree(text);
				break;
			case SHM_MQ_DETACHED:
				return false;
			case SHM_MQ_WOULD_BLOCK:
				if (!is_going_on(job))
					return false;
				if (!job->gone)
					return true;
				break;
		}
	}
}

int64
worker_job_id(const JobWorker *job)
{
	return job->job_id;
}

ErrorData *
worker_error(const JobWorker *job)
{
	const Outcome *outcome = &((Segment *) dsm_segment_address(job->seg))->outcome;
	ErrorData  *error;

	if (outcome->ended && outcome->sqlerrcode == 0)
		return NULL;
	error = palloc0(sizeof(ErrorData));
	error->elevel = ERROR;
	if (job->late)
	{
		error->sqlerrcode = ERRCODE_SYSTEM_ERROR;
		error->message = psprintf("the job's worker did not start within %d s", START_TIMEOUT_S);
		error->hint = "See the server log. Nothing was changed.";
		return error;
	}
	if (!outcome->ended)
	{
		error->sqlerrcode = ERRCODE_ADMIN_SHUTDOWN;
		error->message = psprintf("the worker of job " INT64_FORMAT " for node %s:%d ended without a word",
								  job->job_id, job->request->node_host, job->request->node_port);
		error->hint = "See the server log. " CALL_AGAIN;
		return error;
	}
	error->sqlerrcode = outcome->sqlerrcode;
	error->message = pstrdup(outcome->message);
	error->detail = outcome->detail[0] ? pstrdup(outcome->detail) : NULL;
	error->hint = outcome->hint[0] ? pstrdup(outcome->hint) : NULL;
	return error;
}

void
worker_forget(JobWorker *job)
{
	if (job->job_id == 0)
		TerminateBackgroundWorker(job->process);
	dsm_detach(job->seg);
}

int64
worker_run(const Request *request, bool wait)
{
	JobWorker  *job = worker_start(request, wait);
	MemoryContext context = CurrentMemoryContext;
	ErrorData  *error = NULL;
	int64		job_id;

	if (job == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("no background worker is free for node %s:%d",
						request->node_host, request->node_port),
				 errdetail("All of max_worker_processes (%d) are in use.", max_worker_processes),
				 errhint("Wait for other jobs to end, or raise max_worker_processes. Nothing was changed.")));
	PG_TRY();
	{
		while (job->job_id == 0 && worker_listen(job, ""))
			if (job->job_id == 0)
				net_pause(LISTEN_PAUSE_MS);
		if (job->job_id != 0 && wait)
		{
			ereport(NOTICE, (errmsg("job " INT64_FORMAT " has begun", job->job_id)));
			while (worker_listen(job, ""))
				net_pause(LISTEN_PAUSE_MS);
		}
	}
	PG_CATCH();
	{
		/* A cancel ends the waiting, not the job: say so. */
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		if (job->job_id != 0)
			error->hint = psprintf("Job " INT64_FORMAT " goes on; SELECT %s.follow_primary_cancel(" INT64_FORMAT ") ends it.",
								   job->job_id, request->schema, job->job_id);
		worker_forget(job);
		ReThrowError(error);
	}
	PG_END_TRY();

	job_id = job->job_id;
	if (wait || job_id == 0)
		error = worker_error(job);
	worker_forget(job);
	if (error)
		ThrowErrorData(error);
	return job_id;
}

int
worker_pid(int64 job_id)
{
	const char *args[] = {psprintf(INT64_FORMAT, job_id % 2147483648)};
	char	   *pid = sql_scalar("SELECT pid FROM " JOB_LOCKS " AND objid = $1::oid",
								 lengthof(args), args);

	return pid ? atoi(pid) : 0;
}

/* ---- the worker's side ---- */

/* Sends a message without waiting: a caller who does not read misses it. */
static void
send_message(char type, const char *text)
{
	Size		len = strlen(text);
	char	   *message = palloc(len + 1);

	if (queue == NULL)
		return;
	message[0] = type;
	memcpy(message + 1, text, len);

	/*
	 * A send that would block must be tried again with the same bytes, so a
	 * queue that is full once is not used any more.
	 */
	if (shm_mq_send(queue, len + 1, message, true, true) != SHM_MQ_SUCCESS)
		queue = NULL;
	pfree(message);
}

static void
send_notice(const char *text)
{
	send_message(MESSAGE_NOTICE, text);
}

/*
 * SIGTERM.  The job is to end with a record of why, so it is raised as an
 * ERROR at the next interrupt check, not as a FATAL.
 */
static void
handle_terminate(SIGNAL_ARGS)
{
	int			save_errno = errno;

	terminated = true;
	InterruptPending = true;
	QueryCancelPending = true;
	SetLatch(MyLatch);
	errno = save_errno;
}

/* As much as there is room for, in whole characters. */
static void
put_text(char *to, const char *text)
{
	int			len = pg_mbcliplen(text, strlen(text), OUTCOME_TEXT - 1);

	memcpy(to, text, len);
	to[len] = '\0';
}

/* Writes down why the job ended, even if another signal comes meanwhile. */
static void
record_failure(Job *job, const char *state, const ErrorData *error)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool written = false;

	for (volatile int tries = 0; tries < RECORD_TRIES && !written; tries++)
	{
		QueryCancelPending = false;
		PG_TRY();
		{
			job_fail(job, state, error);
			written = true;
		}
		PG_CATCH();
		{
			/* Another signal is no reason to give up, a lock is: it would be the same again. */
			if (sql_recover(context)->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE)
				tries = RECORD_TRIES;
		}
		PG_END_TRY();
	}
	if (!written)
		proc_exit(1);			/* the postmaster starts it again, and it sweeps */
}

static void
tell_outcome(Outcome *outcome, const Job *job, const ErrorData *error)
{
	if (error)
	{
		outcome->sqlerrcode = error->sqlerrcode;
		put_text(outcome->message,
				 psprintf("job " INT64_FORMAT " for node %s failed%s%s: %s",
						  job->id, node_name(job), job->step ? " at step " : "",
						  job->step ? job->step : "", error->message));
		put_text(outcome->detail, error->detail ? error->detail : "");
		put_text(outcome->hint, error->hint ? error->hint : "");
	}
	pg_memory_barrier();
	outcome->ended = true;
}

void
follow_primary_worker_main(Datum main_arg)
{
	WorkerExtra extra;
	dsm_segment *seg;
	Segment    *segment;
	StringInfoData buf;
	Job		   *job;
	MemoryContext context;
	shm_mq	   *mq;
	ErrorContextCallback error_context;

	pqsignal(SIGTERM, handle_terminate);
	pqsignal(SIGINT, StatementCancelHandler);
	BackgroundWorkerUnblockSignals();

	memcpy(&extra, MyBgworkerEntry->bgw_extra, sizeof(extra));
	process_start(extra.database);

	seg = dsm_attach(extra.handle);
	if (seg != NULL)
		dsm_pin_mapping(seg);
	segment = seg ? dsm_segment_address(seg) : NULL;
	if (segment == NULL || segment->taken)
	{
		/* This is the second start, or the caller had gone before the first. */
		pqsignal(SIGTERM, die);
		sweep_database();
		return;
	}
	segment->taken = true;

	context = AllocSetContextCreate(TopMemoryContext, "follow_primary job",
									ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(context);

	mq = (shm_mq *) ((char *) segment + segment->queue_offset);
	shm_mq_set_sender(mq, MyProc);
	queue = shm_mq_attach(mq, seg, NULL);

	initStringInfo(&buf);
	appendBinaryStringInfo(&buf, segment->request, segment->request_len);
	job = palloc0(sizeof(Job));
	job->context = context;
	job->request = request_receive(&buf);
	job->waited_for = segment->waited_for;
	job->notice = send_notice;
	error_context.callback = job_error_context;
	error_context.arg = job;
	error_context.previous = error_context_stack;
	error_context_stack = &error_context;

	PG_TRY();
	{
		job_record(job);
		job_record_past(job);
		send_message(MESSAGE_JOB_ID, psprintf(INT64_FORMAT, job->id));
		job_log_begin(job);
		run_job(job);
		job_log_end(job, job->plan.method == METHOD_SKIP ? "skipped" : "succeeded", NULL);
		tell_outcome(&segment->outcome, job, NULL);
	}
	PG_CATCH();
	{
		ErrorData  *error;
		const char *state;

		error = sql_recover(context);
		state = "failed";
		if (terminated)
		{
			error->sqlerrcode = ERRCODE_ADMIN_SHUTDOWN;
			error->message = "the job's worker was terminated";
			error->hint = CALL_AGAIN;
			state = "interrupted";
		}
		else if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		{
			error->message = "the job was cancelled";
			error->hint = CALL_AGAIN;
			state = "cancelled";
		}
		if (error->hint == NULL)
			error->hint = CALL_AGAIN;

		/* The node comes first: to write all this down may take its time. */
		run_clean_up(job, terminated);
		if (job->undone)
			error->detail = error->detail ? psprintf("%s\n%s", error->detail, job->undone) : job->undone;
		tell_outcome(&segment->outcome, job, error);
		job_log_end(job, state, error);
		if (job->id != 0)
			record_failure(job, state, error);
	}
	PG_END_TRY();

	dsm_detach(seg);
	proc_exit(0);
}
