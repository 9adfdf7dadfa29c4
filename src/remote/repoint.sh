#!/bin/sh
# repoint.sh - what a repoint needs before and after configure.sh.
#
# arguments:
#   action   save = keep the files that configure.sh will change
#            note = remember what it has made of them
#            reload = make the running server read its settings, and note
#            undo = put the kept files back, and reload, if the server runs
#            restore = put the kept files back; the server is stopped
#            forget = keep them no longer
#            demote = remove the slots of a stopped server's life as a primary
#   config   save: the node's postgresql.conf; '' = the one in pgdata
#   recovery_file  save: the settings file that configure.sh writes
#   keep_slots  demote: those that stay, separated by spaces
#   command  reload, undo: run by sh -c instead of pg_ctl, if not ''
#
# In PGDATA.follow_primary/job:
#   repoint/N.path       the name of file N
#   repoint/copies/NAME  the file; repoint/N where two have one name. A file that was not there
#                        has a name alone
#   repoint/sums         checksums of the files as configure.sh left them
#   repoint/complete     exists when all is there; it comes last, and goes first
# What an interrupted repoint kept is not overwritten, for those are the settings that worked,
# unless sums tells that somebody has changed the files since. What somebody has written to
# postgresql.conf, or by ALTER SYSTEM, since then stays at an undo, too.
#
# fails:
#   save_failed  undo_failed  reload_failed
set -u
# shellcheck source=src/remote/lib.sh
. "${0%/*}/lib.sh"
# shellcheck source=src/remote/gate.sh
. "${0%/*}/gate.sh"
# shellcheck source=src/remote/standby.sh
. "${0%/*}/standby.sh"

: "${action?}" "${config=}" "${recovery_file=}" "${keep_slots=}" "${command=}"
saved=$work/repoint

# save FILE...: keeps them.
save() {
    mkdir -p "$saved/copies" || die save_failed "could not make $saved"
    n=0 names=$nl
    for file; do
        shift
        n=$((n + 1))
        printf '%s\n' "$file" >"$saved/$n.path" || die save_failed "could not write $saved"
        [ -e "$file" ] || continue
        case $names in
            *"$nl${file##*/}$nl"*)
                cp -p -- "$file" "$saved/$n" || die save_failed "could not copy $file"
                ;;
            *)
                names=$names${file##*/}$nl
                set -- "$@" "$file"
                ;;
        esac
    done
    [ $# -eq 0 ] || cp -p -t "$saved/copies" -- "$@" || die save_failed "could not copy the settings to $saved"
    set -- "$saved"/[123]* "$saved"/copies/*
    # configure.sh flushes this file before it changes the settings
    { sync "$@" && : >"$saved/complete"; } || die save_failed "could not write $saved"
}

# sums: prints the checksums of the files as they are now.
sums() {
    set --
    for n in 1 2 3; do
        read_file "$saved/$n.path"
        set -- "$@" "$text"
    done
    cksum -- "$@" 2>&1
}

# note: remembers what configure.sh has made of them.
note() {
    [ ! -e "$saved/complete" ] || sums >"$saved/sums"
}

# keeps_settings: did an interrupted repoint keep the settings that worked?
keeps_settings() {
    [ -e "$saved/complete" ] &&
        { [ ! -e "$saved/sums" ] || [ "$(sums)" = "$(cat "$saved/sums")" ]; }
}

# changed_since FILE: has somebody changed it since configure.sh did?
changed_since() {
    [ -e "$saved/sums" ] && ! cksum -- "$1" 2>&1 | grep -Fqx -f - "$saved/sums"
}

# take_back FILE COPY: takes out of postgresql.auto.conf what configure.sh added, and adds what that
# took out, unless the file has such a setting again.
take_back() {
    cp -p -- "$1" "$1.fp_tmp" && without_gate "$1" |
        FP_RESTORE=yes FP_GATE=$gate_line awk "$decides"'
            function name_of(line) {
                sub(/^[ \t]*/, "", line)
                sub(/[^A-Za-z0-9_.].*$/, "", line)
                return tolower(line)
            }
            now { print; set[name_of($0)]; next }
            decides($0) && !(name_of($0) in set)' now=1 - now=0 "$2" >"$1.fp_tmp" &&
        sync "$1.fp_tmp" && mv -f -- "$1.fp_tmp" "$1"
}

# put_back N: into the file's own inode, where its folder is not ours to write, or it is mounted.
# postgresql.conf has got no more than a line that names the settings file.
put_back() {
    file=$(cat "$saved/$1.path") || return 1
    copy=$saved/$1
    [ -e "$copy" ] || copy=$saved/copies/${file##*/}
    if [ "$1" -ne 2 ] && [ -e "$file" ] && [ -e "$copy" ] && changed_since "$file"; then
        [ "$1" -eq 1 ] || take_back "$file" "$copy"
    elif [ ! -e "$copy" ]; then
        rm -f "$file"
    elif [ -w "${file%/*}/" ] && ! is_mounted "$(readlink -f -- "$file")"; then
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
        die undo_failed "could not put back what is in $saved"
    fi
    rm -f "$gate"
    forget
}

# forget: what was kept is of no use any more, nor what configure.sh put aside.
forget() {
    rm -rf "$saved/complete" "$saved" "$work/config/postgresql.auto.conf.before" "$work/edit.tmp"
    rmdir "$work/config" "$work" "$kept" 2>/dev/null || :
}

# reload: without a command, as pg_ctl does it.
reload() {
    if [ -n "$command" ]; then
        /bin/sh -c "$own_locale$command" </dev/null >&2 || die reload_failed "the reload failed"
    else
        server_pid || die reload_failed "the server of $pgdata is not running"
        kill -HUP "$pid" || die reload_failed "the server, process $pid, could not be told to reload"
    fi
}

umask 077

case $action in
    save)
        ! keeps_settings || exit 0
        [ ! -d "$saved" ] || rm -rf "$saved/complete" "$saved"
        config=${config:-$pgdata/postgresql.conf}
        [ ! -h "$config" ] || config=$(readlink -f -- "$config")
        save "$config" "$recovery_file" "$pgdata/postgresql.auto.conf"
        ;;
    reload)
        reload
        # The checksums have time: nobody else looks at once.
        note
        ;;
    note)
        note
        ;;
    undo)
        [ -e "$saved/complete" ] || exit 0
        restore
        ! server_pid || reload
        ;;
    restore)
        [ -e "$saved/complete" ] || exit 0
        restore
        ;;
    forget)
        forget
        ;;
    demote)
        ! server_pid || die running "the server of $pgdata runs"
        drop_slots
        ;;
esac
exit 0
