#!/bin/sh
# save_wal.sh - counts and saves the WAL that a rewind or a copy will discard.
#
# arguments:
#   fork_lsn      where the primary's history leaves the node's: the switchpoint; '' = not
#                 known; none = it does not leave it
#   fork_tli      the timeline of fork_lsn, the last one that both have
#   segment_size  of WAL segments, in bytes
#   node_tli      the last timeline that the node has WAL of, as far as known: the control file
#                 lacks one that the node received before its last restartpoint; '' = not known
#
# The server is stopped. Saved are the segments with WAL behind the fork, up to the end of valid
# WAL, on fork_tli and on the timelines that the node itself went to afterwards, and the history
# of the last of these. Nothing is saved of WAL that has nothing of anybody's in it, as a
# checkpoint: no commit, no prepared transaction, no message. They are copies, never hard links:
# pg_rewind overwrites a segment of the same name in place. But what an earlier attempt has saved
# is there once: another copy is a link to it, and if it has all, its folder is the one.
# Where pg_controldata, pg_waldump or a history file says something that is not
# understood, all segments from the fork's on are saved, of whatever timeline, and nothing is
# counted.
#
# Saved are also segments from before the fork that the node has yet to archive. No other server
# will do that: a standby takes what it has received for archived.
#
# prints:
#   complete           yes | no | unknown; no: some of that WAL is not in pg_wal any more, and
#                      the counts are too low; unknown: there are no counts
#   lost_wal_bytes     from the fork to the end of valid WAL
#   lost_transactions  commits in it
#   unarchived         segments that are saved only because they are not archived
#   lost_wal_dir       PGDATA.follow_primary/lost_wal-JOB, if anything is saved; it ends in one
#                      more number where there is one of that name, from a primary that counts
#                      its jobs by itself; JOB is an earlier one that has saved the same
# fails:
#   no_space  permission  save_failed
set -u
# shellcheck source=src/remote/lib.sh
. "${0%/*}/lib.sh"

: "${fork_lsn=}" "${fork_tli=}" "${segment_size=16777216}" "${node_tli=}"
# shellcheck source=src/remote/lost.sh
. "${0%/*}/lost.sh"

wal=$pgdata/pg_wal
saved=$kept/lost_wal-$job
ready=$wal/archive_status
view=$work/wal.tmp
try_reason=save_failed

# find_copy FILE: sets twin to a copy that an earlier attempt has made, '' if there is none; only
# those of the folders stay in holders that have one.
find_copy() {
    twin='' still=''
    while IFS= read -r folder; do
        earlier_file=$folder/${1##*/}
        # its times are those of the file
        # shellcheck disable=SC2039,SC3013 # -nt and -ef are in dash and in POSIX.1-2024
        if [ ! -f "$earlier_file" ] || [ "$earlier_file" -nt "$1" ] || [ "$1" -nt "$earlier_file" ]; then
            continue
        elif [ "$earlier_file" -ef "${twin:-/}" ] || cmp -s "$earlier_file" "$1"; then
            twin=$earlier_file
            case $nl$holders in *"$nl$folder$nl"*) still=$still$folder$nl ;; esac
        fi
    done <<EARLIER
${earlier%"$nl"}
EARLIER
    holders=$still
}

# is_saved NAME
is_saved() {
    [ -e "$saved/$1" ]
}

# keep FILE: saves it, if that is not done.
keep() {
    try mkdir -p "$saved"
    copied=$saved/${1##*/}
    [ ! -e "$copied" ] || return 0
    find_copy "$1"
    [ -z "$twin" ] || ! ln "$twin" "$copied" 2>/dev/null || return 0
    # a reflink, where the file system can make one: an overwritten block is not shared any more
    cp --reflink=auto -p "$1" "$copied.tmp" 2>/dev/null || try cp -p "$1" "$copied.tmp"
    try sync "$copied.tmp"
    try mv -f "$copied.tmp" "$copied"
}

# finish COMPLETE: ends here.
finish() {
    [ "$1" = yes ] || try mkdir -p "$saved"
    save_unarchived
    [ "$1" = unknown ] || emit unarchived "$unarchived"
    if [ -d "$saved" ]; then
        history=
        ! timeline "$node_tli" || history=$wal/$(printf %08X "$node_tli").history
        for newest in "$wal"/????????.history; do :; done
        for file in "$history" "$newest"; do
            [ ! -f "$file" ] || keep "$file"
        done
        if [ -n "$holders" ]; then
            rm -rf "$saved"
            saved=${holders%%"$nl"*}
        fi
        sync "$saved" 2>/dev/null
        emit lost_wal_dir "$saved"
    fi
    emit complete "$1"
    whole=yes
    exit 0
}

umask 077
signs_of_life

earlier=
for folder in "$kept"/lost_wal-*; do
    [ ! -d "$folder" ] || earlier=$earlier$folder$nl
done
holders=$earlier

number=1
while [ -e "$saved" ]; do
    saved=$kept/lost_wal-$job.$number
    number=$((number + 1))
done
# What is not whole is of no use to anybody: all of it is in pg_wal still.
whole=no
trap 'no_more_signs; rm -rf "$view"; rmdir "$work" 2>/dev/null; [ "$whole" = yes ] || rm -rf "$saved"' EXIT
trap 'exit 1' HUP INT TERM PIPE

if [ "$fork_lsn" = none ]; then
    emit lost_wal_bytes 0
    emit lost_transactions 0
    finish yes
fi
control=$("$bin/pg_controldata" "$pgdata" 2>&1)
count_lost
