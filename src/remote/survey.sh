# survey.sh - tells what there is to know of a node; changes nothing.
#
# Arguments:
#   1 PGDATA       data directory; '' = ask whichever server has the port
#   2 PORT         the port that PostgreSQL has there
#   3 BIN_DIR      directory of PostgreSQL's programs
#   4 CONFIG_FILE  postgresql.conf, if the caller knows; else ''
#   5 DB_USER      role to ask a running server as
#   6 DB_NAME      database to connect to for that
#   7 PASSFILE     password file for that; '' = libpq's default
#   8 HOST         the node's host, as the caller names it
#   9 RECORDS      "KEY:FILE:OFFSET ...": WAL records, by their segment's file, to
#                  read the first bytes of, for comparison with the primary's
#
# Prints key=value lines; survey.c knows them all. Exits 0 whatever the state
# of the node is, 1 when the question itself makes no sense there:
#   failed=no_programs     BIN_DIR has no PostgreSQL programs
#   failed=foreign_config  CONFIG_FILE is that of another data directory
set -u
# shellcheck source=src/remote/lib.sh
. "${0%/*}/lib.sh"
# shellcheck source=src/remote/recovery.sh
. "${0%/*}/recovery.sh"

pgdata=$1 port=$2 bin_dir=$3 config_file=$4 db_user=$5 db_name=$6 passfile=$7
host=$8 records=$9
connect_with "$passfile" "$db_name"

# A node is asked often, and many at once: what the shell can find out itself
# starts no process here.
boot_id=
[ ! -r /proc/sys/kernel/random/boot_id ] || read -r boot_id </proc/sys/kernel/random/boot_id
emit boot_id "$boot_id"
emit home "$HOME"
ssh_client=${SSH_CONNECTION:-}
emit ssh_client "${ssh_client%% *}"

if [ ! -x "$bin_dir/postgres" ] || [ ! -x "$bin_dir/pg_controldata" ]; then
    die no_programs "there is no PostgreSQL server in \"$bin_dir\""
fi
# Of the same package, and quicker to start than the server.
emit bin_version "$("$bin_dir/pg_controldata" -V)"

# Does a server that listens on address $1 (its first one) have the host's port?
# Several servers of one machine can share a port, on addresses of their own.
listens_on_host() {
    case $1 in
        '' | '*' | 0.0.0.0 | :: | localhost | "$host") return 0 ;;
    esac
    case $host in *[!0-9.]*) ;; *) return 1 ;; esac # an address already
    : "${host_addresses:=$(getent ahosts "$host" | awk '{ print $1 }')}"
    for address in $host_addresses; do
        [ "$address" != "$1" ] || return 0
    done
    return 1
}

