# copies.sh - what the scripts that make or take a copy share; for those that read it as they
# read lib.sh.
#
# A copy is a standby from its first moment on, so that nobody can start it as a primary. The
# file "proven" in $work, which swap.sh wants, tells that it is complete and verified.
#
# The caller has read folders.sh, mark.sh and standby.sh, and has set version, waldir, passfile,
# and log, the file of what the program that copies says.
# shellcheck shell=sh disable=SC2154,SC2034

major=${version%????}

# give_back: gives the room back, and leaves nothing of this job.
give_back() {
    remove_copies
    rm -f "$log" "$work"/copy.*
    rmdir "$work" "$kept" 2>/dev/null
}

# fail REASON TEXT
fail() {
    give_back
    die "$@"
}

# know_locations TABLESPACE LOCATION...
know_locations() {
    n=$#
    while [ "$n" -gt 0 ]; do
        set -- "$@" "$2"
        shift 2
        n=$((n - 2))
    done
    know_folders "$@"
}

# begin_copy TABLESPACE LOCATION...: can one be made? Removes what is left of an earlier one.
begin_copy() {
    data_umask
    use_passfile "$passfile"
    refuse_unfinished_swap
    make_work
    know_locations "$@"
    refuse_odd_mounts
    # fail() removes as much of the copies as there is time for; the next call removes the rest.
    # Nobody reads stdout or stderr any more.
    trap 'fail ended "the copy was ended"' TERM
    trap : PIPE
    remove_copies
}

# location_place LOCATION: sets new to where the copy of a tablespace is made, and adds it to
# copies. What the node does not use may be anybody's.
location_place() {
    refuse_foreign "$1" give_back
    copy_place "$(real "$1")"
    copies=$copies$new$nl
}

# data_places: the same for the WAL, if that has a folder of its own, with new_wal set, else '';
# and last for the data directory.
data_places() {
    new_wal=
    if [ -n "$waldir" ]; then
        copy_place "$waldir"
        new_wal=$new
        copies=$copies$new$nl
    fi
    copy_place "$pgdata"
    copies=$copies$new
}

# size_of_copies: prints it, in kB.
size_of_copies() {
    printf '%s\n' "$copies" | while IFS= read -r path; do
        du -sk "$path" 2>/dev/null | sed 's/[[:space:]].*//'
    done | awk '{ kb += $1 } END { printf "%.0f", kb }'
}

# finish_copy: $new, which is complete, is the copy. What jobs kept in the primary's data
# directory, on a mount point, belongs to the primary.
finish_copy() {
    rm -rf "$new"/.follow_primary_*
    make_standby "$new" "$version" || fail copy_failed "could not make the copy a standby"
    sync "$new"/*.signal "$new"/recovery.conf "$new" 2>/dev/null
    emit bytes "$(size_of_copies | awk '{ printf "%.0f", $1 * 1024 }')"
    put "$work/proven" </dev/null
}
