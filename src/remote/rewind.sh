#!/bin/sh
# rewind.sh - rewinds a stopped data directory to the history of the primary.
#
# usage: rewind.sh PGDATA BIN_DIR CONFIG_FILE SOURCE_CONNINFO PASSFILE
#                  RESTORE_COMMAND JOB SERVER_VERSION_NUM KEEP_SLOTS
#                  LOST_TLI FORK_LSN WAL_SEGMENT_SIZE [OID LOCATION]...
#   CONFIG_FILE      '' = PGDATA/postgresql.conf
#   SOURCE_CONNINFO  without a password
#   RESTORE_COMMAND  by which missing WAL may come; '' = by none
#   KEEP_SLOTS       physical slots of the node's own downstreams, separated by
#                    spaces; every other slot goes, for it would pin WAL
#   LOST_TLI         timeline on which the node has WAL behind FORK_LSN that was
#                    saved and must not be replayed; '' = it has none
#   OID, LOCATION    the primary's tablespaces; those that the node lacks are made
#                    at the same place, which must be free
#
# A server that crashed is recovered first: a primary in single-user mode, a
# standby up to its consistent point and no further, for single-user mode would
# write WAL of its own on a timeline that is not the standby's to write. What
# has a standby.signal stays a standby all the while, for a server that starts
# by itself after a power failure. The mark, in PGDATA.follow_primary/mark, goes
# through these phases:
#   recovering  crash recovery runs; a primary's recovery.signal is moved aside
#   rewinding   pg_rewind may have begun to change PGDATA
#   rewound     it is done; settings have to follow before a start
# configure.sh makes the last one ready. Where PGDATA is known to be as it was,
# so is the mark. From before pg_rewind begins until configure.sh has ended no server
# can be started in PGDATA: see forbid_start(). The output of pg_rewind is passed on
# live and kept in PGDATA.follow_primary/rewind.log.
#
# prints: recovered=yes|no          whether crash recovery was run
#         result=rewound|not_required
#         next_segment=             rewound: the first WAL file that the server will
#                                   have to ask for
#         on failure, changed=yes|no: whether PGDATA may have been changed
# fails:  needs_copy          only a new copy helps
#         tablespace_in_use   something else is in a LOCATION
#         source_unreachable  no_space  permission  running  rewind_failed
set -u
# shellcheck source=src/remote/lib.sh
. "${0%/*}/lib.sh"
# shellcheck source=src/remote/recovery.sh
. "${0%/*}/recovery.sh"

pgdata=$1
bin=$2
config=$3
conninfo=$4
passfile=$5
restore_command=$6
job=$7
version=$8
keep_slots=$9
shift 9
lost_tli=$1
fork_lsn=$2
segment_size=$3
shift 3
work=$pgdata.follow_primary
log=$work/rewind.log
aside=$work/aside

data_umask
LC_ALL=C
PGOPTIONS='-c role=none' # whatever the database's owner has set
export LC_ALL PGOPTIONS
signs_of_life
if [ -n "$passfile" ]; then
    PGPASSFILE=$passfile
    export PGPASSFILE
fi
if [ "$config" = "$pgdata/postgresql.conf" ]; then
    config=
fi

boot_id() {
    cat /proc/sys/kernel/random/boot_id 2>/dev/null
}

# mark PHASE: leaves the mark, durably and in one step.
mark() {
    printf 'job=%s\nmethod=rewind\nphase=%s\nboot=%s\nfork=%s\n' "$job" "$1" "$(boot_id)" "$fork_lsn" \
        >"$work/mark.tmp" || die no_space "could not write $work/mark.tmp"
    sync "$work/mark.tmp" 2>/dev/null
    mv -f "$work/mark.tmp" "$work/mark" || die permission "could not write $work/mark"
    sync "$work" 2>/dev/null
}

marked() {
    sed -n "s/^$1=//p" "$work/mark" 2>/dev/null
}

# Puts back what a server needs to start as what it was.
as_it_was() {
    for signal in standby.signal recovery.signal; do
        if [ -e "$aside/$signal" ]; then
            mv -f "$aside/$signal" "$pgdata/$signal"
        fi
    done
    [ "$was" = swapped ] || allow_start
}

