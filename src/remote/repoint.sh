#!/bin/sh
# repoint.sh - what a repoint needs before and after configure.sh.
#
# usage: repoint.sh save PGDATA BIN_DIR CONFIG_FILE RECOVERY_FILE
#        repoint.sh reload PGDATA BIN_DIR RELOAD_COMMAND
#        repoint.sh undo PGDATA BIN_DIR RELOAD_COMMAND
#        repoint.sh restore PGDATA BIN_DIR
#   save    keeps the files that configure.sh will change, as
#           PGDATA.follow_primary/repoint/copies/NAME with their path in N.path; as
#           N, if two have one name
#   reload  makes the running server read its settings
#   undo    puts the kept files back, and reloads
#   restore puts the kept files back; the server is stopped
#   CONFIG_FILE     '' = PGDATA/postgresql.conf
#   RELOAD_COMMAND  run by sh -c instead of pg_ctl when not empty
#
# What an interrupted repoint kept is not overwritten: those are the settings
# that worked, unless somebody has changed them since, as repoint/sums tells. It
# counts only with repoint/complete, which is the first to go.
#
# fails:  save_failed  undo_failed  reload_failed
set -u
# shellcheck source=src/remote/lib.sh
. "${0%/*}/lib.sh"

action=$1 pgdata=$2 bin=$3
kept=$pgdata.follow_primary/repoint

umask 077

# put_back N: into the file's own inode when its folder is not ours to write. A
# file that was not there has a path alone.
put_back() {
    file=$(cat "$kept/$1.path") || return 1
    copy=$kept/$1
    [ -e "$copy" ] || copy=$kept/copies/${file##*/}
    if [ ! -e "$copy" ]; then
        rm -f "$file"
    elif [ -w "${file%/*}/" ]; then
        if ! { cp -p "$copy" "$file.fp_tmp" && sync "$file.fp_tmp" && mv -f "$file.fp_tmp" "$file"; }; then
            rm -f "$file.fp_tmp"
            return 1
        fi
    else
        overwrite "$file" "$copy" && sync "$file"
    fi
}

restore() {
    if ! { put_back 1 && put_back 2 && put_back 3; }; then
        die undo_failed "could not put back what is in $kept"
    fi
    rm -f "$kept/complete"
    rm -rf "$kept"
    # what configure.sh put aside is back in its place
    rm -f "${kept%/*}/config/postgresql.auto.conf.before" "${kept%/*}/edit.tmp"
    rmdir "${kept%/*}/config" "${kept%/*}" 2>/dev/null || :
}

# reload COMMAND: without one, as pg_ctl does it.
reload() {
    if [ -n "$1" ]; then
        /bin/sh -c "$1" </dev/null >&2 || die reload_failed "the reload failed"
    else
        server_pid || die reload_failed "the server of $pgdata is not running"
        kill -HUP "$pid" || die reload_failed "the server, process $pid, could not be told to reload"
    fi
}

# The checksums of the files as they are.
sums() {
    set --
    for n in 1 2 3; do
        read_file "$kept/$n.path"
        set -- "$@" "$text"
    done
    cksum -- "$@" 2>&1
}

case $action in
    save)
        if [ -e "$kept/complete" ]; then
            [ -e "$kept/sums" ] && [ "$(sums)" != "$(cat "$kept/sums")" ] || exit 0
            rm -f "$kept/complete"
        fi
        [ ! -d "$kept" ] || rm -rf "$kept"
        config=${4:-$pgdata/postgresql.conf}
        mkdir -p "$kept/copies" || die save_failed "could not make $kept"
        [ ! -h "$config" ] || config=$(readlink -f -- "$config")
        set -- "$config" "$5" "$pgdata/postgresql.auto.conf"
        n=0 names=$nl
        for file; do
            shift
            n=$((n + 1))
            printf '%s\n' "$file" >"$kept/$n.path" || die save_failed "could not write $kept"
            [ -e "$file" ] || continue
            case $names in
                *"$nl${file##*/}$nl"*)
                    cp -p -- "$file" "$kept/$n" || die save_failed "could not copy $file"
                    ;;
                *)
                    names=$names${file##*/}$nl
                    set -- "$@" "$file"
                    ;;
            esac
        done
        [ $# -eq 0 ] || cp -p -t "$kept/copies" -- "$@" || die save_failed "could not copy the settings to $kept"
        set -- "$kept"/[123]* "$kept"/copies/*
        # configure.sh flushes what says that they are, before it changes them
        { sync "$@" && : >"$kept/complete"; } || die save_failed "could not write $kept"
        ;;
    reload)
        # who looks for a change since then has time
        reload "$4"
        [ ! -e "$kept/complete" ] || sums >"$kept/sums"
        ;;
    undo)
        [ -e "$kept/complete" ] || exit 0
        restore
        reload "$4"
        ;;
    restore)
        [ -e "$kept/complete" ] || exit 0
        restore
        ;;
esac
