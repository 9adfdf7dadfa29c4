#!/bin/sh
# clean.sh - takes away what a job left beside the node's data, once the node is
# proven to be whole.
#
# usage: clean.sh PGDATA KEEP JOB WALDIR [TABLESPACE_LOCATION...]
#   KEEP    keep = nothing goes, now or by a later call without keep: the replaced
#           data of an interrupted job of another primary, which saved the WAL
#           behind another fork;
#           mark = only the mark goes, and what was to be put back;
#           until_proven = the replaced data goes now; always = it is kept, its
#           names ending in old-JOB
#   WALDIR  the node's WAL folder if it is a folder or a mount point of its own,
#           else ''
#
# The mark goes first: the node is whole, the rest is litter that the next call
# takes away. PGDATA.follow_primary itself stays while it holds something that
# is kept (lost_wal-*, old-*).
#
# prints: kept=    the folders with replaced data, a line each
# fails:  clean_failed
set -u
# shellcheck source=src/remote/lib.sh
. "${0%/*}/lib.sh"
# shellcheck source=src/remote/folders.sh
. "${0%/*}/folders.sh"

pgdata=$1
keep=$2
job=$3
waldir=$4
shift 4
work=$pgdata.follow_primary
kept=

LC_ALL=C
export LC_ALL

# remove PATH...: as far as they are there.
remove() {
    for path; do
        shift
        if [ -e "$path" ] || [ -h "$path" ]; then
            set -- "$@" "$path"
        fi
    done
    [ $# -eq 0 ] || rm -rf "$@" || die clean_failed "could not remove $1"
}

# relink FROM TO: the replaced data's links follow a folder that was renamed.
relink() {
    for link in "$work"/old/pg_wal "$work"/old/pg_tblspc/* \
        "$work"/old.*/pg_wal "$work"/old.*/pg_tblspc/* \
        "$pgdata"/.follow_primary_old*/pg_wal "$pgdata"/.follow_primary_old*/pg_tblspc/*; do
        if [ -h "$link" ] && [ "$(readlink "$link")" = "$1" ]; then
            ln -sfn "$2" "$link"
        fi
    done
}

# replaced PREFIX: deals with the folders that swap.sh names PREFIX, PREFIX.2 ...
replaced() {
    n=1
    for old in "$1" "$1".[2-9] "$1".[1-9][0-9]; do
        [ -e "$old" ] || [ -h "$old" ] || continue
        if [ "$keep" != always ]; then
            remove "$old"
            continue
        fi
        to=$1-$job
        while [ -e "$to" ]; do
            n=$((n + 1))
            to=$1-$job.$n
        done
        mv -T "$old" "$to" || die clean_failed "could not rename $old"
        relink "$old" "$to"
        kept=$kept${kept:+$nl}$to
    done
}

if [ "$keep" = keep ]; then
    # where a rewind was interrupted, the links to the WAL that it found
    if [ -d "$work/aside/wal" ] && [ ! -e "$work/old.wal" ]; then
        mv -T "$work/aside/wal" "$work/old.wal" || die clean_failed "could not rename $work/aside/wal"
    fi
    { : >"$work/keep" && sync "$work/keep" "$work"; } || die clean_failed "could not write $work/keep"
    exit 0
fi
if [ -e "$work/mark" ]; then
    rm -f "$work/mark" || die clean_failed "could not remove $work/mark"
    sync "$work" 2>/dev/null
fi
remove "$work/slots"
[ "$keep" != mark ] || exit 0
signs_of_life
[ ! -e "$work/keep" ] || keep=always
if [ "$keep" = always ] && [ -d "$work/old.wal" ]; then
    mv -T "$work/old.wal" "$work/old-$job.wal" || die clean_failed "could not rename $work/old.wal"
    kept=$work/old-$job.wal
fi
for folder in "$waldir" "$@"; do
    [ -n "$folder" ] || continue
    folder=$(real "$folder")
    remove "$folder.follow_primary_new" "$folder/.follow_primary_new"
    replaced "$folder.follow_primary_old"
    replaced "$folder/.follow_primary_old"
done
remove "$pgdata/.follow_primary_new"
replaced "$pgdata/.follow_primary_old"
replaced "$work/old"
set -- "$pgdata"/*.fp_tmp
for name in keep old.wal new repoint/complete repoint repoint.tmp config config.tmp aside proven proven.tmp mark.tmp edit.tmp edit.old \
    swap.list swap.list.tmp swap.names.tmp layout layout.tmp rewind.log recovery.log basebackup.log; do
    set -- "$@" "$work/$name"
done
remove "$@" "$work"/swap.away.*
# not empty is no failure: something is kept
[ ! -d "$work" ] || rmdir "$work" 2>/dev/null
emit kept "$kept"
exit 0
