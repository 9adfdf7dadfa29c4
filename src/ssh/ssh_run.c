/*
 * ssh_run.c
 *		What a shell on the other side is told to run.
 *
 * To start a shell for every script would take longer than most scripts do, so
 * one shell, on one channel, runs them in turn.  Where a script ends is told by
 * a mark that comes on both of its streams.  A script that does not come to it
 * takes its shell with it, and the next one gets a new shell.
 *
 * One script can be held: it goes on, in a shell of its own, while others run.
 * It has nothing to say but newlines, by which the other side finds out whether
 * we are still there: whatever else comes from it, EOF included, means that it
 * has ended.
 *
 * libssh2 keeps a single half-sent packet per session.  While it has one, only
 * the call that began it may be made (any other fails with BAD_USE); see
 * run_turn().
 *
 * An exit status, libssh2's word for how a shell ended, is 0 also where nobody
 * knows: only the mark tells that a script came to its end.
 */
#include "postgres.h"

#include <poll.h>
#include <sys/socket.h>

#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/memutils.h"

#include "compat.h"
#include "ssh/net.h"
#include "ssh/ssh_run.h"
#include "ssh/ssh_session.h"

#define SSH_MAX_LINE			8192	/* of stderr, the rest is cut off */
#define SSH_SILENCE_MS			60000	/* keepalives unanswered for so long */
#define SSH_OPEN_CHANNEL_MS		30000
#define SSH_CLOSE_MS			5000	/* after the remote end has closed */
#define SSH_ABANDON_MS			2000
#define SSH_RELEASE_MS			1000
#define SSH_BEGIN_MS			2000
#define SSH_OVER				"exit\n"	/* to the held script: no other runs; or
										 * to its shell, if it has ended */
#define SSH_TICK_MS				1000

#define SSH_READ_SIZE			32768
#define SSH_READS_PER_TURN		32

/*
 * The calls a turn of ssh_run() consists of, in order.  The held script's come
 * first: when it has ended, nothing is sent.
 */
typedef enum RunStep
{
	RUN_READ_HELD,
	RUN_WRITE,
	RUN_READ_STDOUT,
	RUN_READ_STDERR,
	RUN_STEPS
} RunStep;

/* A running command. */
typedef struct SshRun
{
	SshSession *session;
	LIBSSH2_CHANNEL *channel;
	const SshCommand *command;
	SshResult  *result;
	MemoryContext context;		/* the caller's, which callbacks may leave */

	bool		over;			/* result->end is set */
	bool		closed;			/* the channel, at both ends */
	int			searched;		/* of stdout, for the mark */
	const char *input;			/* the command's, or the answer to its question */
	size_t		input_len;
	size_t		input_sent;
	bool		asked;
	bool		input_refused;	/* the command has closed its stdin */
	StringInfoData line;		/* stderr since the last line end */

	RunStep		first_step;		/* of the next turn */
	bool		half_sent;		/* ... which has a packet half sent */
	bool		moved;			/* this turn transferred something */
	bool		arrived;		/* this turn something arrived */

	TimestampTz deadline;
	TimestampTz next_tick;
	TimestampTz last_progress;
	TimestampTz unanswered_since;	/* of the first keepalive that nothing
									 * was heard after; 0 = none */
} SshRun;

bool
ssh_is_alive(const SshSession *session)
{
	char		byte;
	ssize_t		rc;

	if (session == NULL || session->handle == NULL || session->lost)
		return false;
	rc = recv(session->sock, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
	return rc > 0 ||
		(rc < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR));
}

static bool
run_is_half_sent(SshRun *run)
{
	return (libssh2_session_block_directions(run->session->handle) &
			LIBSSH2_SESSION_BLOCK_OUTBOUND) != 0;
}

/*
 * Closes and frees the channel, whatever its state.  Never raises.  A channel
 * that cannot be closed in order takes the connection with it: the remote end
 * must see EOF in any case, since that is what ends the command there.
 */
