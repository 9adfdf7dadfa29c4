#!/bin/sh
# swap.sh - brings the copy that basebackup.sh made into the place of the node's data, which
# stays beside it, or in it (folders.sh).
#
# arguments:
#   waldir        the node's WAL folder if it is a folder or a mount point of its own; else ''
#   LOCATION ...  (positional) the node's tablespaces
#
# It only renames, never across a mount point. The names of replaced folders end in .2, .3 ...
# where an earlier job's are still there. PGDATA is moved away first, or PG_VERSION out of it,
# and the copy's comes into place last: in between there is nothing that could be started.
# The script may be ended at any moment. When it runs again, it goes on by what is in
# PGDATA.follow_primary/job:
#     swap.list    live, new and old name of each folder, in three lines, PGDATA first
#     swap.away.N  of folder N, where entries change places: the names of those that are to be
#                  moved away. It goes when they are; only then the copy's come in
# The mark says "swapping" from before the first rename until all is in place, and "swapped"
# then. From then on no server can be started in PGDATA until configure.sh has ended.
#
# prints:
#   result  swapped | already_swapped
# fails:
#   mount_point  permission  something cannot be renamed; nothing was changed
#   not_proven   there is no complete copy; nothing was changed
#   running      a server runs in PGDATA
#   swap_failed  a rename failed; run it again when the cause is gone
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

: "${waldir=}"
list=$work/swap.list
major=
put_reason=swap_failed
try_reason=swap_failed

rename() {
    mv -T "$1" "$2" || die swap_failed "could not rename $1 to $2"
    sync "${2%/*}" 2>/dev/null
}

# in_place LIVE NEW: is it the entries of the folder that change places?
in_place() {
    [ "$2" = "$1/.follow_primary_new" ]
}

# know_major: sets major from the PG_VERSION of the copy, or of the old data.
know_major() {
    for file in "$new_data/PG_VERSION" "$pgdata/PG_VERSION"; do
        if [ -f "$file" ]; then
            read_file "$file"
            major=$text
            return
        fi
    done
}

#
# Before the swap: is all there, and can it be moved?
#

