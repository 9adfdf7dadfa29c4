#!/bin/sh
# count_wal.sh - counts the WAL that a rewind or a copy has discarded, in a folder lost_wal-JOB of its
# own. What has nothing of anybody's in it, as a checkpoint, goes: no commit, no prepared transaction,
# no message. Where pg_controldata, pg_waldump or a history file says something that is not
# understood, all stays, and nothing is counted.
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
#   saved_by           the token of the job that saved it
#   complete           yes | no | unknown; no: some of that WAL was not in pg_wal any more, and the
#                      counts are too low; unknown: there are no counts
#   lost_wal_bytes     from the fork to the end of valid WAL
#   lost_transactions  commits in it
#   unarchived         segments that are saved only because they are not archived
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

fork_lsn='' fork_tli='' segment_size=16777216 node_tli='' saved_by=''
while IFS= read -r line; do
    case $line in
        fork_lsn=*) fork_lsn=${line#*=} ;;
        fork_tli=*) fork_tli=${line#*=} ;;
        segment_size=*) segment_size=${line#*=} ;;
        node_tli=*) node_tli=${line#*=} ;;
        token=*) saved_by=${line#*=} ;;
    esac
done <"$wal/.uncounted/arguments"
# shellcheck source=src/remote/control.sh
. "${0%/*}/control.sh"
# shellcheck source=src/remote/lost.sh
. "${0%/*}/lost.sh"

emit saved_by "$saved_by"
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
if [ "$fork_lsn" = none ]; then
    emit lost_wal_bytes 0
    emit lost_transactions 0
    finish yes
fi
count_lost
