/*
 * settings.c
 *		The follow_primary.* settings, one table row each.
 *
 * The settings are read once, in the session that calls follow_primary(), and
 * travel to the worker by value.  A row of follow_primary_node overrides them
 * by columns of the same names, so one table serves both: it holds the name,
 * the type, the place in struct Settings and the bounds.
 *
 * Where the library is not preloaded, it is loaded by the first call in a session:
 * values in postgresql.conf are placeholders until then and are checked at that
 * moment.
 */
#include "postgres.h"

#include <limits.h>

#include "libpq-fe.h"
#include "libpq/pqformat.h"
#include "utils/builtins.h"
#include "utils/guc.h"

#include "compat.h"
#include "settings.h"

typedef enum SettingKind
{
	SETTING_TEXT,
	SETTING_INT,
	SETTING_BOOL,
	SETTING_CHOICE
} SettingKind;

/* What a text may hold, beyond the ban on control characters. */
typedef enum TextRule
{
	ANY_TEXT,
	NOT_EMPTY,
	ABSOLUTE_PATH,				/* "" allowed */
	HOME_PATH,					/* absolute or ~/..., "" allowed */
	SOME_HOME_PATH,				/* the same, but "" */
	HOST_NAME,					/* "" allowed */
	CONNECTION_OPTIONS,			/* "" allowed */
	COMPRESSION,				/* "" allowed */
	RECOVERY_FILE				/* a name that PostgreSQL has no use for */
} TextRule;

typedef struct Setting
{
	const char *name;
	SettingKind kind;
	size_t		offset;
	const char *short_desc;
	const char *long_desc;
	TextRule	rule;			/* SETTING_TEXT */
	const char *boot_text;
	int			boot;			/* all but SETTING_TEXT */
	int			min;
	int			max;
	int			least;			/* SETTING_INT: of values but 0, if not 0 */
	int			flags;
	const struct config_enum_entry *choices;
} Setting;

static const struct config_enum_entry host_key_choices[] = {
	{"strict", SSH_HOST_KEY_STRICT, false},
	{"accept-new", SSH_HOST_KEY_ACCEPT_NEW, false},
	{"off", SSH_HOST_KEY_OFF, false},
	{NULL, 0, false}
};

static const struct config_enum_entry keep_old_data_choices[] = {
	{"until_proven", KEEP_UNTIL_PROVEN, false},
	{"always", KEEP_ALWAYS, false},
	{NULL, 0, false}
};

/* In kB a second: what pg_basebackup takes as --max-rate. */
#define LEAST_COPY_RATE		32
#define MAX_COPY_RATE		1048576

#define TEXT(field, rule, boot, short_desc, long_desc) \
	{#field, SETTING_TEXT, offsetof(Settings, field), short_desc, long_desc, \
		rule, boot, 0, 0, 0, 0, 0, NULL}
#define NUMBER(field, boot, min, max, flags, short_desc, long_desc) \
	{#field, SETTING_INT, offsetof(Settings, field), short_desc, long_desc, \
		ANY_TEXT, NULL, boot, min, max, 0, flags, NULL}
#define LIMIT(field, least, max, flags, short_desc, long_desc) \
	{#field, SETTING_INT, offsetof(Settings, field), short_desc, long_desc, \
		ANY_TEXT, NULL, 0, 0, max, least, flags, NULL}
#define BOOL(field, boot, short_desc, long_desc) \
	{#field, SETTING_BOOL, offsetof(Settings, field), short_desc, long_desc, \
		ANY_TEXT, NULL, boot, 0, 0, 0, 0, NULL}
#define CHOICE(field, boot, choices, short_desc, long_desc) \
	{#field, SETTING_CHOICE, offsetof(Settings, field), short_desc, long_desc, \
		ANY_TEXT, NULL, boot, 0, 0, 0, 0, choices}

