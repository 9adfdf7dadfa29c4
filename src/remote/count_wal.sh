#!/bin/sh
# count_wal.sh - counts the WAL that a rewind has discarded, in a folder lost_wal-JOB of its own; what
# has nothing of anybody's in it goes, as save_wal.sh would not have saved it.
#
# arguments:
#   counted  the folder that this script has counted before, and whose figures are recorded; '' =
#            none
#
# It takes the next folder that is not counted yet, whichever job saved it. It runs beside a server:
# it gives way to others that want the processor or the disk.
#
# prints:
#   counting           the folder; '' = there is none
#   complete  lost_wal_bytes  lost_transactions  unarchived   as save_wal.sh
#   lost_wal_dir       the folder, if something stays in it
# fails:
#   count_failed
set -u
# shellcheck source=src/remote/lib.sh
. "${0%/*}/lib.sh"

: "${counted=}"
try_reason=count_failed

# end_counting FOLDER: what is left of one whose figures are recorded.
end_counting() {
    [ -d "$1/.uncounted" ] || return 0
    try rm -rf "$1/.uncounted"
    rmdir "$1" 2>/dev/null && rmdir "$kept" 2>/dev/null
    return 0
}

[ -z "$counted" ] || end_counting "$counted"
wal=
for folder in "$kept"/lost_wal-*; do
    if [ -e "$folder/.uncounted/arguments" ]; then
        wal=$folder
        break
    fi
done
emit counting "$wal"
[ -n "$wal" ] || exit 0
signs_of_life

fork_lsn='' fork_tli='' segment_size=16777216 node_tli=''
while IFS= read -r line; do
    case $line in
        fork_lsn=*) fork_lsn=${line#*=} ;;
        fork_tli=*) fork_tli=${line#*=} ;;
        segment_size=*) segment_size=${line#*=} ;;
        node_tli=*) node_tli=${line#*=} ;;
    esac
done <"$wal/.uncounted/arguments"
# shellcheck source=src/remote/lost.sh
. "${0%/*}/lost.sh"

ready=$wal/.uncounted
view=$wal/.uncounted/view
read_file "$wal/.uncounted/control"
control=$text
kept_names=$nl

keep() {
    is_saved "${1##*/}" || kept_names=$kept_names${1##*/}$nl
}

is_saved() {
    case $kept_names in
        *"$nl$1$nl"*) return 0 ;;
    esac
    return 1
}

finish() {
    save_unarchived
    if [ "$1" != unknown ]; then
        emit unarchived "$unarchived"
        for file in "$wal"/*; do
            if [ "$kept_names" = "$nl" ] || { segment_number "$file" && ! is_saved "${file##*/}"; }; then
                try rm -f "$file"
            fi
        done
        try sync "$wal"
    fi
    rm -rf "$view"
    emit complete "$1"
    if [ "$1" != yes ] || [ "$kept_names" != "$nl" ]; then
        emit lost_wal_dir "$wal"
    fi
    exit 0
}

command -v nice >/dev/null 2>&1 && low='nice -n 19'
! ionice -c 3 true 2>/dev/null || low="$low ionice -c 3"
count_lost
