#!/bin/sh
# start.sh - starts the server of a data directory, and waits until it can be connected to, or
# with hot_standby off, until it replays.
#
# arguments:
#   config   the node's postgresql.conf; '' = the one in pgdata
#   timeout  seconds that the start may take
#   command  run by sh -c instead of pg_ctl, if not ''; it may return before the server is up
#   again    yes = it is a standby that a job has stopped, and starts with the node's own settings:
#            recovery targets in them are emptied first, for a file may have one that was written
#            since its last start
#
# A postmaster.pid that names a process of ours which is not this server goes before the start. A
# server that runs already is a success; one that is about to end is started when it has. The
# server is detached from this process group and from this script's files. What it and the
# command say goes to PGDATA.follow_primary.log; if that cannot be written, to
# PGDATA.follow_primary/server.log. A mark that only says "stopped" goes when the server is up.
#
# prints:
#   status    ready | standby
#   promoted  yes = it has become a primary
#   emptied   yes = recovery targets were emptied
#   started_with  settings on its command line that win over those of a standby; then it is not
#                 waited for, and is to be stopped
# fails:
#   marked        the node is half-changed, as its mark says
#   start_failed  the server ended; what it logged is on stderr
#   timeout       it is not up after the time; what it logged is on stderr
set -u
# shellcheck source=src/remote/lib.sh
. "${0%/*}/lib.sh"
# shellcheck source=src/remote/mark.sh
. "${0%/*}/mark.sh"
# shellcheck source=src/remote/wal.sh
. "${0%/*}/wal.sh"
# shellcheck source=src/remote/settings.sh
. "${0%/*}/settings.sh"
# shellcheck source=src/remote/standby.sh
. "${0%/*}/standby.sh"
# shellcheck source=src/remote/processes.sh
. "${0%/*}/processes.sh"
# shellcheck source=src/remote/staged.sh
. "${0%/*}/staged.sh"

: "${config=}" "${timeout=60}" "${command=}" "${again=no}"
opts=$pgdata/postmaster.opts
opts_before='' # when that was last written, before this start
looked=no      # has this server's been looked at?
starter='' # the process that starts the server, while it runs

# How long a command that returned 0 may leave us without a server.
appear_limit=15

# serving: is there a server that others can connect to? One in single-user mode does not
# count: the start will say that it is in the way.
serving() {
    server_pid || return 1
    if [ "$single_user" = yes ]; then
        pid=
        return 1
    fi
}

# server_status: sets status from the line of postmaster.pid in which the server keeps it.
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

# collected_log: prints the name of the file that the logging collector writes, if it is used.
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

# show_log: shows on stderr what was logged since this start.
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

# fail REASON TEXT
fail() {
    show_log
    # A job is still the cause that the node is down, though the server has written there.
    [ "$mark_phase" != stopped ] || serving || renew_mark
    die "$@"
}

# finish: the server is up. Ends here.
finish() {
    # pg_ctl looks only ten times a second, and has nothing to add
    [ -z "$starter" ] || kill "$starter" 2>/dev/null
    if [ "$mark_phase" = stopped ]; then
        remove_mark
        rmdir "$work" "$kept" 2>/dev/null
    fi
    emit status "$status"
    [ "$status" = standby ] || ! in_production || emit promoted yes
    exit 0
}

# opts_time: prints when a start last wrote the options that it had.
opts_time() {
    stat -Lc %y -- "$opts" 2>/dev/null
}

# look_at_options: a server writes its options before it replays anything. Ends here if they win
# over the settings of a standby, which this job has written.
look_at_options() {
    [ "$again" = no ] && [ "$looked" = no ] && [ -s "$opts" ] && [ "$(opts_time)" != "$opts_before" ] || return 0
    looked=yes
    read_file "$opts"
    started_with "$text"
    [ -n "$names" ] || return 0
    [ -z "$starter" ] || kill "$starter" 2>/dev/null
    emit started_with "$names"
    exit 0
}

# await_status SECONDS: waits until the server is up, and ends here then. A server may take so
# many seconds to appear; 0 = it is there, and we return if it goes. While a pg_ctl waits too,
# only pg_ctl can say that the server is gone: it knows the process that it started.
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
            look_at_options
            if server_status; then
                finish
            fi
        elif [ "$1" -eq 0 ]; then
            return
        elif [ -z "$starter" ] && { [ "$seen" = yes ] || [ "$now" -ge "$appear" ]; }; then
            fail start_failed "the server did not start, or ended again"
        fi
        if [ "$now" -ge "$deadline" ]; then
            fail timeout "the server was not ready within ${timeout} s"
        fi
        pause
        turn=$((turn + 1))
        [ $((turn % 10)) -ne 0 ] || now=$(date +%s)
    done
}

