#!/bin/sh
# survey.sh - tells what there is to know of a node; changes nothing.
#
# arguments: pgdata may be '' = that of the server which has the port
#   port      the port that PostgreSQL has there
#   config    the node's postgresql.conf, if the caller knows it; else ''
#   db_user   role to ask a running server as
#   db_name   database to connect to for that
#   passfile  password file for that; '' = libpq's default
#   host      the node's host, as the caller names it
#   recovery_file  the file that a job would write the settings of a standby to, relative to
#             pgdata or absolute
#   expired   yes = the password of db_user has expired on the primary, as the node will learn
#   start_command  of the DBA's, for the node; '' = pg_ctl
#   records   "KEY:FILE:OFFSET ...": WAL records whose first bytes are wanted, to be compared
#             with the primary's; FILE is their segment
#
# prints: what survey.c knows; the exit code is 0 whatever the state of the node is
# fails: where the question makes no sense
#   no_programs     there are no programs of PostgreSQL in bin
#   foreign_config  config belongs to another data directory
#   data_gone       there is the mark of a job, but no data any more
set -u
# shellcheck source=src/remote/lib.sh
. "${0%/*}/lib.sh"
# shellcheck source=src/remote/mark.sh
. "${0%/*}/mark.sh"
# shellcheck source=src/remote/settings.sh
. "${0%/*}/settings.sh"
# shellcheck source=src/remote/standby.sh
. "${0%/*}/standby.sh"
# shellcheck source=src/remote/log.sh
. "${0%/*}/log.sh"
# shellcheck source=src/remote/processes.sh
. "${0%/*}/processes.sh"
# shellcheck source=src/remote/port.sh
. "${0%/*}/port.sh"

: "${port=5432}" "${config=}" "${db_user=postgres}" "${db_name=postgres}" "${passfile=}" \
    "${host=localhost}" "${recovery_file=}" "${expired=no}" "${start_command=}" "${records=}"
running_config=''
pid=''
answer=''

# A node is asked often, and many at once: what the shell can find out itself starts no
# process here.

# resolve FOLDER: sets resolved to its one name, or returns 1. A subshell would be a process.
resolve() {
    cd -P -- "$1" 2>/dev/null || return 1
    resolved=$PWD
    cd /
}

# resolve_pgdata: what is beside the data directory is named after its one name, also where a
# swap has moved it away.
resolve_pgdata() {
    if [ "$pgdata" != "$port_owner" ]; then
        if ! { [ -d "$pgdata" ] && resolve "$pgdata"; }; then
            resolved=$(readlink -f -- "$pgdata")
        fi
        pgdata=${resolved:-$pgdata}
    fi
    name_places
}

