/*
 * own_row.c
 *		Which row of follow_primary_node is this server's own?
 *
 * Its port and, where the row has one, its data directory are this server's.  Its
 * host is a name that this server is known by: in listen_addresses, in
 * follow_primary.primary_host, or the machine's own name.  If no row is known by
 * name, a host is this server's whose address is one of this machine's, as far as
 * this server listens there.
 */
#include "postgres.h"

#include <ifaddrs.h>
#include <sys/stat.h>
#include <unistd.h>

#include "miscadmin.h"
#include "postmaster/postmaster.h"
#include "utils/guc.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"

#include "own_row.h"
#include "settings.h"
#include "sql.h"
#include "ssh/net.h"

#define LOOKUP_MS	1000

static bool
is_own_pgdata(const char *pgdata)
{
	struct stat theirs;
	struct stat ours;

	return pgdata == NULL ||
		(stat(pgdata, &theirs) == 0 && stat(DataDir, &ours) == 0 &&
		 theirs.st_dev == ours.st_dev && theirs.st_ino == ours.st_ino);
}

/* The entries of listen_addresses; NIL where this server listens on all addresses. */
static List *
listen_hosts(void)
{
	List	   *hosts = NIL;
	ListCell   *cell;

	if (ListenAddresses == NULL ||
		!SplitGUCList(pstrdup(ListenAddresses), ',', &hosts))
		return NIL;
	foreach(cell, hosts)
	{
		const char *host = (const char *) lfirst(cell);

		if (strcmp(host, "*") == 0 || strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0)
			return NIL;
	}
	return hosts;
}

static bool
is_in(const char *host, List *hosts)
{
	ListCell   *cell;

	foreach(cell, hosts)
		if (pg_strcasecmp((const char *) lfirst(cell), host) == 0)
			return true;
	return false;
}

/* Is it the machine's name?  That may have a domain where the host has none, or none where it has one. */
static bool
is_machine_name(const char *host)
{
	char		machine[NI_MAXHOST] = "";
	size_t		length;

	if (gethostname(machine, sizeof(machine) - 1) != 0 || machine[0] == '\0')
		return false;
	if (pg_strcasecmp(host, machine) == 0)
		return true;
	length = strcspn(machine, ".");
	return (host[strcspn(host, ".")] == '\0') != (machine[length] == '\0') &&
		strcspn(host, ".") == length && pg_strncasecmp(host, machine, length) == 0;
}

static bool
is_own_name(const char *host, List *listens)
{
	Settings   *settings = settings_copy_current();

	return is_in(host, listens) || pg_strcasecmp(host, settings->primary_host) == 0 ||
		is_machine_name(host);
}

static struct addrinfo *
look_up(const char *host)
{
	struct addrinfo *addresses = NULL;
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), LOOKUP_MS);

	return net_resolve(host, PostPortNumber, deadline, &addresses) == 0 ? addresses : NULL;
}

/* Is one of the addresses this machine's? */
static bool
is_of_machine(const struct addrinfo *addresses)
{
	struct ifaddrs *interfaces;
	bool		found = false;

	if (getifaddrs(&interfaces) != 0)
		return false;
	for (const struct addrinfo *a = addresses; a; a = a->ai_next)
		for (struct ifaddrs *i = interfaces; i; i = i->ifa_next)
			found |= net_is_same_address(a->ai_addr, i->ifa_addr);
	freeifaddrs(interfaces);
	return found;
}

/* Does the host lead to an address that this server listens on? */
static bool
is_own_address(const char *host, List *listens)
{
	struct addrinfo *theirs = look_up(host);
	bool		found = theirs && listens == NIL && is_of_machine(theirs);
	ListCell   *cell;

	foreach(cell, listens)
	{
		struct addrinfo *ours = found || !theirs ? NULL : look_up((const char *) lfirst(cell));

		found |= net_share_address(ours, theirs);
		if (ours)
			freeaddrinfo(ours);
	}
	if (theirs)
		freeaddrinfo(theirs);
	return found;
}

/* The host of the only row that passes the test, or NULL; *n is the number of rows that pass. */
static char *
find_row(const SqlResult *rows, List *listens,
		 bool (*test) (const char *host, List *listens), int *n)
{
	char	   *host = NULL;

	*n = 0;
	for (int i = 0; i < rows->nrows; i++)
		if (is_own_pgdata(sql_value(rows, i, 1)) && test(sql_value(rows, i, 0), listens))
		{
			host = sql_value(rows, i, 0);
			(*n)++;
		}
	return *n == 1 ? host : NULL;
}

bool
own_host(const char *host)
{
	List	   *listens = listen_hosts();

	return is_own_name(host, listens) || is_own_address(host, listens);
}

char *
own_row_host(const char *schema)
{
	const char *port[] = {psprintf("%d", PostPortNumber)};
	SqlResult  *rows = sql_read_nodes(schema, "host, pgdata", "WHERE port = $1::int", lengthof(port), port);
	List	   *listens = listen_hosts();
	int			n;
	char	   *host = find_row(rows, listens, is_own_name, &n);

	if (n == 0)
		host = find_row(rows, listens, is_own_address, &n);
	return host ? pstrdup(host) : NULL;
}

char *
only_listen_address(void)
{
	const char *all = ListenAddresses ? ListenAddresses : "";

	if (all[0] == '\0' || strpbrk(all, ", ") != NULL || strcmp(all, "*") == 0 ||
		strcmp(all, "0.0.0.0") == 0 || strcmp(all, "::") == 0 ||
		strcmp(all, "localhost") == 0)
		return NULL;
	return pstrdup(all);
}
