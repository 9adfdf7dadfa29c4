#!/bin/sh
# stage_wal.sh - gives the WAL that a rewind will discard a second name, so that it survives; it is
# saved for good, and counted, later (staged.sh, count_wal.sh).
#
# arguments:
#   fork_lsn      where the primary's history leaves the node's
#   fork_tli      the timeline of fork_lsn, the last one that both have
#   segment_size  of WAL segments, in bytes
#   node_tli      the last timeline that the node has WAL of, as far as known; '' = not known
#   primary_tli   the primary's timeline
#   publish       yes = stages nothing: what an interrupted rewind has staged is saved, for a copy
#                 is to replace what that rewind has left
#   SEGMENT ...   (positional) the files of the primary's pg_wal behind the fork, on fork_tli and on
#                 timelines that are later than its own
#
# The server is stopped. Staged are the segments that have been written to, from the fork's on, on
# fork_tli and later timelines, those before it that the node has yet to archive, and histories.
# Copied, not linked, is what would change under its name while the rewind goes on:
#   the segment of the fork                       it loses its end, or pg_rewind overwrites it
#   one of a name that the primary has, or may    pg_rewind overwrites it in place
#   get: its own timelines write on
#   one before the fork                           a standby replays it, and reuses the file
#   the last one, if the server crashed           crash recovery ends in a checkpoint record
# So is everything if pg_wal is on another file system than $work.
#
# prints:
#   lost      yes | no: is there WAL behind the fork?
#   linked    number of segments
#   copied    number of segments
#   lost_wal_dir  with publish: where that is, if there is anything
# fails:
#   running  no_space  permission  save_failed
set -u
# shellcheck source=src/remote/lib.sh
. "${0%/*}/lib.sh"
# shellcheck source=src/remote/staged.sh
. "${0%/*}/staged.sh"

: "${fork_lsn=0/0}" "${fork_tli=}" "${segment_size=16777216}" "${node_tli=}" "${primary_tli=0}" "${publish=no}"
wal=$pgdata/pg_wal
per_id=$((4294967296 / segment_size))
try_reason=save_failed

# written: prints those of the files of pg_wal, whose names come on stdin, in which the WAL is that of
# the name. Of one that was made for the future the first page, which is written before all others,
# is empty, or has another address. A few processes, however many files there are.
written() {
    cat >"$work/wal.names"
    # a file that is too short would bring the others out of step
    (cd "$wal" && xargs -r stat -c '%s %n' <"$work/wal.names") |
        awk '$1 >= 16 { print $2 }' >"$work/wal.whole" || return
    (cd "$wal" && xargs -r head -q -c 16 <"$work/wal.whole") | od -An -v -w16 -tu8 |
        paste -d ' ' "$work/wal.whole" - |
        while read -r name _ address; do
            segment_number "$name"
            [ "$address" != "$((number * segment_size))" ] || printf '%s\n' "$name"
        done
    rm -f "$work/wal.names" "$work/wal.whole"
}

# behind_fork: prints the segments from the fork's on.
behind_fork() {
    for file in "$wal"/????????????????????????*; do
        segment_number "$file" || continue
        if [ "$number" -ge "$fork_number" ] && [ "$((0x${segment_name%????????????????}))" -ge "$fork_tli" ]; then
            printf '%s\n' "${file##*/}"
        fi
    done
}

# is_empty: is there no WAL in the segment of the fork behind it? It is the only one.
is_empty() {
    number=$fork_number
    first=$(printf '%08X%08X%08X' "$fork_tli" "$((number / per_id))" "$((number % per_id))")
    [ "$segments" = "$first$nl" ] || return
    end=$(((fork_number + 1) * segment_size))
    said=$("$bin/pg_waldump" -p "$wal" -t "$fork_tli" -s "$fork_lsn" \
        -e "$(printf '%X/%X' "$((end / 4294967296))" "$((end % 4294967296))")" -n 1 "$first" "$first" 2>&1) && return 1
    case $said in
        *rmgr:*) return 1 ;;
        *'could not find a valid record after'*) return 0 ;;
    esac
    return 1
}

