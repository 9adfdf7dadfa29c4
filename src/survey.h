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

/*
 * Parts of it, for who asks without a job.
 *
 * survey_connect() returns false when the node is allowed to be down and is down
 * as a whole: neither its SSH nor its PostgreSQL port answers, and nobody streams
 * from this server through its slot.
 */
extern bool survey_connect(Job *job);

/*
 * Asks the node, in one round trip, about its data directory (NULL: the one of
 * the server that has the port).  The other raises the failure, if there is one.
 */
extern void survey_ask(Job *job, const char *pgdata, int timeout_ms, RemoteReply *reply);
extern void survey_raise_failure(const Job *job, const RemoteReply *reply);

/* Is the node's data directory the one that this server runs on? */
extern bool survey_is_this_server(const RemoteReply *reply);

/*
 * Which setting of the node is too low for a hot standby of this server, as a
 * phrase, or NULL.
 */
extern char *survey_lower_setting(const RemoteReply *reply);

/* What such a standby needs, as try.sh takes it. */
extern char *survey_needed_settings(void);

/* Raises 42501 if the rewind role cannot read what proves that a node follows. */
extern void survey_check_rewind_user(const Job *job);

#endif							/* FOLLOW_PRIMARY_SURVEY_H */
