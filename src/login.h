/*
 * login.h
 *		What lets a role in that a server has refused.
 */
#ifndef FOLLOW_PRIMARY_LOGIN_H
#define FOLLOW_PRIMARY_LOGIN_H

#include "job.h"

/* The server that refused the role: this one, to a tool or to a WAL receiver; or the node's. */
typedef enum LoginTo
{
	LOGIN_TO_PRIMARY,
	LOGIN_TO_PRIMARY_FOR_REPLICATION,
	LOGIN_TO_NODE
} LoginTo;

/*
 * A hint for people: the line, the command or the file that lets the role in, and
 * the machine.  database is NULL for replication; passfile is the password file
 * that was used, NULL for the job's; said is what libpq or the server said.  Its
 * words, which may be in any language, only make the hint shorter.
 */
extern char *login_hint(const Job *job, LoginTo to, const char *role, const char *database,
						const char *passfile, const char *said);

/* Has the role's password expired?  Then only a login without one succeeds. */
extern bool login_password_expired(const char *role);

/* The SQLSTATE of a refusal, as far as the words tell. */
extern int	login_sqlstate(const char *said);

#endif							/* FOLLOW_PRIMARY_LOGIN_H */
