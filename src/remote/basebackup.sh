#!/bin/sh
# basebackup.sh - makes a verified copy of the primary beside the node's data, or in it where it
# is on a mount point (folders.sh).
#
# arguments:
#   conninfo    how pg_basebackup connects to the primary; without a password
#   passfile    password file; '' = libpq's default
#   slot        '' = none, for something else holds the WAL
#   version     server_version_num of the primary
#   max_rate    kB a second that the data may take; 0 = no limit
#   compression how the primary compresses the data, as behind --compress=server-; '' = not
#   waldir      the node's WAL folder if it is a folder or a mount point of its own; else ''
#   TABLESPACE LOCATION ...  (positional) where the primary has each tablespace, and where the
#               node has it
#
# The copy is a standby from its first moment on, so that nobody can start it as a primary. The
# file "proven", which swap.sh wants, tells that it is complete and verified. The output of
# pg_basebackup goes to stderr at once.
#
# prints:
#   bytes     size of the copy
#   verified  yes | no; no before 13, where there is no manifest
# fails:
#   source_unreachable  no_space  permission  slot_in_use
#   mount_point        the copy could not take the place of what is there
#   swap_unfinished    an earlier swap has to be completed first (swap.sh)
#   tablespace_in_use  something else is in a LOCATION
#   verify_failed      the copy is not what the primary sent
#   copy_failed
set -u
# shellcheck source=src/remote/lib.sh
. "${0%/*}/lib.sh"
# shellcheck source=src/remote/mark.sh
. "${0%/*}/mark.sh"
# shellcheck source=src/remote/messages.sh
. "${0%/*}/messages.sh"
# shellcheck source=src/remote/folders.sh
. "${0%/*}/folders.sh"
# shellcheck source=src/remote/standby.sh
. "${0%/*}/standby.sh"

: "${conninfo?}" "${passfile=}" "${slot=}" "${version?}" "${max_rate=0}" "${compression=}" "${waldir=}"
major=${version%????}
log=$work/basebackup.log

# give_back: gives the room back, and leaves nothing of this job.
give_back() {
    remove_copies
    rm -f "$log"
    rmdir "$work" "$kept" 2>/dev/null
}

# fail REASON TEXT
fail() {
    give_back
    die "$@"
}

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

# mapped TABLESPACE COPY: prints it for pg_basebackup's -T.
mapped() {
    printf '%s=%s' "$(printf '%s' "$1" | sed 's/=/\\=/g')" "$(printf '%s' "$2" | sed 's/=/\\=/g')"
}

# copy TABLESPACE LOCATION...: runs pg_basebackup, and sets new to the copy of PGDATA, and copies
# to those of all folders, a line each.
copy() {
    copies=
    n=$#
    # the arguments become pg_basebackup's
    while [ "$n" -gt 0 ]; do
        # What the node does not use may be anybody's.
        refuse_foreign "$2" give_back
        copy_place "$(real "$2")"
        copies=$copies$new$nl
        set -- "$@" "-T$(mapped "$1" "$new")"
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
    [ "$max_rate" = 0 ] || set -- "$@" --max-rate="$max_rate"
    [ -z "$compression" ] || set -- "$@" --compress=server-"$compression"
    if [ "$flush_apart" = yes ]; then
        set -- "$@" --no-sync
    else
        # It flushes without a word. What it receives is seen on the primary.
        signs_of_life
    fi
    logged "$log" "$bin/pg_basebackup" -D "$new" -d "$conninfo" -w -c fast -X stream -P "$@" </dev/null
}

# verify: verifies the copy, and meanwhile flushes it where pg_basebackup did not.
verify() {
    say "verifying the copy"
    flusher=
    if [ "$flush_apart" = yes ]; then
        signs_of_life
        "$bin/initdb" --sync-only -D "$new" </dev/null >&2 &
        flusher=$!
    fi
    set -- "$bin/pg_verifybackup"
    [ -x "$bin/pg_waldump" ] || set -- "$@" -n
    [ "$version" -lt 160000 ] || set -- "$@" -P
    # by a relative name: it pastes the path between double quotes into a command
    cd "${new%/*}" || fail copy_failed "could not change to ${new%/*}"
    logged "$log" "$@" "${new##*/}" </dev/null || {
        [ -z "$flusher" ] || wait "$flusher"
        fail verify_failed "pg_verifybackup found the copy at fault"
    }
    if [ -n "$flusher" ] && ! wait "$flusher"; then
        fail copy_failed "the copy could not be flushed to disk"
    fi
}

data_umask
use_passfile "$passfile"

refuse_unfinished_swap
make_work
know_locations "$@"
refuse_odd_mounts

# The copies go as far as there is time for it; the next call removes the rest. Nobody reads
# any more what the shell itself has to say.
trap 'fail ended "the copy was ended"' TERM
trap : PIPE
remove_copies
# Flushing the copy and verifying it take as long, so they are done at once.
flush_apart=no
[ "$version" -lt 130000 ] || [ ! -x "$bin/initdb" ] || flush_apart=yes
copy "$@" || {
    rc=$?
    fail "$(reason_of "$log" copy_failed no_space slot_in_use permission source_unreachable)" \
        "pg_basebackup failed with exit code $rc"
}
verified=no
if [ "$version" -ge 130000 ]; then
    verify
    verified=yes
fi

# What jobs kept in the primary's data directory, on a mount point, belongs to the primary.
rm -rf "$new"/.follow_primary_*
make_standby "$new" "$version" || fail copy_failed "could not make the copy a standby"
sync "$new"/*.signal "$new"/recovery.conf "$new" 2>/dev/null

bytes=$(printf '%s\n' "$copies" | while IFS= read -r path; do
    du -sk "$path" | sed 's/[[:space:]].*//'
done | awk '{ kb += $1 } END { printf "%.0f", kb * 1024 }')
put "$work/proven" </dev/null
emit bytes "$bytes"
emit verified "$verified"
exit 0
