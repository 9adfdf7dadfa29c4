# lost.sh - counts the WAL behind the fork; for the scripts that read it as they read lib.sh.
#
# The script sets:
#   wal           the folder with the WAL
#   ready         the folder with a file SEGMENT.ready for each that is to be archived yet
#   control       what pg_controldata says of the node
#   view          a name for a temporary folder
#   low           what pg_waldump is run by: '', or programs that make it give way to others
#   fork_lsn, fork_tli, segment_size, node_tli   as the arguments of stage_wal.sh
# and defines:
#   keep FILE     FILE of $wal has WAL that is lost, or is to be archived yet
#   is_saved NAME is a file of that name kept already?
#   finish COMPLETE   ends the script, which can tell all (yes), some (no) or nothing (unknown)
# shellcheck shell=sh disable=SC2154

per_id=$((4294967296 / segment_size))
low=

# bytes X/Y: sets lsn to it as a number, or returns 1 if it is none.
bytes() {
    case $1 in
        */*/* | *[!0-9A-Fa-f/]* | /* | */ | ?????????*/* | */?????????*) return 1 ;;
        */*)
            lsn=$((0x${1%/*} * 4294967296 + 0x${1#*/}))
            [ "$lsn" -ge 0 ]
            ;;
        *) return 1 ;;
    esac
}

# as_lsn NUMBER: the reverse, printed.
as_lsn() {
    printf '%X/%X' $(($1 / 4294967296)) $(($1 % 4294967296))
}

# timeline TEXT: is it the number of one?
timeline() {
    case $1 in
        '' | *[!0-9]* | ??????????*) return 1 ;;
    esac
}

# save_unarchived: saves what is to be archived yet, and sets unarchived to the number.
save_unarchived() {
    unarchived=0
    for file in "$ready"/*.ready; do
        file=${file##*/}
        file=$wal/${file%.ready}
        if [ -f "$file" ] && segment_number "$file" && ! is_saved "${file##*/}"; then
            keep "$file"
            unarchived=$((unarchived + 1))
        fi
    done
}

