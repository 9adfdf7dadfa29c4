# own.sh - how the node's own files in its data directory get out of the way of a rewind or a
# copy, and back; for the scripts that read it as they read lib.sh. names.sh finds out which they are.
#
# save_config.sh notes them in PGDATA.follow_primary/job/config, as paths relative to PGDATA, a
# line each:
#   files    files and links that are in none of the folders; data/ has a copy of each
#   folders  folders that are kept as a whole, whatever their size
#   needed   files in these folders that programs need while the folders are away
# A rewind moves the folders to data/, and leaves copies of what is needed in their place. A
# swap moves them from the old data to the new. Nothing else removes them: while one is in
# data/, it is nowhere else.
# shellcheck shell=sh disable=SC2154

saved=$work/config

# each_own LIST COMMAND...: runs COMMAND with each path in config/LIST.
each_own() {
    own_list=$saved/$1
    shift
    [ -s "$own_list" ] || return 0
    while IFS= read -r own_path; do
        "$@" "$own_path" || return
    done <"$own_list"
}

# can_rename FROM TO: by a mere rename, for both are on one file system?
can_rename() {
    ! is_mounted "$1" && [ "$(stat -c %d -- "$1")" = "$(stat -c %d -- "${2%/*}")" ]
}

# check_room FROM TO: dies if the file system of TO has no room for FROM.
check_room() {
    needed_kb=$(du -sk -- "$1" | sed 's/[[:space:]].*//')
    free_kb=$(df -Pk -- "${2%/*}" | awk 'NR == 2 { print $4 }')
    [ "${needed_kb:-0}" -lt "${free_kb:-0}" ] ||
        die no_space "$1 is the node's own, and cannot be renamed to ${2%/*}: $((needed_kb / 1024 + 1)) MB are needed there, $((free_kb / 1024)) MB are free"
}

# move_folder FROM TO: with all that is in it. TO is there when it is whole, and only then
# FROM goes; as a mount point it stays, and becomes empty.
move_folder() {
    try mkdir -p "${2%/*}"
    if can_rename "$1" "$2"; then
        try mv -T -- "$1" "$2"
    else
        rm -rf "$2.fp_tmp"
        check_room "$1" "$2"
        try cp -a -- "$1" "$2.fp_tmp"
        try find "$2.fp_tmp" -type f -exec sync '{}' +
        try mv -T -- "$2.fp_tmp" "$2"
        find "$1" -mindepth 1 -delete
        rmdir "$1" 2>/dev/null
    fi
    sync "${1%/*}" "${2%/*}" 2>/dev/null
}

# folder_aside FOLDER
folder_aside() {
    if [ -d "$pgdata/$1" ] && [ ! -e "$saved/data/$1" ]; then
        move_folder "$pgdata/$1" "$saved/data/$1"
    fi
}

# copy_needed FILE: with what it leads to, for pg_rewind takes no link. One that cannot be
# copied, no program of ours could read.
copy_needed() {
    if mkdir -p "$pgdata/${1%/*}"; then
        cp -pL -- "$saved/data/$1" "$pgdata/$1" 2>/dev/null
    fi
    return 0
}

# own_aside: moves the folders out of PGDATA.
own_aside() {
    each_own folders folder_aside
    each_own needed copy_needed
}

# folder_back FOLDER: what is in its place is a copy, or the primary's.
folder_back() {
    [ -d "$saved/data/$1" ] || return 0
    if is_mounted "$pgdata/$1"; then
        find "$pgdata/$1" -mindepth 1 -delete
        try cp -a -- "$saved/data/$1/." "$pgdata/$1/"
        try find "$pgdata/$1" -type f -exec sync '{}' +
        rm -rf "${saved:?}/data/$1"
    else
        rm -rf "${pgdata:?}/$1"
        move_folder "$saved/data/$1" "$pgdata/$1"
    fi
}

# own_back: moves the folders back into PGDATA, those that are not there.
own_back() {
    each_own folders folder_back
}
