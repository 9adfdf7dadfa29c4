#!/bin/sh
# configure.sh - makes a data directory a standby that uses given settings.
#
# arguments:
#   config           the node's postgresql.conf; '' = the one in pgdata
#   recovery_file    where content goes (absolute), before other settings that the file has.
#                    Before 12 it is recovery.conf in pgdata; a port and listen_addresses in
#                    content go to config then
#   version          server_version_num of the primary
#   content          the text of the settings file
#   live             yes = the server is a running standby, or nothing is done
#                    no = it is stopped: the values in force are read back and compared with
#                    the expected ones
#   expect_conninfo  what primary_conninfo is to be; '' = nothing is compared
#   expect_slot      what primary_slot_name is to be
#   restore_command  live is yes: the one that will be in force
#   served           what the restore_command may fetch until the node is proven: a line has the
#                    first and the last name of a range of files (gate.sh)
#
# From 12 on, config ends in exactly one include_if_exists of recovery_file. postgresql.auto.conf,
# which would win over it, loses the settings that decide whom the standby follows and how far it
# recovers; it is kept as config/postgresql.auto.conf.before in PGDATA.follow_primary/job.
# backup_label is never touched: a fresh copy needs it. When all is as it should be, a mark
# "rewound" or "swapped" becomes "ready", and the server can be started.
#
# prints:
#   changed  yes | no, whether config or postgresql.auto.conf was
#   gated    yes | no, whether the restore_command is behind a gate
# fails:
#   promoted           live is yes, and the server is a primary
#   overridden         something wins over content; the names are on stderr
#   config_unreadable  the server cannot read its configuration
#   config_not_writable
set -u
# shellcheck source=src/remote/lib.sh
. "${0%/*}/lib.sh"
# shellcheck source=src/remote/mark.sh
. "${0%/*}/mark.sh"
# shellcheck source=src/remote/include.sh
. "${0%/*}/include.sh"
# shellcheck source=src/remote/settings.sh
. "${0%/*}/settings.sh"
# shellcheck source=src/remote/standby.sh
. "${0%/*}/standby.sh"
# shellcheck source=src/remote/gate.sh
. "${0%/*}/gate.sh"

: "${config=}" "${recovery_file?}" "${version?}" "${content?}" "${live=no}" "${expect_conninfo=}" "${expect_slot=}" \
    "${restore_command=}" "${served=}"
config=${config:-$pgdata/postgresql.conf}
auto=$pgdata/postgresql.auto.conf
edit=$work/edit.tmp
put_reason=config_not_writable
changed=no
pending= # files whose new text is in FILE.fp_tmp, a line each

# replace_in_place FILE TEXT_FILE: FILE gets its text, and loses nothing if the disk is full. As a
# rule it only gets longer.
replace_in_place() {
    size=$(wc -c <"$1")
    cp "$1" "$work/edit.old" || die config_not_writable "could not save $1"
    if cmp -s -n "$size" "$1" "$2"; then
        tail -c +"$((size + 1))" "$2" >>"$1"
    else
        overwrite "$1" "$2"
    fi || {
        overwrite "$1" "$work/edit.old"
        die config_not_writable "could not write $1, which is what it was"
    }
    sync "$1" 2>/dev/null
    rm -f "$work/edit.old"
}

# replace_mounted FILE: no name can be given to a file that is mounted, as into a container.
replace_mounted() {
    [ -w "$1" ] || die config_not_writable "could not replace $1"
    replace_in_place "$1" "$1.fp_tmp"
    rm -f "$1.fp_tmp"
}

# install_pending: makes these files what they are to be, in order, durably. Before that, it
# flushes what a repoint keeps for its undo.
install_pending() {
    [ -n "$pending" ] || return 0
    set --
    [ ! -e "$work/repoint/complete" ] || set -- "$work/repoint/complete" "$work/repoint" "$work" "$kept"
    while IFS= read -r file; do
        set -- "$@" "$file.fp_tmp"
    done <<PENDING
${pending%"$nl"}
PENDING
    sync "$@" 2>/dev/null
    while IFS= read -r file; do
        mv -f "$file.fp_tmp" "$file" 2>/dev/null || replace_mounted "$file"
    done <<PENDING
${pending%"$nl"}
PENDING
    pending=
}

