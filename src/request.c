/*
 * request.c
 *		From a call's arguments to one typed request.
 *
 * Everything that can be known to be wrong without asking another machine is
 * refused here, in the caller, before a worker exists.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "libpq/pqformat.h"
#include "miscadmin.h"
#include "postmaster/postmaster.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "compat.h"
#include "request.h"
#include "sql.h"

/* Positions of the arguments in the SQL functions. */
enum
{
	ARG_NODE_HOST,
	ARG_NODE_PORT,
	ARG_NODE_PGDATA,
	ARG_NODE_ID,
	ARG_PRIMARY_HOST,
	ARG_PRIMARY_PORT,
	ARG_METHOD,
	ARG_WHEN_DOWN,
	ARG_SLOT_NAME,
	ARG_APPLICATION_NAME
};

#define MAX_PGPOOL_NODES	128 /* MAX_NUM_BACKENDS of pgpool-II */

static const char *const method_names[] = {
	[REQUESTED_AUTO] = "auto",
	[REQUESTED_REPOINT] = "repoint",
	[REQUESTED_REWIND] = "rewind",
	[REQUESTED_BASEBACKUP] = "basebackup"
};

const char *
requested_method_name(RequestedMethod method)
{
	return method_names[method];
}

pg_noreturn static void
invalid_argument(const char *name, const char *detail, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid value for argument \"%s\"", name),
			 errdetail("%s", detail),
			 hint ? errhint("%s", hint) : 0));
}

/* A text argument, or NULL. Refuses what no argument may hold. */
static char *
text_argument(FunctionCallInfo fcinfo, int arg, const char *name)
{
	char	   *value;

	if (PG_ARGISNULL(arg))
		return NULL;
	value = text_to_cstring(PG_GETARG_TEXT_PP(arg));
	if (value[0] == '\0')
		invalid_argument(name, "It must not be empty.",
						 arg == ARG_NODE_HOST ? NULL :
						 "Leave it out, or pass NULL, for its default.");
	if (has_control_chars(value))
		invalid_argument(name, "It must not contain control characters.", NULL);
	return value;
}

static void
require_not_null(FunctionCallInfo fcinfo, int arg, const char *name)
{
	if (PG_ARGISNULL(arg))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not be null", name)));
}

static void
check_host(const char *name, const char *host)
{
	if (strlen(host) > MAX_HOST_LENGTH)
		invalid_argument(name, psprintf("It is longer than %d bytes.",
										MAX_HOST_LENGTH), NULL);
	if (!is_host_name(host))
		invalid_argument(name,
						 psprintf("\"%s\" is neither a host name nor an address.", host),
						 "Give the name or address alone, without user or port.");
}

static void
check_port(const char *name, int port)
{
	if (port < 1 || port > 65535)
		invalid_argument(name, psprintf("%d is not between 1 and 65535.", port),
						 NULL);
}

static void
check_pgdata(const char *pgdata)
{
	if (pgdata[0] != '/')
		invalid_argument("node_pgdata",
						 psprintf("\"%s\" is not an absolute path.", pgdata),
						 "Give the node's data directory, as its data_directory setting shows it.");
	if (strlen(pgdata) >= MAXPGPATH)
		invalid_argument("node_pgdata",
						 psprintf("It is longer than %d bytes.", MAXPGPATH - 1),
						 NULL);
	if (strspn(pgdata, "/.") == strlen(pgdata))
		invalid_argument("node_pgdata",
						 psprintf("\"%s\" is the root directory.", pgdata),
						 "Give the node's data directory, as its data_directory setting shows it.");
}

static void
check_slot_name(const char *slot_name)
{
	if (strlen(slot_name) >= NAMEDATALEN ||
		strspn(slot_name, "abcdefghijklmnopqrstuvwxyz0123456789_") != strlen(slot_name))
		invalid_argument("slot_name",
						 psprintf("\"%s\" is not a name for a replication slot.", slot_name),
						 "Use at most 63 lower-case letters, digits and underscores.");
}

