/*
 * method_rewind.c
 *		A diverged or stopped node goes back to the fork, by pg_rewind.
 *
 * The checkpoint comes before the rewind: until the promotion's own has ended,
 * this server's control file shows the old timeline and pg_rewind would see
 * nothing to do.  The slot comes before the checkpoint, which would remove the
 * WAL that the rewound node starts from.
 */
#include "postgres.h"

#include "attach.h"
#include "method.h"
#include "node.h"
#include "primary.h"
#include "verify.h"

const Step rewind_steps[] = {
	{"lock", node_lock},
	{"connect", node_connect},
	{"slot", primary_ensure_slot},
	{"checkpoint", primary_checkpoint},
	{"stop", node_stop},
	{"save_config", node_save_config},
	{"save_wal", node_save_wal},
	{"rewind", node_rewind},
	{"configure", node_configure},
	{"start", node_start},
	{"verify", verify_follows},
	{"attach", attach_node},
	{"clean", node_clean},
	{NULL, NULL}
};
