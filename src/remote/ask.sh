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
ask_server -U "$db_user" -v function="$function" -v name="${function%%(*}" <<'SQL' || die not_asked "$said"
SET statement_timeout = 0;
SELECT has_function_privilege(:'function', 'EXECUTE') AS permitted \gset
\if :permitted
SELECT 'row=' || replace(replace(concat_ws(E'\037', candidate, coalesce(node, ''), item, status, coalesce(message, ''), coalesce(hint, '')),
    E'\\', E'\\\\'), E'\n', E'\\n') FROM :name();
\else
\echo permitted=no
\endif
SQL
printf '%s\n' "$answer"
exit 0