static void
check_application_name(const char *application_name)
{
	/* The server would turn other characters into question marks. */
	for (const unsigned char *c = (const unsigned char *) application_name; *c; c++)
		if (*c < 0x20 || *c > 0x7e)
			invalid_argument("application_name",
							 "It must consist of printable ASCII characters.",
							 NULL);
	if (strlen(application_name) >= NAMEDATALEN)
		invalid_argument("application_name",
						 psprintf("It is longer than %d bytes.", NAMEDATALEN - 1),
						 NULL);
}

RequestedMethod
request_parse_method(const char *method)
{
	for (int i = 0; i < lengthof(method_names); i++)
		if (strcmp(method, method_names[i]) == 0)
			return (RequestedMethod) i;
	invalid_argument("method", psprintf("There is no method \"%s\".", method),
					 "The methods are auto, repoint, rewind and basebackup.");
}

bool
request_parse_when_down(const char *when_down)
{
	if (strcmp(when_down, "skip") != 0 && strcmp(when_down, "rejoin") != 0)
		invalid_argument("when_down",
						 psprintf("\"%s\" is neither \"skip\" nor \"rejoin\".", when_down),
						 "With skip, a node that is down is left alone; with rejoin it is started as a standby.");
	return strcmp(when_down, "rejoin") == 0;
}

char *
default_slot_name(const char *host)
{
	char	   *name = pstrdup(host);

	for (char *c = name; *c; c++)
	{
		*c = pg_ascii_tolower((unsigned char) *c);
		if (!((*c >= 'a' && *c <= 'z') || (*c >= '0' && *c <= '9')))
			*c = '_';
	}
	if (strlen(name) >= NAMEDATALEN)
		name[NAMEDATALEN - 1] = '\0';
	return name;
}

/*
 * The schema's owner.  For a schema of pg_database_owner that is the owner of
 * the database.
 */
static Oid
schema_owner(Oid schema)
{
	HeapTuple	tuple = SearchSysCache1(NAMESPACEOID, ObjectIdGetDatum(schema));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for schema %u", schema);
	owner = ((Form_pg_namespace) GETSTRUCT(tuple))->nspowner;
	ReleaseSysCache(tuple);
#ifdef ROLE_PG_DATABASE_OWNER
	if (owner == ROLE_PG_DATABASE_OWNER)
	{
		tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(MyDatabaseId));
		if (!HeapTupleIsValid(tuple))
			elog(ERROR, "cache lookup failed for database %u", MyDatabaseId);
		owner = ((Form_pg_database) GETSTRUCT(tuple))->datdba;
		ReleaseSysCache(tuple);
	}
#endif
	return owner;
}

/*
 * The owner of a schema can rename it and put other tables in the place of the
 * extension's, with triggers and views that a job would run as a superuser.
 */
bool
extension_schema_is_safe(FunctionCallInfo fcinfo)
{
	return superuser_arg(schema_owner(get_func_namespace(fcinfo->flinfo->fn_oid)));
}

char *
extension_schema(FunctionCallInfo fcinfo)
{
	Oid			schema = get_func_namespace(fcinfo->flinfo->fn_oid);
	const char *name = quote_identifier(get_namespace_name(schema));

	if (!extension_schema_is_safe(fcinfo))
	{
		char	   *owner = GetUserNameFromId(schema_owner(schema), false);

		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("schema %s, which has the extension, belongs to role \"%s\", who is not a superuser",
						name, owner),
				 errdetail("The owner could put other tables in the place of the extension's, and a job would use them as a superuser."),
				 errhint("As a superuser: ALTER SCHEMA %s OWNER TO %s. If the role makes objects there, it needs GRANT CREATE ON SCHEMA %s then.",
						 name, quote_identifier(GetUserNameFromId(BOOTSTRAP_SUPERUSERID, false)), name)));
	}
	return pstrdup(name);
}