# await_running: a server runs already.
await_running() {
    # If it has been told to stop just now, it may not know yet. Then the mark that says so
    # stays.
    phase=$mark_phase
    [ "$phase" != stopped ] || sleep 1
    mark_phase=
    await_status 0
    looked=no
    mark_phase=$phase
}

# run_command: runs the DBA's command, and waits for the server. A server that it starts must not
# end with a later script, as all that is left of this session's process group does: the command
# gets a group of its own.
run_command() {
    set -- sh -c "$own_locale$command"
    ! timeout --foreground 1 true >/dev/null 2>&1 || set -- timeout --foreground "$timeout" "$@"
    ! command -v setsid >/dev/null 2>&1 || set -- setsid "$@"
    trap 'kill -TERM -- "-$starter" "$starter"; sleep 2; kill -KILL -- "-$starter"; exit 143' TERM
    # the server may inherit these files: none of them may be ours
    "$@" </dev/null >>"$log" 2>&1 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&- &
    starter=$!
    while kill -0 "$starter" 2>/dev/null; do
        ! serving || look_at_options
        pause
    done
    wait "$starter"
    rc=$?
    starter=
    trap - TERM
    if [ "$rc" -ne 0 ] && ! serving; then
        fail start_failed "the command to start the server failed with exit code $rc"
    fi
    await_status "$appear_limit"
}

# remove_stale_sockets: the same for the lock files of the server's sockets.
remove_stale_sockets() {
    know_named "$pgdata"
    list=$(socket_locks)
    while IFS= read -r file; do
        folder=
        [ ! -r "$file" ] || { read -r _ && IFS= read -r folder; } 2>/dev/null <"$file"
        # shellcheck disable=SC2039,SC3013 # -ef is in dash and in POSIX.1-2024
        [ -z "$folder" ] || [ ! "$folder" -ef "$pgdata" ] || remove_stale "$file"
    done <<LIST
$list
LIST
}

in_double_quotes() {
    printf '%s' "$1" | sed 's/["$`\\]/\\&/g'
}

in_single_quotes() {
    printf "'%s'" "$(printf '%s' "$1" | sed "s/'/'\\\\''/g")"
}

# run_pg_ctl: starts the server by pg_ctl, and waits for it. pg_ctl pastes the log's name between
# double quotes into a shell command, and -o as it is.
run_pg_ctl() {
    enter_pgdata || die start_failed "could not change to $pgdata"
    set -- "$bin/pg_ctl" -D "$directory" -l "$(in_double_quotes "$log")" -w -t "$timeout"
    if [ -n "$config" ] && [ "$config" != "$pgdata/postgresql.conf" ]; then
        set -- "$@" -o "-c config_file=$(in_single_quotes "$config")"
    fi
    # From 12 on it makes the server the leader of a session of its own.
    [ "$(cat "$directory/PG_VERSION")" != 11 ] || ! command -v setsid >/dev/null 2>&1 || set -- setsid "$@"
    "$@" start </dev/null >&2 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&- &
    starter=$!
    await_status 1
}

log=$kept.log
if ! (umask 077 && : >>"$log") 2>/dev/null; then
    log=$kept/server.log
fi
read_mark
case $mark_phase in
    '') ;;
    ready | stopped) allow_start ;; # a power failure may have undone that
    *) die marked "$mark says that the node is half-changed (phase $mark_phase): it is not started as it is" ;;
esac
drop_kept_wal # of a stop that was killed
# The server may write to that WAL. What a rewind has really discarded is not there any more.
drop_staged

deadline=$(($(date +%s) + timeout))
log_size=$(size_of "$log")
collected=$(collected_log)
collected_size=0
[ -z "$collected" ] || collected_size=$(size_of "$collected")
! serving || await_running
opts_before=$(opts_time)
remove_stale_lock
remove_stale_sockets
if [ "$again" = yes ] && has_targets "$pgdata"; then
    empty_targets "$pgdata" || die start_failed "the recovery targets in the settings of $pgdata could not be emptied: with one the server could become a primary"
    emit emptied yes
fi
umask 077
if [ -n "$command" ]; then
    run_command
else
    run_pg_ctl
fi
