# startable.sh - would the server start with its settings as they are now, at the place where it
# is looked for, and replay the primary's WAL? For try.sh, which reads it as it reads lib.sh.
#
# A server that runs may have been started with other settings than these: what somebody has
# written since is only read by the next start, which is the job's. A DBA's command may give
# settings of its own, which win; then only what no command gives is judged.
# shellcheck shell=sh disable=SC2154

# is_given NAME: may the DBA's command to start the server set it, or the script that it runs, as
# the options of the last start tell?
is_given() {
    [ -n "$start_command" ] || return 1
    text=
    [ ! -r "$pgdata/postmaster.opts" ] || read_file "$pgdata/postmaster.opts"
    text="$text $start_command"
    case $text in
        *[!A-Za-z0-9_/.]"$1"=* | *-c"$1"=* | *--"$(printf '%s' "$1" | tr _ -)"=*) return 0 ;;
    esac
    case $1:$text in
        listen_addresses:*[\ \"\']-[hi]*) return 0 ;;
        port:*[\ \"\']-p[\ \"0-9]* | max_connections:*[\ \"\']-N[\ \"0-9]*) return 0 ;;
    esac
    # a service may have PGPORT
    [ "$1" = port ] && ! is_named port
}

# check_place: would it serve these data, on the port that the job asks for?
check_place() {
    written_value data_directory "$pgdata"
    # shellcheck disable=SC2039,SC3013 # -ef is in dash and in POSIX.1-2024
    [ "$value" = "$pgdata" ] || [ "$value" -ef "$pgdata" ] || is_given data_directory ||
        die settings_broken "data_directory is \"$value\": a start would serve that, and not \"$pgdata\""
    written_value port 5432
    [ -z "$port" ] || [ "$value" = "$port" ] || is_given port ||
        die settings_broken "port is $value: after a start it would not listen on port $port any more"
}

# check_addresses: a server ends that can listen to none of its addresses. Names and IPv6 are not
# judged, nor is a machine to which whole networks are local.
check_addresses() {
    written_value listen_addresses localhost
    wanted=$(printf '%s' "$value" | tr ',' ' ')
    case $wanted in
        *[0-9].*) ;;
        *) return 0 ;;
    esac
    case " $wanted " in *[!0-9.\ ]* | *' 127.'* | *' 0.0.0.0 '*) return 0 ;; esac
    [ -r /proc/net/fib_trie ] && [ "$(cat /proc/sys/net/ipv4/ip_nonlocal_bind 2>/dev/null)" = 0 ] || return 0
    awk -v wanted=" $wanted " '
        $1 == "|--" { address = $2 }
        / host LOCAL/ && (index(wanted, " " address " ") || ($1 != "/32" && address !~ /^127\./)) { found = 1 }
        END { exit found }' /proc/net/fib_trie || return 0
    is_given listen_addresses ||
        die settings_broken "listen_addresses is \"$value\": the machine has no such address, and a server that can listen nowhere ends"
}

# check_lock_files: of a server that is down; another account may have left them.
check_lock_files() {
    [ ! -e "$pgdata/postmaster.pid" ] || [ -r "$pgdata/postmaster.pid" ] ||
        die settings_broken "$pgdata/postmaster.pid is there, and $account cannot read it: remove it, if no server runs there"
    ! is_given port && ! is_given unix_socket_directories || return 0
    list=$(socket_locks)
    while IFS= read -r path; do
        [ -e "$path" ] || continue
        # with the sticky bit, as of /tmp, only who owns the file removes it
        # shellcheck disable=SC2039,SC3065,SC3067 # -O and -k are in dash
        if [ -r "$path" ] && { [ -O "$path" ] || { [ -w "${path%/*}" ] && [ ! -k "${path%/*}" ]; }; }; then continue; fi
        die settings_broken "$path is there, and $account cannot read or remove it: remove it, if no server listens there"
    done <<LIST
$list
LIST
}

