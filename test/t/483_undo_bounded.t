# An undo, and the record of a failure, hold up neither the primary's own shutdown
# nor the node's return: a fast shutdown in the midst of a job takes seconds, and a
# lock on the record, by whoever, is no reason for a node to stay down. A second
# signal does not keep the failure from being recorded. Takes real locks, signals and
# shutdowns.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 5, extension => 1, hold => 1, conf => {
    'follow_primary.verify_timeout' => '8s' });
my ($old, $new, $stopping, $starting, $locked) = $cluster->nodes;

$old->safe_psql('CREATE TABLE t AS SELECT 1 AS i');
$old->wait_for_catchup($_) for $new, $stopping, $starting, $locked;
$_->set_standby(recovery_target_timeline => 'current') for $stopping, $starting, $locked;    # they need a restart
$_->wait_for_streaming($old) for $stopping, $starting, $locked;
$old->stop;
$new->promote;

# Locks a table of the record. LOCK TABLE waits for the held job's own lock: not before
# that is let go.
sub lock_table
{
    my ($table) = @_;
    my $lock = $new->psql_start("SET application_name = 'locker'; BEGIN; LOCK TABLE $table IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(300)");
    $new->poll_query_until("SELECT count(*) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation WHERE c.relname = '$table' AND l.mode = 'AccessExclusiveLock'", 1) or die;
    return $lock;
}

sub unlock_table
{
    my ($lock) = @_;
    $lock->stop(signal => 'INT');
    $new->safe_psql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'locker'});
    return;
}

# A lock on the rows of nodes: no job has begun.
{
    my $lock = lock_table('follow_primary_node');
    for my $sql ($new->follow_sql($locked), 'SELECT * FROM follow_primary_all()', 'SELECT * FROM follow_primary_check()')
    {
        my $r = $new->try_sql($sql, timeout => 30);
        is($r->{sqlstate}, '55P03', "a lock on the nodes' rows ends a call: $sql") or diag($r->{err});
        like($r->{hint}, qr/pg_locks WHERE relation = '\S*follow_primary_node'::regclass/, 'the hint finds who has it');
    }
    is($new->safe_psql('SHOW lock_timeout'), '0', 'the caller has no limit of his own');
    unlock_table($lock);
}

# Locks on the record while a node is stopped.
for my $table ('follow_primary_step', 'follow_primary_job')
{
    $new->hold_step('configure');
    my $waiting = $new->psql_start($new->follow_sql($locked), keep_going => 1);
    $new->wait_held(1);
    ok(!$locked->running, "$table: the node is stopped");
    my $lock = lock_table($table);
    my $started = time;
    $new->release_step;
    wait_until("$table: the node is up again", sub { $locked->running }, 40);
    cmp_ok(time - $started, '<', 25, "$table: a lock on the record does not keep the node down");
    ok(defined $waiting->wait(40), "$table: the call ends while the lock is held");
    like($waiting->err, qr/ERROR:.*lock/s, "$table: by an error that tells of the lock");
    like($waiting->err, qr/pg_terminate_backend\(\d+\)|locker/, "$table: and of who has it") or diag($waiting->err);
    unlock_table($lock);
    ok($new->poll_query_until(q{SELECT count(*) FROM follow_primary_job WHERE state = 'running'}, 0, 60), "$table: when the lock is gone the record is put right");
    like($new->job('state'), qr/failed|interrupted/, "$table: it says that the job has not succeeded");
    is($locked->safe_psql('SELECT pg_is_in_recovery(), i FROM t'), 't|1', "$table: the node serves as before");
}