# The data directory of the server that has the port, if it is ours to see. A
# postmaster's working directory is its data directory.
port_owner='' host_addresses=''
for lock in /proc/[0-9]*/cwd/postmaster.pid; do
    [ -r "$lock" ] || continue
    process=${lock#/proc/}
    process=${process%%/*}
    { read -r owner_pid && read -r owner_dir && read -r _ &&
        read -r owner_port && read -r _ && read -r owner_listen; } <"$lock" || continue
    if [ "$owner_pid" = "$process" ] && [ "$owner_port" = "$port" ] && listens_on_host "$owner_listen"; then
        port_owner=$owner_dir
        break
    fi
done
# resolve FOLDER: sets resolved to its one name, or returns 1; a subshell for it
# would be a process.
resolve() {
    cd -P -- "$1" 2>/dev/null || return 1
    resolved=$PWD
    cd /
}
[ -z "$port_owner" ] || { resolve "$port_owner" && port_owner=$resolved; } || port_owner=
emit port_owner "$port_owner"
asked=$pgdata
if [ -z "$pgdata" ]; then
    pgdata=$port_owner
    if [ -z "$pgdata" ]; then
        emit pgdata_state unknown
        exit 0
    fi
fi

# Its one name, also where a swap has moved it away: what is beside it is named
# after it.
if [ "$pgdata" != "$port_owner" ]; then
    if ! { [ -d "$pgdata" ] && resolve "$pgdata"; }; then
        resolved=$(readlink -f -- "$pgdata")
    fi
    pgdata=${resolved:-$pgdata}
fi
emit pgdata "$pgdata"
if [ ! -e "$pgdata" ] && [ ! -d "$pgdata.follow_primary" ]; then
    emit pgdata_state missing
    exit 0
fi
# Every job makes and removes a lock file there: see lock.sh.
stats=$(stat -Lc '%y=%d:%i' -- "${pgdata%/*}/" "$pgdata" 2>/dev/null)
emit beside "${stats%%=*}"
work=$pgdata.follow_primary

# has_data FILE: does the settings file say that its data is PGDATA? Returns 2
# if it does not say where its data is.
has_data() {
    data=$(sed -n "s/^[[:space:]]*data_directory[[:space:]=]*'\([^']*\(''[^']*\)*\)'.*/\1/p" "$1" 2>/dev/null |
        sed -n "s/''/'/g; \$p")
    # one in a data directory is that one's
    [ -n "$data" ] || [ ! -e "${1%/*}/PG_VERSION" ] || data=${1%/*}
    [ -n "$data" ] || return 2
    # shellcheck disable=SC2039,SC3013 # -ef is in dash and in POSIX.1-2024
    [ "$data" = "$asked" ] || [ "$data" = "$pgdata" ] || [ "$data" -ef "$pgdata" ]
}

# started_config_file OPTS: sets config_file to where the server had its
# settings from that left this postmaster.opts, unless they are another's.
started_config_file() {
    [ -r "$1" ] || return 0
    read_file "$1"
    case $text in
        *'"config_file='*) config_file=${text##*'"config_file='} ;;
        *'"--config'[-_]'file='*) config_file=${text##*'"--config'[-_]'file='} ;;
        *'"-D" "/'*)
            # perhaps a folder of configuration alone
            config_file=${text##*'"-D" "'}
            config_file=${config_file%%'" "'*}
            config_file=${config_file%'"'}/postgresql.conf
            has_data "$config_file" || config_file=
            ;;
    esac
    config_file=${config_file%%'" "'*}
    config_file=${config_file%'"'}
    case $config_file in
        /*) has_data "$config_file" || [ $? -eq 2 ] || config_file= ;;
        *) config_file= ;;
    esac
}

# Where its configuration is. A running server knows; the caller may know; else
# as on the last start, whose postmaster.opts save_config.sh may have put aside;
# else where Debian's tools have it; else it is in PGDATA ('').
find_config_file() {
    if [ -n "$running_config_file" ]; then
        config_file=$running_config_file
    elif [ -n "$config_file" ]; then
        has_data "$config_file" || [ $? -eq 2 ] ||
            die foreign_config "\"$config_file\" is the configuration of \"$data\", not of \"$pgdata\""
    else
        for opts in "$pgdata/postmaster.opts" "$work/config/data/postmaster.opts"; do
            [ -n "$config_file" ] || started_config_file "$opts"
        done
        if [ -z "$config_file" ] && { [ ! -e "$pgdata/postmaster.opts" ] || [ ! -e "$pgdata/postgresql.conf" ]; }; then
            for file in "${PG_CLUSTER_CONF_ROOT:-/etc/postgresql}"/*/*/postgresql.conf; do
                [ ! -r "$file" ] || ! has_data "$file" || config_file=$file
            done
        fi
    fi
    # shellcheck disable=SC2039,SC3013 # as above
    if [ "${config_file##*/}" = postgresql.conf ] && [ "${config_file%/*}" -ef "$pgdata" ]; then
        config_file=
    fi
    emit config_file "$config_file"
    [ -f "${config_file:-$pgdata/postgresql.conf}" ] || emit config_missing yes
}
running_config_file=

phase=
if [ -r "$work/mark" ]; then
    read_file "$work/mark"
    phase=${text##*phase=}
    phase=${phase%%"$nl"*}
    # What a mark says need not be so any more, when somebody has put other data
    # there: clear.sh removes PG_VERSION first, and a half-rewound server is not
    # started. Nor is what swap.sh is about to move away. A start by a job removes the
    # mark of one that it stopped.
    # shellcheck disable=SC2039,SC3013 # -nt is in dash and in POSIX.1-2024
    case $phase in
        clearing) [ ! -e "$pgdata/PG_VERSION" ] || emit mark_stale yes ;;
        rewinding | stopped) [ ! "$pgdata/postmaster.opts" -nt "$work/mark" ] || emit mark_stale yes ;;
        swapping)
            for new in "$work/new" "$pgdata/.follow_primary_new"; do
                if [ -e "$new/PG_VERSION" ] && [ -e "$pgdata/PG_VERSION" ] &&
                    [ "$pgdata/global/pg_control" -nt "$work/mark" ]; then
                    emit mark_stale yes
                fi
            done
            ;;
    esac
    emit mark "$text"
