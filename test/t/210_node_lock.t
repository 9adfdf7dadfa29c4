# Only one job at a time has a node, even when two servers both take themselves for
# the primary: the lock is on the node. A job lets it go when it succeeds, fails or is
# cancelled, or when its worker is killed, and notices when it is lost. Here two real
# primaries share a standby, a backend is killed, and a connection is closed.

use FollowPrimary::Test;
use Time::HiRes qw(time);

my $cluster = FollowPrimary::Cluster->new(nodes => 4, extension => 1, hold => 1);
my ($old, $new, $node, $other) = $cluster->nodes;

# The former primary goes on: there are two now, and both standbys have WAL that
# only the former has written.
$new->promote;
$old->safe_psql('CREATE TABLE stray (i int)');
$old->wait_for_catchup($_) for $node, $other;
ok(!$old->in_recovery && !$new->in_recovery, 'there are two primaries');

sub lock_file { return $_[0]->pgdata . '.follow_primary.lock' }

# What a job might change on a node, and on the server that runs the job.
sub state_of
{
    my ($server, $standby) = @_;
    return $standby->fingerprint . $server->safe_psql('SELECT slot_name, active_pid FROM pg_replication_slots ORDER BY 1');
}

#
# Two servers, one node
#

$new->hold_step('slot');
my $first = $new->psql_start($new->follow_sql($node));
$new->wait_held(1);
like(slurp(lock_file($node)), qr/\AJob 1 of the primary \S+:\d+ has it since \S+ \S+ UTC\.\n\d+ \S+ \d+ \S+ \d+\n\z/, 'the lock file says who has it');
is((stat lock_file($node))[2] & 0777, 0600, 'and only its owner can read it');

my $before = state_of($old, $node);
my $r = $old->make_follow($node, method => 'rewind');
is($r->{sqlstate}, '55006', "another server's call for the node is refused") or diag($r->{err});
like($r->{message}, qr/at step lock: another job is at work on node \Q@{[ $node->address ]}\E/, 'by the lock');
like($r->{detail}, qr/\AJob 1 of the primary \Q@{[ $new->address . ':' . $new->port ]}\E has it since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC\. The lock is \Q@{[ lock_file($node) ]}\E, held by process \d+\.\z/,
    'the error says who has it, and since when');
like($r->{hint}, qr/Wait until it has ended/, 'and what to do');
is($old->job('state, error_code, step'), 'failed|55006|lock', "so does the job's row");
is(state_of($old, $node), $before, 'nothing was changed');
is($first->wait(0), undef, 'the first goes on');

$new->release_step;
is($first->wait(60), 0, 'and comes to its end') or diag($first->err);
is($new->safe_psql("SELECT active FROM pg_replication_slots WHERE slot_name = '" . $node->slot_name . "'"), 't',
    'the node follows the first');
ok(!-e lock_file($node), 'the lock file is gone');
is($new->safe_psql("SELECT count(*) FROM follow_primary_step WHERE job_id = 1 AND step IN ('plan', 'lock')"), 2,
    'nobody came between, so it planned once');
