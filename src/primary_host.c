/*
 * primary_host.c
 *		The name under which the node reaches this server.
 *
 * Where nobody gives it, names come before the address that the node's sshd sees,
 * which may be one of another network: the name by which the node reaches this
 * server already, the one in this server's own row of follow_primary_node, and the
 * only one that this server listens on.
 */
#include "postgres.h"

#include "postmaster/postmaster.h"
#include "storage/fd.h"

#include "compat.h"
#include "own_row.h"
#include "primary_host.h"
#include "recovery_conf.h"
#include "settings.h"
#include "sql.h"
#include "standby_name.h"

bool
primary_host_is_shared(const RemoteReply *reply)
{
	const char *theirs = remote_get(reply, "boot_id");
	char		ours[64] = "";
	FILE	   *file = AllocateFile("/proc/sys/kernel/random/boot_id", "r");

	if (file)
	{
		if (fgets(ours, sizeof(ours), file))
			ours[strcspn(ours, "\n")] = '\0';
		FreeFile(file);
	}
	return theirs && ours[0] != '\0' && strcmp(theirs, ours) == 0;
}

/* Does the name lead every machine to itself? */
static bool
is_loopback(const char *host)
{
	return pg_strncasecmp(host, "localhost", 9) == 0 || strncmp(host, "127.", 4) == 0 ||
		strcmp(host, "::1") == 0;
}

static bool
can_be_used(const char *host, const RemoteReply *reply)
{
	return is_host_name(host) && (!is_loopback(host) || primary_host_is_shared(reply));
}

/*
 * Does the node stream from this server?  It receives this server's timeline, and
 * its WAL sender is here, not that of another standby.
 */
static bool
streams_from_here(const Job *job, const RemoteReply *reply)
{
	const char *args[] = {
		standby_name_in_force(&job->node, job->primary.version_num),
		remote_get(reply, "sql.receiver_slot")
	};

	return job->node.receiver_streaming && job->node.receiver_timeline == job->primary.timeline &&
		sql_is_true("SELECT EXISTS (SELECT FROM pg_stat_replication r LEFT JOIN pg_replication_slots s ON s.active_pid = r.pid "
					"WHERE r.application_name = $1 AND coalesce(s.slot_name, '') = coalesce($2, ''))",
					lengthof(args), args);
}

/* The host in "HOST:PORT", whose port is the one that the node is to use, or NULL. */
static char *
host_of(const char *address, int port)
{
	const char *colon = address ? strrchr(address, ':') : NULL;

	return colon && atoi(colon + 1) == port ? pnstrdup(address, colon - address) : NULL;
}

/*
 * The one by which the node reaches this server now, or would if it streamed.  Of
 * several hosts in primary_conninfo the WAL receiver tells which one it is; else
 * their ports have to be the same, and one be known here.
 */
static char *
name_in_use(const Job *job, const RemoteReply *reply)
{
	char	   *host = host_of(remote_get(reply, "sql.receiver_from"), job->request->primary_port);
	const char *port = conninfo_value(job->node.conninfo, "port");
	char	   *hosts;

	if (host && can_be_used(host, reply) && streams_from_here(job, reply))
		return host;

	hosts = conninfo_value(job->node.conninfo, "host");
	if (hosts == NULL || atoi(port ? port : DEF_PGPORT_STR) != job->request->primary_port)
		return NULL;
	for (host = strtok(hosts, ","); host; host = strtok(NULL, ","))
		if (can_be_used(host, reply) && own_host(host))
			return host;
	return NULL;
}

char *
primary_host_find(const Job *job, const RemoteReply *reply)
{
	char	   *host = job->request->primary_host;
	const char *seen = remote_get(reply, "ssh_client");

	if (host == NULL)
		host = name_in_use(job, reply);
	if (host == NULL && job->request->primary_port == PostPortNumber)
	{
		host = own_row_host(job->request->schema);
		if (host && !can_be_used(host, reply))
			host = NULL;
	}
	if (host == NULL)
		host = only_listen_address();
	if (host == NULL && seen && seen[0] != '\0')
		host = pstrdup(seen);
	if (host == NULL)
		host = pstrdup(ssh_local_address(job->ssh));
	return host;
}
