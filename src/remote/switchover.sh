#!/bin/sh
# switchover.sh - a running primary gives its place to one of its standbys, in parts, each
# safe to be the last: at every moment this server is the primary, or the standby is, or the
# watcher here makes this one the primary again.
#
# arguments:
#   action      look     tells what speaks against it; changes nothing
#               prepare  makes a checkpoint, as far as the role may
#               stop     stops the server fast and tells where its WAL ends; leaves the watcher
#               commit   from now on a start here makes a standby: the other may be promoted
#               ask      has a commit come so far, or is there none, and will there be none?
#               done     the other has been promoted; a process that still waits for the
#                        archiver is ended
#               back     the other will not be promoted: this server is started as the primary
#   db_user     role to ask the server as, in database db_name, with passfile
#   standby     the application_name by which the standby streams
#   slot        the slot that it streams through, '' = none
#   timeout     stop: seconds after which the watcher acts
#   candidate   look, stop: connection string of the standby, for the watcher
#   own         the standby's host:port
#   lock, file  look, stop: the number of the advisory lock that the session on the standby has,
#               and the name of the file that it makes before it promotes, which ends in the
#               time when the postmaster there was started
#   config      the configuration file; '' = in the data directory
#   start_command  stop, back: run by sh -c instead of pg_ctl, if not ''
#   stop_command   stop: likewise
#   CONNINFO ...   (positional) look, stop, back: connection strings of all other nodes
#
# The watcher is a process of its own that outlives the connection. After the time it starts
# this server as the primary again, unless the standby may be promoted. One atomic step decides
# that, the making of the link job/switchover.decided: the action commit makes it first, or the
# watcher does, or the action ask. After a commit the watcher asks the standby. The session there
# has an advisory lock, and makes a file before it promotes, which counts as long as the postmaster
# there runs. It answers, and so there are never two primaries:
#   recovery lock file
#   f                    it is the primary                          the watcher ends
#   t        t           the session is at it                       it asks again
#   t        f    t      src/promoter.c promotes it, also after a   it asks again
#                        crash: the postmaster starts that again
#   t        f    f      nobody has asked for the promotion, or a   it starts this server
#                        start has taken that back; nobody will
#   no answer                                                       it asks again
# A failover may have come in between, by hand or by a manager: before this server is started as
# the primary, every other node is asked. If one is the primary, nobody starts this one, and a
# start of it makes a standby.
#
# prints:
#   look: in_recovery system_id timeline flushed standbys copies ready archiver_fails logical_slots
#         candidate  what the standby answers to the watcher's question
#         unasked    host:port of the other nodes that could not be asked
#         pending    host:port of a standby that has stopped this server, or was about to, by a
#                    switchover that has not ended, and pending_number, the number of that
#   stop: end      the LSN of the shutdown checkpoint
#         record   its first bytes
#   ask: committed yes, no
# fails:
#   sql            the server did not answer
#   candidate      the standby cannot be asked from here
#   timeout        it has not shut down in time; it was started again, or goes on
#   decided        commit: the watcher was first: the standby must not be promoted
#   other_primary  look, back: another node is a primary, as the message tells
#   start_failed   the server did not start
set -u
# shellcheck source=src/remote/lib.sh
. "${0%/*}/lib.sh"

: "${action?}" "${db_user=postgres}" "${db_name=postgres}" "${passfile=}" "${standby=}" "${slot=}" "${timeout=60}" \
    "${candidate=}" "${own=}" "${lock=0}" "${file=}" "${config=}" "${start_command=}" "${stop_command=}" "${version=150000}" "${segment_size=16777216}"
state=$work/switchover
primaries='' unasked='' # other_primary()'s
decided=$state.decided

# ask_own: asks the server here, by the SQL on stdin, as ask_server().
ask_own() {
    lock_file "$pgdata/postmaster.pid" || die sql "the server of $pgdata does not run"
    connect_with "$passfile" "$db_name"
    ask_server -U "$db_user" -v standby="$standby" -v slot="$slot"
}

