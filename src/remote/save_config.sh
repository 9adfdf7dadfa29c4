#!/bin/sh
# save_config.sh - copies the node's own configuration, and the slots of its own standbys, out of
# its data directory, before a rewind or a copy puts the primary's there.
#
# arguments:
#   config      the node's postgresql.conf, if it is not the one in pgdata; else ''
#   keep_slots  names of physical slots, separated by spaces
#
# It saves, with modes and times: every *.conf, *.crt, *.key, *.pem and *.crl at the top of
# PGDATA, postmaster.opts, and what these files, or config, include or name (include*, ssl_*,
# hba_file, ident_file), if it is inside PGDATA. In PGDATA.follow_primary/job:
#   config/files     the manifest: paths relative to PGDATA, a line each
#   config/dirs      the folders that include_dir names
#   config/data/     the files
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
#   saved  the number of files in the manifest
# fails:
#   no_space  permission  save_failed
set -u
# shellcheck source=src/remote/lib.sh
. "${0%/*}/lib.sh"
# shellcheck source=src/remote/mark.sh
. "${0%/*}/mark.sh"

: "${config=}" "${keep_slots=}"
saved=$work/config
new=$work/config.tmp
try_reason=save_failed

finish() {
    emit saved "$(grep -c '' "$saved/files")"
    exit 0
}

# These are lists of lines, each ended by a newline. To search a file would be a process.
files=
dirs=
pending=
visited=

# listed LIST LINE: is the line in the list?
listed() {
    case $nl$1 in
        *"$nl$2$nl"*) return 0 ;;
    esac
    return 1
}

add_file() {
    listed "$files" "$1" || files=$files$1$nl
}

# inside BASE PATH: sets rel to PATH as seen from PGDATA. If PATH is not in there, sets rel to its
# whole name, and returns 1. A relative PATH starts from BASE, which is itself relative to
# PGDATA, or whole.
inside() {
    case $2 in
        /*) rel=$2 ;;
        *)
            case $1 in
                /*) rel=$1$2 ;;
                *) rel=$pgdata/$1$2 ;;
            esac
            ;;
    esac
    # by the letters alone, for a file that is a symbolic link is saved as one
    rel=$rel/
    case $rel in
        */./* | *//* | */../*)
            rel=$(printf '%s\n' "$rel" | sed -e ':a' -e 's,/\./,/,g; s,///*,/,g' \
                -e 's,/[^/]*[^/.][^/]*/\.\./,/,; ta')
            ;;
    esac
    rel=${rel%/}
    case $rel in
        '' | */..) return 1 ;;
        "$pgdata"/*) ;;
        # PGDATA by another name
        *) folder=$(cd -P -- "${rel%/*}/" 2>/dev/null && pwd) && rel=$folder/${rel##*/} ;;
    esac
    case $rel in
        "$pgdata"/*) rel=${rel#"$pgdata"/} ;;
        *) return 1 ;;
    esac
}

# names FILE: prints what a settings or an authentication file refers to, as lines "KIND PATH".
# KIND is file, dir (of *.conf) or data (a path from PGDATA).
names() {
    awk "$awk_unquoted"'
        {
            rest = $0
            sub(/^[ \t]*/, "", rest)
            name = tolower(rest)
            sub(/[^a-z_].*$/, "", name)
            rest = substr(rest, length(name) + 1)
            if (name == "include" || name == "include_if_exists")
                print "file", unquoted(rest)
            else if (name == "include_dir")
                print "dir", unquoted(rest)
            else if (name ~ /^(ssl_(cert|key|ca|crl|dh_params)_file|ssl_crl_dir|hba_file|ident_file)$/)
                print "data", unquoted(rest)
            # @file in pg_hba.conf and pg_ident.conf
            rest = $0
            sub(/#.*/, "", rest)
            while (match(rest, /(^|[ \t,"])@[^ \t,"]+/)) {
                one = substr(rest, RSTART, RLENGTH)
                sub(/^[^@]*@/, "", one)
                print "file", one
                rest = substr(rest, RSTART + RLENGTH)
            }
        }' "$1"
}

