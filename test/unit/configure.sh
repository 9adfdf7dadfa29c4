#!/bin/sh
# configure.sh: what a standby reads is exactly so, and nothing else is lost.
set -u
# shellcheck source=test/lib/remote_scripts.sh
. "${0%/*}/../lib/remote_scripts.sh"

in_node "$top/conf $nasty"
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
    run configure.sh recovery_file="$recovery" version="${1:-150000}" content="$content" live=no \
        expect_conninfo="$conninfo" expect_slot=slot
}
configure
ok 'runs' is "$rc" 0
ok 'says that it changed something' printed changed=yes
ok 'the conninfo is not printed' is "$(grep -c 'pa ss' "$top/out" "$top/err" | sed 's/.*://' | tr -d '\n')" 00
ok 'the include comes once and last' is "$(cat "$pgdata/postgresql.conf")" "port = 5432 # keep \\n this
include_if_exists = 'other.conf'
#include_if_exists = '$quoted'
include_if_exists_not = 1
last = 1
include_if_exists = '$quoted'"
ok 'its mode stays' is "$(mode "$pgdata/postgresql.conf")" -rw-r-----
ok 'the settings are written' is "$(cat "$recovery")" "$content"
ok "for the owner's eyes" is "$(mode "$recovery")" -rw-------
ok 'postgresql.auto.conf loses what would win' is "$(cat "$pgdata/postgresql.auto.conf")" \
    "# Do not edit
work_mem = 'primary_slot_name = 1'
recovery_min_apply_delay = '5s'
recovery_targets = 'mine'
archive_cleanup_command = 'keep'"
ok 'it is kept as it was' grep -q 'host=old' "$work/config/postgresql.auto.conf.before"
ok 'a standby' test -e "$pgdata/standby.signal"
ok 'no recovery.signal' test ! -e "$pgdata/recovery.signal"
ok 'no recovery.conf' test ! -e "$pgdata/recovery.conf"
ok 'backup_label stays' test -e "$pgdata/backup_label"

before=$(cat "$pgdata/postgresql.conf" "$pgdata/postgresql.auto.conf" "$recovery")
configure
ok 'again: nothing to change' printed changed=no
ok 'again: nothing changed' is "$(cat "$pgdata/postgresql.conf" "$pgdata/postgresql.auto.conf" "$recovery")" "$before"
ok 'again: the first postgresql.auto.conf is the one kept' \
    grep -q 'host=old' "$work/config/postgresql.auto.conf.before"

marked rewound 1
chmod o=r "$pgdata" # as rewind.sh and swap.sh do
echo other >"$FP_TEST_VALUES/primary_slot_name"
configure
ok 'what is overridden is found' fails_with overridden
ok 'and named' grep -q ': primary_slot_name$' "$top/err"
ok 'a rewound node is not ready then' has_phase rewound
ok 'nor can it be started' forbidden
echo slot >"$FP_TEST_VALUES/primary_slot_name"
configure
ok 'and is when all is right' has_phase ready
ok 'and can be started' permitted

# What a group may read, that has the group access of initdb.
chmod 750 "$pgdata"
configure
ok 'the group reads them where it reads all' is "$(mode "$recovery")" -rw-r-----
without=$content
content="primary_conninfo = 'host=x password=secret'"
configure
ok 'but no password' is "$(mode "$recovery")" -rw-------
content=$without
chmod 700 "$pgdata"
configure

mv "$pgdata/postgresql.conf" "$top/etc.conf"
ln -s "$top/etc.conf" "$pgdata/postgresql.conf"
echo 'port = 1' >"$top/etc.conf"
configure
ok 'a symbolic link stays one' test -h "$pgdata/postgresql.conf"
ok 'and its target is edited' is "$(cat "$top/etc.conf")" "port = 1
include_if_exists = '$quoted'"

rm "$pgdata/standby.signal"
configure 110000
ok 'configure before 12: recovery.conf' is "$(cat "$pgdata/recovery.conf")" "$content"
ok 'configure before 12: no standby.signal' test ! -e "$pgdata/standby.signal"
printf '%s\n' "standby_mode = 'on'" "primary_conninfo='host=old'" "recovery_target_timeline = '1'" "restore_command = 'old'" \
    '# a comment' "recovery_min_apply_delay = '5s'" >"$pgdata/recovery.conf"
rm -f "$mark"
configure 110000
ok 'configure before 12: its other settings stay' is "$(cat "$pgdata/recovery.conf")" "$content
# a comment
recovery_min_apply_delay = '5s'"

# check_config.sh tells before the first change what could not be written; root may write all.
mkdir "$top/etc"
config=$top/etc/postgresql.conf
echo 'port = 1' >"$config"
chmod 400 "$config"
chmod 500 "$top/etc"
check() {
    run check_config.sh config="$config" recovery_file="$recovery" version=150000
}
if [ "$(id -u)" -ne 0 ]; then
    check
    ok 'check: a file that cannot be written' fails_with config_not_writable
    chmod 600 "$config"
    check
    ok 'check: one that can be written in place' is "$rc" 0
    printf '%s\n' "include_if_exists = '$quoted'" >>"$config"
    chmod 400 "$config"
    check
    ok 'check: one that needs no change' is "$rc" 0
    ok 'check: nothing was changed' is "$(cat "$config")" "port = 1
include_if_exists = '$quoted'"
    mkdir "$top/closed"
    chmod 500 "$top/closed"
    recovery=$top/closed/my.conf
    check
    ok 'check: a folder that cannot be written' fails_with config_not_writable
fi
chmod 700 "$top/etc"
done_testing
