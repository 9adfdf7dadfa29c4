#!/bin/sh
# archive.sh - can a restore_command serve WAL segments on this node?
#
# usage: archive.sh PGDATA BIN_DIR RESTORE_COMMAND SEGMENT_SIZE SEGMENT...
#
# Runs the command as the server does, in PGDATA, but lets it fetch to a folder
# of its own, which goes again.
#
# prints: served=yes|no
#         missing=   the first that was not served
# fails:  no_space
set -u
# shellcheck source=src/remote/lib.sh
. "${0%/*}/lib.sh"

pgdata=$1
bin=$2
command=$3
segment_size=$4
shift 4
limit=30

umask 077
cd "$pgdata" || die no_space "could not change to $pgdata"
to=$(mktemp -d) || die no_space "could not make a temporary folder"
trap 'rm -rf "$to"' EXIT
trap 'exit 1' HUP INT TERM PIPE

control=$(LC_ALL=C "$bin/pg_controldata" "$pgdata" 2>/dev/null)
restart=$(printf '%s\n' "$control" | sed -n "s/^Latest checkpoint's REDO WAL file: *//p")

# expand NAME: the command with %f, %p, %r and %% replaced.
expand() {
    printf '%s' "$command" | LC_ALL=C awk -v f="$1" -v p="$to/file" -v r="$restart" '
        { text = text (NR > 1 ? "\n" : "") $0 }
        END {
            out = ""
            while ((at = index(text, "%")) > 0) {
                c = substr(text, at + 1, 1)
                out = out substr(text, 1, at - 1) (c == "f" ? f : c == "p" ? p : c == "r" ? r : c == "%" ? "%" : "%" c)
                text = substr(text, at + 2)
            }
            printf "%s", out text
        }'
}

served() {
    rm -f "$to/file"
    set -- sh -c "$(expand "$1")"
    if timeout --foreground 1 true >/dev/null 2>&1; then
        set -- timeout --foreground "$limit" "$@"
    fi
    "$@" </dev/null >/dev/null 2>&1 &&
        [ "$(wc -c 2>/dev/null <"$to/file" | tr -d ' ')" = "$segment_size" ]
}

for segment in "$@"; do
    if ! served "$segment"; then
        emit missing "$segment"
        emit served no
        exit 0
    fi
done
emit served yes
exit 0
