# gate.sh - until a started standby is proven to follow, its restore_command fetches only WAL that
# this primary vouches for; for the scripts that read it as they read lib.sh.
#
# A server asks its archive before it streams. There the former primary, if it lived on, has put
# WAL behind the fork, in segments that have the names which the standby asks for; nor need a
# newer timeline there be this primary's. So configure.sh adds a restore_command to the last file
# that is read: it asks the script $gate first, and runs the command that is in force otherwise.
# clean.sh takes the line away when the node is proven, and repoint.sh when it puts back the
# settings; the next job finds what is left, as it finds all that is in $work. Without $gate the
# line does what the command itself does: before 14 it stays in force until the next start.
# shellcheck shell=sh disable=SC2154

gate=$work/gate
gate_line="restore_command = 'follow_primary_gate="

# gated COMMAND: sets text to COMMAND behind the gate, in one line: ALTER SYSTEM writes all of
# postgresql.auto.conf anew, and a newline in a value so that no server reads the file again.
gated() {
    one_line "$1"
    # shellcheck disable=SC2016 # for the shell that the server starts
    text="follow_primary_gate='$(printf '%s' "$gate" | sed "s/'/'\\\\''/g; s/%/%%/g")"\''; if test -e "$follow_primary_gate" && ! sh "$follow_primary_gate" %f; then exit 1; fi; '$one_line
}

# write_gate NAMES: makes the script, which lets files of these names pass: a line has the first
# and the last of a range.
write_gate() {
    put "$gate" <<GATE
# Until follow_primary has proven that the node follows: may its restore_command fetch the file \$1?
LC_ALL=C exec awk -v f="\$1" 'length(f) == length(\$1) && f "" >= \$1 "" && f "" <= \$2 "" { ok = 1 } END { exit !ok }' <<'NAMES'
$1
NAMES
GATE
}

# without_gate FILE: prints the settings file without what gate_command() of configure.sh added.
without_gate() {
    awk -v line="$gate_line" '
        index($0, line) != 1 && $0 != "# follow_primary removes this line when the node is proven to follow." { print }' "$1"
}

# lift_gate: the node is proven. Returns 1 if a file cannot be written.
lift_gate() {
    [ -e "$gate" ] || return 0
    for file in "$pgdata/postgresql.auto.conf" "$pgdata/recovery.conf"; do
        grep -qs "^$gate_line" "$file" || continue
        file=$(readlink -f -- "$file")
        if ! { cp -p -- "$file" "$file.fp_tmp" && without_gate "$file" >"$file.fp_tmp" &&
            sync "$file.fp_tmp" && mv -f -- "$file.fp_tmp" "$file"; }; then
            rm -f -- "$file.fp_tmp"
            return 1
        fi
    done
    read_file "$pgdata/PG_VERSION"
    if [ "$text" -ge 14 ] && server_pid; then
        kill -HUP "$pid"
    fi
    rm -f "$gate"
}
