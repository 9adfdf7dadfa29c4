#!/bin/sh
# holdup.sh - tells what keeps a standby from following: what its startup process waits for, and
# what its WAL receiver said last; changes nothing.
#
# arguments:
#   db_user   role to ask the server as
#   db_name   database to connect to for that
#   passfile  password file for that; '' = libpq's default
#   host, port  of the primary that it is to follow, as its settings have them
#   log_file, log_size  where its log ended before, as survey.sh told; '' = not known
#   former_host, former_port  of the primary that it followed before; '' = not to be asked
#
# prints:
#   held      what its startup process is held up by, as sentences; only if it is
#   remedy    what ends that, as a command on the node or as SQL there
#   receiver  what its WAL receiver said last, as its log has it
#   log       where its log is, if that has no such words: a file, syslog, journal, nowhere or
#             unknown
#   former    answers | silent: does the former primary's port?
set -u
# shellcheck source=src/remote/lib.sh
. "${0%/*}/lib.sh"
# shellcheck source=src/remote/processes.sh
. "${0%/*}/processes.sh"
# shellcheck source=src/remote/log.sh
. "${0%/*}/log.sh"

: "${db_user=postgres}" "${db_name=postgres}" "${passfile=}" "${host=}" "${port=}" \
    "${log_file=}" "${log_size=}" "${former_host=}" "${former_port=}"

# For so many seconds a restore_command may run before it is taken for one that hangs.
patience=3

held='' remedy=''

# hold TEXT [REMEDY]: notes one more thing that holds the node up; the first remedy counts.
hold() {
    held=$held${held:+$nl}$1
    [ -n "$remedy" ] || remedy=${2:-}
}

# find_startup: sets startup to the process that replays, startup_state and startup_title; and
# receiver and receiver_state.
find_startup() {
    startup='' startup_state='' startup_title='' receiver='' receiver_state=''
    server_pid || return
    list_family "$pid"
    while read -r process _ state _; do
        title_of "$process"
        case $title in
            *': startup'*) startup=$process startup_state=$state startup_title=$title ;;
            *': walreceiver'*) receiver=$process receiver_state=$state ;;
        esac
    done <<CHILDREN
$(children_of "$pid")
CHILDREN
}

# look_at_commands: is it in a command that hangs? A kill would not do: whatever ends that
# command by a signal ends the server (RestoreArchivedFile() in xlogarchive.c).
look_at_commands() {
    while read -r process _ state seconds; do
        [ -n "$process" ] || continue
        [ "$seconds" -ge "$patience" ] || continue
        describe "$process" "$state" "$seconds"
        deepest=$description
        while read -r process _ state seconds; do
            [ -n "$process" ] || continue
            describe "$process" "$state" "$seconds"
            deepest="$deepest; it runs $description"
        done <<BELOW
$(children_of "$process")
BELOW
        hold "Its startup process, $startup, waits for the restore_command, and looks at nothing else meanwhile: $deepest." \
            "correct restore_command, which does not end: it has to fail soon where the archive does not answer. When that process has ended, the server goes on by itself; at once by: '$bin/pg_ctl' -D '$pgdata' -m fast restart. A kill of that process would end the server"
    done <<CHILDREN
$(children_of "$startup")
CHILDREN
}

# query SQL: prints the answer of the server, a line a row, columns divided by |.
query() {
    ask_server -U "$db_user" <<SQL && printf '%s\n' "$answer"
$1
SQL
}

# sessions WHERE: those sessions, as words; the remedy ends the first one.
sessions() {
    found=$(query "SELECT pid, format('session %s (user \"%s\", application \"%s\"%s, for %s s)', pid, usename, application_name,
            coalesce(', client ' || host(client_addr), ''), extract(epoch FROM clock_timestamp() - coalesce(xact_start, backend_start))::bigint)
        FROM pg_stat_activity a WHERE pid <> pg_backend_pid() AND backend_type = 'client backend' AND ($1)
        ORDER BY age(backend_xmin) DESC NULLS LAST, xact_start LIMIT 3")
    session=${found%%|*}
    names=$(printf '%s\n' "$found" | sed 's/^[^|]*|//' | paste -s -d, - | sed 's/,/, /g')
}

# look_at_waits: does it wait for a session? What it waits for by a conflict is told by no
# server: the sessions with the oldest snapshots are named.
look_at_waits() {
    wait=$(query "SELECT coalesce(wait_event_type, '') || ':' || coalesce(wait_event, '') FROM pg_stat_activity WHERE pid = $startup")
    case $wait in
        Lock:*)
            lock=$(query "SELECT coalesce((SELECT relname::text FROM pg_class c WHERE c.oid = l.relation AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())),
                    format('%s %s', locktype, relation)) FROM pg_locks l WHERE pid = $startup AND NOT granted LIMIT 1")
            # pg_blocking_pids() knows sessions only
            sessions "EXISTS (SELECT FROM pg_locks w JOIN pg_locks h USING (locktype, database, relation)
                WHERE w.pid = $startup AND NOT w.granted AND h.granted AND h.pid = a.pid)"
            what="a lock on \"$lock\""
            ;;
        *:RecoveryConflict* | *:BufferPin)
            sessions "backend_xmin IS NOT NULL OR state <> 'idle'"
            what="sessions that read what it is to remove (${wait#*:})"
            ;;
        *)
            # before 13 only its title tells
            case $startup_title in
                *' waiting') ;;
                *) return ;;
            esac
            sessions "backend_xmin IS NOT NULL OR state <> 'idle'"
            what="sessions that read what it is to remove"
            ;;
    esac
    hold "Its startup process, $startup, waits for $what, held by: ${names:-nobody that is still there}." \
        "${session:+SELECT pg_terminate_backend($session)}"
}

connect_with "$passfile" "$db_name"
PGCONNECT_TIMEOUT=3

find_startup
if [ -n "$startup" ]; then
    case $startup_state in
        T | t) hold "Its startup process, $startup, is stopped by a signal." "kill -CONT $startup" ;;
        D) hold "Its startup process, $startup, waits for a device." ;;
    esac
    look_at_commands
fi
case $receiver_state in
    T | t) hold "Its WAL receiver, $receiver, is stopped by a signal, and no other one is started." "kill -CONT $receiver" ;;
esac
if lock_file "$pgdata/postmaster.pid"; then
    [ -z "$startup" ] || look_at_waits
    find_log
    words=$(last_words)
    if [ -n "$words" ]; then
        emit receiver "$words"
    elif [ -n "$log" ]; then
        emit log "$log"
    elif [ "$(query 'SHOW log_destination')" = syslog ]; then
        emit log syslog
    else
        emit log "$kind"
    fi
fi
[ -z "$held" ] || emit held "$held"
[ -z "$remedy" ] || emit remedy "$remedy"
if [ -n "$former_host" ]; then
    # Whether it would let us in does not matter here.
    "$bin/pg_isready" -q -t 3 -h "$former_host" -p "${former_port:-5432}" >/dev/null 2>&1
    case $? in
        0 | 1) emit former answers ;;
        2) emit former silent ;;
    esac
fi
exit 0