# take REL: lists a file, and what it refers to.
take() {
    [ -f "$1" ] || [ -h "$1" ] || return 0
    if listed "$files" "$1"; then
        return 0
    fi
    add_file "$1"
    case $1 in
        *.crt | *.key | *.pem | *.crl) return 0 ;;
    esac
    [ -f "$1" ] && [ -r "$1" ] || return 0
    pending=$pending$1$nl
}

# visit FILE: follows what a file outside PGDATA refers to.
visit() {
    [ -f "$1" ] && [ -r "$1" ] || return 0
    if ! listed "$visited" "$1"; then
        visited=$visited$1$nl
        pending=$pending$1$nl
    fi
}

# follow FILE: takes what the file refers to.
follow() {
    base=
    case $1 in
        */*) base=${1%/*}/ ;;
    esac
    names "$1" >"$new/names" || die save_failed "could not write $new/names"
    while read -r kind path; do
        [ -n "$path" ] || continue
        from=$base
        [ "$kind" != data ] || from=
        if ! inside "$from" "$path"; then
            case $kind$rel in
                dir*)
                    for file in "$rel"/*.conf; do
                        visit "$file"
                    done
                    ;;
                file* | *hba* | *ident*) visit "$rel" ;;
            esac
            continue
        fi
        if [ "$kind" = dir ] && [ -d "$rel" ]; then
            listed "$dirs" "$rel" || dirs=$dirs$rel$nl
            for file in "$rel"/*.conf; do
                take "$file"
            done
        elif [ "$kind" = data ] && [ -d "$rel" ]; then
            for file in "$rel"/*; do
                [ ! -f "$file" ] || add_file "$file"
            done
        elif [ "$kind" = data ] && [ -f "$rel" ]; then
            case $path in
                *hba*.conf | *ident*.conf) take "$rel" ;;
                *) add_file "$rel" ;;
            esac
        else
            take "$rel"
        fi
    done <"$new/names"
}

# list_files: lists all files that are to be saved, in $new/files and $new/dirs.
list_files() {
    for file in *.conf *.crt *.key *.pem *.crl; do
        take "$file"
    done
    [ -z "$config" ] || visit "$config"
    # pg_rewind removes it, and it alone may tell where postgresql.conf is
    [ ! -f postmaster.opts ] || add_file postmaster.opts
    while [ -n "$pending" ]; do
        one=${pending%%"$nl"*}
        pending=${pending#*"$nl"}
        follow "$one"
    done
    rm -f "$new/names"
    printf '%s' "$files" >"$new/files" || die save_failed "could not write $new/files"
    printf '%s' "$dirs" >"$new/dirs" || die save_failed "could not write $new/dirs"
}

# copy_files: copies the listed files to $new/data.
copy_files() {
    while IFS= read -r file; do
        case $file in
            */*) try mkdir -p "$new/data/${file%/*}" ;;
        esac
        try cp -pP -- "$file" "$new/data/$file"
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
        if [ -f "pg_replslot/$slot/state" ]; then
            try mkdir "$work/slots/$slot"
            try chmod --reference="pg_replslot/$slot" "$work/slots/$slot"
            try cp -p "pg_replslot/$slot/state" "$work/slots/$slot/state"
            try sync "$work/slots/$slot/state"
        fi
    done
}

umask 077
LC_ALL=C
export LC_ALL

read_mark
case $mark_phase in
    '' | stopped) ;;
    *) [ ! -e "$saved/complete" ] || [ -e "$saved/restored" ] || finish ;;
esac
make_work
try rm -rf "$new"
try mkdir "$new" "$new/data"
if [ -d "$pgdata" ]; then
    cd "$pgdata" || die save_failed "could not change to $pgdata"
else
    cd "$new/data" || die save_failed "could not change to $new/data"
fi
list_files
copy_files
copy_slots
# PGDATA has these very files, until rewind.sh, clear.sh or swap.sh takes this away
try touch "$new/restored"
printf '%s\n' "$job" >"$new/complete" || die save_failed "could not write $new/complete"
# what follows changes PGDATA
try find "$new" -type f -exec sync '{}' +
find "$new" -type d -exec sync '{}' + 2>/dev/null

# first what says that the former one is whole
try rm -f "$saved/complete"
try rm -rf "$saved"
try mv "$new" "$saved"
sync "$work" 2>/dev/null
finish