void
act_as_owner(FunctionCallInfo fcinfo, CallerIdentity *caller)
{
	HeapTuple	function;
	Oid			owner;

	function = SearchSysCache1(PROCOID, ObjectIdGetDatum(fcinfo->flinfo->fn_oid));
	if (!HeapTupleIsValid(function))
		elog(ERROR, "cache lookup failed for function %u", fcinfo->flinfo->fn_oid);
	owner = ((Form_pg_proc) GETSTRUCT(function))->proowner;
	ReleaseSysCache(function);

	GetUserIdAndSecContext(&caller->user, &caller->context);
	SetUserIdAndSecContext(owner, caller->context | SECURITY_LOCAL_USERID_CHANGE);
}

void
resume_caller(const CallerIdentity *caller)
{
	SetUserIdAndSecContext(caller->user, caller->context);
}

/*
 * Takes a value of the node's row where the argument left it open.  Returns
 * whether the argument says otherwise than the row.
 */
static bool
resolve_text(char **argument, char *row_value)
{
	bool		disagrees = *argument &&
		(row_value == NULL || strcmp(*argument, row_value) != 0);

	if (*argument == NULL)
		*argument = row_value;
	return disagrees;
}

/*
 * Takes one column of the node's row into the request.  Returns whether an
 * argument says otherwise.
 */
static bool
apply_node_column(Request *request, const char *column, char *value)
{
	if (strcmp(column, "pgdata") == 0)
		return resolve_text(&request->node_pgdata, value);
	if (strcmp(column, "slot_name") == 0)
		return resolve_text(&request->slot_name, value);
	if (strcmp(column, "application_name") == 0)
		return resolve_text(&request->application_name, value);
	if (strcmp(column, "node_id") == 0)
	{
		int			given = request->node_id;

		if (given < 0 && value)
			request->node_id = atoi(value);
		return given >= 0 && (value == NULL || given != atoi(value));
	}
	if (strcmp(column, "config_file") == 0)
		request->config_file = value;
	else if (value && strcmp(column, "host") != 0 && strcmp(column, "port") != 0)
		settings_override(request->settings, column, value);
	return false;
}

/*
 * Reads the node's row of follow_primary_node into the request, where the
 * arguments leave something open.  A role that is no superuser must find a row,
 * and its arguments may not contradict it: the row's author decides what the
 * role may do.
 */
static void
apply_node_row(Request *request, bool trusted)
{
	const char *args[] = {request->node_host, psprintf("%d", request->node_port)};
	SqlResult  *row = sql_read_nodes(request->schema, "*", "WHERE lower(host) = lower($1) AND port = $2::int",
									 lengthof(args), args);

	if (row->nrows == 0 && !trusted)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for node %s:%d",
						request->node_host, request->node_port),
				 errdetail("A role that is not a superuser may only name nodes that have a row in %s.follow_primary_node.",
						   request->schema),
				 errhint("Ask a superuser to insert the node's row.")));

	for (int i = 0; row->nrows == 1 && i < row->ncols; i++)
		if (apply_node_column(request, row->names[i], sql_value(row, 0, i)) && !trusted)
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("permission denied for node %s:%d",
							request->node_host, request->node_port),
					 errdetail("The arguments disagree with column \"%s\" of the node's row in %s.follow_primary_node.",
							   row->names[i], request->schema),
					 errhint("Leave the argument out, or ask a superuser to correct the row.")));
}

/* A role that is no superuser may not choose the server that the node follows. */
static void
refuse_untrusted_primary(const Request *request)
{
	if ((request->primary_host &&
		 strcmp(request->primary_host, request->settings->primary_host) != 0) ||
		request->primary_port != PostPortNumber)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for argument \"%s\"",
						request->primary_port != PostPortNumber ? "primary_port" : "primary_host"),
				 errdetail("A role that is not a superuser may only repeat what the node's row in %s.follow_primary_node and the settings say.",
						   request->schema),
				 errhint("Leave the argument out, or ask a superuser to set follow_primary.primary_host.")));
}

