#!/bin/sh
# clean.sh - takes away what a job left beside the node's data, once the node is proven to be
# whole.
#
# arguments:
#   keep    what is to go:
#           mark = only the mark, what was to be put back, and the gate of restore_command (gate.sh)
#           until_proven = all, the replaced data too
#           always = the replaced data is kept, under names that end in old-JOB
#           keep = nothing goes; from now on the replaced data is kept, as with always. For
#           that of an interrupted job of another primary, which saved the WAL behind another
#           fork
#   waldir        the node's WAL folder if it is a folder or a mount point of its own; else ''
#   LOCATION ...  (positional) the node's tablespaces
#
# The mark goes first: the node is whole, and the next call takes the rest away if this one
# does not.
#
# prints:
#   kept    the folders with replaced data, a line each
#   lost_wal_dir  where the WAL is that is lost with the replaced data
# fails:
#   clean_failed
set -u
# shellcheck source=src/remote/lib.sh
. "${0%/*}/lib.sh"
# shellcheck source=src/remote/mark.sh
. "${0%/*}/mark.sh"
# shellcheck source=src/remote/folders.sh
. "${0%/*}/folders.sh"
# shellcheck source=src/remote/own.sh
. "${0%/*}/own.sh"
# shellcheck source=src/remote/gate.sh
. "${0%/*}/gate.sh"
# shellcheck source=src/remote/staged.sh
. "${0%/*}/staged.sh"

: "${keep?}" "${waldir=}"
put_reason=clean_failed
replaced='' moves='' last_kept=

# remove PATH...: as far as they are there, in this order.
remove() {
    for path; do
        shift
        ! there "$path" || set -- "$@" "$path"
    done
    [ $# -eq 0 ] || rm -rf "$@" || die clean_failed "could not remove $1"
}

# rename FROM TO
rename() {
    mv -T "$1" "$2" || die clean_failed "could not rename $1"
}

# clean_replaced PREFIX KEPT: removes the folders that swap.sh names PREFIX, PREFIX.2 ..., or
# adds to moves, two lines a folder, that they become KEPT, KEPT.2 ...
clean_replaced() {
    n=1
    for old in "$1" "$1".[2-9] "$1".[1-9][0-9]; do
        there "$old" || continue
        if [ "$keep" != always ]; then
            remove "$old"
            continue
        fi
        to=$2
        while [ -e "$to" ] || [ "$to" = "$last_kept" ]; do
            n=$((n + 1))
            to=$2.$n
        done
        last_kept=$to
        moves=$moves$old$nl$to$nl
        replaced=$replaced${replaced:+$nl}$to
    done
}

# move_replaced: does what is in moves. First the replaced data's links: a call that goes on does
# not find again what has moved.
move_replaced() {
    for old in "$work"/old "$work"/old.* "$pgdata"/.follow_primary_old*; do
        [ ! -d "$old" ] || relink "$old" "$moves"
    done
    while IFS= read -r old && IFS= read -r to; do
        [ -z "$old" ] || rename "$old" "$to"
    done <<MOVES
$moves
MOVES
}

# keep_own FOLDER: keeps a folder of the node's own that an interrupted rewind moved away and no job
# moved back, because somebody has put other data there since.
keep_own() {
    [ -d "$saved/data/$1" ] || return 0
    to=$kept/own-$job/$1
    mkdir -p "${to%/*}" || die clean_failed "could not make ${to%/*}"
    rename "$saved/data/$1" "$to"
    case $nl$replaced$nl in
        *"$nl$kept/own-$job$nl"*) ;;
        *) replaced=$replaced${replaced:+$nl}$kept/own-$job ;;
    esac
}

# takes_time: is there data to remove? What a repoint leaves, a few files, is gone at once.
takes_time() {
    for folder in "$work"/*/ "$pgdata"/.follow_primary_*/; do
        case $folder in
            "$work/repoint/" | */'*/' | */'.follow_primary_*/') ;;
            *) return 0 ;;
        esac
    done
    return 1
}

# keep_all: whatever becomes of this job, no later one removes what an earlier one replaced.
keep_all() {
    # where a rewind was interrupted, the links to the WAL that it found
    if [ -d "$work/aside/wal" ] && [ ! -e "$work/old.wal" ]; then
        rename "$work/aside/wal" "$work/old.wal"
    fi
    put "$work/keep" </dev/null
}

if [ "$keep" = keep ]; then
    keep_all
    exit 0
fi
remove_mark || die clean_failed "could not remove $mark"
lift_gate || die clean_failed "the line restore_command = 'follow_primary_gate=...' could not be taken out of $file"
if [ "$keep" = mark ]; then
    remove "$work/slots"
    exit 0
fi
if [ -n "$waldir" ] || [ $# -gt 0 ] || takes_time; then
    signs_of_life
fi
[ ! -e "$work/keep" ] || keep=always
if [ "$keep" = always ] && [ -d "$work/old.wal" ]; then
    rename "$work/old.wal" "$kept/old-$job.wal"
    replaced=$kept/old-$job.wal
fi
for folder in "$waldir" "$@"; do
    [ -n "$folder" ] || continue
    folder=$(real "$folder")
    remove "$folder.follow_primary_new" "$folder/.follow_primary_new"
    clean_replaced "$folder.follow_primary_old" "$folder.follow_primary_old-$job"
    clean_replaced "$folder/.follow_primary_old" "$folder/.follow_primary_old-$job"
done
clean_replaced "$pgdata/.follow_primary_old" "$pgdata/.follow_primary_old-$job"
clean_replaced "$work/old" "$kept/old-$job"
publish_put_aside || die clean_failed "the WAL that is lost could not be moved from $work to $kept"
move_replaced
each_own folders keep_own
# The files that tell that a folder is whole go before it.
remove "$work/repoint/complete" "$work/proven" "$work" "$pgdata/.follow_primary_new" "$pgdata"/*.fp_tmp
# it stays while something in it is kept
[ ! -d "$kept" ] || rmdir "$kept" 2>/dev/null
emit kept "$replaced"
