#!/bin/bash
#
# peer.sh - the procedure that users of pgpool-II have today: the same commands in
# the same order as in their follow_primary.sh. The extension is measured against it.
#
# usage: peer.sh NODE_ID NODE_HOST NODE_PORT NODE_PGDATA NEW_ID NEW_HOST
#                OLD_MAIN_ID OLD_PRIMARY_ID NEW_PORT NEW_PGDATA
# (what pgpool gives as %d %h %p %D %m %H %M %P %r %R)
#
# The environment holds what differs between sites:
#   BIN              PostgreSQL's programs
#   SSH_KEY, KNOWN_HOSTS, NODE_SSH_PORT, NEW_SSH_PORT
#   PASSFILE         for libpq on the node
#   NODE_ARCHIVE, NEW_ARCHIVE   where the two servers archive their WAL
#   NODE_CONF        a file with the settings in which the node differs from the
#                    others: hosts that share a machine differ in more than the port
#   COPY=1           skips pg_rewind, as if it had failed
#
# It does not attach the node to pgpool.

node_host=$2 node_port=$3 node_pgdata=$4 new_host=$6 new_port=$9
slot=${node_host//[-.]/_}
conf_file=$node_pgdata/myrecovery.conf
ssh_options="-o StrictHostKeyChecking=yes -o UserKnownHostsFile=$KNOWN_HOSTS -o LogLevel=ERROR -i $SSH_KEY"
new_psql=("$BIN/psql" -X -h "$new_host" -p "$new_port" -U postgres -d postgres)

on_node()
{
    # shellcheck disable=SC2086,SC2029 # options are words, and expand here
    ssh -T $ssh_options -p "$NODE_SSH_PORT" "$node_host" "$1" </dev/null
}

drop_slot()
{
    "${new_psql[@]}" -c "SELECT pg_drop_replication_slot('$slot')" >/dev/null 2>&1 ||
        echo "the slot could not be dropped"
}

# The commands that make the data directory a standby.
configure="
    cat > $conf_file << 'EOT'
primary_conninfo = 'host=$new_host port=$new_port user=repl application_name=$node_host passfile=''$PASSFILE'''
recovery_target_timeline = 'latest'
restore_command = 'scp $ssh_options -P $NEW_SSH_PORT $new_host:$NEW_ARCHIVE/%f %p'
primary_slot_name = '$slot'
EOT
    cat $NODE_CONF >> $node_pgdata/postgresql.conf
    sed -i -e \"\\\$ainclude_if_exists = '$conf_file'\" -e \"\\@^include_if_exists = '$conf_file'@d\" $node_pgdata/postgresql.conf
    touch $node_pgdata/standby.signal"

if ! "$BIN/pg_isready" -h "$node_host" -p "$node_port" >/dev/null 2>&1; then
    echo "the node does not run: skipped"
    exit 0
fi
# shellcheck disable=SC2086
if ! ssh -T $ssh_options -p "$NEW_SSH_PORT" "$new_host" ls /tmp </dev/null >/dev/null; then
    echo "SSH without a password does not work"
    exit 1
fi
# The file for the settings of PostgreSQL 12 and later; no older one is measured.
major=$("$BIN/initdb" -V | awk '{ print $3 }' | sed 's/\..*//' | sed 's/\([0-9]*\)[a-zA-Z].*/\1/')
[ "$major" -ge 12 ] || exit 1

"${new_psql[@]}" -c 'CHECKPOINT' >/dev/null
"${new_psql[@]}" -c "SELECT pg_create_physical_replication_slot('$slot')" >/dev/null 2>&1 ||
    echo "the slot could not be made"

if ! on_node "
    set -o errexit
    $BIN/pg_ctl -w -m f -D $node_pgdata stop
    ${COPY:+false}
    $BIN/pg_rewind -D $node_pgdata --source-server='user=postgres host=$new_host port=$new_port dbname=postgres'
    [ -d $node_pgdata ] && rm -rf $node_pgdata/pg_replslot/*
    $configure
    $BIN/pg_ctl -l /dev/null -w -D $node_pgdata start"; then
    echo "pg_rewind failed: pg_basebackup"
    if ! on_node "
        set -o errexit
        [ -d $node_pgdata ] && rm -rf $node_pgdata
        [ -d $NODE_ARCHIVE ] && rm -rf $NODE_ARCHIVE/*
        PGPASSFILE=$PASSFILE $BIN/pg_basebackup -h $new_host -U repl -p $new_port -D $node_pgdata -X stream
        $configure
        sed -i -e 's/#*port = .*/port = $node_port/' -e \"s@#*archive_command = .*@archive_command = 'cp %p $NODE_ARCHIVE/%f'@\" $node_pgdata/postgresql.conf"; then
        drop_slot
        echo "pg_basebackup failed"
        exit 1
    fi
    if ! on_node "$BIN/pg_ctl -l /dev/null -w -D $node_pgdata start"; then
        drop_slot
        exit 1
    fi
fi
