/*
 * version.h
 *		The library's version.
 */
#ifndef FOLLOW_PRIMARY_VERSION_H
#define FOLLOW_PRIMARY_VERSION_H

#define LIBRARY_VERSION	"1.1"	/* default_version of the control file */

#endif							/* FOLLOW_PRIMARY_VERSION_H */
