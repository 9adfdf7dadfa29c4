#!/bin/sh
# lock.sh - holds the lock on the node for as long as a job lasts.
#
# arguments:
#   who     a sentence for those who are refused: who has the lock, and since when
#   beside  when a file beside pgdata last came or went, as survey.sh saw it
#
# Two servers may both take themselves for the primary, so the lock is where the data is:
# flock(1) on PGDATA.follow_primary.lock, or on a file in the home directory if the account may
# not write beside PGDATA. A file that is there but not locked was left by a power failure, and
# does no harm. Its lines are who, the holder's process id and SSH_CONNECTION, and "ending" when
# the holder is about to end.
#
# The script says held=yes, and goes on until its stdin ends, as it does when the SSH channel
# ends, or until SIGTERM. Then it removes the file. If the word "exit" did not come before, a
# script of the job may go on for the seconds that the wrapper leaves it, and the lock is held
# for as long.
#
# A host that vanishes says nothing, and its connection would live on for hours. So a job that
# finds the lock taken has the holder's sshd send a newline. If TCP repeats it five times, for
# some six seconds, and gets no answer, that sshd is ended. A host that is back knows of no such
# connection, and answers so.
#
# Another job may have had the lock between the survey and now: a lock file that came or went
# tells.
#
# prints:
#   file        the lock's file
#   fresh       yes | no; no: what the survey saw may have changed
#   taken_from  who, of a job whose host did not answer
#   times       what it has used of the processors, as wrapper.sh prints it
#   held        yes; the last line
# fails:
#   locked       another job has the lock; the message is that job's who, the file and its holder
#   no_flock     there is no flock(1)
#   permission   no file can be made for the lock
#   lock_failed  flock(1) fails for another reason, which it says
set -u
# shellcheck source=src/remote/lib.sh
. "${0%/*}/lib.sh"
# shellcheck source=src/remote/mark.sh
. "${0%/*}/mark.sh"
# shellcheck source=src/remote/staged.sh
. "${0%/*}/staged.sh"

: "${who=}" "${beside=}"

# stat_of PID: sets parent and session.
stat_of() {
    { IFS= read -r text <"/proc/$1/stat"; } 2>/dev/null || return
    # shellcheck disable=SC2086 # words; a name, in parentheses, may have spaces
    set -- ${text##*) }
    parent=$2 session=$4
}

# answer: prints whether the host at the other end of the holder's connection has answered what
# was sent: yes, no, wait, or gone where there is no connection.
answer() {
    # sl local remote state tx_queue:rx_queue timer:when retransmits, hexadecimal
    cat /proc/net/tcp /proc/net/tcp6 2>/dev/null |
        awk -v port="$(printf ':%04X$' "$port")" -v client_port="$(printf ':%04X$' "$client_port")" '
            $2 ~ port && $3 ~ client_port {
                found = 1
                if ($5 ~ /^00000000:/)
                    yes = 1
                else if ($7 < "00000005")
                    wait = 1
            }
            END { print !found ? "gone" : yes ? "yes" : wait ? "wait" : "no" }'
}

# end_sshd PID: ends the nearest sshd that the process descends from, the one of its session. With
# hidepid the name of a process cannot be read; then it is the parent of the session's leader.
end_sshd() {
    process=$1
    while stat_of "$process" && [ "$parent" -gt 1 ]; do
        IFS= read -r name <"/proc/$parent/comm" || name=
        case $name in
            sshd*) kill "$parent" && return ;;
            '') [ "$session" = "$process" ] && kill "$parent" && return ;;
        esac
        process=$parent
    done 2>/dev/null
    return 1
}

# lets_go: may the holder let the lock go soon? Asked once a second. An answer is believed the
# second time: sshd may not have sent anything yet.
asked=0 roused='' answered=no taken_from=''
lets_go() {
    [ -e "$file" ] || return 0
    owner='' holder='' client_port='' port='' ending=''
    { IFS= read -r owner; read -r holder _ client_port _ port; read -r ending; } 2>/dev/null <"$file"
    asked=$((asked + 1))
    [ "$asked" -le 20 ] || return
    [ -z "$ending" ] || return 0
    # shellcheck disable=SC2039,SC3013
    if [ -z "$port" ] || ! [ "/proc/$holder/fd/9" -ef "$file" ]; then
        # The holder may be about to write there, or the file may be another's by now.
        [ "$asked" -le 2 ]
        return
    fi
    if [ "$roused" != "$holder" ]; then
        roused=$holder answered=no
        [ ! -p "/proc/$holder/fd/1" ] || (echo >"/proc/$holder/fd/1") 2>/dev/null
        return 0
    fi
    case $(answer) in
        yes)
            [ "$answered" = no ] || return
            answered=yes
            ;;
        no) end_sshd "$holder" && taken_from=$owner ;;
    esac
    return 0
}

