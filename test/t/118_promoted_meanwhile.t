# A job knows a node as a standby, and somebody promotes it: while the job copies,
# just before the job changes its settings or stops it, or after the job was
# interrupted and left its mark. The node may then be the newer primary, with commits
# that nobody else has. Only real promotions between two steps of real jobs change a
# control file under a job.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 5, extension => 1, hold => 1,
    conf => { 'follow_primary.verify_timeout' => '20s' });
my ($old, $copied, $repointed, $rewound, $killed) = $cluster->nodes;
$old->safe_psql('CREATE TABLE t AS SELECT 1 AS i');
$old->wait_for_catchup($_) for $copied, $repointed, $rewound, $killed;

my $repoint = reloads('primary_conninfo') ? 'repoint' : 'stop';
for my $case ([ $repointed, 'repoint', $repoint ], [ $rewound, 'rewind', 'stop' ], [ $copied, 'basebackup', 'stop' ])
{
    my ($node, $method, $step) = @$case;

    $old->hold_step($step);
    my $call = $old->psql_start($old->follow_sql($node, method => $method));
    $old->wait_held(1, 60);
    $node->promote;
    $node->safe_psql('INSERT INTO t SELECT 2');
    my $pid = $node->pid;
    $old->release_step;
    is($call->wait(60), 3, "$method: the call fails");
    like($call->err, qr/the node runs as a primary on timeline 2, above this server's 1: it may be the newer primary/,
        "$method: for the node has become a primary") or diag($call->err);
    is($old->job('state, error_code, method, lost_wal_bytes'), 'failed|55000|refuse|', "$method: its row says so");
    is($node->pid, $pid, "$method: the node was not stopped");
    is($node->safe_psql('SELECT count(*), pg_is_in_recovery() FROM t'), '2|f', "$method: it has what was committed there");
    $node->restart;
    ok(!$node->in_recovery, "$method: and starts as a primary again");
}

# This one is killed, too, before the copy is there. A copy was asked for, so the job
# makes it, and saves what was committed.
$old->hold_step('stop');
my $call = $old->psql_start($old->follow_sql($killed, method => 'basebackup', when_down => 'rejoin'));
$old->wait_held(1, 60);
$killed->promote;
$killed->safe_psql('INSERT INTO t SELECT 2');
$killed->kill9;
$old->release_step;
is($call->wait(60), 0, 'promoted and killed: the copy that was asked for is made') or diag($call->err);
is($old->job('state, method, lost_transactions, lost_wal_dir IS NOT NULL'), 'succeeded|basebackup|1|t', 'and what was committed is saved');

# A job is interrupted before it has proven the node, so its mark stays. The node
# becomes the primary, and is lost in its turn.
my ($lost, $new) = ($copied, $repointed);
$lost->stop;
$old->hold_step('verify');
$call = $old->psql_start($old->follow_sql($lost, method => 'basebackup', when_down => 'rejoin'));
$old->wait_held(1, 60);
$old->job('pg_terminate_backend(worker_pid)');
$call->wait(60);
$old->release_step;
is($old->job('state'), 'interrupted', 'a job is interrupted after the swap');
like(slurp($lost->pgdata . '.follow_primary/job/mark'), qr/^phase=ready$/m, 'its mark says that the data was brought');
$lost->promote;
my $r = makes_follow($lost, $new, 'its node is promoted, and followed by another');
$new->stop;
$lost->safe_psql('INSERT INTO t SELECT 3');
$lost->kill9;
$new->start;
$new->promote;

makes_follow($new, $lost, 'it is lost, and the other promoted');
is($new->job('state, reason'), 'skipped|the node is down', 'it is down by itself now, and left alone');
makes_follow($new, $lost, 'it is asked back', when_down => 'rejoin');
is($new->job('method, lost_transactions, lost_wal_dir IS NOT NULL'), 'rewind|1|t', 'what only it had is counted and saved');

# Another job ends before it has moved anything, and somebody uses the node's own data
# before the next call.
$lost->promote;
$lost->safe_psql('INSERT INTO t SELECT 4');
$lost->stop;
$new->hold_step('swap');
$call = $new->psql_start($new->follow_sql($lost, method => 'basebackup', when_down => 'rejoin'));
$new->wait_held(1, 60);
my ($beside) = $lost->pgdata =~ m{(.*)/};
my $mode = (stat $beside)[2] & 07777;
chmod 0500, $beside or die "chmod: $!";
$new->release_step;
isnt($call->wait(60), 0, 'a swap cannot begin');
chmod $mode, $beside or die "chmod: $!";
like(slurp($lost->pgdata . '.follow_primary/job/mark'), qr/^phase=swapping$/m, 'its mark says that it was about to');
is($new->job('lost_wal_dir'), '', 'nothing is lost yet, nor said to be saved: it is in the old data');
$lost->start;
$lost->safe_psql('INSERT INTO t SELECT 5');
$lost->stop;
makes_follow($new, $lost, 'the next call replaces data that was used since', method => 'basebackup', when_down => 'rejoin');
is($new->job('lost_transactions'), 2, 'and saves what was written there, too');

done_testing();
