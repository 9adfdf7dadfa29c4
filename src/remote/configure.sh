#!/bin/sh
# configure.sh - makes a data directory a standby that uses given settings.
#
# usage: configure.sh PGDATA BIN_DIR CONFIG_FILE RECOVERY_FILE
#                     SERVER_VERSION_NUM CONTENT LIVE
#                     [EXPECT_CONNINFO EXPECT_SLOT [EXPECT_RESTORE]]
#   CONFIG_FILE    '' = PGDATA/postgresql.conf
#   RECOVERY_FILE  where CONTENT goes (absolute); before 12 it is
#                  PGDATA/recovery.conf whatever this says, which keeps its
#                  other settings, and a port and listen_addresses in CONTENT
#                  go to CONFIG_FILE
#   CONTENT        the text of the settings file
#   LIVE           no = the server is stopped: read the effective values back
#                  and compare them with the expected ones
#                  yes = it is a running standby, or nothing is done
#                  check = change nothing, only tell what could not be written
#
# From 12 on CONFIG_FILE ends in exactly one include_if_exists of RECOVERY_FILE,
# and postgresql.auto.conf, which would win over it, loses the settings that
# decide whom the standby follows and how far it recovers.  The former file is
# kept as PGDATA.follow_primary/config/postgresql.auto.conf.before.
# When all is as it should be, a mark with phase=rewound or swapped goes to
# phase=ready, and the server can be started.
# backup_label is never touched: a fresh copy needs it.
#
# prints: changed=yes|no     whether CONFIG_FILE or postgresql.auto.conf was
# fails:  promoted           LIVE is yes, and the server is a primary
#         overridden         something wins over CONTENT; the names are on stderr
#         config_unreadable  the server cannot read its configuration
#         config_not_writable
set -u
# shellcheck source=src/remote/lib.sh
. "${0%/*}/lib.sh"

pgdata=$1
bin=$2
config=${3:-$pgdata/postgresql.conf}
recovery=$4
version=$5
content=$6
live=$7
expect_conninfo=${8:-}
expect_slot=${9:-}
work=$pgdata.follow_primary
changed=no

data_umask
LC_ALL=C
export LC_ALL

# install_file TEMPORARY FILE: makes TEMPORARY the FILE, durably.
install_file() {
    sync "$1" 2>/dev/null
    mv -f "$1" "$2" || die config_not_writable "could not replace $2"
}

# Files whose new text is in FILE.fp_tmp.
pending=

# install_pending: makes them what they are to be, in order, durably. What a
# repoint keeps for its undo is durable before.
install_pending() {
    [ -n "$pending" ] || return 0
    set --
    [ ! -e "$work/repoint/complete" ] || set -- "$work/repoint/complete" "$work/repoint" "$work"
    while IFS= read -r file; do
        set -- "$@" "$file.fp_tmp"
    done <<PENDING
${pending%"$nl"}
PENDING
    sync "$@" 2>/dev/null
    while IFS= read -r file; do
        mv -f "$file.fp_tmp" "$file" || die config_not_writable "could not replace $file"
    done <<PENDING
${pending%"$nl"}
PENDING
    pending=
}

# put_text FILE TEXT: for the owner alone if there is a password in it.
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

# edited FILE AWK_PROGRAM: puts the program's output into edit.tmp. Returns 1
# when it ends with status 3, which says that FILE can stay as it is.
edited() {
    awk "$2" "$1" >"$edit"
    case $? in
        0) return 0 ;;
        3) return 1 ;;
        *) die config_not_writable "could not read $1" ;;
    esac
}

# replace_in_place FILE: by edit.tmp, such that a full disk costs nothing of it. As a
# rule it only gets longer.
replace_in_place() {
    size=$(wc -c <"$1")
    cp "$1" "$work/edit.old" || die config_not_writable "could not save $1"
    if cmp -s -n "$size" "$1" "$work/edit.tmp"; then
        tail -c +"$((size + 1))" "$work/edit.tmp" >>"$1"
    else
        overwrite "$1" "$work/edit.tmp"
    fi || {
        overwrite "$1" "$work/edit.old"
        die config_not_writable "could not write $1, which is what it was"
    }
    sync "$1" 2>/dev/null
    rm -f "$work/edit.old"
}

