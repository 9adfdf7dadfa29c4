# folders.sh - the folders that hold a node's data, and how a copy takes their
# place; for the scripts that read it as they read lib.sh.
#
# The folders are PGDATA, the WAL folder where it is not a plain folder in PGDATA, and the
# tablespaces' locations. As a rule the copy of a folder is made beside it, and takes its place
# as a whole, by a rename:
#     PATH.follow_primary_new, PATH.follow_primary_old
#     PGDATA.follow_primary/job/new, PGDATA.follow_primary/job/old
# A folder that cannot be renamed, as a mount point, keeps its place: the copy is made in it.
# Then the entries of the copy and the cluster's entries in the folder change places, one by
# one:
#     PATH/.follow_primary_new, PATH/.follow_primary_old
# All else in the folder is left alone: lost+found, mount points, other people's files beside
# WAL and tablespaces.
#
# The caller has set waldir ('' = in PGDATA) and major, with which the names of the cluster's
# folders in tablespaces begin: PG_15_202209061.
# shellcheck shell=sh disable=SC2154,SC2034

hex8='[0-9A-F][0-9A-F][0-9A-F][0-9A-F][0-9A-F][0-9A-F][0-9A-F][0-9A-F]'

there() {
    [ -e "$1" ] || [ -h "$1" ]
}

# real PATH: prints where PATH is; its last part is resolved, too.
real() {
    if [ -e "$1" ]; then
        set -- "$(readlink -f "$1")"
    fi
    printf '%s' "${1%/}"
}

# know_folders LOCATION...: sets folders to the resolved paths, a line each, and mounts; resolves
# waldir.
know_folders() {
    read_mounts
    folders=$pgdata
    if [ -n "$waldir" ]; then
        waldir=$(real "$waldir")
        folders=$folders$nl$waldir
    fi
    for location in "$@"; do
        folders=$folders$nl$(real "$location")
    done
}

# below PATH LINES: is one of the lines a path below PATH?
below() {
    case $nl$2 in
        *"$nl${1%/}/"*) return 0 ;;
    esac
    return 1
}

# kind_of FOLDER: sets kind to what the folder is for.
kind_of() {
    case $1 in
        "$pgdata") kind=data ;;
        "$waldir") kind=wal ;;
        *) kind=space ;;
    esac
}

