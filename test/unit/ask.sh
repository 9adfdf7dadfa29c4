#!/bin/sh
# ask.sh: an answer of hundreds of rows, as a cluster of twenty has it, is passed on whole, in no
# time. The shell can cut a string in ways that take a minute for that.
set -u
# shellcheck source=test/lib/remote_scripts.sh
. "${0%/*}/../lib/remote_scripts.sh"

pgdata=$top/data bin=$top/bin
mkdir -p "$pgdata" "$bin"
printf '1\n%s\n0\n5432\n%s\n\n\nready\n' "$pgdata" "$top" >"$pgdata/postmaster.pid"
cat >"$bin/psql" <<'PSQL'
#!/bin/sh
cat >/dev/null
echo 'WARNING:  a warning, of any words' >&2
seq 1 1000 | sed 's/.*/row=db2:5432 db3:5432 item_& ok some words about it that are as long as most/'
PSQL
chmod +x "$bin/psql"

begin=$(date +%s)
ok 'it is asked' run ask.sh function='f()'
took=$(($(date +%s) - begin))
ok 'all rows are passed on' is "$(grep -c '^row=' "$top/out")" 1000
ok 'the first' printed 'row=db2:5432 db3:5432 item_1 ok some words about it that are as long as most'
ok 'the last' printed 'row=db2:5432 db3:5432 item_1000 ok some words about it that are as long as most'
ok 'and nothing else' is "$(grep -vc '^row=' "$top/out")" 0
ok "soon: $took s" [ "$took" -le 2 ]
done_testing