# replace FILE: by edit.tmp, with the mode and owner that it has. In place only
# where there is no other way.
replace() {
    changed=yes
    if [ "$live" = check ]; then
        [ -w "${1%/*}/" ] || [ -w "$1" ] || die config_not_writable "$1 is not the SSH user's to write"
    elif [ -w "${1%/*}/" ]; then
        if ! { cp -p "$1" "$1.fp_tmp" && cat "$work/edit.tmp" >"$1.fp_tmp"; }; then
            rm -f "$1.fp_tmp"
            die config_not_writable "could not write $1.fp_tmp"
        fi
        pending=$pending$1$nl
    else
        # a directory that belongs to somebody else, a file that is ours
        [ -w "$1" ] || die config_not_writable "could not write $1"
        install_pending
        replace_in_place "$1"
    fi
}

make_folder() {
    [ -d "$1" ] || mkdir -p "$1" || die config_not_writable "could not make $1"
}
if [ "$live" = check ]; then
    [ "$version" -ge 120000 ] && [ -f "$config" ] || exit 0
    edit=/dev/null
else
    # a promotion removes that file, and nobody wants it back
    if [ "$live" = yes ] && [ "$version" -ge 120000 ] && [ ! -e "$pgdata/standby.signal" ] &&
        "$bin/pg_controldata" "$pgdata" 2>/dev/null | grep -q '^Database cluster state: *in production'; then
        die promoted "the server of $pgdata is a primary by now"
    fi
    make_folder "$work"
    edit=$work/edit.tmp
fi

# The end: settings were all that a rewound node still needed.
finish() {
    install_pending
    # of a repoint, clean.sh takes it away
    [ "$live" = yes ] || [ ! -e "$work/edit.tmp" ] || rm -f "$work/edit.tmp"
    if grep -Eqx 'phase=(rewound|swapped)' "$work/mark" 2>/dev/null; then
        sed 's/^phase=.*/phase=ready/' "$work/mark" >"$work/mark.tmp" ||
            die config_not_writable "could not write $work/mark.tmp"
        install_file "$work/mark.tmp" "$work/mark"
        allow_start
    fi
    emit changed "$changed"
    exit 0
}

# Which settings decide whom a standby follows and how far it recovers.
FP_RESTORE=no
case $nl$content in
    *"${nl}restore_command "* | *"${nl}restore_command="*) FP_RESTORE=yes ;;
esac
export FP_RESTORE
# shellcheck disable=SC2016 # awk's dollars
decides='
    function decides(line,    name) {
        name = tolower(line)
        sub(/^[ \t]*/, "", name)
        sub(/[^a-z0-9_.].*$/, "", name)
        return name ~ /^(standby_mode|primary_conninfo|primary_slot_name)$/ ||
            name ~ /^recovery_target(_(name|time|xid|lsn|inclusive|timeline|action))?$/ ||
            (name == "restore_command" && ENVIRON["FP_RESTORE"] == "yes")
    }'

if [ "$version" -lt 120000 ]; then
    # It knows no settings of the server: those go to the end of CONFIG_FILE.
    own=$(printf '%s\n' "$content" | grep -E '^(port|listen_addresses) = ')
    if [ -n "$own" ]; then
        content=$(printf '%s\n' "$content" | grep -Ev '^(port|listen_addresses) = ')
        { cat "$config" && printf '%s\n' "$own"; } >"$work/edit.tmp" ||
            die config_not_writable "could not read $config"
        replace "$config"
    fi
    # Its others can be nowhere else: a delay, an archive_cleanup_command.
    if [ -f "$pgdata/recovery.conf" ]; then
        others=$(awk "$decides$nl"'!decides($0) && !/^# Written by follow_primary/' "$pgdata/recovery.conf") ||
            die config_not_writable "could not read $pgdata/recovery.conf"
        content=${content%"$nl"}${others:+$nl$others}
    fi
    put_text "$pgdata/recovery.conf" "$content"
    finish
fi

# become_standby: whoever starts this node from now on starts a standby.
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

if [ "$live" = check ]; then
    [ ! -d "${recovery%/*}" ] || [ -w "${recovery%/*}/" ] ||
        die config_not_writable "${recovery%/*} is not the SSH user's to write"
else
    become_standby
    # a rewind removes a folder that the primary does not have
    make_folder "${recovery%/*}"
    # so that a link to it is known below
    [ -e "$recovery" ] || : >"$recovery" || die config_not_writable "could not write $recovery"
    put_text "$recovery" "$content"
fi