# control NAME: sets value to what pg_controldata says of it.
control() {
    value=$("$bin/pg_controldata" "$pgdata" 2>/dev/null | sed -n "s/^$1: *//p")
}

# write_state WORD: durably. The file has the word, the number of the switchover, its standby.
write_state() {
    printf '%s %s %s\n' "$1" "$lock" "$own" | put "$state" || exit 1
}

# prepare: a checkpoint before the stop makes that short.
prepare() {
    ask_own <<'SQL' || { emit checkpoint no && say "$said"; }
CHECKPOINT
SQL
}

# look CONNINFO...
look() {
    word='' number='' pending=''
    [ ! -e "$state" ] || read -r word number pending <"$state"
    case $word in
        armed | committed)
            emit pending "$pending"
            emit pending_number "$number"
            ;;
    esac
    server_pid || return 0
    ask_own <<'SQL' || die sql "$said"
SELECT pg_is_in_recovery(), (SELECT system_identifier FROM pg_control_system()),
       CASE WHEN NOT pg_is_in_recovery() THEN left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) END,
       CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_flush_lsn() END,
       (SELECT count(*) FROM pg_stat_replication r LEFT JOIN pg_replication_slots s ON s.active_pid = r.pid
        WHERE r.state = 'streaming' AND r.application_name = :'standby' AND coalesce(s.slot_name, '') = :'slot'),
       (SELECT count(*) FROM pg_stat_replication WHERE state = 'backup'),
       (SELECT coalesce(last_failed_time > coalesce(last_archived_time, '-infinity'), false) FROM pg_stat_archiver),
       (SELECT string_agg(slot_name, ' ' ORDER BY slot_name) FROM pg_replication_slots WHERE slot_type = 'logical' AND NOT temporary);
SQL
    IFS='|' read -r in_recovery system_id timeline flushed standbys copies archiver_fails logical_slots <<ANSWER
$answer
ANSWER
    set_question
    ask -d "$candidate" -c "$question" </dev/null ||
        die candidate "this server cannot ask the standby by \"$candidate\": $said"
    emit candidate "$answer"
    eval "$start_primary"
    ! other_primary "$@" || die other_primary "another node is a primary: $primaries"
    emit unasked "$unasked"
    emit in_recovery "$in_recovery"
    emit system_id "$system_id"
    # the control file may have the former one until the first checkpoint has ended
    emit timeline "${timeline:+$((0x$timeline))}"
    emit flushed "$flushed"
    emit standbys "$standbys"
    emit copies "$copies"
    emit archiver_fails "$archiver_fails"
    emit logical_slots "$logical_slots"
    set -- "$pgdata"/pg_wal/archive_status/????????????????????????.ready
    [ -e "$1" ] || shift
    emit ready $#
}

