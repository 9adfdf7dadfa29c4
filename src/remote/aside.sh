# aside.sh - what pg_rewind can neither write nor remove is moved out of its way; for the
# scripts that read it as they read lib.sh.
#
# pg_rewind ends half-way at a file that it may not write, and at a folder in which a named
# pipe or a socket is left that it does not see. It ends before its first change at a symbolic
# link where the primary has a file or a folder, and removes the link where it has none: the log
# on another disk, a pg_hba.conf that leads elsewhere. All of these are the node's own. They wait
# in $work/own, by their path in the data directory, and come back when pg_rewind has ended. The
# folders that own.sh moves are gone by then, and not back yet.
#
# Not so the server's own files. Where a link leads to those, to a disk of its own for base, say,
# pg_rewind has to refuse. A file that it has to write gets the permission.
# shellcheck shell=sh disable=SC2154

# server_files: what initdb and a server make in a data directory, for find's -path; not
# pg_stat_tmp, which a server empties, and which is a link to a RAM disk here and there.
server_files='base global pg_commit_ts pg_dynshmem pg_logical pg_multixact pg_notify pg_replslot
    pg_serial pg_snapshots pg_stat pg_subtrans pg_tblspc pg_twophase pg_wal pg_xact PG_VERSION
    postmaster.pid postmaster.opts backup_label backup_label.old tablespace_map tablespace_map.old
    backup_manifest standby.signal recovery.signal recovery.conf'

# led_to LINK: prints what the link leads to, if that is the node's own and in the data directory,
# too.
led_to() {
    target=$(readlink -f -- "$1")
    case $target in
        "$pgdata"/*) target=${target#"$pgdata"/} ;;
        *) return 0 ;;
    esac
    for entry in $server_files; do
        [ "${target%%/*}" != "$entry" ] || return 0
    done
    [ ! -e "$target" ] || printf './%s\n' "$target"
}

# lend ENTRY: leaves a copy in the place of a small file, which may be a key or a password file that
# pg_rewind connects with.
lend() {
    size=$(stat -Lc %s -- "$work/own/$1" 2>/dev/null)
    if [ -f "$work/own/$1" ] && [ -r "$work/own/$1" ] && [ "${size:-65537}" -le 65536 ]; then
        cp -pL -- "$work/own/$1" "$pgdata/$1" && chmod u+w "$pgdata/$1"
    fi
    return 0
}

# put_aside: returns 1 if something can not be moved; then all is where it was.
put_aside() {
    (
        cd "$pgdata" || exit 1
        set --
        for entry in $server_files; do
            set -- "$@" -o -path "./$entry"
        done
        find ./global ./pg_*/ -type f ! -writable -exec chmod u+w '{}' + 2>/dev/null
        find . -mindepth 1 \( -path ./lost+found "$@" \) -prune -o \
            \( -type l -o -type p -o -type s -o -type f ! -writable \) -print 2>/dev/null |
            while IFS= read -r entry; do
                printf '%s\n' "$entry"
                [ ! -h "$entry" ] || led_to "$entry"
            done
    ) >"$work/own.list"
    while IFS= read -r entry; do
        [ -e "$pgdata/$entry" ] || [ -h "$pgdata/$entry" ] || continue # went with its folder
        folder=$work/own/${entry%/*}
        if ! { mkdir -p "$folder" && mv -- "$pgdata/$entry" "$folder/"; }; then
            put_back
            return 1
        fi
        lend "$entry"
    done <"$work/own.list"
    sync "$work" 2>/dev/null
    return 0
}

# put_back: removes what pg_rewind has brought to the places of the node's own entries, and moves
# these back. The last one comes first, for a folder may have been moved after what was in it.
put_back() {
    [ -d "$work/own" ] || return 0
    tac "$work/own.list" >"$work/own.reverse" || return
    while IFS= read -r entry; do
        [ -e "$work/own/$entry" ] || [ -h "$work/own/$entry" ] || continue
        rm -rf -- "${pgdata:?}/$entry"
        mkdir -p "$pgdata/${entry%/*}" && mv -- "$work/own/$entry" "$pgdata/$entry" || return
    done <"$work/own.reverse"
    rm -rf "$work/own" "$work/own.list" "$work/own.reverse"
    sync "$pgdata" 2>/dev/null
    return 0
}
