/*
 * down.c
 *		Is a node down whose server was not found?
 *
 * While anything listens on its port, it is not; nor while a process is at work
 * in its data directory.  src/remote/port.sh looks at the sockets there; what
 * is not to be seen from there, as a container behind a forwarded port, is seen
 * by a connection from here.
 *
 * Where nothing is at the port, and a server of this cluster is at another one of
 * the host, that is no node that is down, but a wrong port: unless it is this
 * server, or another row of follow_primary_node.
 */
#include "postgres.h"

#include "miscadmin.h"

#include <sys/stat.h>

#include "down.h"
#include "primary_host.h"
#include "record.h"
#include "sql.h"
#include "ssh/net.h"

#define PROBE_TIMEOUT_MS	2000

/* A server on the node's host. */
typedef struct Server
{
	char	   *place;			/* of its sockets: see port.sh */
	int			port;
	int			pid;
	uint64		system_id;		/* 0 = not known */
	char	   *user;
	char	   *inode;			/* of its data directory, "device:inode" */
	char	   *addresses;		/* with commas, or "-" */
	char	   *pgdata;
} Server;

static void
set_not_down(NodeFacts *node, int sqlstate, char *reason, char *hint)
{
	node->not_down = reason;
	node->not_down_sqlstate = sqlstate;
	node->not_down_hint = hint;
}

/* Takes the next word from *text; "" if there is none. */
static char *
next_word(char **text)
{
	char	   *word = strsep(text, " ");

	return word ? word : pstrdup("");
}

static void
read_server(const char *value, Server *server)
{
	char	   *text = pstrdup(value);

	server->place = next_word(&text);
	server->port = atoi(next_word(&text));
	server->pid = atoi(next_word(&text));
	server->system_id = strtoull(next_word(&text), NULL, 10);
	server->user = next_word(&text);
	server->inode = next_word(&text);
	server->addresses = next_word(&text);
	server->pgdata = text ? text : pstrdup("");
}

/* Does another row of follow_primary_node say which node that server is? */
static bool
is_other_node(const Job *job, const Server *server)
{
	const Request *request = job->request;
	const char *args[] = {
		psprintf("%d", server->port), request->node_host, psprintf("%d", request->node_port), server->addresses
	};

	return sql_is_true(psprintf("SELECT EXISTS (SELECT FROM %s.follow_primary_node WHERE port = $1::int "
								"AND (lower(host), port) <> (lower($2), $3::int) "
								"AND (lower(host) = lower($2) OR host = ANY (string_to_array($4, ','))))", request->schema),
					   lengthof(args), args);
}

/*
 * The servers of the host, for people, with those of this cluster apart that may
 * be the node.
 */
static void
list_servers(const Job *job, const RemoteReply *reply, StringInfo all, StringInfo candidates)
{
	bool		shared = primary_host_is_shared(reply);
	struct stat st;
	char	   *own_inode = NULL;

	if (shared && stat(DataDir, &st) == 0)
		own_inode = psprintf("%llu:%llu", (unsigned long long) st.st_dev, (unsigned long long) st.st_ino);
	for (int i = 0; i < reply->nvalues; i++)
	{
		Server		server;
		char	   *text;

		if (strncmp(reply->values[i].key, "server.", 7) != 0)
			continue;
		read_server(reply->values[i].value, &server);
		if (strcmp(server.place, "own") == 0 || (own_inode && strcmp(server.inode, own_inode) == 0))
			continue;
		text = psprintf("\"%s\" on port %d (%s; user %s, process %d)", server.pgdata, server.port,
						strcmp(server.addresses, "-") == 0 ? "no address" : server.addresses, server.user, server.pid);
		appendStringInfo(all, "%s%s", all->len > 0 ? ", " : "", text);
		if ((server.system_id == 0 || server.system_id == job->primary.system_id) && !is_other_node(job, &server))
			appendStringInfo(candidates, "%s%s", candidates->len > 0 ? ", " : "", text);
	}
}

