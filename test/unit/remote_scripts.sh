#!/bin/sh
# remote_scripts.sh - checks of src/remote that need no server.
#
# Proves that each script does its editing and renaming exactly, again when it
# is run again, and to the end when it was killed at any step before. Prints
# TAP. Runs as any user, in a folder of its own that it removes.
set -u

scripts=$(cd "${0%/*}/../../src/remote" && pwd) || exit 1
top=$(mktemp -d) || exit 1
trap 'rm -rf "$top"' EXIT
trap 'exit 1' HUP INT TERM

count=0
failures=0

# ok NAME COMMAND...: one check, true if the command is.
ok() {
    name=$1
    shift
    count=$((count + 1))
    if "$@"; then
        echo "ok $count - $name"
    else
        echo "not ok $count - $name"
        sed 's/^/# /' "$top/out" "$top/err" 2>/dev/null
        failures=$((failures + 1))
    fi
}

# run SCRIPT ARGUMENT...: stdout to out, stderr to err, exit code to rc.
run() {
    script=$1
    shift
    sh "$scripts/$script" "$@" >"$top/out" 2>"$top/err" </dev/null
    rc=$?
    return "$rc"
}

printed() {
    grep -Fqx -e "$1" "$top/out"
}

fails_with() {
    [ "$rc" -ne 0 ] && printed "failed=$1"
}

is() {
    [ "$1" = "$2" ] || {
        printf '# got:  %s\n# want: %s\n' "$1" "$2"
        false
    }
}

mode() {
    # shellcheck disable=SC2012 # the mode only
    ls -ld "$1" | cut -c 1-10
}

# A folder of programs that stand in for PostgreSQL's.
bin=$top/bin
mkdir "$bin"
program() {
    cat >"$bin/$1"
    chmod +x "$bin/$1"
}
program pg_controldata <<'END'
#!/bin/sh
echo "Database cluster state:               ${FP_TEST_STATE:-shut down}"
END
program pg_ctl <<'END'
#!/bin/sh
case "$*" in *status*) exit 3 ;; esac
echo "pg_ctl $*" >&2
exit 1
END
# Takes the last assignment of -C's name in the recovery file of the test.
program postgres <<'END'
#!/bin/sh
for name; do :; done
cat "$FP_TEST_VALUES/$name" 2>/dev/null
exit 0
END

# Names that break whoever quotes carelessly.
# shellcheck disable=SC2016 # as they are
nasty='it'\''s a "data" $dir `x` \n *;[1]'

# A stand-in for sync that tells what it is to flush, or fails.
sync_bin=$top/sync
mkdir "$sync_bin"
cat >"$sync_bin/sync" <<'END'
#!/bin/sh
[ -z "${FP_TEST_NO_SYNC:-}" ] || exit 1
for file; do
    if [ -d "$file" ]; then echo "folder ${file##*/}"; else echo "${file##*/} $(paste -sd " " "$file")"; fi
done >>"$FP_TEST_SYNCED"
END
chmod +x "$sync_bin/sync"
FP_TEST_SYNCED=$top/synced
export FP_TEST_SYNCED
# flushing SCRIPT ARGUMENT...: run, and synced has what it flushed.
flushing() {
    : >"$FP_TEST_SYNCED"
    PATH=$sync_bin:$PATH run "$@"
}
flushed() {
    grep -Fqx -e "$1" "$FP_TEST_SYNCED"
}

### stop.sh

pgdata="$top/stop $nasty"
mkdir "$pgdata"
run stop.sh "$pgdata" "$bin" 2 '' 7
ok 'stop: no postmaster.pid is success' is "$rc$(cat "$top/out")" "0was_running=no
control_time=
state=shut down"
echo 999999999 >"$pgdata/postmaster.pid"
run stop.sh "$pgdata" "$bin" 2 '' 7
ok 'stop: a process that is gone is success' is "$rc" 0
echo $$ >"$pgdata/postmaster.pid"
run stop.sh "$pgdata" "$bin" 2 '' 7
ok "stop: another program's process is success" is "$rc" 0
ok 'stop: and was not running' printed was_running=no
: >"$pgdata/postmaster.pid"
run stop.sh "$pgdata" "$bin" 2 '' 7
ok 'stop: an empty postmaster.pid is success' is "$rc" 0

# what looks like a server: a process that works in PGDATA
(cd "$pgdata" && exec sleep 30) &
server=$!
sleep 0.2
echo "$server" >"$pgdata/postmaster.pid"
run stop.sh "$pgdata" "$bin" 1 'exit 3' 7
ok 'stop: a command that fails' fails_with stop_failed
run stop.sh "$pgdata" "$bin" 1 true 7
ok 'stop: a command that does nothing' fails_with timeout
rm "$pgdata.follow_primary/mark"
flushing stop.sh "$pgdata" "$bin" 1 true 7
ok 'stop: the mark is flushed' flushed 'mark.tmp job=7 phase=stopped'
run stop.sh "$pgdata" "$bin" 10 "(sleep 0.5; kill $server) &" 7
wait "$server" 2>/dev/null
ok 'stop: a command that returns early is waited for' is "$rc" 0
ok 'stop: and it was running' printed was_running=yes
ok 'stop: what it stopped is marked' is "$(grep -v '^$' "$pgdata.follow_primary/mark" | tr '\n' ' ')" 'job=7 phase=stopped '

### start.sh

# Does a server accept the mode of PGDATA?
permitted() {
    [ -z "$(find "$pgdata" -prune -perm -002)" ]
}

forbidden() {
    ! permitted
}

for phase in recovering rewinding rewound swapping swapped; do
    printf 'job=1\nphase=%s\n' "$phase" >"$pgdata.follow_primary/mark"
    run start.sh "$pgdata" "$bin" '' 2 '' ''
    ok "start: refused in phase $phase" fails_with marked