# has_data FILE: does the settings file say that its data is pgdata? Returns 2 if it does not
# say where its data is.
has_data() {
    data=$(sed -n "s/^[[:space:]]*data_directory[[:space:]=]*'\([^']*\(''[^']*\)*\)'.*/\1/p" "$1" 2>/dev/null |
        sed -n "s/''/'/g; \$p")
    # a file in a data directory belongs to that one
    [ -n "$data" ] || [ ! -e "${1%/*}/PG_VERSION" ] || data=${1%/*}
    [ -n "$data" ] || return 2
    # shellcheck disable=SC2039,SC3013 # -ef is in dash and in POSIX.1-2024
    [ "$data" = "$asked" ] || [ "$data" = "$pgdata" ] || [ "$data" -ef "$pgdata" ]
}

# started_config OPTS: sets config to where the server that left this postmaster.opts had its
# settings from, unless they belong to another data directory.
started_config() {
    [ -r "$1" ] || return 0
    read_file "$1"
    case $text in
        *'"config_file='*) config=${text##*'"config_file='} ;;
        *'"--config'[-_]'file='*) config=${text##*'"--config'[-_]'file='} ;;
        *'"-D" "/'*)
            # perhaps a folder of configuration alone
            config=${text##*'"-D" "'}
            config=${config%%'" "'*}
            config=${config%'"'}/postgresql.conf
            has_data "$config" || config=
            ;;
    esac
    config=${config%%'" "'*}
    config=${config%'"'}
    case $config in
        /*) has_data "$config" || [ $? -eq 2 ] || config= ;;
        *) config= ;;
    esac
}

# find_config: tells where the configuration is; '' = in pgdata. A running server knows; the
# caller may know; else it is where the last start had it, whose postmaster.opts save_config.sh
# may have put aside; else where Debian's tools have it.
find_config() {
    if [ -n "$running_config" ]; then
        config=$running_config
    elif [ -n "$config" ]; then
        has_data "$config" || [ $? -eq 2 ] ||
            die foreign_config "\"$config\" is the configuration of \"$data\", not of \"$pgdata\""
    else
        for opts in "$pgdata/postmaster.opts" "$work/config/data/postmaster.opts"; do
            [ -n "$config" ] || started_config "$opts"
        done
        if [ -z "$config" ] && { [ ! -e "$pgdata/postmaster.opts" ] || [ ! -e "$pgdata/postgresql.conf" ]; }; then
            for file in "${PG_CLUSTER_CONF_ROOT:-/etc/postgresql}"/*/*/postgresql.conf; do
                [ ! -r "$file" ] || ! has_data "$file" || config=$file
            done
        fi
    fi
    # shellcheck disable=SC2039,SC3013 # as above
    if [ "${config##*/}" = postgresql.conf ] && [ "${config%/*}" -ef "$pgdata" ]; then
        config=
    fi
    emit config_file "$config"
    [ -f "${config:-$pgdata/postgresql.conf}" ] || emit config_missing yes
}

# look_at_files: sets beside to when a file beside pgdata last came or went, as every job's lock
# file does (lock.sh); inode to what is pgdata; log and log_size, where its server runs.
look_at_files() {
    log='' log_size=''
    ! server_pid || find_log
    stats=$(stat -Lc '%y=%d:%i=%s' -- "${pgdata%/*}/" "$pgdata" ${log:+"$log"} 2>/dev/null)
    { IFS='=' read -r beside _; IFS='=' read -r _ inode _; IFS='=' read -r _ _ log_size; } <<STATS
$stats
STATS
}

# emit_work: what an interrupted job has left; what is kept for people does not count.
emit_work() {
    read_mark
    if [ -n "$mark_phase" ]; then
        emit mark_phase "$mark_phase"
        emit mark_token "$mark_token"
        if mark_is_stale; then
            emit mark_stale yes
        else
            emit mark_stale no
        fi
    fi
    [ ! -e "$work/keep" ] || emit keep yes
    [ ! -s "$work/restore_command" ] || emit restore_copied yes
    uncounted=no
    for arguments in "$kept"/lost_wal-*/.uncounted/arguments "$work"/lost_wal-*/.uncounted/arguments; do
        [ ! -e "$arguments" ] || uncounted=yes
    done
    emit uncounted "$uncounted"
    if [ -e "$work" ] || [ -e "$kept.lock" ] || [ "$uncounted" = yes ]; then
        emit leftovers yes
    else
        emit leftovers no
    fi
    case $mark_phase in
        '' | clearing | swapping) ;;
        *)
            [ -e "$pgdata/PG_VERSION" ] ||
                die data_gone "$mark is the mark of an interrupted job, but $pgdata has no data any more"
            ;;
    esac
}

# shellcheck disable=SC2317,SC2329 # each_swapped() calls it
# emit_swapped N LIVE NEW OLD, by each_swapped
emit_swapped() {
    [ "$1" -eq 1 ] || emit tablespace.0 "$2"
}

