/*
 * hints.h
 *		Hints that several errors share.
 */
#ifndef FOLLOW_PRIMARY_HINTS_H
#define FOLLOW_PRIMARY_HINTS_H

/* The hint where nothing else is to be done, and the end of one where something is. */
#define CALL_AGAIN \
	"Call follow_primary() again: it looks at the node afresh and goes on from there."
#define THEN_CALL_AGAIN	"then call follow_primary() again."

#define STARTED_WITH \
	"the command that starts the node's server sets %s, which wins over the settings that a job writes"
#define STARTED_WITH_HINT \
	"Take them out of node_start_command, or what its service starts it with (postgresql.conf is a place for a restore_command), " \
	"and restart the node's server where it runs. Then call follow_primary() again."

#define OWN_SLOT_HINT	"Give this node a slot_name of its own: the default is made from the host alone."

#define MUST_REACH_US_HINT \
	"The node must be able to connect to this server: check pg_hba.conf and listen_addresses here, " \
	"the password file there, and follow_primary.primary_host, replication_user and rewind_user."

#endif							/* FOLLOW_PRIMARY_HINTS_H */
