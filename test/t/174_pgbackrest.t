# Copies out of a pgBackRest repository, by Debian's program: a whole restore, one of a
# backup of before the failover, and --delta over a copy of what the node has. The
# repository, its archive-push and the restore_command that it writes are real, and so is
# the tablespace, whose place is another one on each node. No other test has a tool that
# insists on paths and checks what it finds there.

use FindBin ();
use FollowPrimary::Test;

my $top = "$FindBin::RealBin/../..";

my ($pgbackrest) = grep { -x } '/usr/bin/pgbackrest', '/usr/local/bin/pgbackrest';
plan(skip_all => 'there is no pgBackRest') if !$pgbackrest;

my $dir = scratch_dir('pgbackrest');
mkdir "$dir/$_" or die for qw(repo log lock spool);
my $cluster = FollowPrimary::Cluster->new(nodes => 2, extension => 1,
    conf => { archive_mode => 'on', archive_command => 'true' });
my ($old, $new) = $cluster->nodes;

# Each host has a configuration of its own, as it would have /etc/pgbackrest.conf.
for my $node ($old, $new)
{
    spew($node->host->dir . '/pgbackrest.conf', <<"END");
[global]
repo1-path=$dir/repo
log-path=$dir/log
lock-path=$dir/lock
spool-path=$dir/spool
log-level-console=info
log-level-file=off
start-fast=y
process-max=2
compress-type=lz4
[main]
pg1-path=@{[ $node->pgdata ]}
pg1-port=@{[ $node->port ]}
pg1-socket-path=@{[ $node->safe_psql(q{SELECT (string_to_array(current_setting('unix_socket_directories'), ', '))[1]}) ]}
pg1-user=@{[ $node->superuser ]}
END
    $node->set(archive_command => "$pgbackrest --config=@{[ $node->host->dir ]}/pgbackrest.conf --stanza=main archive-push %p");
    $node->reload;
}

sub pgbackrest
{
    my ($node, @words) = @_;
    return run_ok([ $pgbackrest, '--config=' . $node->host->dir . '/pgbackrest.conf', '--stanza=main', @words ],
        env => { PGPASSFILE => $cluster->passfile }, timeout => 300);
}

# A tablespace: the standby replays it to the same place, which is moved then.
mkdir $_->host->dir . '/space' or die for $old, $new;
$new->stop;
$old->safe_psql("CREATE TABLESPACE space LOCATION '@{[ $old->host->dir ]}/space'");
$old->safe_psql("CREATE TABLE t TABLESPACE space AS SELECT i, repeat('x', 500) AS filler FROM generate_series(1, 20000) i");
$old->safe_psql('CREATE TABLE still AS SELECT i, repeat(\'y\', 500) AS filler FROM generate_series(1, 20000) i');
run_ok([ 'rm', '-r', $new->pgdata ]);
$new->init_standby_from($old, slot => 1, basebackup => [ '-T', $old->host->dir . '/space=' . $new->host->dir . '/space' ]);
$new->set(archive_command => "$pgbackrest --config=@{[ $new->host->dir ]}/pgbackrest.conf --stanza=main archive-push %p");
$new->start;
$old->wait_for_catchup($new);

pgbackrest($old, 'stanza-create');
pgbackrest($old, '--type=full', 'backup');
$old->safe_psql('INSERT INTO t SELECT i FROM generate_series(20001, 20100) i');
$old->wait_for_catchup($new);
$new->promote;
$old->safe_psql('INSERT INTO t SELECT i FROM generate_series(30001, 30100) i');
$old->stop;
# The repository has all WAL up to here, and this server has not.
$new->safe_psql("INSERT INTO t SELECT i FROM generate_series(40001, 40100) i; ");
for (1 .. 2)
{
    $new->safe_psql('SELECT pg_switch_wal()');
    $new->safe_psql('CHECKPOINT');
}
ok($new->poll_query_until("SELECT last_archived_wal >= pg_walfile_name(pg_current_wal_lsn() - 2 * 16777216) FROM pg_stat_archiver", 't', 60), 'the WAL is archived')
    or diag($new->safe_psql('SELECT * FROM pg_stat_archiver'));

