# control.sh - what pg_controldata says of a data directory; for the scripts that read it as they
# read lib.sh. The caller has set bin.
# shellcheck shell=sh disable=SC2154

# read_control PGDATA: sets control to what it says. Returns 1 if the control file cannot be read,
# or is damaged: then it comes with a warning, in words of its version.
read_control() {
    control=$("$bin/pg_controldata" "$1" 2>&1) || return 1
    case $control in
        *WARNING:* | *' warning: '*) return 1 ;;
    esac
}

# control_value NAME: prints what it says of that.
control_value() {
    printf '%s\n' "$control" | sed -n "s/^$1: *//p"
}
