/*
 * divergence.h
 *		Whether the node's WAL leaves this server's history where the histories
 *		of their timelines do not tell.
 */
#ifndef FOLLOW_PRIMARY_DIVERGENCE_H
#define FOLLOW_PRIMARY_DIVERGENCE_H

#include "plan.h"
#include "remote.h"

/* The records of the node's WAL to compare, as survey.sh is to be told them. */
extern char *divergence_records(const History *history);

/*
 * Corrects the facts that control data and histories gave of the node by what
 * its WAL and its last checkpoint show.  What cannot be read, there or here,
 * corrects nothing.
 */
extern void divergence_find(const PrimaryFacts *primary, NodeFacts *node,
							const RemoteReply *reply);

#endif							/* FOLLOW_PRIMARY_DIVERGENCE_H */