done
printf 'job=1\nphase=ready\n' >"$pgdata.follow_primary/mark"
run start.sh "$pgdata" "$bin" '' 2 'echo cause; exit 1' ''
ok 'start: not refused in phase ready' fails_with start_failed
ok 'start: what the command said is shown' grep -qx cause "$top/err"
ok "start: the log is the owner's only" is "$(mode "$pgdata.follow_primary.log")" -rw-------

### configure.sh

pgdata="$top/conf $nasty"
mkdir "$pgdata"
recovery="$top/my $nasty.conf"
quoted=$(printf '%s' "$recovery" | sed "s/\\\\/&&/g; s/'/''/g")
conninfo="host=db1 password='pa ss\\'"
content="primary_conninfo = 'x'
restore_command = 'y'"
FP_TEST_VALUES=$top/values
export FP_TEST_VALUES
mkdir "$FP_TEST_VALUES"
echo latest >"$FP_TEST_VALUES/recovery_target_timeline"
printf '%s\n' "$conninfo" >"$FP_TEST_VALUES/primary_conninfo"
echo slot >"$FP_TEST_VALUES/primary_slot_name"
echo y >"$FP_TEST_VALUES/restore_command"

{
    # printf, for dash's echo knows escapes
    printf '%s\n' 'port = 5432 # keep \n this' \
        "include_if_exists = '$quoted'" \
        "  INCLUDE_IF_EXISTS='$quoted' # spacing" \
        "include_if_exists	'$quoted'" \
        "include_if_exists = 'other.conf'" \
        "#include_if_exists = '$quoted'" \
        'include_if_exists_not = 1' 'last = 1' '' ''
} >"$pgdata/postgresql.conf"
chmod 640 "$pgdata/postgresql.conf"
cat >"$pgdata/postgresql.auto.conf" <<'END'
# Do not edit
Primary_ConnInfo = 'host=old # = '' x'
primary_slot_name='old'
work_mem = 'primary_slot_name = 1'
recovery_target_lsn = '0/1'
recovery_target = 'immediate'
recovery_min_apply_delay = '5s'
restore_command = 'old'
recovery_targets = 'mine'
archive_cleanup_command = 'keep'
END
touch "$pgdata/recovery.signal" "$pgdata/backup_label"
echo old >"$pgdata/recovery.conf"
configure() {
    run configure.sh "$pgdata" "$bin" '' "$recovery" "${1:-150000}" "$content" no "$conninfo" slot y
}
configure
ok 'configure: runs' is "$rc" 0
ok 'configure: says that it changed something' printed changed=yes
ok 'configure: the conninfo is not printed' is "$(grep -c 'pa ss' "$top/out" "$top/err" | sed 's/.*://' | tr -d '\n')" 00
ok 'configure: the include comes once and last' is "$(cat "$pgdata/postgresql.conf")" "port = 5432 # keep \\n this
include_if_exists = 'other.conf'
#include_if_exists = '$quoted'
include_if_exists_not = 1
last = 1
include_if_exists = '$quoted'"
ok 'configure: its mode stays' is "$(mode "$pgdata/postgresql.conf")" -rw-r-----
ok 'configure: the settings are written' is "$(cat "$recovery")" "$content"
ok "configure: for the owner's eyes" is "$(mode "$recovery")" -rw-------
ok 'configure: postgresql.auto.conf loses what would win' is "$(cat "$pgdata/postgresql.auto.conf")" \
    "# Do not edit
work_mem = 'primary_slot_name = 1'
recovery_min_apply_delay = '5s'
recovery_targets = 'mine'
archive_cleanup_command = 'keep'"
ok 'configure: it is kept as it was' grep -q 'host=old' "$pgdata.follow_primary/config/postgresql.auto.conf.before"
ok 'configure: a standby' test -e "$pgdata/standby.signal"
ok 'configure: no recovery.signal' test ! -e "$pgdata/recovery.signal"
ok 'configure: no recovery.conf' test ! -e "$pgdata/recovery.conf"
ok 'configure: backup_label stays' test -e "$pgdata/backup_label"

before=$(cat "$pgdata/postgresql.conf" "$pgdata/postgresql.auto.conf" "$recovery")
configure
ok 'configure again: nothing to change' printed changed=no
ok 'configure again: nothing changed' is "$(cat "$pgdata/postgresql.conf" "$pgdata/postgresql.auto.conf" "$recovery")" "$before"
ok 'configure again: the first postgresql.auto.conf is the one kept' \
    grep -q 'host=old' "$pgdata.follow_primary/config/postgresql.auto.conf.before"

printf 'job=1\nphase=rewound\n' >"$pgdata.follow_primary/mark"
chmod o+w "$pgdata" # as rewind.sh and swap.sh do
echo other >"$FP_TEST_VALUES/primary_slot_name"
configure
ok 'configure: what is overridden is found' fails_with overridden
ok 'configure: and named' grep -q ': primary_slot_name$' "$top/err"
ok 'configure: a rewound node is not ready then' grep -qx phase=rewound "$pgdata.follow_primary/mark"
ok 'configure: nor can it be started' forbidden
echo slot >"$FP_TEST_VALUES/primary_slot_name"
configure
ok 'configure: and is when all is right' grep -qx phase=ready "$pgdata.follow_primary/mark"
ok 'configure: and can be started' permitted

# What a group may read, that has the group access of initdb.
chmod 750 "$pgdata"
configure
ok 'configure: the group reads them where it reads all' is "$(mode "$recovery")" -rw-r-----
without=$content
content="primary_conninfo = 'host=x password=secret'"
configure
ok 'configure: but no password' is "$(mode "$recovery")" -rw-------
content=$without
chmod 700 "$pgdata"
configure

