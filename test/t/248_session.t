# One SSH session carries a whole job. The test shows what sshd does to an idle
# session, what a script leaves behind in it, and what its end does to a rewind that
# has not changed anything yet. Only a real sshd hangs up, and only real process
# groups are ended.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 2, extension => 1, hold => 1,
    sshd_conf => "ClientAliveInterval 2\nClientAliveCountMax 2\n");
my ($old, $new) = $cluster->nodes;
my $work = $old->pgdata . '.follow_primary/job';
my $address = $old->address;

sub start_job { my (%arguments) = @_; return $new->safe_psql($new->follow_sql($old, wait => 'false', when_down => 'rejoin', %arguments)) }

# The session's shell, and the one that watches for its end.
sub shells { return keys %{ { our_commands(qr/ -s follow_primary $/) } } }

# 1. The primary's checkpoint takes longer than sshd waits for an answer.
$old->safe_psql('CREATE TABLE t AS SELECT generate_series(1, 1000) AS i');
$old->wait_for_catchup($new);
my $checkpointer = $new->safe_psql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'");
# From 19 on a promotion waits for the checkpointer.
my $waits = pg_major() >= 19;
kill 'STOP', $checkpointer if !$waits;
$new->promote;
$old->safe_psql('INSERT INTO t VALUES (1001)');
my $id = start_job();
SKIP:
{
    skip 'a promotion waits for a checkpointer that is held', 2 if $waits;
    ok($new->poll_query_until("SELECT count(*) FROM follow_primary_step WHERE job_id = $id AND step = 'checkpoint'
        AND clock_timestamp() > started_at + interval '10 s'", 1), 'a job waits for a checkpoint, for 10 s');
    is($new->job('state'), 'running', 'and goes on waiting');
    kill 'CONT', $checkpointer;
}
ok($new->poll_query_until("SELECT state <> 'running' FROM follow_primary_job WHERE id = $id"), 'it ends');
is($new->job('state, method, error'), 'succeeded|rewind|', 'its SSH session is still there');
unlike(slurp($old->host->dir . '/sshd.log'), qr/Timeout, client not responding/, 'for sshd had its answers');

# 2. A start command leaves the server in the process group of the session.
$new->set_row($old, node_start_command => 'nohup ' . $old->bin('postgres') . ' -D %D >/dev/null 2>&1 &');
$old->promote;
$old->safe_psql('INSERT INTO t VALUES (1002)');
$old->stop;
$new->hold_step('verify');
$id = start_job(method => 'rewind');
$new->wait_held(1, 60);
ok($old->running, 'the node is started by such a command');
$new->safe_psql("SELECT follow_primary_cancel($id)");
ok($new->poll_query_until("SELECT state FROM follow_primary_job WHERE id = $id", 'cancelled'), 'the job is cancelled after that');
wait_until('its session ends', sub { !shells() });
ok($old->running, 'the server runs on');
$new->release_step;
my $r = makes_follow($new, $old, 'the next call finds it following');
is($new->job('method'), 'none', 'and only proves it');

# 3. The job ends before pg_rewind has changed anything: a server may be started
# again.
my $bin = scratch_dir('bin');
my $began = "$bin/began";
bindir_with($bin, 'pg_rewind', ">'$began'\nexec sleep 100\n");
$new->set_row($old, node_start_command => undef, node_bin_dir => $bin);
$old->promote;
$old->safe_psql('INSERT INTO t VALUES (1003)');
$old->stop;
$id = start_job(method => 'rewind');
wait_until('pg_rewind is there', sub { -e $began }, 60);
is((stat $old->pgdata)[2] & 0777, 0704, 'while pg_rewind works no server can be started');
$new->safe_psql("SELECT follow_primary_cancel($id)");
ok($new->poll_query_until("SELECT state FROM follow_primary_job WHERE id = $id", 'cancelled'), 'the job is cancelled there');
wait_until('its session ends', sub { !shells() });
is((stat $old->pgdata)[2] & 0777, 0700, 'the data may be started');
ok(!-e "$work/mark", 'and is not marked');
$new->set_row($old, node_bin_dir => undef);
makes_follow($new, $old, 'the next call rewinds it', method => 'rewind', when_down => 'rejoin');
is($new->job('method, lost_transactions'), 'rewind|1', 'and knows what it loses');
is($old->safe_psql('SELECT count(*) FROM t'), $new->safe_psql('SELECT count(*) FROM t'), "it has the primary's rows");

done_testing();
