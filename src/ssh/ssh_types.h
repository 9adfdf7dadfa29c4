/*
 * ssh_types.h
 *		What users of an SSH connection know of it without using it.
 */
#ifndef FOLLOW_PRIMARY_SSH_TYPES_H
#define FOLLOW_PRIMARY_SSH_TYPES_H

typedef enum SshHostKeyChecking
{
	SSH_HOST_KEY_STRICT,		/* the key must be in the known_hosts file */
	SSH_HOST_KEY_ACCEPT_NEW,	/* an unknown key is added, a changed one
								 * refused */
	SSH_HOST_KEY_OFF			/* not looked at */
} SshHostKeyChecking;

typedef struct SshSession SshSession;

#endif							/* FOLLOW_PRIMARY_SSH_TYPES_H */