$r = $old->make_follow($node);
is($r->{sqlstate}, '55000', 'the second call is now refused by the plan') or diag($r->{err});
like($r->{message}, qr/the node is on timeline 2, above this server's 1/, 'for its own reason');

#
# The second job waits for the lock when the first ends, so its survey is old.
#

$new->hold_step('verify');
$first = $new->psql_start($new->follow_sql($node, method => 'rewind'));
$new->wait_held(1);
my $second = $old->psql_start($old->follow_sql($other, method => 'rewind'));
is($second->wait(60), 0, 'meanwhile a job for another node goes through') or diag($second->err);
$new->release_step;
is($first->wait(60), 0, 'the first ends') or diag($first->err);

# Another job comes and goes between a job's survey and its lock.
$old->hold_step('lock');
$second = $old->psql_start($old->follow_sql($other, method => 'rewind'));
$old->wait_held(1);
makes_follow($new, $other, 'a job has the node between the survey and the lock of another');
$old->release_step;
is($second->wait(60), 0, 'which looks again') or diag($second->err);
is($old->safe_psql("SELECT string_agg(step, ' ' ORDER BY seq) FROM follow_primary_step
    WHERE job_id = (SELECT max(id) FROM follow_primary_job) AND seq <= 5"), 'survey plan lock plan lock', 'and plans anew');
is($old->job('fork_lsn IS NOT NULL'), 't', 'for what the node is now: diverged');

#
# A job ends before its last step
#

sub lock_gone
{
    my ($standby, $what) = @_;
    my $start = time;
    wait_until("the lock file goes when $what", sub { !-e lock_file($standby) }, 30);
    cmp_ok(time - $start, '<', 2, "the lock is free within two seconds when $what");
    return;
}

for my $kind (qw(cancelled terminated killed lost))
{
    $new->hold_step('stop');
    $first = $new->psql_start($new->follow_sql($other, method => 'rewind'));
    $new->wait_held(1);
    ok(-e lock_file($other), 'the node is locked');
    my ($id, $pid) = split /\|/, $new->job('id, worker_pid');
    my $postmaster = $other->pid;

    if ($kind eq 'cancelled')
    {
        is($new->safe_psql("SELECT follow_primary_cancel($id)"), 't', 'the job is cancelled');
        lock_gone($other, $kind);
        $new->release_step;
        isnt($first->wait(30), 0, 'its caller is told');
        is($new->job('state'), 'cancelled', 'and so is its row');
    }
    elsif ($kind eq 'terminated')
    {
        kill 'TERM', $pid;
        lock_gone($other, $kind);
        $new->release_step;
        isnt($first->wait(30), 0, 'its caller is told');
        is($new->job('state'), 'interrupted', 'and so is its row');
    }
    elsif ($kind eq 'killed')
    {
        kill 'KILL', $pid;
        lock_gone($other, $kind);
        $first->wait(30);
        $new->poll_query_until('SELECT true', 't', 30) or die "the server does not restart\n";
    }
    else
    {
        # The lock's file names its holder on the node, which can clean up nothing
        # when it is killed.
        my ($holder) = slurp(lock_file($other)) =~ /\n(\d+) /;
        kill 'KILL', $holder or die "kill: $!";
        $new->release_step;
        isnt($first->wait(30), 0, 'a job that has lost its lock fails');
        like($first->err, qr/the lock on the node is lost/, 'and says so');
        is($new->job('state, error_code, step'), 'failed|58000|stop', "so does the job's row");

        ok(-e lock_file($other), 'its file stays');
    }
    is($other->pid, $postmaster, "the node's server was not touched");
}

makes_follow($new, $other, 'a file that nobody locks is no hindrance', method => 'rewind');
ok(!-e lock_file($other), 'and it goes with the next job');

$new->fail_steps('stop');
$r = $new->make_follow($other, method => 'rewind');
like($r->{message}, qr/the test fails step stop/, 'a step fails');
ok(!-e lock_file($other), 'no lock file is left');
$new->fail_steps;

#
# Two nodes, one server
#

$new->hold_step('stop');
my @both = map { $new->psql_start($new->follow_sql($_, method => 'rewind')) } $node, $other;
$new->wait_held(2);
ok(-e lock_file($node) && -e lock_file($other), 'two nodes are locked at once');
$new->release_step;
is($_->wait(60), 0, 'both jobs go through') or diag($_->err) for @both;
ok(!-e lock_file($node) && !-e lock_file($other), 'and unlock them');
is(join(' ', grep { !m{/lost_wal-\d+\z} } map { glob $_->pgdata . '.follow_primary/*' } $node, $other), '',
    'nothing is left beside the data but the WAL that was saved');

done_testing();