static const Setting settings[] = {
	TEXT(ssh_user, ANY_TEXT, "",
		 "User to log in to nodes as.",
		 "Empty: the operating-system user that this server runs as."),
	NUMBER(ssh_port, 22, 1, 65535, 0,
		   "Port of the nodes' SSH servers.", NULL),
	TEXT(ssh_key_file, HOME_PATH, "",
		 "Private key to log in to nodes with.",
		 "Empty: id_ed25519, id_ecdsa, id_rsa in ~/.ssh, those that exist."),
	TEXT(ssh_known_hosts_file, SOME_HOME_PATH, "~/.ssh/known_hosts",
		 "File of the host keys that are trusted.", NULL),
	CHOICE(ssh_host_key_checking, SSH_HOST_KEY_STRICT, host_key_choices,
		   "What to do about a node's SSH host key.",
		   "strict: it must be known; accept-new: an unknown one is added to the file, a changed one refused; off: any is taken."),
	NUMBER(connect_timeout, 10, 1, 3600, GUC_UNIT_S,
		   "Time limit for connecting to a node by SSH, or to pgpool.", NULL),
	TEXT(node_bin_dir, ABSOLUTE_PATH, "",
		 "Directory of PostgreSQL's programs on the nodes.",
		 "Empty: the same directory as on this server."),
	TEXT(node_start_command, ANY_TEXT, "",
		 "Command that starts PostgreSQL on a node.",
		 "Empty: pg_ctl. %p is replaced by the port, %D by the data directory."),
	TEXT(node_stop_command, ANY_TEXT, "",
		 "Command that stops PostgreSQL on a node.",
		 "Empty: pg_ctl. %p is replaced by the port, %D by the data directory."),
	TEXT(node_reload_command, ANY_TEXT, "",
		 "Command that makes PostgreSQL on a node read its settings again.",
		 "Empty: pg_ctl. %p is replaced by the port, %D by the data directory."),
	TEXT(primary_host, HOST_NAME, "",
		 "The name under which nodes reach this server.",
		 "Empty: listen_addresses if that is one address, else the address that the node sees."),
	TEXT(replication_user, NOT_EMPTY, "repl",
		 "Role that nodes replicate as.", NULL),
	TEXT(replication_options, CONNECTION_OPTIONS, "",
		 "Further options for primary_conninfo, such as sslmode=verify-full.",
		 "No host, port, role, database or password: they have settings, and files, of their own."),
	TEXT(passfile, HOME_PATH, "",
		 "Password file on the node, for replication and rewind.",
		 "Empty: libpq's own default, ~/.pgpass."),
	TEXT(rewind_user, NOT_EMPTY, "postgres",
		 "Role for pg_rewind on the primary, and for asking a node about itself.",
		 NULL),
	TEXT(rewind_database, NOT_EMPTY, "postgres",
		 "Database that pg_rewind and the questions to a node connect to.",
		 NULL),
	TEXT(recovery_file, RECOVERY_FILE, "myrecovery.conf",
		 "File on the node that holds the settings of a standby.",
		 "A relative name is in the data directory."),
	TEXT(restore_command, ANY_TEXT, "",
		 "restore_command to write for nodes.",
		 "Empty: one for archive_dir, else the node's own."),
	TEXT(archive_dir, ABSOLUTE_PATH, "",
		 "Directory of the WAL archive as the nodes see it.",
		 "Used for a restore_command that copies from there, when none is set."),
	CHOICE(keep_old_data, KEEP_UNTIL_PROVEN, keep_old_data_choices,
		   "How long a data directory stays that was replaced by a copy.",
		   "until_proven: until the new standby streams; always: until it is removed by hand."),
	BOOL(copy_in_place, false,
		 "Removes a node's data before it is copied anew, where there is no room for both.",
		 "If such a copy fails, the node has no data until another call succeeds. Without effect where there is room, or keep_old_data is always."),
	TEXT(copy_command, ANY_TEXT, "",
		 "Command that makes a copy on a node.",
		 "Empty: pg_basebackup. %D is replaced by the new data directory, %m by the file that maps tablespaces, %O by the present data directory, %h and %p by the node's host and port, %H and %P by the primary's, %j by the job."),
	LIMIT(copy_max_rate, LEAST_COPY_RATE, MAX_COPY_RATE, GUC_UNIT_KB,
		  "Limits what a copy takes of the network, in kB a second.",
		  "0: no limit. It is pg_basebackup's --max-rate: 32 kB to 1 GB a second."),
	TEXT(copy_compression, COMPRESSION, "",
		 "How the primary compresses what it sends for a copy.",
		 "As pg_basebackup takes it behind --compress=server-, such as lz4, zstd:3 or gzip:level=1. Empty: not at all. PostgreSQL 15 and later."),
	TEXT(pcp_host, HOST_NAME, "",
		 "Host of pgpool's control port.",
		 "Empty: the address that the calling client has."),
	NUMBER(pcp_port, 9898, 1, 65535, 0,
		   "pgpool's control port.", NULL),
	TEXT(pcp_user, NOT_EMPTY, "pgpool",
		 "User for pgpool's control port.", NULL),
	TEXT(pcp_pass_file, SOME_HOME_PATH, "~/.pcppass",
		 "File of passwords for pgpool's control port.", NULL),
	NUMBER(stop_timeout, 60, 1, 86400, GUC_UNIT_S,
		   "Time limit for stopping PostgreSQL on a node.", NULL),
	NUMBER(start_timeout, 60, 1, 86400, GUC_UNIT_S,
		   "Time limit for starting PostgreSQL on a node.", NULL),
	NUMBER(verify_timeout, 60, 1, 86400, GUC_UNIT_S,
		   "Time limit for the proof that a node follows.", NULL),
	NUMBER(progress_timeout, 300, 1, 86400, GUC_UNIT_S,
		   "Time without any progress after which a rewind or a copy is ended.",
		   NULL)
};

