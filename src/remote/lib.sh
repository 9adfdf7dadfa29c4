# lib.sh - what the scripts in this folder share.
#
# A script reads this file by the line
#     . "${0%/*}/lib.sh"
# when it runs by hand; the Makefile puts the text in that line's place when it
# embeds the script.

nl='
'

# emit KEY VALUE: prints a line KEY=VALUE, with backslashes and newlines of the
# value as \\ and \n.
emit() {
    case $2 in
        *\\*)
            printf '%s=%s\n' "$1" "$(printf '%s' "$2" | LC_ALL=C sed -e 's/\\/\\\\/g' |
                LC_ALL=C awk '{ printf "%s%s", (NR > 1 ? "\\n" : ""), $0 }')"
            ;;
        *"$nl"*)
            # The usual one, and here for speed: it starts no process.
            emit_rest=$2
            printf '%s=' "$1"
            while :; do
                case $emit_rest in
                    *"$nl"*) printf '%s\\n' "${emit_rest%%"$nl"*}" ;;
                    *) break ;;
                esac
                emit_rest=${emit_rest#*"$nl"}
            done
            printf '%s\n' "$emit_rest"
            ;;
        *)
            printf '%s=%s\n' "$1" "$2"
            ;;
    esac
}

# read_file FILE: sets text to what is in it, without newlines at the end; as
# $(cat FILE), but starts no process.
read_file() {
    text=
    while IFS= read -r line || [ -n "$line" ]; do
        text=$text$line$nl
    done <"$1"
    while [ "$text" != "${text%"$nl"}" ]; do
        text=${text%"$nl"}
    done
}

# lock_file FILE: sets the variables lock_* to the lines of a postmaster.pid;
# returns 1 if it is not there.
# shellcheck disable=SC2034 # for the scripts that call it
lock_file() {
    lock_pid='' lock_port='' lock_socket_dir='' lock_listen='' lock_status=''
    [ -r "$1" ] || return 1
    {
        read -r lock_pid
        read -r _
        read -r _
        read -r lock_port
        read -r lock_socket_dir
        read -r lock_listen
        read -r _
        read -r lock_status
    } 2>/dev/null <"$1"
    [ -n "$lock_pid" ]
}

