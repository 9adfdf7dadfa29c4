# port.sh - which server has the node's port, and who else may have it; for survey.sh.
#
# A lock file names one address of a server, as somebody wrote it, and there may be no lock
# file, or one that we may not read. So the sockets tell that listen in this network namespace.
# Seen from the node, such a socket is
#   at     on an address of the node, or on all of them
#   near   on 127.0.0.1 or ::1
#   own    on another 127.x address: servers that share a port, as on a machine that plays
#          several
#   apart  on another address of this machine
# A server with sockets of several kinds is at, else own or apart, for it can be reached there;
# one without a TCP socket is near. On systems without Linux's /proc nothing is found.
# shellcheck shell=sh disable=SC2034,SC2154

# list_sockets: sets sockets to a line "INODE PORT PLACE UID ADDRESS" for each socket that
# listens; PLACE is file for a server's socket file, which has no address. The node has $addresses.
list_sockets() {
    order=
    { read -r order </sys/kernel/cpu_byteorder; } 2>/dev/null ||
        case $(printf '\001\000' | od -An -tu2) in *' 1') order=little ;; esac
    sockets=$(awk -v order="$order" -v addresses="$addresses" '
            function hex(digits,    value, i) {
                for (i = 1; i <= length(digits); i++)
                    value = value * 16 + index("0123456789abcdef", substr(digits, i, 1)) - 1
                return value + 0
            }
            # the kernel writes words of four bytes as numbers
            function in_order(digits,    out, i, word) {
                if (order != "little")
                    return digits
                for (i = 1; i < length(digits); i += 8) {
                    word = substr(digits, i, 8)
                    out = out substr(word, 7, 2) substr(word, 5, 2) substr(word, 3, 2) substr(word, 1, 2)
                }
                return out
            }
            function address_of(digits,    out, i, group) {
                digits = in_order(tolower(digits))
                sub(/^00000000000000000000ffff/, "", digits)
                if (length(digits) == 8)
                    return hex(substr(digits, 1, 2)) "." hex(substr(digits, 3, 2)) "." \
                        hex(substr(digits, 5, 2)) "." hex(substr(digits, 7, 2))
                for (i = 1; i < 32; i += 4) {
                    group = substr(digits, i, 4)
                    sub(/^0+/, "", group)
                    out = out (i > 1 ? ":" : "") (group == "" ? "0" : group)
                }
                return out
            }
            # an address of IPv6 with all its groups
            function expanded(address,    groups, n, missing, i, out) {
                address = tolower(address)
                sub(/%.*/, "", address)
                sub(/^::ffff:/, "", address)
                if (address !~ /:/)
                    return address
                n = split(address, groups, ":")
                missing = 8
                for (i = 1; i <= n; i++)
                    missing -= groups[i] != ""
                for (i = 1; i <= n; i++) {
                    if (groups[i] != "")
                        out = out ":" groups[i]
                    else
                        for (; missing > 0; missing--)
                            out = out ":0"
                }
                return substr(out, 2)
            }
            function place_of(address) {
                if (address == "0.0.0.0" || address == "0:0:0:0:0:0:0:0" || address in of_node)
                    return "at"
                if (address == "127.0.0.1" || address == "0:0:0:0:0:0:0:1")
                    return "near"
                return address ~ /^127\./ ? "own" : "apart"
            }
            function tell(    at, address) {
                if ($4 == "0A" && split($2, at, ":") == 2) {
                    address = address_of(at[1])
                    print $10, hex(tolower(at[2])), place_of(address), $8, address
                } else if ($4 == "00010000" && match($0, /\.s\.PGSQL\.[0-9]+$/))
                    print $7, substr($0, RSTART + 9), "file"
            }
            BEGIN {
                n = split(addresses, list, " ")
                for (i = 1; i <= n; i++)
                    of_node[expanded(list[i])] = 1
                # a file that is not there would end it, were it an argument
                n = split("tcp tcp6 unix", list, " ")
                for (i = 1; i <= n; i++)
                    while ((getline <("/proc/net/" list[i])) > 0)
                        tell()
            }')
}