static void
run_abandon(SshRun *run)
{
	SshSession *session = run->session;
	TimestampTz deadline = ssh_after(SSH_ABANDON_MS);
	int			rc = 0;

	if (session->handle == NULL || run->result->end == SSH_END_HELD ||
		(run->result->end == SSH_END_DONE && run->channel == NULL))
		return;
	session->unfinished = true;
	if (run->channel == NULL)
		session->lost = true;
	else if (!session->lost && !run->closed)
	{
		do
			rc = libssh2_channel_send_eof(run->channel);
		while (ssh_wait_quietly(session, rc, deadline));

		do
			rc = libssh2_channel_close(run->channel);
		while (ssh_wait_quietly(session, rc, deadline));
		if (rc != 0)
			session->lost = true;
	}

	if (session->lost)
		(void) shutdown(session->sock, SHUT_RDWR);
	if (run->channel != NULL)
	{
		do
			rc = libssh2_channel_free(run->channel);
		while (ssh_wait_quietly(session, rc, deadline));
		run->channel = NULL;
		if (rc != 0)
			session->lost = true;
	}
}

void
ssh_hurry_when_cancelled(SshSession *session)
{
	session->may_hurry = true;
}

/* Moves the deadline nearer where there is a hurry. */
static void
run_hurry(SshRun *run)
{
	SshSession *session = run->session;

	if (!session->may_hurry || !QueryCancelPending)
		return;
	if (session->hurry_deadline == 0)
		session->hurry_deadline = ssh_after(SSH_HURRY_MS);
	run->deadline = Min(run->deadline, session->hurry_deadline);
}

/*
 * Is there a shell that waits for work, and lives, or has begun this very work?  What
 * processes that a script left behind may have said since is nobody's.
 */
static bool
run_take_shell(SshRun *run)
{
	SshSession *session = run->session;
	char		buffer[SSH_READ_SIZE];
	ssize_t		rc;

	if (session->shell == NULL)
		return false;
	run->channel = session->shell;
	session->shell = NULL;
	if (session->begun)
	{
		bool		is_this_one = session->begun == run->command;

		session->begun = NULL;
		if (is_this_one)
			run->input_sent = run->input_len;
		else
			run_abandon(run);
		return is_this_one;
	}
	for (int stream = 0; stream <= SSH_EXTENDED_DATA_STDERR; stream++)
	{
		do
			rc = libssh2_channel_read_ex(run->channel, stream, buffer, sizeof(buffer));
		while (rc > 0 || (rc == LIBSSH2_ERROR_EAGAIN && run_is_half_sent(run) &&
						  ssh_wait(session, (int) rc, run->deadline)));
		if (rc != LIBSSH2_ERROR_EAGAIN)
			break;
	}
	if (rc == LIBSSH2_ERROR_EAGAIN && libssh2_channel_eof(run->channel) == 0)
		return true;
	run_abandon(run);
	return false;
}