mv "$pgdata/postgresql.conf" "$top/etc.conf"
ln -s "$top/etc.conf" "$pgdata/postgresql.conf"
echo 'port = 1' >"$top/etc.conf"
configure
ok 'configure: a symbolic link stays one' test -h "$pgdata/postgresql.conf"
ok 'configure: and its target is edited' is "$(cat "$top/etc.conf")" "port = 1
include_if_exists = '$quoted'"

rm "$pgdata/standby.signal"
configure 110000
ok 'configure before 12: recovery.conf' is "$(cat "$pgdata/recovery.conf")" "$content"
ok 'configure before 12: no standby.signal' test ! -e "$pgdata/standby.signal"
printf '%s\n' "standby_mode = 'on'" "primary_conninfo='host=old'" "recovery_target_timeline = '1'" "restore_command = 'old'" \
    '# a comment' "recovery_min_apply_delay = '5s'" >"$pgdata/recovery.conf"
configure 110000
ok 'configure before 12: its other settings stay' is "$(cat "$pgdata/recovery.conf")" "$content
# a comment
recovery_min_apply_delay = '5s'"

# What survey.sh and verify.sh read of it.
echo 11 >"$pgdata/PG_VERSION"
printf '%s\n' "Primary_ConnInfo='host=old password=''a\\\\b''' # \`it\`" '#restore_command = 1' 'restore_command = "x"' \
    "recovery_min_apply_delay = '2 min'" >"$pgdata/recovery.conf"
recovery_conf() {
    # shellcheck disable=SC1090,SC1091 # as the scripts read them
    (. "$scripts/lib.sh" && . "$scripts/recovery.sh" && recovery_conf "$pgdata") | sort
}
ok 'recovery.conf is read as the server does' is "$(recovery_conf)" "set.primary_conninfo=host=old password='a\\\\b'
set.recovery_min_apply_delay=120000
set.restore_command=\"x\""
echo 12 >"$pgdata/PG_VERSION"
ok 'recovery.conf is none of a server from 12 on' is "$(recovery_conf)" ''

### save_config.sh, restore_config.sh

pgdata="$top/save $nasty"
mkdir "$pgdata" "$pgdata/conf.d" "$pgdata/sub" "$pgdata/base"
printf '%s\n' "include 'sub/more.conf'
include_dir = 'conf.d'
ssl_cert_file = 'sub/../sub/odd ''name'
ssl_ca_file = '/etc/passwd'
hba_file = '$(printf '%s' "$pgdata/sub/hba.conf" | sed "s/\\\\/&&/g; s/'/''/g")'" >"$pgdata/postgresql.conf"
echo "include_if_exists 'deep.conf'" >"$pgdata/sub/more.conf"
echo deep >"$pgdata/sub/deep.conf"
echo cert >"$pgdata/sub/odd 'name"
echo 'host all @users all trust' >"$pgdata/sub/hba.conf"
echo me >"$pgdata/sub/users"
echo one >"$pgdata/conf.d/1 a.conf"
echo auto >"$pgdata/postgresql.auto.conf"
echo key >"$pgdata/server.key"
chmod 600 "$pgdata/server.key"
ln -s /nowhere "$pgdata/root.crt"
echo data >"$pgdata/base/1"
touch "$pgdata/standby.signal"
mkdir -p "$pgdata/pg_replslot/leaf" "$pgdata/pg_replslot/other"
echo leaf >"$pgdata/pg_replslot/leaf/state"
echo other >"$pgdata/pg_replslot/other/state"
run save_config.sh "$pgdata" 7 '' 'leaf gone'
ok 'save_config: the slots that are to be kept are saved' is "$(cd "$pgdata.follow_primary/slots" && echo * && cat leaf/state)" 'leaf
leaf'
ok 'save: runs' is "$rc" 0
ok 'save: the manifest' is "$(sort "$pgdata.follow_primary/config/files")" "$(sort <<'END'
conf.d/1 a.conf
postgresql.auto.conf
postgresql.conf
root.crt
server.key
sub/deep.conf
sub/hba.conf
sub/more.conf
sub/odd 'name
sub/users
END
)"
ok 'save: standby.signal is noted' test -e "$pgdata.follow_primary/config/standby"
run restore_config.sh "$pgdata"
ok 'restore: nothing, while they are where they were' printed restored=0
rm "$pgdata.follow_primary/config/restored" # as rewind.sh, clear.sh and swap.sh do

# the primary's files come
before=$(cat "$pgdata/postgresql.conf")
for file in postgresql.conf postgresql.auto.conf server.key sub/deep.conf; do
    echo "the primary's" >"$pgdata/$file"
done
rm "$pgdata/root.crt" "$pgdata/sub/users"
echo foreign >"$pgdata/conf.d/2.conf"
echo phase=rewinding >"$pgdata.follow_primary/mark"
run save_config.sh "$pgdata" 8 ''
ok 'save again, marked: the first job'\''s is kept' is "$(cat "$pgdata.follow_primary/config/data/postgresql.conf")" "$before"
run restore_config.sh "$pgdata"
ok 'restore: replaces what differs' printed restored=7
ok 'restore: postgresql.conf' is "$(cat "$pgdata/postgresql.conf")" "$before"
ok 'restore: the key and its mode' is "$(cat "$pgdata/server.key") $(mode "$pgdata/server.key")" 'key -rw-------'
ok 'restore: a symbolic link' is "$(readlink "$pgdata/root.crt")" /nowhere
ok "restore: the primary's settings file is out of the folder" test ! -e "$pgdata/conf.d/2.conf"
run restore_config.sh "$pgdata"
ok 'restore again: nothing to do' printed restored=0
mkdir "$top/target"
run restore_config.sh "$pgdata" "$top/target"
ok 'restore: into another folder' is "$(cat "$top/target/sub/users")" me
rm "$pgdata.follow_primary/mark"
echo new >"$pgdata/postgresql.auto.conf"
run save_config.sh "$pgdata" 9 ''
ok 'save again, not marked: anew' is "$(cat "$pgdata.follow_primary/config/data/postgresql.auto.conf")" new
for phase in stopped recovering; do
    printf 'job=9\nphase=%s\n' "$phase" >"$pgdata.follow_primary/mark"
    echo "corrected, $phase" >"$pgdata/postgresql.auto.conf"
    run save_config.sh "$pgdata" 10 ''
    ok "save again, marked $phase: anew, for the data is the node's" is "$(cat "$pgdata.follow_primary/config/data/postgresql.auto.conf")" "corrected, $phase"
