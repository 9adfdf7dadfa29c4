/*
 * survey.h
 *		The facts about this server and the node; nothing is changed.
 */
#ifndef FOLLOW_PRIMARY_SURVEY_H
#define FOLLOW_PRIMARY_SURVEY_H

#include "job.h"
#include "remote.h"

/*
 * Fills in job->primary, connects to the node, fills in job->node and the
 * fields of the job beside it.  Raises what ssh_connect() and remote_run()
 * raise; when the node is allowed to be down and neither SSH nor PostgreSQL
 * answers there, it is down instead.
 */
extern void survey(Job *job);

/* Reads the answer of survey.sh into facts; for tests as well. */
extern void survey_read_node(Job *job, const RemoteReply *reply);

#endif							/* FOLLOW_PRIMARY_SURVEY_H */
