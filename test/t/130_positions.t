# Where a node's WAL ends, relative to the fork, decides what it needs: only a start
# if it ends before the fork or exactly at it, a rewind if it ends one record behind.
# The node may also be several timelines behind, or on a higher one. PostgreSQL writes
# the records that matter at shutdowns and promotions, so these are real.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 5, extension => 1,
    conf => { autovacuum => 'off', bgwriter_delay => '10ms', checkpoint_timeout => '1h', 'follow_primary.verify_timeout' => '20s' });
my ($a, $b, $c, $d, $e) = $cluster->nodes;
my $primary;

# Makes the node follow; returns "method, what pg_rewind said, lost transactions, WAL
# lost".
sub follow
{
    my ($node, $what, %arguments) = @_;
    my $r = makes_follow($primary, $node, "$what: it follows", when_down => 'rejoin', %arguments);
    has_rows_of($primary, $node, $what);
    # A later promotion may use the number of that WAL's timeline again.
    is(join(' ', grep { my $wal = $node->pgdata . '/pg_wal/' . s{.*/}{}r; -e $wal && slurp($wal) eq slurp($_) }
        glob $node->pgdata . '.follow_primary/lost_wal-*/' . '?' x 24), '', "$what: no WAL that it lost is left in pg_wal");
    return $primary->safe_psql(q{SELECT concat_ws(', ', method, (SELECT detail FROM follow_primary_step WHERE job_id = id AND step = 'rewind'),
        lost_transactions, CASE WHEN lost_wal_bytes > 0 THEN 'WAL lost' END) FROM follow_primary_job ORDER BY id DESC LIMIT 1});
}

sub switchpoint
{
    my ($node, $timeline) = @_;
    my ($line) = reverse split /\n/, slurp($node->pgdata . sprintf '/pg_wal/%08X.history', $timeline);
    return (split ' ', $line)[1];
}

# Exactly at the fork, by a switchover: the standby gets the shutdown checkpoint and
# is promoted at its end.
$a->safe_psql('CREATE TABLE t AS SELECT 1 AS i');
$a->safe_psql(q{SELECT pg_create_physical_replication_slot('of_its_former_life', true)});
$a->wait_for_catchup($_) for $b, $c, $d, $e;
$e->stop;    # stays away for a long time
$a->stop;
$_->poll_query_until('SELECT count(*) FROM pg_stat_wal_receiver', '0') for $b, $c, $d;
($primary = $b)->promote;
my $end = $a->controldata('Latest checkpoint location');
is($b->safe_psql("SELECT '" . switchpoint($b, 2) . "'::pg_lsn - '$end'::pg_lsn BETWEEN 1 AND 200"), 't',
    'at the fork: the former primary ends with its shutdown checkpoint, and there the new timeline begins');
is(follow($a, 'at the fork'), 'repoint, 0', 'at the fork: only a start was needed');
is($a->safe_psql('SELECT count(*) FROM pg_replication_slots'), '0', 'at the fork: slots of its life as a primary are gone');
is(follow($c, 'a sibling'), 'repoint', 'a sibling: repointed');
is(follow($d, 'another sibling'), 'repoint', 'another sibling: repointed');

# Before the fork: the former primary is stopped, the others go on, and then a
# failover comes.
$a->stop;
$b->safe_psql('INSERT INTO t SELECT 2');
$b->wait_for_catchup($_) for $c, $d;
$b->safe_psql('INSERT INTO t SELECT 3');
$b->wait_for_catchup($_) for $c, $d;
$b->stop;
$_->poll_query_until('SELECT count(*) FROM pg_stat_wal_receiver', '0') for $c, $d;
($primary = $c)->promote;
is(follow($a, 'a few records before the fork'), 'repoint, 0', 'a few records before the fork: only a start was needed');
is(follow($b, 'at the next fork'), 'repoint, 0', 'at the next fork: only a start was needed');

# Behind the fork, only by the record that a shutdown writes; and by more.
is(follow($d, 'another sibling'), 'repoint', 'another sibling: repointed once more');
# From here on the primary writes nothing by itself: the checkpoint of its promotion has ended.
$c->safe_psql('CHECKPOINT');
$c->wait_until_quiet;
$c->wait_for_catchup($_) for $a, $b, $d;
($primary = $d)->promote;
$c->stop;
$_->poll_query_until('SELECT count(*) FROM pg_stat_wal_receiver', '0') for $a, $b;
$b->promote;    # for later
$b->safe_psql('INSERT INTO t SELECT 1000');
$b->safe_psql('INSERT INTO t SELECT 1001');
is($b->timeline, 4, 'a stray primary: it is on a timeline 4 of its own');
my $fork = switchpoint($d, 4);
is($c->controldata('Latest checkpoint location'), $fork, 'behind the fork: the former primary wrote a shutdown checkpoint there, and nothing else')
    or diag((run_command([ $c->bin('pg_waldump'), '-p', $c->pgdata . '/pg_wal', '-t', 3, '-s', $fork ]))[1]);
like($primary->plan_for($c, when_down => 'rejoin'), qr/^rewind\|.*after the fork at \Q$fork\E on timeline 3/, 'behind the fork: the plan knows');
is(follow($c, 'one record behind the fork'), 'rewind, rewound, 0, WAL lost', 'one record behind the fork: rewound, though no row is lost');

# Far behind: node e was last heard of on timeline 1, three failovers ago.
is($e->controldata("Latest checkpoint's TimeLineID"), '1', 'three timelines behind: it is down on timeline 1');
is(follow($e, 'three timelines behind'), 'repoint, 0', 'three timelines behind: only a start was needed');
# Node a was connected to c, and received its last record.
is(follow($a, 'a standby with that record'), 'rewind, rewound, 0, WAL lost', 'a standby with that record, running: rewound');

# Meanwhile b is lost on a timeline of its own, with rows; then comes another
# failover.
$d->safe_psql('INSERT INTO t SELECT 4');
$d->wait_for_catchup($_) for $a, $c, $e;
$d->stop;
($primary = $a)->promote;
is(follow($c, 'a sibling'), 'repoint', 'a sibling: repointed to timeline 5');
is($primary->timeline, 5, 'which is the timeline now');
is(follow($b, 'a stray primary'), 'rewind, rewound, 2, WAL lost', 'a stray primary on an older timeline with the same number: rewound');

# On a higher timeline: the node may be the newer primary, so only the caller decides.
$c->promote;
$c->safe_psql('INSERT INTO t SELECT 2000');
like($primary->plan_for($c, when_down => 'rejoin'), qr/^refuse\|.*timeline 6, above this server's 5/, 'on a higher timeline, as a primary: refused');
my $r = $primary->make_follow($c);
is($r->{sqlstate}, '55000', 'by the call, too');
ok(!$c->in_recovery, 'it was left alone');
$c->stop;
like($primary->plan_for($c, when_down => 'rejoin'), qr/^refuse\|.*timeline 6, above this server's 5/, 'down on a higher timeline: refused as well');
is(follow($c, 'on a higher timeline, on demand', method => 'rewind'), 'rewind, rewound, 1, WAL lost', 'on a higher timeline: rewound when it is asked for');

done_testing();
