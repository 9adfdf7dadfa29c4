#!/bin/sh
# try.sh - tries what the steps to come will need on the node, before any of them stops its
# server; changes nothing.
#
# arguments:
#   method    rewind | copy | restart: what is to come
#   untouched  yes = no job has begun to change the data: its files are the node's own
#   config    the node's postgresql.conf; '' = the one in pgdata
#   db_user   the role that will ask the node's server for the proof
#   db_name   the database that it connects to for that
#   expired   yes = the password of db_user has expired on the primary
#   asked_db  the one in which it has asked the server before
#   passfile  password file for that; '' = libpq's default
#   port      the port that the server is to have
#   needed    "NAME=VALUE/DEFAULT ...": settings that a standby may not have lower than that, and
#             what they are where no file sets them
#   start_command  of the DBA's, for the node; '' = pg_ctl
#   own       what the job itself names of the node's files, a line each
#   OID LOCATION ...  (positional) with rewind: the primary's tablespaces
#
# What is in the way of a rewind or a copy is a folder that the SSH user may not empty, a file
# that cannot be removed, a file mounted in the data directory, and a file of the node's own that
# cannot be read, as an editor of root's leaves one: no copy can be kept of it. Files that pg_rewind
# may not write are none: rewind.sh moves them aside. What is in the folders of relations is the
# server's own, and there may be a million files: it is not looked at.
#
# prints:
#   account   whose rights we have here
#   path      in_the_way: the first
#   kind      in_the_way: folder | file | mount | readonly | unreadable | name
#   mount     readonly: where the file system is mounted
#   owner     in_the_way: whose it is
#   mounts    rewind: folders mounted in the data directory, relative to it, a line each
#   database  login_refused: the one that was to be connected to
#   process   frozen: the server's
# fails:
#   no_program         a program is missing
#   frozen             the server is stopped by a signal
#   in_the_way         see above
#   settings_broken    the server could not be started with its configuration
#   login_refused      the server refuses db_user, or its pg_hba.conf says that it will
#   needs_copy         pg_rewind cannot work with what is there
#   tablespace_in_use  something else is in a LOCATION
#   permission         a LOCATION cannot be made
set -u
# shellcheck source=src/remote/lib.sh
. "${0%/*}/lib.sh"
# shellcheck source=src/remote/settings.sh
. "${0%/*}/settings.sh"
# shellcheck source=src/remote/startable.sh
. "${0%/*}/startable.sh"
# shellcheck source=src/remote/names.sh
. "${0%/*}/names.sh"

: "${port=}" "${needed=}" "${start_command=}" "${own=}" "${method?}" "${untouched=yes}" "${config=}" "${db_user=postgres}" "${db_name=postgres}" "${asked_db=postgres}" "${passfile=}" "${expired=no}"
[ "$config" != "$pgdata/postgresql.conf" ] || config=

# check_awake: a server that is stopped by a signal answers nobody, and obeys when it is awake again,
# whenever that is.
check_awake() {
    server_pid && { read -r text <"/proc/$pid/stat"; } 2>/dev/null || return 0
    case ${text##*) } in
        [Tt]\ *)
            emit process "$pid"
            die frozen "the server, process $pid, is stopped by a signal"
            ;;
    esac
}

# check_programs NAME...
check_programs() {
    for program; do
        [ -x "$bin/$program" ] || die no_program "there is no program \"$bin/$program\""
    done
}

