/*
 * nodes.c
 *		The rows of follow_primary_node, and this server's name among them.
 */
#include "postgres.h"

#include <unistd.h>

#include "postmaster/postmaster.h"

#include "nodes.h"
#include "own_row.h"
#include "request.h"
#include "sql.h"

/* Where no row is known to be this server's. */
static char *
guess_own_host(void)
{
	char	   *host = settings_copy_current()->primary_host;
	char		machine[256] = "";

	if (host[0] != '\0')
		return host;
	host = only_listen_address();
	if (host)
		return host;
	if (gethostname(machine, sizeof(machine) - 1) != 0 || machine[0] == '\0')
		return pstrdup("localhost");
	return pstrdup(machine);
}

Nodes *
nodes_read(const char *schema)
{
	Nodes	   *nodes = palloc0(sizeof(Nodes));
	SqlResult  *result = sql_read_nodes(schema, "host, port, slot_name", "ORDER BY host, port", 0, NULL);
	char	   *own = own_row_host(schema);

	nodes->nrows = result->nrows;
	nodes->rows = palloc0(sizeof(NodeRow) * Max(1, result->nrows));
	for (int i = 0; i < result->nrows; i++)
	{
		NodeRow    *row = &nodes->rows[i];

		row->host = sql_value(result, i, 0);
		row->port = atoi(sql_value(result, i, 1));
		row->slot_name = sql_value(result, i, 2) ? sql_value(result, i, 2) : default_slot_name(row->host);
		row->is_this_server = own && strcmp(row->host, own) == 0 && row->port == PostPortNumber;
		if (row->is_this_server)
			nodes->own = row;
	}
	nodes->own_name = psprintf("%s:%d", nodes->own ? nodes->own->host : guess_own_host(), PostPortNumber);
	return nodes;
}

bool
nodes_have(const Nodes *nodes, const char *host, int port)
{
	for (int i = 0; i < nodes->nrows; i++)
		if (pg_strcasecmp(nodes->rows[i].host, host) == 0 && nodes->rows[i].port == port)
			return true;
	return false;
}
