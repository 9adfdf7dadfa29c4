#!/bin/sh
# start.sh - starts the server of a data directory, and waits until it can be
# connected to (or, with hot_standby off, until it replays).
#
# usage: start.sh PGDATA BIN_DIR CONFIG_FILE TIMEOUT_S START_COMMAND LOG_FILE
#   CONFIG_FILE    '' = PGDATA/postgresql.conf
#   START_COMMAND  run by sh -c instead of pg_ctl when not empty; may return
#                  before the server is up
#   LOG_FILE       takes what the server and START_COMMAND write to stdout and
#                  stderr; '' = PGDATA.follow_primary.log, or if that cannot be
#                  written, PGDATA.follow_primary/server.log
#
# A server that runs already is a success; one that is on its way down is started
# when it has ended.  The server is detached from this process group and from this
# script's files.
#
# prints: was_running=yes|no  pid=  status=ready|standby  log_file=
# A mark that only says "stopped" goes when the server is up.
# fails:  marked         the node is half-changed (PGDATA.follow_primary/mark)
#         start_failed   the server ended; what it logged is on stderr
#         timeout        not up after TIMEOUT_S; what it logged is on stderr
set -u
# shellcheck source=src/remote/lib.sh
. "${0%/*}/lib.sh"

pgdata=$1
bin=$2
config=$3
limit=$4
command=$5
log=${6:-$pgdata.follow_primary.log}
if ! (umask 077 && : >>"$log") 2>/dev/null; then
    log=$pgdata.follow_primary/server.log
fi
mark=$pgdata.follow_primary/mark

# How long a START_COMMAND that returned 0 may leave us without a server.
appear_limit=15

# A server that others can connect to has PGDATA. One in single-user mode does
# not count: the start will say that it is in the way.
serving() {
    server_pid || return 1
    if [ "$single_user" = yes ]; then
        pid=
        return 1
    fi
}

# Sets status from the line of postmaster.pid where the server keeps it.
server_status() {
    lock_file "$pgdata/postmaster.pid" || return 1
    status=$lock_status
    [ "$status" = ready ] || [ "$status" = standby ]
}

pause() {
    sleep 0.02 2>/dev/null || sleep 1
}

size_of() {
    if [ -f "$1" ]; then
        wc -c <"$1" | tr -d ' '
    else
        echo 0
    fi
}