# save_all TEXT...: saves all, for what is behind the fork cannot be told; TEXT says why. Ends
# here.
save_all() {
    say "$*"
    for file in "$wal"/*; do
        if segment_number "$file" && [ "$number" -ge "$fork_number" ]; then
            keep "$file"
        fi
    done
    finish unknown
}

# know_timelines: sets checkpoint_tli, and node_tli to the timeline that the node was on last.
know_timelines() {
    checkpoint_tli=$(control_value "Latest checkpoint's TimeLineID")
    value=$(control_value "Min recovery ending loc's timeline")
    if ! timeline "$checkpoint_tli" || ! timeline "$value"; then
        save_all "pg_controldata does not tell the timeline of $pgdata: $(printf '%s\n' "$control" | head -n 3)"
    fi
    timeline "$node_tli" || node_tli=$checkpoint_tli
    for tli in "$checkpoint_tli" "$value"; do
        [ "$tli" -le "$node_tli" ] || node_tli=$tli
    done
}

# stretches: prints the stretches of WAL behind the fork, as lines "TLI START END"; END is - in the
# last one. A history file has a line for every timeline that came before.
stretches() {
    start=$fork_lsn
    known=no
    if [ "$node_tli" -gt "$fork_tli" ]; then
        while read -r tli end _; do
            case $tli in
                '' | '#'*) continue ;;
            esac
            timeline "$tli" || return 1
            if [ "$tli" -ge "$fork_tli" ]; then
                printf '%s %s %s\n' "$tli" "$start" "$end"
                start=$end
                known=yes
            fi
        done <"$history" || return 1
        [ "$known" = yes ] || return 1
        printf '%s %s -\n' "$node_tli" "$start"
    else
        printf '%s %s -\n' "$fork_tli" "$start"
    fi
}

# first_segment TLI: sets number to that of the first segment behind number that is there; returns
# 1 if none is.
first_segment() {
    above=$number
    lowest=
    for file in "$wal/$(printf %08X "$1")"*; do
        if segment_number "$file" && [ "$number" -gt "$above" ] &&
            { [ -z "$lowest" ] || [ "$number" -lt "$lowest" ]; }; then
            lowest=$number
        fi
    done
    number=$lowest
    [ -n "$number" ]
}

# For awk: reads what pg_waldump says of the WAL between from and limit, and prints the number of
# commits, that of other things to keep, and the end of valid WAL; 0 if there is none; else what
# is not understood.
# shellcheck disable=SC2016 # awk's dollars
awk_dump='
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
        else if (/^rmgr: (Transaction .* desc: PREPARE|LogicalMessage )/)
            others++
        next
    }
    # The end of WAL looks so: "... in WAL record at A: invalid record
    # length at B", or other words after A, which is the last record.
    / in WAL record at [0-9A-F]+\/[0-9A-F]+: / {
        at_end = 1
        message = $0
        sub(/.* in WAL record at /, "", message)
        end = message
        sub(/:.*/, "", end)
        behind = number(end)
        if (message ~ /invalid record length at [0-9A-F]+\/[0-9A-F]+/) {
            sub(/.*invalid record length at /, "", message)
            sub(/[^0-9A-F\/].*/, "", message)
            if (number(message) > behind)
                behind = number(message)
        }
        next
    }
    /could not find a valid record after/ {
        at_end = 1
        next
    }
    /^status / {
        status = $2
        next
    }
    other == "" { other = $0 }
    END {
        if (last != "") {
            known = match(last, /^rmgr: .* lsn: [0-9A-F]+\/[0-9A-F]+, prev /)
            match(last, /lsn: [0-9A-F]+\/[0-9A-F]+/)
            record = number(substr(last, RSTART + 5, RLENGTH - 5))
            known = known && record >= from && record < limit &&
                match(last, /len \(rec\/tot\): *[0-9]+\/ *[0-9]+,/)
            size = substr(last, RSTART, RLENGTH)
            sub(/.*\/ */, "", size)
            if (known && record + int((size + 7) / 8) * 8 > behind)
                behind = record + int((size + 7) / 8) * 8
        } else
            known = status != "0"
        if (status == "0" || behind > limit)
            behind = limit
        if (!known || (status != "0" && !at_end))
            print "not understood:", known && other != "" ? other : "status " status ", " last
        else if (last == "" && behind <= from)
            print 0
        else
            printf "%d %d %.0f\n", commits, others, behind
    }
'

# dump TLI START END: sets found to the number of commits there, and adds to others that of what
# else is to be kept; sets behind to where valid WAL ends, '' if nothing valid follows START; and
# from to START, or to where the WAL begins that is left.
dump() {
    found=0
    behind=
    recycled=no
    # pg_waldump would wait five seconds for a segment that is not there, as if it was still to
    # come. So END is at most the end of the last segment in a row.
    bytes "$2" || save_all "$history says $2"
    from=$lsn
    number=$((from / segment_size))
    first=$(segment "$1" "$number")
    if [ ! -f "$wal/$first" ] && [ ! -f "$wal/$first.partial" ]; then
        first_segment "$1" || return 0
        recycled=yes
        from=$((number * segment_size))
        first=$(segment "$1" "$number")
        set -- "$1" "$(as_lsn "$from")" "$3"
    fi
    next=$first
    folder=$wal
    while :; do
        if [ -f "$wal/$next" ]; then
            :
        elif [ -f "$wal/$next.partial" ]; then
            folder=$view
        else
            break
        fi
        number=$((number + 1))
        next=$(segment "$1" "$number")
    done
    limit=$((number * segment_size))
    [ "$limit" -gt "$from" ] || return 0
    # A promotion renames the segment that it ends, but pg_waldump looks for its former name.
    if [ "$folder" = "$view" ]; then
        try rm -rf "$view"
        try mkdir -p "$view"
        for file in "$wal/$(printf %08X "$1")"*; do
            if segment_number "$file" && [ ! -e "$view/$segment_name" ]; then
                try ln -s "$file" "$view/$segment_name"
            fi
        done
    fi
    # It was made for future use, and never written to.
    [ "$(od -An -tx1 -N 2 "$folder/$first" | tr -d ' ')" != 0000 ] || return 0
    if [ "$3" != - ]; then
        bytes "$3" || save_all "$history says $3"
        [ "$lsn" -gt "$limit" ] || limit=$lsn
        [ "$limit" -gt "$from" ] || return 0
    fi
    # The files are named, for pg_waldump takes the size of segments from the first one. Else it
    # takes any that is there, perhaps one that was never written to.
    set -- -p "$folder" -t "$1" -s "$2" -e "$(as_lsn "$limit")" \
        "$first" "$(segment "$1" $(((limit - 1) / segment_size)))"
    # shellcheck disable=SC2086 # words
    said=$({
        $low "$bin/pg_waldump" "$@" 2>&1
        echo "status $?"
    } | $low awk -v from="$from" -v limit="$limit" "$awk_dump")
    case $said in
        0) ;;
        [0-9]*' '[0-9]*' '[0-9]*)
            found=${said%% *} behind=${said##* }
            said=${said#* }
            others=$((others + ${said% *}))
            [ "$recycled" = no ] || complete=no
            ;;
        *) save_all "what pg_waldump $* says is $said" ;;
    esac
}

