/*
 * ssh_hostkey.h
 *		Is the host that answers the one that it claims to be?
 */
#ifndef FOLLOW_PRIMARY_SSH_HOSTKEY_H
#define FOLLOW_PRIMARY_SSH_HOSTKEY_H

#include "ssh/ssh_types.h"

typedef struct KnownHosts KnownHosts;

/* What the known_hosts file ("" = the usual one) says of the session's host. */
extern KnownHosts *known_hosts_read(SshSession *session, const char *path);

/* Before the handshake: the order of host key types; known may be NULL. */
extern void host_key_prefer_known(SshSession *session, KnownHosts *known);

/* After it: raises 28000 unless the key that the host has shown is known. */
extern void host_key_check(SshSession *session, KnownHosts *known, bool accept_new);

#endif							/* FOLLOW_PRIMARY_SSH_HOSTKEY_H */
