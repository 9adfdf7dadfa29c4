/*
 * method_basebackup.c
 *		A node gets a new copy of this server, beside what it has.
 *
 * The node's server, if it runs, goes on until the copy is complete and
 * verified; what it had stays beside the new data until the new standby is
 * proven.
 */
#include "postgres.h"

#include "attach.h"
#include "folders.h"
#include "method.h"
#include "node.h"
#include "primary.h"
#include "verify.h"

const Step basebackup_steps[] = {
	{"lock", node_lock},
	{"slot", primary_ensure_slot},
	{"space", folders_check_space},
	{"copy", node_copy},
	{"stop", node_stop},
	{"save_config", node_save_config},
	{"save_wal", node_save_wal},
	{"swap", node_swap},
	{"configure", node_configure},
	{"start", node_start},
	{"verify", verify_follows},
	{"attach", attach_node},
	{"clean", node_clean},
	{NULL, NULL}
};

/*
 * Where there is no room for both: what would be lost is saved, and the old
 * data goes before the copy is made.  What can be tried before is tried.
 */
const Step in_place_steps[] = {
	{"lock", node_lock},
	{"connect", node_connect},
	{"slot", primary_ensure_slot},
	{"space", folders_check_space},
	{"stop", node_stop},
	{"save_config", node_save_config},
	{"save_wal", node_save_wal},
	{"clear", node_clear},
	{"copy", node_copy},
	{"swap", node_swap},
	{"configure", node_configure},
	{"start", node_start},
	{"verify", verify_follows},
	{"attach", attach_node},
	{"clean", node_clean},
	{NULL, NULL}
};

/* After a job that ended between the swap, or the rewind, and the proof. */
const Step finish_steps[] = {
	{"lock", node_lock},
	{"slot", primary_ensure_slot},
	{"swap", node_swap},
	{"configure", node_configure},
	{"start", node_start},
	{"verify", verify_follows},
	{"attach", attach_node},
	{"clean", node_clean},
	{NULL, NULL}
};
