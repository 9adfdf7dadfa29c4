/*
 * readable.h
 *		Can the files of this server be read from its beginning to its end?
 */
#ifndef FOLLOW_PRIMARY_READABLE_H
#define FOLLOW_PRIMARY_READABLE_H

/* Why a file or folder of this server's data directory is in the way. */
typedef enum ObstacleKind
{
	OBSTACLE_UNREADABLE,		/* the server may not read it */
	OBSTACLE_SPECIAL,			/* a socket, a named pipe, a device */
	OBSTACLE_LOOP				/* a symbolic link that leads back to a folder above it */
} ObstacleKind;

typedef struct Obstacle
{
	ObstacleKind kind;
	char	   *path;			/* absolute */
	char	   *cause;			/* in words */
} Obstacle;

/*
 * The first file or folder of this server's data directory that would end
 * pg_rewind, or else pg_basebackup, half-way; or NULL.  Folders with the files of
 * relations are not looked into: there may be a million of those, and the server
 * reads them all the time.
 */
extern Obstacle *readable_obstacle(bool for_rewind);

#endif							/* FOLLOW_PRIMARY_READABLE_H */
