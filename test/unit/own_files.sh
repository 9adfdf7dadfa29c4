#!/bin/sh
# names.sh and own.sh: which files of a data directory are the node's own, name by name; and the
# folders that are moved away come back whole, whenever the move is ended.
set -u
# shellcheck source=test/lib/remote_scripts.sh
. "${0%/*}/../lib/remote_scripts.sh"

top=$(cd -P "$top" && pwd)
in_node "$top/the data"
bin=''
# shellcheck source=src/remote/lib.sh
. "$scripts/lib.sh"
# shellcheck source=src/remote/names.sh
. "$scripts/names.sh"
# shellcheck source=src/remote/own.sh
. "$scripts/own.sh"
HOME=$top/home
export HOME

# fresh: a data directory with a few files in it.
fresh() {
    rm -rf "$pgdata" "$pgdata.follow_primary" "$top/alias" "$HOME"
    mkdir -p "$HOME" "$pgdata/base/1" "$pgdata/global" "$pgdata/pg_wal" "$pgdata/pg_tblspc" "$pgdata/pg_replslot/slot" "$pgdata/pg_stat_tmp"
    ln -s "$pgdata" "$top/alias"
    for file in base/1/1259 global/pg_control pg_replslot/slot/state PG_VERSION standby.signal backup_label postmaster.pid \
        pg_wal/000000010000000000000001 global/own.key \
        'a file' top.sh scripts/run.sh 'for me only/run it.sh' scripts/deep/er/run.sh archive/1 keys/own.key keys/own.crt other/x; do
        mkdir -p "$pgdata/$(dirname "$file")"
        echo "$file" >"$pgdata/$file"
    done
}

# list TEXT: its lines, sorted, in one line.
list() {
    printf '%s' "$1" | sort | paste -sd ,
}

# found LINE...: prints what is found with these lines in postgresql.conf, as "files | folders".
# shellcheck disable=SC2154 # files, folders: find_own()
found() {
    printf '%s\n' "$@" >"$pgdata/postgresql.conf"
    find_own "" "${names:-}"
    printf '%s | %s' "$(list "$(printf '%s' "$files" | grep -vx postgresql.conf)")" "$(list "$folders")"
}

# finds WANT LINE...
finds() {
    want=$1
    shift
    fresh
    ok "$*" is "$(found "$@")" "$want"
}

### what a setting names

finds ' | ' "work_mem = '7MB'"
finds ' | ' '# archive_command = top.sh'
finds 'top.sh | ' "archive_command = 'top.sh'"
finds 'top.sh | ' "archive_command 'top.sh'"
finds 'top.sh | ' "archive_command=top.sh"
finds 'top.sh | ' "Archive_Command = './top.sh %p' # a comment"
finds ' | scripts' "archive_command = 'scripts/run.sh %p %f'"
finds ' | scripts' "restore_command = '$top/alias/scripts/run.sh %f'"
finds ' | scripts' "restore_command = '$pgdata/../the data/scripts/run.sh %f'"
finds ' | scripts' "restore_command = 'scripts/deep/er/run.sh'"
finds ' | scripts' "restore_command = 'scripts/run.sh'" "archive_command = 'scripts/deep/er/run.sh'"
finds ' | scripts' "archive_command = 'scripts/deep/er/run.sh'" "restore_command = 'scripts/run.sh'"
finds ' | for me only' "archive_command = '\"for me only/run it.sh\" %p'"
finds ' | for me only' "archive_command = '''for me only/run it.sh'' %p'"
finds ' | for me only' "archive_command = '\"$pgdata/for me only/run it.sh\" %p'"
finds ' | for me only' "archive_command = 'for\\\\ me\\\\ only/run\\\\ it.sh %p'"
finds ' | scripts' "archive_command = 'sh -c \"scripts/run.sh %p || exit 1\"'"
finds ' | scripts' "archive_command = 'test -f x && scripts/run.sh'"
finds ' | scripts' "archive_command = 'true;scripts/run.sh'"
finds ' | scripts' "archive_command = 'cd scripts && ./run.sh %p'"
finds ' | scripts' "archive_command = '(cd $top/alias/scripts; run.sh %p)'"
finds ' | scripts' "archive_command = '\$PGDATA/scripts/run.sh'"
finds ' | scripts' "archive_command = '\"\${PGDATA}/scripts/run.sh\"'"
finds ' | for me only' "archive_command = '\"\${PGDATA}/for me only/run it.sh\" %p'"
finds ' | scripts' "archive_command = 'nice -n 5 /bin/sh scripts/run.sh'"
finds ' | scripts' "archive_command = 'x=1 CONFIG=scripts/run.sh y'"
finds ' | keys' "archive_command = 'scp -ikeys/own.key %p h:/archive/%f'"
finds ' | keys' "archive_command = 'scp -i$top/alias/keys/own.key %p h:/archive/%f'"
finds ' | keys' "archive_command = 'pgbackrest --config=keys/own.crt archive-push %p'"
finds ' | archive' "archive_command = 'cp %p archive/%f'"
finds ' | archive' "archive_command = 'cp %p archive/%f.gz'"
finds ' | archive' "archive_command = 'gzip <%p >archive/%f.gz'"
finds ' | archive' "archive_command = 'cp %p $top/alias/archive/%f'"
finds ' | ' "archive_command = 'cp %p /archive/%f'"
finds 'a file | ' "archive_command = 'cat a\\\\ file'"
finds ' | keys' "primary_conninfo = 'host=db1 sslkey=keys/own.key'"
finds ' | keys' "primary_conninfo = 'sslkey = ''$pgdata/keys/own.key'' x=y'"
finds 'a file | ' "primary_conninfo = 'sslkey=''a file'''"
finds 'a file | ' "primary_conninfo = 'sslkey=a\\\\ file'"
finds ' | keys' "primary_conninfo = 'postgresql://u@h/d?sslmode=require&sslkey=keys%2fown.key&x=y'"
finds 'a file | ' "primary_conninfo = 'postgres://h/?sslcert=a%20file'"
finds ' | keys' "krb_server_keyfile = 'FILE:$pgdata/keys/own.key'"
finds ' | other' "dynamic_library_path = '\$libdir:$pgdata/other'"
finds ' | other' "unix_socket_directories = '/tmp, other'"
finds ' | other' "log_directory = 'other/'"
finds ' | other' "some.extension = './other'"
finds ' | keys' "ssl_key_file = 'keys/../keys//own.key'"

