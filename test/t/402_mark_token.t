# Two servers that were promoted one after the other give their jobs the same
# numbers, for the sequence of a replicated table goes on where it was. What the
# job of one put aside on a node may be the only copy of what the node had
# committed; the other's job, which has its number and meets its mark, may not
# take it for its own and remove it. Needs two real promotions, and jobs that
# are ended between the exchange and the proof.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 4, extension => 1, hold => 1,
    conf => { 'follow_primary.verify_timeout' => '20s' });
my ($db1, $db2, $db3, $db4) = $cluster->nodes;

$db1->safe_psql('CREATE TABLE t AS SELECT 1 AS i');
$db1->wait_for_catchup($_) for $db2, $db3, $db4;
$_->promote for $db2, $db3, $db4;
$db1->safe_psql('INSERT INTO t SELECT 1000');    # only there

# A job of db2 ends before the new data is proven.
sub interrupt
{
    my ($node, $step, %arguments) = @_;
    $db2->hold_step($step);
    my $call = $db2->psql_start($db2->follow_sql($node, %arguments));
    $db2->wait_held(1, 60);
    $db2->safe_psql('SELECT follow_primary_cancel(' . $db2->job('id') . ')');
    isnt($call->wait(60), 0, "a job is ended before $step");
    $db2->release_step;
    return $db2->job('id');
}

# Every folder beside its data that has a row of it, or its WAL.
sub kept
{
    my ($node) = @_;
    return join ' ', sort map { s{.*/}{}r } grep { -e "$_/PG_VERSION" } glob $node->pgdata . '.follow_primary/{,*/}old*';
}

my $first = interrupt($db1, 'start', method => 'basebackup');
isnt(kept($db1), '', 'what the node had is beside its new data: ' . kept($db1));
my $r = $db3->make_follow($db1, when_down => 'rejoin');
is($db3->job('id'), $first, 'the next primary gives its job the same number');
ok($r->{ok}, 'its job succeeds') or diag($r->{err});

# Does the data that is kept have the row? A server without standby.signal tells.
sub has_row
{
    my ($data, $row) = @_;
    unlink map { "$data/$_" } qw(standby.signal postmaster.pid);
    chmod 0700, $data;
    my $out = run_ok([ $db1->bin('postgres'), '--single', '-D', $data, 'postgres' ], in => "SELECT i FROM t WHERE i = $row\n");
    return $out =~ /i = "$row"/;
}

my @kept = grep { -e "$_/PG_VERSION" } glob $db1->pgdata . '.follow_primary/old*';
$db1->stop;
my @with = grep { has_row($_, 1000) } @kept;
is(scalar(@with), 1, 'what only the node had is still there') or BAIL_OUT('the only copy of committed rows is gone');
like($db3->job('hint'), qr/\Q$_\E/, 'the hint names what is kept') for @kept;
$db1->start;

# The same again, with data that is not configured yet.
$db4->safe_psql('INSERT INTO t SELECT 2000');
$_->safe_psql(q{SELECT setval(pg_get_serial_sequence('follow_primary_job', 'id'), 100)}) for $db2, $db3;
my $second = interrupt($db4, 'configure', method => 'basebackup');
$r = $db3->make_follow($db4, when_down => 'rejoin', method => 'basebackup');
is($db3->job('id'), $second, 'a copy that was not configured: the same number again');
ok($r->{ok}, 'the job succeeds') or diag($r->{err});
$db4->stop;
is(scalar(grep { -e "$_/PG_VERSION" && has_row($_, 2000) } glob $db4->pgdata . '.follow_primary/old*'), 1, 'what the node had is still there, too');
$db4->start;

# Its own marks a server knows: what was replaced goes when the node is proven.
my $own = do {
    my $before = $db3->safe_psql('SELECT 1');
    $db3->hold_step('start');
    my $call = $db3->psql_start($db3->follow_sql($db1, method => 'basebackup'));
    $db3->wait_held(1, 60);
    $db3->safe_psql('SELECT follow_primary_cancel(' . $db3->job('id') . ')');
    $call->wait(60);
    $db3->release_step;
    $db3->job('id');
};
run_ok([ 'rm', '-r', @kept ]);
$r = $db3->make_follow($db1, when_down => 'rejoin');
ok($r->{ok}, 'its own: the next call finishes it') or diag($r->{err});
is(kept($db1), '', 'its own: nothing is kept');

# A job's row and its mark have a random token, each its own.
is($db3->safe_psql('SELECT count(*) = count(DISTINCT token) AND count(*) > 2 FROM follow_primary_job WHERE token IS NOT NULL'), 't', 'each job has a token of its own');
is($db3->safe_psql('SELECT count(*) FROM follow_primary_job WHERE token::text IN (' . join(', ', map { "'$_'" } split /\n/, $db2->safe_psql('SELECT token FROM follow_primary_job')) . ')'), 0,
    'which the other server has not');

done_testing();