# What the watcher and the action back have in common: start_primary starts the server as the
# primary it was; returns 1 if it does not run in the end. A process that has shut down, and waits
# for an archiver or for a standby that does not answer, is ended first, and so is a standby: that
# has no other WAL, for nobody has become the primary. other_primary CONNINFO...
# sets primaries to those of these nodes that are primaries of this cluster, and unasked to those
# that do not tell, host:port with spaces between; returns 1 if there is no primary. All are asked at
# once, for a host that is gone takes its time not to answer.
# shellcheck disable=SC2016 # the variables are those of who evaluates it
start_primary='
other_primary() {
    own_id=$("$bin/pg_controldata" "$pgdata" 2>/dev/null | sed -n "s/^Database system identifier: *//p")
    found=$(
        for other; do
            case $("$bin/psql" -X -q -A -t -w -d "$other connect_timeout=3" -c "$others_question" </dev/null 2>/dev/null) in
                "f|$own_id") echo "primary ${other%% user=*}" ;;
                [ft]"|"*) ;;
                *) echo "unasked ${other%% user=*}" ;;
            esac &
        done
        wait
    )
    primaries=$(echo "$found" | sed -n "s/^primary //p")
    unasked=$(echo "$found" | sed -n "s/^unasked //p")
    [ -n "$primaries" ]
}
others_question="SELECT pg_is_in_recovery(), system_identifier FROM pg_control_system()"
control_state() {
    "$bin/pg_controldata" "$pgdata" 2>/dev/null | sed -n "s/^Database cluster state: *//p"
}
server_process() {
    process=
    { read -r process <"$pgdata/postmaster.pid"; } 2>/dev/null
    [ -n "$process" ] && [ "/proc/$process/cwd/." -ef "$pgdata/." ]
}
start_primary() {
    tries=0
    while [ "$tries" -lt 100 ]; do
        if server_process; then
            case $(control_state) in
                "in production") return 0 ;;
                "shut down") kill -QUIT "$process" ;;
                # somebody has started it after the commit
                "in archive recovery") kill -INT "$process" ;;
            esac
        else
            rm -f "$pgdata/standby.signal"
            if [ -n "$start_command" ]; then
                sh -c "$own_locale$start_command" </dev/null
            elif [ -n "$config" ]; then
                "$bin/pg_ctl" -D "$pgdata" -l "$pgdata.follow_primary.log" -w -o "-c config_file=$config" start </dev/null
            else
                "$bin/pg_ctl" -D "$pgdata" -l "$pgdata.follow_primary.log" -w start </dev/null
            fi
        fi
        tries=$((tries + 1))
        sleep 0.2
    done
    return 1
}
'

# The watcher's text. It has its own copies of the arguments.
# shellcheck disable=SC2016 # they are the watcher's variables
watcher='
is_over() {
    word="" number=""
    { read -r word number _ <"$state"; } 2>/dev/null
    [ "$number" != "$lock" ] || [ "$word" = done ]
}
go_back() {
    if other_primary "$@"; then
        echo "another node is a primary: $primaries"
        : >"$pgdata/standby.signal"
    elif start_primary; then
        rm -f "$state"
    fi
    exit
}
end=$(($(date +%s) + timeout))
while [ "$(date +%s)" -lt "$end" ]; do
    if is_over; then exit 0; fi
    sleep 0.2
done
if is_over; then exit 0; fi
if ln -s back "$decided" 2>/dev/null; then go_back "$@"; fi
tries=0
while [ "$tries" -lt 3600 ]; do
    if is_over; then exit 0; fi
    case $("$bin/psql" -X -q -A -t -w -d "$candidate" -c "$question" 2>/dev/null) in
        "f|"*) exit 0 ;;
        "t|f|f") go_back "$@" ;;
    esac
    tries=$((tries + 1))
    sleep 1
done
'