# stuck FILE: will pg_rewind have to write it, and cannot it be made writable?
stuck() {
    case $method:$1 in
        rewind:./global/* | rewind:./pg_*/* | rewind:pg_wal/*) [ "$(stat -c %U -- "$1" 2>/dev/null)" != "$account" ] ;;
        *) return 1 ;;
    esac
}

# find_obstacles: prints folders that cannot be emptied and files that cannot be removed. That
# a file is immutable can be seen only where there is lsattr.
find_obstacles() {
    set -- .
    for link in pg_wal pg_tblspc/*; do
        [ ! -h "$link" ] || set -- "$@" "$link/"
    done
    find "$@" -name lost+found -prune -o \
        -type d ! \( -readable -writable -executable \) -prune -print -o \
        \( -path './base/*' -o -path '*pg_tblspc/*/*/*' \) -prune -o \
        -type f ! -writable -print 2>/dev/null | while IFS= read -r found; do
        if [ -d "$found" ] || stuck "$found" || { lsattr -d -- "$found" 2>/dev/null | grep -q '^[^ ]*[ia]'; }; then
            printf '%s\n' "$found"
        fi
    done | head -n 3
}

# check_files: of what is in the way, tells the first in detail.
check_files() {
    cd "$pgdata" || die permission "could not change to $pgdata"
    obstacles=$(find_obstacles)
    mounts_here=''
    read_mounts
    while IFS= read -r point; do
        inner=${point#"$pgdata"/}
        case $inner in
            "$point" | '' | pg_wal | pg_tblspc/*) continue ;;
        esac
        if [ -d "$point" ]; then
            mounts_here=$mounts_here$inner$nl
        else
            obstacles=${obstacles:-./$inner}
        fi
    done <<MOUNTS
$mounts
MOUNTS
    emit mounts "${mounts_here%"$nl"}"
    [ -n "$obstacles" ] || return 0
    first=
    while IFS= read -r found; do
        found=$pgdata/${found#./}
        : "${first:=$found}"
        stat -c '%A %U:%G %n' -- "$found" >&2
    done <<OBSTACLES
$obstacles
OBSTACLES
    emit path "$first"
    if [ -d "$first" ]; then
        case $(stat -c %U:%A -- "$first") in
            "$account":drwx*)
                # not by its mode
                if lsattr -d -- "$first" 2>/dev/null | grep -q '^[^ ]*i'; then
                    emit kind file
                else
                    emit kind readonly
                    emit mount "$(stat -c %m -- "$first")"
                fi
                ;;
            *) emit kind folder ;;
        esac
    elif is_mounted "$first"; then
        emit kind mount
    else
        emit kind file
    fi
    emit owner "$(stat -c %U -- "$first")"
    die in_the_way "$account can neither empty nor remove it"
}

# unreadable: prints the first of the node's own files that save_config.sh could not copy.
unreadable() {
    find_own "$config" "$own"
    while IFS= read -r file; do
        [ -h "$pgdata/$file" ] || [ ! -f "$pgdata/$file" ] || [ -r "$pgdata/$file" ] || {
            printf '%s' "$pgdata/$file"
            break
        }
    done <<FILES
$files
FILES
}

# check_own: the node's own files are copied when the server is down, by lists of their names.
check_own() {
    kind=name
    found=$(find "$pgdata/" -mindepth 1 -maxdepth 1 -name "*$nl*" -print -quit)
    if [ -z "$found" ]; then
        kind=unreadable
        found=$(unreadable)
    fi
    [ -n "$found" ] || return 0
    emit path "$found"
    emit kind "$kind"
    emit owner "$(stat -c %U -- "$found")"
    stat -c '%A %U:%G %n' -- "$found" >&2
    [ "$kind" != name ] || die in_the_way "there is a line break in its name, and it may be the node's own"
    die in_the_way "$account cannot read it, and it is the node's own"
}

# check_rewind OID LOCATION...: pg_rewind reads all that is in the data directory, and removes
# what the primary does not have. It would write into the directory of a tablespace that the
# node lacks, whosever it is: on one machine it may be the primary's own.
check_rewind() {
    for folder in "$pgdata" "$pgdata/pg_wal" "$pgdata"/pg_tblspc/*; do
        if [ -d "$folder/lost+found" ] && [ ! -r "$folder/lost+found" ]; then
            die needs_copy "pg_rewind cannot work with $folder/lost+found, which it may not read"
        fi
        for replaced in "$folder"/.follow_primary_*; do
            case ${replaced##*/} in
                .follow_primary_new) ;; # rewind.sh removes it
                *) [ ! -e "$replaced" ] || die needs_copy "pg_rewind would remove $replaced, which holds replaced data" ;;
            esac
        done
    done
    while [ $# -ge 2 ]; do
        [ -e "$pgdata/pg_tblspc/$1" ] || [ -h "$pgdata/pg_tblspc/$1" ] || check_tablespace "$2"
        shift 2
    done
}

