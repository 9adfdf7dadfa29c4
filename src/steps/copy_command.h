/*
 * copy_command.h
 *		The node gets a copy from elsewhere, by a command of the DBA's.
 */
#ifndef FOLLOW_PRIMARY_COPY_COMMAND_H
#define FOLLOW_PRIMARY_COPY_COMMAND_H

#include "steps/step.h"

/*
 * Has copy_command fill the directory of the copy, and takes what it left there if
 * it is of this server's history, and the WAL since can be had.
 */
extern void copy_by_command(Job *job);

#endif							/* FOLLOW_PRIMARY_COPY_COMMAND_H */
