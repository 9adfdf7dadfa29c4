/*
 * home.h
 *		Paths in a home directory.
 */
#ifndef FOLLOW_PRIMARY_HOME_H
#define FOLLOW_PRIMARY_HOME_H

/* The path, with that home directory in place of a leading ~/. */
extern char *home_path(const char *path, const char *home);

/* The same for the home directory of this server's OS user: the OS's, not $HOME. */
extern char *own_home_path(const char *path);

#endif							/* FOLLOW_PRIMARY_HOME_H */