# check_tablespace LOCATION: one that the node lacks.
check_tablespace() {
    for link in "$pgdata"/pg_tblspc/*; do
        # shellcheck disable=SC2039,SC3013 # -ef is in dash and in POSIX.1-2024
        if [ -h "$link" ] && [ "$link" -ef "$1" ]; then
            die needs_copy "$1 was made a tablespace anew after the fork: a rewind would mix up the old and the new one"
        fi
    done
    if [ -n "$(find -H "$1" -mindepth 1 -maxdepth 1 ! -name lost+found 2>/dev/null | head -n 1)" ]; then
        die tablespace_in_use "$1 is a tablespace of the primary; on the node it is not one, and not empty"
    fi
    above=$1
    while [ ! -e "$above" ] && [ -n "$above" ]; do
        above=${above%/*}
    done
    [ -w "${above:-/}" ] || die permission "the primary's tablespace directory $1 is not on the node, and cannot be made"
}

# hba_objection FILE: why a server that starts with this pg_hba.conf will not let db_user in by the
# Unix socket; nothing if it will, or if the file alone does not tell.
hba_objection() {
    case $db_user$db_name in *[[:space:],\"]*) return ;; esac
    LC_ALL=C awk -v role="$db_user" -v database="$db_name" -v account="$account" -v expired="$expired" '
        # Does the list of a field have the name? 1 yes, 0 no, -1 it does not tell.
        function has(list, name, other,    n, i, one, answer) {
            n = split(list, one, ",")
            answer = 0
            for (i = 1; i <= n; i++) {
                if (one[i] == name || one[i] == "\"" name "\"" || one[i] == "all" || one[i] == other)
                    return 1
                if (one[i] ~ /^[+@\/]/ || one[i] ~ /^same(role|group)$/)
                    answer = -1
            }
            return answer
        }
        {
            line = line $0
            if (sub(/\\$/, "", line))
                next
            sub(/#.*/, "", line)
            gsub(/[ \t]*,[ \t]*/, ",", line)
            fields = split(line, field, " ")
            line = ""
            if (field[1] ~ /^include/) {
                decided = 1
                exit
            }
            if (field[1] != "local" || fields < 4)
                next
            in_database = has(field[2], database, role == database ? "sameuser" : "all")
            in_role = has(field[3], role, "all")
            if (!in_database || !in_role)
                next
            decided = 1
            if (in_database > 0 && in_role > 0) {
                if (field[4] == "reject")
                    print "line " NR " rejects it"
                else if (field[4] ~ /^(peer|ident)$/ && fields == 4 && account != role)
                    print "line " NR " lets in only the account of that name, and we are " account
                else if (expired == "yes" && field[4] ~ /^(md5|password|scram-sha-256)$/)
                    print "line " NR " wants its password, which has expired"
            }
            exit
        }
        END { if (!decided) print "no line is for it" }
    ' "$1" 2>/dev/null
}

# check_hba: see hba_objection().
check_hba() {
    [ -f "${config:-$pgdata/postgresql.conf}" ] || return 0
    written_value unix_socket_directories default
    [ -n "$value" ] || return 0
    file_of hba_file "$pgdata/pg_hba.conf"
    hba=$value
    [ -r "$hba" ] || return 0
    refusal=$(hba_objection "$hba")
    [ -n "$refusal" ] || return 0
    emit database "$db_name"
    die login_refused "$hba: role \"$db_user\", database \"$db_name\", connections by the Unix socket: $refusal"
}

# check_login: does the running server let the role into the database where the proof is? One that
# is not there yet comes with the primary's data. And would the server start again? Not with a
# pg_hba.conf that it does not understand, which it tells those who may ask; and with such a
# pg_ident.conf it would know no map, of which our login may need one.
check_login() {
    if ask_server -U "$db_user" <<'SQL'; then
SELECT has_function_privilege('pg_hba_file_rules()', 'EXECUTE') AS may,
    coalesce(has_function_privilege(to_regprocedure('pg_ident_file_mappings()'), 'EXECUTE'), false) AS may_map \gset
\set ON_ERROR_STOP 0
\if :may
SELECT current_setting('hba_file') || ', line ' || line_number || ': ' || error FROM pg_hba_file_rules() WHERE error IS NOT NULL;
\if :may_map
SELECT current_setting('ident_file') || ', line ' || line_number || ': ' || error FROM pg_ident_file_mappings() WHERE error IS NOT NULL
    AND EXISTS (SELECT FROM pg_hba_file_rules(), unnest(options) o WHERE type = 'local' AND o LIKE 'map=%');
\endif
\endif
SQL
        [ -z "$answer" ] || die settings_broken "$answer"
        # but the next start reads the file as it is by now
        case $server_host in /* | @*) check_hba ;; esac
        return 0
    fi
    accepts || return 0
    refusal=$said
    export PGDATABASE="$asked_db"
    ask_server -U "$db_user" -v name="$db_name" <<'SQL'
SELECT count(*) FROM pg_database WHERE datname = :'name'
SQL
    [ "$answer" != 0 ] || return 0
    emit database "$db_name"
    die login_refused "$refusal"
}

dir=
trap '[ -z "$dir" ] || rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM PIPE
account=$(id -un)
emit account "$account"
connect_with "$passfile" "$db_name"
LC_ALL=C
export LC_ALL

check_awake
check_programs psql pg_isready pg_ctl
case $method in
    rewind) check_programs pg_rewind ;;
    copy) check_programs pg_basebackup ;;
esac
[ -e "$pgdata/PG_VERSION" ] || exit 0
# in a process of its own: a start does not come from the data directory, and where it comes from,
# a relative hba_file does
[ "$method" = restart ] || (check_files) || exit 1
[ "$method" != rewind ] || check_rewind "$@"
[ "$untouched" = yes ] || exit 0
[ "$method" = restart ] || check_own
check_start
if server_pid && lock_file "$pgdata/postmaster.pid"; then
    case $lock_status in
        ready*) check_login ;;
    esac
else
    check_hba
fi
exit 0
