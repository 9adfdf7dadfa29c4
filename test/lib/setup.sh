# shellcheck shell=bash
# The common part of `make test` and `make demo`: installs packages, copies the
# checkout to a scratch folder, builds and installs it, chooses an account that
# PostgreSQL can run as, and leaves neither processes nor folders at the end.
#
# The caller has set $top, the checkout's path. Everything happens in the copy: the
# checkout stays as it is, and the account need not be able to read it.
# shellcheck disable=SC2154

set -u -o pipefail
umask 022

say()
{
    printf '== %s\n' "$*"
}

die()
{
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

is_root()
{
    [ "$(id -u)" = 0 ]
}

# Runs a command as root if that needs no password; 125 when it does.
as_root()
{
    if is_root; then
        "$@"
    elif sudo -n true 2>/dev/null; then
        sudo -n "$@"
    else
        return 125
    fi
}

# The server to build for and test with, as $pg_config: the one that
# PG_CONFIG names, else the one that pg_config on PATH belongs to, else the
# distribution's own (unset while apt does not know it).
choose_postgres()
{
    local given=${PG_CONFIG:-pg_config} major

    pg_config=
    # libpq-dev's pg_config names files that it does not bring.
    if [ -e "$("$given" --pgxs 2>/dev/null)" ]; then
        pg_config="$("$given" --bindir)/pg_config"
        return
    fi
    case $given in
        pg_config)
            major=$(apt-cache depends postgresql 2>/dev/null |
                sed -n 's/^ *Depends: postgresql-\([0-9]*\)$/\1/p')
            [ -z "$major" ] ||
                pg_config=/usr/lib/postgresql/$major/bin/pg_config
            ;;
        /usr/lib/postgresql/*/bin/pg_config) pg_config=$given ;;
        *) die "PG_CONFIG=$given: there is no such program, or no PGXS with it" ;;
    esac
}

# Makes the scratch folder and chooses the account.
make_scratch()
{
    if is_root; then
        account=postgres
        id "$account" >/dev/null 2>&1 ||
            die "root needs an account \"$account\" to run PostgreSQL as"
    else
        account=$(id -un)
    fi

    trap finish EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    trap 'exit 129' HUP
    # Short: the paths of sockets have to fit into 107 bytes.
    scratch=$(mktemp -d "${TMPDIR:-/tmp}/follow.XXXXXX") || exit 1
    mkdir "$scratch/checkout" "$scratch/home" "$scratch/tmp" || exit 1
    ! is_root || chown -R "$account:" "$scratch" || exit 1
    as_account test -w "$scratch/tmp" ||
        die "account \"$account\" cannot write below ${TMPDIR:-/tmp}: set TMPDIR"
}

# Runs a command in an environment that has nothing of the caller's: no settings for
# psql, no jobs of make, no locale that does not exist. setpriv, unlike runuser,
# becomes the command instead of waiting for it in another session.
as_account()
{
    local -a as=()

    ! is_root || as=(setpriv "--reuid=$account" "--regid=$(id -g "$account")"
        --init-groups --)
    "${as[@]}" env -i \
        PATH="${PATH:-}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" \
        HOME="$scratch/home" TMPDIR="$scratch/tmp" USER="$account" \
        LOGNAME="$account" LANG=C.UTF-8 PG_CONFIG="$pg_config" \
        ${TERM:+"TERM=$TERM"} \
        ${FOLLOW_PRIMARY_KEEP:+"FOLLOW_PRIMARY_KEEP=$FOLLOW_PRIMARY_KEEP"} \
        ${FOLLOW_PRIMARY_WAL_MB:+"FOLLOW_PRIMARY_WAL_MB=$FOLLOW_PRIMARY_WAL_MB"} \
        "$@"
}

# Runs a function or command with a deadline in seconds. Ctrl-C and the deadline
# end all that it started. Returns 124 after the deadline.
bounded()
{
    local seconds=$1 deadline=$((SECONDS + $1)) rc

    shift
    # A process group of its own; the terminal's signals come to us alone.
    set -m
    "$@" </dev/null &
    job=$!
    set +m
    while kill -0 "$job" 2>/dev/null && [ $SECONDS -lt $deadline ]; do
        sleep 0.1
    done
    if kill -0 "$job" 2>/dev/null; then
        echo "stopped: longer than $seconds s" >&2
        stop_job
        return 124
    fi
    wait "$job"
    rc=$?
    stop_job
    return $rc
}

# Ends the process group of bounded(): it gets time to clean up.
stop_job()
{
    local i

    [ -n "$job" ] || return 0
    kill -TERM -- "-$job" 2>/dev/null
    for ((i = 0; i < 200; i++)); do
        kill -0 -- "-$job" 2>/dev/null || break
        sleep 0.1
    done
    kill -KILL -- "-$job" 2>/dev/null
    job=
}

# Ends the servers and sshds of a test that was killed before it could end them.
leftovers()
{
    local process

    for process in /proc/[0-9]*; do
        # sshd writes its title over its environment.
        if grep -qszF "TMPDIR=$scratch/" "$process/environ" ||
            grep -qs "^sshd: [^ ]* -D -f $scratch/" "$process/cmdline"; then
            echo "${process#/proc/}"
        elif [[ $(readlink "$process/exe") == */postgres &&
            $(readlink "$process/cwd") == "$scratch"/* ]]; then
            echo "${process#/proc/}"
        fi
    done
}

finish()
{
    local rc=$? i pids

    trap '' INT TERM HUP
    stop_job
    [ -n "$scratch" ] || exit $rc
    # A postmaster is asked first: killed, it leaves its shared memory behind.
    for i in QUIT KILL KILL KILL; do
        pids=$(leftovers)
        [ -n "$pids" ] || break
        # shellcheck disable=SC2086 # one word each
        kill -"$i" $pids 2>/dev/null
        sleep 1
    done
    if [ -n "${FOLLOW_PRIMARY_KEEP:-}" ]; then
        echo "kept: $scratch" >&2
    else
        rm -rf "$scratch"
    fi
    exit $rc
}

# Copies the checkout without the files that a build left there, perhaps for another
# server.
copy_checkout()
{
    local -a rc

    tar -C "$top" --create --exclude-vcs --exclude='*.o' --exclude='*.bc' \
        --exclude='*.so' --exclude=./src/remote_scripts.h \
        --exclude=./results --exclude=./tmp_check --exclude=./deb --warning=no-file-changed . |
        as_account tar -C "$scratch/checkout" --extract --no-same-owner
    rc=("${PIPESTATUS[@]}")
    # 1: something changed meanwhile, as when a build runs in the checkout.
    if [ "${rc[0]}" -gt 1 ] || [ "${rc[1]}" != 0 ]; then
        die "cannot copy the checkout"
    fi
}

# Says what a step printed only when the step fails.
quietly()
{
    local log rc

    log=$(mktemp) || return
    "$@" >"$log" 2>&1
    rc=$?
    [ $rc = 0 ] || cat "$log" >&2
    rm -f "$log"
    return $rc
}

make_copy()
{
    as_account make -C "$scratch/checkout" --no-print-directory "$@"
}

build()
{
    echo 'Building and installing follow_primary.'
    quietly bounded 300 make_copy -s "-j$(nproc)" COPT=-Werror ||
        die "the build failed"
}

# As an ordinary account without sudo: only checks that it is installed.
install_extension()
{
    local built=$scratch/checkout lib share
    local -a install=(make -C "$built" --no-print-directory -s
        "PG_CONFIG=$pg_config" install)

    if is_root; then
        quietly "${install[@]}" || die "the installation failed"
        return
    fi
    lib=$("$pg_config" --pkglibdir)
    share=$("$pg_config" --sharedir)/extension
    if cmp -s "$built/follow_primary.so" "$lib/follow_primary.so" &&
        cmp -s "$built/follow_primary.control" "$share/follow_primary.control" &&
        cmp -s "$built/src/follow_primary_setup" "${pg_config%/*}/follow_primary_setup" &&
        cmp -s <(cat "$built"/sql/follow_primary--*.sql) <(cat "$share"/follow_primary--*.sql); then
        return
    fi
    quietly as_root "${install[@]}" ||
        die "the installed extension is not the one of this checkout; run as root:
    make -C $top PG_CONFIG=$pg_config install"
}

# Does all of the above: on return the extension is installed, and as_account runs
# commands as the account that owns the copy.
set_up()
{
    cd "$top" || exit 1
    test/install-packages || exit 1
    choose_postgres
    make_scratch
    copy_checkout
    cd "$scratch/checkout" || exit 1
    build
    install_extension
}

# The jobs and variables of the make that called are not for this run.
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES CDPATH
pg_config=
account=
scratch=
job=
