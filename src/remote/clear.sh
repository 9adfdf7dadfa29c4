#!/bin/sh
# clear.sh - removes the node's data to make room for a copy, where there is not enough for
# both.
#
# arguments:
#   version       server_version_num of the primary
#   waldir        the node's WAL folder if it is a folder or a mount point of its own; else ''
#   LOCATION ...  (positional) the node's tablespaces, and those that only the primary has
#
# save_config.sh and stage_wal.sh have run before. The mark says "clearing" from before the first
# file goes. PG_VERSION goes first, so that no server can be started any more, not even after a
# power failure. From then on the file "layout" tells survey.sh where the WAL and the
# tablespaces were. What is the cluster's is removed (folders.sh); the folders themselves stay,
# and so does what is the node's own, since the copy may need it to connect.
# Run again, the script removes what is left.
#
# prints:
#   lost_wal_dir     where the WAL is that stage_wal.sh has staged
# fails:
#   running          a server runs in pgdata; nothing was changed
#   not_saved        there is no saved configuration; nothing was changed
#   swap_unfinished  an earlier swap has to be completed first
#   mount_point  tablespace_in_use   as basebackup.sh; nothing was changed
#   no_space  permission  clear_failed
# shellcheck disable=SC2317,SC2329 # functions that each_folder() calls
set -u
# shellcheck source=src/remote/lib.sh
. "${0%/*}/lib.sh"
# shellcheck source=src/remote/mark.sh
. "${0%/*}/mark.sh"
# shellcheck source=src/remote/folders.sh
. "${0%/*}/folders.sh"
# shellcheck source=src/remote/own.sh
. "${0%/*}/own.sh"
# shellcheck source=src/remote/staged.sh
. "${0%/*}/staged.sh"

: "${version?}" "${waldir=}"
major=${version%????}

# each_folder COMMAND: runs COMMAND FOLDER for each of the folders that is there.
each_folder() {
    while IFS= read -r folder; do
        [ ! -d "$folder" ] || "$1" "$folder"
    done <<FOLDERS
$folders
FOLDERS
}

# add_entry OWN_PATH: adds the entry of PGDATA that is, or holds, it. One of PostgreSQL's own
# folders is not spared for a file in it, which is saved.
add_entry() {
    case $1 in
        base/* | global/* | pg_*/*) ;;
        *) own_entries=$own_entries${1%%/*}$nl ;;
    esac
}

# check_folder FOLDER: dies if something in it cannot be removed.
check_folder() {
    # shellcheck disable=SC2016 # for the shell that find starts
    locked=$(entries "$1" "$1" -exec find '{}' -type d ! -writable ! -empty -print -quit ';' 2>/dev/null | head -n 1)
    [ -z "$locked" ] || die permission "$locked is not the SSH user's to write, so it cannot be removed; nothing was changed"
}

# clear_folder FOLDER
clear_folder() {
    entries "$1" "$1" -exec rm -rf -- '{}' + || die clear_failed "could not remove all that is in $1"
    sync "$1" 2>/dev/null
}

umask 077
signs_of_life

server_pid && die running "a server runs on $pgdata, as process $pid"
refuse_unfinished_swap
know_folders "$@"
refuse_odd_mounts
for location in "$@"; do
    refuse_foreign "$location"
done
if [ -e "$pgdata/PG_VERSION" ]; then
    [ -e "$work/config/complete" ] || die not_saved "there is no saved configuration in $work/config"
    emit_folders | put "$work/layout" || exit 1
fi
own_entries=
each_own files add_entry
each_own folders add_entry
each_folder check_folder

configuration_goes
write_mark clearing method=basebackup
rm -f "$pgdata/PG_VERSION" || die permission "could not remove $pgdata/PG_VERSION"
sync "$pgdata" 2>/dev/null
remove_copies
publish_staged yes || die clear_failed "the WAL that is lost could not be moved from $staged to $kept"
each_folder clear_folder
exit 0
