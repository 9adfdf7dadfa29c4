/*
 * request.h
 *		One call of follow_primary(), as a typed and validated value.
 */
#ifndef FOLLOW_PRIMARY_REQUEST_H
#define FOLLOW_PRIMARY_REQUEST_H

#include "fmgr.h"

#include "plan.h"
#include "settings.h"

/*
 * What was asked, resolved from arguments, the node's row in
 * follow_primary_node and the settings, in this order.  A NULL string was left
 * open by all three.
 */
typedef struct Request
{
	char	   *schema;			/* of the extension */
	char	   *node_host;
	int			node_port;
	char	   *node_pgdata;	/* NULL: ask the running node */
	char	   *config_file;	/* NULL: in the data directory, or where the
								 * node says */
	int			node_id;		/* -1: nothing to attach */
	char	   *primary_host;	/* NULL: the survey finds one */
	int			primary_port;
	RequestedMethod method;
	bool		rejoin_when_down;
	bool		attach;			/* to pgpool, if node_id is known */
	char	   *past;			/* steps that were taken before the job had a row,
								 * a line each: name, begin, end, detail, by tabs;
								 * NULL: none */
	char	   *slot_name;
	char	   *application_name;	/* NULL: what the node uses, else
									 * node_host */
	char	   *client_host;	/* where the caller's connection comes from;
								 * NULL: not by TCP */
	Settings   *settings;
} Request;

/*
 * Reads and checks the arguments of follow_primary() or follow_primary_plan(), whose
 * argument attach has that place; nothing has been changed when it raises:
 *   22004, 22023 an argument is null, or none that the function takes
 *   42501 a role without superuser rights names a node that has no row in
 *         follow_primary_node, or says something else than the row
 *   55000 the extension's objects in this database are of an older version
 * The value is palloc'd in the current context.
 */
extern Request *request_from_call(FunctionCallInfo fcinfo, int attach_argument);

/* The same for a node of follow_primary_node, in another function of the extension. */
extern Request *request_for_node(FunctionCallInfo fcinfo, const char *host, int port,
								 RequestedMethod method, bool rejoin_when_down, bool attach);

/*
 * A request that is asked about, not run, with this session's settings.  No host:
 * it is about this server alone.  Raises 22023 for what is no host or port.  The
 * second takes the node's row into it, as far as there is one, in a process that
 * may read the row; raises what request_from_call() raises for the row's sake.
 */
extern Request *request_to_ask(const char *schema, const char *host, int port);
extern void request_resolve(Request *request);

/* The values of the arguments method and when_down: rejoin when down? Raise 22023. */
extern RequestedMethod request_parse_method(const char *method);
extern bool request_parse_when_down(const char *when_down);

/* A request goes to a worker as bytes. */
extern void request_send(StringInfo buf, const Request *request);
extern Request *request_receive(StringInfo buf);

/*
 * The default name of a node's slot: the host in lower case, every character
 * but a-z and 0-9 as _, at most NAMEDATALEN - 1 bytes.
 */
extern char *default_slot_name(const char *host);

/* SQL: the slot of a row n of follow_primary_node: that rule again, where the row names none. */
#define SLOT_OF_ROW \
	"coalesce(n.slot_name, left(regexp_replace(lower(n.host), '[^a-z0-9]', '_', 'g'), 63))"

/*
 * The schema that the called function lives in, quoted for use in SQL.  Raises
 * 55000 if it belongs to a role that is no superuser.
 */
extern char *extension_schema(FunctionCallInfo fcinfo);

/* Does that schema belong to a superuser? */
extern bool extension_schema_is_safe(FunctionCallInfo fcinfo);

/*
 * Acts as the owner of the called function, until resume_caller(): the tables
 * are the extension's, and EXECUTE on the function is the permission that
 * counts.  An ERROR resumes the caller by itself.
 */
typedef struct CallerIdentity
{
	Oid			user;
	int			context;
} CallerIdentity;

extern void act_as_owner(FunctionCallInfo fcinfo, CallerIdentity *caller);
extern void resume_caller(const CallerIdentity *caller);

/* The text of a requested method, as in the method argument. */
extern const char *requested_method_name(RequestedMethod method);

#endif							/* FOLLOW_PRIMARY_REQUEST_H */
