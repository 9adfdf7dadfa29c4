# messages.sh - what the messages of PostgreSQL's programs mean for a job; for the scripts
# that read it as they read lib.sh.
# shellcheck shell=sh

# The first line that matches decides: the reason that a script fails for, and an extended
# regular expression.
messages='
running             lock file .* already exists
no_space            No space left on device
no_space            [Qq]uota exceeded
slot_in_use         replication slot ".*" is active
permission          ould not (open|write|remove|create|truncate|read|access|stat|seek|rename|fsync|set permissions).*: (Permission denied|Operation not permitted|Read-only file system)
needs_copy          could not find common ancestor
needs_copy          either data checksums or
needs_copy          could not (find previous|read) WAL record
needs_copy          could not (open|read|stat) file .*pg_wal
needs_copy          could not restore file .* from archive
needs_copy          restored from archive
needs_copy          unexpected page modification
needs_copy          is of different type
needs_copy          (unexpected|invalid) control file
needs_copy          WAL segment size must be
needs_copy          full_page_writes must be
needs_copy          timeline history
needs_copy          not a regular file
needs_copy          could not locate (a valid|required) checkpoint
needs_copy          WAL ends before
needs_copy          invalid (primary |secondary )?checkpoint
needs_copy          requested timeline
needs_copy          could not find redo location
needs_copy          incorrect checksum in control file
needs_copy          control file contains
needs_copy          invalid page
needs_copy          PANIC:
source_unreachable  could not connect
source_unreachable  connection to server
source_unreachable  could not translate host
source_unreachable  authentication failed
source_unreachable  no pg_hba.conf entry
source_unreachable  fe_sendauth
source_unreachable  no password supplied
source_unreachable  permission denied
source_unreachable  must be superuser
source_unreachable  server closed the connection
source_unreachable  SSL (error|connection)
source_unreachable  terminating connection
source_unreachable  too many clients
source_unreachable  requested standby connections
source_unreachable  the database system is
source_unreachable  (database|role) ".*" does not exist
source_unreachable  running query
source_unreachable  could not (fetch|receive|send|prepare statement)
source_unreachable  could not read COPY
source_unreachable  fetching remote file
source_unreachable  connection pointer
'

# reason_of LOG OTHER REASON...: prints which of the REASONs the messages in the file LOG give,
# or OTHER.
reason_of() {
    reason_log=$1 reason_other=$2
    shift 2
    [ -e "$reason_log" ] || reason_log=/dev/null
    printf '%s' "$messages" | awk -v reasons=" $* " -v found="$reason_other" '
        NR == FNR {
            if (NF > 0 && index(reasons, " " $1 " ")) {
                reason[++n] = $1
                sub(/^[a-z_]+ +/, "")
                pattern[n] = $0
            }
            next
        }
        {
            # what matched is beaten only by what stands before it
            for (i = 1; i <= n; i++)
                if ($0 ~ pattern[i]) {
                    found = reason[i]
                    n = i - 1
                }
        }
        END { print found }' - "$reason_log"
}
