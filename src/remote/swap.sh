#!/bin/sh
# swap.sh - brings the copy that basebackup.sh made into the place of the node's
# data, which stays beside it.
#
# usage: swap.sh PGDATA WALDIR [TABLESPACE_LOCATION...]
#   WALDIR  the node's WAL folder if it is not in PGDATA, else ''
#
# Renames only. The node's data becomes PGDATA.follow_primary/old,
# WALDIR.follow_primary_old and LOCATION.follow_primary_old (with .2, .3 ...
# when an earlier job's are still there). First PGDATA is moved away and last
# the copy becomes PGDATA: in between there is nothing that could be started.
# Ended at any moment and run again, it goes on by what
# PGDATA.follow_primary/swap.list says: live, new and old name of each folder in
# three lines, PGDATA first. The mark has phase=swapping until all is in place,
# then phase=ready.
#
# prints: result=swapped|already_swapped
# fails:  mount_point   something cannot be renamed; nothing was changed
#         not_proven    there is no complete copy; nothing was changed
#         running       a server runs on PGDATA; nothing was changed
#         swap_failed   a rename failed; run it again when the cause is gone
set -u
# shellcheck source=src/remote/lib.sh
. "${0%/*}/lib.sh"

pgdata=$1
waldir=$2
shift 2
work=$pgdata.follow_primary
list=$work/swap.list

umask 077
LC_ALL=C
export LC_ALL

there() {
    [ -e "$1" ] || [ -h "$1" ]
}

rename() {
    mv -T "$1" "$2" || die swap_failed "could not rename $1 to $2"
    sync "${2%/*}" 2>/dev/null
}

# put FILE: stdin becomes FILE, durably and in one step. At the end of a pipe,
# which is a subshell, it cannot end the script itself.
put() {
    cat >"$1.tmp" || die swap_failed "could not write $1.tmp"
    sync "$1.tmp" 2>/dev/null
    mv -f "$1.tmp" "$1" || die swap_failed "could not write $1"
    sync "${1%/*}" 2>/dev/null
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

# real PATH: where PATH is, its last part resolved too.
real() {
    if [ -e "$1" ]; then
        set -- "$(readlink -f "$1")"
    fi
    printf '%s' "${1%/}"
}

job=$(sed -n 's/^job=//p' "$work/proven" 2>/dev/null)
if [ -z "$job" ]; then
    job=$(sed -n 's/^job=//p' "$work/mark" 2>/dev/null)
fi

if [ ! -e "$list" ]; then
    if [ ! -e "$work/proven" ]; then
        if [ "$(sed -n 's/^phase=//p' "$work/mark" 2>/dev/null)" = ready ] && [ -d "$pgdata" ]; then
            emit result already_swapped
            exit 0
        fi
        die not_proven "there is no complete copy in $work/new"
    fi
    if [ "$waldir" = "$pgdata/pg_wal" ]; then
        waldir=
    fi
    server_pid && die running "a server runs on $pgdata, as process $pid"

    # Resolved once: during the swap the names may point to nothing.
    if [ -n "$waldir" ]; then
        waldir=$(real "$waldir")
    fi
    n=$#
    while [ "$n" -gt 0 ]; do
        set -- "$@" "$(real "$1")"
        shift
        n=$((n - 1))
    done
    for path in "$pgdata" "$waldir" "$@"; do
        if [ -n "$path" ] && is_mount_point "$path"; then
            die mount_point "$path is a mount point: it cannot be renamed"
        fi
    done

    # The first suffix that no folder kept from earlier jobs has.
    suffix=
    n=1
    while :; do
        free=yes
        ! there "$work/old$suffix" || free=no
        for path in "$waldir" "$@"; do
            [ -z "$path" ] || ! there "$path.follow_primary_old$suffix" || free=no
        done
        [ "$free" = no ] || break
        n=$((n + 1))
        suffix=.$n
    done

    [ -d "$work/new" ] || die not_proven "there is no copy in $work/new"
    {
        printf '%s\n%s\n%s\n' "$pgdata" "$work/new" "$work/old$suffix"
        for path in "$waldir" "$@"; do
            [ -z "$path" ] || [ ! -d "$path.follow_primary_new" ] ||
                printf '%s\n%s\n%s\n' "$path" "$path.follow_primary_new" "$path.follow_primary_old$suffix"
        done
    } | put "$list" || exit 1
fi
mark swapping

# away LIVE NEW OLD: moves LIVE out of the way while NEW waits for its place.
away() {
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
    rename "$2" "$1"
}

{
    IFS= read -r _
    IFS= read -r new_data
    IFS= read -r old_data
} <"$list"

# relink DATA FROM TO: lets the links in DATA that lead to FROM lead to TO.
relink() {
    for link in "$1/pg_wal" "$1"/pg_tblspc/*; do
        if [ -h "$link" ] && [ "$(readlink "$link")" != "$3" ] &&
            { [ "$(readlink "$link")" = "$2" ] || [ "$(readlink -f "$link")" = "$2" ]; }; then
            symlink "$3" "$link"
        fi
    done
}

# The folders beside PGDATA, and the links that lead to them: the copy's name
# the places where it was made, the old data's those that the copy has now.
swap_others() {
    while IFS= read -r live && IFS= read -r new && IFS= read -r old; do
        [ "$live" != "$pgdata" ] || continue
        away "$live" "$new" "$old"
        into_place "$live" "$new"
        relink "$new_data" "$new" "$live"
        if there "$old"; then
            relink "$old_data" "$live" "$old"
        fi
    done
}

if there "$new_data"; then
    away "$pgdata" "$new_data" "$old_data"
    swap_others <"$list"
    into_place "$pgdata" "$new_data"
fi

mark ready
rm -f "$work/proven"
rm -f "$list" || die swap_failed "could not remove $list"
emit result swapped
exit 0
