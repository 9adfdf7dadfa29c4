# lib.sh - what the scripts in this folder share.
#
# When a script runs by hand, it reads this file by the line
#     . "${0%/*}/lib.sh"
# When the Makefile embeds the script, it puts the text of this file in that line's place.
#
# What jobs keep on a node, beside the data directory PGDATA:
#     PGDATA.follow_primary.lock       lock.sh's, while a job runs
#     PGDATA.follow_primary/job/       the job that runs or was interrupted: its mark (mark.sh),
#                                      what it saved and is to put back, copies that are not
#                                      in place. clean.sh removes it as a whole
#     PGDATA.follow_primary/lost_wal-JOB, old-JOB    for people, who remove them by hand
#     PGDATA.follow_primary.log, PGDATA.follow_primary/server.log    what a started server says

# Every script has these arguments, and those that its head names:
#   pgdata  the data directory, by its one name
#   bin     the directory of PostgreSQL's programs
#   job     the number of the job
#   token   what no other job has, of any primary
# They are variables: the worker puts their assignments before the script's text. Lists are
# positional. By hand: pgdata=/x bin=/y standby=yes sh src/remote/stop.sh
: "${pgdata=}" "${bin=}" "${job=0}" "${token=}"

# name_places: sets the names of what is beside $pgdata: kept, work and mark.
# shellcheck disable=SC2034 # for the scripts
name_places() {
    kept=$pgdata.follow_primary
    work=$kept/job
    mark=$work/mark
}
name_places

nl='
'

# What programs say is read, so they speak English and know bytes alone. A command of the DBA's
# is run as sh -c "$own_locale$command", with the locale of the account.
# shellcheck disable=SC2034 # for the scripts
case ${LC_ALL-} in
    '' | *[!A-Za-z0-9_.@-]*) own_locale='unset LC_ALL; ' ;;
    *) own_locale="LC_ALL=$LC_ALL; " ;;
esac
LC_ALL=C
export LC_ALL

# emit KEY VALUE: prints a line KEY=VALUE; backslashes and newlines in the value become \\ and
# \n.
emit() {
    case $2 in
        *\\*)
            printf '%s=%s\n' "$1" "$(printf '%s' "$2" | sed -e 's/\\/\\\\/g' |
                awk '{ printf "%s%s", (NR > 1 ? "\\n" : ""), $0 }')"
            ;;
        *"$nl"*)
            # the usual case: it starts no process
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

# emit_file KEY FILE: emits what is in FILE. Starts no process, and takes no longer for a line of
# a long file than of a short one.
emit_file() {
    printf '%s=' "$1"
    between=''
    while IFS= read -r line || [ -n "$line" ]; do
        case $line in
            *\\*) line=$(printf '%s' "$line" | sed 's/\\/\\\\/g') ;;
        esac
        printf '%s%s' "$between" "$line"
        between='\n'
    done <"$2"
    echo
}

# read_file FILE: sets text to what is in it, without newlines at the end. Unlike
# $(cat FILE), it starts no process.
read_file() {
    text=
    while IFS= read -r line || [ -n "$line" ]; do
        text=$text$line$nl
    done <"$1"
    while [ "$text" != "${text%"$nl"}" ]; do
        text=${text%"$nl"}
    done
}

# end_watch: ends the wrapper's watcher, which reads what a script that asks the worker is to read.
# That script calls it before it asks, and before it ends.
end_watch() {
    [ -z "${watcher:-}" ] || { kill -KILL "$watcher" && wait "$watcher"; } 2>/dev/null
    watcher=
}

# hear_worker: sets told to the worker's answer. Where the channel ends, it ends all that we have
# started, as the watcher does.
# shellcheck disable=SC2034 # told: for the scripts
hear_worker() {
    IFS= read -r told || { trap '' TERM && kill -TERM 0; }
}

