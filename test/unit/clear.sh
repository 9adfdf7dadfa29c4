#!/bin/sh
# clear.sh: the old data makes room only where all of it is known and can go.
set -u
# shellcheck source=test/lib/remote_scripts.sh
. "${0%/*}/../lib/remote_scripts.sh"

for place in beside inside; do
    lay_out $place
    rm -f "$work/proven"
    run clear.sh version=150010 waldir="$wal" -- "$space1"
    ok "$place: not without a saved configuration" fails_with not_saved
    ok "$place: nothing was changed" is "$(read_all "$pgdata")" "$old_data_whole"
    mkdir "$work/config"
    echo 7 >"$work/config/complete"
    mkdir "$top/node/another's"
    mkdir "$top/node/another's/PG_15_1"
    run clear.sh version=150010 waldir="$wal" -- "$space1" "$top/node/another's"
    ok "$place: not where a tablespace of the primary's is another server's" fails_with tablespace_in_use
    ok "$place: nothing was changed then" is "$(read_all "$pgdata")$(ls "$top/node/another's")" "${old_data_whole}PG_15_1"
    run clear.sh version=150010 waldir="$wal" -- "$space1"
    ok "$place: runs" is "$rc" 0
    ok "$place: the data is gone" is "$(find "$pgdata" "$wal" "$space1" ! -name lost+found ! -name others -mindepth 1)" ''
    ok "$place: marked" has_phase clearing
    ok "$place: the WAL's and the tablespace's places are kept" is "$(grep -c '^waldir=\|^tablespace.1=' "$work/layout")" 2
    run clear.sh version=150010 waldir="$wal" -- "$space1"
    ok "again, $place: success" is "$rc" 0
    ok "again, $place: the places are still known" grep -q '^waldir=' "$work/layout"
done


# What is not the SSH user's to remove; root may all.
lay_out inside
mkdir -p "$pgdata/backup/of root"
chmod 500 "$pgdata/backup"
if [ "$(id -u)" -ne 0 ]; then
    mkdir "$work/config"
    echo 7 >"$work/config/complete"
    run clear.sh version=150010 waldir="$wal" -- "$space1"
    ok 'not where something cannot be removed' fails_with permission
    ok 'and nothing was changed' is "$(read_all "$pgdata")$(cd "$work" && echo ./*)" "${old_data_whole}./config ./layout ./proven"
fi
chmod 700 "$pgdata/backup"
done_testing
