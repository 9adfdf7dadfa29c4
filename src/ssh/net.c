/*
 * net.c
 *		TCP connections that a worker can wait on without losing its latch.
 *
 * Nothing here blocks: a connection is made non-blocking, and every wait is for
 * the socket, the latch and an absolute deadline together, so that a cancel
 * request is seen at once.  A name is looked up by getaddrinfo_a(3), which has
 * a thread of libc's own do it; no code of ours or PostgreSQL's runs there.
 *
 * A socket costs one external file descriptor in fd.c's account, taken before
 * socket() and given back by net_close(), also on ERROR.
 *
 * A peer that vanishes without a word is found by the kernel: keepalive probes
 * when nothing is under way, TCP_USER_TIMEOUT when something is.
 */
#include "postgres.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "ssh/net.h"

/* A peer that is gone is noticed within half a minute. */
#define NET_KEEPALIVE_IDLE_S		10
#define NET_KEEPALIVE_INTERVAL_S	10
#define NET_KEEPALIVE_PROBES		2
#define NET_USER_TIMEOUT_MS			30000

/* A wait without a deadline still wakes up now and then. */
#define NET_MAX_WAIT_MS				60000

/* None of these is worth failing for. */
static void
net_set_options(pgsocket sock)
{
	int			on = 1;

	(void) setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	(void) setsockopt(sock, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
#ifdef TCP_KEEPIDLE
	{
		int			idle = NET_KEEPALIVE_IDLE_S;

		(void) setsockopt(sock, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
	}
#endif
#ifdef TCP_KEEPINTVL
	{
		int			interval = NET_KEEPALIVE_INTERVAL_S;

		(void) setsockopt(sock, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
	}
#endif
#ifdef TCP_KEEPCNT
	{
		int			probes = NET_KEEPALIVE_PROBES;

		(void) setsockopt(sock, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
	}
#endif
#ifdef TCP_USER_TIMEOUT
	{
		unsigned int timeout = NET_USER_TIMEOUT_MS;

		(void) setsockopt(sock, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, sizeof(timeout));
	}
#endif
}

/* Returns 0, EINPROGRESS, or the errno that ended it. */
static int
net_start_connect(pgsocket sock, const struct addrinfo *address)
{
	if (!pg_set_noblock(sock) || fcntl(sock, F_SETFD, FD_CLOEXEC) < 0)
		return errno;
	net_set_options(sock);

	if (connect(sock, address->ai_addr, address->ai_addrlen) == 0)
		return 0;

	/* An interrupted connect() goes on in the background (POSIX). */
	return errno == EINTR || errno == EWOULDBLOCK ? EINPROGRESS : errno;
}

/* Returns 0 when connected, or the errno that ended it. */
static int
net_finish_connect(pgsocket sock, TimestampTz deadline)
{
	for (;;)
	{
		bool		in_time = net_wait(sock, WL_SOCKET_CONNECTED, deadline, 0);
		struct pollfd ready = {.fd = sock,.events = POLLOUT};
		int			error;
		socklen_t	length = sizeof(error);

		/* The latch may have ended the wait: ask the socket itself. */
		if (poll(&ready, 1, 0) > 0)
		{
			if (getsockopt(sock, SOL_SOCKET, SO_ERROR, &error, &length) < 0)
				return errno;
			return error;
		}
		if (!in_time)
			return ETIMEDOUT;
	}
}

static NetFailure
net_classify(int error)
{
	switch (error)
	{
		case 0:
			return NET_OK;
		case ECONNREFUSED:
			return NET_REFUSED;
		case ETIMEDOUT:
			return NET_TIMED_OUT;
		default:
			return NET_UNREACHABLE;
	}
}

/* Connects to one address; *error is an errno, 0 for our own deadline. */
static pgsocket
net_connect_address(const struct addrinfo *address, TimestampTz deadline,
					NetFailure *failure, int *error)
{
	volatile pgsocket sock;

	if (!AcquireExternalFD())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("could not open a socket: too many open files"),
				 errhint("Raise max_files_per_process and the system's limit on open files.")));

	sock = socket(address->ai_family, address->ai_socktype,
				  address->ai_protocol);
	if (sock == PGINVALID_SOCKET)
	{
		*error = errno;
		*failure = NET_UNREACHABLE;
		ReleaseExternalFD();
		return PGINVALID_SOCKET;
	}

	PG_TRY();
	{
		*error = net_start_connect(sock, address);
		if (*error == EINPROGRESS)
			*error = net_finish_connect(sock, deadline);
	}
	PG_CATCH();
	{
		net_close(sock);
		PG_RE_THROW();
	}
	PG_END_TRY();

	*failure = net_classify(*error);
	if (*failure == NET_OK)
		return sock;
	net_close(sock);
	return PGINVALID_SOCKET;
}

/* Rounded up, so that a wait does not end just before its deadline. */
static long
net_milliseconds_until(TimestampTz deadline)
{
	TimestampTz now;
	int64		milliseconds;

	if (TIMESTAMP_IS_NOEND(deadline))
		return NET_MAX_WAIT_MS;
	now = GetCurrentTimestamp();
	if (deadline <= now)
		return 0;
	milliseconds = (deadline - now + 999) / 1000;
	return (long) Min(milliseconds, NET_MAX_WAIT_MS);
}

/* One address that swallows packets must not use up the others' time. */
static TimestampTz
net_share_of(TimestampTz deadline, int addresses_left)
{
	if (TIMESTAMP_IS_NOEND(deadline) || addresses_left <= 1)
		return deadline;
	return TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
									   net_milliseconds_until(deadline) / addresses_left);
}

/* Appends why an address failed, naming it unless the host is an address. */
static void
net_describe(StringInfo causes, const char *host,
			 const struct addrinfo *address, int error)
{
	char		name[NI_MAXHOST];

	if (getnameinfo(address->ai_addr, address->ai_addrlen, name, sizeof(name),
					NULL, 0, NI_NUMERICHOST) != 0)
		strlcpy(name, "?", sizeof(name));

	if (causes->len > 0)
		appendStringInfoString(causes, "; ");
	if (strcmp(name, host) != 0)
		appendStringInfo(causes, "%s: ", name);
	appendStringInfoString(causes, strerror(error));
}

pgsocket
net_try_connect(const char *host, int port, TimestampTz deadline,
				NetFailure *failure, char **cause)
{
	struct addrinfo *addresses = NULL;
	volatile pgsocket sock = PGINVALID_SOCKET;
	StringInfoData causes;
	int			rc;

	rc = net_resolve(host, port, deadline, &addresses);
	if (rc == EAI_INPROGRESS)
	{
		*failure = NET_TIMED_OUT;
		*cause = pstrdup("could not resolve the host name: no answer in time");
		return PGINVALID_SOCKET;
	}
	if (rc != 0)
	{
		*failure = NET_UNKNOWN_HOST;
		*cause = psprintf("could not resolve the host name: %s",
						  rc == EAI_SYSTEM ? strerror(errno) : gai_strerror(rc));
		return PGINVALID_SOCKET;
	}

	PG_TRY();
	{
		const struct addrinfo *address;
		int			addresses_left = 0;

		initStringInfo(&causes);
		for (address = addresses; address != NULL; address = address->ai_next)
			addresses_left++;

		/*
		 * Of several failures the least certain one is reported: a host that
		 * timed out on one address is not known to be down because another
		 * of its addresses has no route.
		 */
		*failure = NET_OK;
		for (address = addresses; address != NULL; address = address->ai_next)
		{
			NetFailure	address_failure;
			int			error;

			sock = net_connect_address(address,
									   net_share_of(deadline, addresses_left--),
									   &address_failure, &error);
			if (sock != PGINVALID_SOCKET)
			{
				*failure = NET_OK;
				break;
			}
			net_describe(&causes, host, address, error);
			if (*failure == NET_OK || address_failure == NET_TIMED_OUT ||
				(address_failure == NET_REFUSED && *failure != NET_TIMED_OUT))
				*failure = address_failure;
		}
	}
	PG_CATCH();
	{
		freeaddrinfo(addresses);
		PG_RE_THROW();
	}
	PG_END_TRY();

	freeaddrinfo(addresses);
	if (sock == PGINVALID_SOCKET)
		*cause = causes.data;
	else
		pfree(causes.data);
	return sock;
}

NetFailure
net_probe(const char *host, int port, TimestampTz deadline)
{
	NetFailure	failure;
	char	   *cause;
	pgsocket	sock = net_try_connect(host, port, deadline, &failure, &cause);

	if (sock == PGINVALID_SOCKET)
		return failure;
	net_close(sock);
	return NET_OK;
}

/* A lookup under way. libc's thread may outlive who began it: it is malloc'd. */
typedef struct NetLookup
{
	struct gaicb request;
	struct addrinfo hints;
	char		host[NI_MAXHOST];
	char		service[16];
	struct NetLookup *next;
} NetLookup;

/* Those that were given up and go on. */
static NetLookup *given_up = NULL;

/* One that goes on keeps its memory until a later call. */
static void
net_end_lookup(NetLookup *lookup)
{
	if (gai_error(&lookup->request) == EAI_INPROGRESS &&
		gai_cancel(&lookup->request) != EAI_CANCELED)
	{
		lookup->next = given_up;
		given_up = lookup;
		return;
	}
	if (lookup->request.ar_result != NULL)
		freeaddrinfo(lookup->request.ar_result);
	free(lookup);
}

static void
net_end_given_up(void)
{
	NetLookup  *lookups = given_up;

	given_up = NULL;
	while (lookups != NULL)
	{
		NetLookup  *lookup = lookups;

		lookups = lookup->next;
		net_end_lookup(lookup);
	}
}

int
net_resolve(const char *host, int port, TimestampTz deadline,
			struct addrinfo **addresses)
{
	NetLookup  *volatile lookup = calloc(1, sizeof(NetLookup));
	struct gaicb *request;
	sigset_t	all_signals;
	sigset_t	mask;
	volatile long pause_ms = 1;
	volatile int rc;

	net_end_given_up();
	if (lookup == NULL)
		return EAI_MEMORY;
	strlcpy(lookup->host, host, sizeof(lookup->host));
	snprintf(lookup->service, sizeof(lookup->service), "%d", port);
	lookup->hints.ai_family = AF_UNSPEC;
	lookup->hints.ai_socktype = SOCK_STREAM;

	/* An address needs no looking up. */
	lookup->hints.ai_flags = AI_NUMERICSERV | AI_NUMERICHOST;
	rc = getaddrinfo(lookup->host, lookup->service, &lookup->hints, addresses);
	if (rc != EAI_NONAME)
	{
		free(lookup);
		return rc;
	}

	lookup->hints.ai_flags = AI_NUMERICSERV;
	lookup->request.ar_name = lookup->host;
	lookup->request.ar_service = lookup->service;
	lookup->request.ar_request = &lookup->hints;
	request = &lookup->request;

	/* The thread inherits the mask: signals are for this one. */
	sigfillset(&all_signals);
	(void) pthread_sigmask(SIG_SETMASK, &all_signals, &mask);
	rc = getaddrinfo_a(GAI_NOWAIT, &request, 1, NULL);
	(void) pthread_sigmask(SIG_SETMASK, &mask, NULL);
	if (rc != 0)
	{
		free(lookup);
		return rc;
	}

	PG_TRY();
	{
		/* libc's ways to be told do not go with the latch. */
		while ((rc = gai_error(&lookup->request)) == EAI_INPROGRESS &&
			   net_wait(PGINVALID_SOCKET, 0, deadline, pause_ms))
			pause_ms = Min(2 * pause_ms, 50);
	}
	PG_CATCH();
	{
		net_end_lookup(lookup);
		PG_RE_THROW();
	}
	PG_END_TRY();

	if (rc == 0)
	{
		*addresses = lookup->request.ar_result;
		lookup->request.ar_result = NULL;
	}
	net_end_lookup(lookup);
	return rc;
}

bool
net_is_same_address(const struct sockaddr *one, const struct sockaddr *other)
{
	if (one == NULL || other == NULL || one->sa_family != other->sa_family)
		return false;
	if (one->sa_family == AF_INET)
		return ((const struct sockaddr_in *) one)->sin_addr.s_addr ==
			((const struct sockaddr_in *) other)->sin_addr.s_addr;
	return one->sa_family == AF_INET6 &&
		memcmp(&((const struct sockaddr_in6 *) one)->sin6_addr,
			   &((const struct sockaddr_in6 *) other)->sin6_addr, sizeof(struct in6_addr)) == 0;
}

bool
net_share_address(const struct addrinfo *ones, const struct addrinfo *others)
{
	for (const struct addrinfo *a = ones; a; a = a->ai_next)
		for (const struct addrinfo *b = others; b; b = b->ai_next)
			if (net_is_same_address(a->ai_addr, b->ai_addr))
				return true;
	return false;
}

SameHost
net_compare_hosts(const char *one, const char *other, TimestampTz deadline)
{
	struct addrinfo *ones = NULL;
	struct addrinfo *others = NULL;
	volatile int rc = 0;
	SameHost	result;

	if (pg_strcasecmp(one, other) == 0)
		return HOST_SAME;
	if (net_resolve(one, 0, deadline, &ones) != 0)
		return HOST_UNKNOWN;
	PG_TRY();
	{
		rc = net_resolve(other, 0, deadline, &others);
	}
	PG_CATCH();
	{
		freeaddrinfo(ones);
		PG_RE_THROW();
	}
	PG_END_TRY();
	result = rc != 0 ? HOST_UNKNOWN : net_share_address(ones, others) ? HOST_SAME : HOST_OTHER;
	freeaddrinfo(ones);
	if (others)
		freeaddrinfo(others);
	return result;
}

void
net_close(pgsocket sock)
{
	if (sock == PGINVALID_SOCKET)
		return;
	closesocket(sock);
	ReleaseExternalFD();
}

bool
net_wait(pgsocket sock, int events, TimestampTz deadline, long max_wait_ms)
{
	long		wait_ms = net_milliseconds_until(deadline);
	int			rc;

	CHECK_FOR_INTERRUPTS();

	if (wait_ms <= 0)
		return false;
	if (max_wait_ms > 0)
		wait_ms = Min(wait_ms, max_wait_ms);

	rc = WaitLatchOrSocket(MyLatch,
						   WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH | events,
						   sock, wait_ms, PG_WAIT_EXTENSION);

	/* Before PostgreSQL 12 the exit is ours to do. */
	if (rc & WL_POSTMASTER_DEATH)
		proc_exit(1);

	/*
	 * Dialogues of small messages meet the peer's Nagle algorithm, which holds
	 * back a message until the last one is acknowledged: acknowledge at once
	 * rather than after 40 ms.  Linux forgets the option, so it is set anew.
	 */
#ifdef TCP_QUICKACK
	if (rc & WL_SOCKET_READABLE)
	{
		int			on = 1;

		(void) setsockopt(sock, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof(on));
	}
#endif

	if (rc & WL_LATCH_SET)
	{
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	return (rc & (WL_LATCH_SET | events)) != 0 ||
		net_milliseconds_until(deadline) > 0;
}

void
net_pause(long wait_ms)
{
	(void) net_wait(PGINVALID_SOCKET, 0, DT_NOEND, wait_ms);
}
