# remote_scripts.sh - what the tests of src/remote in test/unit share: they need no server.
#
# They prove that a script does its editing and renaming exactly, again when it is run again, and
# to the end when it was killed at any step before. A test prints TAP. It runs as any user, in a
# folder of its own that it removes.
# shellcheck shell=sh disable=SC2034

scripts=$(cd "${0%/*}/../../src/remote" && pwd) || exit 1
top=$(mktemp -d) || exit 1
trap 'rm -rf "$top"' EXIT
trap 'exit 1' HUP INT TERM

count=0
failures=0

# ok NAME COMMAND...: one check, true if the command is.
ok() {
    check=$1
    shift
    count=$((count + 1))
    if "$@"; then
        echo "ok $count - $check"
    else
        echo "not ok $count - $check"
        sed 's/^/# /' "$top/out" "$top/err" 2>/dev/null
        failures=$((failures + 1))
    fi
}

# done_testing: ends here.
done_testing() {
    echo "1..$count"
    [ "$failures" -eq 0 ]
    exit
}

# run SCRIPT [NAME=VALUE...] [-- ARGUMENT...]: runs it with these arguments, and with pgdata, bin
# and job; stdout to out, stderr to err, exit code to rc.
run() {
    script=$scripts/$1
    shift
    for argument; do
        shift
        if [ "$argument" = -- ]; then
            set -- "$@" sh "$script"
            script=
        else
            set -- "$@" "$argument"
        fi
    done
    [ -z "$script" ] || set -- "$@" sh "$script"
    env pgdata="$pgdata" bin="$bin" job=7 token=b7e0 "$@" >"$top/out" 2>"$top/err" </dev/null
    rc=$?
    return "$rc"
}

printed() {
    grep -Fqx -e "$1" "$top/out"
}

# emitted KEY VALUE: the line that a script prints for it.
emitted() {
    # shellcheck disable=SC2016 # the other shell's
    sh -c '. "$1" && emit "$2" "$3"' sh "$scripts/lib.sh" "$1" "$2"
}

fails_with() {
    [ "$rc" -ne 0 ] && printed "failed=$1"
}

is() {
    [ "$1" = "$2" ] || {
        printf '# got:  %s\n# want: %s\n' "$1" "$2"
        false
    }
}

mode() {
    # shellcheck disable=SC2012 # the mode only
    ls -ld "$1" | cut -c 1-10
}

# Names that break what quotes carelessly.
# shellcheck disable=SC2016 # as they are
nasty='it'\''s a "data" $dir `x` \n *;[1]'

# in_node NAME: sets pgdata, work and mark for a data directory of that name.
in_node() {
    pgdata=$1
    work=$pgdata.follow_primary/job
    mark=$work/mark
}

# marked PHASE [JOB]: leaves a mark.
marked() {
    mkdir -p "$work"
    printf 'job=%s\ntoken=%s\nphase=%s\n' "${2:-7}" b7e0 "$1" >"$mark"
}

# has_phase PHASE
has_phase() {
    grep -qx "phase=$1" "$mark"
}

# Does a server accept the mode of PGDATA?
permitted() {
    [ -z "$(find "$pgdata" -prune -perm -004)" ]
}

forbidden() {
    ! permitted
}

# A folder of programs that stand in for PostgreSQL's.
bin=$top/bin
mkdir "$bin"
program() {
    cat >"$bin/$1"
    chmod +x "$bin/$1"
}
program pg_controldata <<'END'
#!/bin/sh
echo "Database cluster state:               ${FP_TEST_STATE:-shut down}"
END
program pg_ctl <<'END'
#!/bin/sh
case "$*" in *status*) exit 3 ;; esac
echo "pg_ctl $*" >&2
exit 1
END
# Takes the value of -C's name from a file of that name.
program postgres <<'END'
#!/bin/sh
for name; do :; done
cat "$FP_TEST_VALUES/$name" 2>/dev/null
exit 0
END

# A stand-in for sync that tells what it is to flush, or fails.
sync_bin=$top/sync
mkdir "$sync_bin"
cat >"$sync_bin/sync" <<'END'
#!/bin/sh
[ -z "${FP_TEST_NO_SYNC:-}" ] || exit 1
for file; do
    if [ -d "$file" ]; then echo "folder ${file##*/}"; else echo "${file##*/} $(paste -sd " " "$file")"; fi
done >>"$FP_TEST_SYNCED"
END
chmod +x "$sync_bin/sync"
FP_TEST_SYNCED=$top/synced
export FP_TEST_SYNCED
# flushing SCRIPT ARGUMENT...: run, and synced has what it flushed.
flushing() {
    : >"$FP_TEST_SYNCED"
    PATH=$sync_bin:$PATH run "$@"
}
flushed() {
    grep -Fqx -e "$1" "$FP_TEST_SYNCED"
}

# Stand-ins for programs that let the script die before its Nth call of them, or after it.
kill_bin=$top/kill
mkdir "$kill_bin"
for tool in mv rm rmdir ln; do
    cat >"$kill_bin/$tool" <<'END'