/* What arguments, row and settings leave open, as far as it can be known here. */
static void
complete(Request *request)
{
	if (request->slot_name == NULL)
		request->slot_name = default_slot_name(request->node_host);
	if (request->primary_host == NULL && request->settings->primary_host[0] != '\0')
		request->primary_host = request->settings->primary_host;
	if (request->settings->node_bin_dir[0] == '\0')
	{
		request->settings->node_bin_dir = pstrdup(my_exec_path);
		get_parent_directory(request->settings->node_bin_dir);
	}
	request->client_host = sql_scalar("SELECT host(inet_client_addr())", 0, NULL);

	if (request->primary_host &&
		pg_strcasecmp(request->node_host, request->primary_host) == 0 &&
		request->node_port == request->primary_port)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("node %s:%d is this server itself",
						request->node_host, request->node_port),
				 errdetail("The node's host and port are those of the primary."),
				 errhint("Call follow_primary() on the new primary, for every other node. If that node is another server, this one has its name: correct primary_host, as an argument, as follow_primary.primary_host here, or in the node's row.")));
}

/* Takes the node's row and the settings into the request, where it leaves something open. */
static void
resolve(FunctionCallInfo fcinfo, Request *request)
{
	CallerIdentity caller;
	bool		trusted = superuser();

	request->settings = settings_copy_current();
	act_as_owner(fcinfo, &caller);
	apply_node_row(request, trusted);
	resume_caller(&caller);
	if (!trusted)
		refuse_untrusted_primary(request);
	complete(request);
}

Request *
request_from_call(FunctionCallInfo fcinfo, int attach_argument)
{
	Request    *request = palloc0(sizeof(Request));

	if (PG_NARGS() <= attach_argument)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the extension's objects in this database are older than its library"),
				 errhint("As a superuser, in this database: ALTER EXTENSION follow_primary UPDATE")));
	require_not_null(fcinfo, ARG_NODE_HOST, "node_host");
	require_not_null(fcinfo, ARG_NODE_PORT, "node_port");
	require_not_null(fcinfo, ARG_METHOD, "method");
	require_not_null(fcinfo, ARG_WHEN_DOWN, "when_down");
	require_not_null(fcinfo, attach_argument, "attach");

	request->schema = extension_schema(fcinfo);
	request->node_host = text_argument(fcinfo, ARG_NODE_HOST, "node_host");
	check_host("node_host", request->node_host);
	request->node_port = PG_GETARG_INT32(ARG_NODE_PORT);
	check_port("node_port", request->node_port);

	request->node_pgdata = text_argument(fcinfo, ARG_NODE_PGDATA, "node_pgdata");
	if (request->node_pgdata)
		check_pgdata(request->node_pgdata);

	request->node_id = -1;
	if (!PG_ARGISNULL(ARG_NODE_ID))
	{
		request->node_id = PG_GETARG_INT32(ARG_NODE_ID);
		if (request->node_id < 0 || request->node_id >= MAX_PGPOOL_NODES)
			invalid_argument("node_id",
							 psprintf("%d is not between 0 and %d.",
									  request->node_id, MAX_PGPOOL_NODES - 1),
							 "Give pgpool's number of the node (%d), or NULL when there is no pgpool.");
	}

	request->primary_host = text_argument(fcinfo, ARG_PRIMARY_HOST, "primary_host");
	if (request->primary_host)
		check_host("primary_host", request->primary_host);
	request->primary_port = PostPortNumber;
	if (!PG_ARGISNULL(ARG_PRIMARY_PORT))
	{
		request->primary_port = PG_GETARG_INT32(ARG_PRIMARY_PORT);
		check_port("primary_port", request->primary_port);
	}

	request->method = request_parse_method(text_to_cstring(PG_GETARG_TEXT_PP(ARG_METHOD)));
	request->rejoin_when_down = request_parse_when_down(text_to_cstring(PG_GETARG_TEXT_PP(ARG_WHEN_DOWN)));
	request->attach = PG_GETARG_BOOL(attach_argument);

	request->slot_name = text_argument(fcinfo, ARG_SLOT_NAME, "slot_name");
	if (request->slot_name)
		check_slot_name(request->slot_name);
	request->application_name = text_argument(fcinfo, ARG_APPLICATION_NAME,
											  "application_name");
	if (request->application_name)
		check_application_name(request->application_name);

	resolve(fcinfo, request);
	return request;
}