# Nothing was changed: the node is what it was.
forget() {
    as_it_was
    [ ! -e "$work/config/was_restored" ] || mv -f "$work/config/was_restored" "$work/config/restored"
    rm -rf "$aside/wal"
    if [ -n "$was" ]; then
        mark "$was"
    else
        rm -f "$work/mark"
    fi
}

cluster_state() {
    control=$("$bin/pg_controldata" "$pgdata" 2>&1) || return 1
    case $control in
        *WARNING*) return 1 ;;
    esac
    state=$(control_value 'Database cluster state')
}

# control_value NAME: what pg_controldata said of it.
control_value() {
    printf '%s\n' "$control" | sed -n "s/^$1: *//p"
}

# reason FILE: what the messages in FILE say, in the word for the caller.
reason() {
    if grep -Eq 'lock file .* already exists' "$1"; then
        echo running
    elif grep -Eq 'No space left on device|[Qq]uota exceeded' "$1"; then
        echo no_space
    elif grep -Eq 'ould not (open|write|remove|create|truncate|read|access|stat|seek|rename|fsync).*: (Permission denied|Operation not permitted|Read-only file system)' "$1"; then
        echo permission
    elif grep -Eq 'could not find common ancestor|either data checksums or|could not find previous WAL record|could not read WAL record|could not (open|read|stat) file .*pg_wal|could not restore file .* from archive|restored from archive|unexpected page modification|is of different type|unexpected control file|invalid control file|WAL segment size must be|full_page_writes must be|timeline history|not a regular file' "$1"; then
        echo needs_copy
    elif grep -Eq 'could not locate (a valid|required) checkpoint|WAL ends before|invalid (primary |secondary )?checkpoint|requested timeline|could not find redo location|incorrect checksum in control file|control file contains|invalid page|PANIC:' "$1"; then
        echo needs_copy
    elif grep -Eq 'could not connect|connection to server|could not translate host|authentication failed|no pg_hba.conf entry|fe_sendauth|no password supplied|permission denied|must be superuser|server closed the connection|running query|could not fetch|could not receive|could not send|SSL (error|connection)|terminating connection|too many clients|the database system is|(database|role) ".*" does not exist|could not prepare statement|fetching remote file|connection pointer' "$1"; then
        echo source_unreachable
    else
        echo rewind_failed
    fi
}

# give_up CHANGED REASON TEXT
give_up() {
    emit changed "$1"
    shift
    die "$@"
}

# unchanged REASON TEXT: gives up what has changed nothing yet.
unchanged() {
    forget
    give_up no "$@"
}

# postgres OPTION...: runs it with the node's configuration file.
postgres() {
    if [ -n "$config" ]; then
        "$bin/postgres" -D "$pgdata" -c config_file="$config" "$@"
    else
        "$bin/postgres" -D "$pgdata" "$@"
    fi
}

# Removes the slots that are none of the node's own downstreams.
drop_slots() {
    for slot in "$pgdata"/pg_replslot/*; do
        [ -d "$slot" ] || continue
        case " $keep_slots " in
            *" ${slot##*/} "*) ;;
            *) rm -rf "$slot" ;;
        esac
    done
}

# lsn_number LSN: prints it as a number.
lsn_number() {
    printf '%s' "$((0x${1%/*} * 4294967296 + 0x${1#*/}))"
}

per_id=$((4294967296 / segment_size))

# fork_at LSN: sets fork and fork_number.
fork_at() {
    fork_lsn=$1
    fork=$(lsn_number "$1")
    fork_number=$((fork / segment_size))
}
fork_at "$fork_lsn"

# have_segment NUMBER: is it in pg_wal, on whatever timeline?
have_segment() {
    for segment in "$pgdata/pg_wal/"????????"$(printf '%08X%08X' "$(($1 / per_id))" "$(($1 % per_id))")"; do
        [ -f "$segment" ] && return
    done
    return 1
}

