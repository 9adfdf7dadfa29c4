#!/bin/sh
# copy_command.sh - has a command of the DBA's fill the directory of the copy, beside the node's
# data, and tells what came. What the worker finds good, take_copy.sh takes.
#
# arguments:
#   command     run by sh -c; it finds the directories in its environment, as below
#   passfile    password file; '' = libpq's default
#   version     server_version_num of the primary
#   system_id   of the cluster
#   total       kB that the copy will have, as the primary's data tells
#   restore_command  what the node will have; for the history of the backup
#   waldir      the node's WAL folder if it is a folder or a mount point of its own; else ''
#   OID LOCATION ...  (positional) the primary's tablespaces, and where the node has each
#
# The environment of the command:
#   FOLLOW_PRIMARY_DATA  the directory to fill; empty
#   FOLLOW_PRIMARY_MAP   a file with a line "OID DIRECTORY" for each tablespace; they are empty,
#                        too
#   FOLLOW_PRIMARY_OLD   the node's present data directory, to be read alone
#   FOLLOW_PRIMARY_COPY  a word by which we know the processes of the command, to end them with it
#
# Progress goes to stderr as "  KB/TOTAL kB" when the copy has grown. While it does not, and
# nothing of the command uses the processor, nothing is said.
#
# prints:
#   path      where the copy is
#   timeline  on which the backup began
#   start     where it began, an LSN: the WAL is needed from there on
#   end       where it ended, if that can be told
#   segments  how many segments from there on are in the copy
#   history   the history file of the timeline, if it can be had
#   next_oid  the next oid, as the checkpoint that the copy begins with tells
#   restore_command  what the command has set to fetch WAL with
# fails:
#   no_space  permission  mount_point  swap_unfinished  tablespace_in_use   as basebackup.sh
#   command_failed  the command failed; what it said last is on stderr
#   changed_outside the command changed the node's own data
#   incomplete      what it left is no whole data directory
#   other_version   ... of another version
#   other_cluster   ... of another cluster
#   leads_out       links lead out of it
set -u
# shellcheck source=src/remote/lib.sh
. "${0%/*}/lib.sh"
# shellcheck source=src/remote/mark.sh
. "${0%/*}/mark.sh"
# shellcheck source=src/remote/folders.sh
. "${0%/*}/folders.sh"
# shellcheck source=src/remote/standby.sh
. "${0%/*}/standby.sh"
# shellcheck source=src/remote/control.sh
. "${0%/*}/control.sh"

: "${command?}" "${passfile=}" "${version?}" "${system_id?}" "${total=0}" "${restore_command=}" "${waldir=}"
log=$work/copy.log
# shellcheck source=src/remote/copies.sh
. "${0%/*}/copies.sh"

# make_places OID LOCATION...: makes the directories, and sets new and copies as basebackup.sh
# does.
make_places() {
    copies=
    : >"$work/copy.map" || fail no_space "could not write $work/copy.map"
    while [ $# -ge 2 ]; do
        location_place "$2"
        mkdir -p "$new" || fail permission "could not make $new"
        printf '%s %s\n' "$1" "$new" >>"$work/copy.map" || fail no_space "could not write $work/copy.map"
        shift 2
    done
    data_places
    mkdir -p "$new" || fail permission "could not make $new"
}

# live_files: prints what tells that nobody has put other files in the place of the node's own. A
# server writes into them, and never replaces them.
live_files() {
    stat -Lc '%n %i %a' -- "$pgdata/PG_VERSION" "$pgdata/global/pg_control" "$pgdata"/pg_tblspc/* "$pgdata/pg_wal/." 2>/dev/null
}

# check_live: dies if the command has changed the node's own data. Of a server that runs only some
# files can be told from what it writes itself.
check_live() {
    [ "$(live_files)" = "$live_before" ] ||
        fail changed_outside "the command has replaced files in $pgdata itself"
    if [ "$down" = no ] || server_pid; then
        return 0
    fi
    changed=$(find "$pgdata"/base "$pgdata"/global "$pgdata"/pg_*/ "$pgdata"/pg_tblspc/*/ -name '.follow_primary_*' -prune -o \
        -cnewer "$work/copy.began" -print 2>/dev/null | head -n 3)
    [ -z "$changed" ] || fail changed_outside "the command has changed files of the node's own data:$nl$changed"
}

# family_pids: prints the processes of the command, those in sessions of their own included.
family_pids() {
    grep -lsaF "FOLLOW_PRIMARY_COPY=$family_name" /proc/[0-9]*/environ 2>/dev/null | while IFS=/ read -r _ _ pid _; do
        echo "$pid"
    done
}

# end_family: ends them all, politely first.
end_family() {
    for signal in TERM TERM KILL KILL; do
        pids=$(family_pids)
        [ -n "$pids" ] || return 0
        # shellcheck disable=SC2086 # a list
        kill -"$signal" $pids 2>/dev/null
        sleep 0.3 2>/dev/null || sleep 1
    done
}

# processor_used: prints how much of the processor the command has used.
processor_used() {
    cat /proc/[0-9]*/stat 2>/dev/null | awk -v root="$runner" '
        {
            pid = $1
            sub(/.*\) /, "") # a name may have spaces
            parent[pid] = $2
            ticks[pid] = $12 + $13 + $14 + $15
        }
        END {
            for (pid in ticks) {
                for (p = pid; p > 1 && p != root; p = parent[p])
                    ;
                if (p == root)
                    all += ticks[pid]
            }
            print all + 0
        }'
}