#define TEXT_OF(base, s)	(*(char **) ((char *) (base) + (s)->offset))
#define INT_OF(base, s)		(*(int *) ((char *) (base) + (s)->offset))
#define BOOL_OF(base, s)	(*(bool *) ((char *) (base) + (s)->offset))

/* The variables of the settings themselves. */
static Settings current;

bool		setting_sibling_slots = true;
int			setting_check_interval = 0;
int			setting_max_archive_backlog = -1;

bool
has_control_chars(const char *text)
{
	for (const unsigned char *c = (const unsigned char *) text; *c; c++)
		if (*c < 0x20 || *c == 0x7f)
			return true;
	return false;
}

bool
is_host_name(const char *text)
{
	return strchr("-.%", text[0]) == NULL &&
		strlen(text) <= MAX_HOST_LENGTH &&
		strspn(text, "abcdefghijklmnopqrstuvwxyz"
			   "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
			   "0123456789_.:%-") == strlen(text);
}

/*
 * The text becomes a part of connection strings, some of them on command
 * lines: no secret may be in it, nor anything that would lead elsewhere.
 */
static const char *
connection_options_objection(const char *text)
{
	static const char *const refused[] = {
		"host", "hostaddr", "port", "user", "dbname", "replication",
		"password", "sslpassword"
	};
	const char *objection = NULL;
	PQconninfoOption *options = PQconninfoParse(text, NULL);

	/* libpq takes a URI, too, but that is more than options. */
	if (options == NULL || strncmp(text, "postgres://", 11) == 0 ||
		strncmp(text, "postgresql://", 13) == 0)
	{
		PQconninfoFree(options);
		return "It must be a connection string: key=value, separated by spaces.";
	}
	for (PQconninfoOption *o = options; o->keyword; o++)
		for (int i = 0; i < lengthof(refused); i++)
			if (o->val && strcmp(o->keyword, refused[i]) == 0)
				objection = "It must not set host, hostaddr, port, user, dbname, replication, password or sslpassword.";
	PQconninfoFree(options);
	return objection;
}

/*
 * Each job writes the file anew, so it must be none that has another purpose.  The
 * constraint of follow_primary_node says the same; survey.sh knows about the files
 * that a node really has.
 */
static const char *
recovery_file_objection(const char *text)
{
	static const char *const taken[] = {
		"", ".", "..",
		"postgresql.conf", "postgresql.auto.conf", "pg_hba.conf", "pg_ident.conf",
		"standby.signal", "recovery.signal", "recovery.conf",
		"backup_label", "tablespace_map", "backup_manifest",
		"PG_VERSION", "postmaster.pid", "postmaster.opts", "current_logfiles"
	};
	const char *slash = strrchr(text, '/');
	const char *name = slash ? slash + 1 : text;
	const char *first = text;

	for (int i = 0; i < lengthof(taken); i++)
		if (strcmp(name, taken[i]) == 0)
			return "PostgreSQL uses a file of that name for something else, or it is none.";
	if (strncmp(text, "../", 3) == 0 || strstr(text, "/../"))
		return "It must not lead through \"..\".";
	while (first[0] == '.' && first[1] == '/')
		for (first++; *first == '/';)
			first++;
	if (slash && (strncmp(first, "base/", 5) == 0 || strncmp(first, "global/", 7) == 0 ||
				  strncmp(first, "pg_", 3) == 0) && strchr(first, '/'))
		return "That directory is for PostgreSQL's own files.";
	return NULL;
}

/* The node's pg_basebackup is to be able to do what this server can. */
static const char *
compression_objection(const char *text)
{
	char	   *objection;

	if (text[0] == '\0')
		return NULL;
	objection = copy_compression_objection(text);
	return objection ? psprintf("%s.", objection) : NULL;
}