/* Does a process work in the data directory, that is not to be asked by SQL? */
static bool
is_at_work(NodeFacts *node, const RemoteReply *reply)
{
	const char *as = remote_get(reply, "left_as");
	const char *pid = remote_get(reply, "left_pid");
	const char *processes = remote_get(reply, "left_processes");

	if (as == NULL || pid == NULL || processes == NULL)
		return false;
	if (strcmp(as, "single_user") == 0)
		set_not_down(node, ERRCODE_OBJECT_IN_USE,
					 psprintf("a single-user server is at work in the node's data directory, process %s", pid),
					 pstrdup("Wait for its end, or end it on the node. Then call again."));
	else if (strcmp(as, "no_lock_file") == 0)
		set_not_down(node, ERRCODE_OBJECT_IN_USE,
					 psprintf("a server is at work in the node's data directory, although there is no postmaster.pid: %s", processes),
					 psprintf("Start no other one there. It ends by itself within minutes, or by kill -INT %s on the node. Then call again.", pid));
	else if (strcmp(as, "contained") == 0)
		set_not_down(node, ERRCODE_OBJECT_IN_USE,
					 psprintf("the node's server runs in a PID namespace of its own, as in a container, where SSH does not lead to: %s", processes),
					 pstrdup("Have ssh_port and ssh_user in the node's row lead to an sshd in that container."));
	else
		set_not_down(node, ERRCODE_OBJECT_IN_USE,
					 psprintf("a server that has ended has left processes at work in the node's data directory: %s", processes),
					 psprintf("End them on the node, by kill -QUIT %s. Then call again.", pid));
	return true;
}

/* Does something answer at the node's port, seen from here? */
static bool
answers(const Job *job)
{
	const Request *request = job->request;

	return net_probe(request->node_host, request->node_port,
					 TimestampTzPlusMilliseconds(GetCurrentTimestamp(), PROBE_TIMEOUT_MS)) == NET_OK;
}

void
down_prove(Job *job, const RemoteReply *reply, bool stopped)
{
	NodeFacts  *node = &job->node;
	const Request *request = job->request;
	const char *holder = remote_get(reply, "port_holder");
	const char *sharing = remote_get(reply, "port_servers");
	StringInfoData all;
	StringInfoData candidates;
	char	   *behind;

	if (node->state != NODE_DOWN || stopped || node->port_owner || is_at_work(node, reply))
		return;
	initStringInfo(&all);
	initStringInfo(&candidates);
	list_servers(job, reply, &all, &candidates);
	behind = candidates.len > 0 ? psprintf("; servers there that may be the node: %s", candidates.data) : "";

	if (sharing && atoi(sharing) > 1 && node->pgdata == NULL)
		set_not_down(node, ERRCODE_INVALID_PARAMETER_VALUE,
					 psprintf("several servers on the node's host have port %d: %s", request->node_port, all.data),
					 pstrdup("Pass node_pgdata, or set pgdata in the node's row of follow_primary_node, to tell which one it is."));
	else if (holder && holder[0] != '\0')
		set_not_down(node, ERRCODE_OBJECT_IN_USE,
					 psprintf("the node's port %d is in use by %s%s", request->node_port, holder, behind),
					 strstr(holder, "may not look into") ?
					 pstrdup("If that is the node's server, set follow_primary.ssh_user to its user; in a container, have SSH lead into it. If it is a pooler or a proxy, pass the server's own port as node_port, or node_pgdata.") :
					 pstrdup("Correct node_port. If that is a pooler or a proxy on the node's port, and the server behind it is down, start the server; or stop the other process."));
	else if (answers(job))
		set_not_down(node, ERRCODE_OBJECT_IN_USE,
					 psprintf("something answers at port %d of the node, and no process there listens on it%s", request->node_port, behind),
					 pstrdup("If its server is in a container, have ssh_port and ssh_user in the node's row lead to an sshd in it. If the port is forwarded to another machine, correct node_host or node_port."));
	else if (candidates.len > 0 && node->pgdata == NULL)
		set_not_down(node, ERRCODE_INVALID_PARAMETER_VALUE,
					 psprintf("no server has the node's port %d; its host has %s", request->node_port, candidates.data),
					 pstrdup("Correct node_port or node_host; or pass node_pgdata."));
	else if (all.len > 0)
		node->other_servers = all.data;
}
