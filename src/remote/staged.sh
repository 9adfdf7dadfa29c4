# staged.sh - the WAL that a rewind discards, from before the rewind until it is saved for good; for
# the scripts that read it as they read lib.sh.
#
# stage_wal.sh gives it a second name in $work/lost: a hard link, which costs nothing. While the
# data is the node's own, its server may write to what has a name in pg_wal, so what is staged
# goes when the data stays: with a rewind that has changed nothing (rewind.sh), a start (start.sh)
# and the end of the job (lock.sh). When the data has been changed, the names in pg_wal go, and
# what is staged becomes PGDATA.follow_primary/lost_wal-JOB. Whatever has another name by then is
# copied: nothing that is saved changes with what a server writes.
#
# With the segments is a folder .uncounted, for count_wal.sh:
#     arguments          NAME=VALUE, a line each
#     control            what pg_controldata said
#     SEGMENT.ready      empty; the segment was to be archived
# It is whole when arguments is there.
# shellcheck shell=sh disable=SC2154

staged=$work/lost

drop_staged() {
    rm -rf "$staged"
}

# publish_staged GOES: saves what is staged for good, and prints lost_wal_dir. GOES: yes = its names
# in pg_wal go; no = they stay, and what has one is copied. Returns 1 if that fails; then it can be
# called again.
publish_staged() {
    [ -d "$staged" ] || return 0
    if [ ! -e "$staged/.uncounted/arguments" ]; then
        drop_staged
        return 0
    fi
    for file in "$staged"/*; do
        # names of rewind.sh's own, and of pg_wal
        for name in "$work/aside/wal/${file##*/}" "$pgdata/pg_wal/${file##*/}"; do
            # shellcheck disable=SC2039,SC3013 # -ef is in dash and in POSIX.1-2024
            if [ "$name" -ef "$file" ] && { [ "$1" = yes ] || [ "${name#"$work"}" != "$name" ]; }; then
                rm -f "$name" || return
            fi
        done
    done
    while IFS= read -r file; do
        if [ -n "$file" ]; then
            cp -p "$file" "$file.tmp" && sync "$file.tmp" && mv -f "$file.tmp" "$file" || return
        fi
    done <<LINKED
$(find "$staged" -maxdepth 1 -type f -links +1)
LINKED
    sync "$staged" 2>/dev/null
    published=$kept/lost_wal-$job
    published_number=1
    while [ -e "$published" ]; do
        published=$kept/lost_wal-$job.$published_number
        published_number=$((published_number + 1))
    done
    mv -T "$staged" "$published" || return
    sync "$kept" 2>/dev/null
    emit lost_wal_dir "$published"
}
