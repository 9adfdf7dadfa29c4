# mark.sh - how a job tells, on the node, how far it has come; for the scripts that
# read it as they read lib.sh.
#
# A job writes the mark before a change of the node's data, so that neither a start nor a
# later call takes half-changed data for whole. Its phases:
#
#   phase       written by    the data is then                     a start  the next call
#   stopped     stop.sh       the node's own: only its server was  starts   knows that the node is not down
#                             stopped by a job                              by itself
#   recovering  rewind.sh     the node's own, in crash recovery    refuses  goes on as if there was no mark
#                             or with its own folders moved away            (they come back)
#   rewinding   rewind.sh     the node's own, until pg_rewind      refuses  asks rewind.sh, which goes on if
#                             begins to change it; then mixed               nothing was changed; else copies
#   rewound     rewind.sh     this primary's, with the settings    refuses  only writes the settings, and
#                             of the primary                                starts the server
#   clearing    clear.sh      gone, or half gone, to make room     refuses  makes the copy
#   swapping    swap.sh       the node's own, the copy, or none    refuses  has swap.sh complete the swap
#                             yet: folders change places
#   swapped     swap.sh       the copy, with the settings of the   refuses  only writes the settings, and
#                             primary                                       starts the server
#   ready       configure.sh  rewound or copied, with the node's   starts   starts the server, and proves
#                             own settings; not proven yet                  that it follows
#
# The mark goes when clean.sh is told that the node is proven, when start.sh has started
# what was only "stopped", when rewind.sh has changed nothing, and with a swap that has
# moved nothing. Its file has a line NAME=VALUE for each of these that it tells:
#   job     the number of the job that wrote the mark last; another primary's may have the same
#   token   what no other job has, of any primary
#   phase   as above
#   method  rewind or basebackup; none with "stopped"
#   boot    the boot of the machine in which a rewind wrote the mark
#   fork    the LSN up to which a rewind keeps the node's WAL
# The time of the file is when the phase began.
#
# A start is prevented by more than the mark, for a service manager does not read it: see
# forbid_start(). clear.sh and swap.sh move PG_VERSION away.
# A new one is a line in read_mark(), and a word in write_mark() or at its calls.
# shellcheck shell=sh disable=SC2154,SC2034

# read_mark: sets mark_job, mark_phase and so on; all are empty where there is no mark.
# The phase of a mark that tells none is "unknown". Starts no process.
read_mark() {
    mark_job='' mark_token='' mark_phase='' mark_method='' mark_boot='' mark_fork=''
    [ -e "$mark" ] || return 0
    while IFS= read -r line || [ -n "$line" ]; do
        case $line in
            job=*) mark_job=${line#*=} ;;
            token=*) mark_token=${line#*=} ;;
            phase=*) mark_phase=${line#*=} ;;
            method=*) mark_method=${line#*=} ;;
            boot=*) mark_boot=${line#*=} ;;
            fork=*) mark_fork=${line#*=} ;;
        esac
    done <"$mark"
    mark_phase=${mark_phase:-unknown}
}

# write_mark PHASE [NAME=VALUE...]: the job's mark, durably and in one step. Dies if that
# fails, as put() does.
write_mark() {
    mark_phase=$1
    shift
    printf '%s\n' "job=$job" "token=$token" "phase=$mark_phase" "$@" | put "$mark" || exit 1
}

# remove_mark: durably.
remove_mark() {
    [ -e "$mark" ] || return 0
    rm -f "$mark" && sync "$work"
}

# renew_mark: the phase begins now.
renew_mark() {
    touch "$mark"
}

# mark_is_stale: has somebody put other data there, or started the server, since the mark
# was written? After read_mark.
mark_is_stale() {
    # shellcheck disable=SC2039,SC3013 # -nt is in dash and in POSIX.1-2024
    case $mark_phase in
        # clear.sh removes this file first
        clearing) [ -e "$pgdata/PG_VERSION" ] ;;
        # a server writes this file when it starts
        rewinding | stopped) [ "$pgdata/postmaster.opts" -nt "$mark" ] ;;
        # the copy has not moved yet, and what it is to replace has been written to
        swapping)
            for copy in "$work/new" "$pgdata/.follow_primary_new"; do
                if [ -e "$copy/PG_VERSION" ] && [ -e "$pgdata/PG_VERSION" ]; then
                    [ "$pgdata/global/pg_control" -nt "$mark" ]
                    return
                fi
            done
            return 1
            ;;
        *) return 1 ;;
    esac
}

# each_swapped COMMAND...: runs COMMAND N LIVE NEW OLD for every folder of a swap: its
# number, its name, that of the copy of it, and the name that what it holds gets. They come
# on stdin, as swap.sh keeps them in $work/swap.list: three lines a folder, PGDATA first.
each_swapped() {
    swapped_number=0
    while IFS= read -r live && IFS= read -r new && IFS= read -r old; do
        swapped_number=$((swapped_number + 1))
        "$@" "$swapped_number" "$live" "$new" "$old" || return
    done
}

# forbid_start FOLDER: keeps every server from starting in the data directory FOLDER, that
# of a service manager after a power failure too. What pg_rewind leaves has no
# standby.signal, and would come up as a second primary; and neither that nor a copy has
# the node's configuration yet. No server starts in a directory that others may read. Here
# they see names at most, for they may not search it; and sshd, which takes no key from a
# place that others may write to, still lets us in where the SSH user's keys are in it.
# Returns 1 if it has no effect.
forbid_start() {
    chmod o=r "$1" || return
    sync "$1" 2>/dev/null
    # a file system without modes says nothing
    starts_no_server "$1"
}

# starts_no_server FOLDER: has forbid_start() had its effect there?
starts_no_server() {
    case $(stat -Lc %A -- "$1" 2>/dev/null) in
        d??????r--) ;;
        *) return 1 ;;
    esac
}

# allow_start: undoes forbid_start() for $pgdata.
allow_start() {
    chmod o-r "$pgdata" && sync "$pgdata" 2>/dev/null
}
