#!/bin/sh
# ask.sh - asks the server of the node for its own check of readiness.
#
# arguments:
#   passfile  password file for the connection; '' = libpq's default
#   db_user   role to ask as
#   db_name   the database of the extension
#   function  follow_primary_check with its schema and argument types
#
# prints:
#   permitted  no = the role may not run the function
#   row        of each row the columns, separated by the character 037; a null is empty
# fails:
#   not_running  not_asked
set -u
# shellcheck source=src/remote/lib.sh
. "${0%/*}/lib.sh"

: "${passfile=}" "${db_user=postgres}" "${db_name=postgres}" "${function?}"
connect_with "$passfile" "$db_name"

lock_file "$pgdata/postmaster.pid" || die not_running "no server runs in $pgdata"
socket_dir=$lock_socket_dir
if [ -z "$socket_dir" ]; then
    socket_dir=$lock_listen
    case $socket_dir in '*' | 0.0.0.0 | ::) socket_dir=localhost ;; esac
fi
answer=$("$bin/psql" -X -q -A -t -w -v ON_ERROR_STOP=1 -v function="$function" -v name="${function%%(*}" \
    -h "$socket_dir" -p "$lock_port" -U "$db_user" 2>&1 <<'SQL'
SET statement_timeout = 0;
SELECT has_function_privilege(:'function', 'EXECUTE') AS permitted \gset
\if :permitted
SELECT 'row=' || replace(replace(concat_ws(E'\037', candidate, coalesce(node, ''), item, status, coalesce(message, ''), coalesce(hint, '')),
    E'\\', E'\\\\'), E'\n', E'\\n') FROM :name();
\else
\echo permitted=no
\endif
SQL
) || die not_asked "$answer"
printf '%s\n' "$answer"
exit 0
