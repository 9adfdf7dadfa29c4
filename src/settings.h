/*
 * settings.h
 *		The follow_primary.* settings.
 */
#ifndef FOLLOW_PRIMARY_SETTINGS_H
#define FOLLOW_PRIMARY_SETTINGS_H

#include "lib/stringinfo.h"

#include "ssh/ssh_types.h"

typedef enum KeepOldData
{
	KEEP_UNTIL_PROVEN,			/* old data goes when the new standby is
								 * proven */
	KEEP_ALWAYS					/* old data stays for a human to remove */
} KeepOldData;

/*
 * One value of every setting.  Strings are never NULL; "" stands for "not
 * set", where that is allowed.  Times are seconds.  What each one means is
 * told in settings.c, beside its name.
 */
typedef struct Settings
{
	char	   *ssh_user;
	int			ssh_port;
	char	   *ssh_key_file;
	char	   *ssh_known_hosts_file;
	int			ssh_host_key_checking;	/* SshHostKeyChecking */
	int			connect_timeout;
	char	   *node_bin_dir;
	char	   *node_start_command;
	char	   *node_stop_command;
	char	   *node_reload_command;
	char	   *primary_host;
	char	   *replication_user;
	char	   *replication_options;
	char	   *passfile;
	char	   *rewind_user;
	char	   *rewind_database;
	char	   *recovery_file;
	char	   *restore_command;
	char	   *archive_dir;
	int			keep_old_data;	/* KeepOldData */
	bool		copy_in_place;
	char	   *copy_command;
	int			copy_max_rate;	/* kB a second; 0 = no limit */
	char	   *copy_compression;
	char	   *pcp_host;
	int			pcp_port;
	char	   *pcp_user;
	char	   *pcp_pass_file;
	int			stop_timeout;
	int			start_timeout;
	int			verify_timeout;
	int			progress_timeout;
} Settings;

/* Those that no node has for itself: of the preloaded workers, and of a switchover. */
extern bool setting_sibling_slots;
extern int	setting_check_interval; /* seconds; 0 = never */
extern int	setting_max_archive_backlog;	/* segments; -1 = any number */

/* Defines the settings; for _PG_init. */
extern void settings_define(void);

/* A copy of the values in force in this session, in the current context. */
extern Settings *settings_copy_current(void);

/*
 * Overrides one setting by the text of a column of follow_primary_node.
 * Returns false if no setting has that name.  Raises 22023 on a value that
 * the setting does not take.
 */
extern bool settings_override(Settings *settings, const char *name,
							  const char *value);

/* For passing the values to a worker, field by field. */
extern void settings_send(StringInfo buf, const Settings *settings);
extern Settings *settings_receive(StringInfo buf);

/* How long libpq tries to make a connection, in seconds: it takes no less than two. */
extern int	settings_connection_s(const Settings *settings);

/* Does the text hold a control character? Nothing that we pass on may. */
extern bool has_control_chars(const char *text);

#define MAX_HOST_LENGTH	255		/* RFC 1123 */

/*
 * Could the text be a host name or an address, as far as its characters and
 * its length tell?  The constraints of follow_primary_node say the same.
 */
extern bool is_host_name(const char *text);

#endif							/* FOLLOW_PRIMARY_SETTINGS_H */
