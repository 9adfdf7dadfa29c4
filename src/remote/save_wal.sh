#!/bin/sh
# save_wal.sh - counts and saves the WAL that a rewind or a copy will discard.
#
# usage: save_wal.sh PGDATA BIN_DIR FORK_LSN FORK_TLI JOB WAL_SEGMENT_SIZE
#   FORK_LSN, FORK_TLI  where the primary's history leaves the node's: the
#                       switchpoint, on the last timeline that both have
#   WAL_SEGMENT_SIZE    in bytes
#
# The server is stopped. Saved are the segments with WAL behind the fork, up to
# the end of valid WAL, on FORK_TLI and on the timelines that the node itself
# went to afterwards, and all history files. They are copies, never hard links:
# pg_rewind overwrites a segment of the same name in place.
#
# prints: lost_wal_bytes=      from the fork to the end of valid WAL
#         lost_transactions=   commits in it
#         lost_wal_dir=        PGDATA.follow_primary/lost_wal-JOB, if bytes > 0
#         complete=yes|no      no: some of that WAL is not in pg_wal any more;
#                              the counts are then too low
# fails:  no_space  permission  save_failed
set -u
# shellcheck source=src/remote/lib.sh
. "${0%/*}/lib.sh"

pgdata=$1
bin=$2
fork_lsn=$3
fork_tli=$4
job=$5
segment_size=$6
work=$pgdata.follow_primary
wal=$pgdata/pg_wal
saved=$work/lost_wal-$job

try_reason=save_failed

umask 077
LC_ALL=C
export LC_ALL

# bytes X/Y: an LSN as a number
bytes() {
    echo $((0x${1%/*} * 4294967296 + 0x${1#*/}))
}

control=$("$bin/pg_controldata" "$pgdata" 2>/dev/null)
field() {
    printf '%s\n' "$control" | sed -n "s/^$1: *//p"
}

# The timeline that the node was on last.
node_tli=$(field "Latest checkpoint's TimeLineID")
recovery_tli=$(field "Min recovery ending loc's timeline")
case $node_tli in
    '' | *[!0-9]*) node_tli=$fork_tli ;;
esac
case $recovery_tli in
    '' | *[!0-9]*) ;;
    *) [ "$recovery_tli" -le "$node_tli" ] || node_tli=$recovery_tli ;;
esac

# The stretches of WAL behind the fork, as lines "TLI START END"; END is - on
# the last one. A history file has a line for every timeline that came before.
stretches() {
    start=$fork_lsn
    history=$wal/$(printf %08X "$node_tli").history
    if [ "$node_tli" -gt "$fork_tli" ] && [ -r "$history" ]; then
        while read -r tli end _; do
            case $tli in
                '' | *[!0-9]*) continue ;;
            esac
            if [ "$tli" -ge "$fork_tli" ]; then
                printf '%s %s %s\n' "$tli" "$start" "$end"
                start=$end
            fi
        done <"$history"
        printf '%s %s -\n' "$node_tli" "$start"
    else
        printf '%s %s -\n' "$fork_tli" "$start"
    fi
}