# The script of the manual, with the place of the configuration; and the same in a line.
my ($script) = slurp("$top/doc/operations.md") =~ /^(#!\/bin\/sh\n# \S+restore-copy: .*?)^```/ms;
my $ours = "$pgbackrest --config=@{[ $old->host->dir ]}/pgbackrest.conf";
$script =~ s/exec pgbackrest /exec $ours /;
spew("$dir/restore-copy", $script, 0700);
my $restore = "$pgbackrest --config=@{[ $old->host->dir ]}/pgbackrest.conf --stanza=main --pg1-path=%D \$(sed 's/^\\([0-9]*\\) \\(.*\\)/--tablespace-map=\\1=\\2/' %m)";

sub call
{
    my ($command, %arguments) = @_;
    return $new->try_sql('SET follow_primary.copy_command = ' . quote($command) . '; '
        . $new->follow_sql($old, method => 'basebackup', when_down => 'rejoin', %arguments), timeout => 300);
}

sub follows_whole
{
    my ($what) = @_;
    streams_from($new, $old, $what);
    $new->safe_psql('SELECT pg_switch_wal()');
    $new->wait_for_catchup($old);
    is($old->safe_psql('SELECT count(*), max(i) FROM t'), $new->safe_psql('SELECT count(*), max(i) FROM t'), "$what: it has the rows of the primary");
    is($old->safe_psql('SHOW restore_command'), '', "$what: pgBackRest's restore_command is not kept") if reloads('restore_command');
    is(join(' ', map { readlink } glob($old->pgdata . '/pg_tblspc/*')), $old->host->dir . '/space', "$what: its tablespace is in its place");
    is(join(' ', glob($old->pgdata . '.follow_primary/job*'), glob($old->host->dir . '/space.follow_primary*')), '', "$what: nothing is left beside");
    return;
}

# 1. The backup of before the failover. Its WAL is in the repository alone.
my $log = $old->log_size;
my $r = call("$dir/restore-copy %D %m");
ok($r->{ok}, 'a node gets its copy out of the repository') or diag($r->{err});
like($new->step('copy'), qr/^\d+ MB by copy_command, a backup of timeline 1 from /, 'a backup of before the failover');
like($old->log_content($log), qr/restored log file "0000000/, 'it has fetched WAL by the restore_command that pgBackRest wrote');
follows_whole('restored');

# 2. A backup of now, while the standby runs.
pgbackrest($new, '--type=full', 'backup');
$r = call("$restore restore");
ok($r->{ok}, 'a running standby gets a newer one') or diag($r->{err});
like($new->step('copy'), qr/, a backup of timeline 2 from /, 'of the new timeline');
follows_whole('restored again');

# 3. --delta takes from the node's own data what is still right, by a copy of it: by
# reflinks where the file system has them. What the standby goes on writing is not of it.
$new->safe_psql('UPDATE t SET filler = repeat(\'z\', 500) WHERE i <= 10000');
pgbackrest($new, '--type=diff', 'backup');
$old->safe_psql('CHECKPOINT');
my $delta = "cp -a --reflink=auto %O/. %D && rm -rf %D/postmaster.pid %D/pg_wal %D/pg_tblspc/* && $restore --delta --log-level-console=detail restore >$dir/delta.log";
$r = call($delta, );
ok($r->{ok}, 'a running standby gets one by --delta') or diag($r->{err});
my $said = slurp("$dir/delta.log");
my ($kept, $restored) = (scalar(() = $said =~ /restore file \S+ - exists and (?:matches|is zero)/g), scalar(() = $said =~ /restore file (?!\S+ - exists)/g));
cmp_ok($kept, '>', $restored, "more files were right ($kept) than were restored ($restored)");
follows_whole('by --delta');

# 4. --delta on the node's data itself would be against rule and reason: pgBackRest refuses while its
# server runs, and of one that is down it is recognised.
my $in_place = "$pgbackrest --config=@{[ $old->host->dir ]}/pgbackrest.conf --stanza=main --delta restore";
$r = call($in_place);
is($r->{sqlstate}, '38000', 'the data directory of a server that runs is no place for it');
like($r->{err}, qr/copy_command failed.*postmaster/s, 'pgBackRest says so');
is($old->safe_psql('SELECT pg_is_in_recovery()'), 't', 'the standby runs on');
$old->stop;
$r = call($in_place);
is($r->{sqlstate}, '38000', 'nor is that of one that is down');
like($r->{err}, qr/copy_command changed the node's own data/, 'it is recognised');

# 5. No stanza of that name.
$r = call("$pgbackrest --config=@{[ $old->host->dir ]}/pgbackrest.conf --stanza=none --pg1-path=%D restore");
is($r->{sqlstate}, '38000', 'a stanza that is not there');
like($r->{err}, qr/copy_command failed.*ERROR: \[\d+\].*exit code \d+/s, 'what pgBackRest says is told, and its exit code');

done_testing();
