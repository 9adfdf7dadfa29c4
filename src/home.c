/*
 * home.c
 *		Paths in a home directory.
 */
#include "postgres.h"

#include <pwd.h>
#include <unistd.h>

#include "compat.h"
#include "home.h"

static bool
is_in_home(const char *path)
{
	return strncmp(path, "~/", 2) == 0;
}

char *
home_path(const char *path, const char *home)
{
	return is_in_home(path) ? psprintf("%s/%s", home, path + 2) : pstrdup(path);
}

char *
own_home_path(const char *path)
{
	struct passwd *entry;

	if (!is_in_home(path))
		return pstrdup(path);
	entry = getpwuid(geteuid());
	if (entry == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("could not look up the home directory of OS user %ld for \"%s\"",
						(long) geteuid(), path)));
	return home_path(path, entry->pw_dir);
}
