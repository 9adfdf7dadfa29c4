/*
 * standby_name.h
 *		The name by which a primary knows the node as its standby.
 */
#ifndef FOLLOW_PRIMARY_STANDBY_NAME_H
#define FOLLOW_PRIMARY_STANDBY_NAME_H

#include "plan.h"

/*
 * What the node's WAL receiver calls itself by the settings that were surveyed, or
 * NULL if they do not say.  Of a former primary that is the name that it would have.
 */
extern const char *standby_name_in_force(const NodeFacts *node, int version_num);

/*
 * The application_name for the node's primary_conninfo if the call gives none:
 * the one that it has, NULL if its cluster_name does as well, else the host.
 */
extern const char *standby_name_to_write(const NodeFacts *node, int version_num,
										 const char *host);

/*
 * The name that the node has after a job: the one that the call or its row gives, or
 * that the job leaves it.
 */
extern const char *standby_name_after_job(const NodeFacts *node, int version_num,
										  const char *given, const char *host);

/*
 * Is a standby of that name a candidate by a value of synchronous_standby_names?
 * False for NULL, and for a value that no server would take.
 */
extern bool standby_name_is_candidate(const char *name, const char *synchronous_standby_names);

#endif							/* FOLLOW_PRIMARY_STANDBY_NAME_H */
