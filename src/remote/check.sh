#!/bin/sh
# check.sh - tries on a node what a job is going to need there, and changes nothing.
#
# arguments:
#   COMMAND ...           (positional) of the settings node_start_command, node_stop_command,
#                         node_reload_command, in this order; '' = none
#
# prints:
#   missing_tools       programs of the system that are not there
#   missing_programs    those of PostgreSQL
#   library             version of the extension's library there; '' = none is found
#   library_file        where it was found, or looked for
#   command_N           why the Nth command could not be run
#   no_sudo             1 = there is no sudo for it
#   sudoers             the line that lets sudo run those that it would not; '' = none
set -u
# shellcheck source=src/remote/lib.sh
. "${0%/*}/lib.sh"

# missing COMMAND...: sets missing to those that there are none of.
missing() {
    missing=
    for program in "$@"; do
        command -v "$program" >/dev/null 2>&1 || missing="$missing${missing:+ }${program##*/}"
    done
}

# find_library: sets library and library_file. Where it usually is, is looked for first: pg_config
# would be one more process.
find_library() {
    library=
    for dir in "${bin%/*}/lib" "${bin%/*}/lib/postgresql" "${bin%/*}/lib64" ''; do
        [ -n "$dir" ] || dir=$("$bin/pg_config" --pkglibdir 2>/dev/null)
        library_file=$dir/follow_primary.so
        [ -r "$library_file" ] || continue
        library=$(exec grep -a -o -m 1 'follow_primary library version [0-9][0-9.]*' "$library_file")
        library=${library%%"$nl"*}
        library=${library##* }
        : "${library:=unknown}"
        break
    done
}

# permit USER PROGRAM [ARGUMENT ...]: adds to sudoers that it may be run as USER. What sudoers would
# take for the end of an argument has a backslash before it.
permit() {
    program=$2
    case $2 in
        */*) ;;
        *)
            # not by command -v, to which some are the shell's own
            program=$(
                set -f
                IFS=:
                # sudo looks into the last two, whatever the PATH
                for dir in $PATH /usr/sbin /sbin; do
                    [ ! -x "$dir/$2" ] || { printf '%s\n' "$dir/$2" && break; }
                done
            )
            ;;
    esac
    [ -n "$program" ] || return
    sudoers="$sudoers${sudoers:+, }"
    [ "$permitted_as" = "$1" ] || sudoers="$sudoers($1) NOPASSWD: "
    permitted_as=$1
    shift 2
    sudoers="$sudoers$(printf '%s\n' "$program${1+ }$*" | sed 's/[,:=\\]/\\&/g')"
}

# may_run COMMAND: could the command line be run, as far as that can be known without running it?
# sudo is asked whether it would. If not, sets message, and returns 1; no_sudo and sudoers tell of
# what sudo lacks.
may_run() {
    case $1 in
        # more than one simple command: of its first word alone
        *[\;\&\|\<\>\(\)\$\`]*)
            set -f
            # shellcheck disable=SC2086 # words, as the shell will see them
            set -- $1
            set +f
            set -- "$1"
            ;;
        *) eval "set -- $1" 2>/dev/null || { message="a shell does not understand it" && return 1; } ;;
    esac
    if [ "${1##*/}" != sudo ]; then
        message="there is no program $1 on the PATH of $(id -un)"
        command -v "$1" >/dev/null 2>&1
        return
    fi
    sudo=$1 options='' as=root
    shift
    while [ $# -gt 0 ]; do
        case $1 in
            -u) as=${2:-} && options="$options -u ${2:-}" && shift ;;
            -u*) as=${1#-u} && options="$options $1" ;;
            -g | -h | -p | -C | -r | -t | -U) options="$options $1 ${2:-}" && shift ;;
            --) shift && break ;;
            -*) options="$options $1" ;;
            *) break ;;
        esac
        shift
    done
    # shellcheck disable=SC2086 # words
    if ! command -v "$sudo" >/dev/null 2>&1; then
        message="there is no program sudo on the PATH of $(id -un)"
        no_sudo=1
    else
        message=$("$sudo" -n $options -l -- "$@" 2>&1) && return
        message="sudo would not run \"$*\" for $(id -un) without a password${message:+: }$message"
    fi
    [ $# = 0 ] || permit "$as" "$@"
    return 1
}

missing flock awk sed grep od stat readlink find sync dd truncate wc sort df du timeout
emit missing_tools "$missing"
missing "$bin/postgres" "$bin/pg_ctl" "$bin/pg_controldata" "$bin/pg_rewind" "$bin/pg_basebackup" \
    "$bin/pg_waldump" "$bin/psql"
emit missing_programs "$missing"

find_library
emit library "$library"
emit library_file "$library_file"

n=0 no_sudo='' sudoers='' permitted_as=''
for command in "$@"; do
    n=$((n + 1))
    [ -z "$command" ] || may_run "$command" || emit "command_$n" "$message"
done
emit no_sudo "$no_sudo"
emit sudoers "${sudoers:+$(id -un) ALL=$sudoers}"

exit 0
