#!/bin/sh
# stage_wal.sh - gives the WAL that a rewind or a copy will discard a second name, so that it
# survives; it is saved for good, and counted, later (staged.sh, count_wal.sh).
#
# arguments:
#   data          what comes of the node's data:
#                 rewound   pg_rewind writes to it, and its server goes on with it
#                 replaced  a copy comes in its place: nobody writes to it any more
#                 kept      its server goes on with it, as a standby, which archives nothing. What
#                           is staged is saved at once
#   fork_lsn      where the primary's history leaves the node's; '' = not known; none = it does not
#                 leave it
#   fork_tli      the timeline of fork_lsn, the last one that both have
#   segment_size  of WAL segments, in bytes
#   node_tli      the last timeline that the node has WAL of, as far as known; '' = not known
#   primary_tli   the primary's timeline
#   SEGMENT ...   (positional, of a rewind) the files of the primary's pg_wal behind the fork, on
#                 fork_tli and on timelines that are later than its own
#
# The server is stopped. Staged are the segments from the fork's on, on fork_tli and later
# timelines, if there is WAL behind the fork in one; those before it that the node has yet to
# archive, which no other server will do; and histories. Where the fork is not known, all segments
# are staged.
#
# They are links if the data is replaced. Else copied is what would change under its name:
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
# of data that is kept, instead, what count_wal.sh prints of it
# fails:
#   running  no_space  permission  save_failed
set -u
# shellcheck source=src/remote/lib.sh
. "${0%/*}/lib.sh"
# shellcheck source=src/remote/staged.sh
. "${0%/*}/staged.sh"

: "${data=rewound}" "${fork_lsn=}" "${fork_tli=}" "${segment_size=16777216}" "${node_tli=}" "${primary_tli=0}"
wal=$pgdata/pg_wal
per_id=$((4294967296 / segment_size))
try_reason=save_failed

# written: prints those of the files of pg_wal, whose names come on stdin, in which the WAL is that of
# the name. Of one that was made for the future the first page, which is written before all others,
# is empty, or has another address. A few processes, however many files there are. Returns 1 if it
# cannot tell.
written() {
    cat >"$work/wal.names"
    # a file that is too short would bring the others out of step
    (cd "$wal" && xargs -r stat -c '%s %n' <"$work/wal.names") |
        awk '$1 >= 16 { print $2 }' >"$work/wal.whole" || return
    (cd "$wal" && xargs -r head -q -c 16 <"$work/wal.whole") | od -An -v -w16 -tu8 >"$work/wal.heads" || return
    [ "$(grep -c . <"$work/wal.whole")" = "$(grep -c . <"$work/wal.heads")" ] || return
    paste -d ' ' "$work/wal.whole" "$work/wal.heads" |
        while read -r name _ address; do
            segment_number "$name"
            [ "$address" != "$((number * segment_size))" ] || printf '%s\n' "$name"
        done
    rm -f "$work/wal.names" "$work/wal.whole" "$work/wal.heads"
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

# know_segments: sets segments to those that are lost, and lost.
know_segments() {
    segments=''
    case $fork_lsn in
        none) ;;
        '')
            fork_number=0 fork_tli=0
            segments=$(behind_fork)
            ;;
        *)
            fork_number=$(((0x${fork_lsn%/*} * 4294967296 + 0x${fork_lsn#*/}) / segment_size))
            segments=$(behind_fork | written) || die save_failed "could not read the files in $wal"
            ;;
    esac
    segments=$segments${segments:+$nl}
    lost=yes
    if [ -z "$segments" ] || { [ -n "$fork_lsn" ] && is_empty; }; then
        lost=no
        segments=
    fi
}

# find_copy FILE: sets twin to a copy that an earlier job has saved, '' if there is none; only
# those of the folders stay in holders that have one.
find_copy() {
    twin='' still=''
    while IFS= read -r folder; do
        saved_file=$folder/${1##*/}
        # its times are those of the file
        # shellcheck disable=SC2039,SC3013 # -nt and -ef are in dash and in POSIX.1-2024
        if [ ! -f "$saved_file" ] || [ "$saved_file" -nt "$1" ] || [ "$1" -nt "$saved_file" ]; then
            continue
        elif [ "$saved_file" -ef "${twin:-/}" ] || cmp -s "$saved_file" "$1"; then
            twin=$saved_file
            case $nl$holders$nl in *"$nl$folder$nl"*) still=$still${still:+$nl}$folder ;; esac
        fi
    done <<EARLIER
$earlier
EARLIER
    holders=$still
}