# watch_growth: tells how the copy grows, until it is ended. A look at many files takes its time, so it
# is not taken all the time.
watch_growth() {
    nap=''
    trap 'kill "$nap" 2>/dev/null; exit' TERM
    size_seen=0 used_seen=''
    pause=1
    while :; do
        sleep "$pause" >/dev/null 2>&1 &
        nap=$!
        wait "$nap"
        began=$(date +%s)
        size=$(size_of_copies)
        pause=$((2 + 5 * ($(date +%s) - began)))
        used=$(processor_used)
        if [ "$size" != "$size_seen" ]; then
            [ "$total" -ge "$size" ] || total=$size
            printf '  %s/%s kB\n' "$size" "$total" >&2
        elif [ "$used" != "$used_seen" ]; then
            echo >&2
        fi
        size_seen=$size used_seen=$used
    done
}

# run_command: has the command make the copy; returns its exit code. What it leaves running ends
# with it.
run_command() {
    family_name=$job-$token
    (
        FOLLOW_PRIMARY_DATA=$new FOLLOW_PRIMARY_MAP=$work/copy.map FOLLOW_PRIMARY_OLD=$pgdata
        FOLLOW_PRIMARY_COPY=$family_name
        export FOLLOW_PRIMARY_DATA FOLLOW_PRIMARY_MAP FOLLOW_PRIMARY_OLD FOLLOW_PRIMARY_COPY
        trap - TERM PIPE
        exec sh -c "$own_locale$command"
    ) </dev/null >"$log" 2>&1 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&- &
    runner=$!
    watch_growth </dev/null >/dev/null &
    watcher=$!
    trap 'kill "$watcher" 2>/dev/null; end_family; fail ended "the copy was ended"' TERM
    wait "$runner"
    rc=$?
    kill "$watcher" 2>/dev/null
    end_family
    trap 'fail ended "the copy was ended"' TERM
    return "$rc"
}

# incomplete TEXT
incomplete() {
    fail incomplete "what the command left in $new is no whole data directory: $1"
}

# check_data: is it a data directory of this cluster?
check_data() {
    [ -n "$(ls -A "$new")" ] || incomplete "there is nothing"
    [ -f "$new/PG_VERSION" ] || incomplete "there is no PG_VERSION"
    read_file "$new/PG_VERSION"
    [ "$text" = "$major" ] ||
        fail other_version "what the command left in $new is of PostgreSQL $text, the primary is $major"
    [ -f "$new/global/pg_control" ] || incomplete "there is no global/pg_control"
    read_control "$new" || incomplete "its control file is damaged: $(printf '%s\n' "$control" | head -n 1)"
    id=$(control_value 'Database system identifier')
    [ "$id" = "$system_id" ] ||
        fail other_cluster "the copy's system identifier is $id, the primary's $system_id"
    for folder in base global pg_xact pg_multixact/members pg_multixact/offsets pg_tblspc pg_twophase; do
        [ -d "$new/$folder" ] || incomplete "there is no $folder"
    done
    for folder in base/1 base/*; do
        case ${folder##*/} in *[!0-9]*) continue ;; esac
        for file in PG_VERSION pg_filenode.map; do
            [ -s "$new/$folder/$file" ] || incomplete "there is no $folder/$file"
        done
    done
    [ -s "$new/global/pg_filenode.map" ] || incomplete "there is no global/pg_filenode.map"
    foreign=$(printf '%s\n' "$copies" | while IFS= read -r path; do
        find "$path/" ! -user "$(id -un)" -print 2>/dev/null
    done | head -n 1)
    [ -z "$foreign" ] || fail permission "$foreign belongs to another account: the server could not use it"
}

