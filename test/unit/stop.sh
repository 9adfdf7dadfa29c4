#!/bin/sh
# stop.sh: which process is the server, and how its end is awaited.
set -u
# shellcheck source=test/lib/remote_scripts.sh
. "${0%/*}/../lib/remote_scripts.sh"

in_node "$top/stop $nasty"
mkdir "$pgdata"
run stop.sh timeout=2
ok 'no postmaster.pid is success' is "$rc$(cat "$top/out")" "0was_running=no
control_time="
echo 999999999 >"$pgdata/postmaster.pid"
run stop.sh timeout=2
ok 'a process that is gone is success' is "$rc" 0
echo $$ >"$pgdata/postmaster.pid"
run stop.sh timeout=2
ok "another program's process is success" is "$rc" 0
ok 'and was not running' printed was_running=no
: >"$pgdata/postmaster.pid"
run stop.sh timeout=2
ok 'an empty postmaster.pid is success' is "$rc" 0

# what looks like a server: a process that works in PGDATA
(cd "$pgdata" && exec sleep 30) &
server=$!
sleep 0.2
echo "$server" >"$pgdata/postmaster.pid"
run stop.sh timeout=1 command='exit 3'
ok 'a command that fails' fails_with stop_failed
run stop.sh timeout=1 command=true
ok 'a command that does nothing' fails_with timeout
rm "$mark"
flushing stop.sh timeout=1 command=true
ok 'the mark is flushed' flushed 'mark.tmp job=7 token=b7e0 phase=stopped'
run stop.sh timeout=10 command="(sleep 0.5; kill $server) &"
wait "$server" 2>/dev/null
ok 'a command that returns early is waited for' is "$rc" 0
ok 'and it was running' printed was_running=yes
ok 'what it stopped is marked' is "$(grep -v '^$' "$mark" | tr '\n' ' ')" 'job=7 token=b7e0 phase=stopped '
done_testing