# read_clock: sets clock to a number of seconds, which is not the time of day. Starts no process.
read_clock() {
    clock=
    { read -r clock _ </proc/uptime; } 2>/dev/null
    clock=${clock%%.*}
    [ -n "$clock" ] || clock=$(date +%s)
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

# server_host: sets server_host to where the server can be connected to whose lock file
# lock_file() has read: the folder of its socket, which may be relative to $pgdata; where there
# is no socket, or its name is too long for one, its address.
server_host() {
    server_host=$lock_socket_dir
    case $server_host in
        '' | /* | @*) ;;
        *) server_host=$pgdata/${server_host#./} ;;
    esac
    server_host=${server_host%/.}
    [ -n "$lock_listen" ] || return 0
    case $server_host in
        @*) return 0 ;;
        /*) [ ! -S "$server_host/.s.PGSQL.$lock_port" ] || [ "${#server_host}" -gt 80 ] || return 0 ;;
    esac
    server_host=$lock_listen
    case $server_host in '*' | 0.0.0.0 | ::) server_host=localhost ;; esac
}

# For an awk program: quoted(WORD) is one word for a shell; unquoted(REST) is the value of a setting,
# as a server reads it, and REST what follows the setting's name in the line.
# shellcheck disable=SC2016,SC2034 # awk's dollars; for the scripts that use it
awk_quotes='
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
    # not by gsub: awks differ in what backslashes in a replacement are
    function quoted(word,    part, n, i, out) {
        n = split(word, part, "\047")
        out = part[1]
        for (i = 2; i <= n; i++)
            out = out "\047\\\047\047" part[i]
        return "\047" out "\047"
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

# use_passfile FILE: programs of PostgreSQL take the password from it; '' = from libpq's own
# file. ~/ in front is the home directory.
use_passfile() {
    case $1 in
        '') ;;
        [~]/*) export PGPASSFILE="$HOME/${1#??}" ;;
        *) export PGPASSFILE="$1" ;;
    esac
}

# connect_with PASSFILE DATABASE: psql and its kin connect so, and never ask for a password.
# The database is named in the environment, for psql takes a -d with "=" in it for a whole
# connection string. The options protect us from its owner, who need not be a superuser as
# we are, and who could set a search_path or a role for it; and from all that the server could
# have to say besides.
connect_with() {
    use_passfile "$1"
    export PGDATABASE="$2"
    export PGCONNECT_TIMEOUT=10 PGAPPNAME=follow_primary \
        PGOPTIONS='-c role=none -c statement_timeout=10s -c search_path=pg_catalog -c client_min_messages=error -c default_transaction_isolation=read\ committed'
    # verify.sh pauses in its session
    { read -r major <"$pgdata/PG_VERSION"; } 2>/dev/null || return 0
    [ "$major" -lt 14 ] || PGOPTIONS="$PGOPTIONS -c idle_session_timeout=0"
    # from 17 on it ends even the shortest transaction
    [ "$major" -lt 17 ] || PGOPTIONS="$PGOPTIONS -c transaction_timeout=0"
}

# ask PSQL_OPTION...: runs psql with the SQL on stdin. Sets answer to what it says on stdout, and
# said to what it says on stderr: why it failed, but also warnings, which a server may have at
# each connection and in any language. Returns psql's exit code.
# shellcheck disable=SC2034 # said: for the scripts
ask() {
    answer_mark="$nl${nonce:-answer}$nl"
    said=$({
        answer=$("$bin/psql" -X -q -A -t -w -v ON_ERROR_STOP=1 "$@" 2>&3)
        printf '%s%s' "$answer_mark" "$?$nl$answer"
    } 3>&1)
    # not by ##*MARK, for which the shell reads a long answer as often as it has bytes
    answer=$said
    said=${said%"$answer_mark"*}
    answer=${answer#"$said$answer_mark"}
    while [ "$said" != "${said%"$nl"}" ]; do
        said=${said%"$nl"}
    done
    set -- "${answer%%"$nl"*}"
    answer=${answer#"$1"}
    answer=${answer#"$nl"}
    return "$1"
}

# ask_server PSQL_OPTION...: the same of the server of $pgdata, where lock_file() has found it.
ask_server() {
    server_host
    ask -h "$server_host" -p "$lock_port" "$@"
}

# accepts: does that server take connections, whoever it lets in? One that starts up does not.
# After ask_server.
accepts() {
    "$bin/pg_isready" -q -t 10 -h "$server_host" -p "$lock_port"
}

# works_in PID DIRECTORY: is DIRECTORY the working directory of the process, as a server's is
# its data directory? We may not see that of a program with capabilities of its own; then its
# name tells whether it is a server.
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

# server_pid: sets pid to the process that serves $pgdata, or returns 1; sets single_user to
# yes or no. A process that has the pid in postmaster.pid, but works in another directory,
# does not count.
# shellcheck disable=SC2034 # single_user: for the scripts
server_pid() {
    pid='' single_user=no
    [ -r "$pgdata/postmaster.pid" ] || return 1
    IFS= read -r pid <"$pgdata/postmaster.pid" || :
    case $pid in
        -*) pid=${pid#-} single_user=yes ;; # such a server writes its pid negated
    esac
    case $pid in
        '' | *[!0-9]*) pid= && return 1 ;;
    esac
    if [ -d /proc/self/cwd ]; then
        works_in "$pid" "$pgdata"
    elif [ -n "$bin" ]; then
        "$bin/pg_ctl" -D "$pgdata" status >/dev/null 2>&1
    else
        kill -0 "$pid" 2>/dev/null
    fi
}

# enter_pgdata: sets directory to a name of $pgdata for pg_ctl and pg_rewind. They paste the
# name between double quotes into shell commands, and use it themselves as well, so it cannot
# be escaped: where it would have to be, we change to $pgdata and call it ".". Returns 1 if
# that fails.
# shellcheck disable=SC2034 # directory: for the scripts
enter_pgdata() {
    directory=$pgdata
    case $pgdata in
        *[\"\$\`\\]*)
            cd "$pgdata" || return 1
            directory=.
            ;;
    esac
}

# data_umask: only the owner may read the files that we make in $pgdata; the group may, too,
# where it may read all of $pgdata (initdb --allow-group-access).
data_umask() {
    umask 077
    case $(stat -Lc %A -- "$pgdata" 2>/dev/null) in
        d???r-x?--) umask 027 ;; # the last ? is forbid_start()'s
    esac
}

# cluster_state: prints what the control file says.
cluster_state() {
    LC_ALL=C "$bin/pg_controldata" "$pgdata" 2>/dev/null | sed -n 's/^Database cluster state: *//p'
}

# in_production: is its server, which runs, a primary?
in_production() {
    [ "$(cluster_state)" = 'in production' ]
}

# control_time: when the server of PGDATA last wrote its control file.
control_time() {
    date -r "$pgdata/global/pg_control" +%s.%N 2>/dev/null
}

# put_back_slots: puts back the slots that save_config.sh saved. Returns 1 if that fails, with
# slot set to the one that it could not put back.
put_back_slots() {
    for slot in "$work"/slots/*; do
        # flushed, for an empty state file would keep the server from starting
        [ ! -d "$slot" ] || { cp -Rp "$slot" "$pgdata/pg_replslot/" && sync "$pgdata/pg_replslot/${slot##*/}/state"; } ||
            return 1
    done
}

