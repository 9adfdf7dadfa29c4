/*
 * check.c
 *		Readiness: if this server became the primary now, could it make the other
 *		nodes follow it?
 *
 * Every node is tried by a background worker of its own, so that one that hangs
 * holds up no other, and one more worker tries what concerns this server alone.
 * On a standby, too: nothing is written.  Each is handed its part of the question
 * in a dynamic shared memory segment and answers with rows through a queue, as
 * they are found.  If the postmaster has no worker for all of them at a time,
 * the others wait until one has ended.
 *
 * "Everywhere": the worker of a node then asks the node for its own check, by
 * psql over the same SSH connection.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xlog.h"
#include "funcapi.h"
#include "libpq/pqformat.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/postmaster.h"
#include "replication/syncrep.h"
#include "storage/dsm.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/shm_mq.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "compat.h"
#include "check.h"
#include "process.h"
#include "recovery_conf.h"
#include "record.h"
#include "result_set.h"
#include "snapshot.h"
#include "sql.h"
#include "ssh/net.h"
#include "ssh/ssh.h"
#include "standby_name.h"
#include "survey.h"
#include "wal.h"

PG_FUNCTION_INFO_V1(follow_primary_check);
PG_FUNCTION_INFO_V1(follow_primary_self);

#define QUEUE_SIZE		(16 * 1024)
#define POLL_MS			20

/* How long a server may take for its own check, beside what its nodes cost it. */
#define ASK_MS			20000

/* A node's name for synchronous_standby_names; no row of the answer. */
#define ITEM_STANDBY_NAME	"."

/* The segment: this, then the question, then the queue. */
typedef struct Segment
{
	Oid			database;
	bool		everywhere;
	bool		whole;
	int			nnodes;
	bool		has_node;		/* else it is about this server alone */
	Size		question_len;
	Size		queue_offset;
	char		question[FLEXIBLE_ARRAY_MEMBER];
} Segment;

/* A worker, as its caller knows it. */
typedef struct Task
{
	const Request *request;		/* NULL: this server alone */
	dsm_segment *seg;			/* NULL: not begun yet, or ended */
	shm_mq_handle *queue;
	BackgroundWorkerHandle *handle;
	bool		ended;
	CheckAnswer answer;
} Task;

/* ---- rows ---- */

static void
add_row(CheckAnswer *answer, const CheckRow *row)
{
	if (answer->nrows == answer->capacity)
	{
		answer->capacity = Max(32, answer->capacity * 2);
		answer->rows = answer->rows ?
			repalloc(answer->rows, answer->capacity * sizeof(CheckRow)) :
			palloc(answer->capacity * sizeof(CheckRow));
	}
	answer->rows[answer->nrows++] = *row;
}

#define ROW_FIELDS	6

/* The fields of a row, in their order. */
static void
row_fields(CheckRow *row, char **fields[ROW_FIELDS])
{
	fields[0] = &row->candidate;
	fields[1] = &row->node;
	fields[2] = &row->item;
	fields[3] = &row->status;
	fields[4] = &row->message;
	fields[5] = &row->hint;
}

static void
send_row(StringInfo buf, const CheckRow *row)
{
	CheckRow	copy = *row;
	char	  **fields[ROW_FIELDS];

	row_fields(&copy, fields);
	for (int i = 0; i < ROW_FIELDS; i++)
	{
		pq_sendint8(buf, *fields[i] != NULL);
		if (*fields[i])
			appendBinaryStringInfo(buf, *fields[i], strlen(*fields[i]) + 1);
	}
}

static void
receive_row(StringInfo buf, CheckRow *row)
{
	char	  **fields[ROW_FIELDS];

	row_fields(row, fields);
	for (int i = 0; i < ROW_FIELDS; i++)
		*fields[i] = pq_getmsgint(buf, 1) ? pstrdup(pq_getmsgrawstring(buf)) : NULL;
}

/* ---- the caller's side ---- */

