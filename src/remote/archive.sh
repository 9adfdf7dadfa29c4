#!/bin/sh
# archive.sh - can a restore_command serve WAL segments on this node?
#
# arguments:
#   command       the restore_command
#   segment_size  of WAL segments, in bytes
#   SEGMENT ...   (positional) the names of segments
#
# It runs the command as the server does, in pgdata, but lets it fetch to a folder of its own,
# which it removes.
#
# prints:
#   served  yes | no, whether all were
# fails:
#   no_space
set -u
# shellcheck source=src/remote/lib.sh
. "${0%/*}/lib.sh"

: "${command?}" "${segment_size=16777216}"
limit=30 # seconds for a segment

# serves SEGMENT
serves() {
    rm -f "$to/file"
    set -- sh -c "$own_locale$(expand_restore_command "$command" "$1" "$to/file" "$restart")"
    if timeout --foreground 1 true >/dev/null 2>&1; then
        set -- timeout --foreground "$limit" "$@"
    fi
    "$@" </dev/null >/dev/null 2>&1 &&
        [ "$(wc -c 2>/dev/null <"$to/file" | tr -d ' ')" = "$segment_size" ]
}

umask 077
cd "$pgdata" || die no_space "could not change to $pgdata"
to=$(mktemp -d) || die no_space "could not make a temporary folder"
trap 'rm -rf "$to"' EXIT
trap 'exit 1' HUP INT TERM PIPE

restart=$("$bin/pg_controldata" "$pgdata" 2>/dev/null |
    sed -n "s/^Latest checkpoint's REDO WAL file: *//p")
served=yes
for segment in "$@"; do
    serves "$segment" || { served=no && break; }
done
emit served "$served"
exit 0
