#!/bin/sh
# space.sh: room is told of each folder.
set -u
# shellcheck source=test/lib/remote_scripts.sh
. "${0%/*}/../lib/remote_scripts.sh"

lay_out beside
run space.sh version=150010 -- "$wal"
ok 'of each folder that is named' is "$(sed 's/=.*//' "$top/out" | tr '\n' ' ')" 'free_0 unfinished_0 device_0 free_2 unfinished_2 device_2 '
ok 'a number of bytes' grep -Eqx 'free_0=[0-9]+' "$top/out"
run space.sh version=150010 used=yes waldir="$wal" -- "$space1"
ok 'and of what is there' grep -Eqx 'used_2=[1-9][0-9]+' "$top/out"
done_testing