# put_text FILE TEXT: FILE is to become TEXT; only the owner may read it if there is a password
# in it.
put_text() {
    mask=$(umask)
    case $2 in *password*) umask 077 ;; esac
    if ! printf '%s\n' "${2%"$nl"}" >"$1.fp_tmp"; then
        rm -f "$1.fp_tmp"
        die config_not_writable "could not write $1.fp_tmp"
    fi
    umask "$mask"
    pending=$pending$1$nl
}

# replace FILE: FILE is to become $edit, and keeps its mode and owner. In place only where there
# is no other way.
replace() {
    changed=yes
    if [ -w "${1%/*}/" ]; then
        if ! { cp -p "$1" "$1.fp_tmp" && cat "$edit" >"$1.fp_tmp"; }; then
            rm -f "$1.fp_tmp"
            die config_not_writable "could not write $1.fp_tmp"
        fi
        pending=$pending$1$nl
    else
        # the folder belongs to somebody else, the file to us
        [ -w "$1" ] || die config_not_writable "could not write $1"
        install_pending
        replace_in_place "$1" "$edit"
    fi
}

make_folder() {
    [ -d "$1" ] || mkdir -p "$1" || die config_not_writable "could not make $1"
}

# use_restore_command: a copy that a command made fetches WAL as that command has set, until it
# streams. From then on content has what the node had before (take_copy.sh).
use_restore_command() {
    [ -s "$work/restore_command" ] || return 0
    if [ "$live" = no ]; then
        content=$(printf '%s\n' "$content" | grep -v '^restore_command *=')
        read_file "$work/restore_command"
    else
        case $nl$content in
            *"${nl}restore_command "* | *"${nl}restore_command="*) return ;;
        esac
        read_file "$work/own_restore_command"
    fi
    content=${content%"$nl"}$nl$text
}

# replace_restore_command: lets decides() below take a restore_command for one that decides if
# content has one, or if a copy's is to go.
replace_restore_command() {
    FP_RESTORE=no
    [ ! -s "$work/restore_command" ] || FP_RESTORE=yes
    case $nl$content in
        *"${nl}restore_command "* | *"${nl}restore_command="*) FP_RESTORE=yes ;;
    esac
    # shellcheck disable=SC2089,SC2090 # a quote in it
    export FP_GATE="$gate_line"
    export FP_RESTORE
}

# refuse_promoted: a promotion removes standby.signal, and nobody wants it back.
refuse_promoted() {
    if [ "$version" -ge 120000 ] && [ ! -e "$pgdata/standby.signal" ] &&
        "$bin/pg_controldata" "$pgdata" 2>/dev/null | grep -q '^Database cluster state: *in production'; then
        die promoted "the server of $pgdata is a primary by now"
    fi
}

# is_own_file FILE: is it the node's? After a rewind or a copy it may be the primary's, of its
# time as a standby.
is_own_file() {
    case $mark_phase in '' | stopped) return 0 ;; esac
    case $1 in
        "$pgdata"/*) own_path=${1#"$pgdata"/} ;;
        *) return 0 ;;
    esac
    grep -Fqsx -e "$own_path" "$work/config/files" || grep -Fqsx -e "${own_path%%/*}" "$work/config/folders"
}

# know_names: sets names to those of the settings that content has, a line each, after a newline.
know_names() {
    names=$nl fields=$IFS IFS=$nl
    set -f
    for line in $content; do
        line=${line%%[ =]*}
        names=$names${line:+$line$nl}
    done
    set +f
    IFS=$fields
}

# has_others FILE: may it have a line that content does not replace? As a rule an earlier job wrote
# it. Starts no process.
has_others() {
    while IFS= read -r line || [ -n "$line" ]; do
        case $line in '# Written by follow_primary'* | '# With one of these a standby would'*) continue ;; esac
        name=${line%%[!A-Za-z0-9_.]*}
        case $names in *"$nl${name:--}$nl"*) ;; *) return 0 ;; esac
    done <"$1"
    return 1
}

# add_others FILE: adds to content what else the file has, such as a delay.
add_others() {
    [ -f "$1" ] && is_own_file "$1" || return 0
    know_names
    has_others "$1" || return 0
    # not the values: one may be a password, and other users may see an environment
    others=$(FP_NAMES=$names awk "$decides"'
        function name_of(line) {
            line = tolower(line)
            sub(/^[ \t]*/, "", line)
            sub(/[^a-z0-9_.].*$/, "", line)
            return line
        }
        BEGIN {
            for (i = split(ENVIRON["FP_NAMES"], text, "\n"); i > 0; i--)
                set[name_of(text[i])] = 1
            delete set[""]
        }
        /^# (Written by follow_primary|With one of these a standby would)/ { next }
        !decides($0) && !(name_of($0) in set)' "$1") ||
        die config_not_writable "could not read $1"
    content=${content%"$nl"}${others:+$nl$others}
}

