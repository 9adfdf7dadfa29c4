#!/bin/sh
# rewind.sh: what pg_rewind has changed, and what it has not, is never mistaken.
set -u
# shellcheck source=test/lib/remote_scripts.sh
. "${0%/*}/../lib/remote_scripts.sh"

# rewind FORK_LSN [LOST_TLI]
rewind() {
    run rewind.sh conninfo=host=x version=150010 fork_lsn="$1" lost_tli="${2:-}"
}

# A full disk has no room for the log of pg_rewind, and then not for its data.
in_node "$top/rewind $nasty"
mkdir -p "$pgdata/base" "$pgdata/pg_wal"
program pg_rewind <<'END'
#!/bin/sh
sleep 0.1
[ -z "$FP_TEST_CHANGES" ] || echo half >"$FP_TEST_CHANGES"
exit 1
END
mkdir "$top/full"
printf '%s\n' '#!/bin/sh' 'exec cat' >"$top/full/tee"
chmod +x "$top/full/tee"
export FP_TEST_CHANGES
for FP_TEST_CHANGES in '' "$pgdata/pg_wal/from the archive" "$pgdata/base/1"; do
    marked stopped
    PATH=$top/full:$PATH rewind 0/3000000
    ok "fails, without a log, when ${FP_TEST_CHANGES#"$pgdata/"} changed" fails_with rewind_failed
    case $FP_TEST_CHANGES in
        */base/*)
            ok 'that is half-changed data' has_phase rewinding
            ok 'and is not to be started' forbidden
            ;;
        *)
            ok 'that is the data as it was' has_phase stopped
            ok 'and can be started' permitted
            ;;
    esac
done

# Nothing is to be rewound, and then there is no room to take lost WAL out.
program pg_rewind <<'END'
#!/bin/sh
echo 'pg_rewind: no rewind required'
END
# What PGDATA has is the node's own configuration afterwards if it was before.
for before in restored nothing; do
    rm -rf "$work"
    mkdir -p "$work/config"
    touch "$work/config/complete" "$work/config/$before"
    marked ready
    rewind 0/3000000
    # shellcheck disable=SC2012 # our own names
    ok "not required, $before" is "$rc$(ls "$work/config" | sort | tr '\n' ' ')" \
        "0$(printf '%s\n' complete $before | sort | tr '\n' ' ')"
done
program pg_rewind <<'END'
#!/bin/sh
echo 'pg_rewind: Done!'
END
touch "$work/config/restored"
rewind 0/3000000
# shellcheck disable=SC2012 # as above
ok 'done, and the configuration is to be put back' is "$rc$(ls "$work/config" | tr '\n' ' ')" '0complete nothing '
ok 'and it cannot be started before' forbidden
program pg_rewind <<'END'
#!/bin/sh
echo 'pg_rewind: no rewind required'
END
rm -rf "$work"
mkdir -p "$work/segment.tmp"
marked stopped
echo whole >"$pgdata/pg_wal/000000010000000000000003"
rewind 0/3000010 1
ok 'fails when lost WAL cannot be taken out' fails_with no_space
ok 'that is the data as it was, too' has_phase stopped
ok 'and can be started, too' permitted
rm "$mark"
chmod 704 "$pgdata"
rewind 0/3000000
ok 'not what a failed one left, though its mark is gone' fails_with needs_copy
ok 'nor is it to be started then' forbidden
chmod o-r "$pgdata"
ok 'with its WAL' is "$(cat "$pgdata/pg_wal/000000010000000000000003")" whole


# The mark is the only thing that keeps half-changed data from being taken for whole: without it
# nothing is changed.
program pg_rewind <<'END'
#!/bin/sh
echo half >"$FP_TEST_CHANGES"
exit 1
END
FP_TEST_CHANGES=$pgdata/base/1
rm -rf "$work" "$FP_TEST_CHANGES"

# A file system may have no modes, and chmod say nothing.
mkdir "$top/no_modes"
printf '#!/bin/sh\nexit 0\n' >"$top/no_modes/chmod"
chmod +x "$top/no_modes/chmod"
all_programs=$PATH
PATH=$top/no_modes:$PATH
rewind 0/3000000
PATH=$all_programs
ok 'not where a start cannot be prevented' fails_with permission
ok 'and nothing was changed then, either' test ! -e "$FP_TEST_CHANGES"
mkdir -p "$work/config" "$pgdata/log"
echo log >"$work/config/folders"
mkdir -p "$work/config/data"
PATH=$top/no_modes:$PATH
rewind 0/3000000
PATH=$all_programs
ok "nor are the node's own folders moved then" fails_with permission
ok 'they are where they were' test -d "$pgdata/log"
rm -rf "$work"
FP_TEST_NO_SYNC=yes
export FP_TEST_NO_SYNC
PATH=$sync_bin:$PATH
rewind 0/3000000
ok 'not where the mark cannot be flushed' fails_with no_space
ok 'and nothing was changed then' test ! -e "$FP_TEST_CHANGES"
done_testing
