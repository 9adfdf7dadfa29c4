#!/bin/sh
# start.sh: half-changed data is not started, and what the start says is shown.
set -u
# shellcheck source=test/lib/remote_scripts.sh
. "${0%/*}/../lib/remote_scripts.sh"

in_node "$top/start $nasty"
mkdir "$pgdata"
for phase in recovering rewinding rewound clearing swapping swapped 'of a later version'; do
    marked "$phase" 1
    run start.sh timeout=2
    ok "refused in phase $phase" fails_with marked
done
: >"$mark"
run start.sh timeout=2
ok 'refused with a mark that is empty' fails_with marked
marked ready 1
run start.sh timeout=2 command='echo cause; exit 1'
ok 'not refused in phase ready' fails_with start_failed
ok 'what the command said is shown' grep -qx cause "$top/err"
ok "the log is the owner's only" is "$(mode "$pgdata.follow_primary.log")" -rw-------
done_testing