### what is PostgreSQL's, or nobody's

finds ' | ' "archive_command = 'test -f standby.signal || cat backup_label PG_VERSION postmaster.pid'"
finds ' | ' "archive_command = 'ls pg_wal/ base base/1 $pgdata global/pg_control . .. $pgdata/pg_wal/%f pg_replslot/slot pg_replslot/slot/state'"
finds ' | ' "stats_temp_directory = 'pg_stat_tmp'"
finds 'global/own.key | ' "ssl_key_file = 'global/own.key'"
finds ' | ' "data_directory = '$pgdata'"
finds ' | ' "archive_command = 'ls $top / $top/alias/.. \"\" '''"

### links

fresh
mkdir "$top/elsewhere"
echo x >"$top/elsewhere/x.key"
ln -s "$top/elsewhere" "$pgdata/log"
ln -s "$top/elsewhere/x.key" "$pgdata/server.key"
ok 'links at the top' is "$(found '')" 'log,server.key | '
ln -s keys/own.crt "$pgdata/own.crt"
ok 'what a link leads to' is "$(found '')" 'log,own.crt,server.key | keys'
rm "$pgdata/own.crt"
ln -s "$pgdata/keys/own.key" "$top/elsewhere/back.key"
ok 'a link elsewhere that leads back' is "$(found "ssl_key_file = '$top/elsewhere/back.key'")" 'log,server.key | keys'
ok 'a name through a link' is "$(found "ssl_key_file = 'log/x.key'")" 'log,server.key | '
mv "$pgdata/keys" "$pgdata/real"
ln -s real "$pgdata/keys"
ok 'a name through a link within' is "$(found "ssl_key_file = 'keys/own.key'")" 'keys,log,server.key | real'
rm -r "$pgdata/pg_stat_tmp"
ln -s "$top/elsewhere" "$pgdata/pg_stat_tmp"
mv "$pgdata/pg_wal" "$top/elsewhere/wal"
ln -s "$top/elsewhere/wal" "$pgdata/pg_wal"
ln -s nowhere "$pgdata/broken"
ok 'pg_stat_tmp, pg_wal and one that leads nowhere' is "$(found '')" 'broken,keys,log,pg_stat_tmp,server.key | real'

### tablespaces and WAL within PGDATA