# emit_no_data: there is none in the midst of a swap, or none that is whole; nor when the old
# data had to make room. Then a file tells which folders there are. Ends here.
emit_no_data() {
    if [ -n "$mark_phase" ]; then emit pgdata_state empty; else emit pgdata_state missing; fi
    find_config
    [ ! -e "$work/config/complete" ] || emit_settings primary_conninfo cluster_name synchronous_standby_names
    if [ -r "$work/swap.list" ]; then
        each_swapped emit_swapped <"$work/swap.list"
    elif [ -r "$work/layout" ]; then
        cat "$work/layout"
    fi
    exit 0
}

# is_empty FOLDER [ENTRY]: is nothing in the folder, or ENTRY alone, besides what a file system
# or a job of ours has there?
is_empty() {
    found=$(find "$1/" -mindepth 1 -maxdepth 1 ! -name lost+found ! -name '.follow_primary_*' -printf '%f\n')
    [ "$found" = "${2:-}" ]
}

# emit_pgdata: tells what is in pgdata. Ends here if that is no cluster.
emit_pgdata() {
    if [ ! -d "$pgdata" ]; then
        emit pgdata_state not_pgdata
        exit 0
    fi
    if [ ! -r "$pgdata" ] || [ ! -x "$pgdata" ]; then
        emit pgdata_state unreadable
        exit 0
    fi
    emit pgdata_inode "$inode"
    if [ ! -f "$pgdata/PG_VERSION" ] && { is_empty "$pgdata" ||
        { is_mount_point "$pgdata/pg_wal" && is_empty "$pgdata" pg_wal && is_empty "$pgdata/pg_wal"; }; }; then
        emit pgdata_state empty
        emit_folders
        find_config
        exit 0
    fi
    if [ ! -f "$pgdata/PG_VERSION" ] || [ ! -d "$pgdata/global" ]; then
        emit pgdata_state not_pgdata
        exit 0
    fi
    emit pgdata_state ok
    read_file "$pgdata/PG_VERSION"
    emit version "$text"
}

# find_server: sets pid to the server of pgdata, or returns 1, with left set to the processes that
# are at work there all the same. The children of a server that was killed take a moment to see
# that; and one that is being started, to write its lock file.
find_server() {
    left=''
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        if server_pid; then return 0; fi
        still_there || break
        sleep 0.2 2>/dev/null || sleep 1
    done
    pid=''
    return 1
}

# emit_left AS PID...: tells who is at work in pgdata, where that is no server to be asked.
emit_left() {
    emit left_as "$1"
    shift
    emit left_pid "$*"
    processes=''
    for process; do
        title_of "$process"
        processes="$processes${processes:+; }process $process: $title"
    done
    emit left_processes "$processes"
}

# find_first: sets first to the one of left that started the others, and inner to its pid where it
# runs.
find_first() {
    for first in $left; do
        parent=$(sed -n 's/^PPid:[[:space:]]*//p' "/proc/$first/status" 2>/dev/null)
        case " $left " in *" $parent "*) ;; *) break ;; esac
    done
    inner=$(sed -n 's/^NSpid:.*[[:space:]]//p' "/proc/$first/status" 2>/dev/null)
}

# emit_server: sets pid to the server of pgdata, '' if it does not run.
emit_server() {
    if find_server; then
        if [ "$single_user" = yes ]; then
            emit_left single_user "$pid"
            pid=''
        else
            lock_file "$pgdata/postmaster.pid"
            emit pid "$pid"
            emit running_port "$lock_port"
            emit status "$lock_status"
        fi
    elif [ -n "$left" ]; then
        find_first
        if ! lock_file "$pgdata/postmaster.pid"; then
            emit_left no_lock_file "$first"
        elif [ "$inner" != "$first" ] && [ "$inner" = "$lock_pid" ]; then
            emit_left contained "$first"
        else
            # shellcheck disable=SC2086 # words
            emit_left orphan $left
        fi
    fi
    [ -n "$pid" ] || emit control_time "$(control_time)"
    signal=
    for file in backup_label recovery.conf recovery.signal standby.signal; do
        [ ! -e "$pgdata/$file" ] || signal=$signal${signal:+$nl}$file
    done
    emit signal "$signal"
    control=$(TZ=UTC "$bin/pg_controldata" "$pgdata" 2>&1)
    emit controldata "$control"
}

