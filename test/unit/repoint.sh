#!/bin/sh
# repoint.sh: what it keeps is what worked, and comes back.
set -u
# shellcheck source=test/lib/remote_scripts.sh
. "${0%/*}/../lib/remote_scripts.sh"

in_node "$top/repoint $nasty"
mkdir "$pgdata"
echo mine >"$pgdata/postgresql.conf"
echo corrected >"$pgdata/postgresql.auto.conf"
flushing repoint.sh action=save recovery_file="$pgdata/recovery file"
ok 'what is kept is flushed' flushed 'postgresql.auto.conf corrected'
ok 'and where it belongs' grep -q '^3\.path ' "$FP_TEST_SYNCED"
echo other >"$pgdata/postgresql.auto.conf"
flushing repoint.sh action=restore
ok 'what is put back is flushed' flushed 'postgresql.auto.conf.fp_tmp corrected'
ok 'and is there' is "$(cat "$pgdata/postgresql.auto.conf")" 'corrected'
for change in no yes; do
    echo before >"$pgdata/postgresql.auto.conf"
    run repoint.sh action=save recovery_file="$pgdata/recovery file"
    echo interrupted >"$pgdata/postgresql.auto.conf"
    run repoint.sh action=reload command=true
    [ $change = no ] || echo 'mine since' >"$pgdata/postgresql.auto.conf"
    run repoint.sh action=save recovery_file="$pgdata/recovery file"
    run repoint.sh action=undo command=true
    want=before
    [ $change = no ] || want='mine since'
    ok "after an interrupted one, changed by somebody since: $change" is "$(cat "$pgdata/postgresql.auto.conf")" "$want"
done
# The end of one that was itself interrupted: what it had still to remove is not
# taken for what was kept.
run repoint.sh action=save recovery_file="$pgdata/recovery file"
kept=$work/repoint
mkdir "$top/interrupted"
cat >"$top/interrupted/rm" <<'END'
#!/bin/sh
[ "$1" = -rf ] || exec /bin/rm "$@"
/bin/rm -f "$2" "$3/copies/postgresql.auto.conf"
kill -9 "$PPID"
END
chmod +x "$top/interrupted/rm"
PATH=$top/interrupted:$PATH run repoint.sh action=undo command=true
ok 'an undo is interrupted' test -e "$kept/3.path" -a ! -e "$kept/copies/postgresql.auto.conf"
run repoint.sh action=undo command=true
ok 'no file is removed for that' is "$(cat "$pgdata/postgresql.auto.conf")" 'mine since'
run repoint.sh action=save recovery_file="$pgdata/recovery file"
ok 'and the next keeps its own' is "$(cat "$kept/copies/postgresql.auto.conf")" 'mine since'
rm -r "$kept"
done_testing
