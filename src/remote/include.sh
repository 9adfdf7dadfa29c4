# include.sh - the line in the node's postgresql.conf by which it reads the settings of a standby;
# for the scripts that read it as they read lib.sh. From PostgreSQL 12 on.
#
# The file ends in exactly one include_if_exists of recovery_file. The caller has set config and
# recovery_file.
# shellcheck shell=sh disable=SC2154

# edited FILE AWK_PROGRAM TO: puts the program's output into TO. Returns 1 if the program ends with
# status 3, which says that FILE can stay as it is.
edited() {
    awk "$2" "$1" >"$3"
    case $? in
        0) return 0 ;;
        3) return 1 ;;
        *) die config_not_writable "could not read $1" ;;
    esac
}

# know_include: sets config_target to the file that has the line. Relative names in it start from
# where config is, before a symbolic link is followed.
know_include() {
    FP_DIRECTORY=${config%/*}
    if [ -h "$config" ]; then
        config_target=$(readlink -f "$config")
    else
        config_target=$config
    fi
    [ -f "$config_target" ] || die config_unreadable "$config is not there"
    FP_FILE=$recovery_file
    case $recovery_file in
        *[\\\']*) quoted=$(printf '%s' "$recovery_file" | sed "s/\\\\/&&/g; s/'/''/g") ;;
        *) quoted=$recovery_file ;;
    esac
    # shellcheck disable=SC2089,SC2090 # quotes for the server to read
    FP_LINE="include_if_exists = '$quoted'"
    # shellcheck disable=SC2090
    export FP_DIRECTORY FP_FILE FP_LINE
}

# with_include TO: puts the text of config_target with the line into TO. Returns 1 if it has the
# line already.
with_include() {
    # shellcheck disable=SC2016 # awk's dollars
    edited "$config_target" "$awk_quotes"'
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
            if (n == NR - 1 && ours(named(text[NR])) && kept[n] !~ /^[ \t\r]*$/)
                exit 3
            while (n > 0 && kept[n] ~ /^[ \t\r]*$/)
                n--
            for (i = 1; i <= n; i++)
                print kept[i]
            print ENVIRON["FP_LINE"]
        }' "$1"
}