fi
[ ! -e "$work/keep" ] || emit keep yes
# What is kept for people is no leftover.
leftovers=no
for entry in "$work".lock "$work"/*; do
    case ${entry##*/} in
        lost_wal-* | old-* | server.log) ;;
        *) [ ! -e "$entry" ] || leftovers=yes ;;
    esac
done
emit leftovers "$leftovers"
case $phase in
    '' | clearing | swapping) ;;
    *)
        [ -e "$pgdata/PG_VERSION" ] ||
            die data_gone "$work/mark is the mark of an interrupted job, but $pgdata has no data any more"
        ;;
esac
if [ ! -e "$pgdata" ] || { [ -n "$phase" ] && [ ! -e "$pgdata/PG_VERSION" ]; }; then
    # In the midst of a swap there is none, or none that is whole; nor when the
    # old data had to make room. Then a file has the folders beside it.
    if [ -n "$phase" ]; then emit pgdata_state empty; else emit pgdata_state missing; fi
    find_config_file
    if [ -r "$work/swap.list" ]; then
        while IFS= read -r live && IFS= read -r _ && IFS= read -r _; do
            [ "$live" = "$pgdata" ] || emit tablespace.0 "$live"
        done <"$work/swap.list"
    elif [ -r "$work/layout" ]; then
        cat "$work/layout"
    fi
    exit 0
fi
if [ ! -d "$pgdata" ]; then
    emit pgdata_state not_pgdata
    exit 0
fi
if [ ! -r "$pgdata" ] || [ ! -x "$pgdata" ]; then
    emit pgdata_state unreadable
    exit 0
fi
emit pgdata_inode "${stats##*=}"
# Is nothing in a folder, but for what a file system or a job of ours has there?
is_empty() {
    found=$(LC_ALL=C find "$1/" -mindepth 1 -maxdepth 1 ! -name lost+found ! -name '.follow_primary_*' -printf '%f\n')
    [ "$found" = "${2:-}" ]
}
if [ ! -f "$pgdata/PG_VERSION" ] && { is_empty "$pgdata" ||
    { is_mount_point "$pgdata/pg_wal" && is_empty "$pgdata" pg_wal && is_empty "$pgdata/pg_wal"; }; }; then
    emit pgdata_state empty
    emit_folders
    find_config_file
    exit 0
fi
if [ ! -f "$pgdata/PG_VERSION" ] || [ ! -d "$pgdata/global" ]; then
    emit pgdata_state not_pgdata
    exit 0
fi
emit pgdata_state ok
read_file "$pgdata/PG_VERSION"
emit version "$text"

# Is it running? The lock file's lines: pid, directory, start time, port,
# socket directory, listen address, shared memory, status.
pid=
if lock_file "$pgdata/postmaster.pid" &&
    [ "${lock_pid#-}" -gt 0 ] 2>/dev/null && kill -0 "$lock_pid" 2>/dev/null &&
    works_in "$lock_pid" "$pgdata"; then
    pid=$lock_pid
    emit pid "$pid"
    emit running_port "$lock_port"
    emit status "$lock_status"
else
    emit control_time "$(control_time)"
fi
signal=
for name in backup_label recovery.conf recovery.signal standby.signal; do
    [ ! -e "$pgdata/$name" ] || signal=$signal${signal:+$nl}$name
