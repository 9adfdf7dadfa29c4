/*
 * standby_name.c
 *		The name by which a primary knows the node as its standby.
 *
 * A WAL receiver calls itself what application_name in primary_conninfo says, else
 * from 12 on what its server's cluster_name says, else "walreceiver" (see
 * WalReceiverMain() in walreceiver.c).  Where synchronous_standby_names has that
 * name, every commit would wait for ever for a standby that got another one.
 */
#include "postgres.h"

#include "utils/varlena.h"

#include "compat.h"
#include "standby_name.h"

static bool
has_cluster_name(const NodeFacts *node, int version_num)
{
	return version_num >= 120000 && node->cluster_name && node->cluster_name[0] != '\0';
}

const char *
standby_name_in_force(const NodeFacts *node, int version_num)
{
	if (node->application_name)
		return node->application_name;
	if (has_cluster_name(node, version_num))
		return node->cluster_name;
	return node->conninfo ? "walreceiver" : NULL;
}

const char *
standby_name_to_write(const NodeFacts *node, int version_num, const char *host)
{
	if (node->application_name)
		return node->application_name;
	return has_cluster_name(node, version_num) ? NULL : host;
}

const char *
standby_name_after_job(const NodeFacts *node, int version_num, const char *given, const char *host)
{
	const char *written = given ? given : standby_name_to_write(node, version_num, host);

	return written ? written : node->cluster_name;
}

/*
 * The list in "FIRST 2 (a, b)", "ANY 1 (a, b)", "2 (a, b)" or "a, b" (see
 * syncrep_gram.y).  A name in quotes may have parentheses of its own.
 */
static char *
list_of(const char *setting)
{
	const char *begin = setting + strcspn(setting, "(\"");
	const char *end = strrchr(setting, ')');

	if (*begin != '(')
		return pstrdup(setting);
	begin++;
	return end && end > begin ? pnstrdup(begin, end - begin) : pstrdup("");
}

bool
standby_name_is_candidate(const char *name, const char *synchronous_standby_names)
{
	List	   *names;
	ListCell   *cell;

	if (name == NULL || synchronous_standby_names == NULL ||
		!SplitGUCList(list_of(synchronous_standby_names), ',', &names))
		return false;
	foreach(cell, names)
	{
		const char *one = (const char *) lfirst(cell);

		/* Whatever their case, as SyncRepGetStandbyPriority() compares them. */
		if (strcmp(one, "*") == 0 || pg_strcasecmp(one, name) == 0)
			return true;
	}
	return false;
}
