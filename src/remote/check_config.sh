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

[ "$version" -ge 120000 ] && [ -f "$config" ] || exit 0
folder=${recovery_file%/*}
[ ! -d "$folder" ] || [ -w "$folder/" ] || die config_not_writable "$folder is not the SSH user's to write"
know_include
! with_include /dev/null || [ -w "${config_target%/*}/" ] || [ -w "$config_target" ] ||
    die config_not_writable "$config_target is not the SSH user's to write"
exit 0