/* Why a setting with these bounds does not take the number, as a sentence, or NULL. */
static const char *
number_objection(int value, int min, int least, int max)
{
	if (value >= min && value <= max && (value == 0 || value >= least))
		return NULL;
	if (least > 0)
		return psprintf("It must be 0, or between %d and %d.", least, max);
	return psprintf("It must be between %d and %d.", min, max);
}

/* Why a setting does not take the text, as a sentence, or NULL. */
static const char *
text_objection(TextRule rule, const char *text)
{
	if (has_control_chars(text))
		return "It must not contain control characters.";
	switch (rule)
	{
		case ANY_TEXT:
			break;
		case NOT_EMPTY:
			if (text[0] == '\0')
				return "It must not be empty.";
			break;
		case ABSOLUTE_PATH:
			if (text[0] != '\0' && text[0] != '/')
				return "It must be an absolute path.";
			break;
		case HOME_PATH:
		case SOME_HOME_PATH:
			if (!(rule == HOME_PATH && text[0] == '\0') && text[0] != '/' &&
				strncmp(text, "~/", 2) != 0)
				return "It must be an absolute path, or begin with ~/.";
			break;
		case HOST_NAME:
			if (text[0] != '\0' && !is_host_name(text))
				return "It must be a host name or an address.";
			break;
		case CONNECTION_OPTIONS:
			return connection_options_objection(text);
		case RECOVERY_FILE:
			return recovery_file_objection(text);
		case COMPRESSION:
			return compression_objection(text);
	}
	return NULL;
}

static bool
check_text(TextRule rule, char **newval)
{
	const char *objection = *newval ? text_objection(rule, *newval) : NULL;

	if (objection)
		GUC_check_errdetail("%s", objection);
	return objection == NULL;
}

/* A check hook is not told which setting it checks, so there is one a rule. */
#define TEXT_CHECK_HOOK(fn, rule) \
	static bool \
	fn(char **newval, void **extra, GucSource source) \
	{ \
		return check_text(rule, newval); \
	}
TEXT_CHECK_HOOK(check_any_text, ANY_TEXT)
TEXT_CHECK_HOOK(check_not_empty, NOT_EMPTY)
TEXT_CHECK_HOOK(check_absolute_path, ABSOLUTE_PATH)
TEXT_CHECK_HOOK(check_home_path, HOME_PATH)
TEXT_CHECK_HOOK(check_some_home_path, SOME_HOME_PATH)
TEXT_CHECK_HOOK(check_host_name, HOST_NAME)
TEXT_CHECK_HOOK(check_connection_options, CONNECTION_OPTIONS)
TEXT_CHECK_HOOK(check_recovery_file, RECOVERY_FILE)
TEXT_CHECK_HOOK(check_compression, COMPRESSION)

static const GucStringCheckHook text_check_hooks[] = {
	[ANY_TEXT] = check_any_text,
	[NOT_EMPTY] = check_not_empty,
	[ABSOLUTE_PATH] = check_absolute_path,
	[HOME_PATH] = check_home_path,
	[SOME_HOME_PATH] = check_some_home_path,
	[HOST_NAME] = check_host_name,
	[CONNECTION_OPTIONS] = check_connection_options,
	[RECOVERY_FILE] = check_recovery_file,
	[COMPRESSION] = check_compression
};

/* The server knows the bounds of a setting, but not that there may be a gap behind 0. */
static bool
check_copy_max_rate(int *newval, void **extra, GucSource source)
{
	const char *objection = number_objection(*newval, 0, LEAST_COPY_RATE, MAX_COPY_RATE);

	if (objection)
		GUC_check_errdetail("%s", objection);
	return objection == NULL;
}

