# standby.sh - what makes a server a standby, from PostgreSQL 12 on and before; for the scripts
# that read it as they read lib.sh.
#
# Before 12, recovery.conf does. Its settings are no settings of the server, which cannot be
# asked for them.
# shellcheck shell=sh disable=SC2154

# make_standby PGDATA VERSION_NUM: from now on a start of PGDATA starts a standby.
make_standby() {
    if [ "$2" -ge 120000 ]; then
        touch "$1/standby.signal" || return
        sync "$1/standby.signal" "$1" 2>/dev/null || :
    elif [ ! -e "$1/recovery.conf" ]; then
        printf "standby_mode = 'on'\n" >"$1/recovery.conf"
    fi
}

# An awk function: does the line set what decides whom a standby follows and how far it recovers?
# A restore_command that an earlier job left (gate.sh) does, too; any with FP_RESTORE=yes.
# shellcheck disable=SC2016,SC2034 # awk's dollars; for the scripts
decides='
    function decides(line,    name) {
        name = tolower(line)
        sub(/^[ \t]*/, "", name)
        sub(/[^a-z0-9_.].*$/, "", name)
        return name ~ /^(standby_mode|primary_conninfo|primary_slot_name)$/ ||
            name ~ /^recovery_target(_(name|time|xid|lsn|inclusive|timeline|action))?$/ ||
            name ~ /^(promote_)?trigger_file$/ ||
            (name == "restore_command" && (ENVIRON["FP_RESTORE"] == "yes" || index(line, ENVIRON["FP_GATE"]) == 1))
    }'

targets='recovery_target recovery_target_name recovery_target_time recovery_target_xid recovery_target_lsn'

# has_targets PGDATA: would a server that is started there as a standby have a recovery target, or
# more than one, which it refuses? The caller reads settings.sh, and has set config.
has_targets() {
    read_file "$1/PG_VERSION"
    if [ "$text" -lt 12 ]; then
        [ -n "$(recovery_conf "$1" | sed -n 's/^sql.target=//p')" ]
        return
    fi
    for target in $targets; do
        value=$(setting "$target" "$1" 2>/dev/null) && [ -z "$value" ] || return 0
    done
    return 1
}

# empty_targets PGDATA: in the last file that is read.
empty_targets() {
    file=$1/postgresql.auto.conf
    [ "$text" -ge 12 ] || file=$1/recovery.conf
    [ ! -h "$file" ] || file=$(readlink -f -- "$file")
    cp -p -- "$file" "$file.fp_tmp" || return
    if [ "$text" -lt 12 ]; then
        grep -Eiv '^[[:blank:]]*recovery_target(_name|_time|_xid|_lsn)?[^_a-z]' "$file" >"$file.fp_tmp"
    else
        {
            awk 1 "$file"
            for target in $targets; do
                echo "$target = ''"
            done
        } >"$file.fp_tmp"
    fi
    sync "$file.fp_tmp" && mv -f -- "$file.fp_tmp" "$file"
}

# started_with TEXT: sets names to the settings that options in TEXT, a command line, set, and that
# win over those which make a server a standby. TEXT may be a command of the DBA's or a
# postmaster.opts, whose names may have - for _.
started_with() {
    names=''
    set -f
    for name in primary?conninfo primary?slot?name restore?command recovery?target?timeline recovery?target \
        recovery?target?name recovery?target?time recovery?target?xid recovery?target?lsn promote?trigger?file; do
        case " $1" in
            *[!A-Za-z0-9_/.]$name=* | *-c$name=*) names="$names${names:+ }$name" ;;
        esac
    done
    set +f
    [ -z "$names" ] || names=$(echo "$names" | tr '?' _ | sed 's/ /, /g')
}

# recovery_conf PGDATA: prints set.NAME=VALUE for the settings in recovery.conf that survey.sh
# asks a server of 12 or later for, in the same form: the delay in milliseconds, the values
# escaped as emit does; and sql.target=NAME for a recovery target. Prints nothing where there is
# no recovery.conf.
recovery_conf() {
    [ -f "$1/recovery.conf" ] || return 0
    read -r major <"$1/PG_VERSION"
    [ "$major" = 11 ] || return 0
    awk "$awk_quotes"'
        function milliseconds(value,    unit) {
            unit = value
            gsub(/[0-9 ]/, "", unit)
            if (unit == "d") value *= 86400000
            else if (unit == "h") value *= 3600000
            else if (unit == "min") value *= 60000
            else if (unit == "s") value *= 1000
            return sprintf("%.0f", value)
        }
        {
            sub(/^[ \t]*/, "")
            name = tolower($0)
            sub(/[^a-z_].*$/, "", name)
            if (name ~ /^(primary_conninfo|primary_slot_name|restore_command|recovery_target_timeline|recovery_min_apply_delay)$/)
                set[name] = unquoted(substr($0, length(name) + 1))
            else if (name ~ /^recovery_target(_(name|time|xid|lsn))?$/ && unquoted(substr($0, length(name) + 1)) != "")
                print "sql.target=" name
        }
        END {
            for (name in set) {
                gsub(/\\/, "&&", set[name])
                if (set[name] != "")
                    print "set." name "=" (name == "recovery_min_apply_delay" ? milliseconds(set[name]) : set[name])
            }
        }' "$1/recovery.conf"
}
