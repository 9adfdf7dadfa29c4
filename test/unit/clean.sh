#!/bin/sh
# clean.sh: nothing is left but what is kept for people.
set -u
# shellcheck source=test/lib/remote_scripts.sh
. "${0%/*}/../lib/remote_scripts.sh"

for place in beside inside; do
    lay_out $place
    swap
    mkdir "$pgdata.follow_primary/lost_wal-7"
    kept_data=$pgdata.follow_primary/old-7
    [ $place = beside ] || kept_data=$old_data-7
    run clean.sh keep=always waldir="$wal" -- "$space1" "$space2"
    ok "keep always, $place: runs" is "$rc" 0
    want=$(emitted kept "$old_wal-7
$space1${old_wal#"$wal"}-7
$kept_data")
    ok "keep always, $place: names what is kept" printed "$want"
    ok "keep always, $place: the old data is whole" is "$(read_all "$kept_data")" "$old_data_whole"
    # shellcheck disable=SC2012
    ok "keep always, $place: nothing else is left" is "$(ls -d "$pgdata.follow_primary"/* "$pgdata"/.follow_primary* 2>/dev/null | sed 's,.*/,,' | sort | tr '\n' ' ')" \
        "$(printf '%s\n' lost_wal-7 "${kept_data##*/}" | sort | tr '\n' ' ')"

    lay_out $place
    swap
    run clean.sh keep=until_proven waldir="$wal" -- "$space1" "$space2"
    ok "$place: nothing is left" is "$(find "$top/node" -name '*follow_primary*')" ''
    ok "$place: the node is whole" is "$(read_all "$pgdata")" "$copy_whole"
    run clean.sh keep=until_proven waldir="$wal" -- "$space1" "$space2"
    ok "again, $place: success" is "$rc" 0
done


# Nothing of a job is left that could be taken for whole, and the mark goes first.
lay_out beside
swap
mkdir -p "$work/repoint/copies" "$work/config"
touch "$work/repoint/complete" "$work/keep" "$work/whatever comes to be"
run clean.sh keep=mark waldir="$wal" -- "$space1" "$space2"
ok 'mark: the mark is gone' test "$rc" -eq 0 -a ! -e "$mark"
ok 'mark: the old data is not' is "$(read_all "$old_data")" "$old_data_whole"
marked ready
FP_TEST_NO_SYNC=yes
export FP_TEST_NO_SYNC
PATH=$sync_bin:$PATH run clean.sh keep=mark
ok 'a mark whose removal cannot be flushed' fails_with clean_failed
FP_TEST_NO_SYNC=
rm "$work/keep"
run clean.sh keep=until_proven waldir="$wal" -- "$space1" "$space2"
ok 'whatever a job left is gone' is "$rc$(find "$top/node" -name '*follow_primary*')" 0

# What another primary's interrupted job replaced is kept, whatever the setting says.
lay_out beside
swap
run clean.sh keep=keep
ok 'keep: the mark stays' has_phase swapped
run clean.sh keep=until_proven waldir="$wal" -- "$space1" "$space2"
ok 'keep: the old data is kept' is "$(read_all "$pgdata.follow_primary/old-7")" "$old_data_whole"
done_testing