# check_needed: a hot standby ends, or stops replaying, where it has less than the primary.
check_needed() {
    is_on hot_standby on || return 0
    for pair in $needed; do
        name=${pair%%=*} least=${pair#*=}
        written_value "$name" "${pair##*/}"
        [ "$value" -ge "${least%/*}" ] 2>/dev/null || is_given "$name" ||
            die settings_broken "$name is $value, lower than the primary's ${least%/*}: a start would end, or not replay its WAL"
    done
}

# absolute NAME: sets path to the file or folder that a setting names.
absolute() {
    case $1 in
        /*) path=$1 ;;
        *) path=$pgdata/$1 ;;
    esac
}

# check_ssl: the server reads its certificate and key when it starts, as be-secure-openssl.c does.
check_ssl() {
    is_on ssl off || return 0
    for pair in ssl_cert_file=server.crt ssl_key_file=server.key ssl_ca_file=; do
        name=${pair%%=*}
        written_value "$name" "${pair#*=}"
        [ -n "$value" ] || continue
        absolute "$value"
        [ -r "$path" ] || die settings_broken "$name is \"$path\", which $account cannot read"
        [ "$name" = ssl_key_file ] || continue
        mode=$(stat -Lc '%u:%a' -- "$path")
        case $mode in
            0:?[04]0 | 0:[04]0 | *:?00 | *:00) ;;
            *) die settings_broken "$name is \"$path\", whose mode is ${mode#*:}: a server takes no key that others may read" ;;
        esac
    done
}

# check_libraries: it loads these. Where its own library folder is not found, nothing is known.
check_libraries() {
    written_value shared_preload_libraries ''
    libraries=$value
    [ -n "$libraries" ] || return 0
    own=''
    for folder in "$("$bin/pg_config" --pkglibdir 2>/dev/null)" "${bin%/*}/lib" "${bin%/*}/lib/postgresql" "${bin%/*}/lib64/pgsql" "${bin%/*}/lib64"; do
        [ -n "$own" ] || [ ! -e "$folder/plpgsql.so" ] || own=$folder
    done
    [ -n "$own" ] || return 0
    written_value dynamic_library_path ''
    search=$value
    IFS=,
    set -f
    # shellcheck disable=SC2086 # words
    set -- $libraries
    set +f
    unset IFS
    for library; do
        library=$(printf '%s' "$library" | sed 's/^[[:space:]"]*//; s/[[:space:]"]*$//')
        is_library "$library" || die settings_broken "shared_preload_libraries has \"$library\", which is not there: install it, or take it out of that setting"
    done
}

# shellcheck disable=SC2016 # the server's name of that folder
# is_library NAME: is there such a library, by dynamic_library_path if the name has no folder?
is_library() {
    case $1 in
        */*) folders=${1%/*} ;;
        *) folders=${search:-\$libdir} ;;
    esac
    while [ -n "$folders" ]; do
        folder=${folders%%:*}
        folders=${folders#"$folder"}
        folders=${folders#:}
        case $folder in '$libdir'*) folder=$own${folder#'$libdir'} ;; esac
        [ ! -f "$folder/${1##*/}" ] && [ ! -f "$folder/${1##*/}.so" ] || return 0
    done
    return 1
}

# check_log_file FOLDER: the file that the server would write to now.
check_log_file() {
    written_value log_timezone GMT
    zone=$value
    # the default has the second in it
    written_value log_filename ''
    [ -n "$value" ] && name=$(TZ=$zone date "+$value") || return 0
    for file in "$1/$name" "$1/${name%.log}.csv" "$1/${name%.log}.json"; do
        [ ! -e "$file" ] || [ -w "$file" ] || die settings_broken "the log file \"$file\" is there, and $account cannot write to it"
    done
}

# check_folders: where it makes its sockets and its log. One folder that is not there is enough.
check_folders() {
    written_value unix_socket_directories "$nl"
    [ "$value" != "$nl" ] || value=$(setting unix_socket_directories 2>/dev/null) # builds differ
    folders=$(socket_folders "$value")
    while IFS= read -r path; do
        [ -z "$path" ] || { [ -d "$path" ] && [ -w "$path" ]; } ||
            die settings_broken "unix_socket_directories has \"$path\", which is not there or not writable for $account"
    done <<FOLDERS
$folders
FOLDERS
    is_on logging_collector off || return 0
    written_value log_directory log
    absolute "$value"
    if [ -e "$path" ]; then
        [ -w "$path" ] || die settings_broken "log_directory is \"$path\", which $account cannot write to"
        check_log_file "$path"
    else
        # the server makes the last of its folders
        [ -w "${path%/*}" ] || die settings_broken "log_directory is \"$path\", which cannot be made"
    fi
}

# fill_folder: makes $dir a data directory that has the settings, and what they name, of the real
# one, and nothing else.
fill_folder() {
    set --
    for entry in "$pgdata"/* "$pgdata"/.[!.]*; do
        case ${entry##*/} in
            PG_VERSION | postmaster.* | base | global) continue ;;
            pg_*) [ ! -d "$entry" ] || continue ;;
        esac
        [ ! -e "$entry" ] || set -- "$@" "$entry"
    done
    mkdir "$dir/global" && cp -- "$pgdata/global/pg_control" "$dir/global/" && cp -- "$pgdata/PG_VERSION" "$dir/" &&
        ln -s -t "$dir" -- "$@"
}