# segment TLI NUMBER: its file name
segment() {
    printf '%08X%08X%08X' "$1" "$(($2 / per_id))" "$(($2 % per_id))"
}

# save TLI FROM TO: keeps the segments that hold the bytes from FROM up to TO.
save() {
    first=$(($2 / segment_size))
    last=$((($3 - 1) / segment_size))
    missing=$((last - first + 1))
    for file in "$wal/$(printf %08X "$1")"*; do
        segment_number "$file" || continue
        if [ "$number" -ge "$first" ] && [ "$number" -le "$last" ]; then
            keep "$file"
            # a segment may be there as both
            [ "$file" != "$wal/$segment_name" ] && [ -f "$wal/$segment_name" ] || missing=$((missing - 1))
        fi
    done
    [ "$missing" -eq 0 ] || complete=no
}

# look_at TLI START END: counts what is there of the stretch, and adds it to lost, as a line TLI
# FROM TO.
look_at() {
    tli=$1 start=$2 end=$3
    dump "$tli" "$start" "$end"
    to=$from
    if [ "$end" != - ]; then
        bytes "$end" || save_all "$history says $end"
        to=$lsn
        [ "${behind:-0}" -ge "$to" ] || [ "$to" -le "$from" ] || complete=no
    elif [ -n "$behind" ]; then
        to=$behind
    elif [ "$tli" = "$checkpoint_tli" ]; then
        # WAL behind the fork that the control file knows of must be there
        value=$(control_value 'Latest checkpoint location')
        bytes "$value" || save_all "pg_controldata says that the latest checkpoint is at $value"
        if [ "$lsn" -ge "$from" ]; then
            complete=no
            to=$((lsn + 1))
        fi
    fi
    commits=$((commits + found))
    if [ "$to" -gt "$from" ]; then
        total=$((total + to - from))
        lost="$lost$tli $from $to$nl"
    fi
}

# count_lost: counts what is behind the fork, keeps it if there is anything of anybody's in it, and
# finishes.
count_lost() {
    fork_number=0
    bytes "$fork_lsn" || save_all "it is not known where the WAL of $pgdata leaves the primary's"
    fork_number=$((lsn / segment_size))
    know_timelines
    history=$wal/$(printf %08X "$node_tli").history
    list=$(stretches 2>/dev/null) ||
        save_all "$history does not tell how timeline $node_tli goes on from timeline $fork_tli"
    total=0
    commits=0
    others=0
    complete=yes
    lost=
    while read -r tli start end; do
        look_at "$tli" "$start" "$end"
    done <<STRETCHES
$list
STRETCHES
    if [ "$commits" -gt 0 ] || [ "$others" -gt 0 ] || [ "$complete" = no ]; then
        while read -r tli from to; do
            [ -z "$tli" ] || save "$tli" "$from" "$to"
        done <<LOST
$lost
LOST
    fi
    emit lost_wal_bytes "$total"
    emit lost_transactions "$commits"
    finish "$complete"
}