# emit_started_with: what a start of the node sets that wins over the settings files: by the
# command for it, or where its server runs, as that was started.
emit_started_with() {
    text=
    [ -z "$pid" ] || [ ! -r "$pgdata/postmaster.opts" ] || read_file "$pgdata/postmaster.opts"
    started_with "$text $start_command"
    [ -z "$names" ] || emit started_with "$names"
}

# emit_wal: the newest timeline that it has WAL of, and some records. The names of segments
# that were made for future use tell the timeline that their maker was on.
emit_wal() {
    wal_timeline=
    for file in "$pgdata"/pg_wal/????????????????????????; do
        file=${file##*/}
        case $file in
            *[!0-9A-F]*) ;;
            *) wal_timeline=${file%????????????????} ;;
        esac
    done
    emit wal_timeline "$wal_timeline"
    for record in $records; do
        emit_record "$record"
    done
}

# emit_record KEY:FILE:OFFSET: the first bytes of the WAL record, its header and checksum among
# them: they are equal on two servers only if both have the same record there.
emit_record() {
    rest=${1#*:}
    file=$pgdata/pg_wal/${rest%:*}
    [ -f "$file" ] || return 0
    bytes=
    for byte in $(od -An -v -tx1 -j "${rest#*:}" -N 64 -- "$file" 2>/dev/null); do
        bytes=$bytes$byte
    done
    emit "record.${1%%:*}" "$bytes"
}

# after_label LABEL TEXT: sets value to what follows LABEL in its line of TEXT; '' without one.
# Line by line: to cut off what is before one, the shell reads the text as often as it has bytes.
after_label() {
    value='' label=$1 fields=$IFS IFS=$nl
    set -f
    # shellcheck disable=SC2086 # its lines
    set -- $2
    set +f
    IFS=$fields
    for line; do
        case $line in
            "$label"*)
                value=${line#"$label"}
                value=${value#"${value%%[! ]*}"}
                return
                ;;
        esac
    done
}

# emit_histories: those of the timelines that the node may be on. There may be hundreds of
# others in pg_wal; a history has all timelines that came before.
emit_histories() {
    told=' '
    for label in "Latest checkpoint's TimeLineID:" "Min recovery ending loc's timeline:" sql.receiver_timeline= \
        sql.recovery_timeline= sql.written= wal_timeline; do
        after_label "$label" "$control$nl$answer"
        case $label in
            sql.written=) value=${value%"${value#????????}"} value=${value:+$((0x$value))} ;;
            wal_timeline) value=${wal_timeline:+$((0x$wal_timeline))} ;;
        esac
        case $value in '' | *[!0-9]*) continue ;; esac
        case $told in *" $value "*) continue ;; esac
        told="$told$value "
        history=$(printf %08X "$value")
        [ ! -f "$pgdata/pg_wal/$history.history" ] || emit_file "history.$history" "$pgdata/pg_wal/$history.history"
    done
}