# For an awk program: unquoted(REST) is the value of a setting whose name REST of
# the line follows, as a server reads it.
# shellcheck disable=SC2016,SC2034 # awk's dollars; for the scripts that use it
awk_unquoted='
    function unquoted(value,    out, c) {
        sub(/^[ \t]*=?[ \t]*/, "", value)
        if (substr(value, 1, 1) != "\047") {
            sub(/[ \t\r#].*$/, "", value)
            return value
        }
        value = substr(value, 2)
        out = ""
        while (value != "") {
            c = substr(value, 1, 1)
            value = substr(value, 2)
            if (c == "\047") {
                if (substr(value, 1, 1) != "\047")
                    break
                value = substr(value, 2)
            } else if (c == "\\") {
                c = substr(value, 1, 1)
                value = substr(value, 2)
            }
            out = out c
        }
        return out
    }
'

# say TEXT...: a line for the user, on stderr.
say() {
    printf '%s\n' "$*" >&2
}

# die CODE TEXT...: a reason in one word for the caller, a line for the user.
die() {
    emit failed "$1"
    shift
    say "$*"
    exit 1
}

# connect_with PASSFILE DATABASE: how psql and its kin connect: never asking
# anybody, with that password file ('' = libpq's own default). The database is
# in the environment, since psql takes a -d with "=" in it for a whole
# connection string. Its owner, who need not be a superuser as we are, could set
# a search_path or a role for it.
connect_with() {
    case $1 in
        '') ;;
        [~]/*) export PGPASSFILE="$HOME/${1#??}" ;;
        *) export PGPASSFILE="$1" ;;
    esac
    export PGDATABASE="$2"
    export PGCONNECT_TIMEOUT=10 PGAPPNAME=follow_primary \
        PGOPTIONS='-c role=none -c statement_timeout=10s -c search_path=pg_catalog -c default_transaction_isolation=read\ committed'
}

# works_in PID DIRECTORY: is that its working directory? A server's is its data
# directory. One with capabilities of its own is not ours to look into; its name is.
works_in() {
    # shellcheck disable=SC2039,SC3013 # -ef is in dash and in POSIX.1-2024
    [ "/proc/$1/cwd/." -ef "$2/." ] && return
    kill -0 "$1" 2>/dev/null && ! readlink "/proc/$1/cwd" >/dev/null 2>&1 || return
    program=
    { IFS= read -r program <"/proc/$1/comm"; } 2>/dev/null
    case $program in
        postgres | postmaster) return 0 ;;
    esac
    return 1
}

# server_pid: sets pid to the process that serves $pgdata, or returns 1; sets
# single_user to yes or no. A pid that another program or another cluster has
# by now does not count: a server's working directory is its data directory.
# shellcheck disable=SC2034,SC2154 # pgdata, single_user: the scripts'
server_pid() {
    pid='' single_user=no
    [ -r "$pgdata/postmaster.pid" ] || return 1
    IFS= read -r pid <"$pgdata/postmaster.pid" || :
    case $pid in
        -*) pid=${pid#-} single_user=yes ;; # it writes its pid negated
    esac
    case $pid in
        '' | *[!0-9]*) pid= && return 1 ;;
    esac
    if [ -d /proc/self/cwd ]; then
        works_in "$pid" "$pgdata"
    elif [ -n "${bin:-}" ]; then
        LC_ALL=C "$bin/pg_ctl" -D "$pgdata" status >/dev/null 2>&1
    else
        kill -0 "$pid" 2>/dev/null
    fi
}

# enter_pgdata: sets directory to a name of $pgdata for pg_ctl and pg_rewind, which
# paste it between double quotes into commands for a shell, and read it
# themselves: so it cannot be escaped. Returns 1 if it cannot be entered.
# shellcheck disable=SC2034,SC2154 # pgdata, directory: the scripts'
enter_pgdata() {
    directory=$pgdata
    case $pgdata in
        *[\"\$\`\\]*)
            cd "$pgdata" || return 1
            directory=.
            ;;
    esac
}

# data_umask: files that we make in $pgdata are its owner's alone, or the group's
# to read where it may read all of it (initdb --allow-group-access).
# shellcheck disable=SC2154 # the scripts'
data_umask() {
    umask 077
    case $(stat -Lc %A -- "$pgdata" 2>/dev/null) in
        d???r-x-?-) umask 027 ;; # forbid_start()
    esac
}

# control_time: when the server of PGDATA last wrote its control file.
# shellcheck disable=SC2154 # the scripts'
control_time() {
    date -r "$pgdata/global/pg_control" +%s.%N 2>/dev/null
}

# put_back_slots: those that save_config.sh saved; returns 1 with slot set.
# shellcheck disable=SC2154 # the scripts'
put_back_slots() {
    for slot in "$work"/slots/*; do
        # an empty state file would keep the server from starting
        [ ! -d "$slot" ] || { cp -Rp "$slot" "$pgdata/pg_replslot/" && sync "$pgdata/pg_replslot/${slot##*/}/state"; } ||
            return 1
    done
}

# forbid_start FOLDER: what pg_rewind leaves has no standby.signal, and would come up
# as a second primary; and neither that nor a copy has the node's configuration yet.
# A service manager may start it after a power failure, before anybody looks. No
# server starts in a data directory that others may write to. They cannot, for they
# may not search it. But an sshd would not take a key that is in such a place.
forbid_start() {
    case $(cd -P "${HOME:-/}/.ssh" 2>/dev/null && pwd)/ in
        "$(cd -P "$1" && pwd)"/*) return ;;
    esac
    chmod o=w "$1" && sync "$1" 2>/dev/null
}

# allow_start: after forbid_start().
# shellcheck disable=SC2154 # the scripts'
allow_start() {
    chmod o-w "$pgdata" && sync "$pgdata" 2>/dev/null
}

# logged FILE COMMAND...: runs it with all output live on our stderr and in
# FILE; returns its exit code. The copier outlives signals to this group, so
# that FILE has all that was said before an end.
logged() {
    file=$1
    shift
    code=$({ { "$@" 2>&1 3>&-; echo $? >&3; } |
        (trap '' HUP INT TERM PIPE; exec tee "$file" >&2 3>&-); } 3>&1)
    return "${code:-143}" # of one that was ended
}

# signs_of_life: from now on until the script ends, an empty line on stderr every
# few seconds for as long as what it runs uses its processors: there are tools that
# say nothing for hours. The script's own shell does not count, since it may wait
# in a loop; what a server starts does, in a session of its own. It costs nothing
# before the first few seconds are over.
signs_of_life() {
    [ -r /proc/self/stat ] || return 0
    (
        read -r self _ _ parent _ session _ </proc/self/stat
        before='' nap=''
        trap 'kill "$nap" 2>/dev/null; exit' TERM
        while :; do
            sleep 5 >/dev/null 2>&1 &
            nap=$!
            wait "$nap"
            read -r _ _ _ now _ </proc/self/stat
            [ "$now" = "$parent" ] || exit
            used=$(cat /proc/[0-9]*/stat 2>/dev/null | awk -v self="$self" -v script="$parent" -v session="$session" '
                {
                    pid = $1
                    sub(/.*\) /, "") # a name may have spaces
                    parent[pid] = $2
                    if (pid == self || pid == script)
                        next
                    session_of[pid] = $4
                    ticks[pid] = $12 + $13
                }
                END {
                    # what looks here does not count
                    for (pid in ticks)
                        if (parent[pid] != self && parent[parent[pid]] != self &&
                            (session_of[pid] == session || session_of[parent[pid]] == session))
                            all += ticks[pid]
                    print all + 0
                }')
            [ -z "$before" ] || [ "$used" = "$before" ] || echo >&2
            before=$used
        done
    ) </dev/null &
    life=$!
    trap no_more_signs EXIT
}

