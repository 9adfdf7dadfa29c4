#!/bin/sh
# rewind.sh - rewinds a stopped data directory to the history of the primary.
#
# arguments:
#   config           the node's postgresql.conf; '' = the one in pgdata
#   conninfo         how pg_rewind connects to the primary; without a password
#   passfile         password file; '' = libpq's default
#   restore_command  the command that fetches WAL which is missing; '' = none
#   version          server_version_num of the primary
#   keep_slots       physical slots of the node's own standbys, separated by spaces; every
#                    other slot goes, for it would pin WAL
#   lost_tli         the timeline on which the node has WAL behind fork_lsn that was saved and
#                    must not be replayed; '' = it has none
#   fork_lsn         where the node's history leaves the primary's
#   segment_size     of WAL segments, in bytes
#   OID LOCATION ... (positional) the primary's tablespaces; those that the node lacks are
#                    made at the same place, which must be free
#
# A server that crashed is recovered first (recover.sh). The mark tells how far the rewind is
# (mark.sh); while the data directory is as it was, so is the mark. From before pg_rewind
# begins until configure.sh has ended, no server can be started there. The output of pg_rewind
# goes to stderr at once, and to rewind.log.
#
# prints:
#   result        rewound | not_required
#   next_segment  rewound: the first WAL file that the server will have to ask for
#   changed       on failure: yes | no, whether the data directory may have been changed
#   lost_wal_dir  where the WAL is that stage_wal.sh has staged, unless nothing was changed
# fails:
#   needs_copy          only a new copy helps
#   tablespace_in_use   something else is in a LOCATION
#   source_unreachable  no_space  permission  running  rewind_failed
# shellcheck disable=SC2317,SC2329 # functions that each_own() calls
set -u
# shellcheck source=src/remote/lib.sh
. "${0%/*}/lib.sh"
# shellcheck source=src/remote/mark.sh
. "${0%/*}/mark.sh"
# shellcheck source=src/remote/messages.sh
. "${0%/*}/messages.sh"
# shellcheck source=src/remote/standby.sh
. "${0%/*}/standby.sh"
# shellcheck source=src/remote/control.sh
. "${0%/*}/control.sh"
# shellcheck source=src/remote/recover.sh
. "${0%/*}/recover.sh"
# shellcheck source=src/remote/aside.sh
. "${0%/*}/aside.sh"
# shellcheck source=src/remote/own.sh
. "${0%/*}/own.sh"
# shellcheck source=src/remote/staged.sh
. "${0%/*}/staged.sh"

: "${config=}" "${conninfo?}" "${passfile=}" "${restore_command=}" "${version?}" "${keep_slots=}" \
    "${lost_tli=}" "${fork_lsn=0/0}" "${segment_size=16777216}"
try_reason=rewind_failed
log=$work/rewind.log
aside=$work/aside
per_id=$((4294967296 / segment_size))
boot=
was=

# mark_rewind PHASE
mark_rewind() {
    write_mark "$1" method=rewind boot="$boot" fork="$fork_lsn"
}

# as_it_was: puts back what a server needs to start as what it was.
as_it_was() {
    put_back || give_up yes permission "could not put back what is in $work/own"
    own_back
    for signal in standby.signal recovery.signal; do
        if [ -e "$aside/$signal" ]; then
            mv -f "$aside/$signal" "$pgdata/$signal"
        fi
    done
    [ "$was" = swapped ] || allow_start
}

# forget: nothing was changed, so the node is what it was.
forget() {
    as_it_was
    [ ! -e "$saved/was_restored" ] || mv -f "$saved/was_restored" "$saved/restored"
    drop_staged
    rm -rf "$aside/wal"
    if [ -n "$was" ]; then
        mark_rewind "$was"
    else
        remove_mark || give_up no permission "could not remove $mark"
    fi
}

# publish: what is staged has no name in pg_wal any more. Where the fork is not known, it may be
# needed there.
publish() {
    if [ "$fork" -gt 0 ]; then
        publish_staged yes
    else
        publish_staged no
    fi
}

# give_up CHANGED REASON TEXT
give_up() {
    emit changed "$1"
    if [ "$1" = yes ] && ! publish; then
        say "the WAL that is lost could not be moved from $staged to $kept: it is there still"
    fi
    shift
    die "$@"
}

# unchanged REASON TEXT: gives up, having changed nothing yet.
unchanged() {
    forget
    give_up no "$@"
}