/* Takes the shell that waits for work, else opens a channel and starts one. */
static void
run_open(SshRun *run)
{
	SshSession *session = run->session;
	TimestampTz deadline = Min(run->deadline, ssh_after(SSH_OPEN_CHANNEL_MS));
	const char *doing = "open a channel to";
	int			rc = LIBSSH2_ERROR_SOCKET_DISCONNECT;

	if (run->command->hold_at == NULL && ssh_is_alive(session) && run_take_shell(run))
		return;
	if (ssh_is_alive(session))
	{
		do
		{
			run->channel = libssh2_channel_open_session(session->handle);
			rc = run->channel ? 0 : libssh2_session_last_errno(session->handle);
		} while (ssh_wait(session, rc, deadline));
	}
	if (rc == 0)
	{
		if (run->command->hold_at == NULL)
		{
			session->cpu_of_others += session->cpu_of_shell;
			session->cpu_of_shell = 0;
		}
		doing = "start a shell on";
		do
			rc = libssh2_channel_exec(run->channel, run->command->shell);
		while (ssh_wait(session, rc, deadline));
	}
	if (rc != 0)
	{
		char	   *detail = rc == LIBSSH2_ERROR_EAGAIN ? "No answer in time" :
		session->handle == NULL || session->lost ? "The connection is lost" :
		ssh_last_error(session);

		/* Only a refusal leaves the session in order. */
		if (rc != LIBSSH2_ERROR_CHANNEL_FAILURE &&
			rc != LIBSSH2_ERROR_CHANNEL_REQUEST_DENIED)
			session->lost = true;
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("could not %s SSH server \"%s\" port %d",
						doing, session->host, session->port),
				 errdetail("%s.", detail),
				 rc == LIBSSH2_ERROR_CHANNEL_FAILURE ?
				 errhint("Up to three sessions at once are needed on a connection: see MaxSessions in its sshd_config.") : 0));
	}
}

static void
run_end(SshRun *run, SshEnd end, char *cause)
{
	StringInfo	err = &run->result->err;

	run->over = true;
	run->result->end = end;
	run->result->cause = cause;

	/* Cut the tail to size, at a line's start if it has one. */
	if (err->len > SSH_STDERR_TAIL)
	{
		char	   *start = err->data + err->len - SSH_STDERR_TAIL;
		char	   *newline = memchr(start, '\n', SSH_STDERR_TAIL - 1);

		if (newline != NULL)
			start = newline + 1;
		err->len -= start - err->data;
		memmove(err->data, start, err->len + 1);
	}
}

static void
run_lose(SshRun *run, int rc)
{
	run->session->lost = true;
	run_end(run, SSH_END_LOST,
			rc == LIBSSH2_ERROR_EAGAIN ?
			pstrdup("the SSH server did not close the channel in time") :
			rc == LIBSSH2_ERROR_SOCKET_RECV || rc == LIBSSH2_ERROR_SOCKET_SEND ||
			rc == LIBSSH2_ERROR_SOCKET_DISCONNECT ?
			psprintf("the SSH connection was closed or cut from outside (libssh2 error %d)", rc) :
			psprintf("the SSH connection broke: %s", ssh_last_error(run->session)));
}

/* libssh2 tells of EOF once all that came before it has been read. */
static void
run_read_held(SshRun *run)
{
	LIBSSH2_CHANNEL *held = run->session->held;
	bool		has_ended = false;
	char		buffer[SSH_READ_SIZE];

	if (held == NULL)
		return;
	for (int stream = 0; stream <= SSH_EXTENDED_DATA_STDERR && !has_ended; stream++)
	{
		ssize_t		rc = 1;

		for (int reads = 0; rc > 0 && reads < SSH_READS_PER_TURN && !has_ended; reads++)
		{
			rc = libssh2_channel_read_ex(held, stream, buffer, sizeof(buffer));
			for (ssize_t i = 0; i < rc && stream == 0; i++)
				has_ended = has_ended || buffer[i] != '\n';
		}
		if (rc == LIBSSH2_ERROR_EAGAIN && run_is_half_sent(run))
		{
			run->half_sent = true;
			return;
		}
		if (rc < 0 && rc != LIBSSH2_ERROR_EAGAIN)
		{
			run_lose(run, (int) rc);
			return;
		}
	}
	if (has_ended || libssh2_channel_eof(held) != 0)
		run_end(run, SSH_END_UNHELD,
				pstrdup("the command that has to run beside it has ended"));
}

