#!/bin/sh
# stop.sh - stops the server of a data directory.
#
# usage: stop.sh PGDATA BIN_DIR TIMEOUT_S STOP_COMMAND JOB STANDBY
#   STOP_COMMAND  run by sh -c instead of pg_ctl when not empty; may return
#                 before the server has ended
#   STANDBY       yes = what the caller knows is a standby: a server that is a
#                 primary by now is not stopped
#
# A server that does not run is a success, whatever postmaster.pid says. One that
# is stopped here gets the mark PGDATA.follow_primary/mark with phase=stopped: if
# the job ends now, the next call knows that the node is not down by itself.
#
# prints: promoted=yes   it was, or is, a primary that was to be a standby; also
#                        one that was killed
#         control_time=  when a server that did not run last wrote its control file
#         was_running=yes|no
#         stderr_file=   the file that the server's stderr went to, if any
#         state=         pg_controldata's "Database cluster state" afterwards
# fails:  permission  no_space   PGDATA.follow_primary cannot be written
#         timeout        still there after TIMEOUT_S
#         stop_failed    the command failed and the server still runs
set -u
# shellcheck source=src/remote/lib.sh
. "${0%/*}/lib.sh"

pgdata=$1
bin=$2
limit=$3
command=$4
job=$5
standby=${6:-no}
work=$pgdata.follow_primary

umask 077

pause() {
    sleep 0.02 2>/dev/null || sleep 1
}

# Runs the DBA's command in this process group, bounded where timeout(1) can.
run_command() {
    if timeout --foreground 1 true >/dev/null 2>&1; then
        timeout --foreground "$limit" sh -c "$command" </dev/null >&2
    else
        sh -c "$command" </dev/null >&2
    fi
}

cluster_state() {
    LC_ALL=C "$bin/pg_controldata" "$pgdata" 2>/dev/null | sed -n 's/^Database cluster state: *//p'
}

if server_pid; then
    emit was_running yes
    if [ "$standby" = yes ] && [ "$(cluster_state)" = 'in production' ]; then
        emit promoted yes
        exit 0
    fi
    if [ ! -e "$work/mark" ] || grep -qx phase=stopped "$work/mark"; then
        make_work
        printf 'job=%s\nphase=stopped\n' "$job" | put "$work/mark" || exit 1
    fi
    log=$(readlink "/proc/$pid/fd/2" 2>/dev/null)
    case $log in
        /dev/* | *' (deleted)') ;;
        /*) [ ! -f "$log" ] || emit stderr_file "$log" ;;
    esac

    deadline=$(($(date +%s) + limit))
    if [ -n "$command" ]; then
        run_command
    else
        # It would look only ten times a second.
        LC_ALL=C "$bin/pg_ctl" -D "$pgdata" -m fast -W stop >&2
    fi
    rc=$?

    first=$pid
    turn=0
    while server_pid && [ "$pid" = "$first" ]; do
        turn=$((turn + 1))
        if [ $((turn % 10)) -eq 0 ] && [ "$(date +%s)" -ge "$deadline" ]; then
            die timeout "the server (process $first) still runs ${limit} s after it was told to stop"
        fi
        if [ "$rc" -ne 0 ]; then
            die stop_failed "the command to stop the server failed with exit code $rc"
        fi
        pause
    done
    if server_pid; then
        die stop_failed "the server runs again, as process $pid: something restarts it"
    fi
else
    emit was_running no
    emit control_time "$(control_time)"
fi

state=$(cluster_state)
emit state "$state"
if [ "$standby" = yes ]; then
    case $state in
        *recovery | '') ;;
        *) emit promoted yes ;;
    esac
fi
exit 0
