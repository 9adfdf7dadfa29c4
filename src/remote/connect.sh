#!/bin/sh
# connect.sh - shows where the connections lead that a job is going to need on
# the node, before the job changes anything there.
#
# arguments:
#   passfile      password file; '' = libpq's default
#   host  port    as in all three connection strings
#   timeout       seconds for a connection, whatever its string says: a standby keeps the
#                 connect_timeout that it has, and this script has its own limit
#   password  ssl_password   those of CONNINFO; '' = none
#   db_user  db_name   by which the node's own server is asked, if it runs, whether a
#                 connection leads to it
#   look          the number of this look among the job's
#   CONNINFO      (positional) what the node's server is to have, without passwords
#   COPY_CONNINFO  REWIND_CONNINFO   (positional) pg_basebackup's and pg_rewind's; '' = not
#                 needed
#   alone         yes = if CONNINFO alone is to be looked at, do not find out where it leads
#                 that does not lead to the primary; it costs half as much
#
# An answer proves nothing: a virtual address may still lead to the former
# primary, a name to another cluster, or to the node itself. The primary alone
# can tell, for it sees its own connections: each is made with an
# application_name of its own, follow_primary_TOKEN_LOOK.ID, and held, while this script
# asks. If host has several addresses, one is made to each.
#
# prints:
#   ask  yes: the worker's answer is a line on stdin, the IDs of those connections that the
#        primary sees
#   connection  login_refused: 1, 2 or 3, which of the three strings
#   lacks  no_privilege: the functions
# fails:
#   source_unreachable  no connection can be made with one of the strings
#   login_refused       the primary answers, but does not let the role in
#   no_privilege        the role of REWIND_CONNINFO may not run what pg_rewind runs
#   unseen              alone is yes, and the connection leads to another server
#   other_server        one leads to another server; the message says which
set -u
# shellcheck source=src/remote/lib.sh
. "${0%/*}/lib.sh"

: "${passfile=}" "${host?}" "${port=5432}" "${timeout=10}" "${password=}" "${ssl_password=}" \
    "${db_user=postgres}" "${db_name=postgres}" "${look=1}" "${alone=no}"
connection=follow_primary_${token}_$look

# as_the_server: what its environment tells libpq, its WAL receiver is told, too; and a relative
# name, of a password file or a key, starts from the data directory.
as_the_server() {
    cd "$pgdata" 2>/dev/null || :
    server_pid && [ -r "/proc/$pid/environ" ] || return 0
    fields=$IFS IFS=$nl
    set -f
    for line in $(tr '\0' '\n' <"/proc/$pid/environ" 2>/dev/null); do
        case $line in
            PGDATA=* | PGLOCALEDIR=* | PGSYSCONFDIR=*) ;;
            PG[A-Z]*=* | KRB5*=*) export "${line%%=*}=${line#*=}" ;;
        esac
    done
    set +f
    IFS=$fields
}

# question KIND: prints what a connection is asked once it is made; then it is held.
question() {
    if [ "$1" = replication ]; then
        echo 'IDENTIFY_SYSTEM \gset'
    else
        # nobody needs to have these granted
        echo '\set ON_ERROR_STOP 0'
        echo 'SELECT system_identifier AS systemid FROM pg_catalog.pg_control_system() \gset'
        echo 'SELECT timeline_id AS timeline FROM pg_catalog.pg_control_checkpoint() \gset'
        # of pg_rewind's connection (its documentation, "Notes"), in this database
        echo "SELECT coalesce(string_agg(f, ', '), '') AS lacks FROM unnest(ARRAY[
            'pg_ls_dir(text, boolean, boolean)', 'pg_stat_file(text, boolean)', 'pg_read_binary_file(text)',
            'pg_read_binary_file(text, bigint, bigint, boolean)']) f
            WHERE NOT pg_catalog.has_function_privilege('pg_catalog.' || f, 'EXECUTE') \gset"
        echo '\setenv CONNECT_LACKS :lacks'
    fi
    echo 'SHOW transaction_read_only \gset'
    echo '\setenv CONNECT_SYSTEM :systemid'
    echo '\setenv CONNECT_TIMELINE :timeline'
    echo '\setenv CONNECT_READ_ONLY :transaction_read_only'
    # shellcheck disable=SC2016 # for the shell that psql starts
    echo '\! echo "$CONNECT_SYSTEM $CONNECT_TIMELINE $CONNECT_READ_ONLY" >"$CONNECT_FILE.says"; echo "${CONNECT_LACKS:-}" >"$CONNECT_FILE.lacks"; exec <"$CONNECT_HOLD"; echo "$CONNECT_ID open" >&6; read -r _'
}

