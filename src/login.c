/*
 * login.c
 *		What lets a role in that a server has refused.
 *
 * psql tells no SQLSTATE of a connection that was refused, and the server may speak
 * any language.  But the node has the roles of this server, which can be asked what
 * is wrong with one.  What is left then is pg_hba.conf and the password.
 */
#include "postgres.h"

#include <arpa/inet.h>

#include "libpq/hba.h"
#include "utils/builtins.h"
#include "utils/guc.h"

#include "hints.h"
#include "home.h"
#include "login.h"
#include "record.h"
#include "recovery_conf.h"
#include "sql.h"

static bool
says(const char *said, const char *words)
{
	return said && strstr(said, words) != NULL;
}

int
login_sqlstate(const char *said)
{
	return says(said, "too many") || says(said, "connection slots are reserved") ?
		ERRCODE_TOO_MANY_CONNECTIONS : ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION;
}

/* The command that mends what is wrong with the role, whatever the authentication; or NULL. */
static char *
role_command(const char *role, bool for_replication)
{
	const char *args[] = {role, for_replication ? "t" : "f"};

	return sql_scalar("SELECT CASE "
					  "WHEN r.oid IS NULL THEN format('CREATE ROLE %I LOGIN', $1) || CASE WHEN $2::bool THEN ' REPLICATION' ELSE '' END "
					  "WHEN NOT rolcanlogin THEN format('ALTER ROLE %I LOGIN', $1) "
					  "WHEN $2::bool AND NOT (rolreplication OR rolsuper) THEN format('ALTER ROLE %I REPLICATION', $1) END "
					  "FROM (SELECT) one LEFT JOIN pg_roles r ON rolname = $1",
					  lengthof(args), args);
}

/* The same for its limits, which not every connection meets. */
static char *
limit_command(const char *role)
{
	return sql_scalar("SELECT CASE "
					  "WHEN rolvaliduntil < now() THEN format('ALTER ROLE %I VALID UNTIL ''infinity''', $1) "
					  "WHEN rolconnlimit >= 0 AND NOT rolsuper AND rolconnlimit <= n + 1 "
					  "THEN format('ALTER ROLE %I CONNECTION LIMIT %s', $1, n + 5) END "
					  "FROM pg_roles r, LATERAL (SELECT count(*) AS n FROM pg_stat_activity WHERE usesysid = r.oid) used "
					  "WHERE rolname = $1", 1, &role);
}

bool
login_password_expired(const char *role)
{
	return sql_is_true("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1 AND rolvaliduntil < now())", 1, &role);
}

/*
 * The address that a refused connection came from, which the server tells behind the
 * name of the file, in any language; or NULL.
 */
static char *
refused_address(const char *said)
{
	const char *digits = "0123456789abcdefABCDEF.:";
	const char *at = said ? strstr(said, "pg_hba.conf") : NULL;

	for (at = at ? at + strcspn(at, digits) : ""; *at; at += strcspn(at, digits))
	{
		size_t		len = strspn(at, digits);
		char	   *address = pnstrdup(at, len);
		struct in6_addr binary;

		if (inet_pton(strchr(address, ':') ? AF_INET6 : AF_INET, address, &binary) == 1)
			return address;
		at += len;
	}
	return NULL;
}

/*
 * A host as pg_hba.conf knows it.  A name is the last resort: the node may connect from
 * another address than the one that its name has here, and a name in pg_hba.conf needs
 * the way back from the address to it.
 */
static char *
hba_address(const char *host)
{
	if (strchr(host, ':'))
		return psprintf("%s/128", host);
	return psprintf(strspn(host, "0123456789.") == strlen(host) ? "%s/32" : "%s", host);
}

/* As a field of pg_hba.conf. */
static const char *
hba_name(const char *name)
{
	return strpbrk(name, " ,#@+/\"") ? psprintf("\"%s\"", name) : name;
}

static char *
hba_hint(const Job *job, LoginTo to, const char *role, const char *database, const char *said)
{
	const char *address = refused_address(said);
	const char *encryption = GetConfigOption("password_encryption", false, false);
	const char *method = strcmp(encryption, "md5") == 0 || strcmp(encryption, "on") == 0 ? "md5" : "scram-sha-256";

	if (to == LOGIN_TO_NODE)
		return psprintf("Add this line to pg_hba.conf of the node %s, above all that match it, and reload that server: local %s %s %s",
						node_name(job), hba_name(database), hba_name(role), method);
	return psprintf("Add this line to pg_hba.conf of this server (%s), above all that match it, and run SELECT pg_reload_conf(): host %s %s %s %s",
					HbaFileName, database ? hba_name(database) : "replication", hba_name(role),
					hba_address(address ? address : job->request->node_host), method);
}

static char *
password_hint(const Job *job, LoginTo to, const char *role, const char *database, const char *passfile)
{
	const char *host = to == LOGIN_TO_NODE ? "localhost" : job->primary_host;
	int			port = to == LOGIN_TO_NODE ? job->request->node_port : job->request->primary_port;

	return psprintf("Put the password of role \"%s\" into the password file %s on the node %s, in a line above all others that match, for the first is taken: %s:%d:%s:%s:PASSWORD",
					role, passfile, node_name(job), host, port, database ? database : "replication", role);
}

/* The file that libpq's message names, which is in English, between double quotes; else this one. */
static const char *
named_file(const char *said, const char *passfile)
{
	const char *begin = strstr(said, "password file \"");
	const char *end = begin ? strchr(begin + strlen("password file \""), '"') : NULL;

	if (end == NULL)
		return passfile;
	begin += strlen("password file \"");
	return pnstrdup(begin, end - begin);
}

char *
login_hint(const Job *job, LoginTo to, const char *role, const char *database,
		   const char *passfile, const char *said)
{
	const Settings *settings = job->request->settings;
	char	   *command = role_command(role, to == LOGIN_TO_PRIMARY_FOR_REPLICATION);

	if (passfile == NULL)
		passfile = home_path(settings->passfile[0] ? settings->passfile : "~/.pgpass", job->node_home);
	if (says(said, "group or world access"))
		return psprintf("On the node %s, run: chmod 0600 %s. " CALL_AGAIN, node_name(job), named_file(said, passfile));
	if (command == NULL && says(said, "has expired"))
		command = limit_command(role);
	else if (command == NULL && !says(said, "pg_hba.conf") && !says(said, "Peer authentication") && !says(said, "Ident authentication"))
		command = limit_command(role);
	else if (command == NULL)
		return psprintf("%s. " CALL_AGAIN, hba_hint(job, to, role, database, said));
	if (command)
		return psprintf("Run on this server: %s. " CALL_AGAIN, command);
	if (login_sqlstate(said) == ERRCODE_TOO_MANY_CONNECTIONS)
		return psprintf("End clients that nobody needs on %s, or raise max_connections there. " CALL_AGAIN,
						to == LOGIN_TO_NODE ? psprintf("the node %s", node_name(job)) : "this server");
	if (says(said, "password"))
		return psprintf("%s. " CALL_AGAIN, password_hint(job, to, role, database, passfile));
	return psprintf("%s. %s. " CALL_AGAIN, hba_hint(job, to, role, database, said),
					password_hint(job, to, role, database, passfile));
}
