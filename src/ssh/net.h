/*
 * net.h
 *		TCP connections that a worker can wait on without losing its latch.
 *
 * Used by ssh.c and pcp.c, and by the survey to ask whether a port answers.
 */
#ifndef FOLLOW_PRIMARY_NET_H
#define FOLLOW_PRIMARY_NET_H

#include <netdb.h>

#include "utils/timestamp.h"

/* Why net_try_connect() gave no socket. */
typedef enum NetFailure
{
	NET_OK,
	NET_UNKNOWN_HOST,			/* the name does not resolve */
	NET_REFUSED,				/* the host answers, the port does not */
	NET_UNREACHABLE,			/* no route, host down, or another error */
	NET_TIMED_OUT				/* no answer before the deadline */
} NetFailure;

/*
 * Connects to host:port, trying each address in turn, IPv4 and IPv6, until
 * the absolute deadline.  The socket is non-blocking, close-on-exec, with TCP
 * keepalive and TCP_NODELAY set.
 *
 * Returns the socket, for which the caller owns one external file descriptor
 * (give it back by net_close), or PGINVALID_SOCKET with *failure and *cause
 * set.  *cause is palloc'd in the current context: the reason as a phrase.
 * Raises ERROR on a cancel request, and when no file descriptor is left; it
 * leaks nothing then.
 */
extern pgsocket net_try_connect(const char *host, int port,
								TimestampTz deadline,
								NetFailure *failure, char **cause);

/*
 * Can a connection be made there?  It is closed at once.  NET_OK, or why not; raises
 * what net_try_connect() raises.
 */
extern NetFailure net_probe(const char *host, int port, TimestampTz deadline);

/*
 * As getaddrinfo(), for TCP; EAI_INPROGRESS when the deadline has passed.  The
 * caller frees the addresses by freeaddrinfo().  Raises ERROR on a cancel request.
 */
extern int	net_resolve(const char *host, int port, TimestampTz deadline,
						struct addrinfo **addresses);

/* Do two addresses agree, whatever their ports? Either may be NULL, which agrees with none. */
extern bool net_is_same_address(const struct sockaddr *one, const struct sockaddr *other);

/* Is an address in both lists? Either may be NULL, the empty one. */
extern bool net_share_address(const struct addrinfo *ones, const struct addrinfo *others);

typedef enum SameHost
{
	HOST_OTHER,
	HOST_SAME,
	HOST_UNKNOWN				/* a name could not be looked up in time */
} SameHost;

/*
 * Do two names lead to one host, as far as it is seen from here?  Those that are not
 * equal are looked up.  Raises ERROR on a cancel request.
 */
extern SameHost net_compare_hosts(const char *one, const char *other, TimestampTz deadline);

/* Closes the socket and gives its file descriptor back. Never raises. */
extern void net_close(pgsocket sock);

/*
 * Waits until the socket is ready for one of the WL_SOCKET_* events, the
 * latch is set, or the deadline passes; checks for interrupts.  Returns false
 * when the deadline has passed; DT_NOEND is none.  max_wait_ms > 0 bounds this
 * one wait, so that the caller can look after other things in between.
 */
extern bool net_wait(pgsocket sock, int events, TimestampTz deadline,
					 long max_wait_ms);

/* Waits so long, or until the latch is set; checks for interrupts. */
extern void net_pause(long wait_ms);

#endif							/* FOLLOW_PRIMARY_NET_H */
