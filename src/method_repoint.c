/*
 * method_repoint.c
 *		A running standby follows another primary, its data untouched.
 *
 * Nothing is stopped where PostgreSQL can reload the settings, and no
 * checkpoint is needed: the standby has a prefix of this server's WAL and
 * streams the rest.
 */
#include "postgres.h"

#include "attach.h"
#include "method.h"
#include "node.h"
#include "primary.h"
#include "verify.h"

const Step none_steps[] = {
	{"lock", node_lock},
	{"verify", verify_follows},
	{"attach", attach_node},
	{"clean", node_clean},
	{NULL, NULL}
};

const Step repoint_steps[] = {
	{"lock", node_lock},
	{"slot", primary_ensure_slot},
	{"repoint", node_repoint},
	{"verify", verify_follows},
	{"attach", attach_node},
	{"clean", node_clean},
	{NULL, NULL}
};

/* For settings that only a start reads. */
const Step repoint_restart_steps[] = {
	{"lock", node_lock},
	{"slot", primary_ensure_slot},
	{"stop", node_stop},
	{"configure", node_configure},
	{"start", node_start},
	{"verify", verify_follows},
	{"attach", attach_node},
	{"clean", node_clean},
	{NULL, NULL}
};