# why LOG: the reason that the messages in LOG give.
why() {
    reason_of "$1" rewind_failed running no_space permission needs_copy source_unreachable
}

# lsn_number LSN: prints it as a number.
lsn_number() {
    printf '%s' "$((0x${1%/*} * 4294967296 + 0x${1#*/}))"
}

# fork_at LSN: sets fork_lsn, fork and fork_number, the number of its segment.
fork_at() {
    fork_lsn=$1
    fork=$(lsn_number "$1")
    fork_number=$((fork / segment_size))
}

# names_in FOLDER TIMELINE LABEL: prints a line for every segment in it, its name without the
# timeline, and LABEL; ???????? = of all timelines.
names_in() {
    find "$1/" -mindepth 1 -maxdepth 1 -type f -name "$2????????????????" |
        sed "s/.*\(.\{16\}\)\$/\1 $3/"
}

# put_wal_back SEGMENT...
put_wal_back() {
    [ $# -eq 0 ] || mv -t "$pgdata/pg_wal" -- "$@" || give_up yes permission "could not put back the node's WAL into $pgdata/pg_wal"
}

# wal_back: puts back the node's own segments before the fork, which were linked before the
# rewind. A rewound server replays from the last common checkpoint on; pg_rewind before 18
# leaves it only the WAL that the source has, which may begin later. Sets next to the first
# segment that the server will have to ask for.
wal_back() {
    next=$(sed -n 's/^START WAL LOCATION: .*(file \([0-9A-F]*\)).*/\1/p' "$pgdata/backup_label" 2>/dev/null)
    [ -n "$next" ] || return 0
    timeline=${next%????????????????}
    segment_number "$next" || return 0
    wanted=$number
    set --
    # where both folders have a segment, the line of pg_wal comes first
    while read -r segment place; do
        if ! segment_number "$timeline$segment" || [ "$number" -lt "$wanted" ]; then
            continue
        fi
        [ "$number" -eq "$wanted" ] || break
        if [ "$place" -eq 2 ]; then
            [ "$number" -lt "$fork_number" ] || break
            set -- "$@" "$aside/wal/$timeline$segment"
            [ $# -lt 500 ] || { put_wal_back "$@" && set --; }
        fi
        wanted=$((wanted + 1))
    done <<SEGMENTS
$({ names_in "$pgdata/pg_wal" "????????" 1; names_in "$aside/wal" "$timeline" 2; } 2>/dev/null | sort)
SEGMENTS
    put_wal_back "$@"
    next=$(printf '%s%08X%08X' "$timeline" "$((wanted / per_id))" "$((wanted % per_id))")
}

# drop_lost_wal: takes WAL behind the fork, which was saved, out of pg_wal. A standby that has
# received such WAL, but not replayed it, needs no rewind, and would replay the WAL at its next
# start. Later segments go whole; the one with the fork loses its end. Segments and histories of
# later timelines go too: the primary has what belongs to it.
drop_lost_wal() {
    [ "$fork" -gt 0 ] || return 0
    for file in "$pgdata/pg_wal/"????????.history "$pgdata/pg_wal/"????????????????????????; do
        wal_file=${file##*/}
        wal_file=${wal_file%.history}
        case $wal_file in *[!0-9A-F]*) continue ;; esac
        if [ ! -f "$file" ] || [ "$((0x${wal_file%"${wal_file#????????}"}))" -le "$lost_tli" ]; then
            continue
        fi
        if [ "$wal_file" != "${file##*/}" ] || ! segment_number "$file" || [ "$number" -ge "$fork_number" ]; then
            rm -f "$file" || unchanged permission "could not remove $file"
        fi
    done
    for segment in "$pgdata/pg_wal/$(printf %08X "$lost_tli")"????????????????; do
        segment_number "$segment" || continue
        if [ "$number" -gt "$fork_number" ]; then
            rm -f "$segment" || unchanged permission "could not remove $segment"
        elif [ "$number" -eq "$fork_number" ]; then
            offset=$((fork % segment_size))
            if ! { head -c "$offset" "$segment" &&
                head -c "$((segment_size - offset))" /dev/zero; } >"$work/segment.tmp"; then
                unchanged no_space "could not write $work/segment.tmp"
            fi
            sync "$work/segment.tmp" 2>/dev/null
            mv -f "$work/segment.tmp" "$segment" || unchanged permission "could not write $segment"
        fi
    done
}

# drop_read_wal: removes the segments with WAL behind the fork that pg_rewind has read, and
# left. The server would replay that WAL, at the latest when a promotion gives the number of
# its timeline to another one. The segments that pg_rewind wrote are the source's.
drop_read_wal() {
    [ "$fork" -gt 0 ] || return 0
    for segment in "$pgdata/pg_wal/"????????????????????????; do
        # shellcheck disable=SC2039,SC3013 # -nt is in dash and in POSIX.1-2024
        if segment_number "$segment" && [ "$number" -ge "$fork_number" ] && ! [ "$segment" -nt "$mark" ]; then
            rm -f "$segment" || give_up yes permission "could not remove $segment"
        fi
    done
}

# control_end: sets end to where a server ended that was shut down, or returns 1.
control_end() {
    case $state in
        'shut down') end=$(control_value 'Latest checkpoint location') ;;
        'shut down in recovery') end=$(control_value 'Minimum recovery ending location') ;;
        *) return 1 ;;
    esac
    end=$(lsn_number "${end:-0/0}")
    # a primary's checkpoint begins at its LSN
    [ "$state" = 'shut down in recovery' ] || end=$((end + 1))
    [ "$end" -gt 1 ]
}

# not_past_fork: has the server replayed nothing behind the fork, so that it only has to be
# started? pg_rewind before 13 asks only whether it ends exactly at the fork: a server that
# ends before it would be rewound, or the rewind would fail.
not_past_fork() {
    control_end && [ "$end" -le "$fork" ]
}

# not_required: does what a server needs that only has to be started. Ends here.
not_required() {
    [ -z "$lost_tli" ] || drop_lost_wal
    drop_slots
    publish || unchanged permission "could not save what is in $staged"
    forget
    emit result not_required
    exit 0
}

# database_versions: pg_rewind before 14 copies no file PG_VERSION, not even that of a database
# which the node lacks, and nobody could connect to that database.
database_versions() {
    for folder in "$pgdata"/base/[1-9]* "$pgdata"/pg_tblspc/*/PG_*/[1-9]*; do
        if [ -d "$folder" ] && [ ! -e "$folder/PG_VERSION" ]; then
            cp "$pgdata/PG_VERSION" "$folder/PG_VERSION" ||
                give_up yes rewind_failed "could not write $folder/PG_VERSION"
            sync "$folder/PG_VERSION" 2>/dev/null
        fi
    done
}

# after_rewind: does what is left when pg_rewind has rewound the data. Ends here.
after_rewind() {
    put_back || give_up yes permission "could not put back what is in $work/own"
    (own_back) || { emit changed yes && exit 1; }
    # the source is a primary, so what pg_rewind leaves is one
    make_standby "$pgdata" "$version" || give_up yes rewind_failed "could not make $pgdata a standby"
    database_versions
    drop_read_wal
    wal_back
    rm -rf "$aside"
    publish || give_up yes permission "could not save what is in $staged"
    drop_slots
    put_back_slots || give_up yes rewind_failed "could not put back the slot ${slot##*/}"
    rm -f "$saved/was_restored"
    mark_rewind rewound
    emit result rewound
    emit next_segment "$next"
    exit 0
}

# touched [FIND_OPTION...]: has a file of the data directory been written since the mark was?
touched() {
    [ -n "$(find -L "$pgdata" "$@" -newer "$mark" -print 2>/dev/null | head -n 1)" ]
}

# this_boot: was the mark written since the machine was booted?
this_boot() {
    [ -n "$boot" ] && [ "$mark_boot" = "$boot" ]
}

# go_on: looks at what an interrupted attempt left, and ends here if that is all that is to be
# known. pg_rewind says "need to copy" before its first change. A log without these words proves
# that nothing was changed only if it is of this boot, and no file is newer than the mark.
go_on() {
    case $mark_phase in
        '')
            ! starts_no_server "$pgdata" ||
                give_up yes needs_copy "$pgdata is as a rewind that failed half-way leaves it, which no server starts from"
            ;;
        swapped | ready | stopped) was=$mark_phase ;; # of an earlier job or step
        recovering) as_it_was ;;
        rewinding)
            if this_boot && grep -q 'Done!' "$log" 2>/dev/null; then
                [ -z "$mark_fork" ] || fork_at "$mark_fork"
                after_rewind
            elif this_boot && { [ ! -e "$log" ] || [ -s "$log" ]; } && ! grep -qs 'need to copy' "$log" && ! touched; then
                as_it_was
            else
                give_up yes needs_copy "an earlier rewind was interrupted and left the data directory half-changed"
            fi
            ;;
        rewound)
            wal_back
            emit next_segment "$next"
            emit result rewound
            exit 0
            ;;
        *) give_up yes needs_copy "$mark says that the data directory is in phase $mark_phase" ;;
    esac
}