done
echo dashed >"$pgdata/-x.conf"
flushing save_config.sh "$pgdata" 11 ''
ok 'save: a name with a leading dash' is "$(cat "$pgdata.follow_primary/config/data/-x.conf")" dashed
ok 'save: every file is flushed' is \
    "$(sort "$FP_TEST_SYNCED")" "$({
        cd "$pgdata.follow_primary/config" || exit
        find . -type f -exec sh -c 'echo "${1##*/} $(paste -sd " " "$1")"' sh '{}' ';'
        find . -type d | sed 's,.*/,folder ,; s,^\.$,folder config.tmp,'
        echo "folder ${pgdata##*/}.follow_primary"
    } | sort)"
FP_TEST_NO_SYNC=yes
export FP_TEST_NO_SYNC
flushing save_config.sh "$pgdata" 12 ''
ok 'save: what cannot be flushed is not saved' fails_with save_failed
ok "save: the former job's is still there then" is "$(cat "$pgdata.follow_primary/config/complete")" 11
FP_TEST_NO_SYNC=
# the configuration is elsewhere, and PGDATA has two names
outside=$top/outside
mkdir -p "$outside/certs" "$top/etc/conf.d"
ln -s "$outside" "$top/alias"
echo mine >"$outside/certs/server.crt"
echo mine >"$outside/certs/server.key"
echo 'host all @people all trust' >"$outside/authentication"
echo me >"$outside/people"
echo mine >"$outside/extra"
printf '%s\n' "ssl_cert_file = 'certs/server.crt'" "ssl_key_file = '$top/alias/certs/server.key'" \
    "include_dir = 'conf.d'" "include '$top/alias/extra'" >"$top/etc/postgresql.conf"
echo foreign >"$top/foreign.conf"
printf '%s\n' "include_dir = '../'" "include_dir '..'" "include_dir = 'certs/../..'" "include '../foreign.conf'" >"$outside/extra"
echo "hba_file = 'authentication'" >"$top/etc/conf.d/1.conf"
run save_config.sh "$outside" 7 "$top/etc/postgresql.conf"
ok 'save: what a configuration elsewhere names in PGDATA' \
    is "$(sort "$outside.follow_primary/config/files" | tr '\n' ' ')" 'authentication certs/server.crt certs/server.key extra '

run save_config.sh "$top/nothing here" 9 ''
ok 'save: of nothing' printed saved=0

### repoint.sh

flushing repoint.sh save "$pgdata" "$bin" '' "$pgdata/recovery file"
ok 'repoint: what is kept is flushed' flushed 'postgresql.auto.conf corrected, recovering'
ok 'repoint: and where it belongs' grep -q '^3\.path ' "$FP_TEST_SYNCED"
echo other >"$pgdata/postgresql.auto.conf"
flushing repoint.sh restore "$pgdata" "$bin"
ok 'repoint: what is put back is flushed' flushed 'postgresql.auto.conf.fp_tmp corrected, recovering'
ok 'repoint: and is there' is "$(cat "$pgdata/postgresql.auto.conf")" 'corrected, recovering'
for change in no yes; do
    echo before >"$pgdata/postgresql.auto.conf"
    run repoint.sh save "$pgdata" "$bin" '' "$pgdata/recovery file"
    echo interrupted >"$pgdata/postgresql.auto.conf"
    run repoint.sh reload "$pgdata" "$bin" true
    [ $change = no ] || echo 'mine since' >"$pgdata/postgresql.auto.conf"
    run repoint.sh save "$pgdata" "$bin" '' "$pgdata/recovery file"
    run repoint.sh undo "$pgdata" "$bin" true
    want=before
    [ $change = no ] || want='mine since'
    ok "repoint: after an interrupted one, changed by somebody since: $change" is "$(cat "$pgdata/postgresql.auto.conf")" "$want"
done
# The end of one that was itself interrupted: what it had still to remove is not
# taken for what was kept.
run repoint.sh save "$pgdata" "$bin" '' "$pgdata/recovery file"
kept=$pgdata.follow_primary/repoint
mkdir "$top/interrupted"
cat >"$top/interrupted/rm" <<'END'
#!/bin/sh
[ "$1" = -rf ] || exec /bin/rm "$@"
/bin/rm -f "$2/copies/postgresql.auto.conf"
kill -9 "$PPID"
END
chmod +x "$top/interrupted/rm"
PATH=$top/interrupted:$PATH run repoint.sh undo "$pgdata" "$bin" true
ok 'repoint: an undo is interrupted' test -e "$kept/3.path" -a ! -e "$kept/copies/postgresql.auto.conf"
run repoint.sh undo "$pgdata" "$bin" true
ok 'repoint: no file is removed for that' is "$(cat "$pgdata/postgresql.auto.conf")" 'mine since'
run repoint.sh save "$pgdata" "$bin" '' "$pgdata/recovery file"
ok 'repoint: and the next keeps its own' is "$(cat "$kept/copies/postgresql.auto.conf")" 'mine since'
rm -r "$kept"
run restore_config.sh "$top/never saved"
ok 'restore: of nothing' fails_with not_saved

