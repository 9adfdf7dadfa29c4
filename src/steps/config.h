/*
 * config.h
 *		The node's configuration: it is saved, put back, and made that of a standby
 *		of this server.
 */
#ifndef FOLLOW_PRIMARY_CONFIG_H
#define FOLLOW_PRIMARY_CONFIG_H

#include "steps/step.h"

/* Raises if the configuration could not be written, as far as that can be told before. */
extern void config_try_write(Job *job, const RemoteLimits *limits);

/* Raises 42501 if the rewind role may not run here what pg_rewind needs. */
extern void config_check_rewind_functions(const Job *job);

/* The error for functions that the rewind role lacks. */
pg_noreturn extern void config_fail_rewind_functions(const Job *job, const char *missing);

/*
 * What a job names of the node's files by settings of its own, a line each; the
 * node's settings name the rest.
 */
extern char *config_named_by_job(const Job *job);

/* Puts the node's own files aside, which a rewind or a copy would replace. */
extern StepResult config_save(Job *job);

/*
 * Before a copy, where an interrupted job has changed the data: puts the node's own
 * files in their places, for the connection may need a key or a password file.
 */
extern void config_lend(Job *job);

/* Makes the data directory a standby of this server, settings and all. */
extern StepResult config_write(Job *job);

/* Keeps no longer what a repoint has replaced: it is not to be put back. */
extern void config_forget(Job *job);

/* Takes away the means by which a copy fetched its WAL, now that the node streams. */
extern StepResult config_settle(Job *job);

/* New settings for a running standby, and a reload. */
extern StepResult config_repoint(Job *job);

#endif							/* FOLLOW_PRIMARY_CONFIG_H */
