#!/bin/sh
# swap.sh - brings the copy that basebackup.sh made into the place of the node's
# data, which stays beside it, or in it (see folders.sh).
#
# usage: swap.sh PGDATA WALDIR [TABLESPACE_LOCATION...]
#   WALDIR  the node's WAL folder if it is a folder or a mount point of its own,
#           else ''
#
# Renames only, none of them across a mount point. The names of replaced folders
# end in .2, .3 ... when an earlier job's are still there. First PGDATA is moved
# away, or PG_VERSION out of it, and last the copy's comes into its place: in
# between there is nothing that could be started.
# Ended at any moment and run again, it goes on by what is in PGDATA.follow_primary:
#     swap.list    live, new and old name of each folder in three lines, PGDATA
#                  first
#     swap.away.N  of folder N, where entries change places: the names that are to
#                  be moved away; gone when they are, and only then the copy's
#                  come in
# The mark has phase=swapping before the first rename and until all is in place,
# then phase=swapped. No server can be started in PGDATA from then until it has the
# node's own configuration: see forbid_start() and configure.sh.
#
# prints: result=swapped|already_swapped
# fails:  mount_point  permission   something cannot be renamed; nothing was changed
#         not_proven    there is no complete copy; nothing was changed
#         running       a server runs on PGDATA
#         swap_failed   a rename failed; run it again when the cause is gone
set -u
# shellcheck source=src/remote/lib.sh
. "${0%/*}/lib.sh"
# shellcheck source=src/remote/folders.sh
. "${0%/*}/folders.sh"

pgdata=$1
waldir=$2
shift 2
work=$pgdata.follow_primary
list=$work/swap.list
major=
put_reason=swap_failed

umask 077
LC_ALL=C
export LC_ALL

rename() {
    mv -T "$1" "$2" || die swap_failed "could not rename $1 to $2"
    sync "${2%/*}" 2>/dev/null
}

mark() {
    printf 'job=%s\nmethod=basebackup\nphase=%s\n' "$job" "$1" | put "$work/mark" || exit 1
}

# symlink TARGET LINK: LINK points to TARGET, at every moment to something.
symlink() {
    rm -f "$2.fp_tmp"
    if ! { ln -s "$1" "$2.fp_tmp" && mv -fT "$2.fp_tmp" "$2"; }; then
        die swap_failed "could not make the symbolic link $2"
    fi
}

# in_place LIVE NEW: is it the entries of the folder that change places?
in_place() {
    [ "$2" = "$1/.follow_primary_new" ]
}