# The file that the logging collector writes, if it is used.
collected_log() {
    file=
    if [ -f "$pgdata/current_logfiles" ]; then
        file=$(sed -n 's/^stderr //p' "$pgdata/current_logfiles" | head -n 1)
        [ -n "$file" ] || file=$(sed -n '1s/^[a-z]* //p' "$pgdata/current_logfiles")
    elif [ -d "$pgdata/log" ]; then
        # shellcheck disable=SC2012 # only the newest matters; names are log_filename's
        file=$(ls -t "$pgdata/log" | head -n 1)
        file=${file:+log/$file}
    fi
    case $file in
        '' | /*) ;;
        *) file=$pgdata/$file ;;
    esac
    printf '%s' "$file"
}

# What was written since this start, on stderr.
show_log() {
    {
        tail -c +"$((log_size + 1))" "$log" 2>/dev/null | tail -n 10
        now=$(collected_log)
        if [ -n "$now" ]; then
            [ "$now" = "$collected" ] || collected_size=0
            tail -c +"$((collected_size + 1))" "$now" 2>/dev/null | tail -n 30
        fi
    } | tail -c 8192 >&2
}

fail() {
    show_log
    # it is still the job that it is down by, whatever postgres has written
    [ "$phase" != stopped ] || serving || touch "$mark"
    die "$@"
}

finish() {
    # It looks only ten times a second, and has nothing to add.
    [ -z "$starter" ] || kill "$starter" 2>/dev/null
    # A server that runs is not down by a job's doing any more.
    if [ "$phase" = stopped ]; then
        rm -f "$mark"
        rmdir "${mark%/*}" 2>/dev/null
    fi
    emit pid "$pid"
    emit status "$status"
    emit log_file "$log"
    exit 0
}

# Waits for the status until the server is gone; $1 = seconds that a server may
# take to appear, 0 = it is there: then returns when it is gone. While a pg_ctl
# waits too, whether the server is gone is its to say: it knows the process that it
# started.
await_status() {
    seen=no
    turn=0
    now=$(date +%s)
    appear=$((now + $1))
    while :; do
        if [ -n "$starter" ] && ! kill -0 "$starter" 2>/dev/null; then
            wait "$starter"
            rc=$?
            starter=
            appear=$((now + $1))
            if [ "$rc" -ne 0 ] && ! serving; then
                fail start_failed "the server did not start, or ended again"
            fi
        fi
        if serving; then
            seen=yes
            if server_status; then
                finish
            fi
        elif [ "$1" -eq 0 ]; then
            return
        elif [ -z "$starter" ] && { [ "$seen" = yes ] || [ "$now" -ge "$appear" ]; }; then
            fail start_failed "the server did not start, or ended again"
        fi
        if [ "$now" -ge "$deadline" ]; then
            fail timeout "the server was not ready within ${limit} s"
        fi
        pause
        turn=$((turn + 1))
        [ $((turn % 10)) -ne 0 ] || now=$(date +%s)
    done
}

starter=
phase=
if [ -e "$mark" ]; then
    phase=$(sed -n 's/^phase=//p' "$mark")
    if [ "$phase" != ready ] && [ "$phase" != stopped ]; then
        die marked "$mark says that the node is half-changed (phase ${phase:-unknown}): it is not started as it is"
    fi
    allow_start # a power failure may have taken that back
fi

deadline=$(($(date +%s) + limit))
log_size=$(size_of "$log")
collected=$(collected_log)
collected_size=0
[ -z "$collected" ] || collected_size=$(size_of "$collected")

if serving; then
    emit was_running yes
    # It may have been told to stop just now, and not know yet: then a mark that says
    # so stays.
    marked=$phase
    [ "$marked" != stopped ] || sleep 1
    phase=
    await_status 0
    phase=$marked
else
    emit was_running no
fi

umask 077
if [ -n "$command" ]; then
    # A server that it starts must not end with a later script, as all that is left
    # of this session's process group does: the command gets one of its own.
    set -- sh -c "$command"
    ! timeout --foreground 1 true >/dev/null 2>&1 || set -- timeout --foreground "$limit" "$@"
    ! command -v setsid >/dev/null 2>&1 || set -- setsid "$@"
    trap 'kill -TERM -- "-$starter" "$starter"; sleep 2; kill -KILL -- "-$starter"; exit 143' TERM
    # The server may inherit these files: none of them may be ours.
    "$@" </dev/null >>"$log" 2>&1 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&- &
    starter=$!
    wait "$starter"
    rc=$?
    starter=
    trap - TERM
    if [ "$rc" -ne 0 ] && ! serving; then
        fail start_failed "the command to start the server failed with exit code $rc"
    fi
    await_status "$appear_limit"
fi

# pg_ctl pastes the log's name between double quotes into a shell command, too,
# and -o as it is.
in_double_quotes() {
    printf '%s' "$1" | sed 's/["$`\\]/\\&/g'
}
in_single_quotes() {
    printf "'%s'" "$(printf '%s' "$1" | sed "s/'/'\\\\''/g")"
}
enter_pgdata || die start_failed "could not change to $pgdata"
set -- "$bin/pg_ctl" -D "$directory" -l "$(in_double_quotes "$log")" -w -t "$limit"
if [ -n "$config" ] && [ "$config" != "$pgdata/postgresql.conf" ]; then
    set -- "$@" -o "-c config_file=$(in_single_quotes "$config")"
fi

# From 12 on it makes the server the leader of a session of its own.
[ "$(cat "$directory/PG_VERSION")" != 11 ] || ! command -v setsid >/dev/null 2>&1 || set -- setsid "$@"
LC_ALL=C "$@" start </dev/null >&2 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&- &
starter=$!
await_status 1
