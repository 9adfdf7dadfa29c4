/*
 * pcp.h
 *		pgpool-II's control protocol, as far as attaching a node needs it.
 */
#ifndef FOLLOW_PRIMARY_PCP_H
#define FOLLOW_PRIMARY_PCP_H

#include "utils/timestamp.h"

/* Where pgpool listens, and who asks. The strings belong to the caller. */
typedef struct PcpTarget
{
	const char *host;
	int			port;
	const char *user;
	const char *pass_file;		/* a leading ~/ is this user's home */
	int			connect_timeout_ms; /* for one connection and its answer */
	int			refused_timeout_ms; /* how long a port that refuses connections
									 * is tried again; 0 = until the deadline */
	void		(*on_retry) (void *arg, const char *cause); /* before each new
															 * attempt; may be
															 * NULL */
	void	   *arg;
} PcpTarget;

/* pgpool's backend states (pool.h of pgpool-II, BACKEND_STATUS). */
typedef enum PcpNodeStatus
{
	PCP_NODE_UNUSED = 0,
	PCP_NODE_WAITING = 1,		/* up, no connections pooled */
	PCP_NODE_UP = 2,			/* up, connections pooled */
	PCP_NODE_DOWN = 3
} PcpNodeStatus;

typedef struct PcpNodeInfo
{
	char	   *host;			/* backend_hostname, palloc'd */
	int			port;			/* backend_port */
	PcpNodeStatus status;
} PcpNodeInfo;

/*
 * Each call makes a connection of its own and ends it.  A pgpool that cannot be
 * reached, or does not answer, is tried again until the absolute deadline; one
 * whose port refuses connections, until refused_timeout_ms have passed.
 *
 * Raise ERROR, nothing left open:
 *   08001 no connection, or no answer, before the deadline
 *   28P01 password wrong, or none found in the password file
 *   08P01 the answer is not understood
 *   58000 pgpool answered with an error, which the detail quotes
 *   22023 node_id is negative (pgpool would take -1 for all nodes)
 */
extern int	pcp_node_count(const PcpTarget *target, TimestampTz deadline);
extern void pcp_node_info(const PcpTarget *target, int node_id,
						  TimestampTz deadline, PcpNodeInfo *info);

/*
 * What pgpool's own setting of that name is, as pgpool.conf has it or its
 * default; palloc'd.  NULL: it has none of that name.
 */
extern char *pcp_setting(const PcpTarget *target, const char *name,
						 TimestampTz deadline);

/*
 * Asks pgpool to attach the node.  pgpool's "success" proves nothing (it gives
 * it for a node that does not exist): check by pcp_node_count before and
 * pcp_node_info after.
 */
extern void pcp_attach_node(const PcpTarget *target, int node_id,
							TimestampTz deadline);

#endif							/* FOLLOW_PRIMARY_PCP_H */
