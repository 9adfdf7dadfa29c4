/*
 * version.h
 *		The library's version.
 */
#ifndef FOLLOW_PRIMARY_VERSION_H
#define FOLLOW_PRIMARY_VERSION_H

#define LIBRARY_VERSION	"1.1"	/* default_version of the control file */

/* In the file of the library, for those who read it there. */
extern const char follow_primary_library_version[];

#endif							/* FOLLOW_PRIMARY_VERSION_H */
