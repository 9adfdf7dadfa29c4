#!/bin/sh
# restore_config.sh - puts back what save_config.sh saved.
#
# usage: restore_config.sh PGDATA [TARGET]
#   TARGET  the data directory that gets the files; default PGDATA
#
# A file that is equal already is left; every other is replaced in one step.
# Settings files that the primary has in a folder which the node reads by
# include_dir would become the node's: they are moved to config/foreign.
#
# prints: restored=N   files replaced or moved away
# fails:  not_saved    there is nothing complete to restore
#         no_space  permission  restore_failed
set -u
# shellcheck source=src/remote/lib.sh
. "${0%/*}/lib.sh"

pgdata=$1
target=${2:-$pgdata}
saved=$pgdata.follow_primary/config
count=0

try_reason=restore_failed

umask 077
LC_ALL=C
export LC_ALL

mode() {
    # shellcheck disable=SC2012 # ls for the mode only
    set -- "$(ls -ld "$1")"
    printf '%.10s' "$1"
}

# same A B: the same contents and mode, or the same symbolic link.
same() {
    if [ -h "$1" ] || [ -h "$2" ]; then
        [ -h "$1" ] && [ -h "$2" ] && [ "$(readlink "$1")" = "$(readlink "$2")" ]
    else
        cmp -s "$1" "$2" && [ "$(mode "$1")" = "$(mode "$2")" ]
    fi
}

[ -e "$saved/complete" ] || die not_saved "no saved configuration in $saved"
if [ "$target" = "$pgdata" ] && [ -e "$saved/restored" ]; then
    # Once is enough: what has changed since is somebody's correction.
    emit restored 0
    exit 0
fi
[ -d "$target" ] || die restore_failed "$target is not a directory"

while IFS= read -r file; do
    if same "$saved/data/$file" "$target/$file"; then
        continue
    fi
    case $file in
        */*) try mkdir -p "$target/${file%/*}" ;;
    esac
    try cp -pP "$saved/data/$file" "$target/$file.fp_tmp"
    [ -h "$target/$file.fp_tmp" ] || sync "$target/$file.fp_tmp" 2>/dev/null
    try mv -f "$target/$file.fp_tmp" "$target/$file"
    count=$((count + 1))
done <"$saved/files"

while IFS= read -r dir; do
    for file in "$target/$dir"/*.conf; do
        [ -f "$file" ] || [ -h "$file" ] || continue
        if grep -Fqx -e "$dir/${file##*/}" "$saved/files"; then
            continue
        fi
        try mkdir -p "$saved/foreign/$dir"
        try mv -f "$file" "$saved/foreign/$dir/"
        count=$((count + 1))
    done
done <"$saved/dirs"

[ "$target" != "$pgdata" ] || try touch "$saved/restored"
emit restored "$count"
exit 0