# write_recovery_conf: before 12.
write_recovery_conf() {
    # settings of the server go to the end of config
    own=$(printf '%s\n' "$content" | grep -E '^(port|listen_addresses) = ')
    if [ -n "$own" ]; then
        content=$(printf '%s\n' "$content" | grep -Ev '^(port|listen_addresses) = ')
        { cat "$config" && printf '%s\n' "$own"; } >"$edit" || die config_not_writable "could not read $config"
        replace "$config"
    fi
    add_others "$pgdata/recovery.conf"
    put_text "$pgdata/recovery.conf" "$content"
}

# become_standby: from now on a start of the node starts a standby.
become_standby() {
    [ -e "$pgdata/standby.signal" ] || touch "$pgdata/standby.signal" ||
        die config_not_writable "could not make $pgdata/standby.signal"
    [ ! -e "$pgdata/recovery.signal" ] || rm -f "$pgdata/recovery.signal"
    if [ -e "$pgdata/recovery.conf" ]; then
        make_folder "$work/config"
        mv -f "$pgdata/recovery.conf" "$work/config/recovery.conf.before" ||
            die config_not_writable "could not move $pgdata/recovery.conf away"
    fi
}

# write_settings: from 12 on.
write_settings() {
    # a rewind removes a folder that the primary does not have
    make_folder "${recovery_file%/*}"
    # so that include.sh knows a symbolic link to it
    [ -e "$recovery_file" ] || : >"$recovery_file" || die config_not_writable "could not write $recovery_file"
    add_others "$recovery_file"
    put_text "$recovery_file" "$content"
    know_include
    ! with_include "$edit" || replace "$config_target"
}

# has_settings FILE: as a rule it has comments alone. Starts no process.
has_settings() {
    while IFS= read -r line || [ -n "$line" ]; do
        case $line in
            '' | '#'*) ;;
            *) return 0 ;;
        esac
    done <"$1"
    return 1
}

# clear_auto_conf: takes what decides out of postgresql.auto.conf, and keeps the file as it was.
clear_auto_conf() {
    [ -f "$auto" ] && has_settings "$auto" || return 0
    # shellcheck disable=SC2016 # awk's dollars
    edited "$auto" "$decides"'
        !decides($0) { kept[++n] = $0 }
        END {
            if (n == NR)
                exit 3
            for (i = 1; i <= n; i++)
                print kept[i]
        }' "$edit" || return 0
    if [ ! -e "$work/config/postgresql.auto.conf.before" ]; then
        make_folder "$work/config"
        cp -p "$auto" "$work/config/before.tmp" ||
            die config_not_writable "could not save $auto"
        mv -f "$work/config/before.tmp" "$work/config/postgresql.auto.conf.before" ||
            die config_not_writable "could not save $auto"
    fi
    replace "$auto"
}

# real_command: prints the restore_command that is in force. A running server before 14 would not
# take another one.
real_command() {
    if [ "$live" = yes ]; then
        [ "$version" -lt 140000 ] || printf '%s' "$restore_command"
    elif [ "$version" -ge 120000 ]; then
        know_named "$pgdata"
        value_of restore_command ''
    else
        command=$(recovery_conf "$pgdata" | sed -n 's/^set.restore_command=//p')
        case $command in
            *\\*) command=$(printf '%b' "$command") ;;
        esac
        printf '%s' "$command"
    fi
}

