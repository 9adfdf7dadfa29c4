/*
 * item.c
 *		How an item is tried.
 */
#include "postgres.h"

#include "miscadmin.h"

#include "compat.h"
#include "check/item.h"
#include "sql.h"

/* A script gets that much even where little time is left. */
#define LEAST_TIME_MS	1000

static const char *const status_names[] = {
	[CHECK_OK] = "ok",
	[CHECK_WARNING] = "warning",
	[CHECK_ERROR] = "error",
	[CHECK_UNKNOWN] = "unknown"
};

void
found(Check *check, CheckStatus status, char *message, const char *hint)
{
	check->found.status = status;
	check->found.message = message;
	check->found.hint = hint ? pstrdup(hint) : NULL;
}

/* A row is a line to a monitor, and in the log. */
static char *
one_line(const char *text)
{
	char	   *line = pstrdup(text);

	for (char *c = line; *c; c++)
		if (*c == '\n')
			*c = ' ';
	return line;
}

void
check_try_item(Check *check, const char *name, ItemTry try)
{
	MemoryContext context = CurrentMemoryContext;
	CheckRow	row = {
		.candidate = (char *) check->candidate,
		.node = (char *) check->node,
		.item = (char *) name
	};

	found(check, CHECK_OK, NULL, NULL);
	PG_TRY();
	{
		try(check);
	}
	PG_CATCH();
	{
		ErrorData  *error = sql_recover_quietly(context);

		if (error->sqlerrcode == ERRCODE_QUERY_CANCELED ||
			error->sqlerrcode == ERRCODE_ADMIN_SHUTDOWN)
			ReThrowError(error);
		found(check, CHECK_ERROR,
			  error->detail ? psprintf("%s: %s", error->message, error->detail) : error->message,
			  error->hint);
	}
	PG_END_TRY();

	row.status = (char *) status_names[check->found.status];
	row.message = check->found.message ? one_line(check->found.message) : NULL;
	row.hint = check->found.hint;
	check->put(&row);
}

RemoteLimits
check_limits(const Check *check)
{
	RemoteLimits limits = {0};
	long		secs;
	int			usecs;

	TimestampDifference(GetCurrentTimestamp(), check->deadline, &secs, &usecs);
	limits.timeout_ms = Max(LEAST_TIME_MS, secs * 1000 + usecs / 1000);
	return limits;
}