# A rewound server replays from the last common checkpoint on. pg_rewind before
# 18 leaves it only the WAL that the source has, which may begin later: the
# node's own segments before the fork, linked before, come back.
#
# Sets next to the first segment that the server will have to ask for.
wal_back() {
    next=$(sed -n 's/^START WAL LOCATION: .*(file \([0-9A-F]*\)).*/\1/p' "$pgdata/backup_label" 2>/dev/null)
    [ -n "$next" ] || return 0
    timeline=${next%????????????????}
    segment_number "$next"
    while :; do
        name=$(printf '%s%08X%08X' "$timeline" "$((number / per_id))" "$((number % per_id))")
        if have_segment "$number"; then
            :
        elif [ "$number" -lt "$fork_number" ] && [ -f "$aside/wal/$name" ]; then
            mv "$aside/wal/$name" "$pgdata/pg_wal/$name" || break
        else
            break
        fi
        number=$((number + 1))
    done
    next=$name
}

# A standby that received WAL behind the fork, but did not replay it, needs no
# rewind; on its next start it would replay what it finds. That WAL, saved
# before, is taken out of pg_wal: later segments whole, the rest of the one with
# the fork. So is what it received of later timelines, and their histories: what is
# the primary's of it comes again.
drop_lost_wal() {
    [ "$fork" -gt 0 ] || return 0
    for file in "$pgdata/pg_wal/"????????.history "$pgdata/pg_wal/"????????????????????????; do
        name=${file##*/}
        name=${name%.history}
        case $name in *[!0-9A-F]*) continue ;; esac
        if [ ! -f "$file" ] || [ "$((0x${name%"${name#????????}"}))" -le "$lost_tli" ]; then
            continue
        fi
        if [ "$name" != "${file##*/}" ] || ! segment_number "$file" || [ "$number" -ge "$fork_number" ]; then
            rm -f "$file" || unchanged permission "could not remove $file"
        fi
    done
    for segment in "$pgdata/pg_wal/$(printf %08X "$lost_tli")"????????????????; do
        segment_number "$segment" || continue
        if [ "$number" -gt "$fork_number" ]; then
            rm -f "$segment" || unchanged permission "could not remove $segment"
        elif [ "$number" -eq "$fork_number" ]; then
            offset=$((fork % segment_size))
            if ! { head -c "$offset" "$segment" &&
                head -c "$((segment_size - offset))" /dev/zero; } >"$work/segment.tmp"; then
                unchanged no_space "could not write $work/segment.tmp"
            fi
            sync "$work/segment.tmp" 2>/dev/null
            mv -f "$work/segment.tmp" "$segment" || unchanged permission "could not write $segment"
        fi
    done
}

# drop_read_wal: pg_rewind leaves segments that it has read, and one of them has
# WAL behind the fork. The server would replay that if not now, then when a
# promotion gives the number of its timeline to another one. What pg_rewind
# wrote is the source's.
drop_read_wal() {
    [ "$fork" -gt 0 ] || return 0
    for segment in "$pgdata/pg_wal/"????????????????????????; do
        # shellcheck disable=SC2039,SC3013 # -nt is in dash and in POSIX.1-2024
        if segment_number "$segment" && [ "$number" -ge "$fork_number" ] && ! [ "$segment" -nt "$work/mark" ]; then
            rm -f "$segment" || give_up yes permission "could not remove $segment"
        fi
    done
}

# control_end: sets end to where a server ended that was shut down, or returns 1.
control_end() {
    case $state in
        'shut down') end=$(control_value 'Latest checkpoint location') ;;
        'shut down in recovery') end=$(control_value 'Minimum recovery ending location') ;;
        *) return 1 ;;
    esac
    end=$(lsn_number "${end:-0/0}")
    # a primary's checkpoint begins at its LSN
    [ "$state" = 'shut down in recovery' ] || end=$((end + 1))
    [ "$end" -gt 1 ]
}

# Does the server need no more than a start, having replayed nothing behind the
# fork? pg_rewind before 13 asks only whether it ends exactly there: it would
# rewind one that never came so far, or fail to.
not_past_fork() {
    control_end && [ "$end" -le "$fork" ]
}

