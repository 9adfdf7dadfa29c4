/*
 * check.h
 *		Readiness: if this server became the primary now, could it make the other
 *		nodes follow it?
 */
#ifndef FOLLOW_PRIMARY_CHECK_H
#define FOLLOW_PRIMARY_CHECK_H

#include "check/item.h"
#include "nodes.h"
#include "request.h"

/* What a check is asked. */
typedef struct CheckQuestion
{
	char	   *schema;			/* of the extension */
	const Nodes *nodes;
	Request    *own;			/* this server's settings; it has no node */
	int			nrequests;
	Request   **requests;		/* one for each node that is to follow */
	bool		whole;			/* all nodes of the table, so that what they
								 * need together is looked at, too */
	bool		everywhere;		/* every node is asked for its own check, too */
} CheckQuestion;

/* The rows of an answer. */
typedef struct CheckAnswer
{
	int			nrows;
	int			capacity;
	CheckRow   *rows;
} CheckAnswer;

/*
 * The question about this server and all the nodes of the table; for a role that
 * may read it.
 */
extern CheckQuestion *check_ask_all(const char *schema, bool everywhere);

/*
 * Tries it all, each node in a worker of its own.  Changes nothing; holds no
 * snapshot of its own meanwhile.  What does not work is a row of the answer:
 * raises only if this process is cancelled.
 */
extern CheckAnswer *check_run(const CheckQuestion *question);

/* The worker of one node, or of this server's own items. */
extern PGDLLEXPORT void follow_primary_check_main(Datum main_arg);

#endif							/* FOLLOW_PRIMARY_CHECK_H */
