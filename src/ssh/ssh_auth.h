/*
 * ssh_auth.h
 *		Authentication by public key.
 */
#ifndef FOLLOW_PRIMARY_SSH_AUTH_H
#define FOLLOW_PRIMARY_SSH_AUTH_H

#include "ssh/ssh_types.h"

/* By that key file, or by the usual ones ("" or NULL). Raises 28000. */
extern void ssh_authenticate(SshSession *session, const char *key_file);

#endif							/* FOLLOW_PRIMARY_SSH_AUTH_H */
