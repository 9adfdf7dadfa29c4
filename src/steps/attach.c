/*
 * attach.c
 *		pgpool gets the node back.
 *
 * pgpool answers "success" to attaching a node that does not exist or is up
 * already, so it is asked before and looked at afterwards.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"

#include "compat.h"
#include "pcp.h"
#include "record.h"
#include "ssh/net.h"
#include "steps/attach.h"

#define POLL_MS		100

/* Long enough for a pgpool that is there. */
#define CHECK_MS	300

/*
 * pgpool's control process restarts about a second after a failover.  A DBA who
 * waits for a call by hand waits no longer than this where nobody listens: pcp_host may
 * be the DBA's own machine.  pgpool itself does not wait for the call.
 */
#define REFUSED_MS	5000

/* Who only looks does not wait for a pgpool that is stopped, but for such a restart. */
#define LOOK_REFUSED_MS 1500

static void
set_target(const Job *job, PcpTarget *target)
{
	const Settings *settings = job->request->settings;

	memset(target, 0, sizeof(*target));
	target->host = settings->pcp_host[0] ? settings->pcp_host : job->request->client_host;
	target->port = settings->pcp_port;
	target->user = settings->pcp_user;
	target->pass_file = settings->pcp_pass_file;
	target->connect_timeout_ms = settings->connect_timeout * 1000;
	target->refused_timeout_ms = job->waited_for && !job->pgpool_answered ? REFUSED_MS : 0;
	if (target->host == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("it is not known where pgpool is, to attach node %d", job->request->node_id),
				 errdetail("The caller is not connected by TCP, and follow_primary.pcp_host is not set."),
				 errhint("Set follow_primary.pcp_host, or pass attach => false.")));
}

/* A name that every machine has for itself. */
static bool
is_local_name(const char *host)
{
	return host[0] == '\0' || host[0] == '/' || pg_strcasecmp(host, "localhost") == 0 ||
		strcmp(host, "127.0.0.1") == 0 || strcmp(host, "::1") == 0;
}

/* Do two names lead to one machine, as far as can be known here, and by then? */
static bool
may_be_same_host(const char *one, const char *other, TimestampTz deadline)
{
	return is_local_name(one) || is_local_name(other) ||
		net_compare_hosts(one, other, deadline) != HOST_OTHER;
}

/* Is this pgpool's idea of the node, too? */
static void
check_node(const Job *job, const PcpTarget *target, int count, TimestampTz deadline,
		   PcpNodeInfo *info)
{
	int			node_id = job->request->node_id;

	if (node_id >= count)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("pgpool at %s:%d has no node %d", target->host, target->port, node_id),
				 errdetail("It has %d nodes, numbered from 0.", count),
				 errhint("Correct node_id: SHOW pool_nodes lists them.")));
	pcp_node_info(target, node_id, deadline, info);
	if (info->port != job->request->node_port ||
		!may_be_same_host(info->host, job->request->node_host, deadline))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("pgpool's node %d is %s:%d, not %s", node_id, info->host, info->port,
						node_name(job)),
				 errhint("Correct node_id: SHOW pool_nodes lists them.")));
}

char *
attach_try(const Job *job)
{
	PcpTarget	target;
	PcpNodeInfo info;
	TimestampTz deadline;

	set_target(job, &target);
	target.refused_timeout_ms = LOOK_REFUSED_MS;
	deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), target.connect_timeout_ms);
	check_node(job, &target, pcp_node_count(&target, deadline), deadline, &info);
	return pcp_setting(&target, psprintf("backend_application_name%d", job->request->node_id), deadline);
}

/*
 * Is the error about pgpool alone?  A pgpool that cannot be asked is no reason
 * to leave a node without a primary, least of all after a failover that nobody
 * watches: the attach step will try again.  A node_id that is another node's is
 * a reason.
 */
static bool
is_only_for_attach(const ErrorData *error)
{
	return error->sqlerrcode == ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION ||
		error->sqlerrcode == ERRCODE_INVALID_PASSWORD ||
		error->sqlerrcode == ERRCODE_PROTOCOL_VIOLATION ||
		error->sqlerrcode == ERRCODE_SYSTEM_ERROR;
}

void
attach_check_node_id(Job *job)
{
	PcpTarget	target;
	PcpNodeInfo info;
	MemoryContext context = CurrentMemoryContext;
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), CHECK_MS);

	if (!job->request->attach || job->request->node_id < 0)
		return;
	set_target(job, &target);
	PG_TRY();
	{
		int			count = pcp_node_count(&target, deadline);

		/* It answers, so it is worth waiting for. */
		job->pgpool_answered = true;
		deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), target.connect_timeout_ms);
		check_node(job, &target, count, deadline, &info);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		if (!is_only_for_attach(error))
			PG_RE_THROW();
		FlushErrorState();
		job_notice(job, "node %d cannot be looked up in pgpool: %s",
				   job->request->node_id, error->message);
	}
	PG_END_TRY();
}

/* A job that waits for pgpool. */
typedef struct Waiting
{
	Job		   *job;
	JobWait		wait;
} Waiting;

static void
tell_retry(void *arg, const char *cause)
{
	Waiting    *waiting = (Waiting *) arg;
	const Settings *settings = waiting->job->request->settings;

	ssh_serve(waiting->job->ssh);
	job_tell_waiting(waiting->job, &waiting->wait,
					 psprintf("pgpool at port %d of %s: %s", settings->pcp_port,
							  settings->pcp_host[0] ? settings->pcp_host : waiting->job->request->client_host,
							  cause));
}

/* Returns when pgpool shows the node up. */
static void
attach(Job *job, const PcpTarget *target, JobWait *wait)
{
	PcpNodeInfo info;
	int			node_id = job->request->node_id;
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													   job->request->settings->verify_timeout * 1000);

	check_node(job, target, pcp_node_count(target, deadline), deadline, &info);
	if (info.status == PCP_NODE_UP || info.status == PCP_NODE_WAITING)
	{
		job_detail(job, "pgpool's node %d is up already", node_id);
		return;
	}

	pcp_attach_node(target, node_id, deadline);
	for (;;)
	{
		pcp_node_info(target, node_id, deadline, &info);
		if (info.status == PCP_NODE_UP || info.status == PCP_NODE_WAITING)
			break;
		if (GetCurrentTimestamp() >= deadline)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("pgpool does not show node %d up", node_id),
					 errdetail("pgpool took the request to attach it and still shows status %d.",
							   info.status),
					 errhint("See pgpool's log.")));
		ssh_serve(job->ssh);
		job_tell_waiting(job, wait, psprintf("pgpool shows node %d with status %d", node_id, info.status));
		net_pause(POLL_MS);
	}
	job_detail(job, "pgpool at %s:%d shows node %d up", target->host, target->port, node_id);
}

StepResult
attach_node(Job *job)
{
	PcpTarget	target;
	MemoryContext context = CurrentMemoryContext;
	Waiting		waiting = {.job = job};

	set_target(job, &target);
	target.on_retry = tell_retry;
	target.arg = &waiting;
	(void) job_is_silent(&waiting.wait);
	PG_TRY();
	{
		attach(job, &target, &waiting.wait);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		error->hint = psprintf("%s%sThe node follows this server; calling follow_primary() again only attaches it to pgpool, and attach => false leaves pgpool alone.",
							   error->hint ? error->hint : "", error->hint ? " " : "");
		ReThrowError(error);
	}
	PG_END_TRY();
	return STEP_DONE;
}