# question: what the running server is asked. Every line of its answer is key=value already,
# escaped as emit does.
question() {
    ask_server -U "$db_user" <<'SQL'
WITH settings AS (SELECT name, setting, pending_restart FROM pg_settings)
SELECT k || '=' || replace(replace(coalesce(v, ''), E'\\', E'\\\\'), E'\n', E'\\n')
FROM (
    SELECT 'sql.in_recovery' AS k, pg_is_in_recovery()::text AS v
    UNION ALL SELECT 'sql.received', pg_last_wal_receive_lsn()::text
    UNION ALL SELECT 'sql.replayed', pg_last_wal_replay_lsn()::text
    UNION ALL SELECT 'sql.written', CASE WHEN NOT pg_is_in_recovery() THEN
        pg_walfile_name(pg_current_wal_insert_lsn()) || ' ' || pg_current_wal_insert_lsn() END
    UNION ALL SELECT 'sql.paused', CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused()::text END
    UNION ALL SELECT 'sql.receiver', (SELECT status FROM pg_stat_wal_receiver)
    UNION ALL SELECT 'sql.receiver_timeline', (SELECT received_tli::text FROM pg_stat_wal_receiver)
    UNION ALL SELECT 'sql.receiver_slot', (SELECT slot_name FROM pg_stat_wal_receiver)
    UNION ALL SELECT 'sql.receiver_from', (SELECT sender_host || ':' || sender_port FROM pg_stat_wal_receiver)
    UNION ALL SELECT 'sql.recovery_timeline', (SELECT min_recovery_end_timeline::text FROM pg_control_recovery())
    UNION ALL SELECT CASE WHEN setting <> '' THEN 'sql.target' ELSE 'sql.target_written' END, name FROM settings
    WHERE name IN ('recovery_target', 'recovery_target_name', 'recovery_target_time', 'recovery_target_xid', 'recovery_target_lsn')
        AND (setting <> '' OR pending_restart)
    UNION ALL SELECT 'slot.' || slot_name, slot_type || CASE WHEN active THEN ' active' ELSE '' END
        FROM pg_replication_slots
    UNION ALL SELECT 'set.' || name, setting FROM settings
    WHERE name IN ('config_file', 'hot_standby', 'primary_conninfo', 'primary_slot_name', 'restore_command',
                   'recovery_target_timeline', 'recovery_min_apply_delay', 'server_version_num', 'max_connections',
                   'max_worker_processes', 'max_wal_senders', 'max_prepared_transactions', 'max_locks_per_transaction',
                   'shared_preload_libraries', 'cluster_name', 'synchronous_standby_names', 'recovery_target',
                   'recovery_target_name', 'recovery_target_time', 'recovery_target_xid', 'recovery_target_lsn',
                   'promote_trigger_file')) s
WHERE v IS NOT NULL;
SQL
}

# without_password: does the server let us in without one? Leaves answer as it was.
without_password() (
    unset PGPASSWORD
    export PGPASSFILE=/dev/null
    ask_server -U "$db_user" <<'SQL'
SELECT 1
SQL
)

# emit_answers: what the running server says, or why it says nothing. Sets running_config. It is
# asked twice if need be, for it may begin to accept connections in between.
emit_answers() {
    if [ -n "$log" ]; then
        emit log_file "$log"
        emit log_size "$log_size"
    fi
    if question || { accepts && question; }; then
        emit sql yes
        printf '%s\n' "$answer"
        [ "$expired" != yes ] || without_password || emit sql_by_password yes
    else
        emit sql no
        emit sql_error "$said"
        ! accepts || emit sql_refused yes
    fi
    after_label set.config_file= "$answer"
    running_config=$value
    case $running_config in
        *\\*) running_config=$(printf '%b' "$running_config") ;;
    esac
}

# emit_settings NAME...: what a server that is down would read; while the data may be the
# primary's, what save_config.sh saved of the node's own.
emit_settings() {
    of=$pgdata
    [ ! -e "$work/config/complete" ] || [ -e "$work/config/restored" ] || of=$work/config/data
    know_named "$of"
    for name; do
        emit "set.$name" "$(value_of "$name" '' "$of")"
    done
}

# emit_slots: the slots that a server which is down has left. A logical one has a database, at
# byte 80 of its state.
emit_slots() {
    for slot in "$pgdata"/pg_replslot/*; do
        [ -f "$slot/state" ] || continue
        case $(od -An -tu4 -j80 -N4 "$slot/state" 2>/dev/null | tr -d ' ') in
            0) emit "slot.${slot##*/}" physical ;;
            *) emit "slot.${slot##*/}" logical ;;
        esac
    done
}