#!/bin/sh
# mv -n -t FOLDER -- FILE...: file by file
if [ "$1$2" = -n-t ] && [ $# -gt 5 ]; then
    to=$3
    shift 4
    for file; do
        "$0" -n -t "$to" -- "$file" || exit 1
    done
    exit 0
fi
read -r calls <"$FP_TEST_CALLS"
calls=$((calls + 1))
echo "$calls" >"$FP_TEST_CALLS"
if [ "$calls" -eq "$FP_TEST_DIE_AT" ]; then
    [ "$FP_TEST_AFTER" = no ] || PATH=$FP_TEST_PATH "${0##*/}" "$@"
    parent=$PPID
    if ! grep -q "$FP_TEST_SCRIPT" "/proc/$parent/cmdline"; then
        parent=$(sed 's/.*) . //; s/ .*//' "/proc/$parent/stat")
    fi
    kill -9 "$parent"
    exit 1
fi
PATH=$FP_TEST_PATH exec "${0##*/}" "$@"
END
    chmod +x "$kill_bin/$tool"
done
# Not in the order that this file system happens to have: PG_VERSION is the last.
cat >"$kill_bin/find" <<'END'
#!/bin/sh
PATH=$FP_TEST_PATH
find "$@" | sort -r
END
chmod +x "$kill_bin/find"
FP_TEST_CALLS=$top/calls
FP_TEST_PATH=$PATH
FP_TEST_AFTER=no
export FP_TEST_CALLS FP_TEST_PATH FP_TEST_DIE_AT FP_TEST_AFTER FP_TEST_SCRIPT

# killed_at N SCRIPT ARGUMENT...: run, and the script dies at its Nth call.
killed_at() {
    FP_TEST_DIE_AT=$1
    FP_TEST_SCRIPT=$2
    shift
    echo 0 >"$FP_TEST_CALLS"
    PATH=$kill_bin:$PATH
    run "$@"
    PATH=$FP_TEST_PATH
    return "$rc"
}

# lay_out beside|inside: makes a node with its WAL and two tablespaces elsewhere, and a copy of
# each, beside it or inside, where something of others is as well. The second tablespace is one
# that the node did not have.
lay_out() {
    where=$1
    rm -rf "$top/node"
    in_node "$top/node/data $nasty"
    wal="$top/node/wal $nasty"
    space1="$top/node/space1 $nasty"
    space2="$top/node/space2"
    if [ "$where" = inside ]; then
        suffix=/.follow_primary_new
        copy=$pgdata$suffix
        old_data=$pgdata/.follow_primary_old
        old_wal=$wal/.follow_primary_old
    else
        suffix=.follow_primary_new
        copy=$work/new
        old_data=$work/old
        old_wal=$wal.follow_primary_old
    fi
    if [ -d "$top/$where" ]; then
        cp -a "$top/$where" "$top/node"
        return
    fi
    mkdir -p "$work" "$pgdata"
    fill old "$pgdata" ''
    fill new "$copy" "$suffix"
    echo only >"$pgdata/only of old"
    rm "$pgdata/pg_tblspc/2"
    if [ "$where" = inside ]; then
        rm -r "$space2/PG_15_1"
        mkdir "$pgdata/lost+found"
        for one in "$wal" "$space1" "$space2"; do
            echo theirs >"$one/others"
        done
    else
        rm -r "$space2"
    fi
    : >"$work/proven"
    cp -a "$top/node" "$top/$where"
}

# fill WHAT DATA SUFFIX: makes folders that hold WHAT.
fill() {
    mkdir -p "$2/pg_tblspc" "$2/base" "$wal$3" "$space1$3/PG_15_1" "$space2$3/PG_15_1"
    echo 15 >"$2/PG_VERSION"
    echo "$1" >"$2/what"
    echo "$1" >"$2/base/what"
    for one in a m z; do
        echo "$1" >"$2/$one"
    done
    echo "$1" >"$wal$3/00000002.history"
    echo "$1" >"$wal$3/000000010000000000000001"
    echo "$1" >"$space1$3/PG_15_1/what"
    echo "$1" >"$space2$3/PG_15_1/what"
    ln -s "$wal$3" "$2/pg_wal"
    ln -s "$space1$3" "$2/pg_tblspc/1"
    ln -s "$space2$3" "$2/pg_tblspc/2"
}

# read_all DATA: what its folders hold.
read_all() {
    cat "$1/what" "$1/base/what" "$1/a" "$1/m" "$1/z" "$1/pg_wal/00000002.history" "$1/pg_wal/000000010000000000000001" \
        "$1"/pg_tblspc/*/PG_15_1/what 2>&1 | tr '\n' ' '
}
old_data_whole='old old old old old old old old '
copy_whole='new new new new new new new new new '

swap() {
    run swap.sh waldir="$wal" -- "$space1" "$space2"
}

# swap_killed_at N
swap_killed_at() {
    killed_at "$1" swap.sh waldir="$wal" -- "$space1" "$space2"
}

# swapped: is all as it is wanted in the end?
swapped() {
    is "$(read_all "$pgdata")" "$copy_whole" &&
        is "$(readlink "$pgdata/pg_wal")" "$wal" &&
        is "$(readlink "$pgdata/pg_tblspc/1")" "$space1" &&
        test ! -e "$pgdata/only of old" &&
        is "$(read_all "$old_data")" "$old_data_whole" &&
        test -e "$old_data/only of old" && test -e "$old_data/PG_VERSION" &&
        is "$(readlink "$old_data/pg_wal")" "$old_wal" &&
        is "$(find "$top/node" -name '*new*' -o -name '*swap*' -o -name '*tmp*' | wc -l | tr -d ' ')" 0 &&
        is "$(cat "$mark")" "job=7
token=b7e0
phase=swapped
method=basebackup" && forbidden || return 1
    if [ "$where" = inside ]; then
        is "$(cat "$wal/others" "$space1/others" "$space2/others" | tr '\n' ' ')" 'theirs theirs theirs ' &&
            test -d "$pgdata/lost+found"
    fi
}
