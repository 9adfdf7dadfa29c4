/*
 * remote.c
 *		Runs one of the fixed scripts of src/remote on a node.
 *
 * The command that the account's login shell gets to see is a constant; bash,
 * dash, csh and fish read it alike.  It is replaced by a /bin/sh that reads its
 * stdin, where a compound command comes for every script: the wrapper script,
 * with the script proper and a list of arguments as quoted words before it.  Named
 * arguments are quoted assignments before the script's text.  So nothing that comes
 * from a user is ever read as a command, no length limit of a command line
 * applies, and nothing of it is seen in a process list.
 *
 * Output counts only between two marker lines that carry a random nonce.
 */
#include "postgres.h"

#include "port.h"

#include "compat.h"
#include "hints.h"
#include "remote.h"
#include "remote_scripts.h"
#include "sql.h"

#define SCRIPT(name) const RemoteScript remote_##name = {#name, name##_sh}

SCRIPT(survey);
SCRIPT(archive);
SCRIPT(connect);
SCRIPT(try);
SCRIPT(stop);
SCRIPT(start);
SCRIPT(check_config);
SCRIPT(configure);
SCRIPT(repoint);
SCRIPT(save_config);
SCRIPT(restore_config);
SCRIPT(stage_wal);
SCRIPT(count_wal);
SCRIPT(rewind);
SCRIPT(space);
SCRIPT(clear);
SCRIPT(basebackup);
SCRIPT(copy_command);
SCRIPT(take_copy);
SCRIPT(swap);
SCRIPT(verify);
SCRIPT(holdup);
SCRIPT(clean);
SCRIPT(lock);
SCRIPT(check);
SCRIPT(ask);
SCRIPT(switchover);

#define NONCE_BYTES 8

/* 1 EB, in bytes. */
#define MAX_DIGITS	18

/* An error's detail to the caller may have 8 kB. */
#define MESSAGES_TAIL 6144

/* People know it by these words, its $0 and $1, in a process list. */
#define SHELL			"exec /bin/sh -s follow_primary"

/* What a script that is to be held says last: see lib.sh's emit. */
#define HOLD_AT		"\nheld=yes\n"

/* What one says last that asks a question. */
#define ASK_AT		"\nask=yes\n"

void
remote_quote(StringInfo buf, const char *text)
{
	appendStringInfoChar(buf, '\'');
	for (;;)
	{
		size_t		len = strcspn(text, "'");

		appendBinaryStringInfo(buf, text, (int) len);
		if (text[len] == '\0')
			break;
		appendStringInfoString(buf, "'\\''");
		text += len + 1;
	}
	appendStringInfoChar(buf, '\'');
}

/* Undoes lib.sh's emit: \\ and \n. */
static char *
unescape(const char *value, size_t len)
{
	char	   *result = palloc(len + 1);
	char	   *to = result;

	for (size_t i = 0; i < len; i++)
	{
		if (value[i] == '\\' && i + 1 < len)
		{
			i++;
			*to++ = value[i] == 'n' ? '\n' : value[i];
		}
		else
			*to++ = value[i];
	}
	*to = '\0';
	return result;
}

const char *
remote_get(const RemoteReply *reply, const char *key)
{
	for (int i = 0; i < reply->nvalues; i++)
		if (strcmp(reply->values[i].key, key) == 0)
			return reply->values[i].value;
	return NULL;
}

bool
remote_says(const RemoteReply *reply, const char *key, const char *value)
{
	const char *found = remote_get(reply, key);

	return found != NULL && strcmp(found, value) == 0;
}

bool
remote_failed_for(const RemoteReply *reply, const char *reason)
{
	return reply->failed != NULL && strcmp(reply->failed, reason) == 0;
}

bool
remote_number(const RemoteReply *reply, const char *key, int64 *number)
{
	const char *found = remote_get(reply, key);
	size_t		digits = found ? strspn(found, "0123456789") : 0;

	if (digits == 0 || digits > MAX_DIGITS || found[digits] != '\0')
		return false;
	*number = strtoll(found, NULL, 10);
	return true;
}

char *
remote_control_value(const RemoteReply *reply, const char *label)
{
	size_t		len = strlen(label);

	for (const char *line = remote_get(reply, "controldata"); line && *line;)
	{
		if (strncmp(line, label, len) == 0 && line[len] == ':')
		{
			line += len + 1;
			line += strspn(line, " \t");
			return pnstrdup(line, strcspn(line, "\n"));
		}
		line = strchr(line, '\n');
		line = line ? line + 1 : NULL;
	}
	return NULL;
}

