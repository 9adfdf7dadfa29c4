#!/bin/sh
# restore_config.sh - puts back what save_config.sh saved.
#
# arguments:
#   final   no = it is for a copy that is about to be made, since its connection may need them;
#           they are to be put back once more
#           yes = they are back
#
# A file that is equal already is left; every other is replaced in one step.
#
# prints:
#   restored  the number of files that were replaced
# fails:
#   not_saved  there is nothing complete to restore
#   no_space  permission  restore_failed
set -u
# shellcheck source=src/remote/lib.sh
. "${0%/*}/lib.sh"
# shellcheck source=src/remote/aside.sh
. "${0%/*}/aside.sh"
# shellcheck source=src/remote/own.sh
. "${0%/*}/own.sh"

: "${final=yes}"
count=0
try_reason=restore_failed

# mode FILE: prints it.
mode() {
    # shellcheck disable=SC2012 # ls for the mode only
    set -- "$(ls -ld "$1")"
    printf '%.10s' "$1"
}

# same A B: have both the same contents and mode, or are they the same symbolic link?
same() {
    if [ -h "$1" ] || [ -h "$2" ]; then
        [ -h "$1" ] && [ -h "$2" ] && [ "$(readlink "$1")" = "$(readlink "$2")" ]
    else
        cmp -s "$1" "$2" && [ "$(mode "$1")" = "$(mode "$2")" ]
    fi
}

umask 077

[ ! -d "$pgdata" ] || put_back || die restore_failed "could not put back what is in $work/own"
[ -e "$saved/complete" ] || die not_saved "no saved configuration in $saved"
if [ -e "$saved/restored" ]; then
    # once is enough: somebody may have corrected a file since
    emit restored 0
    exit 0
fi
[ -d "$pgdata" ] || die restore_failed "$pgdata is not a directory"

own_back
while IFS= read -r file; do
    if same "$saved/data/$file" "$pgdata/$file"; then
        continue
    fi
    case $file in
        */*) try mkdir -p "$pgdata/${file%/*}" ;;
    esac
    try cp -pP "$saved/data/$file" "$pgdata/$file.fp_tmp"
    [ -h "$pgdata/$file.fp_tmp" ] || sync "$pgdata/$file.fp_tmp" 2>/dev/null
    # a folder of the primary's may be in the place of a link
    [ -h "$pgdata/$file" ] || [ ! -d "$pgdata/$file" ] || try rm -rf "${pgdata:?}/$file"
    try mv -fT "$pgdata/$file.fp_tmp" "$pgdata/$file"
    count=$((count + 1))
done <"$saved/files"

[ "$final" = no ] || try touch "$saved/restored"
emit restored "$count"
exit 0