# set_question: sets question to what the standby is asked: is it in recovery, has the session
# there its lock, is there its file, and still the postmaster that it made it for?
set_question() {
    started=${file##*.}
    question="SELECT pg_is_in_recovery(), EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted
        AND classid::bigint << 32 | objid::bigint = $lock), EXISTS (SELECT FROM pg_stat_file('$file', true) s WHERE s.size IS NOT NULL)
        AND (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint = '${started:-0}'"
}

# start_watcher CONNINFO...: in a session of its own, so that it does not end with this connection.
start_watcher() {
    rm -rf "$decided"
    write_state armed
    use_passfile "$passfile"
    set_question
    question=$question lock=$lock pgdata=$pgdata bin=$bin state=$state decided=$decided timeout=$timeout \
        candidate=$candidate config=$config start_command=$start_command own_locale=$own_locale PGCONNECT_TIMEOUT=3 \
        PGOPTIONS='-c role=none -c client_min_messages=error' \
        setsid sh -c "$start_primary$watcher" follow_primary-watcher "$@" </dev/null >>"$state.log" 2>&1 \
        3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&- &
}

# first_bytes LSN: sets bytes to the first bytes of the WAL record there, in hexadecimal.
first_bytes() {
    position=$((0x${1%/*} * 4294967296 + 0x${1#*/}))
    per_id=$((4294967296 / segment_size))
    control "Latest checkpoint's TimeLineID"
    segment=$((position / segment_size))
    file=$pgdata/pg_wal/$(printf '%08X%08X%08X' "$value" $((segment / per_id)) $((segment % per_id)))
    bytes=
    for byte in $(od -An -v -tx1 -j $((position % segment_size)) -N 24 -- "$file" 2>/dev/null); do
        bytes=$bytes$byte
    done
}

# stop CONNINFO...: the server has shut down when its control file says so; its process may still
# wait for an archive_command.
stop() {
    server_pid || die sql "the server of $pgdata does not run"
    mkdir -p "$work" || die permission "could not make $work"
    start_watcher "$@"
    first=$pid
    if [ -n "$stop_command" ]; then
        sh -c "$own_locale$stop_command" </dev/null >&2 &
    else
        kill -INT "$first" || die sql "the server, process $first, could not be told to stop"
    fi
    end=$(($(date +%s) + timeout - 5))
    while :; do
        control 'Database cluster state'
        [ "$value" != 'shut down' ] || break
        [ "$(date +%s)" -lt "$end" ] || die timeout "the server has not shut down within $((timeout - 5)) s"
        sleep 0.01
    done
    control 'Latest checkpoint location'
    emit end "$value"
    first_bytes "$value"
    emit record "$bytes"
}

# commit: from now on a start here makes a standby. That file comes last: it is what counts.
commit() {
    ln -s commit "$decided" 2>/dev/null || die decided "the watcher is about to start this server again"
    write_state committed
    : >"$pgdata/standby.signal" && sync "$pgdata/standby.signal" "$pgdata" 2>/dev/null
    [ -e "$pgdata/standby.signal" ] || die permission "could not make $pgdata/standby.signal"
}

# ask: the connection broke while commit ran, or the host did. What is left of it here has ended, or
# does soon, with the connection.
ask_for_commit() {
    committed=no tries=0
    if ! ln -s back "$decided" 2>/dev/null && [ "$(readlink "$decided")" = commit ]; then
        while [ "$committed" = no ] && [ "$tries" -lt 50 ]; do
            read -r word number _ <"$state"
            [ "$word $number" != "committed $lock" ] || [ ! -e "$pgdata/standby.signal" ] || committed=yes
            [ "$committed" = yes ] || sleep 0.1
            tries=$((tries + 1))
        done
    fi
    emit committed "$committed"
}

# end_switchover: the other is the primary. Nothing but an archiver can hold up the process here.
end_switchover() {
    write_state 'done'
    control 'Database cluster state'
    if [ "$value" = 'shut down' ] && server_pid; then
        kill -QUIT "$pid"
        tries=0
        while server_pid && [ "$tries" -lt 200 ]; do
            tries=$((tries + 1))
            sleep 0.01
        done
    fi
}

# back CONNINFO...
back() {
    eval "$start_primary"
    if said=$(connect_with "$passfile" "$db_name" && other_primary "$@" && echo "$primaries"); then
        : >"$pgdata/standby.signal"
        die other_primary "another node is a primary: $said"
    fi
    start_primary >&2 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&- ||
        die start_failed "the server does not run: see $pgdata.follow_primary.log"
    rm -f "$state" "$state.log"
    rm -rf "$decided"
    rmdir "$work" "$kept" 2>/dev/null || :
}

case $action in
    look) look "$@" ;;
    prepare) prepare ;;
    stop) stop "$@" ;;
    commit) commit ;;
    ask) ask_for_commit ;;
    done) end_switchover ;;
    back) back "$@" ;;
esac
exit 0
