#!/bin/sh
# repoint.sh - what a repoint needs before and after configure.sh.
#
# usage: repoint.sh save PGDATA BIN_DIR CONFIG_FILE RECOVERY_FILE
#        repoint.sh reload PGDATA BIN_DIR RELOAD_COMMAND
#        repoint.sh undo PGDATA BIN_DIR RELOAD_COMMAND
#        repoint.sh restore PGDATA BIN_DIR
#   save    keeps the files that configure.sh will change, as
#           PGDATA.follow_primary/repoint/N with their path in N.path
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

# keep N FILE: a file that is not there is kept as N.path alone.
keep() {
    printf '%s\n' "$2" >"$kept.tmp/$1.path" || die save_failed "could not write $kept.tmp"
    [ ! -e "$2" ] || cp -p "$2" "$kept.tmp/$1" || die save_failed "could not copy $2"
}

# put_back N: into the file's own inode when its folder is not ours to write.
put_back() {
    file=$(cat "$kept/$1.path") || return 1
    if [ ! -e "$kept/$1" ]; then
        rm -f "$file"
    elif [ -w "${file%/*}/" ]; then
        if ! { cp -p "$kept/$1" "$file.fp_tmp" && sync "$file.fp_tmp" && mv -f "$file.fp_tmp" "$file"; }; then
            rm -f "$file.fp_tmp"
            return 1
        fi
    else
        cat "$kept/$1" >"$file"
    fi
}

restore() {
    if ! { put_back 1 && put_back 2 && put_back 3; }; then
        die undo_failed "could not put back what is in $kept"
    fi
    rm -f "$kept/complete"
    rm -rf "$kept"
    # what configure.sh put aside is back in its place
    rm -f "${kept%/*}/config/postgresql.auto.conf.before"
    rmdir "${kept%/*}/config" "${kept%/*}" 2>/dev/null || :
}

reload() {
    if [ -n "$1" ]; then
        /bin/sh -c "$1" </dev/null >&2
    else
        "$bin/pg_ctl" -D "$pgdata" reload >/dev/null
    fi || die reload_failed "the reload failed"
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
        [ ! -e "$kept.tmp" ] || rm -rf "$kept.tmp"
        mkdir -p "$kept.tmp" || die save_failed "could not make $kept.tmp"
        [ ! -h "$config" ] || config=$(readlink -f -- "$config")
        keep 1 "$config"
        keep 2 "$5"
        keep 3 "$pgdata/postgresql.auto.conf"
        { : >"$kept.tmp/complete" && sync "$kept.tmp"/*; } || die save_failed "could not write $kept.tmp"
        mv "$kept.tmp" "$kept" || die save_failed "could not rename $kept.tmp"
        sync "$kept" "${kept%/*}" 2>/dev/null
        ;;
    reload)
        [ ! -e "$kept/complete" ] || sums >"$kept/sums"
        reload "$4"
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
