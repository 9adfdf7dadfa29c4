# The network between a node and its primary begins to lose all packets. To the primary
# the node still streams, for its WAL sender has not noticed: a job has nothing to do but
# the proof. It tells within seconds that the node cannot connect, and what to look at.
# A packet filter loses the real packets.

use FollowPrimary::Test;
use FollowPrimary::Mounts;
use FollowPrimary::Network;

my $made = FollowPrimary::Mounts::enter(FollowPrimary::Network::FILTER, network => 1);
plan(skip_all => 'namespaces or packet filters cannot be made here (unshare, ip, nft)') if !$made;

my $cluster = FollowPrimary::Cluster->new(nodes => 2, extension => 1, conf => { 'follow_primary.connect_timeout' => '3s' });
my ($primary, $node) = $cluster->nodes;
my ($outside) = '127.0.9.9';    # one more address of the primary: a firewall's rule is for it
$primary->set(listen_addresses => $primary->address . ", $outside");
$primary->restart;
$primary->set_row($node, primary_host => $outside);
makes_follow($primary, $node, 'the node follows by that address');
makes_follow($primary, $node, 'and has nothing to do');
is($primary->job('method'), 'none', 'but to prove it');

FollowPrimary::Network::lose_address($outside);
my $r = $primary->make_follow($node);
is($primary->job('method'), 'none', 'the node seems to follow when its packets are lost');
is($r->{sqlstate}, '08006', 'the job fails') or diag($r->{err});
like($r->{err}, qr/failed at step verify: a connection to this server cannot be made/, 'for what it is');
like($r->{err}, qr/NOTICE: .*has no answer yet from "\Q$outside\E" port \d+, and waits for 3 s at most: if none comes, a firewall drops it/, 'it was told before');
like($r->{hint}, qr/"\Q$outside\E" port \d+ has to be reached: see that no firewall drops it/, 'with what to look at');
cmp_ok($primary->job('extract(epoch FROM finished_at - started_at)'), '<', 30, 'long before verify_timeout is over');

FollowPrimary::Network::pass_address($outside);
# The dead WAL sender may have the slot for as long as wal_sender_timeout; its address is not the node's here.
$primary->safe_psql('SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active');
makes_follow($primary, $node, 'the node follows when its packets pass again');

done_testing();