done
emit signal "$signal"
emit controldata "$(LC_ALL=C TZ=UTC "$bin_dir/pg_controldata" "$pgdata" 2>&1)"

emit_folders
for history in "$pgdata"/pg_wal/????????.history; do
    [ -f "$history" ] || continue
    name=${history##*/}
    read_file "$history"
    emit "history.${name%.history}" "$text"
done

# The newest timeline that it has WAL of. Segments made for future use are named
# after the timeline that their maker was on.
wal_timeline=
for file in "$pgdata"/pg_wal/????????????????????????; do
    name=${file##*/}
    case $name in
        *[!0-9A-F]*) ;;
        *) wal_timeline=${name%????????????????} ;;
    esac
done
emit wal_timeline "$wal_timeline"

# The first bytes of a WAL record, its header and checksum among them: equal on
# two servers only if they have the same record there.
wal_record() {
    rest=${1#*:}
    file=$pgdata/pg_wal/${rest%:*}
    [ -f "$file" ] || return 0
    bytes=
    for byte in $(od -An -v -tx1 -j "${rest#*:}" -N 64 -- "$file" 2>/dev/null); do
        bytes=$bytes$byte
    done
    emit "record.${1%%:*}" "$bytes"
}

for record in $records; do
    wal_record "$record"
done

if [ -n "$pid" ]; then
    socket_dir=$lock_socket_dir
    if [ -z "$socket_dir" ]; then
        socket_dir=$lock_listen
        case $socket_dir in '*' | 0.0.0.0 | ::) socket_dir=localhost ;; esac
    fi
    # Every line of the answer is key=value already, escaped as emit does.
    answer=$("$bin_dir/psql" -X -q -A -t -w -v ON_ERROR_STOP=1 -h "$socket_dir" -p "$lock_port" \
        -U "$db_user" 2>&1 <<'SQL'
SET search_path = pg_catalog;
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
    UNION ALL SELECT 'slot.' || slot_name, slot_type || CASE WHEN active THEN ' active' ELSE '' END
        FROM pg_replication_slots
    UNION ALL SELECT 'set.' || name, setting FROM pg_settings
    WHERE name IN ('config_file', 'hot_standby', 'primary_conninfo', 'primary_slot_name', 'restore_command',
                   'recovery_target_timeline', 'recovery_min_apply_delay', 'server_version_num', 'max_connections',
                   'max_worker_processes', 'max_wal_senders', 'max_prepared_transactions', 'max_locks_per_transaction',
                   'shared_preload_libraries', 'cluster_name', 'recovery_target', 'recovery_target_name', 'recovery_target_time',
                   'recovery_target_xid', 'recovery_target_lsn', 'promote_trigger_file')) s
WHERE v IS NOT NULL;
SQL
    )
    sql_status=$?
    if [ "$sql_status" -eq 0 ]; then
        emit sql yes
        printf '%s\n' "$answer"
    else
        emit sql no
        emit sql_error "$answer"
    fi
    case $answer in
        *"${nl}set.config_file="*)
            running_config_file=${answer#*"${nl}set.config_file="}
            running_config_file=${running_config_file%%"$nl"*}
            case $running_config_file in
                *\\*) running_config_file=$(printf '%b' "$running_config_file") ;;
            esac
            ;;
    esac
fi

recovery_conf "$pgdata"
find_config_file
[ -n "$pid" ] || emit set.restore_command "$("$bin_dir/postgres" -D "$pgdata" \
    ${config_file:+-c config_file="$config_file"} -C restore_command 2>/dev/null)"

# Slots, as a server that is down left them: a logical one has a database, at
# byte 80 of its state.
if [ -z "$pid" ]; then
    for slot in "$pgdata"/pg_replslot/*; do
        [ -f "$slot/state" ] || continue
        case $(od -An -tu4 -j80 -N4 "$slot/state" 2>/dev/null | tr -d ' ') in
            0) emit "slot.${slot##*/}" physical ;;
            *) emit "slot.${slot##*/}" logical ;;
        esac
    done
fi
exit 0
