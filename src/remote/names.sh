# names.sh - which files in a data directory are the node's own, so that neither a rewind nor a
# copy may replace them; for save_config.sh, which reads it as it reads lib.sh.
#
# They are what settings, connection strings, commands and access rules name in PGDATA, its
# logs, its links, and what an account keeps there whose home directory it is. A folder at the
# top of PGDATA that holds such a file is the node's as a whole, for a script needs more than the
# settings name. What PostgreSQL itself keeps is never the node's own.
#
# All lists are of paths relative to PGDATA, each ended by a newline. To search a file would be
# a process.
# shellcheck shell=sh disable=SC2034,SC2154

# listed LIST LINE: is the line in the list?
listed() {
    case $nl$1 in
        *"$nl$2$nl"*) return 0 ;;
    esac
    return 1
}

# For an awk program: names(TEXT) prints all that may be a path in a text, be it a
# path, a list, a connection string or a shell command, a line each. Whether it is
# one, the files tell.
# shellcheck disable=SC2016 # awk's dollars
awk_names='
    function name(word,    at) {
        sub(/^\$\{?(PGDATA|PWD)\}?\//, "./", word)
        sub(/^(~|\$\{?HOME\}?)\//, ENVIRON["HOME"] "/", word)
        if (word == "" || length(word) > 4096)
            return
        if (!(word in named)) {
            named[word] = 1
            print "path", word
        }
        # the folder of what %f, %p and others stand in
        if ((at = index(word, "%")) > 0) {
            word = substr(word, 1, at - 1)
            if (sub(/\/[^\/]*$/, "", word))
                name(word)
        }
        if (folder != "" && word !~ /^\//)
            print "path", folder "/" word
    }
    function parts(word, depth,    n, i, piece) {
        name(word)
        if ((n = split(word, piece, /[=:,;]/)) > 1)
            for (i = 1; i <= n; i++)
                name(piece[i])
        # to the right of the first =, for there may be one in a name; and -i/a/key
        if ((i = index(word, "=")) > 0)
            name(substr(word, i + 1))
        if (word ~ /^-[A-Za-z]./)
            name(substr(word, 3))
        if (depth < 4 && word ~ /[ \t|&;<>()\140"\047\\]/)
            names(word, depth + 1)
    }
    function names(text, depth,    i, c, quote, word, before, was) {
        was = folder
        folder = ""
        text = text " "
        for (i = 1; i <= length(text); i++) {
            c = substr(text, i, 1)
            if (quote != "") {
                if (c == quote)
                    quote = ""
                else if (c == "\\" && quote == "\"")
                    word = word substr(text, ++i, 1)
                else
                    word = word c
            } else if (c == "\047" || c == "\"")
                quote = c
            else if (c == "\\")
                word = word substr(text, ++i, 1)
            else if (index(" \t|&;<>()\140", c) > 0) {
                if (before == "cd" && word != "") {
                    name(word)
                    folder = word
                    sub(/^\$\{?(PGDATA|PWD)\}?\//, "./", folder)
                } else if (word != "")
                    parts(word, depth)
                before = word
                word = ""
            } else
                word = word c
        }
        folder = was
    }
    function decoded(uri,    at, digits, code) {
        digits = "0123456789abcdef"
        while ((at = match(uri, /%[0-9A-Fa-f][0-9A-Fa-f]/)) > 0) {
            code = (index(digits, tolower(substr(uri, at + 1, 1))) - 1) * 16 + index(digits, tolower(substr(uri, at + 2, 1))) - 1
            uri = substr(uri, 1, at - 1) sprintf("%c", code) substr(uri, at + 3)
        }
        return uri
    }
    function names_in(text,    n, i, piece) {
        if (text ~ /^postgres(ql)?:\/\//) {
            n = split(text, piece, /[?&=]/)
            for (i = 1; i <= n; i++)
                name(decoded(piece[i]))
            return
        }
        name(text)
        # a list, whose names may have blanks in them
        n = split(text, piece, /[ \t]*[:,;][ \t]*/)
        for (i = 1; i <= n; i++)
            name(piece[i])
        names(text, 1)
    }
'

# names_of FILE: what a settings or an access file refers to, as lines "KIND PATH":
# file and dir (of *.conf), which are relative to the file; conf, another of that
# kind, and path, which may be one, relative to PGDATA.
names_of() {
    awk "$awk_quotes$awk_names"'
        function included(rest) {
            sub(/^[ \t]*=?[ \t]*/, "", rest)
            if (rest !~ /^"/)
                return unquoted(rest)
            sub(/^"/, "", rest)
            sub(/".*/, "", rest)
            return rest
        }
        {
            rest = $0
            sub(/^[ \t]*/, "", rest)
            setting = tolower(rest)
            sub(/[^a-z0-9_.].*$/, "", setting)
            rest = substr(rest, length(setting) + 1)
            if (setting == "include" || setting == "include_if_exists")
                print "file", included(rest)
            else if (setting == "include_dir")
                print "dir", included(rest)
            else if (setting == "hba_file" || setting == "ident_file")
                print "conf", unquoted(rest)
            else if (setting != "")
                names_in(unquoted(rest))
            # @file in an access file
            rest = $0
            sub(/#.*/, "", rest)
            while (match(rest, /(^|[ \t,])@("[^"]*"|[^ \t,"]+)/)) {
                one = substr(rest, RSTART, RLENGTH)
                sub(/^[^@]*@/, "", one)
                gsub(/"/, "", one)
                print "file", one
                rest = substr(rest, RSTART + RLENGTH)
            }
        }' "$1"
}

# inside BASE PATH: sets rel to PATH as seen from PGDATA; or to its whole name, and
# returns 1, if it is not in there. BASE is what a relative PATH starts from, itself
# relative to PGDATA, or whole.
inside() {
    case $2 in
        /*) rel=$2 ;;
        *)
            case $1 in
                /*) rel=$1$2 ;;
                *) rel=$pgdata/$1$2 ;;
            esac
            ;;
    esac
    # lexically, for a file that is a symbolic link is kept as one
    rel=$rel/
    case $rel in
        */./* | *//* | */../*)
            rel=$(printf '%s\n' "$rel" | sed -e ':a' -e 's,/\./,/,g; s,///*,/,g' \
                -e 's,/[^/]*[^/.][^/]*/\.\./,/,; ta')
            ;;
    esac
    rel=${rel%/}
    case $rel in
        '' | */..) return 1 ;;
        "$pgdata"/*) ;;
        # PGDATA by another name
        *) outside=$(cd -P -- "${rel%/*}/" 2>/dev/null && pwd) && rel=${outside%/}/${rel##*/} ;;
    esac
    case $rel in
        "$pgdata"/*) rel=${rel#"$pgdata"/} ;;
        *) return 1 ;;
    esac
}

# is_postgresqls REL: does PostgreSQL keep that itself?
is_postgresqls() {
    case $1 in
        PG_VERSION | postmaster.pid | postmaster.opts | current_logfiles | *.signal | promote | \
            backup_label | backup_label.old | tablespace_map | tablespace_map.old | backup_manifest | \
            recovery.done | .follow_primary_*) return 0 ;;
        base | global | pg_commit_ts | pg_dynshmem | pg_logical | pg_multixact | pg_notify | pg_replslot | \
            pg_serial | pg_snapshots | pg_stat | pg_subtrans | pg_tblspc | pg_twophase | \
            pg_wal | pg_xact) return 0 ;;
        pg_stat_tmp) [ ! -h "$pgdata/$1" ] ;;
        # a key may lie anywhere, under a name like one
        base/* | global/* | pg_commit_ts/* | pg_dynshmem/* | pg_logical/* | pg_multixact/* | pg_notify/* | \
            pg_replslot/* | pg_serial/* | pg_snapshots/* | pg_stat/* | pg_stat_tmp/* | pg_subtrans/* | pg_tblspc/* | \
            pg_twophase/* | pg_wal/* | pg_xact/*)
            [ -d "$pgdata/$1" ] && return
            case $1 in
                *.conf | *.crt | *.key | *.pem | *.crl | *.keytab | *.p12 | *.sh) return 1 ;;
            esac
            ;;
        *) return 1 ;;
    esac
}

# is_fixed REL: is PostgreSQL's data within that folder, or the folder within it? A
# tablespace and the WAL may be anywhere.
is_fixed() {
    for location in "$pgdata/pg_wal" "$pgdata"/pg_tblspc/*; do
        [ -h "$location" ] || continue
        location=$(readlink -m -- "$location")
        case $location/ in
            "$pgdata/$1"/*) return 0 ;;
        esac
        case $pgdata/$1/ in
            "$location"/*) return 0 ;;
        esac
    done
    return 1
}

# own_folder REL: notes the folder at the top of PGDATA that is, or holds, the folder REL; if
# that cannot be moved, REL itself.
own_folder() {
    for own_path in "${1%%/*}" "$1"; do
        if ! is_fixed "$own_path"; then
            listed "$folders" "$own_path" || folders=$folders$own_path$nl
            return
        fi
    done
}

# own_file REL: notes a file or a link, and the folder that holds it.
own_file() {
    listed "$files" "$1" || files=$files$1$nl
    [ "$use" = no ] || listed "$used" "$1" || used=$used$1$nl
    case $1 in
        */*) is_postgresqls "${1%/*}" || own_folder "${1%/*}" ;;
    esac
}

# own REL: notes what is there, and what it leads to where that is in PGDATA, too.
own() {
    # the first link on the way, which leads elsewhere
    link=
    rest=$1
    while :; do
        link=$link${link:+/}${rest%%/*}
        [ ! -h "$pgdata/$link" ] || break
        case $rest in
            */*) rest=${rest#*/} ;;
            *) link= && break ;;
        esac
    done
    if [ -n "$link" ]; then
        is_postgresqls "$link" || own_file "$link"
        inside '' "$(readlink -f -- "$pgdata/$1")" || return 0
        [ "$rel" != "$1" ] || return 0
        set -- "$rel"
    fi
    if is_postgresqls "$1"; then
        :
    elif [ -d "$pgdata/$1" ]; then
        own_folder "$1"
    elif [ -f "$pgdata/$1" ]; then
        own_file "$1"
    fi
}

# own_name PATH: notes the file that PATH, relative to PGDATA or whole, names; the name
# of a library may lack its suffix.
own_name() {
    case $1 in
        /*) named=$1 ;;
        *) named=$pgdata/$1 ;;
    esac
    for named in "$named" "$named.so"; do
        [ -e "$named" ] || [ -h "$named" ] || continue
        if inside '' "$named" || inside '' "$(readlink -f -- "$named")"; then
            own "$rel"
        fi
    done
}

# read_conf FILE: notes what a settings or access file refers to; and the file
# itself, where it is in PGDATA.
read_conf() {
    if inside '' "$1"; then
        own "$rel"
    fi
    [ -f "$1" ] && [ -r "$1" ] || return 0
    listed "$visited" "$1" || pending=$pending$1$nl
    visited=$visited$1$nl
}

# follow_conf FILE
follow_conf() {
    list=$(names_of "$1") || die save_failed "could not read $1"
    while read -r kind path; do
        from=
        case $kind in
            file | dir) from=${1%/*}/ ;;
        esac
        [ -n "$path" ] || continue
        ! inside "$from" "$path" || rel=$pgdata/$rel
        case $kind in
            path) own_name "$path" ;;
            dir)
                path=$rel
                own_name "$path"
                for file in "$path"/*.conf; do
                    read_conf "$file"
                done
                ;;
            *) read_conf "$rel" ;;
        esac
    done <<LIST
$list
LIST
}

# find_own CONFIG_FILE NAMES: sets files, folders and needed. NAMES are lines of text
# that name more files of the node's: connection strings, commands.
find_own() {
    files='' folders='' needed='' used='' pending='' visited=''
    use=no
    for link in "$pgdata"/*; do
        [ ! -h "$link" ] || own "${link#"$pgdata"/}"
    done
    for file in "$pgdata/log" "$pgdata/pg_log" "$pgdata/ldaprc" "$pgdata"/.[!.]*; do
        case $file in
            */.s.PGSQL.* | */.follow_primary_*) ;;
            *) own_name "$file" ;;
        esac
    done
    use=yes
    for file in "$pgdata"/*.conf "$pgdata"/*.crt "$pgdata"/*.key "$pgdata"/*.pem "$pgdata"/*.crl; do
        case $file in
            *.conf) read_conf "$file" ;;
            *) own_name "$file" ;;
        esac
    done
    [ -z "$1" ] || read_conf "$1"
    # an sshd looks for keys while the node is worked on
    for file in "$pgdata"/.ssh/*; do
        [ ! -f "$file" ] || own "${file#"$pgdata"/}"
    done
    # pg_rewind removes it, and only it may tell where postgresql.conf is
    [ ! -f "$pgdata/postmaster.opts" ] || files=${files}postmaster.opts$nl
    list=$(printf '%s\n' "$2" | awk "$awk_names"'{ names_in($0) }')
    while read -r _ path; do
        [ -z "$path" ] || own_name "$path"
    done <<LIST
$list
LIST
    while [ -n "$pending" ]; do
        one=${pending%%"$nl"*}
        pending=${pending#*"$nl"}
        follow_conf "$one"
    done
    # what is in a folder goes with it
    all=$files
    files=
    while IFS= read -r file; do
        [ -n "$file" ] || continue
        outer=$file
        while :; do
            case $outer in
                */*) outer=${outer%/*} ;;
                *) files=$files$file$nl && break ;;
            esac
            if listed "$folders" "$outer"; then
                ! listed "$used" "$file" || needed=$needed$file$nl
                break
            fi
        done
    done <<FILES
${all%"$nl"}
FILES
}
