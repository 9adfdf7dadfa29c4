/*
 * recovery_conf.c
 *		Renders the settings that make a node a standby of this server.
 *
 * Two quotings meet in one line: that of a connection string (libpq's, in
 * conninfo_build) and that of a settings file (guc-file.l's, in put_setting).
 * libpq parses connection strings; we only put them together.
 */
#include "postgres.h"

#include "libpq-fe.h"
#include "postmaster/postmaster.h"

#include "compat.h"
#include "home.h"
#include "recovery_conf.h"
#include "remote.h"
#include "standby_name.h"

/* Parses a connection string; the caller frees the result by PQconninfoFree(). */
static PQconninfoOption *
parse_conninfo(const char *conninfo)
{
	char	   *error = NULL;
	PQconninfoOption *options = PQconninfoParse(conninfo, &error);

	if (options == NULL)
	{
		/* The message may quote a password: it is not passed on. */
		if (error)
			PQfreemem(error);
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a connection string cannot be parsed"),
				 errhint("Check follow_primary.replication_options and the node's primary_conninfo.")));
	}
	return options;
}

char *
conninfo_value(const char *conninfo, const char *key)
{
	PQconninfoOption *options;
	char	   *value = NULL;

	if (conninfo == NULL || conninfo[0] == '\0')
		return NULL;
	options = PQconninfoParse(conninfo, NULL);
	for (PQconninfoOption *o = options; o && o->keyword; o++)
		if (strcmp(o->keyword, key) == 0 && o->val && o->val[0] != '\0')
			value = pstrdup(o->val);
	PQconninfoFree(options);
	return value;
}

static void
put_option(StringInfo buf, const char *key, const char *value)
{
	bool		plain = value[0] != '\0' && strpbrk(value, " '\\\t\n") == NULL;

	if (buf->len > 0)
		appendStringInfoChar(buf, ' ');
	appendStringInfo(buf, "%s=", key);
	if (!plain)
		appendStringInfoChar(buf, '\'');
	for (const char *c = value; *c; c++)
	{
		if (*c == '\'' || *c == '\\')
			appendStringInfoChar(buf, '\\');
		appendStringInfoChar(buf, *c);
	}
	if (!plain)
		appendStringInfoChar(buf, '\'');
}

/* Adds the keys of a connection string, except those that are set here. */
static void
put_others(StringInfo buf, const char *conninfo, const char *const *except)
{
	PQconninfoOption *options;

	if (conninfo == NULL || conninfo[0] == '\0')
		return;
	options = parse_conninfo(conninfo);
	for (PQconninfoOption *o = options; o->keyword; o++)
	{
		bool		ours = o->val == NULL || strcmp(o->keyword, "hostaddr") == 0;

		for (int i = 0; except[i]; i++)
			ours = ours || strcmp(o->keyword, except[i]) == 0;
		if (!ours)
			put_option(buf, o->keyword, o->val);
	}
	PQconninfoFree(options);
}

char *
conninfo_build(const char *base, const char *options, const char *host,
			   int port, const char *user, const char *application_name,
			   const char *passfile)
{
	StringInfoData buf;
	const char *ours[8] = {"host", "port"};
	int			n = 2;

	initStringInfo(&buf);
	put_option(&buf, "host", host);
	put_option(&buf, "port", psprintf("%d", port));
	if (user)
	{
		put_option(&buf, "user", user);
		ours[n++] = "user";
	}
	if (application_name)
	{
		put_option(&buf, "application_name", application_name);
		ours[n++] = "application_name";
	}
	if (passfile)
	{
		put_option(&buf, "passfile", passfile);
		ours[n++] = "passfile";
	}
	put_others(&buf, options, ours);
	put_others(&buf, base, ours);
	return buf.data;
}

char *
conninfo_without_passwords(const char *conninfo, char **password, char **ssl_password)
{
	static const char *const passwords[] = {"password", "sslpassword", NULL};
	StringInfoData buf;

	*password = conninfo_value(conninfo, "password");
	*password = *password ? *password : "";
	*ssl_password = conninfo_value(conninfo, "sslpassword");
	*ssl_password = *ssl_password ? *ssl_password : "";
	initStringInfo(&buf);
	put_others(&buf, conninfo, passwords);
	return buf.data;
}