# dump TLI START END: "COMMITS END_OF_WAL"; END_OF_WAL is - when nothing valid
# follows START. A failing pg_waldump is how the end of WAL looks.
dump() {
    # For a segment that is not there pg_waldump would wait five seconds, as if
    # it was still to come: END is at most the end of the last one in a row.
    from=$(bytes "$2")
    number=$((from / segment_size))
    while [ -f "$wal/$(segment "$1" "$number")" ]; do
        number=$((number + 1))
    done
    limit=$((number * segment_size))
    if [ "$limit" -le "$from" ]; then
        echo 0 -
        return
    fi
    if [ "$3" = - ] || [ "$(bytes "$3")" -gt "$limit" ]; then
        limit=$(printf '%X/%X' $((limit / 4294967296)) $((limit % 4294967296)))
    else
        limit=$3
    fi
    set -- -t "$1" -s "$2" -e "$limit"
    "$bin/pg_waldump" -p "$wal" "$@" 2>&1 | awk '
        function number(lsn,    part) {
            split(lsn, part, "/")
            return hex(part[1]) * 4294967296 + hex(part[2])
        }
        function hex(text,    i, value) {
            value = 0
            for (i = 1; i <= length(text); i++)
                value = value * 16 + index("0123456789ABCDEF", toupper(substr(text, i, 1))) - 1
            return value
        }
        # many lines: only the last one is taken apart
        /^rmgr: / {
            last = $0
            if (/^rmgr: Transaction .* desc: COMMIT/)
                commits++
            next
        }
        # "... in WAL record at A: invalid record length at B": B is the end
        /invalid record length at/ {
            end = $0
            sub(/.*invalid record length at /, "", end)
            sub(/[^0-9A-F\/].*/, "", end)
        }
        END {
            if (last == "") {
                print 0, "-"
                exit
            }
            match(last, /lsn: [0-9A-F]+\/[0-9A-F]+/)
            lsn = substr(last, RSTART + 5, RLENGTH - 5)
            match(last, /len \(rec\/tot\): *[0-9]+\/ *[0-9]+/)
            size = substr(last, RSTART, RLENGTH)
            sub(/.*\/ */, "", size)
            behind = number(lsn) + int((size + 7) / 8) * 8
            if (end != "" && number(end) > behind)
                behind = number(end)
            printf "%d %.0f\n", commits, behind
        }'
}

# segment TLI NUMBER: its file name
segment() {
    per_id=$((4294967296 / segment_size))
    printf '%08X%08X%08X' "$1" "$(($2 / per_id))" "$(($2 % per_id))"
}

# save TLI FROM TO: copies the segments that hold the bytes from FROM up to TO.
save() {
    number=$(($2 / segment_size))
    while [ $((number * segment_size)) -lt "$3" ]; do
        name=$(segment "$1" "$number")
        copied=no
        for file in "$wal/$name" "$wal/$name.partial"; do
            [ -f "$file" ] || continue
            copied=yes
            copy "$file"
        done
        [ "$copied" = yes ] || complete=no
        number=$((number + 1))
    done
}

copy() {
    to=$saved/${1##*/}
    if cmp -s "$1" "$to"; then
        return
    fi
    # a reflink, where the file system can, shares nothing that is overwritten
    cp --reflink=auto -p "$1" "$to.tmp" 2>/dev/null || try cp -p "$1" "$to.tmp"
    sync "$to.tmp" 2>/dev/null
    try mv -f "$to.tmp" "$to"
}

list=$(stretches)
total=0
commits=0
complete=yes
try mkdir -p "$saved"

while read -r tli start end; do
    from=$(bytes "$start")
    found=$(dump "$tli" "$start" "$end")
    behind=${found#* }
    if [ "$end" != - ]; then
        to=$(bytes "$end")
        [ "$behind" != - ] || [ "$to" -le "$from" ] || complete=no
    elif [ "$behind" = - ]; then
        to=$from
        # what the control file knows of WAL behind the fork must be there
        checkpoint=$(field 'Latest checkpoint location')
        if [ -n "$checkpoint" ] && [ "$tli" = "$(field "Latest checkpoint's TimeLineID")" ] &&
            [ "$(bytes "$checkpoint")" -ge "$from" ]; then
            complete=no
            to=$(($(bytes "$checkpoint") + 1))
        fi
    else
        to=$behind
    fi
    commits=$((commits + ${found% *}))
    if [ "$to" -gt "$from" ]; then
        total=$((total + to - from))
        save "$tli" "$from" "$to"
    fi
done <<STRETCHES
$list
STRETCHES

emit lost_wal_bytes "$total"
emit lost_transactions "$commits"
if [ "$total" -gt 0 ]; then
    for file in "$wal"/*.history; do
        [ ! -f "$file" ] || copy "$file"
    done
    sync "$saved" 2>/dev/null
    emit lost_wal_dir "$saved"
else
    rmdir "$saved" 2>/dev/null
    rmdir "$work" 2>/dev/null
fi
emit complete "$complete"
exit 0