# drop_slots: removes the slots that do not belong to the node's own standbys, whose names are in
# keep_slots.
drop_slots() {
    for slot in "$pgdata"/pg_replslot/*; do
        [ -d "$slot" ] || continue
        # shellcheck disable=SC2154 # the script's
        case " $keep_slots " in
            *" ${slot##*/} "*) ;;
            *) rm -rf "$slot" ;;
        esac
    done
}

# logged FILE COMMAND...: runs COMMAND; all its output goes to our stderr at once, and to FILE.
# Returns its exit code. The process that copies the output ignores signals to our process
# group: when the job is ended, FILE still gets all that COMMAND said.
logged() {
    file=$1
    shift
    code=$({ { "$@" 2>&1 3>&-; echo $? >&3; } |
        (trap '' HUP INT TERM PIPE; exec tee "$file" >&2 3>&-); } 3>&1)
    return "${code:-143}" # 143: COMMAND was ended
}

# expand_restore_command COMMAND FILE PATH RESTART: prints COMMAND with %f, %p, %r and %% replaced.
expand_restore_command() {
    printf '%s' "$1" | awk -v f="$2" -v p="$3" -v r="$4" '
        { text = text (NR > 1 ? "\n" : "") $0 }
        END {
            out = ""
            while ((at = index(text, "%")) > 0) {
                c = substr(text, at + 1, 1)
                out = out substr(text, 1, at - 1) (c == "f" ? f : c == "p" ? p : c == "r" ? r : c == "%" ? "%" : "%" c)
                text = substr(text, at + 2)
            }
            printf "%s", out text
        }'
}