# not_required: what belongs to a server that only has to be started; ends here.
not_required() {
    [ -z "$lost_tli" ] || drop_lost_wal
    drop_slots
    forget
    emit result not_required
    exit 0
}

# pg_rewind before 14 copies no file PG_VERSION, not even that of a database
# which the node lacks: nobody could connect to that database.
database_versions() {
    for folder in "$pgdata"/base/[1-9]* "$pgdata"/pg_tblspc/*/PG_*/[1-9]*; do
        if [ -d "$folder" ] && [ ! -e "$folder/PG_VERSION" ]; then
            cp "$pgdata/PG_VERSION" "$folder/PG_VERSION" ||
                give_up yes rewind_failed "could not write $folder/PG_VERSION"
            sync "$folder/PG_VERSION" 2>/dev/null
        fi
    done
}

# after_rewind: what belongs to a rewind that pg_rewind has done; ends here.
after_rewind() {
    # The source is none, so this is none now.
    make_standby "$pgdata" "$version" || give_up yes rewind_failed "could not make $pgdata a standby"
    database_versions
    drop_read_wal
    wal_back
    rm -rf "$aside"
    drop_slots
    put_back_slots || give_up yes rewind_failed "could not put back the slot ${slot##*/}"
    rm -f "$work/config/was_restored"
    mark rewound
    emit result rewound
    emit next_segment "$next"
    exit 0
}

make_work
mkdir -p "$aside" || die permission "could not make $aside"
if server_pid; then
    give_up no running "the server of $pgdata runs, as process $pid"
fi

# What an interrupted attempt left. pg_rewind says "need to copy" before its
# first change; whether it came that far is believed only of a log from this
# boot, and only if no file is newer than the mark.
was=
case $(marked phase) in
    '')
        case $(stat -Lc %A -- "$pgdata" 2>/dev/null) in
            d???????w-) give_up yes needs_copy "$pgdata is as a rewind that failed half-way leaves it, which no server starts from" ;;
        esac
        ;;
    swapped | ready | stopped) was=$(marked phase) ;; # of an earlier job or step
    recovering) as_it_was ;;
    rewinding)
        if [ -n "$(boot_id)" ] && [ "$(marked boot)" = "$(boot_id)" ] &&
            grep -q 'Done!' "$log" 2>/dev/null; then
            emit recovered no
            [ -z "$(marked fork)" ] || fork_at "$(marked fork)"
            after_rewind
        elif [ -s "$log" ] && ! grep -q 'need to copy' "$log" &&
            [ -n "$(boot_id)" ] && [ "$(marked boot)" = "$(boot_id)" ] &&
            [ -z "$(find -L "$pgdata" -newer "$work/mark" 2>/dev/null | head -n 1)" ]; then
            as_it_was
        else
            give_up yes needs_copy "an earlier rewind was interrupted and left the data directory half-changed"
        fi
        ;;
    rewound)
        emit recovered no
        wal_back
        emit next_segment "$next"
        emit result rewound
        exit 0
        ;;
    *) give_up yes needs_copy "$work/mark says that the data directory is in phase $(marked phase)" ;;
esac

cluster_state || {
    say "$control"
    give_up no needs_copy "the control file of $pgdata cannot be read"
}

# recover_primary: as pg_rewind from 13 on does it, but with fsync, and keeping the
# WAL since the checkpoint before the crash: pg_rewind needs it.
recover_primary() {
    set -- -c wal_keep_size=1000000000
    [ "$version" -ge 130000 ] || set -- -c wal_keep_segments=1000000000
    [ -z "$config" ] || set -- "$@" -c config_file="$config"
    logged "$work/recovery.log" "$bin/postgres" --single -D "$pgdata" "$@" template1 </dev/null
}

# recover_standby: replays to where it is consistent, and shuts down there. It does
# so by itself, but for one that is consistent with its very last record: unless
# that is a commit, recovery does not see its target there (recoveryStopsAfter()
# in PostgreSQL). A standby waits for the next record then, and can be stopped;
# one without standby.signal would fail, and would promote if a power failure
# left it to be started by itself.
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
            # a shutdown in good order would say that it is consistent
            kill -QUIT "$pid"
            wait "$server"
            echo 'WAL ends before consistent recovery point' | tee -a "$work/recovery.log" >&2
            break
        fi
        sleep 0.05 2>/dev/null || sleep 1
    done
    wait "$server"
    rm -f "$pgdata"/.s.PGSQL.*
    cluster_state && [ "$state" = 'shut down in recovery' ] &&
        grep -q 'consistent recovery state reached' "$work/recovery.log"
}

