#!/bin/sh
# save_config.sh - notes which files in the data directory are the node's own, and copies them, and
# the slots of its own standbys, out of it, before a rewind or a copy puts the primary's there.
#
# arguments:
#   config      the node's postgresql.conf, if it is not the one in pgdata; else ''
#   keep_slots  names of physical slots, separated by spaces
#   own         what the job itself names of the node's files: connection strings, commands and
#               paths, a line each
#
# Which files are the node's own, names.sh tells. Copies keep modes and times. In
# PGDATA.follow_primary/job:
#   config/files     the files that are copied, config/folders those folders that are kept as a
#                    whole, and config/needed: see own.sh
#   config/data/     the copies
#   config/complete  exists when all this is there; tells the job
#   config/restored  exists while PGDATA has these files: until something replaces them, and
#                    again when restore_config.sh has put all back. It is called was_restored
#                    while pg_rewind may replace them
#   slots/           the slots' states, for put_back_slots()
# What an interrupted job saved and did not put back stays as it is while the mark says that
# PGDATA may hold the primary's files. Where there is no data directory there is nothing to
# save.
#
# prints:
#   saved    the number of files that are copied
#   folders  the number of folders
# fails:
#   no_space  permission  save_failed
set -u
# shellcheck source=src/remote/lib.sh
. "${0%/*}/lib.sh"
# shellcheck source=src/remote/mark.sh
. "${0%/*}/mark.sh"

# shellcheck source=src/remote/own.sh
. "${0%/*}/own.sh"
# shellcheck source=src/remote/names.sh
. "${0%/*}/names.sh"

: "${config=}" "${keep_slots=}" "${own=}"
new=$work/config.tmp
try_reason=save_failed

finish() {
    emit saved "$(grep -c '' "$saved/files")"
    emit folders "$(grep -c '' "$saved/folders")"
    exit 0
}

# put_list NAME TEXT
put_list() {
    printf '%s' "$2" >"$new/$1" || die save_failed "could not write $new/$1"
}

# copy_files: copies the listed files to $new/data.
copy_files() {
    while IFS= read -r file; do
        case $file in
            */*) try mkdir -p "$new/data/${file%/*}" ;;
        esac
        try cp -pP -- "$pgdata/$file" "$new/data/$file"
    done <"$new/files"
}

# copy_slots: copies the states of the slots that are to be kept to $work/slots.
copy_slots() {
    try rm -rf "$work/slots"
    try mkdir "$work/slots"
    for slot in $keep_slots; do
        case $slot in
            *[!a-z0-9_]*) continue ;;
        esac
        if [ -f "$pgdata/pg_replslot/$slot/state" ]; then
            try mkdir "$work/slots/$slot"
            try chmod --reference="$pgdata/pg_replslot/$slot" "$work/slots/$slot"
            try cp -p "$pgdata/pg_replslot/$slot/state" "$work/slots/$slot/state"
            try sync "$work/slots/$slot/state"
        fi
    done
}

umask 077

read_mark
case $mark_phase in
    '' | stopped) ;;
    *) [ ! -e "$saved/complete" ] || [ -e "$saved/restored" ] || finish ;;
esac
make_work
# the data is the node's, and an attempt that was interrupted may have moved folders away
own_back
try rm -rf "$new"
try mkdir "$new" "$new/data"
find_own "$config" "$own"
put_list files "$files"
put_list folders "$folders"
put_list needed "$needed"
copy_files
copy_slots
# PGDATA has these very files, until rewind.sh, clear.sh or swap.sh takes this away
try touch "$new/restored"
printf '%s\n' "$job" >"$new/complete" || die save_failed "could not write $new/complete"
# what follows changes PGDATA
try find "$new" -type f -exec sync '{}' +
find "$new" -type d -exec sync '{}' + 2>/dev/null

# the file that tells that the former one is whole goes before it
try rm -f "$saved/complete"
try rm -rf "$saved"
try mv "$new" "$saved"
sync "$work" 2>/dev/null
finish
