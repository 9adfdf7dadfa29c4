# staged.sh - the WAL that a rewind or a copy discards, until it is saved for good; for the scripts
# that read it as they read lib.sh.
#
# stage_wal.sh gives it a second name in $work/lost: a hard link, which costs nothing. While the
# data is the node's own, its server may write to what has a name in pg_wal, so what is staged
# goes when the data stays: with a rewind that has changed nothing (rewind.sh), a start (start.sh)
# and the end of the job (lock.sh). What happens else:
#   rewound          the names in pg_wal go, and what is staged becomes
#                    PGDATA.follow_primary/lost_wal-JOB (rewind.sh)
#   cleared          the same, before the rest of the data goes (clear.sh)
#   put aside        swap.sh renames it to $work/lost_wal-JOB: the data, which somebody may want back,
#                    has its names still. It goes when the copy is proven, and what is staged leaves
#                    $work (clean.sh)
# Whatever has another name by then is copied: nothing that is saved changes with what a server
# writes.
#
# With the segments is a folder .uncounted, for count_wal.sh:
#     arguments          NAME=VALUE, a line each
#     control            what pg_controldata said
#     SEGMENT.ready      empty; the segment was to be archived
# It is whole when arguments is there.
# shellcheck shell=sh disable=SC2154

staged=$work/lost

drop_staged() {
    [ ! -e "$staged" ] || rm -rf "$staged"
}

# is_staged FOLDER: is it whole? What is not is of no use to anybody, and goes.
is_staged() {
    [ -e "$1/.uncounted/arguments" ] && return
    rm -rf "$1"
    return 1
}

# free_name PATH: sets free_name to it, or to PATH.1, PATH.2 ... where others are there, from a primary
# that counts its jobs by itself.
free_name() {
    free_name=$1
    free_number=1
    while [ -e "$free_name" ]; do
        free_name=$1.$free_number
        free_number=$((free_number + 1))
    done
}

# copy_linked FOLDER: what has another name becomes a copy.
copy_linked() {
    while IFS= read -r file; do
        if [ -n "$file" ]; then
            cp -p "$file" "$file.tmp" && sync "$file.tmp" && mv -f "$file.tmp" "$file" || return
        fi
    done <<LINKED
$(find "$1" -maxdepth 1 -type f -links +1)
LINKED
}

# move_saved FOLDER TO: to its final place, which is told.
move_saved() {
    sync "$1" 2>/dev/null
    free_name "$2"
    mv -T "$1" "$free_name" || return
    sync "$kept" 2>/dev/null
    emit lost_wal_dir "$free_name"
}

# publish_staged GOES: saves what is staged for good, and prints lost_wal_dir. GOES: yes = its names
# in pg_wal go; no = they stay, and what has one is copied. Returns 1 if that fails; then it can be
# called again.
publish_staged() {
    [ -d "$staged" ] && is_staged "$staged" || return 0
    for file in "$staged"/*; do
        # names of rewind.sh's own, and of pg_wal
        for name in "$work/aside/wal/${file##*/}" "$pgdata/pg_wal/${file##*/}"; do
            # shellcheck disable=SC2039,SC3013 # -ef is in dash and in POSIX.1-2024
            if [ "$name" -ef "$file" ] && { [ "$1" = yes ] || [ "${name#"$work"}" != "$name" ]; }; then
                rm -f "$name" || return
            fi
        done
    done
    copy_linked "$staged" && move_saved "$staged" "$kept/lost_wal-$job"
}

# put_staged_aside: when the data that it belongs to has been.
put_staged_aside() {
    if [ -d "$staged" ] && is_staged "$staged"; then
        free_name "$work/lost_wal-$job"
        mv -T "$staged" "$free_name" || return
        sync "$work" 2>/dev/null
    fi
    return 0
}

# publish_put_aside: when that data is removed, or will be kept.
publish_put_aside() {
    for folder in "$work"/lost_wal-*; do
        if [ -d "$folder" ]; then
            copy_linked "$folder" && move_saved "$folder" "$kept/${folder##*/}" || return
        fi
    done
    return 0
}