# check_folders: pg_rewind reads all that is in the data directory, and removes what the
# primary does not have.
check_folders() {
    for folder in "$pgdata" "$pgdata/pg_wal" "$pgdata"/pg_tblspc/*; do
        if [ -d "$folder/lost+found" ] && [ ! -r "$folder/lost+found" ]; then
            give_up no needs_copy "pg_rewind cannot work with $folder/lost+found, which it may not read"
        fi
        for ours in "$folder"/.follow_primary_*; do
            case ${ours##*/} in
                .follow_primary_new) rm -rf "$ours" ;;
                *) [ ! -e "$ours" ] || give_up no needs_copy "pg_rewind would remove $ours, which holds replaced data" ;;
            esac
        done
    done
}

# make_tablespaces OID LOCATION...: makes the directories of the primary's tablespaces that the
# node lacks. pg_rewind would write into a directory that is there, whosever it is: on one
# machine it may be the primary's own.
make_tablespaces() {
    while [ $# -ge 2 ]; do
        if [ ! -e "$pgdata/pg_tblspc/$1" ] && [ ! -h "$pgdata/pg_tblspc/$1" ]; then
            for link in "$pgdata"/pg_tblspc/*; do
                # shellcheck disable=SC2039,SC3013 # -ef is in dash and in POSIX.1-2024
                if [ -h "$link" ] && [ "$link" -ef "$2" ]; then
                    give_up no needs_copy "$2 was made a tablespace anew after the fork: a rewind would mix up the old and the new one"
                fi
            done
            if [ -n "$(find -H "$2" -mindepth 1 -maxdepth 1 ! -name lost+found 2>/dev/null | head -n 1)" ]; then
                give_up no tablespace_in_use "$2 is a tablespace of the primary; on the node it is not one, and not empty"
            fi
            mkdir -p "$2" 2>/dev/null
            [ -w "$2" ] || give_up no permission "the primary's tablespace directory $2 is not on the node, and cannot be made"
        fi
        shift 2
    done
}

# recover: crash recovery, if the server crashed.
recover() {
    crashed_as || give_up no needs_copy "pg_controldata says that the cluster of $pgdata is in state \"$state\""
    [ -n "$crashed" ] || return 0
    say "the server was not shut down cleanly ($state): running crash recovery"
    if [ "$crashed" = standby ] && [ "$version" -lt 130000 ]; then
        give_up no needs_copy "a crashed standby before PostgreSQL 13 cannot be recovered without being started"
    fi
    mark_rewind recovering
    case $crashed in
        primary) recover_primary ;;
        standby) recover_standby ;;
    esac
    code=$?
    [ "$code" -ne 0 ] || return 0
    reason=$(why "$work/recovery.log")
    # a panic, whatever it was about, ends the server by a signal
    [ "$reason" != rewind_failed ] || [ "$code" -le 128 ] || reason=needs_copy
    unchanged "$reason" "crash recovery failed"
}

# prevent_start: see forbid_start().
prevent_start() {
    forbid_start "$pgdata" ||
        unchanged permission "$pgdata cannot be kept from being started while it is half-changed: its file system or owner lets no mode be set"
}

# folders_away: moves the folders that are the node's own out of the way, as far as that can be
# done; else ends here, for pg_rewind would remove them. A restore_command that names one of them
# gets its new name; one with relative names runs where all of them are.
folders_away() {
    [ -s "$saved/folders" ] || return 0
    mark_rewind recovering
    prevent_start
    if ! (own_aside); then
        forget
        emit changed no
        exit 1
    fi
    each_own folders rename_in_command
    [ "$directory" = . ] || cd "$saved/data" || unchanged permission "could not change to $saved/data"
}

# rename_in_command FOLDER
rename_in_command() {
    command=$restore_command
    restore_command=
    while :; do
        case $command in
            *"$pgdata/$1"*)
                restore_command=$restore_command${command%%"$pgdata/$1"*}$saved/data/$1
                command=${command#*"$pgdata/$1"}
                ;;
            *) break ;;
        esac
    done
    restore_command=$restore_command$command
}

# run_pg_rewind: its output is in $log, its exit code is returned.
run_pg_rewind() {
    enter_pgdata || unchanged permission "could not change to $pgdata"
    [ "$directory" = . ] || cd "$pgdata" || unchanged permission "could not change to $pgdata"
    folders_away
    set -- "$bin/pg_rewind" -P -D "$directory" --source-server="$conninfo"
    if [ "$version" -ge 130000 ]; then
        set -- "$@" --no-ensure-shutdown
        if [ -n "$restore_command" ] && [ "$version" -ge 150000 ]; then
            # pg_rewind reads the command from a configuration file, where it takes one line of
            # it, and needs no other setting there
            one_line "$restore_command"
            printf 'restore_command = %s\n' "$(quoted_setting "$one_line")" >"$work/rewind.conf"
            set -- "$@" -c --config-file="$work/rewind.conf"
        elif [ -n "$restore_command" ] && [ -z "$config" ] && [ ! -h "$pgdata/postgresql.conf" ] &&
            [ -n "$(postgres -C restore_command 2>/dev/null </dev/null)" ]; then
            set -- "$@" -c
        elif [ -n "$restore_command" ]; then
            say "pg_rewind before 15 uses only a restore_command in $pgdata/postgresql.conf: going without"
        elif [ -n "$config" ] && [ "$version" -ge 150000 ]; then
            set -- "$@" --config-file="$config"
        fi
    fi
    if command -v stdbuf >/dev/null 2>&1; then
        set -- stdbuf -oL "$@" # before 12 progress goes to stdout
    fi

    # Links, since what pg_rewind overwrites in place is not needed from here. A pg_wal on
    # another file system goes without.
    rm -rf "$aside/wal"
    # in several calls, where there are more than one takes
    mkdir "$aside/wal" && find "$pgdata/pg_wal/" -mindepth 1 -maxdepth 1 -type f -name "????????????????????????" \
        -exec ln -t "$aside/wal/" '{}' + 2>/dev/null

    # When the job is ended, so is pg_rewind, and this script goes on to say what has changed.
    trap : TERM PIPE
    rm -f "$log"
    if [ -e "$saved/restored" ]; then
        # forget() puts it back
        mv -f "$saved/restored" "$saved/was_restored" && sync "$saved" 2>/dev/null
    fi
    mark_rewind rewinding
    prevent_start
    put_aside || unchanged permission "something in $pgdata cannot be moved out of the way of pg_rewind"
    renew_mark # what has been moved is no change of pg_rewind
    : >"$log"
    logged "$log" "$@" </dev/null
    rewind_rc=$?
    rm -f "$work/rewind.conf"
    return "$rewind_rc"
}

data_umask
PGOPTIONS='-c role=none' # whatever the database's owner has set
export PGOPTIONS
use_passfile "$passfile"
signs_of_life
[ "$config" != "$pgdata/postgresql.conf" ] || config=
[ ! -r /proc/sys/kernel/random/boot_id ] || read -r boot </proc/sys/kernel/random/boot_id
fork_at "$fork_lsn"

make_work
mkdir -p "$aside" || die permission "could not make $aside"
if server_pid; then
    give_up no running "the server of $pgdata runs, as process $pid"
fi
read_mark
go_on
read_state || {
    say "$control"
    give_up no needs_copy "the control file of $pgdata cannot be read"
}
check_folders
make_tablespaces "$@"
recover
if [ "$version" -lt 130000 ] && not_past_fork; then
    not_required
fi

run_pg_rewind || {
    rc=$?
    # On a full disk the log lacks what it should tell, so the files are looked at as well. What
    # is new in pg_wal may have come from the archive.
    if grep -q 'need to copy' "$log" || touched -name pg_wal -prune -o; then
        give_up yes "$(why "$log")" "pg_rewind failed with exit code $rc after it began to change the data directory"
    fi
    unchanged "$(why "$log")" "pg_rewind failed with exit code $rc; it changed nothing"
}
trap - TERM PIPE
if grep -q 'no rewind required' "$log"; then
    # pg_rewind compares timelines by number
    [ -z "$crashed" ] || read_state
    if [ -n "$lost_tli" ] && control_end && [ "$end" -gt "$fork" ]; then
        unchanged needs_copy "pg_rewind sees no need to rewind, but the data is past the fork"
    fi
    not_required
fi
after_rewind