### rewind.sh

# A full disk has no room for the log of pg_rewind, and then not for its data.
pgdata="$top/rewind $nasty"
mkdir -p "$pgdata/base" "$pgdata/pg_wal"
program pg_rewind <<'END'
#!/bin/sh
sleep 0.1
[ -z "$FP_TEST_CHANGES" ] || echo half >"$FP_TEST_CHANGES"
exit 1
END
mkdir "$top/full"
printf '%s\n' '#!/bin/sh' 'exec cat' >"$top/full/tee"
chmod +x "$top/full/tee"
export FP_TEST_CHANGES
for FP_TEST_CHANGES in '' "$pgdata/pg_wal/from the archive" "$pgdata/base/1"; do
    mkdir -p "$pgdata.follow_primary"
    printf 'job=7\nphase=stopped\n' >"$pgdata.follow_primary/mark"
    PATH=$top/full:$PATH run rewind.sh "$pgdata" "$bin" '' host=x '' '' 7 150010 '' '' 0/3000000 16777216
    ok "rewind: fails, without a log, when ${FP_TEST_CHANGES#"$pgdata/"} changed" fails_with rewind_failed
    case $FP_TEST_CHANGES in
        */base/*)
            ok 'rewind: that is half-changed data' grep -qx phase=rewinding "$pgdata.follow_primary/mark"
            ok 'rewind: and is not to be started' forbidden
            ;;
        *)
            ok 'rewind: that is the data as it was' grep -qx phase=stopped "$pgdata.follow_primary/mark"
            ok 'rewind: and can be started' permitted
            ;;
    esac
done

# Nothing is to be rewound, and then there is no room to take lost WAL out.
program pg_rewind <<'END'
#!/bin/sh
echo 'pg_rewind: no rewind required'
END
# What PGDATA has is the node's own configuration afterwards if it was before.
for before in restored nothing; do
    rm -rf "$pgdata.follow_primary"
    mkdir -p "$pgdata.follow_primary/config"
    touch "$pgdata.follow_primary/config/complete" "$pgdata.follow_primary/config/$before"
    printf 'job=7\nphase=ready\n' >"$pgdata.follow_primary/mark"
    run rewind.sh "$pgdata" "$bin" '' host=x '' '' 7 150010 '' '' 0/3000000 16777216
    # shellcheck disable=SC2012 # our own names
    ok "rewind: not required, $before" is "$rc$(ls "$pgdata.follow_primary/config" | sort | tr '\n' ' ')" \
        "0$(printf '%s\n' complete $before | sort | tr '\n' ' ')"
done
program pg_rewind <<'END'
#!/bin/sh
echo 'pg_rewind: Done!'
END
touch "$pgdata.follow_primary/config/restored"
run rewind.sh "$pgdata" "$bin" '' host=x '' '' 7 150010 '' '' 0/3000000 16777216
# shellcheck disable=SC2012 # as above
ok 'rewind: done, and the configuration is to be put back' is "$rc$(ls "$pgdata.follow_primary/config" | tr '\n' ' ')" '0complete nothing '
ok 'rewind: and it cannot be started before' forbidden
program pg_rewind <<'END'
#!/bin/sh
echo 'pg_rewind: no rewind required'
END
rm -rf "$pgdata.follow_primary"
mkdir -p "$pgdata.follow_primary/segment.tmp"
printf 'job=7\nphase=stopped\n' >"$pgdata.follow_primary/mark"
echo whole >"$pgdata/pg_wal/000000010000000000000003"
run rewind.sh "$pgdata" "$bin" '' host=x '' '' 7 150010 '' 1 0/3000010 16777216
ok 'rewind: fails when lost WAL cannot be taken out' fails_with no_space
ok 'rewind: that is the data as it was, too' grep -qx phase=stopped "$pgdata.follow_primary/mark"
ok 'rewind: and can be started, too' permitted
rm "$pgdata.follow_primary/mark"
chmod 702 "$pgdata"
run rewind.sh "$pgdata" "$bin" '' host=x '' '' 7 150010 '' '' 0/3000000 16777216
ok 'rewind: not what a failed one left, though its mark is gone' fails_with needs_copy
ok 'rewind: nor is it to be started then' forbidden
chmod o-w "$pgdata"
ok 'rewind: with its WAL' is "$(cat "$pgdata/pg_wal/000000010000000000000003")" whole

### swap.sh, clean.sh

# A stand-in for mv, rm and ln that lets the script die before its Nth call.
kill_bin=$top/kill
mkdir "$kill_bin"
for tool in mv rm rmdir ln; do
    cat >"$kill_bin/$tool" <<'END'
#!/bin/sh
# mv -n -t FOLDER -- FILE...: file by file
if [ "$1$2" = -n-t ] && [ $# -gt 5 ]; then
    to=$3
    shift 4
    for file; do
        "$0" -n -t "$to" -- "$file" || exit 1
    done
    exit 0
fi
read -r calls <"$FP_TEST_CALLS"
calls=$((calls + 1))
echo "$calls" >"$FP_TEST_CALLS"
if [ "$calls" -eq "$FP_TEST_DIE_AT" ]; then
    [ "$FP_TEST_AFTER" = no ] || PATH=$FP_TEST_PATH "${0##*/}" "$@"
    parent=$PPID
    if ! grep -q swap.sh "/proc/$parent/cmdline"; then
        parent=$(sed 's/.*) . //; s/ .*//' "/proc/$parent/stat")
    fi
    kill -9 "$parent"
    exit 1
fi
PATH=$FP_TEST_PATH exec "${0##*/}" "$@"
END
    chmod +x "$kill_bin/$tool"
done
# Not in the order that this file system happens to have: PG_VERSION is the last.
cat >"$kill_bin/find" <<'END'
#!/bin/sh
PATH=$FP_TEST_PATH
find "$@" | sort -r
END
chmod +x "$kill_bin/find"