# links_to FOLDER: is it the copy's?
links_to() {
    for link in "$new_data/pg_wal" "$new_data"/pg_tblspc/*; do
        [ ! -h "$link" ] || [ "$(readlink "$link")" != "$1" ] || return 0
    done
    return 1
}

# Lines LIVE, NEW, OLD of every folder that has a copy, PGDATA first.
plan_swap() {
    printf '%s\n%s\n%s\n' "$pgdata" "$new_data" "${new_data%new}old"
    while IFS= read -r live; do
        for new in "$live/.follow_primary_new" "$live.follow_primary_new"; do
            ! links_to "$new" || printf '%s\n%s\n%s\n' "$live" "$new" "${new%new}old"
        done
    done <<FOLDERS
$folders
FOLDERS
}

job=$(sed -n 's/^job=//p' "$work/proven" 2>/dev/null)
if [ -z "$job" ]; then
    job=$(sed -n 's/^job=//p' "$work/mark" 2>/dev/null)
fi
phase=$(sed -n 's/^phase=//p' "$work/mark" 2>/dev/null)
swapped=no
case $phase in
    swapped | ready) swapped=yes ;;
esac

if [ ! -e "$list" ]; then
    if [ ! -e "$work/proven" ]; then
        if [ "$swapped" = yes ] && [ -d "$pgdata" ]; then
            emit result already_swapped
            exit 0
        fi
        die not_proven "there is no complete copy in $work"
    fi
    server_pid && die running "a server runs on $pgdata, as process $pid"

    # Resolved once: during the swap the names may point to nothing.
    know_folders "$@"
    new_data=$work/new
    [ ! -d "$pgdata/.follow_primary_new" ] || new_data=$pgdata/.follow_primary_new
    [ -f "$new_data/PG_VERSION" ] || die not_proven "there is no copy in $new_data"
    read_file "$new_data/PG_VERSION"
    major=$text
    refuse_odd_mounts
    swaps=$(plan_swap)

    # The first suffix that no folder kept from earlier jobs has.
    suffix=
    n=1
    while :; do
        free=yes
        while IFS= read -r live && IFS= read -r new && IFS= read -r old; do
            ! there "$old$suffix" || free=no
            there "$new" || die not_proven "there is no copy in $new"
            if is_mount_point "$live" && ! in_place "$live" "$new"; then
                die mount_point "$live is a mount point by now: it cannot be renamed"
            fi
            # a folder's parent is written in the folder itself
            locked=
            ! in_place "$live" "$new" || locked=$(entries "$live" "$live" -type d ! -writable -print -quit)
            [ -z "$locked" ] || die permission "$locked is not the SSH user's to write, so it cannot be moved; nothing was changed"
        done <<SWAPS
$swaps
SWAPS
        [ "$free" = no ] || break
        n=$((n + 1))
        suffix=.$n
    done

    configuration_goes
    mark swapping
    swapped=no
    rm -f "$work"/swap.away.*
    n=0
    while IFS= read -r live && IFS= read -r new && IFS= read -r old; do
        n=$((n + 1))
        if in_place "$live" "$new"; then
            entries "$live" "$live" -printf '%f\n' | put "$work/swap.away.$n" || exit 1
        fi
    done <<SWAPS
$swaps
SWAPS
    while IFS= read -r live && IFS= read -r new && IFS= read -r old; do
        printf '%s\n%s\n%s\n' "$live" "$new" "$old$suffix"
    done <<SWAPS | put "$list" || exit 1
$swaps
SWAPS
else
    [ "$swapped" = yes ] || ! server_pid || die running "a server runs on $pgdata, as process $pid"
    # What stays where it is must be known as it was before.
    live_folders=
    while IFS= read -r live && IFS= read -r _ && IFS= read -r _; do
        live_folders=$live_folders$live$nl
    done <"$list"
    know_folders
    folders=${live_folders%"$nl"}
fi

# move_entries FROM TO: moves those whose names come on stdin.
move_entries() {
    from=$1
    to=$2
    set --
    while IFS= read -r name; do
        there "$from/$name" || continue
        set -- "$@" "$from/$name"
        if [ $# -ge 500 ]; then
            mv -n -t "$to" -- "$@" || die swap_failed "could not rename what is in $from"
            set --
        fi
    done
    [ $# -eq 0 ] || mv -n -t "$to" -- "$@" || die swap_failed "could not rename what is in $from"
}

# away N LIVE NEW OLD: moves what is in the place of the copy out of the way.
away() {
    names=$work/swap.away.$1
    shift
    if in_place "$1" "$2"; then
        there "$names" || return 0
        if [ -s "$names" ] && [ ! -d "$3" ]; then
            mkdir "$3" || die swap_failed "could not make $3"
        fi
        # Without it no server starts.
        if [ "$1" = "$pgdata" ] && there "$1/PG_VERSION"; then
            rename "$1/PG_VERSION" "$3/PG_VERSION"
            sync "$1" 2>/dev/null
        fi
        move_entries "$1" "$3" <"$names" || exit 1
        while IFS= read -r name; do
            ! there "$1/$name" || die swap_failed "$1/$name and $3/$name are both there: somebody else made one of them"
        done <"$names"
        [ ! -d "$3" ] || sync "$3" "$1" 2>/dev/null
        rm -f "$names" || die swap_failed "could not remove $names"
        sync "$work" 2>/dev/null
        return 0
    fi
    there "$2" && there "$1" || return 0
    # nothing to keep of an empty folder
    if [ -d "$1" ] && [ ! -h "$1" ] && rmdir "$1" 2>/dev/null; then
        return 0
    fi
    if there "$3"; then
        die swap_failed "$1, $2 and $3 are all there: somebody else made one of them"
    fi
    rename "$1" "$3"
}

# into_place LIVE NEW
into_place() {
    there "$2" || return 0
    if ! in_place "$1" "$2"; then
        rename "$2" "$1"
        return
    fi
    entries "$1" "$2" ! -name PG_VERSION -printf '%f\n' >"$work/swap.names.tmp" ||
        die swap_failed "could not write $work/swap.names.tmp"
    move_entries "$2" "$1" <"$work/swap.names.tmp" || exit 1
    while IFS= read -r name; do
        ! there "$2/$name" || die swap_failed "$1/$name and $2/$name are both there: somebody else made one of them"
    done <"$work/swap.names.tmp"
    rm -f "$work/swap.names.tmp"
    sync "$1" "$2" 2>/dev/null
    if there "$2/PG_VERSION"; then
        rename "$2/PG_VERSION" "$1/PG_VERSION"
    fi
    # left in it is at most what the node has a mount point for
    rm -rf "$2" || die swap_failed "could not remove $2"
}

# relink DATA FROM TO: lets the links in DATA that lead to FROM lead to TO.
relink() {
    for link in "$1/pg_wal" "$1"/pg_tblspc/*; do
        if [ -h "$link" ] && [ "$(readlink "$link")" != "$3" ] &&
            { [ "$(readlink "$link")" = "$2" ] || [ "$(readlink -f "$link")" = "$2" ]; }; then
            symlink "$3" "$link"
        fi
    done
}

{
    IFS= read -r pgdata
    IFS= read -r new_data
    IFS= read -r old_data
} <"$list"

for file in "$new_data/PG_VERSION" "$pgdata/PG_VERSION"; do
    [ -n "$major" ] || [ ! -f "$file" ] || { read_file "$file" && major=$text; }
done

# holds_copy FOLDER: is there WAL or a tablespace in it? Which of them it is for is
# not known any more.
holds_copy() {
    [ -n "$(find "$1/" -mindepth 1 -maxdepth 1 \
        '(' -name "PG_${major}_*" -o -name "$hex8$hex8$hex8*" -o -name archive_status ')' -print -quit 2>/dev/null)" ]
}

# The other folders, and the links that lead to them: the copy's name the places
# where it was made, the old data's those that the copy has now.
swap_others() {
    n=0
    while IFS= read -r live && IFS= read -r new && IFS= read -r old; do
        n=$((n + 1))
        [ "$live" != "$pgdata" ] || continue
        if ! there "$new" && ! holds_copy "$live"; then
            die swap_failed "the copy is neither in $new nor in $live: is the disk mounted?"
        fi
        away "$n" "$live" "$new" "$old"
        into_place "$live" "$new"
        if [ -d "$new_data/pg_tblspc" ]; then
            relink "$new_data" "$new" "$live"
        fi
        if there "$old"; then
            relink "$old_data" "$live" "$old"
            # a mount point in PGDATA, which stayed there
            if [ "$live" = "$pgdata/pg_wal" ] && [ -d "$old_data" ] && ! there "$old_data/pg_wal"; then
                symlink "$old" "$old_data/pg_wal"
            fi
        fi
    done
}

if [ "$swapped" = no ]; then
    if there "$new_data"; then
        away 1 "$pgdata" "$new_data" "$old_data"
        swap_others <"$list"
        if in_place "$pgdata" "$new_data"; then
            forbid_start "$pgdata"
        else
            forbid_start "$new_data"
        fi
        into_place "$pgdata" "$new_data"
    fi
    [ -f "$pgdata/PG_VERSION" ] ||
        die swap_failed "the copy is neither in $new_data nor in $pgdata: is the disk mounted?"
    put_back_slots || die swap_failed "could not put back the slot ${slot##*/}"
    mark swapped
fi
rm -f "$work/proven"
rm -f "$list" || die swap_failed "could not remove $list"
emit result swapped
exit 0
