# folders.sh - the folders that hold a node's data, and how a copy takes their
# place; for the scripts that read it as they read lib.sh.
#
# They are PGDATA, the WAL folder where that is not a plain folder in PGDATA, and
# the tablespaces' locations. As a rule the copy of a folder is made beside it
# and takes its place whole, by a rename:
#     PATH.follow_primary_new, PATH.follow_primary_old
#     PGDATA.follow_primary/new, PGDATA.follow_primary/old
# A folder that cannot be renamed, a mount point before all, keeps its place: the
# copy is made in it, and what is in the copy and what is the cluster's in the
# folder change places, entry by entry:
#     PATH/.follow_primary_new, PATH/.follow_primary_old
# Whatever else is there (lost+found, mount points, other people's files beside
# WAL and tablespaces) is left alone.
#
# The caller has set pgdata, waldir ('' = in PGDATA), work, and major, the number
# that the cluster's folders in tablespaces begin with: PG_15_202209061.
# shellcheck shell=sh disable=SC2154,SC2034

hex8='[0-9A-F][0-9A-F][0-9A-F][0-9A-F][0-9A-F][0-9A-F][0-9A-F][0-9A-F]'

there() {
    [ -e "$1" ] || [ -h "$1" ]
}

# real PATH: where PATH is, its last part resolved too.
real() {
    if [ -e "$1" ]; then
        set -- "$(readlink -f "$1")"
    fi
    printf '%s' "${1%/}"
}

# know_folders LOCATION...: sets folders, the resolved paths, and mounts; resolves
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

# Sets kind to what the folder is for.
kind_of() {
    case $1 in
        "$pgdata") kind=data ;;
        "$waldir") kind=wal ;;
        *) kind=space ;;
    esac
}

# staying FOLDER: its entries that are, or hold, a mount point or another of the
# folders, a line each.
staying() {
    printf '%s\n%s\n' "$mounts" "$folders" | while IFS= read -r path; do
        case $path in
            "$1"/*)
                path=${path#"$1"/}
                printf '%s\n' "${path%%/*}"
                ;;
        esac
    done
}

# entries FOLDER WHERE ACTION...: find's ACTION on what is the cluster's in
# FOLDER; with a copy of it as WHERE, on what is to come into FOLDER from there.
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

# Is there anything in the folder that is not the cluster's?
has_others() {
    kind_of "$1"
    [ "$kind" != data ] || return 1
    all=$(find "$1/" -mindepth 1 -maxdepth 1 -printf . 2>/dev/null)
    own=$(entries "$1" "$1" -printf . 2>/dev/null)
    [ "${#all}" -ne "${#own}" ]
}

# Does the folder have to keep its place? One that is not there does not.
keeps_place() {
    [ -d "$1" ] || return 1
    holder=${1%/*}
    if is_mount_point "$1" || below "$1" "$mounts" || below "$1" "$folders" ||
        below "$pgdata" "$1" || [ ! -w "${holder:-/}" ] || has_others "$1"; then
        return 0
    fi
    [ "$1" = "$pgdata" ] && [ -d "$work" ] &&
        { is_mount_point "$work" || [ "$(stat -c %d "$work/.")" != "$(stat -c %d "$1/.")" ]; }
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

# Dies if PostgreSQL keeps, where one of the folders has a mount point, data that
# a copy brings too.
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

# Has a swap that has its mark moved nothing yet?
is_swap_unmoved() {
    [ ! -e "$work/swap.list" ] ||
        { [ -e "$pgdata/PG_VERSION" ] && [ -e "$(sed -n 2p "$work/swap.list")/PG_VERSION" ] &&
            [ ! -e "$(sed -n 3p "$work/swap.list")/PG_VERSION" ]; }
}

# Dies while a swap is to be completed. One that has moved nothing is forgotten,
# mark and all, for the data may have been started again. Of one that has moved
# all, the copy's own folder last, only words are missing.
refuse_unfinished_swap() {
    if is_swap_unmoved; then
        ! grep -qx phase=swapping "$work/mark" 2>/dev/null || rm -f "$work/mark"
    elif [ -d "$(sed -n 2p "$work/swap.list")" ]; then
        die swap_unfinished "an interrupted swap has to be completed first: $work/swap.list"
    fi
    rm -f "$work/swap.list" "$work"/swap.away.*
}

# Does the node's data use the folder, or did it before clear.sh?
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

# refuse_foreign LOCATION [COMMAND]: dies, after COMMAND, if there is a tablespace
# in it that is not the node's: another server's on this machine, perhaps the
# primary's own.
refuse_foreign() {
    if [ -e "$1" ] && ! is_own_tablespace "$1" &&
        [ -n "$(find "$1/" -mindepth 1 -maxdepth 1 -name "PG_${major}_*" | head -n 1)" ]; then
        ${2:-:}
        die tablespace_in_use "$1 is a tablespace of the primary; on the node it is not one, and not empty"
    fi
}

# configuration_goes: from the mark that follows on, PGDATA need not have the files
# that save_config.sh saved.
configuration_goes() {
    rm -f "$work/config/restored" "$work/config/was_restored"
    sync "$work/config" 2>/dev/null
}

# remove_copies: what an attempt to copy made, finished or not.
remove_copies() {
    rm -rf "$work/proven" "$work/new"
    while IFS= read -r folder; do
        rm -rf "$folder/.follow_primary_new"
        [ "$folder" = "$pgdata" ] || rm -rf "$folder.follow_primary_new"
    done <<FOLDERS
$folders
FOLDERS
}