static void
run_write(SshRun *run)
{
	while (run->input_sent < run->input_len && !run->input_refused)
	{
		ssize_t		rc = libssh2_channel_write(run->channel,
											   run->input + run->input_sent,
											   run->input_len - run->input_sent);

		if (rc > 0)
		{
			run->input_sent += rc;
			run->moved = true;
		}
		else if (rc == LIBSSH2_ERROR_EAGAIN)
		{
			run->half_sent = run_is_half_sent(run);
			return;
		}
		else if (rc == 0)
			return;
		else if (rc == LIBSSH2_ERROR_CHANNEL_CLOSED ||
				 rc == LIBSSH2_ERROR_CHANNEL_EOF_SENT)
			run->input_refused = true;
		else
		{
			run_lose(run, (int) rc);
			return;
		}
	}
}

static void
run_end_line(SshRun *run)
{
	if (run->line.len == 0)
		return;
	run->command->on_stderr_line(run->command->arg, run->line.data);
	MemoryContextSwitchTo(run->context);
	resetStringInfo(&run->line);
}

/* Keeps the tail, and hands out the lines. */
static void
run_take_stderr(SshRun *run, const char *data, size_t length)
{
	StringInfo	err = &run->result->err;

	/* An empty line says no more than that the command goes on. */
	while (length > 0 && data[0] == '\n' && err->len > 0 && err->data[err->len - 1] == '\n')
	{
		data++;
		length--;
	}
	appendBinaryStringInfo(err, data, (int) length);
	if (err->len > 4 * SSH_STDERR_TAIL)
	{
		memmove(err->data, err->data + err->len - SSH_STDERR_TAIL, SSH_STDERR_TAIL + 1);
		err->len = SSH_STDERR_TAIL;
	}

	if (run->command->on_stderr_line == NULL)
		return;
	for (size_t i = 0; i < length; i++)
	{
		if (data[i] == '\n' || data[i] == '\r')
			run_end_line(run);
		else if (run->line.len < SSH_MAX_LINE)
			appendStringInfoChar(&run->line, data[i]);
	}
}

static void
run_read(SshRun *run, RunStep step)
{
	int			stream = step == RUN_READ_STDERR ? SSH_EXTENDED_DATA_STDERR : 0;
	char		buffer[SSH_READ_SIZE];

	for (int reads = 0; reads < SSH_READS_PER_TURN && !run->over; reads++)
	{
		ssize_t		rc = libssh2_channel_read_ex(run->channel, stream,
												 buffer, sizeof(buffer));

		if (rc == LIBSSH2_ERROR_EAGAIN)
		{
			run->half_sent = run_is_half_sent(run);
			return;
		}
		if (rc == 0)
			return;
		if (rc < 0)
		{
			run_lose(run, (int) rc);
			return;
		}

		run->moved = run->arrived = true;
		if (step == RUN_READ_STDERR)
			run_take_stderr(run, buffer, rc);
		else if (run->result->out.len + rc > SSH_MAX_OUTPUT)
		{
			run->session->lost = true;
			run_end(run, SSH_END_LOST,
					psprintf("the command wrote more than %d MB to its standard output",
							 SSH_MAX_OUTPUT / (1024 * 1024)));
		}
		else
			appendBinaryStringInfo(&run->result->out, buffer, (int) rc);
	}
}

/*
 * Transfers what can be transferred without waiting.  A step that leaves a
 * packet half sent ends the turn, and begins the next one.
 */
static void
run_turn(SshRun *run)
{
	RunStep		step = run->first_step;

	run->first_step = RUN_READ_HELD;
	run->half_sent = false;
	for (; step < RUN_STEPS && !run->over; step++)
	{
		if (step == RUN_READ_HELD)
			run_read_held(run);
		else if (step == RUN_WRITE)
			run_write(run);
		else
			run_read(run, step);

		if (run->half_sent)
		{
			run->first_step = step;
			return;
		}
	}
}

/* The packets of all channels are taken in, whichever is read. */
static bool
run_has_news_of_held(SshRun *run)
{
	LIBSSH2_CHANNEL *held = run->session->held;
	unsigned long unread = 0;

	if (held == NULL || run->half_sent)
		return false;
	(void) libssh2_channel_window_read_ex(held, &unread, NULL);
	return unread > 0 || libssh2_channel_eof(held) != 0;
}