# read_memory: sets memory and swap, in kB, and pages, the huge ones that there are.
read_memory() {
    memory=0 swap=0 pages=0
    while read -r label number _; do
        case $label in
            MemTotal:) memory=$number ;;
            SwapTotal:) swap=$number ;;
            HugePages_Total:) pages=$number ;;
        esac
    done 2>/dev/null </proc/meminfo
}

# rehearse NAME: the server's own program, which goes as far as it has to for the value of such a
# setting: it checks its settings together, loads its libraries, and reads certificate and key. It
# makes no shared memory, no socket and no process. Sets value.
rehearse() {
    timeout 20 "$bin/postgres" -D "$dir" -c lc_messages=C -c config_file="${config:-$pgdata/postgresql.conf}" \
        -c data_directory="$dir" -C "$1" </dev/null >"$dir/value" 2>"$dir/said"
    code=$?
    read_file "$dir/value"
    value=$text
    return "$code"
}

# check_rehearsal: from PostgreSQL 15 on.
check_rehearsal() {
    read_file "$pgdata/PG_VERSION"
    [ "$text" -ge 15 ] 2>/dev/null || return 0
    # a service may be given what such a command needs
    written_value ssl_passphrase_command ''
    [ -z "$start_command" ] || [ -z "$value" ] || return 0
    dir=$(mktemp -d) && fill_folder || return 0
    echo >&2 # a sign of life
    read_memory
    if ! rehearse shared_memory_size; then
        [ "$code" -ne 1 ] || die settings_broken "$(cat "$dir/said")"
        return 0
    fi
    needed_mb=$value
    if is_on huge_pages try; then
        written_value huge_page_size 0
        [ "$value" = 0 ] && rehearse shared_memory_size_in_huge_pages || return 0
        more=$(cat /proc/sys/vm/nr_overcommit_hugepages 2>/dev/null)
        [ "$value" -le $((pages + ${more:-0})) ] ||
            die settings_broken "huge_pages is on, and its shared memory needs $value of them: the machine has $pages"
    else
        # 1: as much as anybody asks for
        overcommit=$(cat /proc/sys/vm/overcommit_memory 2>/dev/null)
        [ "${overcommit:-1}" = 1 ] || [ "$memory" -eq 0 ] || [ "$needed_mb" -le $(((memory + swap) / 1024)) ] ||
            die settings_broken "its shared memory needs $needed_mb MB: memory and swap of the machine have $(((memory + swap) / 1024)) MB"
    fi
}

# check_start: what a server has to find when it starts, and one that runs may have found then.
check_start() {
    [ -f "${config:-$pgdata/postgresql.conf}" ] || return 0
    said=$(setting data_directory 2>&1 >/dev/null) || die settings_broken "$said"
    know_named "$pgdata"
    check_place
    check_addresses
    check_needed
    file_of hba_file "$pgdata/pg_hba.conf"
    hba=$value
    written_value hba_file /
    case ${start_command:+service}$value in
        service[!/]*) ;; # relative to where that command starts the server
        *) [ -z "$hba" ] || { [ -f "$hba" ] && [ -r "$hba" ]; } || die settings_broken "hba_file is \"$hba\", which $account cannot read" ;;
    esac
    check_ssl
    check_libraries
    if server_pid; then check_folders; else check_lock_files; fi # what starts it may make its folders
    check_rehearsal
}
