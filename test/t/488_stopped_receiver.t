# A WAL receiver that is stopped by a signal, as a debugger or a hand that slipped
# leaves it: no reload ends it, and no other one is started meanwhile. Whoever waits
# is told, and the error says which process to wake. A server that is stopped so
# cannot be asked, and is not told to end, for it would whenever it is awake. Only a
# server's own process that hangs shows what it keeps from going on.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 3, extension => 1, conf => { 'follow_primary.verify_timeout' => '8s' });
my ($old, $new, $node) = $cluster->nodes;
$old->safe_psql('CREATE TABLE t AS SELECT 1 AS i');
$old->wait_for_catchup($_) for $new, $node;
$old->refuse_standbys;
$new->promote;
makes_follow($new, $node, 'the standby follows');

for my $case ([ 'a repoint', slot_name => 'another' ], [ 'a call that has nothing to do' ])
{
    my ($what, %arguments) = @$case;
    $node->wait_for_streaming($new);
    my $receiver = $node->safe_psql(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'walreceiver'});
    kill 'STOP', $receiver;
    my $r = $new->make_follow($node, %arguments);
    kill 'CONT', $receiver;
    is($r->{sqlstate}, '55000', "$what: it is not proven") or diag($r->{err});
    like($r->{detail}, qr/WAL receiver, $receiver, is stopped by a signal/, "$what: the detail has the process that hangs");
    like($r->{hint}, qr/On node \Q@{[ $node->address ]}\E:\d+: kill -CONT $receiver\b/, "$what: the hint has the command that wakes it");
    like($r->{err}, qr/NOTICE:.*verify.*WAL receiver, $receiver, is stopped/, "$what: whoever waits has been told before");
    ok($node->running, "$what: the server runs");
}
makes_follow($new, $node, 'when it is awake the standby follows');
has_rows_of($new, $node, 'then');

my $pid = $node->pid;
kill 'STOP', $pid;
$new->refuses($node, 'a server that is stopped', sqlstate => '55000', message => qr/at step try/, detail => qr/process $pid, is stopped by a signal/,
    hint => qr/On the node \Q@{[ $node->address ]}\E:\d+, run: kill -CONT $pid\b/, within => 60, arguments => { slot_name => 'another' });
kill 'CONT', $pid;
makes_follow($new, $node, 'when it is awake it follows');
is($node->pid, $pid, 'it is the same server');

done_testing();