/* Is the line that ends the script there, on both streams? */
static bool
run_has_ended(SshRun *run)
{
	const char *mark = run->command->end_mark;
	size_t		length = strlen(mark);
	const StringInfo out = &run->result->out;
	const StringInfo err = &run->result->err;
	int			from = Max(0, run->searched - (int) length);
	char	   *line = memmem(out->data + from, out->len - from, mark, length);

	run->searched = line ? line - out->data : out->len;
	return line != NULL &&
		memchr(line + length, '\n', out->data + out->len - line - length) != NULL &&
		memmem(err->data, err->len, mark, length) != NULL;
}

/* Has the script come to its end, asked, or said that it is to be held? */
static void
run_check_ended(SshRun *run)
{
	const SshCommand *command = run->command;
	SshSession *session = run->session;

	if (run->input_sent < run->input_len)
		return;
	if (command->ask_at && !run->asked && strstr(run->result->out.data, command->ask_at) != NULL)
	{
		run->asked = true;
		run->input = command->on_ask(command->arg);
		MemoryContextSwitchTo(run->context);
		run->input_len = strlen(run->input);
		run->input_sent = 0;
		run->moved = true;		/* the next turn sends it */
	}
	else if (run_has_ended(run))
	{
		if (run->command->on_stderr_line != NULL)
			run_end_line(run);
		if (command->hold_at == NULL)
		{
			session->shell = run->channel;
			run->channel = NULL;
		}
		run_end(run, SSH_END_DONE, NULL);
	}
	else if (command->hold_at && strstr(run->result->out.data, command->hold_at) != NULL)
	{
		Assert(session->held == NULL);
		session->held = run->channel;
		run->channel = NULL;
		run_end(run, SSH_END_HELD, NULL);
	}
}

static void
run_read_status(SshRun *run)
{
	SshResult  *result = run->result;
	char	   *signal = NULL;

	if (run->command->on_stderr_line != NULL)
		run_end_line(run);

	(void) libssh2_channel_get_exit_signal(run->channel, &signal, NULL, NULL,
										   NULL, NULL, NULL);
	if (signal != NULL)
	{
		result->signal = pstrdup(signal);
		libssh2_free(run->session->handle, signal);
		run_end(run, SSH_END_SIGNALLED,
				psprintf("the command was ended by signal %s", result->signal));
	}
	else
	{
		result->exit_status = libssh2_channel_get_exit_status(run->channel);
		run_end(run, SSH_END_EXITED, NULL);
	}
}

/*
 * After the remote end's EOF, waits for it to close the channel, which is when
 * it has sent the exit status.  Our own EOF is not sent before: the command
 * may run on without its output, and would take it for the end of its job.
 */
static void
run_check_closed(SshRun *run)
{
	int			rc = libssh2_channel_eof(run->channel);
	TimestampTz deadline;

	if (rc == 1)
		rc = libssh2_channel_wait_closed(run->channel);
	else if (rc == 0)
		return;

	if (rc == LIBSSH2_ERROR_EAGAIN)
		return;
	if (rc == 0)
	{
		deadline = ssh_after(SSH_CLOSE_MS);
		do
			rc = libssh2_channel_close(run->channel);
		while (ssh_wait(run->session, rc, deadline));
	}
	if (rc == 0)
	{
		run->closed = true;
		run_read_status(run);
	}
	else
		run_lose(run, rc);
}

/*
 * libssh2 does not say when a keepalive is answered, so anything that comes in
 * counts; it has to be seen before a turn reads it.  The message is only sent
 * when the socket takes it whole: libssh2 could not take it up again.
 */
