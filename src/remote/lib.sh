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

# connect_with PASSFILE: how psql and its kin connect: never asking anybody,
# with that password file ('' = libpq's own default).
connect_with() {
    case $1 in
        '') ;;
        [~]/*) export PGPASSFILE="$HOME/${1#??}" ;;
        *) export PGPASSFILE="$1" ;;
    esac
    export PGCONNECT_TIMEOUT=10 PGAPPNAME=follow_primary PGOPTIONS='-c statement_timeout=10s'
}
