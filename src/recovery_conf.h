/*
 * recovery_conf.h
 *		Renders the settings that make a node a standby of this server.
 */
#ifndef FOLLOW_PRIMARY_RECOVERY_CONF_H
#define FOLLOW_PRIMARY_RECOVERY_CONF_H

#include "job.h"

/*
 * A connection string with the keys of base (NULL or "": none) but with these
 * values in place of its own; NULL leaves a key as it is in base.  hostaddr is
 * dropped.  options is a connection string whose keys are added.  Raises 22023
 * on a base or options that libpq cannot parse.
 */
extern char *conninfo_build(const char *base, const char *options,
							const char *host, int port, const char *user,
							const char *application_name, const char *passfile);

/* The same without password and sslpassword, whose values are set, "" if there is none. */
extern char *conninfo_without_passwords(const char *conninfo, char **password,
										char **ssl_password);

/*
 * The connection string of a standby, with what it does not say itself.  A database:
 * the synchronization of logical slots, which 17 brought, connects to it; a WAL
 * receiver does not care.  Limits for each address of the host, in seconds:
 * connect_timeout is for programs; a WAL receiver, which connects by PQconnectPoll(),
 * knows only tcp_user_timeout, which libpq has from 12 on.
 */
extern char *conninfo_complete(const char *conninfo, int version_num, const char *database,
							   int seconds);

/* The value of one key of a connection string, or NULL. */
extern char *conninfo_value(const char *conninfo, const char *key);

/*
 * The text of the settings file: recovery.conf before PostgreSQL 12
 * (version_num as in server_version_num), an included file from then on.
 * restore_command may be NULL or "": none is written.
 */
extern char *recovery_conf_render(int version_num, const char *conninfo,
								  const char *slot_name,
								  const char *restore_command);

/*
 * A restore_command that ends with status 1, whatever the command ends with.
 * A status above 125 (scp's, when SSH fails, is 255) would end recovery.
 */
extern char *restore_command_guard(const char *command);

/* The command itself, if gate.sh put it behind its gate for a job that has not ended. */
extern char *restore_command_behind_gate(char *command);

/* The line of a settings file for it. */
extern char *restore_command_setting(const char *command);

/* The same for a job: what the node is to be given. */
extern char *job_primary_conninfo(const Job *job);
extern char *job_recovery_conf(const Job *job);

/* Where on the node that text goes. */
extern char *job_recovery_file(const Job *job);

/*
 * The restore_command that the node will have: the job's setting, which is in that
 * text; else what the node has, which stays where it is; or NULL.
 */
extern char *job_restore_command(const Job *job);

/*
 * What makes a copy of this server another server, for a node that has lost
 * its own configuration: its port, and its address if ours is a definite one.
 */
extern char *job_identity_conf(const Job *job);

/* Connection string of a tool on the node to this server, no password in it. */
extern char *job_tool_conninfo(const Job *job, const char *user,
							   const char *database);

#endif							/* FOLLOW_PRIMARY_RECOVERY_CONF_H */