# A server that is shut down signals each of its processes twice. The second signal
# comes while the job waits for its slot, which another client has.
$new->hold_step('stop');
my $id = $new->safe_psql($new->follow_sql($locked, slot_name => 'receiver', wait => 'false'));
$new->wait_held(1);
my $client = FollowPrimary::Process->start([ $new->bin('pg_receivewal'), '-D', scratch_dir('received'), '-w', '-n', '-S', 'receiver',
    '-d', $new->connstr(undef, 'repl') =~ s/ dbname=\S+//r ]);
$new->poll_query_until(q{SELECT active FROM pg_replication_slots WHERE slot_name = 'receiver'}, 't') or die $client->err;
my $worker = $new->job('worker_pid');
$new->safe_psql("SELECT pg_terminate_backend($worker)");
$new->poll_query_until("SELECT wait_event_type FROM pg_stat_activity WHERE pid = $worker", 'Extension') or die;
$new->safe_psql("SELECT pg_terminate_backend($worker)");
$client->stop(signal => 'INT');
$new->poll_query_until("SELECT count(*) FROM pg_stat_activity WHERE pid = $worker", 0, 20) or die;
is($new->job('state, error_code, error'), "interrupted|57P01|the job's worker was terminated", 'a job that is told twice to end has its failure in its row');
is($new->safe_psql("SELECT count(*) FROM follow_primary_step WHERE job_id = $id AND finished_at IS NULL"), 0, 'and no step still runs');
is($new->safe_psql(q{SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'receiver'}), 0, 'and drops the slot that it made');
like($new->log_content, qr/job $id for node \S+: interrupted at step stop/, 'and its line is in the log');
$new->release_step;

# An undo that fails, and then a lock on the record.
$new->safe_psql("UPDATE follow_primary_node SET node_start_command = 'exit 1' WHERE host = '@{[ $locked->address ]}'");
$new->hold_step('configure');
$new->safe_psql($new->follow_sql($locked, wait => 'false'));
$new->wait_held(1);
my $lock = lock_table('follow_primary_job');
$worker = $new->safe_psql(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'follow_primary'});
$new->safe_psql("SELECT pg_terminate_backend($worker)");
ok($new->poll_query_until("SELECT count(*) FROM pg_stat_activity WHERE pid = $worker", 0, 20), 'a failed undo is no reason to wait for a lock for ever');
like($new->log_content, qr/could not be put back/, 'the undo had failed');
unlock_table($lock);
$new->release_step;
$new->safe_psql('UPDATE follow_primary_node SET node_start_command = NULL');

# The primary is shut down while the node's stop hangs.
$cluster->set('follow_primary.stop_timeout' => '60s', 'follow_primary.start_timeout' => '60s');
my $receiver = $stopping->safe_psql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'");
kill 'STOP', $receiver;
$id = $new->safe_psql($new->follow_sql($stopping, wait => 'false'));
$new->poll_query_until("SELECT step FROM follow_primary_job WHERE id = $id", 'stop') or die;
my $postmaster = $stopping->pid;
wait_until('the node is told to stop', sub { slurp($stopping->pgdata . '/postmaster.pid') =~ /stopping/ });
my $started = time;
$new->stop('fast');
cmp_ok(time - $started, '<', 15, "a node's stop that hangs does not hold up the primary's fast shutdown");
kill 'CONT', $receiver;
$new->start;
ok($new->poll_query_until("SELECT state FROM follow_primary_job WHERE id = $id", 'interrupted', 30), 'the job is recorded as interrupted');

# The same while it starts, by a command that takes its time.
wait_until('the node has stopped', sub { !$stopping->running || slurp($stopping->pgdata . '/postmaster.pid') !~ /stopping/ }, 30);
$new->safe_psql("UPDATE follow_primary_node SET node_start_command = 'sleep 50' WHERE host = '@{[ $starting->address ]}'");
$id = $new->safe_psql($new->follow_sql($starting, wait => 'false'));
$new->poll_query_until("SELECT step FROM follow_primary_job WHERE id = $id", 'start') or die;
$started = time;
$new->stop('fast');
cmp_ok(time - $started, '<', 15, "nor does a node's start");
$new->start;
ok($new->poll_query_until("SELECT state FROM follow_primary_job WHERE id = $id", 'interrupted', 30), 'that job is recorded, too');

# What became of the nodes is for the next call.
$new->safe_psql("UPDATE follow_primary_node SET node_start_command = NULL");
for my $node ($stopping, $starting, $locked)
{
    my $r = $new->make_follow($node);
    ok($r->{ok}, $node->name . ': the next call makes it follow') or diag($r->{err});
}

done_testing();