# save_copy FILE
save_copy() {
    [ ! -e "$staged/${1##*/}" ] || return 0
    cp --reflink=auto -p "$1" "$staged/copy.tmp" 2>/dev/null || try cp -p "$1" "$staged/copy.tmp"
    try sync "$staged/copy.tmp"
    try mv -f "$staged/copy.tmp" "$staged/${1##*/}"
    copied=$((copied + 1))
}

# may_link: prints those of $segments that may be links.
may_link() {
    crashed=yes
    case $control in
        *'Database cluster state:'*'shut down'*) crashed=no ;;
    esac
    before=''
    while read -r name; do
        [ -n "$name" ] || continue
        segment_number "$name"
        tli=$((0x${name%"${name#????????}"}))
        # one that follows in a row tells that the one before it is not the last
        if [ -n "$before" ] && { [ "$crashed" = no ] || [ "$number" -eq "$((before_number + 1))" ]; }; then
            printf '%s\n' "$before"
        fi
        before='' before_number=$number
        if [ "$number" -gt "$fork_number" ] && { [ "$tli" -eq "$fork_tli" ] || [ "$tli" -gt "$primary_tli" ]; }; then
            case $theirs in
                *" $name "*) ;;
                *) before=$name ;;
            esac
        fi
    done <<SEGMENTS
$segments
SEGMENTS
    if [ -n "$before" ] && [ "$crashed" = no ]; then
        printf '%s\n' "$before"
    fi
}

# save_histories: that of the node's timeline, and the newest.
save_histories() {
    history=
    case $node_tli in
        '' | *[!0-9]*) ;;
        *) history=$wal/$(printf %08X "$node_tli").history ;;
    esac
    for newest in "$wal"/????????.history; do :; done
    for file in "$history" "$newest"; do
        [ ! -f "$file" ] || save_copy "$file"
    done
}

umask 077
signs_of_life
make_work
if [ "$publish" = yes ]; then
    publish_staged no || die save_failed "could not save what is in $staged"
    exit 0
fi
server_pid && die running "a server runs on $pgdata, as process $pid"
theirs=" $* "
fork_number=$(((0x${fork_lsn%/*} * 4294967296 + 0x${fork_lsn#*/}) / segment_size))
control=$("$bin/pg_controldata" "$pgdata" 2>&1)
copied=0
linked=0
try mkdir -p "$staged/.uncounted"
# An earlier job's are names of what has been written to since; but what has no other name is saved.
try find "$staged" -maxdepth 1 -type f \( -links +1 -o -name '*.tmp' \) -exec rm -f -- '{}' +
segments=$(behind_fork | written)
segments=$segments${segments:+$nl}
lost=yes
if [ -z "$segments" ] || is_empty; then
    lost=no
    segments=
fi
links=$(may_link)
if [ -n "$links" ] && (cd "$wal" && printf '%s\n' "$links" | xargs ln -f -t "$staged" --) 2>/dev/null; then
    linked=$(printf '%s\n' "$links" | grep -c .)
fi
for name in $segments; do
    case $nl$links$nl in
        *"$nl$name$nl"*) ;;
        *) rm -f "$staged/$name" ;; # an earlier job's
    esac
    save_copy "$wal/$name"
done
for file in "$wal"/archive_status/*.ready; do
    file=${file##*/}
    file=${file%.ready}
    if [ -f "$wal/$file" ] && segment_number "$file"; then
        save_copy "$wal/$file"
        try touch "$staged/.uncounted/$file.ready"
    fi
done
emit lost "$lost"
if [ "$copied" -eq 0 ] && [ "$linked" -eq 0 ] && [ -z "$(find "$staged" -maxdepth 1 -type f | head -n 1)" ]; then
    drop_staged
    rmdir "$work" 2>/dev/null
    exit 0
fi
emit linked "$linked"
emit copied "$copied"
save_histories
printf '%s\n' "$control" | put "$staged/.uncounted/control" || exit 1
printf '%s\n' "fork_lsn=$fork_lsn" "fork_tli=$fork_tli" "segment_size=$segment_size" "node_tli=$node_tli" |
    put "$staged/.uncounted/arguments" || exit 1
try sync "$staged"
