/*
 * attach.h
 *		pgpool gets the node back.
 */
#ifndef FOLLOW_PRIMARY_ATTACH_H
#define FOLLOW_PRIMARY_ATTACH_H

#include "steps/step.h"

/*
 * Attaches the node to pgpool and returns when pgpool shows it up.  Raises
 * what pcp.h's functions raise; 22023 for a node_id that pgpool does not have,
 * or has for another node; 55000 when it does not come up in time.
 */
extern StepResult attach_node(Job *job);

/*
 * Refuses a node_id that pgpool does not have, or has for another node, while
 * nothing has been changed.  A pgpool that cannot be asked now is no reason to
 * refuse: a caller who waits gets a NOTICE.
 */
extern void attach_check_node_id(Job *job);

/*
 * Is pgpool's node of that number this node, as pgpool has it?  Raises all that is in the
 * way.  Returns its backend_application_name, palloc'd; NULL: pgpool does not tell.
 */
extern char *attach_try(const Job *job);

#endif							/* FOLLOW_PRIMARY_ATTACH_H */