/* False if the postmaster has no worker to spare. */
static bool
begin_task(Task *task, const CheckQuestion *question)
{
	StringInfoData buf;
	Segment    *segment;
	Size		size;
	shm_mq	   *mq;
	BackgroundWorker worker = process_of("follow_primary_check_main");

	initStringInfo(&buf);
	appendBinaryStringInfo(&buf, question->nodes->own_name, strlen(question->nodes->own_name) + 1);
	request_send(&buf, task->request ? task->request : question->own);

	size = MAXALIGN(offsetof(Segment, question) + buf.len);
	task->seg = dsm_create(size + QUEUE_SIZE, 0);
	segment = dsm_segment_address(task->seg);
	segment->database = MyDatabaseId;
	segment->everywhere = question->everywhere;
	segment->whole = question->whole;
	segment->nnodes = question->nrequests;
	segment->has_node = task->request != NULL;
	segment->question_len = buf.len;
	segment->queue_offset = size;
	memcpy(segment->question, buf.data, buf.len);
	mq = shm_mq_create((char *) segment + size, QUEUE_SIZE);
	shm_mq_set_receiver(mq, MyProc);

	if (task->request)
		snprintf(worker.bgw_name, BGW_MAXLEN, "follow_primary check of %s:%d",
				 task->request->node_host, task->request->node_port);
	else
		strlcpy(worker.bgw_name, "follow_primary check", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "follow_primary check", BGW_MAXLEN);
	worker.bgw_start_time = BgWorkerStart_ConsistentState;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_main_arg = UInt32GetDatum(dsm_segment_handle(task->seg));
	worker.bgw_notify_pid = MyProcPid;
	if (!RegisterDynamicBackgroundWorker(&worker, &task->handle))
	{
		dsm_detach(task->seg);
		task->seg = NULL;
		return false;
	}
	task->queue = shm_mq_attach(mq, task->seg, task->handle);
	return true;
}

static char *
task_node(const Task *task)
{
	return task->request ?
		psprintf("%s:%d", task->request->node_host, task->request->node_port) : NULL;
}

/* Takes what a worker has said; true when it has ended. */
static bool
listen_to_task(Task *task, const CheckQuestion *question)
{
	Size		len;
	void	   *data;

	for (;;)
	{
		CheckRow	row;

		switch (shm_mq_receive(task->queue, &len, &data, true))
		{
			case SHM_MQ_WOULD_BLOCK:
				return false;
			case SHM_MQ_DETACHED:
				if (!task->ended)
				{
					row = (CheckRow)
					{
						.candidate = question->nodes->own_name, .node = task_node(task),
							.item = "check", .status = "unknown",
							.message = "the worker that tried it ended without a word",
							.hint = "See the server log."
					};
					add_row(&task->answer, &row);
				}
				dsm_detach(task->seg);
				task->seg = NULL;
				/* Its place is free for another one then. */
				(void) WaitForBackgroundWorkerShutdown(task->handle);
				return true;
			case SHM_MQ_SUCCESS:
				if (len == 0)
					task->ended = true;
				else
				{
					StringInfoData buf;

					initStringInfo(&buf);
					appendBinaryStringInfo(&buf, data, len);
					receive_row(&buf, &row);
					pfree(buf.data);
					add_row(&task->answer, &row);
				}
				break;
		}
	}
}

static void
no_worker(Task *task, const CheckQuestion *question)
{
	CheckRow	row = {
		.candidate = question->nodes->own_name, .node = task_node(task),
		.item = "check", .status = "unknown",
		.message = psprintf("no background worker is free to try it: all of max_worker_processes (%d) are in use", max_worker_processes),
		.hint = "Raise max_worker_processes, and restart this server."
	};

	add_row(&task->answer, &row);
	task->ended = true;
}

/* Runs them all, as many at a time as there are workers. */
static void
run_tasks(Task *tasks, int ntasks, const CheckQuestion *question)
{
	int			next = 0;
	int			running = 0;

	while (next < ntasks || running > 0)
	{
		while (next < ntasks)
		{
			if (begin_task(&tasks[next], question))
				running++;
			else if (running == 0)
				no_worker(&tasks[next], question);
			else
				break;
			next++;
		}
		for (int i = 0; i < next; i++)
			if (tasks[i].seg && listen_to_task(&tasks[i], question))
				running--;
		if (running > 0)
			net_pause(POLL_MS);
	}
}

static void
end_tasks(Task *tasks, int ntasks)
{
	for (int i = 0; i < ntasks; i++)
		if (tasks[i].seg)
		{
			TerminateBackgroundWorker(tasks[i].handle);
			dsm_detach(tasks[i].seg);
			tasks[i].seg = NULL;
		}
}

/* ---- what all nodes' answers tell together ---- */

/* How many of the nodes can a commit of this server wait for? */
static int
count_synchronous(const SyncRepConfigData *config, const List *names)
{
	const char *member = config->member_names;
	int			n = 0;

	for (int i = 0; i < config->nmembers; i++, member += strlen(member) + 1)
	{
		const ListCell *cell;

		if (strcmp(member, "*") == 0)
			return list_length(names);
		foreach(cell, names)
		{
			if (pg_strcasecmp(member, (const char *) lfirst(cell)) == 0)
			{
				n++;
				break;
			}
		}
	}
	return n;
}