# plan_swap: prints live, new and old name of every folder that has a copy, in three lines,
# PGDATA first.
plan_swap() {
    printf '%s\n%s\n%s\n' "$pgdata" "$new_data" "${new_data%new}old"
    led_to=$nl$(for link in "$new_data/pg_wal" "$new_data"/pg_tblspc/*; do [ ! -h "$link" ] || readlink "$link"; done)$nl
    while IFS= read -r live; do
        for new in "$live/.follow_primary_new" "$live.follow_primary_new"; do
            case $led_to in
                *"$nl$new$nl"*) printf '%s\n%s\n%s\n' "$live" "$new" "${new%new}old" ;;
            esac
        done
    done <<FOLDERS
$folders
FOLDERS
}

# check_folder N LIVE NEW OLD: dies if the folder cannot be moved.
check_folder() {
    there "$3" || die not_proven "there is no copy in $3"
    if is_mount_point "$2" && ! in_place "$2" "$3"; then
        die mount_point "$2 is a mount point by now: it cannot be renamed"
    fi
    # a move of a folder changes its entry .., so the folder itself must be writable
    locked=
    ! in_place "$2" "$3" || locked=$(entries "$2" "$2" -type d ! -writable -print -quit)
    [ -z "$locked" ] || die permission "$locked is not the SSH user's to write, so it cannot be moved; nothing was changed"
}

# check_own FOLDER: as check_folder(), for a folder of the node's own.
check_own() {
    if [ -d "$pgdata/$1" ] && [ ! -w "$pgdata/$1" ]; then
        die permission "$pgdata/$1 is not the SSH user's to write, so it cannot be moved; nothing was changed"
    fi
}

# check_no_start: dies if what is half-changed could be started meanwhile.
check_no_start() {
    half=$new_data
    ! in_place "$pgdata" "$new_data" || half=$pgdata
    forbid_start "$half" ||
        die permission "$half cannot be kept from being started while it is half-changed: its file system or owner lets no mode be set; nothing was changed"
    [ "$half" = "$new_data" ] || allow_start
}

# old_is_free N LIVE NEW OLD: has no earlier job kept data under the name?
old_is_free() {
    ! there "$4$suffix"
}

# list_away N LIVE NEW OLD: writes down which entries of the folder are to be moved away.
list_away() {
    ! in_place "$2" "$3" || entries "$2" "$2" -printf '%f\n' | put "$work/swap.away.$1" || exit 1
}

# list_folder N LIVE NEW OLD
list_folder() {
    printf '%s\n%s\n%s\n' "$2" "$3" "$4$suffix"
}

# each_planned COMMAND
each_planned() {
    each_swapped "$@" <<SWAPS
$swaps
SWAPS
}

# begin: writes down what is to be done, with the mark before it. Ends here if there is no
# complete copy.
begin() {
    if [ ! -e "$work/proven" ]; then
        if [ "$swapped" = yes ] && [ -d "$pgdata" ]; then
            emit result already_swapped
            exit 0
        fi
        die not_proven "there is no complete copy in $work"
    fi
    server_pid && die running "a server runs on $pgdata, as process $pid"

    # resolved now, for during the swap the names may lead to nothing
    know_folders "$@"
    new_data=$work/new
    [ ! -d "$pgdata/.follow_primary_new" ] || new_data=$pgdata/.follow_primary_new
    [ -f "$new_data/PG_VERSION" ] || die not_proven "there is no copy in $new_data"
    know_major
    refuse_odd_mounts
    swaps=$(plan_swap)
    each_planned check_folder
    each_own folders check_own
    suffix=
    n=1
    while ! each_planned old_is_free; do
        n=$((n + 1))
        suffix=.$n
    done

    check_no_start
    configuration_goes
    write_mark swapping method=basebackup
    swapped=no
    rm -f "$work"/swap.away.*
    each_planned list_away
    each_planned list_folder | put "$list" || exit 1
}

# add_live N LIVE NEW OLD
add_live() {
    live_folders=$live_folders$2$nl
}

# go_on: what stays where it is must be known as it was when the swap began.
go_on() {
    [ "$swapped" = yes ] || ! server_pid || die running "a server runs on $pgdata, as process $pid"
    live_folders=
    each_swapped add_live <"$list"
    know_folders
    folders=${live_folders%"$nl"}
}

#
# The swap
#

# move_entries FROM TO: moves the entries whose names come on stdin.
move_entries() {
    from=$1
    to=$2
    set --
    while IFS= read -r entry; do
        there "$from/$entry" || continue
        set -- "$@" "$from/$entry"
        if [ $# -ge 500 ]; then
            mv -n -t "$to" -- "$@" || die swap_failed "could not rename what is in $from"
            set --
        fi
    done
    [ $# -eq 0 ] || mv -n -t "$to" -- "$@" || die swap_failed "could not rename what is in $from"
}

# refuse_both FROM TO: dies if an entry whose name comes on stdin is still in FROM: mv -n leaves
# it there if TO has one of that name.
refuse_both() {
    while IFS= read -r entry; do
        ! there "$1/$entry" || die swap_failed "$1/$entry and $2/$entry are both there: somebody else made one of them"
    done
}

# away N LIVE NEW OLD: moves what is in the place of the copy out of the way.
away() {
    if in_place "$2" "$3"; then
        entries_away "$work/swap.away.$1" "$2" "$4"
        return
    fi
    there "$3" && there "$2" || return 0
    # nothing to keep of an empty folder
    if [ -d "$2" ] && [ ! -h "$2" ] && rmdir "$2" 2>/dev/null; then
        return 0
    fi
    if there "$4"; then
        die swap_failed "$2, $3 and $4 are all there: somebody else made one of them"
    fi
    rename "$2" "$4"
}

# entries_away NAMES LIVE OLD: does so for the entries that the file NAMES lists.
entries_away() {
    there "$1" || return 0
    if [ -s "$1" ] && [ ! -d "$3" ]; then
        mkdir "$3" || die swap_failed "could not make $3"
    fi
    # without it no server starts
    if [ "$2" = "$pgdata" ] && there "$2/PG_VERSION"; then
        rename "$2/PG_VERSION" "$3/PG_VERSION"
        sync "$2" 2>/dev/null
    fi
    move_entries "$2" "$3" <"$1"
    refuse_both "$2" "$3" <"$1"
    [ ! -d "$3" ] || sync "$3" "$2" 2>/dev/null
    rm -f "$1" || die swap_failed "could not remove $1"
    sync "$work" 2>/dev/null
}

# into_place LIVE NEW
into_place() {
    there "$2" || return 0
    if ! in_place "$1" "$2"; then
        rename "$2" "$1"
        return
    fi
    names=$work/swap.names.tmp
    entries "$1" "$2" ! -name PG_VERSION -printf '%f\n' >"$names" || die swap_failed "could not write $names"
    move_entries "$2" "$1" <"$names"
    refuse_both "$2" "$1" <"$names"
    rm -f "$names"
    sync "$1" "$2" 2>/dev/null
    if there "$2/PG_VERSION"; then
        rename "$2/PG_VERSION" "$1/PG_VERSION"
    fi
    # it has at most entries for which the node has a mount point
    rm -rf "$2" || die swap_failed "could not remove $2"
}

# holds_copy FOLDER: is there WAL or a tablespace in it? It is not known any more which of them
# the folder is for.
holds_copy() {
    [ -n "$(find "$1/" -mindepth 1 -maxdepth 1 \
        '(' -name "PG_${major}_*" -o -name "$hex8$hex8$hex8*" -o -name archive_status ')' -print -quit 2>/dev/null)" ]
}

# swap_other N LIVE NEW OLD: swaps a folder that is not PGDATA, and adds it to copies_moved and
# old_moved.
swap_other() {
    [ "$1" -ne 1 ] || return 0
    if ! there "$3" && ! holds_copy "$2"; then
        die swap_failed "the copy is neither in $3 nor in $2: is the disk mounted?"
    fi
    away "$@"
    into_place "$2" "$3"
    copies_moved=$copies_moved$3$nl$2$nl
    if there "$4"; then
        old_moved=$old_moved$2$nl$4$nl
        # a mount point in PGDATA, which stayed there
        if [ "$2" = "$pgdata/pg_wal" ] && [ -d "$old_data" ] && ! there "$old_data/pg_wal"; then
            symlink "$4" "$old_data/pg_wal"
        fi
    fi
}

# take_own FOLDER: moves a folder of the node's own from the old data to the copy, which has the
# primary's in its place. An interrupted rewind may have moved it before. A mount point stayed
# where it is.
take_own() {
    from=$saved/data/$1
    [ -d "$from" ] || from=$old_data/$1
    if [ -d "$from" ] && [ ! -h "$from" ] && ! is_mounted "$pgdata/$1"; then
        rm -rf "${pgdata:?}/$1" || die swap_failed "could not remove $pgdata/$1"
        move_folder "$from" "$pgdata/$1"
    fi
}

# swap_all: PGDATA goes first and comes last. In between the links that lead to the other folders
# are corrected: those of the copy name the place where it was made, those of the old data the
# place that the copy has now.
swap_all() {
    copies_moved='' old_moved=''
    away 1 "$pgdata" "$new_data" "$old_data"
    each_swapped swap_other <"$list"
    relink "$new_data" "$copies_moved"
    relink "$old_data" "$old_moved"
    if in_place "$pgdata" "$new_data"; then
        forbid_start "$pgdata"
    else
        forbid_start "$new_data"
    fi || die swap_failed "the copy cannot be kept from being started before it has its settings"
    into_place "$pgdata" "$new_data"
}

umask 077

swapped=no
read_mark
case $mark_phase in
    swapped | ready) swapped=yes ;;
esac
if [ -e "$list" ]; then
    go_on
else
    begin "$@"
fi
each_swapped know_swap <"$list"
know_major
if [ "$swapped" = no ]; then
    ! there "$new_data" || swap_all
    [ -f "$pgdata/PG_VERSION" ] ||
        die swap_failed "the copy is neither in $new_data nor in $pgdata: is the disk mounted?"
    each_own folders take_own
    put_staged_aside || die swap_failed "could not rename $staged"
    put_back_slots || die swap_failed "could not put back the slot ${slot##*/}"
    write_mark swapped method=basebackup
fi
rm -f "$work/proven"
rm -f "$list" || die swap_failed "could not remove $list"
emit result swapped
