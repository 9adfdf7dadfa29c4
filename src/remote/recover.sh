# recover.sh - crash recovery of a data directory that is to be rewound; for rewind.sh, which
# reads it as it reads lib.sh.
#
# A primary is recovered in single-user mode. A standby is recovered up to its consistent
# point and no further: single-user mode would write WAL on a timeline that is not the
# standby's to write. What has a standby.signal keeps one all the while, so that a server that
# a service manager starts after a power failure is a standby.
#
# The caller reads control.sh, and has set pgdata, bin, config ('' = in PGDATA), version, work, and
# aside, a folder for what is to be put back.
# shellcheck shell=sh disable=SC2154,SC2034

# read_state: sets control, and state, what the server of pgdata is or was doing. Returns 1 if its
# control file cannot be read.
read_state() {
    read_control "$pgdata" || return 1
    state=$(control_value 'Database cluster state')
}

# crashed_as: sets crashed to what the server was: primary or standby; '' if it was shut down.
# Returns 1 if its state is not understood.
crashed_as() {
    case $state in
        'shut down' | 'shut down in recovery')
            crashed=
            return 0
            ;;
        'in archive recovery') crashed=standby ;;
        'in production' | 'in crash recovery' | 'shutting down' | 'starting up') crashed=primary ;;
        *) return 1 ;;
    esac
    # The control file of a backup that was never started is its source's.
    [ ! -e "$pgdata/backup_label" ] || crashed=standby
    # From its next start on, a primary with this file would be a standby.
    [ ! -e "$pgdata/standby.signal" ] || [ "$version" -lt 130000 ] || crashed=standby
}

# postgres OPTION...: runs the server with the node's configuration file.
postgres() {
    [ -z "$config" ] || set -- -c config_file="$config" "$@"
    "$bin/postgres" -D "$pgdata" "$@"
}

# recover_primary: as pg_rewind does it from 13 on, but flushed, and keeping the WAL since the
# checkpoint before the crash, which pg_rewind needs.
recover_primary() {
    for signal in standby.signal recovery.signal; do
        if [ -e "$pgdata/$signal" ]; then
            mv -f "$pgdata/$signal" "$aside/$signal"
        fi
    done
    set -- -c wal_keep_size=1000000000
    [ "$version" -ge 130000 ] || set -- -c wal_keep_segments=1000000000
    set -- "$@" -c log_min_messages=warning -c lc_messages=C
    [ -z "$config" ] || set -- "$@" -c config_file="$config"
    logged "$work/recovery.log" "$bin/postgres" --single -D "$pgdata" "$@" template1 </dev/null
}

# recovering_server: runs a server that nobody connects to. It says in English how far it is,
# and writes to a file for which WAL it asks. The settings files may have targets; an empty one
# among them would not go with ours either, if it came after it.
recovering_server() {
    FOLLOW_PRIMARY_ASKED=$aside/asked
    export FOLLOW_PRIMARY_ASKED
    set --
    [ "$version" -ge 160000 ] || set -- -c promote_trigger_file=
    # shellcheck disable=SC2016 # for the shell that the server starts
    logged "$work/recovery.log" postgres "$@" \
        -c recovery_target_name= -c recovery_target_time= -c recovery_target_xid= -c recovery_target_lsn= \
        -c recovery_target=immediate -c recovery_target_action=shutdown -c recovery_target_timeline=latest \
        -c restore_command='echo %f >>"$FOLLOW_PRIMARY_ASKED"; false' -c wal_retrieve_retry_interval=100 \
        -c wal_keep_size=1000000000 -c recovery_min_apply_delay=0 \
        -c archive_cleanup_command= -c recovery_end_command= \
        -c primary_conninfo= -c primary_slot_name= -c hot_standby=off \
        -c listen_addresses= -c unix_socket_directories=. -c unix_socket_permissions=0700 \
        -c logging_collector=off -c log_destination=stderr -c log_min_messages=warning \
        -c lc_messages=C </dev/null
}

# waits_for_wal: has the server asked for one segment over and over? For one that it has, it
# asks three times at most: for the checkpoint, for the redo, and in turn.
waits_for_wal() {
    awk 'length($0) == 24 && ++asked[$0] == 10 { waits = 1 } END { exit !waits }' "$aside/asked" 2>/dev/null
}

# recover_standby: replays to where the data is consistent, and shuts down there. The server
# does so by itself, unless it is consistent with its very last record and that is no commit:
# then recovery does not see its target (recoveryStopsAfter() in PostgreSQL). A standby waits
# for the next record then, and can be stopped; a server without standby.signal would fail,
# and if a power failure left it to be started by itself, would promote.
recover_standby() {
    make_standby "$pgdata" "$version" || return
    rm -f "$work/recovery.log" "$aside/asked"
    recovering_server &
    server=$!
    turn=0
    while kill -0 "$server" 2>/dev/null; do
        if grep -qs 'consistent recovery state reached' "$work/recovery.log" && server_pid; then
            kill -INT "$pid"
            break
        fi
        turn=$((turn + 1))
        if [ $((turn % 10)) -eq 0 ] && waits_for_wal && server_pid; then
            # after a shutdown in good order it would say that it is consistent
            kill -QUIT "$pid"
            wait "$server"
            echo 'WAL ends before consistent recovery point' | tee -a "$work/recovery.log" >&2
            break
        fi
        sleep 0.05 2>/dev/null || sleep 1
    done
    wait "$server"
    rm -f "$pgdata"/.s.PGSQL.*
    read_state && [ "$state" = 'shut down in recovery' ] &&
        grep -q 'consistent recovery state reached' "$work/recovery.log"
}
