#!/bin/sh
# save_config.sh - copies the node's own configuration, and the slots of its own
# standbys, out of its data directory, before a rewind or a copy puts the primary's
# there.
#
# usage: save_config.sh PGDATA JOB CONFIG_FILE KEEP_SLOTS
#   CONFIG_FILE  postgresql.conf, if it is not the one in PGDATA; else ''
#   KEEP_SLOTS   names of physical slots, separated by spaces
#
# Saved into PGDATA.follow_primary/config, with modes and times: every *.conf,
# every *.crt, *.key, *.pem and *.crl at the top of PGDATA, postmaster.opts, and
# whatever these files, or CONFIG_FILE, include or name (include*, ssl_*, hba_file,
# ident_file) that lies inside PGDATA.
#   config/files     the manifest: paths relative to PGDATA, a line each
#   config/dirs      the folders that include_dir names
#   config/data/     the files
#   config/standby   exists if standby.signal did
#   config/complete  exists when all this is; holds JOB
#   config/restored  exists while PGDATA has them: until something replaces them,
#                    and when restore_config.sh has put all back; was_restored
#                    while pg_rewind may replace them
# The slots' states are in PGDATA.follow_primary/slots, for put_back_slots().
# What an interrupted job saved and did not put back is left as it is while the
# mark says that PGDATA may hold the primary's files.
#
# A data directory that is not there has nothing to save.
#
# prints: saved=N   files in the manifest
# fails:  no_space  permission  save_failed
set -u
# shellcheck source=src/remote/lib.sh
. "${0%/*}/lib.sh"

pgdata=$1
job=$2
config_file=$3
keep_slots=${4:-}
work=$pgdata.follow_primary
saved=$work/config
new=$work/config.tmp

try_reason=save_failed

umask 077
LC_ALL=C
export LC_ALL

finish() {
    emit saved "$(grep -c '' "$saved/files")"
    exit 0
}

if [ -e "$work/mark" ] && ! grep -qx phase=stopped "$work/mark" &&
    [ -e "$saved/complete" ] && [ ! -e "$saved/restored" ]; then
    finish
fi

try mkdir -p "$work"
try rm -rf "$new"
try mkdir "$new" "$new/data"
if [ -d "$pgdata" ]; then
    cd "$pgdata" || die save_failed "could not change to $pgdata"
else
    cd "$new/data" || die save_failed "could not change to $new/data"
fi

# Lists of lines, each ended by a newline, in variables: a search in a file would
# be a process.
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

# inside BASE PATH: sets rel to PATH as seen from PGDATA; or to its whole name, and
# returns 1, if it is not in there. BASE is what a relative PATH starts from, itself
# relative to PGDATA, or whole.
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
    # lexically, for a file that is a symbolic link is saved as one
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

# names FILE: what a settings or an authentication file refers to, as lines
# "KIND PATH", KIND being file, dir (of *.conf) or data (a path from PGDATA).
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

# visit FILE: what one outside PGDATA refers to is followed.
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

for file in *.conf *.crt *.key *.pem *.crl; do
    take "$file"
done
[ -z "$config_file" ] || visit "$config_file"
# pg_rewind removes it, and only it may tell where postgresql.conf is
[ ! -f postmaster.opts ] || add_file postmaster.opts
while [ -n "$pending" ]; do
    one=${pending%%"$nl"*}
    pending=${pending#*"$nl"}
    follow "$one"
done
rm -f "$new/names"
printf '%s' "$files" >"$new/files" || die save_failed "could not write $new/files"
printf '%s' "$dirs" >"$new/dirs" || die save_failed "could not write $new/dirs"

while IFS= read -r file; do
    case $file in
        */*) try mkdir -p "$new/data/${file%/*}" ;;
    esac
    try cp -pP -- "$file" "$new/data/$file"
done <"$new/files"
if [ -e standby.signal ]; then
    try touch "$new/standby"
fi
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