# lay_out [inside]: a node with its WAL and two tablespaces elsewhere, and a copy
# of each, beside it or inside, where something of others is as well. The second
# tablespace is one that the node did not have.
lay_out() {
    where=${1:-beside}
    rm -rf "$top/node"
    pgdata="$top/node/data $nasty"
    wal="$top/node/wal $nasty"
    space1="$top/node/space1 $nasty"
    space2="$top/node/space2"
    work=$pgdata.follow_primary
    if [ "$where" = inside ]; then
        suffix=/.follow_primary_new
        copy=$pgdata$suffix
        old_data=$pgdata/.follow_primary_old
        old_wal=$wal/.follow_primary_old
    else
        suffix=.follow_primary_new
        copy=$work/new
        old_data=$work/old
        old_wal=$wal.follow_primary_old
    fi
    if [ -d "$top/$where" ]; then
        cp -a "$top/$where" "$top/node"
        return
    fi
    mkdir -p "$work" "$pgdata"
    fill old "$pgdata" ''
    fill new "$copy" "$suffix"
    echo only >"$pgdata/only of old"
    rm "$pgdata/pg_tblspc/2"
    if [ "$where" = inside ]; then
        rm -r "$space2/PG_15_1"
        mkdir "$pgdata/lost+found"
        for one in "$wal" "$space1" "$space2"; do
            echo theirs >"$one/others"
        done
    else
        rm -r "$space2"
    fi
    echo job=7 >"$work/proven"
    cp -a "$top/node" "$top/$where"
}

# fill WHAT DATA SUFFIX: makes folders that hold WHAT.
fill() {
    mkdir -p "$2/pg_tblspc" "$2/base" "$wal$3" "$space1$3/PG_15_1" "$space2$3/PG_15_1"
    echo 15 >"$2/PG_VERSION"
    echo "$1" >"$2/what"
    echo "$1" >"$2/base/what"
    for name in a m z; do
        echo "$1" >"$2/$name"
    done
    echo "$1" >"$wal$3/00000002.history"
    echo "$1" >"$wal$3/000000010000000000000001"
    echo "$1" >"$space1$3/PG_15_1/what"
    echo "$1" >"$space2$3/PG_15_1/what"
    ln -s "$wal$3" "$2/pg_wal"
    ln -s "$space1$3" "$2/pg_tblspc/1"
    ln -s "$space2$3" "$2/pg_tblspc/2"
}

# read_all DATA: what its folders hold.
read_all() {
    cat "$1/what" "$1/base/what" "$1/a" "$1/m" "$1/z" "$1/pg_wal/00000002.history" "$1/pg_wal/000000010000000000000001" \
        "$1"/pg_tblspc/*/PG_15_1/what 2>&1 | tr '\n' ' '
}

swap() {
    run swap.sh "$pgdata" "$wal" "$space1" "$space2"
}

# The state that is wanted in the end.
swapped() {
    is "$(read_all "$pgdata")" 'new new new new new new new new new ' &&
        is "$(readlink "$pgdata/pg_wal")" "$wal" &&
        is "$(readlink "$pgdata/pg_tblspc/1")" "$space1" &&
        test ! -e "$pgdata/only of old" &&
        is "$(read_all "$old_data")" 'old old old old old old old old ' &&
        test -e "$old_data/only of old" && test -e "$old_data/PG_VERSION" &&
        is "$(readlink "$old_data/pg_wal")" "$old_wal" &&
        is "$(find "$top/node" -name '*new*' -o -name '*swap*' -o -name '*tmp*' | wc -l | tr -d ' ')" 0 &&
        is "$(cat "$work/mark")" "job=7
method=basebackup
phase=swapped" && forbidden || return 1
    if [ "$where" = inside ]; then
        is "$(cat "$wal/others" "$space1/others" "$space2/others" | tr '\n' ' ')" 'theirs theirs theirs ' &&
            test -d "$pgdata/lost+found"
    fi
}

lay_out
rm "$work/proven"
swap
ok 'swap: nothing without a proven copy' fails_with not_proven
for place in beside inside; do
    lay_out $place
    swap
    ok "swap, $place: runs" printed result=swapped
    ok "swap, $place: all is in place" swapped
    swap
    ok "swap again, $place: says so" printed result=already_swapped
    ok "swap again, $place: all is in place" swapped
done

FP_TEST_CALLS=$top/calls
FP_TEST_PATH=$PATH
export FP_TEST_CALLS FP_TEST_PATH FP_TEST_DIE_AT FP_TEST_AFTER
# Can PGDATA be started as it is, as far as PostgreSQL can tell?
startable() {
    [ -e "$pgdata/PG_VERSION" ]
}
for place in beside inside; do
    # after a call is the same as before the next, but for what the shell does
    # itself: that is looked at once
    for FP_TEST_AFTER in no yes; do
        [ "$place$FP_TEST_AFTER" != insideyes ] || continue
        FP_TEST_DIE_AT=0
        all_well=yes
        while :; do
            FP_TEST_DIE_AT=$((FP_TEST_DIE_AT + 1))
            lay_out $place
            echo 0 >"$FP_TEST_CALLS"
            PATH=$kill_bin:$PATH
            swap
            died=$rc
            PATH=$FP_TEST_PATH
            [ "$died" -ne 0 ] || break
            # what is at PGDATA is the old before all changes, nothing that
            # starts, or the whole copy
            if startable; then
                case $(read_all "$pgdata") in
                    'old old old old old old old old ' | 'new new new new new new new new new ') ;;
                    *) all_well="at $FP_TEST_DIE_AT could be started: $(read_all "$pgdata")" ;;
                esac
            elif ! grep -qx phase=swapping "$work/mark"; then
                all_well="no mark at $FP_TEST_DIE_AT"
            fi
            swap
            if [ "$rc" -ne 0 ] || ! swapped; then
                all_well="not completed after a kill at $FP_TEST_DIE_AT"
            fi
            [ "$all_well" = yes ] || break
        done
        ok "swap, $place: killed at each of $((FP_TEST_DIE_AT - 1)) calls (after it: $FP_TEST_AFTER), it completes" is "$all_well" yes
    done
done

FP_TEST_AFTER=no

# A name with symbolic links in it, while what it leads to is moved away.
lay_out
ln -s node "$top/link"
ln -s "$pgdata" "$top/link to data"
echo 0 >"$FP_TEST_CALLS"
FP_TEST_DIE_AT=7
PATH=$kill_bin:$PATH
swap
PATH=$FP_TEST_PATH
ok 'swap: killed, and the data is away' is "$rc$(test -e "$pgdata" || echo away)" 137away
for name in "$top/link/${pgdata##*/}" "$top/link to data" "$pgdata/"; do
    run survey.sh "$name" 1 "$bin" '' '' '' '' 16777216 localhost ''
    want=$(
        # shellcheck source=src/remote/lib.sh
        . "$scripts/lib.sh"
        emit pgdata "$pgdata"
    )
    ok "survey: finds it as ${name#"$top"}" printed "$want"
    ok "survey: and that a swap is to be completed" printed pgdata_state=empty
