#!/bin/sh
# clear.sh - removes the node's data to make room for a copy, where there is not
# enough for both.
#
# usage: clear.sh PGDATA JOB SERVER_VERSION_NUM WALDIR [TABLESPACE_LOCATION...]
#   WALDIR  the node's WAL folder if it is a folder or a mount point of its own,
#           else ''
#
# save_config.sh and save_wal.sh have been there before. The mark has
# phase=clearing from before the first file goes; PG_VERSION goes first, so that
# nothing can be started, nor after a power failure. PGDATA.follow_primary/layout
# tells survey.sh from then on where the WAL and the tablespaces were. Removed is
# what is the cluster's (see folders.sh), and the folders themselves stay. Run
# again, it removes what is left.
#
# prints: was_there=yes|no  whether PGDATA had data that could be started
# fails:  running          a server runs on PGDATA; nothing was changed
#         not_saved        there is no saved configuration; nothing was changed
#         swap_unfinished  an earlier swap has to be completed first
#         mount_point  tablespace_in_use   as basebackup.sh; nothing was changed
#         no_space  permission  clear_failed
set -u
# shellcheck source=src/remote/lib.sh
. "${0%/*}/lib.sh"
# shellcheck source=src/remote/folders.sh
. "${0%/*}/folders.sh"

pgdata=$1
job=$2
major=${3%????}
waldir=$4
shift 4
work=$pgdata.follow_primary

umask 077
LC_ALL=C
export LC_ALL
signs_of_life

server_pid && die running "a server runs on $pgdata, as process $pid"
refuse_unfinished_swap
know_folders "$@"
refuse_odd_mounts
for location in "$@"; do
    refuse_foreign "$location"
done

was_there=no
if [ -e "$pgdata/PG_VERSION" ]; then
    was_there=yes
    [ -e "$work/config/complete" ] || die not_saved "there is no saved configuration in $work/config"
    emit_folders | put "$work/layout" || exit 1
fi
while IFS= read -r folder; do
    [ -d "$folder" ] || continue
    # shellcheck disable=SC2016 # for the shell that find starts
    locked=$(entries "$folder" "$folder" -exec find '{}' -type d ! -writable ! -empty -print -quit ';' 2>/dev/null | head -n 1)
    [ -z "$locked" ] || die permission "$locked is not the SSH user's to write, so it cannot be removed; nothing was changed"
done <<FOLDERS
$folders
FOLDERS
configuration_goes
printf 'job=%s\nmethod=basebackup\nphase=clearing\n' "$job" | put "$work/mark" || exit 1
rm -f "$pgdata/PG_VERSION" || die permission "could not remove $pgdata/PG_VERSION"
sync "$pgdata" 2>/dev/null
remove_copies
while IFS= read -r folder; do
    [ -d "$folder" ] || continue
    entries "$folder" "$folder" -exec rm -rf -- '{}' + || die clear_failed "could not remove all that is in $folder"
    sync "$folder" 2>/dev/null
done <<FOLDERS
$folders
FOLDERS
emit was_there "$was_there"
exit 0
