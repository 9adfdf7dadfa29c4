#!/bin/sh
# space.sh - tells how much room there is for a copy of the node's folders.
#
# arguments:
#   version       server_version_num of the primary
#   used          yes = used_N is wanted, which may take a while
#   waldir        the node's WAL folder if it is a folder or a mount point of its own; else ''
#   LOCATION ...  (positional) the tablespaces
#
# prints: for pgdata (N = 0), waldir (N = 1, unless it is '') and the locations (N = 2, 3 ...)
#   free_N        bytes that this user may use
#   unfinished_N  bytes of a copy that an earlier job left
#   used_N        bytes of what is to be replaced
#   device_N      the same value where two share their room
# fails:
#   not_there     no file system is known for one of them
set -u
# shellcheck source=src/remote/lib.sh
. "${0%/*}/lib.sh"
# shellcheck source=src/remote/folders.sh
. "${0%/*}/folders.sh"

: "${version?}" "${used=no}" "${waldir=}"
major=${version%????}

# bytes: prints how much the files and folders take up whose names come on stdin.
bytes() {
    du -sck --files0-from=- 2>/dev/null | awk 'END { printf "%.0f", $1 * 1024 }'
}

# room N FOLDER UNFINISHED...
room() {
    n=$1
    folder=$2
    shift 2
    # the nearest folder above that is there
    nearest=$folder
    while [ -n "$nearest" ] && [ ! -d "$nearest" ]; do
        nearest=${nearest%/*}
    done
    kb=$(df -Pk "${nearest:-/}" 2>/dev/null |
        awk 'NR > 1 { for (i = 1; i <= NF; i++) if ($i ~ /^[0-9]+%$/) { print $(i - 1); exit } }')
    [ -n "$kb" ] || die not_there "no room is known for a copy of $folder"
    emit "free_$n" "$((kb * 1024))"
    for unfinished in "$folder/.follow_primary_new" "$@"; do
        [ ! -d "$unfinished" ] || emit "unfinished_$n" "$(printf '%s\0' "$unfinished" | bytes)"
    done
    emit "device_$n" "$(stat -c %d "${nearest:-/}" 2>/dev/null ||
        df -Pk "${nearest:-/}" | awk 'NR > 1 { print $1 }')"
    if [ "$used" = yes ] && [ -d "$folder" ]; then
        all=$(entries "$folder" "$folder" -print0 2>/dev/null | bytes)
        # WAL that has a second name stays
        if [ "$n" = "${waldir:+1}" ] || { [ "$n" = 0 ] && [ -z "$waldir" ]; }; then
            all=$((all - $(find "$work/lost/" -type f -links +1 -print0 2>/dev/null | bytes)))
        fi
        emit "used_$n" "$all"
    fi
}

know_folders "$@"
room 0 "$pgdata" "$work/new"
[ -z "$waldir" ] || room 1 "$waldir" "$waldir.follow_primary_new"
number=1
for location in "$@"; do
    location=$(real "$location")
    number=$((number + 1))
    room "$number" "$location" "$location.follow_primary_new"
done
exit 0