# is_standbys SETTING: is it one that a standby's settings file may have?
is_standbys() {
    case $1 in
        standby_mode | primary_conninfo | primary_slot_name | recovery_* | restore_command | \
            archive_cleanup_command | trigger_file | promote_trigger_file | hot_standby | \
            hot_standby_feedback | max_standby_*_delay | wal_receiver_* | wal_retrieve_retry_interval | \
            sync_replication_slots | port | listen_addresses) return 0 ;;
    esac
    return 1
}

# emit_recovery_file: what keeps the recovery file from being written, if anything does: each
# job writes it anew, and keeps a standby's settings alone. After find_config.
emit_recovery_file() {
    case $recovery_file in
        '') return 0 ;;
        /*) ;;
        *) recovery_file=$pgdata/$recovery_file ;;
    esac
    # before 12 it is another one, and a job may have brought the primary's
    case $mark_phase in '' | stopped) ;; *) return 0 ;; esac
    read_file "$pgdata/PG_VERSION"
    [ "$text" -ge 12 ] 2>/dev/null && [ -e "$recovery_file" ] || return 0
    for file in "${config:-$pgdata/postgresql.conf}" "$pgdata/postgresql.auto.conf"; do
        # shellcheck disable=SC2039,SC3013 # as above
        if [ "$recovery_file" -ef "$file" ]; then
            emit recovery_file_taken "is the file \"$file\""
            return
        fi
    done
    if [ ! -f "$recovery_file" ]; then
        emit recovery_file_taken "is no regular file"
        return
    fi
    [ -r "$recovery_file" ] || return 0
    while IFS= read -r line || [ -n "$line" ]; do
        while :; do
            case $line in
                [[:blank:]]*) line=${line#?} ;;
                *) break ;;
            esac
        done
        setting=${line%%[!A-Za-z0-9_.]*}
        case $line in
            '' | '#'*) continue ;;
        esac
        if ! is_standbys "$setting"; then
            emit recovery_file_taken "holds \"${setting:-$line}\", which is no setting of a standby"
            return
        fi
    done <"$recovery_file"
}

survey() {
    boot_id=
    [ ! -r /proc/sys/kernel/random/boot_id ] || read -r boot_id </proc/sys/kernel/random/boot_id
    emit boot_id "$boot_id"
    emit home "$HOME"
    ssh_client=${SSH_CONNECTION:-}
    emit ssh_client "${ssh_client%% *}"

    if [ ! -x "$bin/postgres" ] || [ ! -x "$bin/pg_controldata" ]; then
        die no_programs "there is no PostgreSQL server in \"$bin\""
    fi
    # of the same package as the server, and quicker to start
    emit bin_version "$("$bin/pg_controldata" -V)"

    find_port_owner
    asked=$pgdata
    [ -n "$pgdata" ] || pgdata=$port_owner
    if [ -z "$pgdata" ]; then
        emit pgdata_state unknown
        exit 0
    fi
    resolve_pgdata
    emit pgdata "$pgdata"
    if [ ! -e "$pgdata" ] && [ ! -d "$kept" ]; then
        emit pgdata_state missing
        exit 0
    fi
    look_at_files
    emit beside "$beside"

    emit_work
    if [ ! -e "$pgdata" ] || { [ -n "$mark_phase" ] && [ ! -e "$pgdata/PG_VERSION" ]; }; then
        emit_no_data
    fi
    emit_pgdata
    emit_server
    emit_started_with
    emit_folders
    emit_wal
    if [ -n "$pid" ]; then
        connect_with "$passfile" "$db_name"
        emit_answers
    fi
    emit_histories
    recovery_conf "$pgdata"
    find_config
    emit_recovery_file
    if [ -z "$pid" ]; then
        emit_settings restore_command primary_conninfo cluster_name synchronous_standby_names
        emit_slots
    fi
}

# In one piece: each line would be a packet of its own, which wakes three processes.
report=$(survey)
status=$?
printf '%s\n' "$report"
exit "$status"
