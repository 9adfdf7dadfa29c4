#!/bin/sh
# connect.sh - tries the connections to the primary that a job is going to need
# on the node, before it stops anything there.
#
# usage: connect.sh BIN_DIR PASSFILE CONNINFO...
#   PASSFILE  password file; '' = libpq's default
#   CONNINFO  without a password; '' is left out
#
# fails:  source_unreachable
set -u
# shellcheck source=src/remote/lib.sh
. "${0%/*}/lib.sh"

bin=$1
passfile=$2
shift 2

LC_ALL=C
PGOPTIONS='-c role=none' # as rewind.sh
export LC_ALL PGOPTIONS
if [ -n "$passfile" ]; then
    PGPASSFILE=$passfile
    export PGPASSFILE
fi

# SHOW is what an ordinary connection and a replication connection both know.
for conninfo in "$@"; do
    [ -z "$conninfo" ] ||
        "$bin/psql" -X -q -w -d "$conninfo" -c 'SHOW server_version' </dev/null >/dev/null ||
        die source_unreachable "the node cannot connect to the primary"
done
exit 0
