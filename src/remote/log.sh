# log.sh - where a server's log is, and what its WAL receiver said last in it; for the scripts
# that read it as they read lib.sh.
# shellcheck shell=sh disable=SC2034,SC2154

# find_log: sets log to the newest log of the server of $pgdata, process $pid, and kind to its
# format: jsonlog, csvlog or stderr. If we cannot read it, log is '', and kind tells where it
# goes: journal, nowhere or unknown. Starts no process where a file tells.
find_log() {
    log='' kind=unknown
    if [ -r "$pgdata/current_logfiles" ]; then
        # formats that name the process of each line come first
        while read -r format name; do
            case $kind:$format in
                unknown:* | stderr:csvlog | *:jsonlog) kind=$format log=$name ;;
            esac
        done <"$pgdata/current_logfiles"
        case $log in
            '' | /*) ;;
            *) log=$pgdata/$log ;;
        esac
    else
        log=$(readlink "/proc/${pid:-none}/fd/2" 2>/dev/null)
        kind=stderr
        case $log in
            /dev/null) kind=nowhere ;;
            socket:*) kind=journal ;;
            /dev/* | *' (deleted)' | [!/]* | '') kind=unknown ;;
        esac
    fi
    case $kind in
        jsonlog | csvlog | stderr) [ -f "$log" ] && [ -r "$log" ] || kind=unknown log='' ;;
        *) log='' ;;
    esac
}

# new_of_log: prints what the log has gained, 64 kB at most, since it was the file log_file of
# log_size bytes.
new_of_log() {
    from=1
    [ "$log" != "$log_file" ] || from=$((${log_size:-0} + 1))
    tail -c "+$from" "$log" 2>/dev/null | tail -c 65536
}

# The words by which a server calls an error FATAL, in the languages that it speaks.
fatal='(FATALT?E?|ВАЖНО|ФАТАЛЬНО|致命错误|致命錯誤|치명적오류|ფატალური)'

# last_words: prints what ended the WAL receiver last, of what is new in the log. Two of the
# formats name the process of each line. In the third a line is known by what it speaks of: WAL,
# the primary, its host and port.
last_words() {
    case $kind in
        jsonlog)
            new_of_log | grep '"backend_type":"walreceiver"' | grep -E '"error_severity":"(FATAL|ERROR|PANIC)"' | tail -n 1 |
                sed -n 's/.*"message":"\(\([^"\]\|\\.\)*\)".*/\1/p' | sed 's/\\n/ /g; s/\\t/ /g; s/\\\(.\)/\1/g'
            ;;
        csvlog)
            new_of_log | LC_ALL=C awk '
                {
                    record = record (record == "" ? "" : " ") $0
                    if (gsub(/"/, "\"", record) % 2)
                        next
                    if (record ~ /,"walreceiver"(,|$)/ && record !~ /,00000,/)
                        last = record
                    record = ""
                }
                END {
                    # the message follows the SQLSTATE
                    if (!match(last, /,[0-9A-Z][0-9A-Z][0-9A-Z][0-9A-Z][0-9A-Z],"/))
                        exit
                    last = substr(last, RSTART + RLENGTH)
                    gsub(/""/, "\001", last)
                    sub(/".*/, "", last)
                    gsub("\001", "\"", last)
                    print last
                }'
            ;;
        stderr)
            new_of_log | LC_ALL=C awk -v fatal="$fatal" -v host="$host" -v port="$port" '
                function take() {
                    if (message ~ /WAL|walreceiver|primary|timeline|replication/ ||
                        (host != "" && index(message, host)) || (port != "" && index(message, port)))
                        last = message
                    message = ""
                }
                /^\t/ { if (message != "") message = message " " substr($0, 2); next }
                { take() }
                match($0, fatal " ?: ") {
                    message = substr($0, RSTART + RLENGTH)
                    sub(/^ +/, "", message)
                }
                END { take(); if (last != "") print last }'
            ;;
    esac | cut -c 1-1000
}