# know_addresses: sets found to those of host, a line each; and several to yes, if it has more than
# one.
know_addresses() {
    found='' several=''
    case $host in
        *:* | /*) ;;
        *[!0-9.]*)
            while read -r address _; do
                case $nl$found$nl in
                    *"$nl$address$nl"*) ;;
                    *) found=$found${found:+$nl}$address ;;
                esac
            done <<ADDRESSES
$(getent ahosts "$host" 2>/dev/null)
ADDRESSES
            ;;
    esac
    case $found in *"$nl"*) several=yes ;; esac
    [ -n "$several" ] || found=$host
}

# connect ID CONNINFO ADDRESS: makes a connection and holds it, in the background.
# The FIFO told gets a line with its ID and "open" when it is made, and one with
# "end" when it has ended, or could not be made.
connect() {
    (
        exec 5>&-
        as=$2 kind=replication
        [ "${1%.*}" != 3 ] || kind=sql
        if [ "${1%.*}" = 1 ]; then
            as_the_server
            # neither in an argument nor in the environment
            if [ -n "$password" ]; then
                printf '*:*:*:*:%s\n' "$(printf '%s' "$password" | sed 's/[\\:]/\\&/g')" >"$dir/passfile"
                as="$as passfile='$dir/passfile'"
            fi
            if [ -n "$ssl_password" ]; then
                printf '[follow_primary]\nsslpassword=%s\n' "$ssl_password" >"$dir/service"
                export PGSERVICEFILE="$dir/service" PGSERVICE=follow_primary
            fi
        else
            PGOPTIONS='-c role=none' # as pg_rewind will have it
            export PGOPTIONS
            use_passfile "$passfile"
        fi
        # in a password file libpq looks for a replication connection under this database
        [ "$kind" = sql ] || as="$as replication=true dbname=replication"
        [ -z "$several" ] || as="$as hostaddr=$3"
        CONNECT_ID=$1 CONNECT_FILE=$dir/$1 CONNECT_HOLD=$dir/hold
        export CONNECT_ID CONNECT_FILE CONNECT_HOLD
        "$bin/psql" -X -q -w -v ON_ERROR_STOP=1 -d "$as connect_timeout=$timeout application_name=$connection.$1" -f "$dir/$kind" \
            </dev/null >/dev/null 2>"$dir/$1.error" || :
        echo "$1 end" >&6
    ) &
}

# fail_connection ID CONNINFO: tells why the connection could not be made; psql has spoken.
fail_connection() {
    emit connection "$1"
    read_clock
    # Whatever the server says, and in whatever language, it answers. Where all the time was
    # needed, nobody did.
    [ "$((clock - began))" -lt "$timeout" ] && "$bin/pg_isready" -q -t "$timeout" -d "$2" &&
        die login_refused "the primary refuses this login of the node"
    die source_unreachable "the node cannot connect to the primary"
}

# connect_alone CONNINFO: the one connection that most plans need. psql holds it by reading on, and
# asks the worker itself when it is made: no file is needed, and no other process. Ends here.
connect_alone() {
    exec 5>&1
    end_watch
    seen=$(
        exec 4>&1
        as_the_server
        {
            trap '' PIPE # whatever becomes of psql, the worker's answer is to be read
            printf '%s\n' 'IDENTIFY_SYSTEM \gset' '\echo ask=yes' 2>/dev/null
            hear_worker
            printf '%s\n' "$told" >&4
        } | {
            "$bin/psql" -X -q -w -v ON_ERROR_STOP=1 \
                -d "$1 replication=true dbname=replication connect_timeout=$timeout application_name=$connection.1.1" >&5 && exit
            code=$?
            emit ask yes >&5
            exit "$code"
        }
    ) || fail_connection 1 "$1"
    case " $seen " in
        *' 1.1 '*) exit 0 ;;
    esac
    die unseen "the connection leads to another server"
}

# is_own_server ID: does the node's own server see the connection?
is_own_server() {
    lock_file "$pgdata/postmaster.pid" || return 1
    (
        connect_with "$passfile" "$db_name"
        ask_server -U "$db_user" <<SQL && [ "$answer" = 1 ]
SELECT count(*) FROM pg_stat_activity WHERE application_name = '$connection.$1'
SQL
    )
}

# describe ID: prints which server another connection leads to.
describe() {
    read -r system timeline read_only <"$dir/$1.says"
    read -r address <"$dir/$1.address"
    [ "$address" = "$host" ] || address="$host ($address)"
    case $read_only in
        on) read_only=', in recovery' ;;
        off) read_only=', not in recovery' ;;
        *) read_only='' ;;
    esac
    own=
    ! is_own_server "$1" || own=': it is the node itself'
    printf '%s\n' "At $address port $port a server answers with system identifier $system, on timeline $timeline$read_only$own."
}

umask 077
dir=
trap 'end_watch; [ -z "$dir" ] || rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM PIPE
read_clock
began=$clock
know_addresses
if [ "$alone" = yes ] && [ -z "$several$password$ssl_password$2$3" ]; then
    connect_alone "$1"
fi
dir=$(mktemp -d) || die permission "no temporary folder could be made"

mkfifo "$dir/hold" "$dir/told" || die permission "no FIFO could be made in $dir"
exec 5<>"$dir/hold" 6<>"$dir/told"
question replication >"$dir/replication"
question sql >"$dir/sql"

# ID: which of the three, and the number of an address.
which=0 waiting=0
for conninfo in "$@"; do
    which=$((which + 1)) place=0
    [ -n "$conninfo" ] || continue
    for address in $found; do
        place=$((place + 1)) waiting=$((waiting + 1))
        printf '%s\n' "$address" >"$dir/$which.$place.address"
        connect "$which.$place" "$conninfo" "$address"
    done
done

# Each is open, or has failed.
opened=' '
while [ "$waiting" -gt 0 ] && read -r id what <&6; do
    waiting=$((waiting - 1))
    [ "$what" != open ] || opened=$opened$id' '
done
end_watch
emit ask yes
IFS= read -r seen || exit 1

others=
for id in $opened; do
    case " $seen " in
        *" $id "*) ;;
        *) others=$others$(describe "$id")$nl ;;
    esac
done

# The connections end.
exec 5>&-
wait
if [ -n "$others" ]; then
    die other_server "$(printf '%s' "$others" | sort -u)"
fi
for error in "$dir"/?.1.error; do
    which=${error##*/}
    case $opened in
        *" ${which%.1.error}."*) ;;
        *)
            cat "$error" >&2
            which=${which%%.*}
            shift "$((which - 1))"
            fail_connection "$which" "$1"
            ;;
    esac
done
lacks=
[ ! -s "$dir/3.1.lacks" ] || IFS= read -r lacks <"$dir/3.1.lacks"
case $lacks in
    '' | :lacks) ;;
    *)
        emit lacks "$lacks"
        die no_privilege "pg_rewind needs to run $lacks"
        ;;
esac
exit 0