done
run swap.sh "$top/link/${pgdata##*/}" "$wal" "$space1" "$space2"
ok 'swap: completed by another name' swapped

# As somebody may do after a power failure, for the mark does not keep others from it.
for place in beside inside; do
    lay_out $place
    echo 0 >"$FP_TEST_CALLS"
    FP_TEST_DIE_AT=5
    [ $place = beside ] || FP_TEST_DIE_AT=9
    PATH=$kill_bin:$PATH
    swap
    PATH=$FP_TEST_PATH
    ok "swap, $place: killed before its first rename" is "$(read_all "$pgdata")$(head -n 1 "$work/swap.list")" "old old old old old old old old $pgdata"
    (cd "$pgdata" && exec sleep 30) &
    server=$!
    echo "$server" >"$pgdata/postmaster.pid"
    sleep 0.2
    swap
    ok "swap, $place: not while the old data is in use again" fails_with running
    run basebackup.sh "$pgdata" "$bin" '' '' '' 8 150010 "$wal"
    ok "basebackup, $place: goes on then with a new copy" fails_with copy_failed
    ok "basebackup, $place: nothing is left of the first" is "$(find "$work" "$copy" -mindepth 1 2>/dev/null)" ''
    ok "basebackup, $place: the old data is untouched" is "$(read_all "$pgdata")" 'old old old old old old old old '
    kill "$server"
    wait "$server" 2>/dev/null
done

# A disk that is not mounted after a power failure is no folder without a copy.
for one in data space1; do
    lay_out inside
    echo 0 >"$FP_TEST_CALLS"
    FP_TEST_DIE_AT=9
    PATH=$kill_bin:$PATH
    swap
    PATH=$FP_TEST_PATH
    mount=$pgdata
    [ "$one" = data ] || mount=$space1
    mv "$mount" "$top/unmounted"
    mkdir "$mount"
    swap
    ok "swap: goes on only with the disk of $one" fails_with swap_failed
    rmdir "$mount"
    mv "$top/unmounted" "$mount"
    swap
    ok "swap: and completes when it is back" swapped
done

# What is not the SSH user's to move; root may all.
lay_out inside
mkdir -p "$pgdata/backup/of root"
chmod 500 "$pgdata/backup"
if [ "$(id -u)" -ne 0 ]; then
    swap
    ok 'swap: not where something cannot be moved' fails_with permission
    ok 'swap: and nothing was changed' is "$(read_all "$pgdata")$(ls "$work")" 'old old old old old old old old proven'
    mkdir "$work/config"
    echo 7 >"$work/config/complete"
    run clear.sh "$pgdata" 7 150010 "$wal" "$space1"
    ok 'clear: not where something cannot be removed' fails_with permission
    ok 'clear: and nothing was changed' is "$(read_all "$pgdata")$(cd "$work" && echo ./*)" 'old old old old old old old old ./config ./layout ./proven'
fi
chmod 700 "$pgdata/backup"

# What a mark says need not be so any more.
lay_out
mkdir "$pgdata/global"
for phase in clearing rewinding stopped ready; do
    printf 'job=7\nphase=%s\n' "$phase" >"$work/mark"
    touch -d 2020-01-01 "$work/mark"
    : >"$pgdata/postmaster.opts"
    run survey.sh "$pgdata" 1 "$bin" '' '' '' '' 16777216 localhost ''
    case $phase in
        clearing) ok 'survey: marked clearing, and there is data' printed mark_stale=yes ;;
        rewinding | stopped) ok "survey: marked $phase, and started since" printed mark_stale=yes ;;
        ready) ok 'survey: marked ready, and started since' is "$(grep '^mark' "$top/out")" 'mark=job=7\nphase=ready' ;;
    esac
done
printf 'job=7\nphase=swapping\n' >"$work/mark"
for written in 2020-01-01 2100-01-01; do
    : >"$pgdata/global/pg_control"
    touch -d "$written" "$pgdata/global/pg_control"
    run survey.sh "$pgdata" 1 "$bin" '' '' '' '' 16777216 localhost ''
    ok "survey: marked swapping, nothing moved, last written in $written" \
        is "$(grep '^mark_stale' "$top/out")" "$([ "$written" = 2020-01-01 ] || echo mark_stale=yes)"
