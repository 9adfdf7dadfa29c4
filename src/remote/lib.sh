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
        *\\* | *"$nl"*)
            printf '%s=%s\n' "$1" "$(printf '%s' "$2" | LC_ALL=C sed -e 's/\\/\\\\/g' |
                LC_ALL=C awk '{ printf "%s%s", (NR > 1 ? "\\n" : ""), $0 }')"
            ;;
        *)
            printf '%s=%s\n' "$1" "$2"
            ;;
    esac
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