fresh
mkdir "$pgdata/other/space" "$pgdata/archive/wal"
ln -s "$pgdata/other/space" "$pgdata/pg_tblspc/4711"
echo x >"$pgdata/other/space/x.sh"
ok 'a folder that holds a tablespace stays' is "$(found "log_directory = 'other'")" ' | '
ok 'and the tablespace itself' is "$(found "temp = 'other/space'")" ' | '
ok 'a file beside it is kept by itself' is "$(found "archive_command = 'other/x'")" 'other/x | '
mkdir "$pgdata/other/log"
ok 'and a folder beside it' is "$(found "log_directory = 'other/log'")" ' | other/log'

### configuration in pieces

fresh
mkdir "$pgdata/conf.d" "$pgdata/hba"
echo "include_if_exists 'more.conf'" >"$pgdata/conf.d/1.conf"
echo "archive_command = 'scripts/run.sh'" >"$pgdata/conf.d/more.conf"
printf '%s\n' 'host @people "@no" all trust' 'host db,@"other people" all trust' 'include "more hba"' >"$pgdata/hba/rules"
for file in people 'other people' no; do echo "$file" >"$pgdata/hba/$file"; done
echo 'host all @../top.sh all trust' >"$pgdata/hba/more hba"
ok 'includes, and access rules' is "$(found "include_dir 'conf.d'" "hba_file = 'hba/rules'")" 'top.sh | conf.d,hba,scripts'
find_own "" ""
ok 'what is needed of them' is "$(list "$needed")" \
    'conf.d/1.conf,conf.d/more.conf,hba/more hba,hba/other people,hba/people,hba/rules,scripts/run.sh'
fresh
mkdir "$top/etc"
printf '%s\n' "include 'x.conf'" "hba_file = '$top/etc/hba'" >"$top/etc/postgresql.conf"
echo "ssl_key_file = 'keys/own.key'" >"$top/etc/x.conf"
echo "local all @$top/alias/top.sh trust" >"$top/etc/hba"
find_own "$top/etc/postgresql.conf" ''
ok 'a configuration elsewhere' is "$(list "$files") $(list "$folders")" 'top.sh keys'

### what a job names, and a home directory

fresh
names="sslkey=keys/own.key sslmode=require
$top/alias/scripts/run.sh start"
ok "what the job's own settings name" is "$(found '')" ' | keys,scripts'
names=
mkdir "$pgdata/.ssh" "$pgdata/.postgresql"
echo x >"$pgdata/.ssh/authorized_keys"
echo x >"$pgdata/.pgpass"
touch "$pgdata/.s.PGSQL.5432"
mkdir "$pgdata/.follow_primary_old"
ok 'a home directory' is "$(found '')" '.pgpass | .postgresql,.ssh'
HOME=$pgdata
ok 'and what begins with ~' is "$(found "archive_command = '~/scripts/run.sh; \$HOME/keys/own.key'")" '.pgpass | .postgresql,.ssh,keys,scripts'

### away and back

HOME=$top/home
fresh
mkdir -p "$saved/data"
printf '%s\n' "log_directory = 'archive'" "ssl_key_file = 'keys/own.key'" "archive_command = 'scripts/deep/er/run.sh'" >"$pgdata/postgresql.conf"
find_own "" ""
printf '%s' "$folders" >"$saved/folders"
printf '%s' "$needed" >"$saved/needed"
chmod 750 "$pgdata/keys"
look() { (cd "$pgdata" && find . -printf '%p %y %m %i\n' | grep -v 'pg_\|postgresql.conf' | grep 'archive\|keys\|scripts' | sort); }
before=$(look)
own_aside
ok 'away: only what is needed is there' is "$(cd "$pgdata" && find archive keys scripts/deep -type f 2>/dev/null | sort | paste -sd ,)" 'keys/own.key,scripts/deep/er/run.sh'
own_aside
own_back
ok 'back: all is what it was, its inodes too' is "$(look)" "$before"
own_aside
echo "the primary's" >"$pgdata/keys/own.key"
mkdir -p "$pgdata/archive"
echo "the primary's" >"$pgdata/archive/new"
rm -r "$pgdata/scripts/deep"
own_back
ok "back: the primary's are gone" is "$(look)" "$before"
own_back
ok 'back once more' is "$(look)" "$before"
mv "$pgdata/keys" "$saved/data/keys"
own_back
ok 'back, when the way there was ended' is "$(look)" "$before"
own_aside
rm -r "$pgdata/keys"
mv "$saved/data/keys" "$pgdata/keys"
own_back
ok 'back, when the way back was ended' is "$(look)" "$before"

done_testing