done
mv "$work/new" "$work/new.gone"
run survey.sh "$pgdata" 1 "$bin" '' '' '' '' 16777216 localhost ''
ok 'survey: marked swapping, all moved, and started' is "$(grep '^mark_stale' "$top/out")" ''
printf 'job=7\nphase=ready\n' >"$work/mark"
rm "$pgdata/PG_VERSION"
run survey.sh "$pgdata" 1 "$bin" '' '' '' '' 16777216 localhost ''
ok 'survey: marked ready, and there is no data' fails_with data_gone

lay_out
rm -rf "$pgdata" "$wal" "$space1"
swap
ok 'swap: onto nothing' is "$(read_all "$pgdata")" 'new new new new new new new new new '
ok 'swap: onto nothing keeps nothing' test ! -e "$work/old"
lay_out
rm -rf "$pgdata"
mkdir "$pgdata"
swap
ok 'swap: onto an empty folder' is "$(cat "$pgdata/what")" new
lay_out inside
find "$pgdata" -mindepth 1 -maxdepth 1 ! -name '.follow*' -exec rm -r '{}' +
mkdir "$work/config"
touch "$work/config/restored"
swap
ok 'swap: the configuration is to be put back again' test ! -e "$work/config/restored"
ok 'swap: into an empty folder' is "$(read_all "$pgdata")" 'new new new new new new new new new '
ok 'swap: into an empty folder keeps nothing' test ! -e "$old_data"
lay_out
mkdir "$work/old"
echo older >"$work/old/what"
swap
ok "swap: an earlier job's old data stays" is "$(cat "$work/old/what" "$work/old.2/what" "$wal.follow_primary_old.2/00000002.history" | tr '\n' ' ')" 'older old old '
lay_out inside
mkdir "$pgdata/.follow_primary_old"
echo older >"$pgdata/.follow_primary_old/what"
swap
ok "swap, inside: an earlier job's old data stays" is "$(cat "$pgdata/.follow_primary_old/what" "$pgdata/.follow_primary_old.2/what" "$wal/.follow_primary_old.2/00000002.history" | tr '\n' ' ')" 'older old old '

for place in beside inside; do
    lay_out $place
    swap
    mkdir "$work/lost_wal-7"
    run clean.sh "$pgdata" always 7 "$wal" "$space1" "$space2"
    ok "clean, keep always, $place: runs" is "$rc" 0
    want=$(
        # shellcheck source=src/remote/lib.sh
        . "$scripts/lib.sh"
        emit kept "$old_wal-7
$space1${old_wal#"$wal"}-7
$old_data-7"
    )
    ok "clean, keep always, $place: names what is kept" printed "$want"
    ok "clean, keep always, $place: the old data is whole" is "$(read_all "$old_data-7")" 'old old old old old old old old '
    # shellcheck disable=SC2012
    ok "clean, keep always, $place: nothing else is left" is "$(ls -d "$work"/* "$pgdata"/.follow_primary* 2>/dev/null | sed 's,.*/,,' | sort | tr '\n' ' ')" \
        "$(printf '%s\n' lost_wal-7 "${old_data##*/}-7" | sort | tr '\n' ' ')"

    lay_out $place
    swap
    run clean.sh "$pgdata" until_proven 7 "$wal" "$space1" "$space2"
    ok "clean, $place: nothing is left" is "$(find "$top/node" -name '*follow_primary*')" ''
    ok "clean, $place: the node is whole" is "$(read_all "$pgdata")" 'new new new new new new new new new '
    run clean.sh "$pgdata" until_proven 7 "$wal" "$space1" "$space2"
    ok "clean again, $place: success" is "$rc" 0
done

### clear.sh, space.sh

for place in beside inside; do
    lay_out $place
    rm -f "$work/proven"
    run clear.sh "$pgdata" 7 150010 "$wal" "$space1"
    ok "clear, $place: not without a saved configuration" fails_with not_saved
    ok "clear, $place: nothing was changed" is "$(read_all "$pgdata")" 'old old old old old old old old '
    mkdir "$work/config"
    echo 7 >"$work/config/complete"
    mkdir "$top/node/another's"
    mkdir "$top/node/another's/PG_15_1"
    run clear.sh "$pgdata" 7 150010 "$wal" "$space1" "$top/node/another's"
    ok "clear, $place: not where a tablespace of the primary's is another server's" fails_with tablespace_in_use
    ok "clear, $place: nothing was changed then" is "$(read_all "$pgdata")$(ls "$top/node/another's")" 'old old old old old old old old PG_15_1'
    run clear.sh "$pgdata" 7 150010 "$wal" "$space1"
    ok "clear, $place: runs" printed was_there=yes
    ok "clear, $place: the data is gone" is "$(find "$pgdata" "$wal" "$space1" ! -name lost+found ! -name others -mindepth 1)" ''
    ok "clear, $place: marked" grep -qx phase=clearing "$work/mark"
    ok "clear, $place: the WAL's and the tablespace's places are kept" is "$(grep -c '^waldir=\|^tablespace.1=' "$work/layout")" 2
    run clear.sh "$pgdata" 8 150010 "$wal" "$space1"
    ok "clear again, $place: success" printed was_there=no
    ok "clear again, $place: the places are still known" grep -q '^waldir=' "$work/layout"
done

lay_out
run space.sh "$pgdata" 150010 no '' "$wal"
ok 'space: of each folder that is named' is "$(sed 's/=.*//' "$top/out" | tr '\n' ' ')" 'free_0 unfinished_0 device_0 free_2 unfinished_2 device_2 '
ok 'space: a number of bytes' grep -Eqx 'free_0=[0-9]+' "$top/out"
run space.sh "$pgdata" 150010 yes "$wal" "$space1"
ok 'space: and of what is there' grep -Eqx 'used_2=[1-9][0-9]+' "$top/out"

echo "1..$count"
[ "$failures" -eq 0 ]