# save_copy FILE
save_copy() {
    [ ! -e "$staged/${1##*/}" ] || return 0
    copied=$((copied + 1))
    if [ "$data" = kept ]; then
        find_copy "$1"
        [ -z "$twin" ] || ! ln "$twin" "$staged/${1##*/}" 2>/dev/null || return 0
    fi
    # a reflink, where the file system can make one: an overwritten block is not shared any more
    cp --reflink=auto -p "$1" "$staged/copy.tmp" 2>/dev/null || try cp -p "$1" "$staged/copy.tmp"
    try sync "$staged/copy.tmp"
    try mv -f "$staged/copy.tmp" "$staged/${1##*/}"
}

# may_link: prints those of $segments that may be links.
may_link() {
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

# know_unarchived: sets unarchived to the segments that are to be archived yet.
know_unarchived() {
    unarchived=''
    for file in "$wal"/archive_status/*.ready; do
        file=${file##*/}
        file=${file%.ready}
        if [ -f "$wal/$file" ] && segment_number "$file"; then
            unarchived=$unarchived$file$nl
            true >"$staged/.uncounted/$file.ready" || die save_failed "could not write in $staged"
        fi
    done
}

# link_those: makes links of $links, and syncs what a crashed server may not have.
link_those() {
    [ -n "$links" ] || return 0
    (cd "$wal" && printf '%s\n' "$links" | xargs ln -f -t "$staged" --) 2>/dev/null || return 0
    linked=$(printf '%s\n' "$links" | grep -c .)
    if [ "$data" = replaced ] && [ "$crashed" = yes ]; then
        (cd "$staged" && printf '%s\n' "$links" | xargs sync --) || die save_failed "could not flush what is in $staged"
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
    count=$copied
    for file in "$history" "$newest"; do
        [ ! -f "$file" ] || save_copy "$file"
    done
    copied=$count
}

# save_kept: of data that is kept only copies are staged, so nothing keeps them from being final;
# and how much they are is known. Ends here.
save_kept() {
    if [ -n "$holders" ] && [ "$copied" -gt 0 ]; then
        drop_staged
        emit lost_wal_dir "${holders%%"$nl"*}"
    else
        rm -rf "$staged/.uncounted"
        move_saved "$staged" "$kept/lost_wal-$job" || die save_failed "could not move $staged to $kept"
    fi
    rmdir "$work" 2>/dev/null
    exit 0
}

umask 077
signs_of_life
make_work
server_pid && die running "a server runs on $pgdata, as process $pid"
theirs=" $* "
control=$("$bin/pg_controldata" "$pgdata" 2>&1)
crashed=yes
case $control in
    *'Database cluster state:'*'shut down'*) crashed=no ;;
esac
copied=0
linked=0
earlier=
for folder in "$kept"/lost_wal-*; do
    [ ! -d "$folder" ] || earlier=$earlier${earlier:+$nl}$folder
done
holders=$earlier
try mkdir -p "$staged/.uncounted"
# An earlier job's are names of what has been written to since; but what has no other name is saved.
try find "$staged" -maxdepth 1 -type f \( -links +1 -o -name '*.tmp' \) -exec rm -f -- '{}' +
know_segments
know_unarchived
case $data in
    rewound) links=$(may_link) ;;
    replaced) links=$(printf '%s' "$segments$unarchived" | sort -u) ;;
    *) links='' ;;
esac
link_those
for name in $segments; do
    case $nl$links$nl in
        *"$nl$name$nl"*) ;;
        *) rm -f "$staged/$name" ;; # an earlier job's
    esac
    save_copy "$wal/$name"
done
for name in $unarchived; do
    save_copy "$wal/$name"
done
if [ "$data" = kept ]; then
    emit lost_wal_bytes 0
    emit lost_transactions 0
    emit unarchived "$copied"
    emit complete yes
else
    emit lost "$lost"
fi
if [ "$copied" -eq 0 ] && [ "$linked" -eq 0 ] && [ -z "$(find "$staged" -maxdepth 1 -type f | head -n 1)" ]; then
    drop_staged
    rmdir "$work" 2>/dev/null
    exit 0
fi
save_histories
[ "$data" != kept ] || save_kept
emit linked "$linked"
emit copied "$copied"
printf '%s\n' "$control" | put "$staged/.uncounted/control" || exit 1
printf '%s\n' "token=$token" "fork_lsn=$fork_lsn" "fork_tli=$fork_tli" "segment_size=$segment_size" "node_tli=$node_tli" |
    put "$staged/.uncounted/arguments" || exit 1
try sync "$staged"