void
settings_define(void)
{
	for (int i = 0; i < lengthof(settings); i++)
	{
		const Setting *s = &settings[i];
		char	   *name = psprintf("follow_primary.%s", s->name);

		switch (s->kind)
		{
			case SETTING_TEXT:
				DefineCustomStringVariable(name, s->short_desc, s->long_desc,
										   &TEXT_OF(&current, s), s->boot_text,
										   PGC_SUSET, s->flags,
										   text_check_hooks[s->rule],
										   NULL, NULL);
				break;
			case SETTING_INT:
				DefineCustomIntVariable(name, s->short_desc, s->long_desc,
										&INT_OF(&current, s), s->boot,
										s->min, s->max, PGC_SUSET, s->flags,
										s->least > 0 ? check_copy_max_rate : NULL,
										NULL, NULL);
				break;
			case SETTING_BOOL:
				DefineCustomBoolVariable(name, s->short_desc, s->long_desc,
										 &BOOL_OF(&current, s), s->boot,
										 PGC_SUSET, s->flags, NULL, NULL, NULL);
				break;
			case SETTING_CHOICE:
				DefineCustomEnumVariable(name, s->short_desc, s->long_desc,
										 &INT_OF(&current, s), s->boot,
										 s->choices, PGC_SUSET, s->flags,
										 NULL, NULL, NULL);
				break;
		}
		pfree(name);
	}
	DefineCustomBoolVariable("follow_primary.sibling_slots",
							 "Keeps WAL on standbys for the other nodes, by replication slots.",
							 "Where the library is preloaded.",
							 &setting_sibling_slots, true, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("follow_primary.check_interval",
							"How often the primary runs the check of readiness everywhere.",
							"Where the library is preloaded. 0: never.",
							&setting_check_interval, 0, 0, 86400, PGC_SIGHUP, GUC_UNIT_S,
							NULL, NULL, NULL);
	DefineCustomIntVariable("follow_primary.max_archive_backlog",
							"How much WAL may wait to be archived on the primary when a switchover begins.",
							"In segments. -1: any number.",
							&setting_max_archive_backlog, -1, -1, 1000000, PGC_SUSET, 0,
							NULL, NULL, NULL);
	MarkGUCPrefixReserved("follow_primary");
}

Settings *
settings_copy_current(void)
{
	Settings   *copy = palloc(sizeof(Settings));

	*copy = current;
	for (int i = 0; i < lengthof(settings); i++)
		if (settings[i].kind == SETTING_TEXT)
			TEXT_OF(copy, &settings[i]) = pstrdup(TEXT_OF(&current, &settings[i]));
	return copy;
}

bool
settings_override(Settings *target, const char *name, const char *value)
{
	for (int i = 0; i < lengthof(settings); i++)
	{
		const Setting *s = &settings[i];
		const char *objection = NULL;

		if (strcmp(s->name, name) != 0)
			continue;

		switch (s->kind)
		{
			case SETTING_TEXT:
				objection = text_objection(s->rule, value);
				TEXT_OF(target, s) = pstrdup(value);
				break;
			case SETTING_INT:
				INT_OF(target, s) = atoi(value);
				objection = number_objection(INT_OF(target, s), s->min, s->least, s->max);
				break;
			case SETTING_BOOL:
				if (!parse_bool(value, &BOOL_OF(target, s)))
					objection = "It must be true or false.";
				break;
			case SETTING_CHOICE:
				objection = "It is none of the setting's values.";
				for (const struct config_enum_entry *c = s->choices; c->name; c++)
					if (strcmp(c->name, value) == 0)
					{
						INT_OF(target, s) = c->val;
						objection = NULL;
					}
				break;
		}
		if (objection)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("invalid value for column \"%s\" of follow_primary_node",
							name),
					 errdetail("%s", objection)));
		return true;
	}
	return false;
}

void
settings_send(StringInfo buf, const Settings *source)
{
	for (int i = 0; i < lengthof(settings); i++)
	{
		if (settings[i].kind == SETTING_TEXT)
			appendBinaryStringInfo(buf, TEXT_OF(source, &settings[i]),
								   strlen(TEXT_OF(source, &settings[i])) + 1);
		else if (settings[i].kind == SETTING_BOOL)
			pq_sendbyte(buf, BOOL_OF(source, &settings[i]));
		else
			pq_sendint32(buf, INT_OF(source, &settings[i]));
	}
}

Settings *
settings_receive(StringInfo buf)
{
	Settings   *copy = palloc0(sizeof(Settings));

	for (int i = 0; i < lengthof(settings); i++)
	{
		if (settings[i].kind == SETTING_TEXT)
			TEXT_OF(copy, &settings[i]) = pstrdup(pq_getmsgrawstring(buf));
		else if (settings[i].kind == SETTING_BOOL)
			BOOL_OF(copy, &settings[i]) = pq_getmsgbyte(buf) != 0;
		else
			INT_OF(copy, &settings[i]) = pq_getmsgint(buf, 4);
	}
	return copy;
}

int
settings_connection_s(const Settings *settings)
{
	return Max(2, settings->connect_timeout);
}