static void
run_keep_alive(SshRun *run)
{
	SshSession *session = run->session;
	struct pollfd ready = {.fd = session->sock,.events = POLLIN | POLLOUT};
	TimestampTz now = GetCurrentTimestamp();

	if (poll(&ready, 1, 0) < 0)
		return;

	if (run->arrived || (ready.revents & POLLIN))
		run->unanswered_since = 0;
	else if (run->unanswered_since != 0 &&
			 TimestampDifferenceExceeds(run->unanswered_since, now, SSH_SILENCE_MS))
	{
		session->lost = true;
		run_end(run, SSH_END_LOST,
				psprintf("the SSH server has answered nothing for %d s",
						 SSH_SILENCE_MS / 1000));
		return;
	}

	if (!run->half_sent && (ready.revents & POLLOUT))
	{
		int			next = 0;
		int			rc = libssh2_keepalive_send(session->handle, &next);

		if (rc != 0)
			run_lose(run, rc);
		else if (next == SSH_KEEPALIVE_S && run->unanswered_since == 0)
			run->unanswered_since = now;
	}
}

static void
run_check_limits(SshRun *run)
{
	const SshCommand *command = run->command;
	TimestampTz now = GetCurrentTimestamp();

	run_hurry(run);
	if (run->arrived)
		run->last_progress = now;

	if (now >= run->next_tick)
	{
		if (command->on_tick != NULL)
		{
			if (command->on_tick(command->arg))
				run->last_progress = GetCurrentTimestamp();
			MemoryContextSwitchTo(run->context);
		}
		run->next_tick = ssh_after(SSH_TICK_MS);
		now = GetCurrentTimestamp();
	}

	if (now >= run->deadline)
		run_end(run, SSH_END_TIMED_OUT,
				psprintf("the command did not end within %d ms", command->timeout_ms));
	else if (command->progress_timeout_ms > 0 &&
			 TimestampDifferenceExceeds(run->last_progress, now,
										command->progress_timeout_ms))
		run_end(run, SSH_END_NO_PROGRESS,
				psprintf("the command made no progress for %d ms",
						 command->progress_timeout_ms));
}

/* Until the socket is ready, the next tick, or a limit. */
static void
run_sleep(SshRun *run)
{
	TimestampTz until = Min(run->deadline, run->next_tick);

	if (run->command->progress_timeout_ms > 0)
		until = Min(until, TimestampTzPlusMilliseconds(run->last_progress,
													   run->command->progress_timeout_ms + 1));
	(void) net_wait(run->session->sock,
					run->half_sent ? WL_SOCKET_WRITEABLE : WL_SOCKET_READABLE,
					until, SSH_TICK_MS);
}

static void
run_until_over(SshRun *run)
{
	TimestampTz now = GetCurrentTimestamp();

	run->last_progress = now;
	run->next_tick = now;

	while (!run->over)
	{
		CHECK_FOR_INTERRUPTS();

		run_keep_alive(run);
		run->moved = run->arrived = false;
		if (!run->over)
			run_turn(run);
		if (!run->over && !run->half_sent)
			run_check_ended(run);
		if (!run->over && !run->moved && !run->half_sent)
			run_check_closed(run);
		if (!run->over)
			run_check_limits(run);
		if (!run->over && !run->moved && !run_has_news_of_held(run))
			run_sleep(run);
	}
}

void
ssh_run(SshSession *session, const SshCommand *command, SshResult *result)
{
	SshRun	   *run = palloc0(sizeof(SshRun));

	memset(result, 0, sizeof(*result));
	result->end = SSH_END_LOST;
	result->exit_status = -1;
	initStringInfo(&result->out);
	initStringInfo(&result->err);

	run->session = session;
	run->command = command;
	run->input = command->input;
	run->input_len = command->input_len;
	run->result = result;
	run->context = CurrentMemoryContext;
	run->deadline = command->timeout_ms > 0 ? ssh_after(command->timeout_ms) : DT_NOEND;
	run_hurry(run);
	initStringInfo(&run->line);

	PG_TRY();
	{
		run_open(run);
		run_until_over(run);
	}
	PG_CATCH();
	{
		run_abandon(run);
		PG_RE_THROW();
	}
	PG_END_TRY();

	run_abandon(run);
	pfree(run->line.data);
	pfree(run);
}

