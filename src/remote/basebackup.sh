#!/bin/sh
# basebackup.sh - makes a verified copy of the primary beside the node's data, or
# in it where it is on a mount point (see folders.sh).
#
# usage: basebackup.sh PGDATA BIN_DIR CONNINFO PASSFILE SLOT JOB
#                      SERVER_VERSION_NUM WALDIR [TABLESPACE LOCATION]...
#   CONNINFO    without a password
#   SLOT        '' = none, for the WAL is held otherwise
#   WALDIR      the node's WAL folder if it is a folder or a mount point of its
#               own, else ''
#   TABLESPACE  where the primary has it, LOCATION where the node does
#
# The copy is a standby from its first moment: nobody can start it as a primary.
# PGDATA.follow_primary/proven says when it is complete and verified; swap.sh
# wants it. The output of pg_basebackup is passed on live.
#
# prints: bytes=      size of the copy
#         verified=yes|no   no: before 13 there is no manifest
# fails:  source_unreachable  no_space  permission  slot_in_use
#         mount_point      it could not take the place of what is there
#         swap_unfinished  an earlier swap has to be completed first (swap.sh)
#         tablespace_in_use  something else is in a LOCATION
#         verify_failed    the copy is not what the primary sent
#         copy_failed
set -u
# shellcheck source=src/remote/lib.sh
. "${0%/*}/lib.sh"
# shellcheck source=src/remote/folders.sh
. "${0%/*}/folders.sh"
# shellcheck source=src/remote/recovery.sh
. "${0%/*}/recovery.sh"

pgdata=$1
bin=$2
conninfo=$3
passfile=$4
slot=$5
job=$6
version=$7
waldir=$8
shift 8
work=$pgdata.follow_primary
major=${version%????}

data_umask
LC_ALL=C
export LC_ALL
if [ -n "$passfile" ]; then
    PGPASSFILE=$passfile
    export PGPASSFILE
fi

# Gives the room back, and leaves nothing of this job.
give_back() {
    remove_copies
    rm -f "$work/basebackup.log"
    rmdir "$work" 2>/dev/null
}

# fail REASON TEXT
fail() {
    give_back
    die "$@"
}

reason() {
    if grep -Eq 'No space left on device|[Qq]uota exceeded' "$1"; then
        echo no_space
    elif grep -Eq 'replication slot ".*" is active' "$1"; then
        echo slot_in_use
    elif grep -Eq 'ould not (open|write|create|access|rename|fsync|set permissions).*: (Permission denied|Operation not permitted|Read-only file system)' "$1"; then
        echo permission
    elif grep -Eq 'could not connect|connection to server|could not translate host|authentication failed|no pg_hba.conf entry|fe_sendauth|no password supplied|permission denied|must be superuser|server closed the connection|SSL (error|connection)|terminating connection|too many clients|requested standby connections|the database system is|(database|role) ".*" does not exist|could not receive|could not read COPY' "$1"; then
        echo source_unreachable
    else
        echo copy_failed
    fi
}

refuse_unfinished_swap
make_work

# know_locations TABLESPACE LOCATION...
know_locations() {
    n=$#
    while [ "$n" -gt 0 ]; do
        set -- "$@" "$2"
        shift 2
        n=$((n - 2))
    done
    know_folders "$@"
}
know_locations "$@"
refuse_odd_mounts

# As far as there is time for it: the next copy removes the rest. Nobody reads
# what the shell itself has to say then.
trap 'fail ended "the copy was ended"' TERM
trap : PIPE
remove_copies

# From here on the arguments are pg_basebackup's.
copies=
n=$#
while [ "$n" -gt 0 ]; do
    # What the node does not use may be anybody's.
    refuse_foreign "$2" give_back
    copy_place "$(real "$2")"
    copies=$copies$new$nl
    set -- "$@" "-T$(printf '%s=%s' "$(printf '%s' "$1" | sed 's/=/\\=/g')" "$(printf '%s' "$new" | sed 's/=/\\=/g')")"
    shift 2
    n=$((n - 2))
done
if [ -n "$waldir" ]; then
    copy_place "$waldir"
    copies=$copies$new$nl
    set -- "$@" --waldir="$new"
fi
copy_place "$pgdata"
copies=$copies$new
if [ -n "$slot" ]; then
    set -- "$@" -S "$slot"
else
    set -- "$@" --no-slot
fi
# Flushing the copy and verifying it take as long, and go together.
flush_apart=no
if [ "$version" -ge 130000 ] && [ -x "$bin/initdb" ]; then
    flush_apart=yes
    set -- "$@" --no-sync
fi
# it flushes without a word; what it receives is seen on the primary
[ "$flush_apart" = yes ] || signs_of_life
logged "$work/basebackup.log" "$bin/pg_basebackup" -D "$new" -d "$conninfo" -w \
    -c fast -X stream -P "$@" </dev/null
rc=$?
if [ "$rc" -ne 0 ]; then
    fail "$(reason "$work/basebackup.log")" "pg_basebackup failed with exit code $rc"
fi

verified=no
if [ "$version" -ge 130000 ]; then
    say "verifying the copy"
    [ "$flush_apart" = no ] || signs_of_life
    flusher=
    if [ "$flush_apart" = yes ]; then
        "$bin/initdb" --sync-only -D "$new" </dev/null >&2 &
        flusher=$!
    fi
    set -- "$bin/pg_verifybackup"
    if [ ! -x "$bin/pg_waldump" ]; then
        set -- "$@" -n
    fi
    if [ "$version" -ge 160000 ]; then
        set -- "$@" -P
    fi
    # by a relative name: it pastes the path between double quotes into a command
    cd "${new%/*}" || fail copy_failed "could not change to ${new%/*}"
    logged "$work/basebackup.log" "$@" "${new##*/}" </dev/null || {
        [ -z "$flusher" ] || wait "$flusher"
        fail verify_failed "pg_verifybackup found the copy at fault"
    }
    verified=yes
    if [ -n "$flusher" ] && ! wait "$flusher"; then
        fail copy_failed "the copy could not be flushed to disk"
    fi
fi

# What jobs kept in the primary's data directory, on a mount point, is its own.
rm -rf "$new"/.follow_primary_*

# Without it a copy would come up as a second primary.
make_standby "$new" "$version" || fail copy_failed "could not make the copy a standby"
sync "$new"/*.signal "$new"/recovery.conf "$new" 2>/dev/null

bytes=$(printf '%s\n' "$copies" | while IFS= read -r path; do
    du -sk "$path" | sed 's/[[:space:]].*//'
done | awk '{ kb += $1 } END { printf "%.0f", kb * 1024 }')

printf 'job=%s\n' "$job" | put "$work/proven" || exit 1
emit bytes "$bytes"
emit verified "$verified"
exit 0