# staying FOLDER: prints its entries that are, or hold, a mount point or another of the folders,
# a line each.
staying() {
    [ "$1" != "$pgdata" ] || printf '%s' "${own_entries:-}"
    printf '%s\n%s\n' "$mounts" "$folders" | while IFS= read -r path; do
        case $path in
            "$1"/*)
                path=${path#"$1"/}
                printf '%s\n' "${path%%/*}"
                ;;
        esac
    done
}

# entries FOLDER WHERE ACTION...: runs find's ACTION. Where WHERE is FOLDER, on the cluster's
# entries in it; where WHERE is its copy, on the entries that are to come into FOLDER.
entries() {
    entries_of=$1
    entries_in=$2
    shift 2
    kind_of "$entries_of"
    if [ "$entries_in" = "$entries_of" ]; then
        case $kind in
            wal)
                set -- '(' -name "$hex8$hex8$hex8*" -o -name "$hex8.history" -o -name archive_status \
                    -o -name summaries -o -name 'xlogtemp.*' -o -name 'RECOVERY*' ')' "$@"
                ;;
            space) set -- -name "PG_${major}_*" "$@" ;;
        esac
    fi
    while IFS= read -r entry; do
        [ -z "$entry" ] ||
            set -- ! -name "$(printf '%s' "$entry" | sed 's/[][*?\\]/\\&/g')" "$@"
    done <<STAYING
$(staying "$entries_of")
STAYING
    find "$entries_in/" -mindepth 1 -maxdepth 1 ! -name lost+found ! -name '.follow_primary_*' "$@"
}

# has_others FOLDER: is there an entry in it that is not the cluster's?
has_others() {
    kind_of "$1"
    [ "$kind" != data ] || return 1
    all=$(find "$1/" -mindepth 1 -maxdepth 1 -printf . 2>/dev/null)
    own=$(entries "$1" "$1" -printf . 2>/dev/null)
    [ "${#all}" -ne "${#own}" ]
}

# keeps_place FOLDER: can it not be renamed? One that is not there has no place to keep.
keeps_place() {
    [ -d "$1" ] || return 1
    holder=${1%/*}
    if is_mount_point "$1" || below "$1" "$mounts" || below "$1" "$folders" ||
        below "$pgdata" "$1" || [ ! -w "${holder:-/}" ] || has_others "$1"; then
        return 0
    fi
    [ "$1" = "$pgdata" ] && [ -d "$kept" ] &&
        { is_mount_point "$kept" || [ "$(stat -c %d "$kept/.")" != "$(stat -c %d "$1/.")" ]; }
}

# copy_place FOLDER: sets new to where its copy is made.
copy_place() {
    if keeps_place "$1"; then
        new=$1/.follow_primary_new
    elif [ "$1" = "$pgdata" ]; then
        new=$work/new
    else
        new=$1.follow_primary_new
    fi
}

# refuse_odd_mounts: dies if an entry of one of the folders is a mount point, and a copy brings
# that entry, too.
refuse_odd_mounts() {
    while IFS= read -r folder; do
        kind_of "$folder"
        while IFS= read -r entry; do
            case $kind/$entry in
                data/pg_wal) [ "$waldir" != "$pgdata/pg_wal" ] || continue ;;
                data/base | data/global | data/pg_*) ;;
                space/"PG_${major}_"*) ;;
                wal/archive_status | wal/summaries) ;;
                *) continue ;;
            esac
            die mount_point "$folder/$entry is, or holds, a mount point: a copy cannot take its place"
        done <<STAYING
$(staying "$folder")
STAYING
    done <<FOLDERS
$folders
FOLDERS
}

# symlink TARGET LINK: LINK points to TARGET, and to something at every moment.
symlink() {
    rm -f "$2.fp_tmp"
    if ! { ln -s "$1" "$2.fp_tmp" && mv -fT "$2.fp_tmp" "$2"; }; then
        die "$put_reason" "could not make the symbolic link $2"
    fi
}

# relink DATA MOVES: the links of the data directory DATA that lead to a folder which is moved
# lead to its new place. MOVES has two lines a folder: from, to.
relink() {
    {
        printf '%s\n' "$2"
        for link in "$1/pg_wal" "$1"/pg_tblspc/*; do
            [ ! -h "$link" ] || printf '%s\n' "$link" "$(readlink "$link")" "$(readlink -m "$link")"
        done
    } | awk '
        !links && /^$/ { links = NR }
        !links { if (NR % 2) from = $0; else to[from] = $0; next }
        (NR - links) % 3 == 1 { link = $0 }
        (NR - links) % 3 == 2 { target = $0 }
        (NR - links) % 3 == 0 && NR > links {
            place = (target in to) ? to[target] : to[$0]
            if (place != "" && place != target)
                print place "\n" link
        }' | while IFS= read -r place && IFS= read -r link; do
        symlink "$place" "$link"
    done || exit 1
}

# know_swap N LIVE NEW OLD, by each_swapped: sets the names that PGDATA has in a swap.
know_swap() {
    [ "$1" -ne 1 ] || { pgdata=$2 new_data=$3 old_data=$4; }
}

# refuse_unfinished_swap: dies if a swap is to be completed. One that has moved nothing is
# forgotten, with its mark, for the data may have been started again. One that has moved all,
# PGDATA's copy last, has only its list left, which goes.
refuse_unfinished_swap() {
    read_mark
    moved=nothing
    if [ -e "$work/swap.list" ]; then
        each_swapped know_swap <"$work/swap.list"
        [ -e "$pgdata/PG_VERSION" ] && [ -e "$new_data/PG_VERSION" ] && [ ! -e "$old_data/PG_VERSION" ] || moved=all
        [ "$moved" = nothing ] || [ ! -d "$new_data" ] ||
            die swap_unfinished "an interrupted swap has to be completed first: $work/swap.list"
    fi
    if [ "$moved" = nothing ] && [ "$mark_phase" = swapping ]; then
        remove_mark || die permission "could not remove $mark"
    fi
    rm -f "$work/swap.list" "$work"/swap.away.*
}

# is_own_tablespace FOLDER: does the node's data use it, or did it before clear.sh removed that?
is_own_tablespace() {
    name=$(emit name "$1")
    if sed -n 's/^tablespace\.[0-9]*=//p' "$work/layout" 2>/dev/null | grep -Fqx -e "${name#*=}"; then
        return 0
    fi
    for link in "$pgdata"/pg_tblspc/*; do
        # shellcheck disable=SC2039,SC3013 # -ef is in dash and in POSIX.1-2024
        if [ -h "$link" ] && [ "$link" -ef "$1" ]; then
            return 0
        fi
    done
    return 1
}

# refuse_foreign LOCATION [COMMAND]: dies, after COMMAND, if a tablespace is in LOCATION that is
# not the node's, but another server's on this machine, perhaps the primary's own.
refuse_foreign() {
    if [ -e "$1" ] && ! is_own_tablespace "$1" &&
        [ -n "$(find "$1/" -mindepth 1 -maxdepth 1 -name "PG_${major}_*" | head -n 1)" ]; then
        ${2:-:}
        die tablespace_in_use "$1 is a tablespace of the primary; on the node it is not one, and not empty"
    fi
}

# configuration_goes: comes before a mark from which on PGDATA need not have the files that
# save_config.sh saved.
configuration_goes() {
    rm -f "$work/config/restored" "$work/config/was_restored"
    sync "$work/config" 2>/dev/null
}

# remove_copies: removes what an attempt to copy made, finished or not.
remove_copies() {
    rm -rf "$work/proven" "$work/new"
    while IFS= read -r folder; do
        rm -rf "$folder/.follow_primary_new"
        [ "$folder" = "$pgdata" ] || rm -rf "$folder.follow_primary_new"
    done <<FOLDERS
$folders
FOLDERS
}
