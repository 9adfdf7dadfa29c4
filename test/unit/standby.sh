#!/bin/sh
# standby.sh: what survey.sh and verify.sh read of recovery.conf.
set -u
# shellcheck source=test/lib/remote_scripts.sh
. "${0%/*}/../lib/remote_scripts.sh"

in_node "$top/conf $nasty"
mkdir "$pgdata"
echo 11 >"$pgdata/PG_VERSION"
printf '%s\n' "Primary_ConnInfo='host=old password=''a\\\\b''' # \`it\`" '#restore_command = 1' 'restore_command = "x"' \
    "recovery_min_apply_delay = '2 min'" >"$pgdata/recovery.conf"
recovery_conf() {
    # shellcheck disable=SC1090,SC1091 # as the scripts read them
    (. "$scripts/lib.sh" && . "$scripts/standby.sh" && recovery_conf "$pgdata") | sort
}
ok 'recovery.conf is read as the server does' is "$(recovery_conf)" "set.primary_conninfo=host=old password='a\\\\b'
set.recovery_min_apply_delay=120000
set.restore_command=\"x\""
echo 12 >"$pgdata/PG_VERSION"
ok 'recovery.conf is none of a server from 12 on' is "$(recovery_conf)" ''
done_testing