# The settings file's directory, before a symbolic link is followed, is what
# relative names in it mean.
FP_DIRECTORY=${config%/*}
if [ -h "$config" ]; then
    config_target=$(readlink -f "$config")
else
    config_target=$config
fi
[ -f "$config_target" ] || die config_unreadable "$config is not there"
FP_FILE=$recovery
case $recovery in
    *[\\\']*) quoted=$(printf '%s' "$recovery" | sed "s/\\\\/&&/g; s/'/''/g") ;;
    *) quoted=$recovery ;;
esac
# shellcheck disable=SC2089,SC2090 # quotes for the server to read
FP_LINE="include_if_exists = '$quoted'"
# shellcheck disable=SC2090
export FP_DIRECTORY FP_FILE FP_LINE

# shellcheck disable=SC2016 # awk's dollars
if edited "$config_target" "$awk_unquoted"'
    # The file that an include_if_exists line names, or "".
    function named(line,    out) {
        if (tolower(line) !~ /^[ \t]*include_if_exists[ \t=\047]/)
            return ""
        sub(/^[ \t]*[A-Za-z_]+/, "", line)
        out = unquoted(line)
        if (out != "" && substr(out, 1, 1) != "/")
            out = ENVIRON["FP_DIRECTORY"] "/" out
        return out
    }
    function quoted(word) {
        gsub(/\047/, "\047\\\\\047\047", word)
        return "\047" word "\047"
    }
    # Is it our file, perhaps by way of a symbolic link?
    function ours(file,    end) {
        end = file
        sub(/.*\//, "/", end)
        if (file == "" || substr(ENVIRON["FP_FILE"], length(ENVIRON["FP_FILE"]) - length(end) + 1) != end)
            return 0
        return file == ENVIRON["FP_FILE"] ||
            system("[ " quoted(file) " -ef " quoted(ENVIRON["FP_FILE"]) " ]") == 0
    }
    { text[NR] = $0 }
    END {
        for (i = 1; i <= NR; i++) {
            if (!ours(named(text[i])))
                kept[++n] = text[i]
        }
        if (n == NR - 1 && text[NR] == ENVIRON["FP_LINE"] && kept[n] !~ /^[ \t\r]*$/)
            exit 3
        while (n > 0 && kept[n] ~ /^[ \t\r]*$/)
            n--
        for (i = 1; i <= n; i++)
            print kept[i]
        print ENVIRON["FP_LINE"]
    }'; then
    replace "$config_target"
fi
[ "$live" != check ] || exit 0

auto=$pgdata/postgresql.auto.conf
# has_settings FILE: as a rule it has comments alone, which takes no process to see.
has_settings() {
    while IFS= read -r line || [ -n "$line" ]; do
        case $line in
            '' | '#'*) ;;
            *) return 0 ;;
        esac
    done <"$1"
    return 1
}
if [ -f "$auto" ] && has_settings "$auto"; then
    # shellcheck disable=SC2016 # awk's dollars
    if edited "$auto" "$decides"'
        !decides($0) { kept[++n] = $0 }
        END {
            if (n == NR)
                exit 3
            for (i = 1; i <= n; i++)
                print kept[i]
        }'; then
        if [ ! -e "$work/config/postgresql.auto.conf.before" ]; then
            make_folder "$work/config"
            cp -p "$auto" "$work/config/before.tmp" ||
                die config_not_writable "could not save $auto"
            mv -f "$work/config/before.tmp" "$work/config/postgresql.auto.conf.before" ||
                die config_not_writable "could not save $auto"
        fi
        replace "$auto"
    fi
fi

if [ "$live" != no ] || [ $# -lt 9 ]; then
    finish
fi
install_pending

# effective NAME: its value as the server would see it.
effective() {
    if [ "$config" = "$pgdata/postgresql.conf" ]; then
        "$bin/postgres" -D "$pgdata" -C "$1" </dev/null
    else
        "$bin/postgres" -D "$pgdata" -c config_file="$config" -C "$1" </dev/null
    fi
}

# expect NAME VALUE: notes NAME when something else is in force. In a process of
# its own, for each has to start a server.
checks=
expect() {
    {
        value=$(effective "$1") || exit 2
        [ "$value" = "$2" ]
    } 2>/dev/null &
    checks="$checks $!=$1"
}
expect primary_conninfo "$expect_conninfo"
expect primary_slot_name "$expect_slot"
expect recovery_target_timeline latest
if [ $# -ge 10 ]; then
    expect restore_command "${10}"
fi
wrong=
for check in $checks; do
    wait "${check%%=*}"
    case $? in
        0) ;;
        1) wrong="$wrong ${check#*=}" ;;
        *)
            effective "${check#*=}" >/dev/null # what it says is for the user
            die config_unreadable "the server cannot read its configuration"
            ;;
    esac
done
if [ -n "$wrong" ]; then
    # never the values: a conninfo may hold a password
    die overridden "set otherwise elsewhere in the node's configuration:$wrong"
fi
finish
