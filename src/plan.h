/*
 * plan.h
 *		The facts of a survey, and the plan that follows from them.
 */
#ifndef FOLLOW_PRIMARY_PLAN_H
#define FOLLOW_PRIMARY_PLAN_H

#include "hints.h"
#include "timeline.h"

typedef enum RequestedMethod
{
	REQUESTED_AUTO,
	REQUESTED_REPOINT,
	REQUESTED_REWIND,
	REQUESTED_BASEBACKUP
} RequestedMethod;

typedef enum Method
{
	METHOD_NONE,				/* it follows already; only the proof is made */
	METHOD_REPOINT,
	METHOD_REWIND,
	METHOD_BASEBACKUP,
	METHOD_SKIP,				/* the node is down, and shall be left so */
	METHOD_REFUSE
} Method;

/* What is known of this server. LSNs are those of the moment of the survey. */
typedef struct PrimaryFacts
{
	bool		in_recovery;
	uint64		system_id;
	int			version_num;
	TimeLineID	timeline;
	History		history;
	XLogRecPtr	flush_lsn;
	XLogRecPtr	oldest_wal;		/* start of the oldest segment in pg_wal that
								 * all later ones follow without a gap */
	bool		full_page_writes;
	bool		slot_exists;
	bool		slot_active;
	bool		slot_lost;		/* its WAL is gone, or it reserves none */
	bool		slot_logical;
	char	   *slot_user;		/* another node that a job gave the slot to, as
								 * host:port, or NULL */
	char	   *slot_client;	/* who streams through the slot, for people */
	int			slot_pid;		/* its WAL sender */
	bool		slot_of_node;	/* it has the node's address and the name that
								 * the node uses */
	int			free_slots;
	int			free_wal_senders;
	int			free_logins;	/* that replication_user may have more at once,
								 * by its CONNECTION LIMIT; -1 = no limit */
	char	   *replication_user;	/* quoted */
} PrimaryFacts;

typedef enum PgdataState
{
	PGDATA_UNKNOWN,				/* not given, and nothing runs that could tell */
	PGDATA_MISSING,
	PGDATA_EMPTY,
	PGDATA_NOT_PGDATA,			/* something else is in there */
	PGDATA_UNREADABLE,
	PGDATA_OK
} PgdataState;

typedef enum NodeState
{
	NODE_DOWN,
	NODE_STANDBY,
	NODE_PRIMARY
} NodeState;

/* What an earlier job left undone there. */
typedef enum NodeMark
{
	MARK_NONE,
	MARK_BEFORE_CHANGE,			/* stopped by a job, the data not touched */
	MARK_HALF_CHANGED,			/* the data is neither old nor new */
	MARK_CLEARED,				/* the data was removed, or part of it, to
								 * make room */
	MARK_HALF_SWAPPED,			/* a proven copy is half in place */
	MARK_CHANGED				/* the data is new, not yet proven */
} NodeMark;

/* What is known of the node. Strings are NULL where unknown. */
typedef struct NodeFacts
{
	bool		is_this_server;
	PgdataState pgdata_state;
	char	   *pgdata;			/* canonical */
	NodeState	state;
	char	   *port_owner;		/* another data directory whose server has
								 * the node's port, or NULL */
	int			other_port;		/* the port that the server of pgdata uses, if
								 * it runs on another than was asked for, else
								 * 0 */
	char	   *not_down;		/* its server was not found, and it is not down
								 * all the same: a phrase, or NULL */
	int			not_down_sqlstate;
	char	   *not_down_hint;
	char	   *other_servers;	/* those of its host, of a node that is down,
								 * for people, or NULL */
	bool		sql;			/* it could be asked by SQL */
	char	   *sql_error;
	char	   *refused_login;	/* its server answers, but lets our role not
								 * in: what to do, else NULL */
	int			refused_sqlstate;	/* with refused_login */
	int			version_major;	/* of the data directory */
	int			bin_version_major;	/* of the programs in node_bin_dir */
	uint64		system_id;
	bool		clean_shutdown;
	bool		was_primary;	/* down, and no standby when it went down */
	bool		ended_here;		/* it was shut down, and has no WAL that this
								 * server lacks: as a primary, its last record,
								 * the checkpoint of that, is here too; as a
								 * standby, it has none behind the fork, replayed
								 * or not */
	bool		wal_log_hints;
	bool		checksums;
	NodeMark	mark;
	bool		config_missing; /* its postgresql.conf is nowhere */
	char	   *recovery_file_taken;	/* why a job may not write its recovery
										 * file: a phrase, or NULL */
	char	   *started_with;	/* settings that win over those of its files, for
								 * they stand in its start command, or NULL */
	bool		mark_stale;		/* there may be other data since it was left */
	bool		foreign_mark;	/* another primary's job began to change it, for
								 * a fork that may be a later one: what it put
								 * aside is to be kept */
	bool		leftovers;		/* files of an earlier job, besides the mark */
	bool		uncounted;		/* WAL that a rewind discarded, and nobody has
								 * counted yet */

	/*
	 * The end of its WAL: for a standby, the greater of received and
	 * replayed; for a primary, the current write position; for a server that
	 * is down, the last checkpoint (its WAL may reach further).
	 */
	TimeLineID	timeline;
	XLogRecPtr	lsn;
	History		history;		/* of that timeline */
	bool		history_known;

	/*
	 * Did the node's WAL prove to be different from the primary's, although
	 * the histories look the same?  Two servers that were promoted
	 * separately at the same point have equal history files.
	 */
	bool		forked_unseen;
	TimeLineID	unseen_fork_timeline;	/* the first of the primary's that the
										 * node began otherwise; 0 = not known */

	/* By which it is known as a standby: see standby_name.h. */
	char	   *application_name;	/* in primary_conninfo, or NULL */
	char	   *cluster_name;
	char	   *sync_names;		/* its own synchronous_standby_names */
	bool		other_name;		/* the call gives it another name than it has */

	/* Of a standby. */
	bool		receiver_streaming;
	TimeLineID	receiver_timeline;
	bool		uses_slot;		/* its receiver streams through a slot of the
								 * job's name, which standbys may have, too */
	bool		receives_from_us;	/* from the host and port that the job gives
									 * it for this server */
	char	   *conninfo;		/* primary_conninfo in force */
	bool		conninfo_reloadable;	/* 13 and later */
	bool		target_timeline_latest;
	char	   *recovery_target;	/* a setting that would end its recovery, now
									 * or from its next start on, or NULL */
	bool		recovery_target_in_force;	/* it would now: only a start takes
											 * it away */
	bool		replay_paused;
	char	   *lower_setting;	/* a setting of it is too low to replay this
								 * server's WAL: a phrase, or NULL */
	bool		replay_delayed; /* recovery_min_apply_delay is set */
	char	   *restore_command;	/* in force, "" or NULL if none */
	bool		archive_serves; /* the restore_command that it is to have was
								 * tried, and serves the WAL between the
								 * node's and the primary's oldest */
	bool		archive_needs_restart;	/* for that command to be used */
	bool		hot_standby;
} NodeFacts;

