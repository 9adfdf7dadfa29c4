#!/bin/sh
# save_config.sh and restore_config.sh: what is the node's own is saved, and comes back.
set -u
# shellcheck source=test/lib/remote_scripts.sh
. "${0%/*}/../lib/remote_scripts.sh"

in_node "$top/save $nasty"
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
mkdir -p "$pgdata/pg_replslot/leaf" "$pgdata/pg_replslot/other"
echo leaf >"$pgdata/pg_replslot/leaf/state"
echo other >"$pgdata/pg_replslot/other/state"
run save_config.sh keep_slots='leaf gone'
ok 'save_config: the slots that are to be kept are saved' is "$(cd "$work/slots" && echo * && cat leaf/state)" 'leaf
leaf'
ok 'save: runs' is "$rc" 0
ok 'save: the files' is "$(sort "$work/config/files" | paste -sd ' ')" 'postgresql.auto.conf postgresql.conf root.crt server.key'
ok 'save: the folders' is "$(sort "$work/config/folders" | paste -sd ' ')" 'conf.d sub'
ok 'save: what is needed of them' is "$(sort "$work/config/needed" | paste -sd ,)" \
    "conf.d/1 a.conf,sub/deep.conf,sub/hba.conf,sub/more.conf,sub/odd 'name,sub/users"
run restore_config.sh
ok 'restore: nothing, while they are where they were' printed restored=0
rm "$work/config/restored" # as rewind.sh, clear.sh and swap.sh do

# the primary's files come
before=$(cat "$pgdata/postgresql.conf")
mv "$pgdata/sub" "$work/config/data/sub" # as rewind.sh does
mkdir "$pgdata/sub"
for file in postgresql.conf postgresql.auto.conf server.key sub/deep.conf sub/foreign; do
    echo "the primary's" >"$pgdata/$file"
done
rm "$pgdata/root.crt"
marked rewinding
run save_config.sh job=8
ok 'save again, marked: the first job'\''s is kept' is "$(cat "$work/config/data/postgresql.conf")" "$before"
run restore_config.sh final=no
ok 'restore, for a copy: replaces what differs' printed restored=4
ok 'restore, for a copy: it is to be done once more' test ! -e "$work/config/restored"
echo "the primary's" >"$pgdata/server.key"
run restore_config.sh
ok 'restore: replaces what differs' printed restored=1
ok 'restore: postgresql.conf' is "$(cat "$pgdata/postgresql.conf")" "$before"
ok 'restore: the key and its mode' is "$(cat "$pgdata/server.key") $(mode "$pgdata/server.key")" 'key -rw-------'
ok 'restore: a symbolic link' is "$(readlink "$pgdata/root.crt")" /nowhere
ok "restore: a folder" is "$(cd "$pgdata" && echo sub/*)" "sub/deep.conf sub/hba.conf sub/more.conf sub/odd 'name sub/users"
run restore_config.sh
ok 'restore again: nothing to do' printed restored=0
rm "$mark"
echo new >"$pgdata/postgresql.auto.conf"
run save_config.sh job=9
ok 'save again, not marked: anew' is "$(cat "$work/config/data/postgresql.auto.conf")" new
for phase in stopped recovering; do
    marked "$phase" 9
    mv "$pgdata/sub" "$work/config/data/sub"
    echo "corrected, $phase" >"$pgdata/postgresql.auto.conf"
    run save_config.sh job=10
    ok "save again, marked $phase: anew, for the data is the node's" is "$(cat "$work/config/data/postgresql.auto.conf" "$pgdata/sub/users")" "corrected, $phase
me"
done
echo dashed >"$pgdata/-x.conf"
flushing save_config.sh job=11
ok 'save: a name with a leading dash' is "$(cat "$work/config/data/-x.conf")" dashed
ok 'save: every file is flushed' is \
    "$(sort "$FP_TEST_SYNCED")" "$({
        cd "$work/config" || exit
        find . -type f -exec sh -c 'echo "${1##*/} $(paste -sd " " "$1")"' sh '{}' ';'
        find . -type d | sed 's,.*/,folder ,; s,^\.$,folder config.tmp,'
        echo "folder job"
    } | sort)"
FP_TEST_NO_SYNC=yes
export FP_TEST_NO_SYNC
flushing save_config.sh job=12
ok 'save: what cannot be flushed is not saved' fails_with save_failed
ok "save: the former job's is still there then" is "$(cat "$work/config/complete")" 11
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
in_node "$outside"
run save_config.sh config="$top/etc/postgresql.conf"
ok 'save: what a configuration elsewhere names in PGDATA' \
    is "$(sort "$work/config/files" | tr '\n' ' ')" 'authentication extra people '
ok 'save: and its folder' is "$(cat "$work/config/folders")" certs

in_node "$top/nothing here"
run save_config.sh
ok 'save: of nothing' printed saved=0

in_node "$top/never saved"
run restore_config.sh
ok 'restore: of nothing' fails_with not_saved
done_testing