bool
remote_parse(const char *out, const char *nonce, RemoteReply *reply)
{
	char	   *begin = psprintf("%s begin\n", nonce);
	char	   *end = psprintf("\n%s end ", nonce);
	const char *line = strstr(out, begin);
	const char *stop = line ? strstr(line, end) : NULL;
	int			capacity = 32;
	const char *failed;

	reply->nvalues = 0;
	reply->values = palloc(capacity * sizeof(RemoteValue));
	if (stop == NULL)
		return false;

	reply->status = atoi(stop + strlen(end));
	line += strlen(begin);
	while (line < stop)
	{
		const char *eol = memchr(line, '\n', stop - line);
		const char *equals;

		if (eol == NULL)
			eol = stop;
		equals = memchr(line, '=', eol - line);
		if (equals != NULL)
		{
			if (reply->nvalues == capacity)
				reply->values = repalloc(reply->values,
										 (capacity *= 2) * sizeof(RemoteValue));
			reply->values[reply->nvalues].key = pnstrdup(line, equals - line);
			reply->values[reply->nvalues].value = unescape(equals + 1, eol - equals - 1);
			reply->nvalues++;
		}
		line = eol + 1;
	}
	reply->ok = reply->status == 0;
	failed = remote_get(reply, "failed");
	reply->failed = reply->ok ? NULL : pstrdup(failed ? failed : "");
	return true;
}

/* A marker that no output of a script contains by accident. */
static char *
make_nonce(void)
{
	unsigned char bytes[NONCE_BYTES];
	StringInfoData buf;

	if (!pg_strong_random(bytes, sizeof(bytes)))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate random bytes")));
	initStringInfo(&buf);
	appendStringInfoString(&buf, "follow_primary:");
	for (int i = 0; i < NONCE_BYTES; i++)
		appendStringInfo(&buf, "%02x", bytes[i]);
	return buf.data;
}

/*
 * Takes the messages of the script alone: the account's start-up files may have
 * written before.  Keeps the last of them where they are too many for an error.
 */
static char *
script_messages(const char *err, int len, const char *nonce)
{
	char	   *messages = pnstrdup(err, len);
	char	   *marker = psprintf("%s begin", nonce);
	char	   *begin = strstr(messages, marker);
	char	   *end = strstr(messages, psprintf("\n%s end ", nonce));

	if (end != NULL)
	{
		while (end > messages && end[-1] == '\n')
			end--;
		*end = '\0';
	}
	if (begin == NULL)
		begin = messages;
	else
	{
		begin += strlen(marker);
		begin += strspn(begin, "\n");
	}
	if (strlen(begin) > MESSAGES_TAIL)
	{
		char	   *newline;

		begin += strlen(begin) - MESSAGES_TAIL;
		newline = strchr(begin, '\n');
		if (newline != NULL)
			begin = newline + 1;
	}
	return sql_text(begin);
}

/* What the account has exported under these names would go on being exported. */
static void
put_assignments(StringInfo text, const RemoteArgument *named)
{
	appendStringInfoString(text, "unset");
	for (int i = 0; named[i].name; i++)
		appendStringInfo(text, " %s", named[i].name);
	appendStringInfoChar(text, '\n');
	for (; named->name; named++)
	{
		appendStringInfo(text, "%s=", named->name);
		remote_quote(text, named->value ? named->value : "");
		appendStringInfoChar(text, '\n');
	}
}

static void
put_words(StringInfo text, const char *const *list)
{
	for (; list && *list; list++)
	{
		appendStringInfoChar(text, ' ');
		remote_quote(text, *list);
	}
}

/*
 * Reads what the shell's times has said of what it and its children have used,
 * as "times=0m0.02s 0m0.04s\n0m0.10s 0m0.05s", in some locales with commas: the sum
 * in milliseconds.  False if it is not all there.
 */
static bool
parse_times(const char *out, int64 *sum)
{
	const char *at = strstr(out, "\ntimes=");

	*sum = 0;
	if (at == NULL)
		return false;
	at += strlen("\ntimes=");
	for (int i = 0; i < 4; i++)
	{
		int			minutes;
		int			seconds;
		char		fraction[4] = "";
		int			len;

		if (sscanf(at, " %dm%d%*1[.,]%3[0-9]%*[0-9]s", &minutes, &seconds, fraction) != 3)
			return false;
		len = strlen(fraction);
		*sum += (minutes * 60 + seconds) * INT64CONST(1000) +
			atoi(fraction) * (len == 1 ? 100 : len == 2 ? 10 : 1);
		at = strchr(at, 's');
		if (at == NULL)
			return false;
		at++;
	}
	return true;
}

/* A script to run. */
struct RemoteRun
{
	const char *name;
	char	   *nonce;
	bool		hold;
	SshCommand	command;
};

/* Prepares to run the text, which begins with the assignments of the named arguments. */
static RemoteRun *
prepare(const char *name, const char *text, const char *const *list, const RemoteLimits *limits, bool hold)
{
	RemoteRun  *run = palloc0(sizeof(RemoteRun));
	SshCommand *command = &run->command;
	StringInfoData input;

	run->name = name;
	run->nonce = make_nonce();
	run->hold = hold;
	initStringInfo(&input);
	appendStringInfoString(&input, "{\nset --");
	put_words(&input, LIST(run->nonce, hold ? "held" : limits->on_ask ? "script" : "watcher", text));
	put_words(&input, list);
	appendStringInfo(&input, "\n%s}\n", wrapper_sh);

	command->shell = SHELL;
	command->end_mark = psprintf("\n%s end ", run->nonce);
	command->input = input.data;
	command->input_len = input.len;
	command->timeout_ms = limits->timeout_ms;
	command->progress_timeout_ms = limits->progress_timeout_ms;
	command->on_stderr_line = limits->on_stderr_line;
	command->on_tick = limits->on_tick;
	command->arg = limits->arg;
	command->hold_at = hold ? HOLD_AT : NULL;
	command->ask_at = limits->on_ask ? ASK_AT : NULL;
	command->on_ask = limits->on_ask;
	return run;
}