no_more_signs() {
    [ -z "${life:-}" ] || kill "$life" 2>/dev/null
}

# overwrite FILE TEXT_FILE: into FILE's own inode, giving up no block of it before
# it has the new text, for a full disk would not give it back.
overwrite() {
    dd if="$2" of="$1" conv=notrunc 2>/dev/null && truncate -s "$(wc -c <"$2")" "$1"
}

# try COMMAND...: dies with the fitting reason if it fails, else with
# $try_reason, which the script sets.
# shellcheck disable=SC2154 # the scripts'
try() {
    message=$("$@" 2>&1) && return
    case $message in
        *'No space left'* | *'quota exceeded'*) die no_space "$message" ;;
        *'ermission denied'* | *'ead-only'*) die permission "$message" ;;
        *) die "$try_reason" "$message" ;;
    esac
}

# put FILE: stdin becomes FILE, durably and in one step. Behind a pipe its death
# is the caller's to follow: put FILE || exit 1. For other reasons than these the
# script sets put_reason.
put() {
    { cat >"$1.tmp" && sync "$1.tmp"; } || die "${put_reason:-no_space}" "could not write $1.tmp"
    mv -f "$1.tmp" "$1" || die "${put_reason:-permission}" "could not write $1"
    sync "${1%/*}" 2>/dev/null
}

# segment_number FILE: sets segment_name and number for a WAL segment, also a .partial one;
# else returns 1. The script sets per_id, the segments in 4 GB.
# shellcheck disable=SC2034,SC2154 # the scripts'
segment_number() {
    segment_name=${1##*/}
    segment_name=${segment_name%.partial}
    case $segment_name in *[!0-9A-F]*) return 1 ;; esac
    [ ${#segment_name} -eq 24 ] || return 1
    number=${segment_name#????????}
    number=$((0x${number%????????} * per_id + 0x${number#????????}))
}

# is_mount_point FOLDER
is_mount_point() {
    [ -d "$1" ] || return 1
    if mountpoint -q "$1" 2>/dev/null; then
        return 0
    fi
    [ "$(stat -c %d "$1" 2>/dev/null)" != "$(stat -c %d "$1/.." 2>/dev/null)" ]
}

# read_mounts: sets mounts to all mount points of the machine, a line each;
# starts no process.
read_mounts() {
    mounts=
    while read -r _ _ _ _ point _; do
        case $point in
            *\\*) point=$(printf '%b' "$point") ;;
        esac
        mounts=$mounts$point$nl
    done 2>/dev/null </proc/self/mountinfo
}

# is_mounted FOLDER: as is_mount_point for its resolved name, as far as the
# kernel's list of mounts goes.
is_mounted() {
    read_mounts
    case $nl$mounts in
        *"$nl$1$nl"*) return 0 ;;
    esac
    return 1
}

# make_work: makes sure of $work, the folder that every job needs beside PGDATA.
# shellcheck disable=SC2154 # the scripts'
make_work() {
    if ! mkdir -p "$work" 2>/dev/null || [ ! -w "$work" ]; then
        die permission "$(id -un) cannot write $work, which is needed beside the data: as root," \
            "make that directory and give it to $(id -un)"
    fi
}

# emit_folders: where $pgdata has its WAL, if that is a folder or a mount point of
# its own, and its tablespaces; also where their disk is not mounted.
# shellcheck disable=SC2154 # the scripts'
emit_folders() {
    if [ -L "$pgdata/pg_wal" ]; then
        emit waldir "$(readlink -m -- "$pgdata/pg_wal")"
    elif is_mounted "$pgdata/pg_wal"; then
        emit waldir "$pgdata/pg_wal"
    fi
    for link in "$pgdata"/pg_tblspc/*; do
        [ -L "$link" ] && emit "tablespace.${link##*/}" "$(readlink -m -- "$link")"
    done
}
