#!/bin/sh
# take_copy.sh - takes a copy that a command made (copy_command.sh) and the worker has found good.
#
# arguments:
#   passfile  version  waldir   as copy_command.sh has them
#   good      no = it is not: it is removed
#   files     files of relations that are older than the copy, and are still there on the primary:
#             DATABASE/NUMBER, a line each
#   restore_command   a line for the settings file: what the copy is to fetch WAL with; '' = it
#                     has set none
#   own_restore_command  the same: what the node has instead, for the time after
#   OID LOCATION ...  (positional) as copy_command.sh has them
#
# In PGDATA.follow_primary/job, for configure.sh:
#   restore_command, own_restore_command   these lines
#
# prints:
#   bytes  size of the copy
# fails:
#   incomplete   files are missing
#   copy_failed  no_space
set -u
# shellcheck source=src/remote/lib.sh
. "${0%/*}/lib.sh"
# shellcheck source=src/remote/mark.sh
. "${0%/*}/mark.sh"
# shellcheck source=src/remote/folders.sh
. "${0%/*}/folders.sh"
# shellcheck source=src/remote/standby.sh
. "${0%/*}/standby.sh"

: "${passfile=}" "${good=yes}" "${version?}" "${waldir=}" "${files=}" "${restore_command=}" "${own_restore_command=}"
log=$work/copy.log
# shellcheck source=src/remote/copies.sh
. "${0%/*}/copies.sh"

# missing_files: prints those that are not there.
missing_files() {
    {
        find "$new/base/" "$new/global/" "$new"/pg_tblspc/*/ -type f -name '[0-9]*' 2>/dev/null |
            sed -n 's,.*/\([^/]*/[0-9]*\)$,\1,p'
        echo
        printf '%s\n' "$files"
    } | awk '
        wanted && $0 != "" && !($0 in there) { print }
        $0 == "" { wanted = 1 }
        !wanted { there[$0] = 1 }'
}

data_umask
know_locations "$@"
copies=
while [ $# -ge 2 ]; do
    location_place "$2"
    shift 2
done
data_places
if [ "$good" = no ]; then
    give_back
    exit 0
fi
signs_of_life
missing=$(missing_files)
[ -z "$missing" ] ||
    fail incomplete "$(printf '%s\n' "$missing" | grep -c .) files of relations are missing that are older than the copy and still there on the primary: $(printf '%s\n' "$missing" | head -n 5 | tr '\n' ' ')"
say "flushing the copy"
"$bin/initdb" --sync-only -D "$new" </dev/null >&2 || fail copy_failed "the copy could not be flushed to disk"
rm -f "$work/restore_command" "$work/own_restore_command"
if [ -n "$restore_command" ]; then
    printf '%s\n' "$own_restore_command" | put "$work/own_restore_command" || exit 1
    printf '%s\n' "$restore_command" | put "$work/restore_command" || exit 1
fi
rm -f "$work"/copy.*
finish_copy
exit 0