# waits_for_wal: has the server asked for one segment over and over? It asks three
# times at most for one that it has: for the checkpoint, the redo, and in turn.
waits_for_wal() {
    awk 'length($0) == 24 && ++asked[$0] == 10 { waits = 1 } END { exit !waits }' "$aside/asked" 2>/dev/null
}

# recovering_server: one that nobody connects to, which says in English how far it
# is, and in a file for which WAL it asks.
recovering_server() {
    FOLLOW_PRIMARY_ASKED=$aside/asked
    export FOLLOW_PRIMARY_ASKED
    # shellcheck disable=SC2016 # for the shell that the server starts
    logged "$work/recovery.log" postgres \
        -c recovery_target=immediate -c recovery_target_action=shutdown -c recovery_target_timeline=latest \
        -c restore_command='echo %f >>"$FOLLOW_PRIMARY_ASKED"; false' -c wal_retrieve_retry_interval=100 \
        -c wal_keep_size=1000000000 -c recovery_min_apply_delay=0 \
        -c archive_cleanup_command= -c recovery_end_command= \
        -c primary_conninfo= -c primary_slot_name= -c hot_standby=off \
        -c listen_addresses= -c unix_socket_directories=. -c unix_socket_permissions=0700 \
        -c logging_collector=off -c log_destination=stderr -c log_min_messages=warning \
        -c lc_messages=C </dev/null
}

# pg_rewind reads all that is in PGDATA, and removes what the primary has not.
for folder in "$pgdata" "$pgdata/pg_wal" "$pgdata"/pg_tblspc/*; do
    if [ -d "$folder/lost+found" ] && [ ! -r "$folder/lost+found" ]; then
        give_up no needs_copy "pg_rewind cannot work with $folder/lost+found, which it may not read"
    fi
    for kept in "$folder"/.follow_primary_*; do
        case ${kept##*/} in
            .follow_primary_new) rm -rf "$kept" ;;
            *) [ ! -e "$kept" ] || give_up no needs_copy "pg_rewind would remove $kept, which holds replaced data" ;;
        esac
    done
done

