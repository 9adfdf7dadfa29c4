#!/bin/sh
# space.sh - tells how much room there is for a copy beside the node's data.
#
# usage: space.sh PGDATA [PATH...]
#   PATH  the node's WAL folder or a tablespace location; '' is left out
#
# The copy of each goes into the folder that holds it: PGDATA.follow_primary/new,
# PATH.follow_primary_new.
#
# prints, for PGDATA (N = 0) and each PATH in turn (N = 1, 2 ...):
#         free_N=     bytes that this user may use
#         device_N=   the same value where two share their room
# fails:  not_there   no folder to put the copy into
set -u
# shellcheck source=src/remote/lib.sh
. "${0%/*}/lib.sh"

LC_ALL=C
export LC_ALL

n=0
for path in "$@"; do
    if [ -n "$path" ]; then
        if [ -e "$path" ]; then
            path=$(readlink -f "$path")
        fi
        # the nearest folder above that is there
        parent=${path%/*}
        while [ -n "$parent" ] && [ ! -d "$parent" ]; do
            parent=${parent%/*}
        done
        kb=$(df -Pk "${parent:-/}" 2>/dev/null |
            awk 'NR > 1 { for (i = 1; i <= NF; i++) if ($i ~ /^[0-9]+%$/) { print $(i - 1); exit } }')
        [ -n "$kb" ] || die not_there "no room is known for a copy of $path"
        emit "free_$n" "$((kb * 1024))"
        emit "device_$n" "$(stat -c %d "${parent:-/}" 2>/dev/null ||
            df -Pk "${parent:-/}" | awk 'NR > 1 { print $1 }')"
    fi
    n=$((n + 1))
done
exit 0
