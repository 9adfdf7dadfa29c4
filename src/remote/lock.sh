#!/bin/sh
# lock.sh - holds the lock on the node for as long as a job lasts.
#
# usage: lock.sh PGDATA WHO BESIDE
#   WHO     a sentence for whoever is refused: who has the lock, and since when
#   BESIDE  when a file beside PGDATA last came or went, as survey.sh saw it
#
# Two servers may both take themselves for the primary, so the lock is where the
# data is: flock(1) on PGDATA.follow_primary.lock, or on a file in the home
# directory if the account may not write beside PGDATA. When the file is there
# but not locked, it is what a power failure left, and no harm.
#
# Once it has said held=yes it goes on until its stdin ends, as it does when the
# channel ends, or until SIGTERM; it takes the file away then.
#
# Another job may have had the lock between the survey and now: a lock file that
# came or went tells.
#
# prints: file=     the lock's file
#         fresh=yes|no  no: what the survey saw may have changed
#         held=yes  the last line
# fails:  locked       another job has it; the message is that job's WHO
#         no_flock     there is no flock(1)
#         permission   no file can be made for it
#         lock_failed  flock(1) fails for another reason, which it says
set -u
# shellcheck source=src/remote/lib.sh
. "${0%/*}/lib.sh"

pgdata=$1
who=$2
beside=$3

umask 077

command -v flock >/dev/null 2>&1 || die no_flock "there is no program flock on the PATH of $(id -un)"

file=$pgdata.follow_primary.lock
fresh=no
if [ ! -e "$file" ] && [ "$(stat -c %y -- "${pgdata%/*}/" 2>/dev/null)" = "$beside" ]; then
    fresh=yes
fi
if ! true 2>/dev/null >>"$file"; then
    fresh=no
    name=$(printf '%s' "$pgdata" | cksum)
    file=$HOME/.follow_primary-${name%% *}.lock
    if ! true 2>/dev/null >>"$file"; then
        die permission "$(id -un) can write neither $pgdata.follow_primary.lock nor $file"
    fi
fi

while :; do
    exec 9>>"$file"
    # A job that has just ended may need a moment to let go.
    flock -w 1 9
    case $? in
        0) ;;
        1) die locked "$(cat "$file" 2>/dev/null)" ;;
        *) die lock_failed "could not lock $file" ;;
    esac
    # Whoever had the lock removed the file: is this the one that others see?
    # shellcheck disable=SC2039,SC3013 # -ef is in dash and in POSIX.1-2024
    if [ "$file" -ef /proc/self/fd/9 ]; then
        break
    fi
    fresh=no
done

# The file goes while it is locked. The wrapper's watcher need not wait then for
# others of its process group.
# shellcheck disable=SC2154 # the wrapper's
let_go() {
    rm -f "$file"
    [ -z "${watcher:-}" ] || kill -KILL 0
    exit 0
}
trap let_go TERM INT HUP
printf '%s\n' "$who" >"$file"
emit file "$file"
emit fresh "$fresh"
emit held yes
exec 2>/dev/null
while read -r _; do :; done
let_go