/* Is there room for a copy? Bytes; of several file systems, the sum. */
typedef struct RoomFacts
{
	int64		missing;		/* for a copy beside the data; 0 = none */
	int64		missing_without_old;	/* once the data is removed */
	char	   *where;			/* what is needed, free and missing, and on
								 * which file system, as a phrase */
} RoomFacts;

/* Where the node's WAL may go on that is not this server's. */
typedef enum ForkState
{
	FORK_NONE,					/* nowhere: it ends on this server's timeline,
								 * or is what a job brought from here */
	FORK_KNOWN,					/* behind fork_lsn on fork_timeline, whether or
								 * not it has come so far */
	FORK_UNKNOWN
} ForkState;

typedef struct JobPlan
{
	Method		method;
	char	   *reason;			/* a phrase for people */
	int			sqlstate;		/* METHOD_REFUSE: which error it is ... */
	char	   *hint;			/* ... and what to do */
	bool		restart;		/* METHOD_REPOINT: settings need a restart */
	bool		rejoin;			/* METHOD_REPOINT: of a server that is down */
	bool		in_place;		/* METHOD_BASEBACKUP: the old data goes before
								 * the copy is made */
	bool		finish;			/* the data of an interrupted job is in place,
								 * or half so: only go on from there */
	bool		diverged;		/* the node has WAL behind the fork */
	ForkState	fork;
	TimeLineID	fork_timeline;	/* timeline on which the histories part; 0 =
								 * not known */
	XLogRecPtr	fork_lsn;
} JobPlan;

/*
 * Chooses the cheapest method that is safe.  A pure function: what is not in
 * the facts is not looked at, so that tables of facts test it.  Strings of the
 * plan are palloc'd in the current context.
 */
extern void plan_choose(const PrimaryFacts *primary, const NodeFacts *node,
						RequestedMethod requested, bool rejoin_when_down,
						JobPlan *plan);

/*
 * Where there is no room for a copy beside the data, the copy that is planned
 * is made in place, if that is permitted, or refused.  Pure, too.
 */
extern void plan_for_room(const NodeFacts *node, const RoomFacts *room,
						  bool copy_in_place, bool keep_old_data,
						  JobPlan *plan);

/*
 * Is there a fact for which a job would refuse to touch the node?  Then the plan
 * says which and why.  Pure, too.
 */
extern bool plan_refuses(const PrimaryFacts *primary, const NodeFacts *node, JobPlan *plan);

/* Why pg_rewind would be impossible on the node as it is, as a phrase, or NULL.  Pure, too. */
extern char *plan_rewind_objection(const PrimaryFacts *primary, const NodeFacts *node,
								   const JobPlan *plan);

/* Does somebody stream through the node's slot, who is not the node as it is now? */
extern bool plan_slot_is_held(const PrimaryFacts *primary, const NodeFacts *node);

extern const char *method_name(Method method);

#endif							/* FOLLOW_PRIMARY_PLAN_H */