# take_tablespaces: the copy's links lead to the directories that we gave. A tablespace that is
# younger than the backup comes with the WAL, for which its directory must be there.
take_tablespaces() {
    rm -f "$new/tablespace_map" "$new/tablespace_map.old"
    while IFS=' ' read -r oid place; do
        link=$new/pg_tblspc/$oid
        if [ -n "$(ls -A "$place")" ]; then
            ls -d "$place/PG_${major}_"* >/dev/null 2>&1 ||
                incomplete "$place has no tablespace of PostgreSQL $major"
        elif [ -h "$link" ] || [ -e "$link" ]; then
            fail leads_out "the tablespace $oid is not in $place: the command has not heeded the map"
        fi
        [ ! -d "$link" ] || [ -h "$link" ] || fail leads_out "$link is a directory: the command has not heeded the map"
        rm -f "$link"
        ln -s "$place" "$link" || fail permission "could not make $link"
    done <"$work/copy.map"
    for link in "$new"/pg_tblspc/*; do
        there "$link" || continue
        awk -v oid="${link##*/}" '$1 == oid { found = 1 } END { exit !found }' "$work/copy.map" ||
            fail leads_out "the copy has a tablespace ${link##*/}, which the primary does not have"
    done
}

# take_wal: the WAL that came is where the node has its WAL.
take_wal() {
    [ ! -h "$new/pg_wal" ] || fail leads_out "$new/pg_wal is a link to $(readlink "$new/pg_wal")"
    mkdir -p "$new/pg_wal/archive_status" || fail permission "could not make $new/pg_wal"
    [ -n "$waldir" ] || return 0
    if ! { mkdir -p "$new_wal" && cp -Rp "$new/pg_wal/." "$new_wal/" && rm -rf "$new/pg_wal" &&
        ln -s "$new_wal" "$new/pg_wal"; }; then
        fail no_space "could not bring the WAL to $new_wal"
    fi
}

# refuse_links: the node's own files come where they would lead.
refuse_links() {
    link=$(cd "$new" && find . -path './pg_tblspc/*' -prune -o -type l ! -path ./pg_wal -print | head -n 1)
    [ -z "$link" ] || fail leads_out "$new/${link#./} is a link to $(readlink "$new/$link")"
}

# strip: takes away what is another server's own, as pg_basebackup does.
strip() {
    mode=0700
    [ "$(umask)" != 0027 ] || mode=0750
    chmod "$mode" "$new" || fail permission "could not set the permissions of $new"
    rm -rf "$new"/postmaster.pid "$new"/postmaster.opts "$new"/current_logfiles "$new"/recovery.signal \
        "$new"/pg_replslot/* "$new"/pg_dynshmem/* "$new"/pg_notify/* "$new"/pg_serial/* "$new"/pg_snapshots/* \
        "$new"/pg_stat_tmp/* "$new"/pg_subtrans/*
    for folder in pg_replslot pg_dynshmem pg_notify pg_serial pg_snapshots pg_stat pg_stat_tmp pg_subtrans \
        pg_commit_ts pg_logical pg_logical/snapshots pg_logical/mappings; do
        mkdir -p "$new/$folder" || fail permission "could not make $new/$folder"
    done
}

# fetch FILE COMMAND: has the restore_command fetch a file of the archive to $work/copy.file.
fetch() {
    rm -f "$work/copy.file"
    [ -n "$2" ] || return 1
    set -- sh -c "$own_locale$(expand_restore_command "$2" "$1" "$work/copy.file" "$1")"
    ! timeout --foreground 1 true >/dev/null 2>&1 || set -- timeout --foreground 60 "$@"
    (cd "$new" && "$@") </dev/null >/dev/null 2>&1 && [ -s "$work/copy.file" ]
}

# get FILE: sets text to what is in a file of the backup's pg_wal, or of the archive.
get() {
    text=
    if [ -s "$new/pg_wal/$1" ]; then
        read_file "$new/pg_wal/$1"
    elif fetch "$1" "$own_restore" || fetch "$1" "$restore_command"; then
        read_file "$work/copy.file"
    fi
}

# set_restore_command: sets own_restore to what the command has set for the copy.
set_restore_command() {
    file=$new/postgresql.auto.conf
    [ "$version" -ge 120000 ] || file=$new/recovery.conf
    own_restore=
    [ ! -f "$file" ] || own_restore=$(awk "$awk_quotes"'
        {
            sub(/^[ \t]*/, "")
            name = tolower($0)
            sub(/[^a-z0-9_.].*$/, "", name)
            if (name == "restore_command")
                found = unquoted(substr($0, length(name) + 1))
        }
        END { printf "%s", found }' "$file")
}

