#!/bin/sh
# settings.sh: which settings the files of a server set, included files among them.
set -u
# shellcheck source=test/lib/remote_scripts.sh
. "${0%/*}/../lib/remote_scripts.sh"

in_node "$top/conf $nasty"
mkdir "$pgdata" "$pgdata/sub" "$pgdata/none.d"
quoted=$(printf '%s' "$pgdata" | sed "s/\\\\/&&/g; s/'/''/g")
printf '%s\n' ' Port = 5432' '#ssl = on' "shared_preload_libraries 'x'" "include_if_exists = 'missing'" \
    "Include '$quoted/sub/a.conf'" "include_dir = 'none.d'" >"$pgdata/postgresql.conf"
printf '%s\n' 'include = b.conf # of the same folder' 'myext.setting = 1' >"$pgdata/sub/a.conf"
echo "work_mem = 'ssl = on'" >"$pgdata/sub/b.conf"
echo 'cluster_name=x' >"$pgdata/postgresql.auto.conf"
named() {
    # shellcheck disable=SC1090,SC1091,SC2034,SC2154 # as the scripts read them
    (. "$scripts/lib.sh" && . "$scripts/settings.sh" && config='' && know_named "$pgdata" && printf '%s\n' "$named")
}
may_be_set() {
    # shellcheck disable=SC1090,SC1091,SC2034,SC2154 # as the scripts read them
    (. "$scripts/lib.sh" && . "$scripts/settings.sh" && config='' && know_named "$pgdata" && is_named "$1")
}
ok 'all that are set, wherever' is "$(named | sort | tr '\n' ' ')" 'cluster_name myext.setting port shared_preload_libraries work_mem '
ok 'one that is set' may_be_set work_mem
may_be_set ssl
ok 'a comment and a value set none' is "$?" 1
value_in_files() {
    # shellcheck disable=SC1090,SC1091,SC2034,SC2154 # as the scripts read them
    (. "$scripts/lib.sh" && . "$scripts/settings.sh" && config='' && know_named "$pgdata" && written_value "$@" && printf '%s' "$value")
}
echo "CLUSTER_NAME = 'it''s = last' # x" >>"$pgdata/postgresql.auto.conf"
ok 'a number' is "$(value_in_files port 1)" 5432
ok 'the last value counts, without quotes' is "$(value_in_files cluster_name '')" "it's = last"
ok 'of an included file' is "$(value_in_files work_mem '')" 'ssl = on'
ok 'no file sets it' is "$(value_in_files ssl off)" off
echo 'ssl = on' >"$pgdata/none.d/x.conf"
ok 'a folder with files: any may be set' may_be_set ssl
rm "$pgdata/none.d/x.conf"
echo "include 'a.conf'" >>"$pgdata/sub/b.conf"
ok 'a file that includes itself ends' may_be_set ssl
done_testing