# pg_rewind would write into the directory, whosever it is: on one machine it
# may be the primary's own.
while [ $# -ge 2 ]; do
    if [ ! -e "$pgdata/pg_tblspc/$1" ] && [ ! -h "$pgdata/pg_tblspc/$1" ]; then
        for link in "$pgdata"/pg_tblspc/*; do
            # shellcheck disable=SC2039,SC3013 # as above
            if [ -h "$link" ] && [ "$link" -ef "$2" ]; then
                give_up no needs_copy "$2 was made a tablespace anew after the fork: a rewind would mix up the old and the new one"
            fi
        done
        if [ -n "$(find -H "$2" -mindepth 1 -maxdepth 1 ! -name lost+found 2>/dev/null | head -n 1)" ]; then
            give_up no tablespace_in_use "$2 is a tablespace of the primary; on the node it is not one, and not empty"
        fi
        mkdir -p "$2" 2>/dev/null
        [ -w "$2" ] || give_up no permission "the primary's tablespace directory $2 is not on the node, and cannot be made"
    fi
    shift 2
done

recovered=no
case $state in
    'shut down' | 'shut down in recovery') ;;
    *)
        case $state in
            'in archive recovery') crashed=standby ;;
            'in production' | 'in crash recovery' | 'shutting down' | 'starting up') crashed=primary ;;
            *) give_up no needs_copy "pg_controldata says that the cluster of $pgdata is in state \"$state\"" ;;
        esac
        say "the server was not shut down cleanly ($state): running crash recovery"
        # A backup that was never started: its control file is the primary's.
        [ ! -e "$pgdata/backup_label" ] || crashed=standby
        if [ "$crashed" = standby ] && [ "$version" -lt 130000 ]; then
            give_up no needs_copy "a crashed standby before PostgreSQL 13 cannot be recovered without being started"
        fi
        # A primary that was to be one from its next start on.
        [ ! -e "$pgdata/standby.signal" ] || [ "$version" -lt 130000 ] || crashed=standby
        mark recovering
        if [ "$crashed" = standby ]; then
            recover_standby
        else
            for signal in standby.signal recovery.signal; do
                if [ -e "$pgdata/$signal" ]; then
                    mv -f "$pgdata/$signal" "$aside/$signal"
                fi
            done
            recover_primary
        fi || {
            why=$(reason "$work/recovery.log")
            unchanged "$why" "crash recovery failed"
        }
        recovered=yes
        ;;
esac
emit recovered "$recovered"
if [ "$version" -lt 130000 ] && not_past_fork; then
    not_required
fi

enter_pgdata || unchanged permission "could not change to $pgdata"
set -- "$bin/pg_rewind" -P -D "$directory" --source-server="$conninfo"
if [ "$version" -ge 130000 ]; then
    set -- "$@" --no-ensure-shutdown
    if [ -n "$restore_command" ] && [ "$version" -ge 150000 ]; then
        # pg_rewind reads the command from the configuration
        { printf "include = '%s'\n" "$(printf '%s' "${config:-$pgdata/postgresql.conf}" | sed "s/\\\\/&&/g; s/'/''/g")" &&
            printf "restore_command = '%s'\n" "$(printf '%s' "$restore_command" | sed "s/\\\\/&&/g; s/'/''/g")"; } >"$work/rewind.conf"
        set -- "$@" -c --config-file="$work/rewind.conf"
    elif [ -n "$restore_command" ] && [ -z "$config" ] &&
        [ -n "$(postgres -C restore_command 2>/dev/null </dev/null)" ]; then
        set -- "$@" -c
    elif [ -n "$restore_command" ]; then
        say "pg_rewind before 15 uses only a restore_command in $pgdata/postgresql.conf: going without"
    elif [ -n "$config" ] && [ "$version" -ge 150000 ]; then
        set -- "$@" --config-file="$config"
    fi
fi
if command -v stdbuf >/dev/null 2>&1; then
    set -- stdbuf -oL "$@" # before 12 progress goes to stdout
fi

# Links: what pg_rewind overwrites in place is not needed from here. A pg_wal on
# another file system goes without.
rm -rf "$aside/wal"
mkdir "$aside/wal" && ln "$pgdata/pg_wal/"???????????????????????? "$aside/wal/" 2>/dev/null

# When the job is ended here, so is pg_rewind, and it is told what that has changed.
trap : TERM PIPE
rm -f "$log"
if [ -e "$work/config/restored" ]; then
    # forget() puts it back
    mv -f "$work/config/restored" "$work/config/was_restored" && sync "$work/config" 2>/dev/null
fi
mark rewinding
forbid_start "$pgdata"
logged "$log" "$@" </dev/null
rc=$?
rm -f "$work/rewind.conf"

if [ "$rc" -ne 0 ]; then
    why=$(reason "$log")
    # On a full disk the log lacks what it should tell. In pg_wal there may be
    # what came from the archive.
    if grep -q 'need to copy' "$log" ||
        [ -n "$(find -L "$pgdata" -name pg_wal -prune -o -newer "$work/mark" -print 2>/dev/null | head -n 1)" ]; then
        give_up yes "$why" "pg_rewind failed with exit code $rc after it began to change the data directory"
    fi
    unchanged "$why" "pg_rewind failed with exit code $rc; it changed nothing"
fi

trap - TERM PIPE
if grep -q 'no rewind required' "$log"; then
    # It compares timelines by number.
    [ "$recovered" = no ] || cluster_state
    if [ -n "$lost_tli" ] && control_end && [ "$end" -gt "$fork" ]; then
        unchanged needs_copy "pg_rewind sees no need to rewind, but the data is past the fork"
    fi
    not_required
fi

after_rewind
