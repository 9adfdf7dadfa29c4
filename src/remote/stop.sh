#!/bin/sh
# stop.sh - stops the server of a data directory.
#
# arguments:
#   timeout  seconds that the stop may take
#   command  run by sh -c instead of pg_ctl, if not ''; it may return before the server has
#            ended
#   keep_wal  yes = the segments that the checkpoint of the stop removes are still wanted
#   segment_size  of WAL segments, in bytes
#   standby  yes = the caller knows the node for a standby: a server that is a primary by now
#            is not stopped
#   demote   yes = a job has started the server, which has become a primary: it ends at once,
#            and a start of it starts a standby
#   version  with demote: server_version_num of the primary
#
# A server that does not run is a success, whatever postmaster.pid says. A server that is
# stopped here gets the mark "stopped": if the job ends now, the next call knows that the node
# is not down by itself.
#
# prints:
#   was_running   yes | no
#   promoted      yes = it is, or was, a primary although it was to be a standby; also where it
#                 was killed
#   control_time  when a server that did not run last wrote its control file
#   started_by    with demote: the command line that it had
#   remedy        with timeout: what ends that which holds the server up, as a command there
# fails:
#   permission  no_space  PGDATA.follow_primary cannot be written
#   timeout               the server is still there after the time; the message tells which of
#                         its processes are, and what they run
#   stop_failed           the command failed, and the server still runs
set -u
# shellcheck source=src/remote/lib.sh
. "${0%/*}/lib.sh"
# shellcheck source=src/remote/mark.sh
. "${0%/*}/mark.sh"
# shellcheck source=src/remote/standby.sh
. "${0%/*}/standby.sh"
# shellcheck source=src/remote/processes.sh
. "${0%/*}/processes.sh"
# shellcheck source=src/remote/wal.sh
. "${0%/*}/wal.sh"

: "${timeout=60}" "${command=}" "${keep_wal=no}" "${segment_size=16777216}" "${standby=no}" "${demote=no}" "${version=0}"
mode=fast
[ "$demote" = no ] || mode=immediate # it writes and archives nothing more
per_id=$((4294967296 / segment_size))

pause() {
    sleep 0.02 2>/dev/null || sleep 1
}

# run_command: runs the DBA's command in this process group, bounded where timeout(1) can.
run_command() {
    if timeout --foreground 1 true >/dev/null 2>&1; then
        timeout --foreground "$timeout" sh -c "$own_locale$command" </dev/null >&2
    else
        sh -c "$own_locale$command" </dev/null >&2
    fi
}

# too_late: tells what is left of the server, process $first. It waits for its clients and
# helpers first, then for its checkpointer, last for its archiver and WAL senders; a shut down
# archiver without a command waits for nothing.
too_late() {
    list_family "$first"
    left='' remedy='' rank=9
    while read -r process _ state seconds; do
        [ -n "$process" ] || continue
        describe "$process" "$state" "$seconds"
        what=$title
        line=$description
        run=''
        while read -r process_run _ state_run seconds_run; do
            [ -n "$process_run" ] || continue
            describe "$process_run" "$state_run" "$seconds_run"
            line="$line; it runs $description"
            run=$process_run
        done <<RUN
$(children_of "$process")
RUN
        case $what:$state in
            *': logger'* | *': stats collector'*) continue ;;
            *:T | *:t) remember 1 "kill -CONT $process, which lets that process go on" ;;
            *': archiver'*)
                if [ -n "$run" ]; then remember 2 "kill $run, which ends the command that it archives with"; else remember 8 ''; fi
                ;;
            *': walsender'*) remember 3 "kill $process, which ends that WAL sender; its client does not answer" ;;
            *': checkpointer'*) remember 5 "wait until its checkpointer has written all that is to be written" ;;
            *) remember 4 "'$bin/pg_ctl' -D '$pgdata' -m immediate stop, which ends it as a crash would" ;;
        esac
        left="$left$nl$line"
    done <<LEFT
$(children_of "$first")
LEFT
    [ -z "$remedy" ] || emit remedy "$remedy"
    die timeout "the server (process $first) still runs ${timeout} s after it was told to stop${left:+; what is left of it:$left}"
}

# remember RANK REMEDY: the remedy with the lowest rank is told.
remember() {
    [ "$1" -lt "$rank" ] || return 0
    rank=$1 remedy=$2
}

# stop: stops the server, which runs as process $pid.
stop() {
    deadline=$(($(date +%s) + timeout))
    if [ -n "$command" ]; then
        run_command
    else
        # without waiting, for it would look only ten times a second
        "$bin/pg_ctl" -D "$pgdata" -m "$mode" -W stop >&2
    fi
    rc=$?

    first=$pid
    turn=0
    while server_pid && [ "$pid" = "$first" ]; do
        turn=$((turn + 1))
        if [ $((turn % 10)) -eq 0 ] && [ "$(date +%s)" -ge "$deadline" ]; then
            too_late
        fi
        # 124: timeout(1) has ended the command
        [ "$rc" -ne 124 ] || [ "$(date +%s)" -lt "$deadline" ] || too_late
        if [ "$rc" -ne 0 ]; then
            die stop_failed "the command to stop the server failed with exit code $rc"
        fi
        pause
    done
    if server_pid; then
        die stop_failed "the server runs again, as process $pid: something restarts it"
    fi
}

umask 077

if server_pid; then
    emit was_running yes
    if [ "$standby" = yes ] && in_production; then
        emit promoted yes
        exit 0
    fi
    read_mark
    case $mark_phase in
        '' | stopped)
            make_work
            write_mark stopped
            ;;
    esac
    if [ "$demote" = yes ]; then
        read_file "$pgdata/postmaster.opts"
        emit started_by "$text"
    fi
    if [ "$keep_wal" = yes ]; then
        # a server that is not stopped goes on writing: its WAL must have no second name then
        trap drop_kept_wal EXIT
        trap 'exit 143' HUP INT TERM
        keep_wal
    fi
    stop
    [ "$demote" = no ] || make_standby "$pgdata" "$version"
else
    emit was_running no
    remove_stale_lock
    emit control_time "$(control_time)"
fi
[ "$keep_wal" != yes ] || give_back_wal
if [ "$standby" = yes ]; then
    case $(cluster_state) in
        *recovery | '') ;;
        *) emit promoted yes ;;
    esac
fi
exit 0