/* After a failover, would a commit of this server wait for a node that will never be there? */
static void
add_synchronous_row(CheckAnswer *answer, const CheckQuestion *question, const Task *tasks, int ntasks)
{
	List	   *names = NIL;
	CheckRow	row = {
		.candidate = question->nodes->own_name, .item = "synchronous_standby_names",
		.status = "ok", .message = "none is set"
	};
	int			n;

	if (!SyncRepConfig)
	{
		add_row(answer, &row);
		return;
	}
	for (int i = 0; i < ntasks; i++)
	{
		const Request *request = tasks[i].request;
		char	   *name = NULL;

		if (request == NULL)
			continue;
		for (int j = 0; j < tasks[i].answer.nrows; j++)
			if (strcmp(tasks[i].answer.rows[j].item, ITEM_STANDBY_NAME) == 0)
				name = tasks[i].answer.rows[j].message;
		names = lappend(names, name ? name : request->node_host);
	}
	n = count_synchronous(SyncRepConfig, names);
	row.message = psprintf("%d of the nodes are among them, commits wait for %d", n, SyncRepConfig->num_sync);
	if (n < SyncRepConfig->num_sync)
	{
		row.status = "error";
		row.message = psprintf("commits would wait for ever: for %d standbys, and %d of the nodes are among them", SyncRepConfig->num_sync, n);
		row.hint = "Set synchronous_standby_names on this server to names that the other nodes have, or application_name in their rows.";
	}
	add_row(answer, &row);
}

static CheckAnswer *
merge(const CheckQuestion *question, const Task *tasks, int ntasks)
{
	CheckAnswer *answer = palloc0(sizeof(CheckAnswer));

	for (int i = 0; i < ntasks; i++)
	{
		for (int j = 0; j < tasks[i].answer.nrows; j++)
			if (strcmp(tasks[i].answer.rows[j].item, ITEM_STANDBY_NAME) != 0)
				add_row(answer, &tasks[i].answer.rows[j]);
		if (i == 0 && question->whole)
			add_synchronous_row(answer, question, tasks, ntasks);
	}
	return answer;
}

CheckAnswer *
check_run(const CheckQuestion *question)
{
	int			ntasks = 1 + question->nrequests;
	Task	   *tasks = palloc0(sizeof(Task) * ntasks);

	for (int i = 0; i < question->nrequests; i++)
		tasks[1 + i].request = question->requests[i];
	PG_TRY();
	{
		run_tasks(tasks, ntasks, question);
	}
	PG_CATCH();
	{
		end_tasks(tasks, ntasks);
		PG_RE_THROW();
	}
	PG_END_TRY();
	return merge(question, tasks, ntasks);
}

CheckQuestion *
check_ask_all(const char *schema, bool everywhere)
{
	CheckQuestion *question = palloc0(sizeof(CheckQuestion));
	const Nodes *nodes = nodes_read(schema);

	question->nodes = nodes;
	question->own = request_to_ask(schema, NULL, 0);
	question->whole = true;
	question->everywhere = everywhere;
	question->requests = palloc0(sizeof(Request *) * Max(1, nodes->nrows));
	for (int i = 0; i < nodes->nrows; i++)
		if (!nodes->rows[i].is_this_server)
			question->requests[question->nrequests++] =
				request_to_ask(schema, nodes->rows[i].host, nodes->rows[i].port);
	return question;
}

/* ---- the worker's side ---- */

static shm_mq_handle *queue = NULL;

/* Hands a row to the caller. If that is gone, nobody wants the row. */
static void
put_row(const CheckRow *row)
{
	StringInfoData buf;

	initStringInfo(&buf);
	send_row(&buf, row);
	if (shm_mq_send(queue, buf.len, buf.data, false, true) != SHM_MQ_SUCCESS)
		proc_exit(0);
	pfree(buf.data);
}

/* What is known of this server without asking anybody, on a standby as well. */
static void
read_own_facts(PrimaryFacts *facts)
{
	XLogRecPtr	end;

	facts->version_num = PG_VERSION_NUM;
	facts->system_id = GetSystemIdentifier();
	facts->full_page_writes = true;
	lsn_parse(sql_scalar(RecoveryInProgress() ?
						 "SELECT coalesce(greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()), '0/0')" :
						 "SELECT pg_current_wal_flush_lsn()", 0, NULL), &end);
	facts->flush_lsn = end;
	facts->oldest_wal = wal_oldest(end);
	facts->timeline = (TimeLineID) strtoul(sql_scalar("SELECT timeline_id FROM pg_control_checkpoint()", 0, NULL), NULL, 10);
}