Request *
request_for_node(FunctionCallInfo fcinfo, const char *host, int port,
				 RequestedMethod method, bool rejoin_when_down, bool attach)
{
	Request    *request = palloc0(sizeof(Request));

	request->schema = extension_schema(fcinfo);
	request->node_host = pstrdup(host);
	request->node_port = port;
	request->node_id = -1;
	request->primary_port = PostPortNumber;
	request->method = method;
	request->rejoin_when_down = rejoin_when_down;
	request->attach = attach;
	resolve(fcinfo, request);
	return request;
}

Request *
request_to_ask(const char *schema, const char *host, int port)
{
	Request    *request = palloc0(sizeof(Request));

	if (host)
	{
		check_host("node_host", host);
		check_port("node_port", port);
	}
	request->schema = pstrdup(schema);
	request->node_host = host ? pstrdup(host) : NULL;
	request->node_port = port;
	request->node_id = -1;
	request->primary_port = PostPortNumber;
	request->method = REQUESTED_AUTO;
	request->rejoin_when_down = true;
	request->attach = true;
	request->settings = settings_copy_current();
	return request;
}

void
request_resolve(Request *request)
{
	apply_node_row(request, true);
	complete(request);
}

static void
send_text(StringInfo buf, const char *text)
{
	pq_sendint8(buf, text != NULL);
	if (text)
		appendBinaryStringInfo(buf, text, strlen(text) + 1);
}

static char *
receive_text(StringInfo buf)
{
	if (!pq_getmsgint(buf, 1))
		return NULL;
	return pstrdup(pq_getmsgrawstring(buf));
}

void
request_send(StringInfo buf, const Request *request)
{
	send_text(buf, request->schema);
	send_text(buf, request->node_host);
	pq_sendint32(buf, request->node_port);
	send_text(buf, request->node_pgdata);
	send_text(buf, request->config_file);
	pq_sendint32(buf, request->node_id);
	send_text(buf, request->primary_host);
	pq_sendint32(buf, request->primary_port);
	pq_sendint32(buf, request->method);
	pq_sendint8(buf, request->rejoin_when_down);
	pq_sendint8(buf, request->attach);
	send_text(buf, request->slot_name);
	send_text(buf, request->application_name);
	send_text(buf, request->past);
	send_text(buf, request->client_host);
	settings_send(buf, request->settings);
}

Request *
request_receive(StringInfo buf)
{
	Request    *request = palloc0(sizeof(Request));

	request->schema = receive_text(buf);
	request->node_host = receive_text(buf);
	request->node_port = pq_getmsgint(buf, 4);
	request->node_pgdata = receive_text(buf);
	request->config_file = receive_text(buf);
	request->node_id = (int) pq_getmsgint(buf, 4);
	request->primary_host = receive_text(buf);
	request->primary_port = pq_getmsgint(buf, 4);
	request->method = (RequestedMethod) pq_getmsgint(buf, 4);
	request->rejoin_when_down = pq_getmsgint(buf, 1) != 0;
	request->attach = pq_getmsgint(buf, 1) != 0;
	request->slot_name = receive_text(buf);
	request->application_name = receive_text(buf);
	request->past = receive_text(buf);
	request->client_host = receive_text(buf);
	request->settings = settings_receive(buf);
	return request;
}