# emit_begin_and_end: of the backup. Its label tells where it began; where it ended, its history
# file, its manifest, or, where it is of a standby, the control file. What has no label is a
# snapshot, and ends where its WAL ends.
emit_begin_and_end() {
    timeline=$(control_value "Latest checkpoint's TimeLineID")
    end=
    if [ -f "$new/backup_label" ]; then
        read_label
    else
        start=$(control_value "Latest checkpoint's REDO location")
        # The first segment is named: else pg_waldump takes the size of segments from any that is
        # there, perhaps one that was never written to.
        first=$(printf '%08X%08X%08X' "$timeline" "$((0x${start%/*}))" "$((0x${start#*/} / segment_size))")
        end=$("$bin/pg_waldump" -p "$new/pg_wal" -t "$timeline" -s "$start" "$first" 2>/dev/null |
            sed -n 's/.*, lsn: \([0-9A-F/]*\), prev .*/\1/p' | tail -n 1)
        end=${end:-$(control_value "Latest checkpoint location")}
    fi
    emit timeline "$timeline"
    emit start "$start"
    emit end "$end"
}

# read_label: sets timeline, start and end.
read_label() {
    read_file "$new/backup_label"
    label=$text
    name=$(printf '%s\n' "$label" | sed -n 's/^START WAL LOCATION: .*(file \([0-9A-F]\{24\}\)).*/\1/p')
    start=$(printf '%s\n' "$label" | sed -n 's/^START WAL LOCATION: \([0-9A-F/]*\) .*/\1/p')
    case $name/$start in
        */ | /*) incomplete "backup_label is not understood" ;;
    esac
    timeline=$((0x${name%????????????????}))
    # called by the offset in the segment
    get "$name.$(printf '%08X' "$((0x${start#*/} % segment_size))").backup"
    end=$(printf '%s\n' "$text" | sed -n 's/^STOP WAL LOCATION: \([0-9A-F/]*\) .*/\1/p')
    if [ -z "$end" ] && [ -f "$new/backup_manifest" ]; then
        # one may have been left by the backup that the primary itself once was
        end=$(tr -d ' \n' <"$new/backup_manifest" |
            sed -n 's,.*"WAL-Ranges":.*"Start-LSN":"'"$start"'"\,"End-LSN":"\([0-9A-F/]*\)".*,\1,p')
    fi
    case $label in
        *"BACKUP FROM: standby"*) end=${end:-$(control_value 'Minimum recovery ending location')} ;;
    esac
}

# emit_segments: how many segments of the backup's WAL came with it?
emit_segments() {
    log_id=$((0x${start%/*})) segment=$((0x${start#*/} / segment_size)) segments=0
    while [ -f "$new/pg_wal/$(printf '%08X%08X%08X' "$timeline" "$log_id" "$segment")" ]; do
        segments=$((segments + 1))
        segment=$((segment + 1))
        [ "$segment" -lt "$((0x100000000 / segment_size))" ] || segment=0 log_id=$((log_id + 1))
    done
    emit segments "$segments"
}

# said: what the command said last, on stderr.
said() {
    tail -c 4000 "$log" >&2
}

begin_copy "$@"
make_places "$@"
down=yes
! server_pid || down=no
live_before=$(live_files)
# ctimes are of the kernel's clock, which ticks
touch "$work/copy.began" || fail no_space "could not write in $work"
sleep 0.05 2>/dev/null || sleep 1
touch "$work/copy.began"
sleep 0.05 2>/dev/null || sleep 1
if run_command; then
    said
    check_live
    check_data
    strip
    take_wal
    take_tablespaces
    refuse_links
    segment_size=$(control_value 'Bytes per WAL segment')
    set_restore_command
    emit path "$new"
    emit_begin_and_end
    emit_segments
    get "$(printf '%08X' "$timeline").history"
    emit history "$text"
    emit restore_command "$own_restore"
    emit next_oid "$(control_value "Latest checkpoint's NextOID")"
    exit 0
fi
said
check_live
case $(tail -c 4000 "$log") in
    *'No space left on device'* | *'uota exceeded'*) fail no_space "the command failed with exit code $rc" ;;
esac
fail command_failed "the command failed with exit code $rc"