# one_line COMMAND: sets one_line to a restore_command of one line that does what COMMAND does.
# restore_command_behind_gate() knows this form.
one_line() {
    one_line=$1
    case $1 in
        *"$nl"*)
            one_line=$(printf '%s' "$1" | sed "s/\\\\/&&/g; s/'/'\\\\''/g" |
                awk '{ printf "%s%s", (NR > 1 ? "\\n" : ""), $0 }')
            one_line="eval \"\$(printf \"%%b\" '$one_line')\""
            ;;
    esac
}

# quoted_setting TEXT: prints TEXT, a line, as a value in a settings file.
quoted_setting() {
    printf "'%s'" "$(printf '%s' "$1" | sed "s/\\\\/&&/g; s/'/''/g")"
}

# signs_of_life: from now on until the script ends, writes an empty line to stderr every few
# seconds while the programs that the script runs use the processor, for some of them say
# nothing for hours. The script's own shell does not count, since it may wait in a loop. What
# a server starts in a session of its own counts. Nothing happens in the first few seconds.
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
            now_used=$(cat /proc/[0-9]*/stat 2>/dev/null | awk -v self="$self" -v script="$parent" -v session="$session" '
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
                    # our own programs here do not count
                    for (pid in ticks)
                        if (parent[pid] != self && parent[parent[pid]] != self &&
                            (session_of[pid] == session || session_of[parent[pid]] == session))
                            all += ticks[pid]
                    print all + 0
                }')
            [ -z "$before" ] || [ "$now_used" = "$before" ] || echo >&2
            before=$now_used
        done
    ) </dev/null &
    life=$!
    trap no_more_signs EXIT
}

no_more_signs() {
    [ -z "${life:-}" ] || kill "$life" 2>/dev/null
}

# overwrite FILE TEXT_FILE: FILE gets the text of TEXT_FILE, and stays the same inode. No block
# of it is given up before the new text is in, for a full disk would not give it back.
overwrite() {
    dd if="$2" of="$1" conv=notrunc 2>/dev/null && truncate -s "$(wc -c <"$2")" "$1"
}

# try COMMAND...: runs COMMAND, and dies if it fails: for the reason that its message tells, or
# for $try_reason, which the script sets.
# shellcheck disable=SC2154 # the script's
try() {
    message=$("$@" 2>&1) && return
    case $message in
        *'No space left'* | *'quota exceeded'*) die no_space "$message" ;;
        *'ermission denied'* | *'ead-only'*) die permission "$message" ;;
        *) die "$try_reason" "$message" ;;
    esac
}

# put FILE: stdin becomes FILE, durably and in one step. It dies for no_space or permission,
# or for $put_reason where the script sets that. Behind a pipe it ends a subshell alone, so
# write: ... | put FILE || exit 1
put() {
    { cat >"$1.tmp" && sync "$1.tmp"; } || die "${put_reason:-no_space}" "could not write $1.tmp"
    mv -f "$1.tmp" "$1" || die "${put_reason:-permission}" "could not write $1"
    sync "${1%/*}" || die "${put_reason:-no_space}" "could not flush ${1%/*}"
}

# segment_number FILE: sets segment_name and number if FILE is a WAL segment, a .partial one
# included; else returns 1. The script sets per_id, the number of segments in 4 GB.
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

# read_mounts: sets mounts to all mount points of the machine, a line each. Starts no process.
read_mounts() {
    mounts=
    while read -r _ _ _ _ point _; do
        case $point in
            *\\*) point=$(printf '%b' "$point") ;;
        esac
        mounts=$mounts$point$nl
    done 2>/dev/null </proc/self/mountinfo
}

# is_mounted FOLDER: is FOLDER, a resolved name, in the kernel's list of mounts? Starts no
# process.
is_mounted() {
    read_mounts
    case $nl$mounts in
        *"$nl$1$nl"*) return 0 ;;
    esac
    return 1
}

# make_work: makes $work if it is not there. Dies if nothing can be written in it.
make_work() {
    [ ! -d "$work" ] || [ ! -w "$work" ] || return 0
    if ! { mkdir -p "$work" 2>/dev/null && [ -w "$work" ]; }; then
        die permission "$(id -un) cannot write $kept, which is needed beside the data: as root," \
            "make that directory and give it to $(id -un)"
    fi
    sync "$kept" || die no_space "could not flush $kept"
    sync "${kept%/*}/" 2>/dev/null # which need not be ours to read
    return 0
}

# emit_folders: prints where $pgdata has its WAL, if that is a folder or a mount point of its
# own, and its tablespaces. Their disks need not be mounted.
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
