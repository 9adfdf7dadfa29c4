#!/bin/sh
# check_config.sh - tells whether configure.sh could write what it has to; changes nothing.
#
# arguments:
#   config         the node's postgresql.conf; '' = the one in pgdata
#   recovery_file  the settings file that configure.sh writes (absolute)
#   version        server_version_num of the primary
#
# fails:
#   config_not_writable
set -u
# shellcheck source=src/remote/lib.sh
. "${0%/*}/lib.sh"
# shellcheck source=src/remote/include.sh
. "${0%/*}/include.sh"

: "${config=}" "${recovery_file?}" "${version?}"
config=${config:-$pgdata/postgresql.conf}

# can_write: in place, or by a rename to it. A file that is mounted cannot be replaced, nor one that
# chattr(1) has made immutable.
can_write() {
    if lsattr -d -- "$config_target" 2>/dev/null | grep -q '^[^ ]*[ia]'; then
        return 1
    fi
    [ ! -w "$config_target" ] || return 0
    [ -w "${config_target%/*}/" ] && ! is_mounted "$(readlink -f -- "$config_target")"
}

[ "$version" -ge 120000 ] && [ -f "$config" ] || exit 0
folder=${recovery_file%/*}
[ ! -d "$folder" ] || [ -w "$folder/" ] || die config_not_writable "$folder is not the SSH user's to write"
know_include
! with_include /dev/null || can_write ||
    die config_not_writable "$config_target is not the SSH user's to write"
exit 0
