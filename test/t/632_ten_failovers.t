# Ten failovers in a row over four nodes, each by a crash, with the library
# preloaded. Proves what no single failover does: that slots neither pile up nor are
# missing, and that none holds WAL that nobody needs, at the end of each.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 4, extension => 1,
    conf => { shared_preload_libraries => 'follow_primary', wal_keep_size => 0, max_worker_processes => 20, max_wal_size => '64MB', min_wal_size => '32MB' });
my @nodes = $cluster->nodes;
my $primary = $nodes[0];
$primary->safe_psql('CREATE TABLE t (i int)');
$primary->wait_for_catchup($_) for @nodes[1 .. 3];

sub kept_for
{
    my ($node) = @_;
    return join ' ', sort map { $_->slot_name } grep { $_ != $node } @nodes;
}

sub as_it_should_be
{
    my ($node) = @_;
    my $slots = q{SELECT string_agg(slot_name, ' ' ORDER BY slot_name) FROM pg_replication_slots};
    my $near = q{SELECT bool_and(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END - restart_lsn < 4 * 16 * 1024 * 1024) FROM pg_replication_slots};
    return ($node->poll_query_until($slots, kept_for($node), 30) && $node->poll_query_until($near, 't', 30))
        || do { diag($node->name . ":\n" . $node->safe_psql('SELECT slot_name, active, restart_lsn, pg_is_in_recovery() FROM pg_replication_slots') . "\n" . $primary->safe_psql('TABLE follow_primary_slot')); 0 };
}

my %methods;
for my $round (1 .. 10)
{
    my $next = $nodes[$round % @nodes];
    $next->poll_query_until(q{SELECT string_agg(slot_name, ' ' ORDER BY slot_name) FROM pg_replication_slots}, kept_for($next), 30);
    for (1 .. 3)
    {
        $primary->safe_psql("INSERT INTO t VALUES ($round); SELECT pg_switch_wal()");
    }
    $primary->safe_psql('CHECKPOINT');
    my $former = $primary;
    $former->wait_for_catchup($next);
    $former->kill9;
    $next->promote;
    $primary = $next;
    for my $node (grep { $_ != $primary } @nodes)
    {
        my $r = $primary->make_follow($node, when_down => 'rejoin');
        ok($r->{ok}, "failover $round: " . $node->name . ' follows ' . $primary->name) or diag($r->{err});
        $methods{$primary->safe_psql('SELECT method FROM follow_primary_job ORDER BY id DESC LIMIT 1')}++;
    }
    # A round of writes and checkpoints, for what is kept to be seen.
    for (1 .. 6)
    {
        $primary->safe_psql("INSERT INTO t VALUES ($round); SELECT pg_switch_wal()");
    }
    $primary->wait_for_catchup($_) for grep { $_ != $primary } @nodes;
    $_->safe_psql('CHECKPOINT') for $primary, grep { $_ != $primary } @nodes;
    is(join(' ', map { $_->name } grep { !as_it_should_be($_) } @nodes), '', "failover $round: every server has a slot for each other one, which keeps no more than it has to");
}
is($methods{basebackup} // 0, 0, 'nothing was ever copied') or diag(explain(\%methods));
is($_->safe_psql('SELECT count(*) FROM t'), 90, $_->name . ' has all rows') for @nodes;
unlike($_->log_content, qr/the keeper of follow_primary cannot go on/, $_->name . ': the keeper met no error') for @nodes;

done_testing();