static void
tell_standby_name(Check *check)
{
	CheckRow	row = {
		.item = ITEM_STANDBY_NAME,
		.message = (char *) standby_name_after_job(&check->job->node, PG_VERSION_NUM,
												   check->request->application_name,
												   check->request->node_host)
	};

	put_row(&row);
}

/* A row as ask.sh printed it: its fields are separated by a character that none has. */
#define FIELD_SEPARATOR	"\037"

static void
put_told_row(char *text)
{
	CheckRow	row;
	char	  **fields[ROW_FIELDS];

	row_fields(&row, fields);
	for (int i = 0; i < ROW_FIELDS; i++)
	{
		char	   *end = text ? strstr(text, FIELD_SEPARATOR) : NULL;

		if (end)
			*end = '\0';
		*fields[i] = text && text[0] ? text : NULL;
		text = end ? end + 1 : NULL;
	}
	if (row.item && row.status)
		put_row(&row);
}

/* Asks the node for its own check, and passes on what it says. */
static void
ask_node(Check *check)
{
	const Job  *job = check->job;
	const Request *request = job->request;
	const Settings *settings = request->settings;
	RemoteLimits limits = {.timeout_ms = ASK_MS + settings->progress_timeout * 1000};
	RemoteReply reply;
	char	   *signature = psprintf("%s.follow_primary_check(text, integer, boolean)", request->schema);

	if (job->ssh == NULL || !ssh_is_alive(job->ssh) || !job->node.sql)
	{
		found(check, CHECK_UNKNOWN, "it could not be asked for its own check",
			  "See its rows as a node.");
		return;
	}
	remote_run(job->ssh, &remote_ask,
			   JOB_NAMED(job,
						 {"passfile", settings->passfile},
						 {"db_user", settings->rewind_user},
						 {"db_name", sql_scalar("SELECT current_database()", 0, NULL)},
						 {"function", signature}),
			   NULL, &limits, &reply);
	if (remote_says(&reply, "permitted", "no"))
		found(check, CHECK_UNKNOWN,
			  psprintf("role \"%s\" may not run follow_primary_check() there", settings->rewind_user),
			  psprintf("On the primary: GRANT EXECUTE ON FUNCTION %s TO %s", signature, quote_identifier(settings->rewind_user)));
	else if (!reply.ok)
		found(check, CHECK_UNKNOWN, psprintf("it could not be asked for its own check: %s", reply.messages),
			  "Call follow_primary_check() there, and see the server log.");
	else
	{
		check->asked = true;
		for (int i = 0; i < reply.nvalues; i++)
			if (strcmp(reply.values[i].key, "row") == 0)
				put_told_row(pstrdup(sql_text(reply.values[i].value)));
	}
}

/* The row of an item that is passed on only if the item failed. */
static CheckRow kept;

static void
keep_row(const CheckRow *row)
{
	kept = *row;
}

/* The node's own check, where the node is the candidate: one row if it fails. */
static void
check_from_node(Check *check)
{
	void		(*put) (const CheckRow *row) = check->put;

	check->candidate = check->node;
	check->node = NULL;
	check->asked = false;
	check->put = keep_row;
	check_try_item(check, "check", ask_node);
	check->put = put;
	if (!check->asked)
	{
		kept.status = "unknown";
		put_row(&kept);
	}
}

void
follow_primary_check_main(Datum main_arg)
{
	dsm_segment *seg;
	Segment    *segment;
	StringInfoData buf;
	shm_mq	   *mq;
	Check	   *check;

	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();

	CurrentResourceOwner = ResourceOwnerCreate(NULL, "follow_primary check");
	seg = dsm_attach(DatumGetUInt32(main_arg));
	if (seg == NULL)
		return;					/* the caller has gone away */
	dsm_pin_mapping(seg);
	segment = dsm_segment_address(seg);
	mq = (shm_mq *) ((char *) segment + segment->queue_offset);
	shm_mq_set_sender(mq, MyProc);
	queue = shm_mq_attach(mq, seg, NULL);

	process_start(segment->database);
	MemoryContextSwitchTo(AllocSetContextCreate(TopMemoryContext, "follow_primary check",
												ALLOCSET_DEFAULT_SIZES));
	initStringInfo(&buf);
	appendBinaryStringInfo(&buf, segment->question, segment->question_len);
	check = palloc0(sizeof(Check));
	check->put = put_row;
	check->candidate = pstrdup(pq_getmsgrawstring(&buf));
	check->whole = segment->whole;
	check->nnodes = segment->nnodes;
	check->job = palloc0(sizeof(Job));
	check->job->context = CurrentMemoryContext;
	check->request = request_receive(&buf);
	check->job->request = check->request;

	if (segment->has_node)
	{
		check->node = psprintf("%s:%d", check->job->request->node_host, check->job->request->node_port);
		check->job->token = record_new_token();
		read_own_facts(&check->job->primary);
		check_node(check);
		tell_standby_name(check);
		if (segment->everywhere && !check->is_this_server)
			check_from_node(check);
		ssh_disconnect(check->job->ssh);
	}
	else
		check_candidate(check);
	(void) shm_mq_send(queue, 0, "", false, true);
	dsm_detach(seg);
	proc_exit(0);
}