void
ssh_begin(SshSession *session, const SshCommand *command)
{
	SshResult	result = {.end = SSH_END_LOST};
	SshRun		run = {
		.session = session,
		.command = command,
		.result = &result,
		.deadline = ssh_after(SSH_BEGIN_MS)
	};
	bool		waits;
	size_t		sent = 0;

	if (!ssh_is_alive(session) || session->begun)
		return;
	HOLD_INTERRUPTS();
	waits = run_take_shell(&run);
	RESUME_INTERRUPTS();
	if (!waits)
		return;
	session->shell = run.channel;
	while (sent < command->input_len && !session->lost)
	{
		ssize_t		rc;

		do
			rc = libssh2_channel_write(session->shell, command->input + sent, command->input_len - sent);
		while (ssh_wait_quietly(session, (int) rc, run.deadline));
		if (rc > 0)
			sent += rc;
		else
			session->lost = true;
	}
	session->begun = command;
}

void
ssh_note_cpu(SshSession *session, int64 milliseconds, bool held)
{
	if (held)
		session->cpu_of_others += milliseconds;
	else
		session->cpu_of_shell = milliseconds;
}

int64
ssh_cpu(const SshSession *session)
{
	return session->cpu_of_shell + session->cpu_of_others;
}

bool
ssh_is_holding(const SshSession *session)
{
	return session->held != NULL;
}

void
ssh_serve(SshSession *session)
{
	LIBSSH2_CHANNEL *channel;
	char		nothing;
	ssize_t		rc;

	if (session == NULL || session->handle == NULL || session->lost)
		return;
	channel = session->shell ? session->shell : session->held;
	if (channel == NULL)
		return;

	/* Reads what has come for any channel, answers it, and takes nothing out. */
	rc = libssh2_channel_read_ex(channel, 0, &nothing, 0);
	if (rc < 0 && rc != LIBSSH2_ERROR_EAGAIN)
		session->lost = true;
}

void
ssh_release(SshSession *session)
{
	TimestampTz deadline = ssh_after(SSH_RELEASE_MS);
	int			rc = 0;

	if (session->begun)
		session->unfinished = true;
	session->begun = NULL;

	/* A shell without work ends at EOF; nobody need wait for that. */
	if (session->shell != NULL && !session->lost)
	{
		do
			rc = libssh2_channel_send_eof(session->shell);
		while (ssh_wait_quietly(session, rc, deadline));
		if (rc != 0)
			session->lost = true;
	}
	session->shell = NULL;		/* freed with the session */
	if (session->held == NULL)
		return;
	if (!session->lost && !session->unfinished)
	{
		do
			rc = (int) libssh2_channel_write(session->held, SSH_OVER, strlen(SSH_OVER));
		while (ssh_wait_quietly(session, rc, deadline));
		if (rc < 0)
			session->lost = true;
	}
	if (!session->lost)
	{
		do
			rc = libssh2_channel_send_eof(session->held);
		while (ssh_wait_quietly(session, rc, deadline));

		/* What it does on its end is done when its own EOF is here. */
		if (rc == 0)
		{
			do
				rc = libssh2_channel_wait_eof(session->held);
			while (ssh_wait_quietly(session, rc, deadline));
		}
		if (rc != 0)
			session->lost = true;
	}
	if (session->lost)
		(void) shutdown(session->sock, SHUT_RDWR);
	do
		rc = libssh2_channel_free(session->held);
	while (ssh_wait_quietly(session, rc, deadline));
	session->held = NULL;
	if (rc != 0)
		session->lost = true;
}