# gate_command: sets command to the restore_command that is in force from now on, which is
# gated, if there is one.
gate_command() {
    command=$(real_command)
    [ ! -e "$gate" ] || rm -f "$gate"
    [ -n "$command" ] || return 0
    write_gate "$served"
    gated "$command"
    command=$text
    file=$auto
    [ "$version" -ge 120000 ] || file=$pgdata/recovery.conf
    {
        [ ! -e "$file" ] || without_gate "$file"
        echo '# follow_primary removes this line when the node is proven to follow.'
        printf 'restore_command = %s\n' "$(quoted_setting "$command")"
    } >"$edit" || die config_not_writable "could not write $edit"
    if [ -e "$file" ]; then
        replace "$file"
    else
        put_text "$file" "$(cat "$edit")"
    fi
    install_pending
}

# expect NAME VALUE: begins to look whether this is the value in force. In a process of its own,
# for each look has to start a server.
checks=
expect() {
    {
        value=$(setting "$1") || exit 2
        [ "$value" = "$2" ]
    } 2>/dev/null &
    checks="$checks $!=$1"
}

# auto_conf_decides: has postgresql.auto.conf a line of its own that decides, or reads a file that
# may? Starts no process.
auto_conf_decides() {
    [ -f "$auto" ] || return 1
    while read -r line || [ -n "$line" ]; do
        case $line in
            '' | '#'* | [Rr][Ee][Ss][Tt][Oo][Rr][Ee]_[Cc][Oo][Mm][Mm][Aa][Nn][Dd]*) ;;
            [Ii][Nn][Cc][Ll][Uu][Dd][Ee]* | [Pp][Rr][Ii][Mm][Aa][Rr][Yy]_* | [Rr][Ee][Cc][Oo][Vv][Ee][Rr][Yy]_* | [Pp][Rr][Oo][Mm][Oo][Tt][Ee]_*) return 0 ;;
        esac
    done <"$auto"
    return 1
}

# check_effective: dies if another value than content's is in force. The server reads its file,
# which ends in ours, and then postgresql.auto.conf: where one setting of ours is in force, and
# that file has none of them, they all are.
check_effective() {
    expect primary_conninfo "$expect_conninfo"
    [ -z "$command" ] || expect restore_command "$command"
    if auto_conf_decides; then
        expect primary_slot_name "$expect_slot"
        expect recovery_target_timeline latest
        for target in recovery_target recovery_target_name recovery_target_time recovery_target_xid recovery_target_lsn; do
            expect "$target" ''
        done
        [ "$version" -ge 160000 ] || expect promote_trigger_file ''
    fi
    wrong=
    for check in $checks; do
        wait "${check%%=*}"
        case $? in
            0) ;;
            1) wrong="$wrong ${check#*=}" ;;
            *)
                setting "${check#*=}" >/dev/null # what it says is for the user
                die config_unreadable "the server cannot read its configuration"
                ;;
        esac
    done
    if [ -n "$wrong" ]; then
        # never the values: a conninfo may hold a password
        die overridden "set otherwise elsewhere in the node's configuration:$wrong"
    fi
}

# become_ready: settings were all that the node still needed.
# shellcheck disable=SC2154 # mark_method: read_mark()
become_ready() {
    case $mark_phase in
        rewound | swapped)
            write_mark ready method="$mark_method"
            allow_start
            ;;
    esac
}

data_umask

use_restore_command
replace_restore_command
[ "$live" = no ] || refuse_promoted
make_folder "$work"
read_mark
if [ "$version" -lt 120000 ]; then
    write_recovery_conf
    install_pending
    gate_command
else
    become_standby
    write_settings
    clear_auto_conf
    install_pending
    gate_command
    [ "$live" = yes ] || [ -z "$expect_conninfo" ] || check_effective
fi
if [ "$live" = no ]; then
    # where the server runs, clean.sh removes it
    [ ! -e "$edit" ] || rm -f "$edit"
fi
become_ready
emit changed "$changed"
if [ -n "$command" ]; then emit gated yes; else emit gated no; fi
exit 0