# choose_file: sets file to where the lock is, and fresh.
choose_file() {
    file=$kept.lock
    fresh=no
    if [ ! -e "$file" ] && [ "$(stat -c %y -- "${pgdata%/*}/" 2>/dev/null)" = "$beside" ]; then
        fresh=yes
    fi
    if ! true 2>/dev/null >>"$file"; then
        fresh=no
        name=$(printf '%s' "$pgdata" | cksum)
        file=$HOME/.follow_primary-${name%% *}.lock
        if ! true 2>/dev/null >>"$file"; then
            die permission "$(id -un) can write neither $kept.lock nor $file"
        fi
    fi
}

# take_lock: locks the file, as descriptor 9.
take_lock() {
    while :; do
        exec 9>>"$file"
        # A job that has just ended may need a moment to let go.
        flock -w 1 9
        case $? in
            0)
                # The last holder removed its file: is this the one that others see?
                # shellcheck disable=SC2039,SC3013 # -ef is in dash and in POSIX.1-2024
                [ "$file" -ef /proc/self/fd/9 ] && break
                ;;
            1) lets_go || die locked "$owner The lock is $file, held by process ${holder:-unknown}." ;;
            *) die lock_failed "could not lock $file" ;;
        esac
        fresh=no
    done
}

# others_go_on: does a process of another script of this SSH connection go on? One that it started
# in a session of its own, as a server, does not count; nor does one that ignores SIGTERM, for it
# only waits for the others: a wrapper's watcher, logged()'s tee.
others_go_on() {
    # shellcheck disable=SC2013 # names without spaces
    for other in $(timeout 5 grep -lzxF "SSH_CONNECTION=${SSH_CONNECTION:-}" /proc/[0-9]*/environ 2>/dev/null); do
        other=${other#/proc/} other=${other%/*}
        stat_of "$other" || continue
        [ "$session" != "$own" ] || continue
        ! grep -q '^SigIgn:.*[4-7c-f]...$' "/proc/$other/status" 2>/dev/null || continue
        case $({ tr '\0' ' ' <"/proc/$session/cmdline"; } 2>/dev/null) in
            '' | *' -s follow_primary ') return 0 ;;
        esac
    done
    return 1
}

# let_go: removes the file while it is locked, if it is still ours. Before that it tells the worker,
# if that is there, to let nothing go on. Ends here.
# shellcheck disable=SC2039,SC3013
let_go() {
    trap '' TERM INT HUP PIPE
    tries=0
    if [ "$over" != yes ]; then
        echo ending 2>/dev/null
        ! [ "$file" -ef /proc/self/fd/9 ] || echo ending >>"$file"
        while [ "$tries" -lt 50 ] && others_go_on; do
            tries=$((tries + 1))
            sleep 0.1
        done
    fi
    if [ "$file" -ef /proc/self/fd/9 ]; then
        # a data directory that no rewind has come to is anybody's to start
        read_mark
        case $mark_phase in
            '' | stopped) drop_staged ;;
        esac
        rm -f "$file"
    fi
    exit 0
}

umask 077
command -v flock >/dev/null 2>&1 || die no_flock "there is no program flock on the PATH of $(id -un)"
choose_file
take_lock

over=no own='' self=''
trap let_go TERM INT HUP
if [ -r /proc/self/stat ]; then
    read -r self _ </proc/self/stat
    stat_of "$self" && own=$session
fi
printf '%s\n%s %s\n' "$who" "$self" "${SSH_CONNECTION:-}" >"$file"
end_watch
emit file "$file"
emit fresh "$fresh"
[ -z "$taken_from" ] || emit taken_from "$taken_from"
printf 'times='
times
emit held yes
exec 2>/dev/null
while read -r word; do
    [ "$word" != exit ] || over=yes
done
let_go
