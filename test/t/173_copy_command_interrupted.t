# A job ends between the exchange of a copy that a command made and the proof. The next
# one, which may know nothing of the command, still has the node fetch its WAL as the
# command has set, and puts that right when it streams. The node has its WAL in a
# folder of its own, where the copy's goes, too. A command that fails stops no server.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 2, extension => 1, archive => 1);
my ($old, $new) = $cluster->nodes;
my $archive = $cluster->archive_dir;
my $backup = scratch_dir('backups') . '/before';

$old->safe_psql('CREATE TABLE t AS SELECT generate_series(1, 1000) AS i');
$old->wait_for_catchup($new);
run_ok([ $old->bin('pg_basebackup'), '-d', $old->connstr(undef, $old->superuser), '-w', '-c', 'fast', '-D', $backup, '-X', 'none' ],
    env => { PGPASSFILE => $cluster->passfile });
$new->promote;
$old->safe_psql('INSERT INTO t VALUES (5555)');
$old->stop;
my $wal = $old->host->dir . '/wal';
run_ok([ 'sh', '-ec', 'mv "$1/pg_wal" "$2"; ln -s "$2" "$1/pg_wal"', 'sh', $old->pgdata, $wal ]);
$new->safe_psql('INSERT INTO t VALUES (7777)');
for (1 .. 2) { $new->safe_psql('SELECT pg_switch_wal()'); $new->safe_psql('CHECKPOINT') }

my $command = "cp -a $backup/. %D && echo \"restore_command = 'cp $archive/%%f %%p'\" >>%D/postgresql.auto.conf";
my @how = (method => 'basebackup', when_down => 'rejoin');

# 1. It ends before the start. What the server is to fetch WAL with is on the node.
$new->fail_steps('start');
my $r = $new->try_sql("SET follow_primary.restore_command = ''; SET follow_primary.copy_command = " . quote($command) . '; '
    . $new->follow_sql($old, @how), timeout => 300);
ok(!$r->{ok}, 'a job fails before the start');
like($new->steps, qr/ copy stop save_config save_wal swap configure$/, 'the copy is in its place by then') or diag($r->{err});
$new->fail_steps;

my $log = $old->log_size;
$r = $new->try_sql("SET follow_primary.restore_command = ''; " . $new->follow_sql($old, when_down => 'rejoin'), timeout => 300);
ok($r->{ok}, 'the next call completes it') or diag($r->{err});
like($new->steps, qr/ swap configure start verify settle clean count$/, 'without another copy, and counts what was lost');
like($old->log_content($log), qr/restored log file "0000000/, 'by the restore_command of the command that it does not know');
streams_from($new, $old, 'the node');
is($old->safe_psql('SHOW restore_command'), '', 'which it does not keep') if reloads('restore_command');
unlike(slurp($old->pgdata . "/$_"), qr/^restore_command/m, "$_ has none") for $old->recovery_file =~ m{([^/]+)\z}, 'postgresql.auto.conf';
is($old->safe_psql('SELECT count(*), max(i) FROM t'), '1001|7777', 'it has the rows of the primary alone');
is(readlink($old->pgdata . '/pg_wal'), $wal, 'its WAL is in its folder');
is(join(' ', glob("$wal.follow_primary*"), glob($old->pgdata . '.follow_primary/job*')), '', 'nothing is left beside');

# 2. A command fails before anything is stopped.
my $pid = $old->pid;
$r = $new->try_sql("SET follow_primary.copy_command = 'exit 3'; " . $new->follow_sql($old, @how), timeout => 300);
is($r->{sqlstate}, '38000', 'a command fails while the standby runs');
is($old->pid, $pid, 'its server has not been stopped');
is($new->safe_psql("SELECT slot_name FROM pg_replication_slots WHERE slot_name ~ '^follow_primary'"), '', 'no slot of the job is left');

done_testing();
