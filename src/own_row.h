/*
 * own_row.h
 *		Which row of follow_primary_node is this server's own?
 */
#ifndef FOLLOW_PRIMARY_OWN_ROW_H
#define FOLLOW_PRIMARY_OWN_ROW_H

/*
 * Returns the host in this server's own row of follow_primary_node, whose port is
 * this server's, or NULL if no row, or more than one, may be it.  The schema is the
 * extension's, quoted; the caller may read the table.  Where the names alone do not
 * tell, those that may be this server's are looked up, for a second at most each.
 * Raises what net_resolve() raises.
 */
extern char *own_row_host(const char *schema);

/* listen_addresses, if that is one real address or name, else NULL. */
extern char *only_listen_address(void);

/*
 * Does the host lead to this server, as it is seen from here?  Known names are, and
 * others that lead to an address where it listens.  Raises what net_resolve() raises.
 */
extern bool own_host(const char *host);

#endif							/* FOLLOW_PRIMARY_OWN_ROW_H */