/* ---- the functions ---- */

/* A node that is named, or all of them; whatever is wrong with it is said before anything is tried. */
static CheckQuestion *
read_question(FunctionCallInfo fcinfo, const char *schema, bool trusted)
{
	CheckQuestion *question;
	char	   *host;
	int			port = 5432;

	if (PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not be null", "everywhere")));
	if (PG_ARGISNULL(0) && !PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" needs \"%s\"", "node_port", "node_host"),
				 errhint("Leave both out to have all nodes of follow_primary_node tried.")));
	if (PG_ARGISNULL(0))
		return check_ask_all(schema, PG_GETARG_BOOL(2));

	host = text_to_cstring(PG_GETARG_TEXT_PP(0));
	if (!PG_ARGISNULL(1))
		port = PG_GETARG_INT32(1);
	question = palloc0(sizeof(CheckQuestion));
	question->nodes = nodes_read(schema);
	question->own = request_to_ask(schema, NULL, 0);
	question->everywhere = PG_GETARG_BOOL(2);
	question->nrequests = 1;
	question->requests = palloc(sizeof(Request *));
	question->requests[0] = request_to_ask(schema, host, port);
	if (question->nodes->own && port == question->nodes->own->port &&
		pg_strcasecmp(host, question->nodes->own->host) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("node %s:%d is this server itself", host, port),
				 errhint("Name another node, or none to have all of them tried.")));
	if (!trusted && !nodes_have(question->nodes, host, port))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for node %s:%d", host, port),
				 errdetail("A role that is not a superuser may only name nodes that have a row in %s.follow_primary_node.", schema),
				 errhint("Ask a superuser to insert the node's row.")));
	return question;
}

Datum
follow_primary_check(PG_FUNCTION_ARGS)
{
	TupleDesc	tupdesc;
	Tuplestorestate *set;
	CallerIdentity caller;
	CheckQuestion *question;
	CheckAnswer *answer;
	char	   *schema = extension_schema(fcinfo);
	bool		trusted = superuser();
	bool		released;

	require_set(fcinfo);
	act_as_owner(fcinfo, &caller);
	question = read_question(fcinfo, schema, trusted);
	resume_caller(&caller);

	released = snapshot_release(fcinfo);
	answer = check_run(question);
	if (released)
		snapshot_retake();

	set = begin_set(fcinfo, &tupdesc);
	for (int i = 0; i < answer->nrows; i++)
	{
		char	  **fields[ROW_FIELDS];
		Datum		values[ROW_FIELDS];
		bool		nulls[ROW_FIELDS];

		row_fields(&answer->rows[i], fields);
		for (int j = 0; j < ROW_FIELDS; j++)
		{
			nulls[j] = *fields[j] == NULL;
			values[j] = nulls[j] ? (Datum) 0 : CStringGetTextDatum(*fields[j]);
		}
		tuplestore_putvalues(set, tupdesc, values, nulls);
	}
	return (Datum) 0;
}

Datum
follow_primary_self(PG_FUNCTION_ARGS)
{
	TupleDesc	tupdesc;
	CallerIdentity caller;
	Nodes	   *nodes;
	Datum		values[2];
	bool		nulls[2] = {false, false};
	char	   *schema = extension_schema(fcinfo);
	char	   *colon;

	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	act_as_owner(fcinfo, &caller);
	nodes = nodes_read(schema);
	resume_caller(&caller);
	colon = strrchr(nodes->own_name, ':');
	values[0] = PointerGetDatum(cstring_to_text_with_len(nodes->own_name, colon - nodes->own_name));
	values[1] = Int32GetDatum(atoi(colon + 1));
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(tupdesc), values, nulls)));
}
