# processes.sh - what a server's processes are at; for the scripts that read it as they read
# lib.sh. On systems without Linux's /proc nothing is found.
# shellcheck shell=sh disable=SC2034,SC2154

# list_family PID: sets family to a line "PID PARENT STATE SECONDS" for each process that
# descends from PID, parents first; SECONDS is its age, STATE as in /proc/PID/stat.
list_family() {
    family=$({ cat /proc/uptime && getconf CLK_TCK && cat /proc/[0-9]*/stat; } 2>/dev/null |
        awk -v root="$1" '
            NR == 1 { uptime = $1; next }
            NR == 2 { hz = $1; next }
            {
                pid = $1
                sub(/.*\) /, "") # a name may have spaces
                state[pid] = $1
                parent[pid] = $2
                age[pid] = int(uptime - $20 / hz)
            }
            function print_children(of,    pid) {
                for (pid in parent)
                    if (parent[pid] == of) {
                        print pid, of, state[pid], age[pid]
                        print_children(pid)
                    }
            }
            END { print_children(root) }')
}

# title_of PID: sets title to its command line, as one line of 200 characters at most. A server
# process shows there what it is.
title_of() {
    title=$({ tr '\0\n' '  ' <"/proc/$1/cmdline"; } 2>/dev/null | cut -c 1-200)
    while [ "$title" != "${title% }" ]; do
        title=${title% }
    done
}

# describe PID STATE SECONDS: sets description to all that, in words.
describe() {
    title_of "$1"
    description="process $1, for $3 s: $title"
    case $2 in
        T | t) description="$description (stopped by a signal)" ;;
        D) description="$description (waiting for a device)" ;;
    esac
}

# children_of PID: prints those lines of family that are its children's.
children_of() {
    while read -r child parent state seconds; do
        [ "$parent" != "$1" ] || printf '%s %s %s %s\n' "$child" "$parent" "$state" "$seconds"
    done <<FAMILY
$family
FAMILY
}

# still_there: are processes of a server at work in $pgdata, whatever its lock file says? Sets left
# to their pids. The logger changes no data, and outlives the server for as long as a command that
# the server ran has its output open.
still_there() {
    left=''
    for process in /proc/[0-9]*; do
        # shellcheck disable=SC2039,SC3013 # -ef is in dash and in POSIX.1-2024
        [ "$process/cwd/." -ef "$pgdata/." ] || continue
        program=''
        { IFS= read -r program <"$process/comm"; } 2>/dev/null
        case $program in postgres | postmaster) ;; *) continue ;; esac
        title_of "${process#/proc/}"
        case $title in
            "postgres: "*logger) ;;
            *) left="$left${left:+ }${process#/proc/}" ;;
        esac
    done
    [ -n "$left" ]
}

# remove_stale FILE: FILE is a lock file, of a server of this directory, and there is none.
remove_stale() {
    if lock_file "$1" && kill -0 "${lock_pid#-}" 2>/dev/null &&
        readlink "/proc/${lock_pid#-}/cwd" >/dev/null 2>&1 && ! still_there; then
        say "$1 names process ${lock_pid#-}, which is no server of this directory: the file is removed"
        rm -f "$1"
    fi
}

# remove_stale_lock: after server_pid() has found no server. After a crash of the machine any
# program may have the pid in postmaster.pid; a server that is started takes a process of its own
# user for another server of this directory, and ends. What runs elsewhere we cannot see: then the
# file stays, for the server has more to go by.
remove_stale_lock() {
    remove_stale "$pgdata/postmaster.pid"
}
