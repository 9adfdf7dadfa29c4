# A machine loses its power while a crashed standby recovers before its rewind, or
# when pg_rewind has removed standby.signal. The node must then be a standby still, or
# not start: a service manager may start it before anybody looks, and a server that
# promotes itself is a split brain. Only a real recovery and a real rewind, killed
# with all that runs them, leave such data.

use FollowPrimary::Test;

plan skip_all => 'a standby that crashed is not recovered before PostgreSQL 13' if pg_major() < 13;

# With small buffers pages are written all the time. So the data is consistent only
# where the WAL ends, and recovery takes long.
my $cluster = FollowPrimary::Cluster->new(nodes => 2, extension => 1, hold => 1, conf => {
    shared_buffers => '256kB', checkpoint_timeout => '1h', max_wal_size => '4GB' });
my ($primary, $node) = $cluster->nodes;
my $work = $node->pgdata . '.follow_primary/job';
$primary->safe_psql('CREATE TABLE t (i int PRIMARY KEY, j float8)');

sub crash
{
    $primary->safe_psql('TRUNCATE t');
    $primary->safe_psql('CHECKPOINT');
    $primary->wait_for_catchup($node);
    $node->safe_psql('CHECKPOINT');
    $primary->safe_psql('INSERT INTO t SELECT i, random() FROM generate_series(1, 150000) i ORDER BY random()');
    $primary->wait_for_catchup($node);
    $node->kill9;
    is($node->controldata('Database cluster state'), 'in archive recovery', 'a standby is killed');
    return;
}