/* Adds a key, if the connection string that buf has does not have it. */
static void
put_default(StringInfo buf, const char *key, const char *value)
{
	if (conninfo_value(buf->data, key) == NULL)
		put_option(buf, key, value);
}

char *
conninfo_complete(const char *conninfo, int version_num, const char *database, int seconds)
{
	StringInfoData buf;

	seconds = Max(2, seconds);	/* libpq takes 1 for 2 */
	initStringInfo(&buf);
	appendStringInfoString(&buf, conninfo);
	if (version_num >= 170000)
		put_default(&buf, "dbname", database);
	put_default(&buf, "connect_timeout", psprintf("%d", seconds));
	if (version_num >= 120000)
		put_default(&buf, "tcp_user_timeout", psprintf("%d", seconds * 1000));
	return buf.data;
}

/* A line of a settings file. */
static void
put_setting(StringInfo buf, const char *name, const char *value)
{
	appendStringInfo(buf, "%s = '", name);
	for (const char *c = value; *c; c++)
	{
		if (*c == '\'' || *c == '\\')
			appendStringInfoChar(buf, *c);
		if (*c == '\n')
			appendStringInfoString(buf, "\\n");
		else
			appendStringInfoChar(buf, *c);
	}
	appendStringInfoString(buf, "'\n");
}

char *
restore_command_guard(const char *command)
{
	StringInfoData buf;

	/* In a subshell, for the command may be an exit itself. */
	if (strchr(command, '#') == NULL)
		return psprintf("(%s) || exit 1", command);

	/* A comment would hide the rest of the line. */
	initStringInfo(&buf);
	appendStringInfoString(&buf, "(eval ");
	remote_quote(&buf, command);
	appendStringInfoString(&buf, ") || exit 1");
	return buf.data;
}

/* The command in the text between '(printf "%%b" ' and its end, as one_line() of lib.sh writes it. */
static char *
command_of_lines(const char *text)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (const char *c = text; *c;)
	{
		if (strncmp(c, "'\\''", 4) == 0)
		{
			appendStringInfoChar(&buf, '\'');
			c += 4;
		}
		else if (*c == '\'')
			break;
		else if (c[0] == '\\' && c[1] != '\0')
		{
			appendStringInfoChar(&buf, c[1] == 'n' ? '\n' : c[1]);
			c += 2;
		}
		else
			appendStringInfoChar(&buf, *c++);
	}
	return buf.data;
}

char *
restore_command_behind_gate(char *command)
{
	static const char gate[] = "follow_primary_gate=";
	static const char end[] = "then exit 1; fi; ";
	static const char lines[] = "eval \"$(printf \"%%b\" '";
	char	   *real;

	if (command == NULL || strncmp(command, gate, strlen(gate)) != 0)
		return command;
	real = strstr(command, end);
	if (real == NULL)
		return command;
	real += strlen(end);
	return strncmp(real, lines, strlen(lines)) == 0 ? command_of_lines(real + strlen(lines)) : real;
}

char *
restore_command_setting(const char *command)
{
	StringInfoData buf;

	initStringInfo(&buf);
	put_setting(&buf, "restore_command", command);
	return pnstrdup(buf.data, buf.len - 1);
}

char *
recovery_conf_render(int version_num, const char *conninfo,
					 const char *slot_name, const char *restore_command)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfoString(&buf, "# Written by follow_primary; the next call replaces these settings.\n");
	if (version_num < 120000)
		put_setting(&buf, "standby_mode", "on");
	put_setting(&buf, "primary_conninfo", conninfo);
	put_setting(&buf, "primary_slot_name", slot_name);
	put_setting(&buf, "recovery_target_timeline", "latest");
	if (version_num >= 120000)
	{
		/* A primary ignores them; this file is the last that is read. */
		appendStringInfoString(&buf, "# With one of these a standby would be promoted by itself, or stop to replay.\n");
		put_setting(&buf, "recovery_target", "");
		put_setting(&buf, "recovery_target_name", "");
		put_setting(&buf, "recovery_target_time", "");
		put_setting(&buf, "recovery_target_xid", "");
		put_setting(&buf, "recovery_target_lsn", "");
		if (version_num < 160000)
			put_setting(&buf, "promote_trigger_file", "");
	}
	if (restore_command && restore_command[0] != '\0')
		put_setting(&buf, "restore_command", restore_command);
	return buf.data;
}

