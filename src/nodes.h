/*
 * nodes.h
 *		The rows of follow_primary_node, and this server's name among them.
 */
#ifndef FOLLOW_PRIMARY_NODES_H
#define FOLLOW_PRIMARY_NODES_H

/* A row, as far as those need it who look at all nodes. */
typedef struct NodeRow
{
	char	   *host;
	int			port;
	char	   *slot_name;		/* its own, or the default one */
	bool		is_this_server;
} NodeRow;

typedef struct Nodes
{
	int			nrows;
	NodeRow    *rows;			/* by host and port */
	const NodeRow *own;			/* this server's, or NULL */
	char	   *own_name;		/* host:port: its row's, else a guess */
} Nodes;

/* Reads them all, in a process that may. Raises what own_row_host() raises. */
extern Nodes *nodes_read(const char *schema);

/* Is there a row for the node? */
extern bool nodes_have(const Nodes *nodes, const char *host, int port);

#endif							/* FOLLOW_PRIMARY_NODES_H */