# list_postmasters: sets postmasters to a line "PID PORT LISTEN DIRECTORY" for each server here
# that we may look into; LISTEN is the first address that it listens on, as its lock file has it,
# or "-". Starts no process.
list_postmasters() {
    postmasters=''
    # a postmaster's working directory is its data directory, as that of its children
    for lock in /proc/[0-9]*/cwd/postmaster.pid; do
        process=${lock#/proc/}
        process=${process%%/*}
        owner_listen=''
        { read -r owner_pid && [ "$owner_pid" = "$process" ] && read -r owner_dir && read -r _ &&
            read -r owner_port && { ! read -r _ || read -r owner_listen || :; }; } 2>/dev/null <"$lock" || continue
        ! resolve "$owner_dir" || owner_dir=$resolved
        postmasters="$postmasters$process $owner_port ${owner_listen:--} $owner_dir$nl"
    done
}

# told_owner ADDRESS: sets port_owner, where the lock files tell which server has the port at this
# address of the node: one says so, or one alone has the port, on all addresses. Else returns 1.
# So it is on most nodes, and nobody's sockets need to be looked at.
told_owner() {
    port_owner='' alone=yes
    while read -r process owner_port owner_listen owner_dir; do
        [ "$owner_port" = "$port" ] || continue
        # shellcheck disable=SC2039,SC3013 # -ef is in dash and in POSIX.1-2024
        [ "/proc/$process/ns/net" -ef /proc/self/ns/net ] || return
        case $owner_listen:$alone in
            "$1":*)
                port_owner=$owner_dir
                return
                ;;
            '*:yes' | 0.0.0.0:yes | :::yes) port_owner=$owner_dir ;;
            *) port_owner='' ;;
        esac
        alone=no
    done <<POSTMASTERS
$postmasters
POSTMASTERS
    [ -n "$port_owner" ]
}

# list_servers: sets servers to a line "PID PORT PLACE ADDRESSES DIRECTORY" for each of
# $postmasters; ADDRESSES is a list with commas, or "-".
list_servers() {
    servers='' paths='' descriptors=''
    [ -n "$postmasters" ] || return 0
    while read -r process _; do
        [ -z "$process" ] || paths="$paths /proc/$process/fd"
    done <<POSTMASTERS
$postmasters
POSTMASTERS
    # shellcheck disable=SC2086 # words
    descriptors=$nl$(find $paths -lname 'socket:*' -printf '%h %l\n' 2>/dev/null)$nl
    while read -r process owner_port _ owner_dir; do
        [ -n "$process" ] || continue
        place='' owner_addresses='' fields=$IFS IFS=$nl
        set -f
        # not from a here-document, which the shell would read byte by byte, for each server
        for socket in $sockets; do
            case $descriptors in
                *"$nl/proc/$process/fd socket:[${socket%% *}]$nl"*) ;;
                *) continue ;;
            esac
            case $socket in *' file') continue ;; esac
            owner_addresses=$owner_addresses${owner_addresses:+,}${socket##* }
            socket=${socket#* * }
            case ${socket%% *}:$place in
                at:* | own:near | apart:near | *:) place=${socket%% *} ;;
            esac
        done
        set +f
        IFS=$fields
        servers="$servers$process $owner_port ${place:-near} ${owner_addresses:--} $owner_dir$nl"
    done <<POSTMASTERS
$postmasters
POSTMASTERS
}

# servers_at PLACE: sets found to the lines of servers that have the port there, and count to
# their number.
servers_at() {
    found='' count=0
    while read -r process owner_port place rest; do
        [ "$owner_port:$place" = "$port:$1" ] || continue
        found=$process\ $owner_port\ $place\ $rest
        count=$((count + 1))
    done <<SERVERS
$servers
SERVERS
}

# find_holder: sets holder to who else listens on the port of the node, in words, if anybody
# does, and holder_seen to whether we may look into that process.
find_holder() {
    while read -r inode socket_port socket_place uid address; do
        case $socket_port:$socket_place in "$port:at" | "$port:near") ;; *) continue ;; esac
        case $descriptors in *"socket:[$inode]$nl"*) continue ;; esac
        user=$(getent passwd "$uid")
        user=${user%%:*}
        process=$(find /proc/[0-9]*/fd -lname "socket:\[$inode\]" -printf '%h\n' 2>/dev/null | head -n 1)
        process=${process#/proc/}
        process=${process%/fd}
        if [ -n "$process" ]; then
            title_of "$process"
            holder="process $process of user ${user:-$uid}, which listens on $address: $title"
            holder_seen=yes
        else
            holder="a process of user ${user:-$uid} that user $(id -un) may not look into, which listens on $address"
            holder_seen=no
            return
        fi
    done <<SOCKETS
$sockets
SOCKETS
}

# emit_servers: tells of each server here its place, port, process, system identifier, user, the
# device and inode of its data directory, its addresses and its data directory.
emit_servers() {
    while read -r process owner_port place owner_addresses owner_dir; do
        [ -n "$process" ] || continue
        # shellcheck disable=SC2046 # words
        set -- $(od -An -tu8 -N8 "$owner_dir/global/pg_control" 2>/dev/null || echo 0) \
            $(stat -Lc '%U %d:%i' -- "$owner_dir" 2>/dev/null || echo '? 0:0')
        emit "server.$process" "$place $owner_port $process $* $owner_addresses $owner_dir"
    done <<SERVERS
$servers
SERVERS
}

# look_for_servers ADDRESS...: of the node
look_for_servers() {
    addresses=$*
    list_sockets
    list_servers
    servers_at at
}

# find_port_owner: sets port_owner to the data directory of the server that has the node's port.
# Where there is none, tells what there is instead.
find_port_owner() {
    port_owner='' holder='' holder_seen=''
    # which address it has come to, sshd knows
    # shellcheck disable=SC2086 # words
    set -- ${SSH_CONNECTION:-}
    list_postmasters
    if [ $# -eq 4 ] && told_owner "$3"; then
        emit port_owner "$port_owner"
        return
    fi
    port_owner=''
    look_for_servers "${3:-}" "$host"
    case $count:$host in
        0:*[!0-9.]*)
            # a name can have more addresses; or here, by /etc/hosts, one that nobody else knows
            # shellcheck disable=SC2046 # words
            look_for_servers "${3:-}" $(getent ahosts "$host" | sed 's/[[:space:]].*//')
            ;;
    esac
    if [ "$count" -eq 0 ]; then
        find_holder
        servers_at near
        [ "$holder_seen" != no ] || count=0
    fi
    if [ "$count" -eq 1 ]; then
        # shellcheck disable=SC2086 # words
        read -r _ _ _ _ port_owner <<FOUND
$found
FOUND
    fi
    emit port_owner "$port_owner"
    [ -z "$port_owner" ] || return 0
    emit port_servers "$count"
    emit port_holder "$holder"
    emit_servers
}