char *
job_primary_conninfo(const Job *job)
{
	const Request *request = job->request;
	const Settings *settings = request->settings;
	const char *application_name = request->application_name;
	char	   *conninfo;

	if (application_name == NULL)
		application_name = standby_name_to_write(&job->node, job->primary.version_num, request->node_host);

	/* A standby keeps the options that it has connected with. */
	if (job->node.state != NODE_PRIMARY && job->node.conninfo &&
		job->node.conninfo[0] != '\0')
		conninfo = conninfo_build(job->node.conninfo, NULL, job->primary_host,
								  request->primary_port, NULL, application_name, NULL);
	else
		conninfo = conninfo_build(NULL, settings->replication_options, job->primary_host,
								  request->primary_port, settings->replication_user,
								  application_name,
								  settings->passfile[0] ? home_path(settings->passfile, job->node_home) : NULL);
	return conninfo_complete(conninfo, job->primary.version_num, settings->rewind_database,
							 settings->connect_timeout);
}

char *
job_tool_conninfo(const Job *job, const char *user, const char *database)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfoString(&buf, conninfo_build(NULL, job->request->settings->replication_options,
												job->primary_host, job->request->primary_port,
												user,
												job->id == 0 ? "follow_primary_check" :
												psprintf("follow_primary_job_" INT64_FORMAT, job->id),
												NULL));
	if (database)
		put_option(&buf, "dbname", database);
	put_option(&buf, "connect_timeout",
			   psprintf("%d", Max(2, job->request->settings->connect_timeout)));
	return buf.data;
}

/* A restore_command that copies from the directory, whatever its name. */
static char *
copy_from_archive(const char *dir)
{
	StringInfoData path;
	StringInfoData command;

	initStringInfo(&path);
	for (const char *c = dir; *c; c++)
	{
		if (*c == '%')
			appendStringInfoChar(&path, '%');
		appendStringInfoChar(&path, *c);
	}
	initStringInfo(&command);
	appendStringInfoString(&command, "cp ");
	remote_quote(&command, path.data);
	appendStringInfoString(&command, "/%f \"%p\"");
	return restore_command_guard(command.data);
}

/* The restore_command that the job's settings give the node, or NULL. */
static char *
given_restore_command(const Job *job)
{
	const Settings *settings = job->request->settings;

	if (settings->restore_command[0] != '\0')
		return restore_command_guard(settings->restore_command);
	if (settings->archive_dir[0] != '\0')
		return copy_from_archive(settings->archive_dir);
	return NULL;
}

char *
job_restore_command(const Job *job)
{
	char	   *given = given_restore_command(job);

	if (given)
		return given;
	if (job->node.restore_command && job->node.restore_command[0] != '\0')
		return job->node.restore_command;
	return NULL;
}

char *
job_recovery_conf(const Job *job)
{
	return recovery_conf_render(job->primary.version_num, job_primary_conninfo(job),
								job->request->slot_name, given_restore_command(job));
}

char *
job_recovery_file(const Job *job)
{
	const char *file = job->request->settings->recovery_file;

	if (job->primary.version_num < 120000)
		file = "recovery.conf";
	if (file[0] == '/')
		return pstrdup(file);
	return psprintf("%s/%s", job->node.pgdata, file);
}

char *
job_identity_conf(const Job *job)
{
	StringInfoData buf;
	const char *here = ListenAddresses ? ListenAddresses : "";

	initStringInfo(&buf);
	put_setting(&buf, "port", psprintf("%d", job->request->node_port));
	if (strstr(here, "*") == NULL && strstr(here, "0.0.0.0") == NULL &&
		strstr(here, "::") == NULL)
		put_setting(&buf, "listen_addresses",
					psprintf("localhost,%s", job->request->node_host));
	return buf.data;
}
