#!/bin/sh
# survey.sh: what a mark says, and whether it is still so.
set -u
# shellcheck source=test/lib/remote_scripts.sh
. "${0%/*}/../lib/remote_scripts.sh"

# What a mark says need not be so any more.
lay_out beside
mkdir "$pgdata/global"
for phase in clearing rewinding stopped ready; do
    marked "$phase"
    touch -d 2020-01-01 "$mark"
    : >"$pgdata/postmaster.opts"
    run survey.sh port=1
    case $phase in
        clearing) ok 'survey: marked clearing, and there is data' printed mark_stale=yes ;;
        rewinding | stopped) ok "survey: marked $phase, and started since" printed mark_stale=yes ;;
        ready) ok 'survey: marked ready, and started since' is "$(grep '^mark' "$top/out" | tr '\n' ' ')" 'mark_phase=ready mark_token=b7e0 mark_stale=no ' ;;
    esac
done
marked swapping
for written in 2020-01-01 2100-01-01; do
    : >"$pgdata/global/pg_control"
    touch -d "$written" "$pgdata/global/pg_control"
    run survey.sh port=1
    ok "marked swapping, nothing moved, last written in $written" \
        is "$(grep '^mark_stale' "$top/out")" "mark_stale=$([ "$written" = 2020-01-01 ] && echo no || echo yes)"
done
mv "$work/new" "$work/new.gone"
run survey.sh port=1
ok 'marked swapping, all moved, and started' printed mark_stale=no
marked ready
rm "$pgdata/PG_VERSION"
run survey.sh port=1
ok 'marked ready, and there is no data' fails_with data_gone

rm "$mark"
run survey.sh port=1
ok 'no mark' is "$(grep '^mark' "$top/out")" ''
ok 'but what a job has left' printed leftovers=yes
rm -r "$work"
mkdir "$pgdata.follow_primary/lost_wal-7" "$pgdata.follow_primary/old-7"
run survey.sh port=1
ok 'what is kept for people is not left over' printed leftovers=no
done_testing
