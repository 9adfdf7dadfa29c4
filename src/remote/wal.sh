# wal.sh - the WAL of the node outlives the checkpoint that a stop ends in; for the scripts
# that read it as they read lib.sh.
#
# That checkpoint removes segments, or gives them the name of a segment to come: often those
# with the last checkpoint that the node and the primary have in common, which pg_rewind looks
# for, and those with commits that are to be saved. Before the stop each segment gets a second
# name, a hard link; what is missing after it comes back.
#
# The folder of the links is on the file system of pg_wal: $work/wal, or the folder
# NAME.follow_primary_wal beside pg_wal, which is called NAME, or .follow_primary_wal in it.
# The links are gone when the script ends. What is left by one that was killed is known by the
# addresses in it, should the server have run meanwhile.
# shellcheck shell=sh disable=SC2154

# link_folders: sets folder_here to pg_wal, and link_folders to where the links can be, a line each.
link_folders() {
    folder_here=$(cd -P -- "$pgdata/pg_wal" 2>/dev/null && pwd)
    link_folders=$work/wal$nl$folder_here.follow_primary_wal$nl$folder_here/.follow_primary_wal
}

# keep_wal: gives all segments a second name. Where the file system has no hard links, the WAL
# has to do without.
keep_wal() {
    drop_kept_wal
    [ -n "$folder_here" ] || return 0
    while IFS= read -r links; do
        if mkdir -- "$links" 2>/dev/null; then
            if (cd -- "$folder_here" &&
                find . -maxdepth 1 -type f -name '[0-9A-F]*' ! -name '*.*' -exec ln -t "$links" -- '{}' +) 2>/dev/null; then
                return 0
            fi
            rm -rf -- "$links"
        fi
    done <<FOLDERS
$link_folders
FOLDERS
}

# has_its_address SEGMENT: is the WAL in the file that of its name? A server that has taken the
# file for another segment has written the first page before all others.
has_its_address() {
    segment_number "$1" || return 1
    for address in $(od -An -v -tu8 -j8 -N8 -- "$1" 2>/dev/null); do
        [ "$address" -eq "$((number * segment_size))" ]
        return
    done
    return 1
}

# give_back_wal: the segments that pg_wal has lost since keep_wal come back. The file may be there
# under the name of a segment to come: then it gets its own one again. The server removes only
# what is archived, so it must not be archived again.
give_back_wal() {
    link_folders
    while IFS= read -r links; do
        for link in "$links"/*; do
            segment=$folder_here/${link##*/}
            if [ -n "$folder_here" ] && [ -e "$link" ] && [ ! -e "$segment" ] && has_its_address "$link"; then
                find "$folder_here" -maxdepth 1 -samefile "$link" -exec rm -f -- '{}' +
                mv -- "$link" "$segment" && : >"$folder_here/archive_status/${link##*/}.done"
            fi
        done
    done <<FOLDERS
$link_folders
FOLDERS
    drop_kept_wal
}

# drop_kept_wal: takes all second names away.
drop_kept_wal() {
    link_folders
    while IFS= read -r links; do
        [ ! -d "$links" ] || rm -rf -- "$links"
    done <<FOLDERS
$link_folders
FOLDERS
}
