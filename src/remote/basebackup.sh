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
# copies.sh has the rest of it. The output of pg_basebackup goes to stderr at once.
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
# shellcheck source=src/remote/copies.sh
. "${0%/*}/copies.sh"

: "${conninfo?}" "${passfile=}" "${slot=}" "${version?}" "${max_rate=0}" "${compression=}" "${waldir=}"
log=$work/basebackup.log

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
        location_place "$2"
        set -- "$@" "-T$(mapped "$1" "$new")"
        shift 2
        n=$((n - 2))
    done
    data_places
    [ -z "$new_wal" ] || set -- "$@" --waldir="$new_wal"
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
        # pg_basebackup says nothing while it flushes. What it receives is seen on the primary.
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

begin_copy "$@"
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
finish_copy
emit verified "$verified"
exit 0
