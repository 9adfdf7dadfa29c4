#!/bin/sh
# verify.sh - waits until a node proves that it follows; changes nothing.
#
# arguments:
#   db_user   role to ask the server as
#   passfile  password file for that; '' = libpq's default
#   slot      the slot that its WAL receiver must use
#   timeline  the timeline that it must stream
#   database  where the row is that must become visible
#   schema    quoted schema of follow_primary_step
#   seq       with job, the key of that row
#   timeout   seconds
#   started   yes = a job has started the server, which must be a standby
#   limit     seconds that the job may look in all: a delay of half of that is waited for
#
# The worker writes that row when it sees the node stream. The script asks for that when it is about
# to look, and looks when it has the answer: where the WAL of the row ends, or '' if the node does
# not stream in time.
#
# prints:
#   ask   yes: the worker's answer is a line on stdin
#   seen  row = the row is visible
#         paused, delayed = the row is received, but may not be replayed yet: recovery is paused,
#         or delayed by longer than we can wait
#         nothing = the server takes no connections while it replays
# fails:
#   not_proven  the time is over; the message says what was missing
#   ended       the server ended meanwhile
#   promoted    started is yes, and it is a primary
#   login_refused  the same, and the server does not let db_user in, as the message tells
set -u
# shellcheck source=src/remote/lib.sh
. "${0%/*}/lib.sh"
# shellcheck source=src/remote/standby.sh
. "${0%/*}/standby.sh"

: "${db_user=postgres}" "${passfile=}" "${slot?}" "${timeline?}" "${database=postgres}" "${schema?}" "${seq?}" \
    "${timeout=60}" "${limit=60}" "${started=no}"

# judge: sets seen if the answer proves that the node follows, else missing to what it lacks.
judge() {
    seen='' missing=''
    case $answer in
        "t|-|streaming|$slot|$timeline|"*'|1|'?'|'*) seen=row ;;
        "t|-|streaming|$slot|$timeline|"*'|t|'[pd]*) seen=${answer##*|} ;;
        "t|-|streaming|$slot|$timeline|"*) missing="the row of this job is not visible there" ;;
        "t|-|streaming|$slot|"*) missing="it streams another timeline" ;;
        "t|-|streaming|"*) missing="its WAL receiver uses another slot" ;;
        "t|-|"*paused) missing="its WAL receiver does not stream, and recovery is paused" ;;
        "t|-|"*) missing="its WAL receiver does not stream" ;;
        "t|"*)
            missing=${answer#"t|"}
            missing="its recovery would end by ${missing%%|*}, which is set in the node's configuration or start command"
            ;;
        *) missing="it is not in recovery" ;;
    esac
}

# plan_looks: sets again to what psql does to look again and again in one connection, for a
# second or two, since the server may end meanwhile. It pauses without a snapshot, which could
# hold up the replay that it waits for.
plan_looks() {
    again=''
    for pause in 0.005 0.005 0.01 0.01 0.01 0.02 0.02 0.02 0.02 0.04 0.04 0.04 0.04 0.08 0.08 0.08 0.08 0.16 0.16 0.16; do
        again="$again${nl}EXECUTE look \\gset$nl\\if :proven$nl\\echo :answer$nl\\q$nl\\endif$nl\\! sleep $pause 2>/dev/null || sleep 1"
    done
}

# look: sets answer to what the server says, or returns 1 with said set to the error. When psql has
# asked the worker, lsn becomes what that has told, and heard yes.
look() {
    ask_server -U "$db_user" <<SQL
\\set told $lsn
\\echo told=:told
PREPARE look AS
SELECT concat_ws('|', pg_is_in_recovery(), targets, receiver, slot, timeline, sender, rows, received, held) AS answer,
       targets = '-' AND receiver = 'streaming' AND slot = '$slot' AND timeline = $timeline AND (rows = 1 OR received AND held <> '-') AS proven
FROM (SELECT coalesce(conf.targets, '-') AS targets,
             coalesce(r.status, '-') AS receiver, coalesce(r.slot_name, '-') AS slot, coalesce(r.received_tli, 0) AS timeline,
             coalesce(r.sender_host, '-') AS sender,
             (SELECT count(*) FROM $schema.follow_primary_step WHERE job_id = $job AND seq = $seq AND state = 'streaming') AS rows,
             coalesce(pg_last_wal_receive_lsn() >= nullif(:'told', '')::pg_lsn, false) AS received,
             CASE WHEN pg_is_in_recovery() AND pg_is_wal_replay_paused() THEN 'paused'
                  WHEN coalesce(conf.delay, '${delay:-0}')::bigint
                      > $limit * 500 THEN 'delayed'
                  ELSE '-' END AS held
      FROM (SELECT string_agg(name, ', ') FILTER (WHERE name <> 'recovery_min_apply_delay' AND (setting <> '' OR pending_restart)) AS targets,
                   min(setting) FILTER (WHERE name = 'recovery_min_apply_delay') AS delay
            FROM pg_settings
            WHERE name IN ('recovery_target', 'recovery_target_name', 'recovery_target_time', 'recovery_target_xid', 'recovery_target_lsn',
                           'recovery_min_apply_delay')) conf LEFT JOIN pg_stat_wal_receiver r ON true) s;
$again
\\echo :answer
SQL
    code=$?
    case $answer in
        told=*)
            case $lsn in '`'*) heard=yes ;; esac
            lsn=${answer%%"$nl"*} answer=${answer#*"$nl"}
            lsn="'${lsn#told=}'"
            ;;
    esac
    return "$code"
}

connect_with "$passfile" "$database"

delay=0
[ ! -f "$pgdata/recovery.conf" ] || delay=$(recovery_conf "$pgdata" | sed -n 's/^set.recovery_min_apply_delay=//p')
plan_looks

# It is psql that asks, when it is connected. While it waits, it does what the watcher does: when the
# channel ends, it ends the process group. Before that, the watcher has to be gone: one that is only
# about to die still takes the first byte of the answer.
lsn="''" heard=no
if [ -n "${watcher:-}" ]; then
    exec 5>&1 6<&0
    gone="while read -r _ _ state _ </proc/$watcher/stat && [ \"\$state\" != Z ]; do true; done 2>/dev/null"
    lsn="\`kill -KILL $watcher 2>/dev/null; $gone; echo ask=yes >&5; IFS= read -r told <&6 || kill -TERM 0; echo \"\$told\"\`"
    trap end_watch EXIT
fi

read_clock
deadline=$((clock + timeout))
while :; do
    if ! lock_file "$pgdata/postmaster.pid" || ! kill -0 "$lock_pid" 2>/dev/null; then
        die ended "the server of \"$pgdata\" is not running"
    fi
    case $lock_status in
        standby*)
            emit seen nothing
            exit 0
            ;;
    esac
    asked=no
    if look; then
        asked=yes
        judge
        [ -z "$seen" ] || break
        case $started$answer in
            "yesf|"*) die promoted "$missing" ;;
        esac
    else
        missing=$said
        sleep 0.02
    fi
    read_clock
    if [ "$clock" -ge "$deadline" ]; then
        [ "$asked" = yes ] || ! accepts || die login_refused "$missing"
        die not_proven "$missing"
    fi
    if [ "$heard" = yes ]; then
        heard=no
        end_watch # psql has killed it
        watch
    fi
done
emit seen "$seen"
