/*
 * item.h
 *		One thing that is tried by a check.
 */
#ifndef FOLLOW_PRIMARY_CHECK_ITEM_H
#define FOLLOW_PRIMARY_CHECK_ITEM_H

#include "job.h"
#include "remote.h"

typedef enum CheckStatus
{
	CHECK_OK,
	CHECK_WARNING,
	CHECK_ERROR,
	CHECK_UNKNOWN
} CheckStatus;

/* A row of follow_primary_check(). */
typedef struct CheckRow
{
	char	   *candidate;		/* the server that would be the primary */
	char	   *node;			/* that would follow it; NULL: the candidate alone */
	char	   *item;
	char	   *status;
	char	   *message;
	char	   *hint;			/* NULL: nothing to do */
} CheckRow;

/* What is found by trying an item. */
typedef struct Finding
{
	CheckStatus status;
	char	   *message;
	char	   *hint;
} Finding;

/* What a worker knows while it tries one item after the other. */
typedef struct Check
{
	Request    *request;		/* the job's */
	Job		   *job;			/* the node as a job would see it; it has no
								 * record */
	RemoteReply survey;			/* what the node said of itself */
	RemoteReply tried;			/* what it found when it tried things */
	TimestampTz deadline;		/* a node that hangs costs no more */
	Finding		found;			/* by the item that is tried */
	bool		connects;		/* the node to this server, by all ways */
	bool		unanswered;		/* nobody answers the node there */
	bool		is_this_server;	/* the row leads back here */
	bool		asked;			/* the node has given its own check */

	int			nnodes;			/* of all, for what they need together */
	bool		whole;			/* all nodes of the table are meant */
	void		(*put) (const CheckRow *row);
	const char *candidate;
	const char *node;
} Check;

/*
 * Tries an item: sets check->found, where ok is preset, or raises an ERROR, which
 * becomes the item's error as a job would report it.
 */
typedef void (*ItemTry) (Check *check);

typedef struct CheckItem
{
	const char *name;
	ItemTry		try;
} CheckItem;

extern void check_try_item(Check *check, const char *name, ItemTry try);

/* For an ItemTry. */
extern void found(Check *check, CheckStatus status, char *message, const char *hint);

/* All items of this server, or of check->job's node, in their order. */
extern void check_candidate(Check *check);
extern void check_node(Check *check);

/* How long a script may run: until the deadline. */
extern RemoteLimits check_limits(const Check *check);

#endif							/* FOLLOW_PRIMARY_CHECK_ITEM_H */
