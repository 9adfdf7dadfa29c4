# Two pgpools watch each other and the servers, as on two machines. Only the leader
# runs the follow_primary_command, and both show its outcome. When the leader is lost
# while a job runs, the job finds the other one at the delegate address. The point is
# that two real processes must agree.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 3, extension => 1, hold => 1);
my @node = $cluster->nodes;
my @address = map { free_address() } 1 .. 3;
my $delegate = pop @address;
my %ports = (port => free_port(@address), pcp_port => free_port(@address, $delegate));
my @pgpool = map { FollowPrimary::Pgpool->new(cluster => $cluster, follow => 1, address => $_, %ports) } @address;
FollowPrimary::Pgpool::join_watchdog($delegate, @pgpool);
$cluster->set('follow_primary.pcp_host' => $delegate);

sub lead
{
    my ($leader, $standby) = @_;
    wait_until('the leader is chosen', sub {
        return $leader->watchdog_state eq 'LEADER' && (!$standby || $standby->watchdog_state eq 'STANDBY');
    }, 60);
    return;
}

sub commands { return scalar(() = $_[0]->log_content =~ /execute command: \S+psql .*follow_primary\(/g) }

$_->start(wait => 0) for @pgpool;
$_->wait_ready for @pgpool;
lead(@pgpool);
is($_->untruths($node[0]), '', 'pgpool at ' . $_->address . ' shows a primary and two standbys, and so it is') for @pgpool;

# 1. The primary is killed: both pgpools agree on it, and one acts.
$node[0]->kill9;
$_->wait_for_primary(1, 60) for @pgpool;
is($_->untruths($node[1], $node[0]), '', 'pgpool at ' . $_->address . ' shows the sibling up, and it follows') for @pgpool;
is_deeply([ map { commands($_) } @pgpool ], [ 2, 0 ], 'the leader alone has run the command, for each other node');
is($node[1]->safe_psql('SELECT count(*), count(DISTINCT node_host) FROM follow_primary_job'), '2|2', 'each node had one job');

# 2. The leader is lost while a job runs; the delegate address moves.
$node[1]->hold_step('attach');
my $call = $node[1]->psql_start($node[1]->follow_sql($node[0], when_down => 'rejoin', node_id => 0));
$node[1]->wait_held(1);
$pgpool[0]->lose_machine;
$node[1]->release_step;
is($call->wait(60), 0, 'the job ends well') or diag($call->err);
is($pgpool[1]->watchdog_state, 'LEADER', 'the other pgpool leads');
is($pgpool[1]->untruths($node[1]), '', 'and has the former primary, which follows');

# 3. The lost leader comes back, and knows what it knew.
$pgpool[0]->start;
lead(@pgpool[ 1, 0 ]);
is($_->untruths($node[1]), '', 'pgpool at ' . $_->address . ' shows all nodes up, and so it is') for @pgpool;

done_testing();