sub recovering
{
    return (eval { slurp("$work/mark") } // '') =~ /^phase=recovering$/m && $node->running
        && (eval { slurp("$work/recovery.log") } // '') =~ /redo starts/;
}

# sshd, the script and the server end at one moment.
sub lose_power
{
    my $call = $primary->psql_start($primary->follow_sql($node, when_down => 'rejoin'));
    wait_until('it is recovered', \&recovering, 60);
    my $left = $node->pid;
    $node->host->ssh_kill;
    ok(!kill(0, $left), 'the power fails while it is recovered');
    isnt($call->wait(60), 0, 'the call fails');
    unlike(slurp("$work/recovery.log"), qr/consistent recovery state/, 'the recovery had not ended');
    is($node->controldata('Database cluster state'), 'in archive recovery', 'its data is as after a crash');
    ok(-e $node->pgdata . '/standby.signal', 'it is marked as a standby');
    ok(!-e $node->pgdata . '/recovery.signal', 'and as nothing else');
    unlink $node->host->dir . '/.s.PGSQL.' . $node->port . '.lock';
    $node->host->ssh_start;
    return;
}

sub follows_now
{
    my ($what, $how, @asked) = @_;
    my $r = makes_follow($primary, $node, "$what: the call succeeds", when_down => 'rejoin', @asked);
    is($primary->job('method'), $how, "$what: $how");
    $primary->safe_psql('INSERT INTO t SELECT min(i) - 1 FROM t');
    $primary->wait_for_catchup($node);
    is($node->safe_psql('SELECT count(*), sum(i) FROM t'), $primary->safe_psql('SELECT count(*), sum(i) FROM t'),
        "$what: it has the primary's rows");
    is(join(' ', grep { !/^lost_wal/ } map { s{.*/}{}r } glob $node->pgdata . '.follow_primary/*'), '', "$what: nothing is left beside its data");
    return;
}

crash();
lose_power();
follows_now('called again', 'rewind');

crash();
lose_power();
$node->start;
ok($node->in_recovery, 'a server that starts by itself is a standby');
$node->wait_for_streaming($primary);
follows_now('started by itself', 'none');

# Somebody made a former primary a standby, but has not started it yet.
$node->promote;
$node->safe_psql('INSERT INTO t SELECT generate_series(1000001, 1000100)');
$node->kill9;
is($node->controldata('Database cluster state'), 'in production', 'a primary is killed');
spew($node->pgdata . '/standby.signal', '');
follows_now('a primary with standby.signal', 'rewind', method => 'rewind');
cmp_ok($primary->job('lost_transactions'), '>=', 1, 'and what it had is counted');

# pg_rewind has ended, and nothing came after it.
my $real = bindir();
my $bin = scratch_dir('bin');
my $ended = "$bin/ended";
bindir_with($bin, 'pg_rewind', "'$real/pg_rewind' \"\$@\" || exit\n>'$ended'\nsleep 100\n");
$primary->set_row($node, node_bin_dir => $bin);
$node->promote;
$node->safe_psql('INSERT INTO t SELECT generate_series(2000001, 2000100)');
$node->stop;
my $call = $primary->psql_start($primary->follow_sql($node, when_down => 'rejoin', method => 'rewind'));
wait_until('pg_rewind has ended', sub { -e $ended }, 60);
$node->host->ssh_kill;
isnt($call->wait(60), 0, 'the power fails when pg_rewind has ended: the call fails');
ok(!-e $node->pgdata . '/standby.signal', 'its data is no standby\'s by then');
ok(!$node->start(fail_ok => 1), 'a server does not start by itself');
like(slurp($node->host->dir . '/' . $node->name . '.start.log'), qr/FATAL: .*has invalid permissions/, 'for this reason');
$node->host->ssh_start;
$primary->set_row($node, node_bin_dir => undef);
# Without the job's row the next job cannot know that this primary began the rewind:
# what another primary saved of the node's WAL might begin too late.
$primary->safe_psql('DELETE FROM follow_primary_job');
$primary->hold_step('verify');
$call = $primary->psql_start($primary->follow_sql($node, when_down => 'rejoin'));
$primary->wait_held(1, 60);
is($primary->job('method'), 'basebackup', 'after pg_rewind: basebackup');
$primary->safe_psql('SELECT follow_primary_cancel(' . $primary->job('id') . ')');
isnt($call->wait(60), 0, 'after pg_rewind: cancelled before the proof');
$primary->release_step;
makes_follow($primary, $node, 'after pg_rewind: the next call succeeds', when_down => 'rejoin');
my @kept = $primary->job('hint') =~ /'([^']+)'/g;
is(join(' ', sort map { s{.*/}{}r =~ s/-\d+/-N/r } @kept), 'old-N old-N.wal', "another primary's interrupted job: what it left is kept");
cmp_ok(scalar(() = glob "$kept[0]/????????????????????????"), '>', 0, 'with the WAL that was there');
run_ok([ 'rm', '-r', @kept ]);
follows_now('after pg_rewind', 'none');
is((stat $node->pgdata)[2] & 0777, 0700, 'its permissions are as they were');

# A copy is in place, without the node's configuration.
$primary->hold_step('configure');
$call = $primary->psql_start($primary->follow_sql($node, method => 'basebackup'));
$primary->wait_held(1, 60);
$primary->safe_psql('SELECT follow_primary_cancel(' . $primary->job('id') . ')');
isnt($call->wait(60), 0, 'a job is cancelled before it has configured the copy');
$primary->release_step;
ok(!$node->running, 'the copy is not started');
ok(!$node->start(fail_ok => 1), 'nor does it by itself');
follows_now('not configured yet', 'basebackup');
is((stat $node->pgdata)[2] & 0777, 0700, 'its permissions are as they were, too');

# The WAL that would make the data consistent is gone. A standby would wait for it for
# ever.
crash();
my ($end) = map { hex s{.*/}{}r } $node->controldata('Minimum recovery ending location');
my @gone = grep { hex(substr $_, -8) >= $end >> 24 } glob $node->pgdata . '/pg_wal/????????????????????????';
is(unlink(@gone), scalar @gone, 'the end of its WAL is lost: ' . @gone . ' files');
follows_now('without its last WAL', 'basebackup');
like($primary->job('reason'), qr/WAL ends before consistent recovery point/, 'for this reason');

done_testing();
