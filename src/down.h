/*
 * down.h
 *		Is a node down whose server was not found?
 */
#ifndef FOLLOW_PRIMARY_DOWN_H
#define FOLLOW_PRIMARY_DOWN_H

#include "job.h"
#include "remote.h"

/*
 * Where the node seems to be down, by the answer of survey.sh that
 * survey_read_node() has read: sets not_down and what belongs to it in
 * job->node if that is not so, and other_servers to the servers of its host.
 * Connects to the node's port, unless this job knows that it has stopped the
 * server.
 */
extern void down_prove(Job *job, const RemoteReply *reply, bool stopped);

#endif							/* FOLLOW_PRIMARY_DOWN_H */
