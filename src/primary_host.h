/*
 * primary_host.h
 *		The name under which the node reaches this server.
 */
#ifndef FOLLOW_PRIMARY_PRIMARY_HOST_H
#define FOLLOW_PRIMARY_PRIMARY_HOST_H

#include "job.h"
#include "remote.h"

/*
 * Returns what the request says, else the best name that is known; the reply is the
 * survey's.  Whether the node reaches this server by it is for a later step to prove.
 */
extern char *primary_host_find(const Job *job, const RemoteReply *reply);

/* Is the node on this server's machine? */
extern bool primary_host_is_shared(const RemoteReply *reply);

#endif							/* FOLLOW_PRIMARY_PRIMARY_HOST_H */
