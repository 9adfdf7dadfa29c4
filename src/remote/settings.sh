# settings.sh - the settings that a server would start with; for the scripts that read it as they
# read lib.sh.
#
# The server's own program tells a value for certain, but is the start of half a server for each.
# Most settings are in no file, and have their default then.
# shellcheck shell=sh disable=SC2154

# setting NAME [PGDATA]: prints the value. The caller has set config.
setting() {
    "$bin/postgres" -D "${2:-$pgdata}" -c lc_messages=C ${config:+-c config_file="$config"} -C "$1" </dev/null
}

# know_named PGDATA: sets named to the names of the settings in the files that the server reads,
# in lower case, a line each; to ? where a file is included in a way that is not followed here. Sets
# written to their values as the files have them, a line NAME=VALUE each.
know_named() {
    # shellcheck disable=SC2016 # awk's dollars
    named=$(FP_FILE=${config:-$1/postgresql.conf} FP_AUTO=$1/postgresql.auto.conf awk "$awk_quotes"'
        function names_of(file,    line, name, other, folder) {
            if (file in open) {
                print "?"
                return
            }
            open[file] = 1
            folder = file
            sub(/[^\/]*$/, "", folder)
            while ((getline line < file) > 0) {
                sub(/^[ \t]*/, "", line)
                name = tolower(line)
                sub(/[^a-z0-9_.].*$/, "", name)
                if (name !~ /^include(_if_exists|_dir)?$/) {
                    if (name != "") {
                        print name
                        value[name] = unquoted(substr(line, length(name) + 1))
                    }
                    continue
                }
                other = unquoted(substr(line, length(name) + 1))
                if (other ~ /^"/) {
                    print "?"
                    continue
                }
                if (other !~ /^\//)
                    other = folder other
                if (name != "include_dir")
                    names_of(other)
                else if (system("set -- " quoted(other) "/*.conf && [ -e \"$1\" ]") == 0)
                    print "?"
            }
            close(file)
            delete open[file]
        }
        BEGIN {
            names_of(ENVIRON["FP_FILE"])
            names_of(ENVIRON["FP_AUTO"])
            print "="
            for (name in value)
                print name "=" value[name]
        }')
    named=$nl$named
    written=${named##*"$nl=$nl"}
    named=${named%"$nl="*}
    named=${named#"$nl"}
}

# is_named NAME: may a file set it? After know_named.
is_named() {
    case $nl$named$nl in
        *"$nl?$nl"* | *"$nl$1$nl"*) return 0 ;;
    esac
    return 1
}

# value_of NAME DEFAULT [PGDATA]: prints the value, which is DEFAULT if no file sets it. After
# know_named.
value_of() {
    if is_named "$1"; then setting "$1" "${3:-$pgdata}" 2>/dev/null; else printf '%s' "$2"; fi
}

# written_value NAME DEFAULT: sets value to a number or text that needs no server to be understood,
# which is DEFAULT if no file sets it. After know_named. As a rule it starts no process.
written_value() {
    case $nl$named$nl in
        *"$nl?$nl"*) value=$(setting "$1" 2>/dev/null) && return ;;
    esac
    value=$nl$written
    case $value in
        *"$nl$1="*)
            value=${value##*"$nl$1="}
            value=${value%%"$nl"*}
            ;;
        *) value=$2 ;;
    esac
}

# file_of NAME DEFAULT: the same of the name of a file; the server knows where a relative one leads.
file_of() {
    written_value "$1" "$2"
    case $value in
        '' | /*) ;;
        *) value=$(setting "$1" 2>/dev/null) ;;
    esac
}

# is_on NAME DEFAULT: the same of a setting that is on or off, or a third thing.
is_on() {
    written_value "$1" "$2"
    case $value in
        on | off | "$2") ;;
        *) value=$(setting "$1" 2>/dev/null) ;;
    esac
    [ "$value" = on ]
}

# socket_folders LIST: prints the folders that unix_socket_directories lists, a line each. A socket
# in the abstract namespace has none.
socket_folders() {
    fields=$IFS IFS=,
    set -f
    for folder in $1; do
        folder=$(printf '%s' "$folder" | sed 's/^[[:space:]"]*//; s/[[:space:]"]*$//')
        case $folder in
            '' | @*) ;;
            /*) printf '%s\n' "$folder" ;;
            *) printf '%s\n' "$pgdata/$folder" ;;
        esac
    done
    set +f
    IFS=$fields
}

# socket_locks: prints the names that the lock files of the server's sockets have, a line each. After
# know_named.
socket_locks() {
    written_value port 5432
    lock_name=.s.PGSQL.$value.lock
    written_value unix_socket_directories '/var/run/postgresql, /tmp'
    socket_folders "$value" | while IFS= read -r folder; do
        printf '%s\n' "$folder/$lock_name"
    done
}
