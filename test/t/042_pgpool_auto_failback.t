# With auto_failback = on, pgpool's health check attaches a standby as soon as the
# primary streams to it, or did when pgpool looked last, which may have been before
# the failover. So the health check races with the jobs, and pgpool never calls the
# follow_primary_command for a node that is attached already. pgpool's own processes
# decide who wins; therefore the README says to use its line as it is.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 4, extension => 1, hold => 1);
my @node = $cluster->nodes;
my $pgpool = FollowPrimary::Pgpool->new(cluster => $cluster, follow => 1, conf => {
    auto_failback => 'on', auto_failback_interval => 1 });
$pgpool->start;

sub jobs
{
    my ($primary) = @_;
    return $primary->safe_psql(q{SELECT string_agg(concat_ws(' ', node_id, method, state), ', ' ORDER BY node_id)
        FROM (SELECT DISTINCT ON (node_id) * FROM follow_primary_job ORDER BY node_id, id DESC) j});
}

# pgpool looks for a standby by this name; a former primary has none yet.
$node[0]->safe_psql("UPDATE follow_primary_node SET application_name = '@{[ $_->name ]}' WHERE host = '@{[ $_->address ]}'") for @node;
$node[0]->safe_psql('CREATE TABLE t AS SELECT generate_series(1, 1000) AS i');
$node[0]->wait_for_catchup($_) for @node[ 1 .. 3 ];
$pgpool->wait_for('pgpool has seen them stream', sub { return 3 == grep { ($_->{replication_state} // '') eq 'streaming' } @_ }, 60);
is($pgpool->untruths($node[0]), '', 'pgpool shows a primary and three standbys, and so it is');

# 1. The README's line returns at once, so pgpool calls it for every node before its
# failover has ended; the health check has its turn only then.
$node[1]->hold_step('attach');
$node[0]->kill9;
$pgpool->wait_for_primary(1, 30);
$node[1]->wait_held(2);
$pgpool->wait_for_status($_ => 'up', 30) for 2, 3;
$node[1]->release_step;
is($pgpool->untruths($node[1], $node[0]), '', 'the siblings are up, and follow');
is(jobs($node[1]), '0 skip skipped, 2 repoint succeeded, 3 repoint succeeded', 'every node was visited');
is($node[1]->safe_psql(q{SELECT string_agg(detail, ', ' ORDER BY job_id) FROM follow_primary_step WHERE step = 'attach'}),
    "pgpool's node 2 is up already, pgpool's node 3 is up already", 'their jobs found them attached by the health check');

# 2. The former primary, which pgpool does not know as a standby.
my $r = makes_follow($node[1], $node[0], 'the crashed primary rejoins', when_down => 'rejoin', node_id => 0);
is($pgpool->untruths($node[1]), '', 'all are up, and follow');

# 3. A command takes its time with one node. Meanwhile the health check can attach the
# others by what pgpool knew of them under the former primary, and the command is
# never called for them. Here the test attaches them. If it does so before the command
# runs, pgpool itself waits for the command to end.
my $go = $pgpool->dir . '/go';
spew($pgpool->dir . '/wait', "#!/bin/sh\nfor i in \$(seq 600); do [ ! -e $go ] || break; sleep 0.1; done\n", 0700);
my $setting = $pgpool->version >= 4.2 ? 'follow_primary_command' : 'follow_master_command';
$pgpool->set(auto_failback => 'off', $setting => $pgpool->dir . '/wait; ' . $pgpool->follow_command);
wait_until('pgpool has read it', sub { return ($pgpool->psql("PGPOOL SHOW $setting"))[1] =~ m{/wait; } }, 60);
my $jobs = $node[1]->safe_psql('SELECT max(id) FROM follow_primary_job');
$node[1]->kill9;
wait_until('the command runs', sub { return $pgpool->log_content =~ m{execute command: \S+/wait;} }, 30);
$pgpool->wait_for_primary(0, 30);
for my $id (2, 3)
{
    # A request is lost while pgpool restarts its PCP process.
    $pgpool->wait_for("pgpool shows node $id up", sub {
        return 1 if grep { $_->{node_id} == $id && $_->{status} eq 'up' } @_;
        $pgpool->pcp('pcp_attach_node', '-n', $id);
        return 0;
    }, 30);
}
spew($go, '');
ok($node[0]->poll_query_until("SELECT node_id, state FROM follow_primary_job WHERE id > $jobs", '1|skipped', 30),
    'only the crashed node is visited') or diag(jobs($node[0]));
is($_->safe_psql('SELECT count(*) FROM pg_stat_wal_receiver'), 0, $_->name . ' follows nobody, and pgpool shows it up')
    for @node[ 2, 3 ];
for my $id (2, 3)
{
    makes_follow($node[0], $node[$id], "a call makes node $id follow", node_id => $id);
}
is($pgpool->untruths($node[0], $node[1]), '', 'the siblings are up, and follow');
done_testing();