void
remote_end(SshSession *session, RemoteRun *run, RemoteReply *reply)
{
	const char *name = run->name;
	const char *nonce = run->nonce;
	SshResult	result = {0};
	bool		whole;
	int64		cpu;

	ssh_run(session, &run->command, &result);
	if (result.end == SSH_END_HELD)
	{
		appendStringInfo(&result.out, "\n%s end 0\n", nonce);
		result.end = SSH_END_DONE;
	}

	if (parse_times(result.out.data, &cpu))
		ssh_note_cpu(session, cpu, run->hold);

	memset(reply, 0, sizeof(*reply));
	while (result.err.len > 0 && result.err.data[result.err.len - 1] == '\n')
		result.err.len--;
	reply->messages = script_messages(result.err.data, result.err.len, nonce);
	whole = remote_parse(result.out.data, nonce, reply);

	if (result.end == SSH_END_TIMED_OUT || result.end == SSH_END_NO_PROGRESS)
		ereport(ERROR,
				(errcode(ERRCODE_SYSTEM_ERROR),
				 errmsg("the script \"%s\" was ended: %s", name, result.cause),
				 reply->messages[0] ? errdetail("Its last messages: %s", reply->messages) : 0,
				 result.end == SSH_END_NO_PROGRESS ?
				 errhint("See what holds the node up; the limit is follow_primary.progress_timeout. Then call follow_primary() again.") :
				 errhint("See what holds the node up: its load, its disks. The limit is fixed, but for what follow_primary.stop_timeout, start_timeout and verify_timeout add to it. Then call follow_primary() again.")));

	if (result.end == SSH_END_UNHELD)
		ereport(ERROR,
				(errcode(ERRCODE_SYSTEM_ERROR),
				 errmsg("the script \"%s\" was ended, or not started: the lock on the node is lost", name),
				 errdetail("The process there that holds it while the job goes on has ended."),
				 errhint("See who ended it. Then call follow_primary() again: it looks at the node afresh and goes on from there.")));

	if (!whole || result.end != SSH_END_DONE)
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("the outcome of the script \"%s\" is not known", name),
				 errdetail("%s%s%s",
						   result.end == SSH_END_SIGNALLED ? psprintf("It was ended by signal %s.", result.signal) :
						   result.end == SSH_END_DONE ? "What it said is not whole." :
						   result.end == SSH_END_EXITED ? psprintf("The shell ended with status %d before the script did.", result.exit_status) :
						   psprintf("The connection was lost: %s.", result.cause),
						   reply->messages[0] ? " Its last messages: " : "",
						   reply->messages),
				 errhint(CALL_AGAIN)));
}

/* The script's text with its named arguments. */
static char *
script_text(const RemoteScript *script, const RemoteArgument *named)
{
	StringInfoData text;

	initStringInfo(&text);
	put_assignments(&text, named);
	appendStringInfoString(&text, script->text);
	return text.data;
}

void
remote_run(SshSession *session, const RemoteScript *script,
		   const RemoteArgument *named, const char *const *list,
		   const RemoteLimits *limits, RemoteReply *reply)
{
	remote_end(session, prepare(script->name, script_text(script, named), list, limits, false), reply);
}

RemoteRun *
remote_begin(SshSession *session, const RemoteScript *script,
			 const RemoteArgument *named, const char *const *list,
			 const RemoteLimits *limits)
{
	RemoteRun  *run = prepare(script->name, script_text(script, named), list, limits, false);

	ssh_begin(session, &run->command);
	return run;
}

void
remote_run_in_turn(SshSession *session, const RemoteCall *calls, int ncalls,
				   const RemoteLimits *limits, RemoteReply *reply)
{
	StringInfoData text;

	initStringInfo(&text);
	for (int i = 0; i < ncalls; i++)
	{
		/* A subshell each: a script ends by "exit". */
		appendStringInfoString(&text, "(\nset --");
		put_words(&text, calls[i].list);
		appendStringInfo(&text, "\n%s\n) || exit\n",
						 script_text(calls[i].script, calls[i].named));
	}
	remote_end(session, prepare(calls[0].script->name, text.data, NULL, limits, false), reply);
}

void
remote_hold(SshSession *session, const RemoteScript *script,
			const RemoteArgument *named, const RemoteLimits *limits,
			RemoteReply *reply)
{
	remote_end(session, prepare(script->name, script_text(script, named), NULL, limits, true), reply);
}
