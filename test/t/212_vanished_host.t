# The primary's host vanishes in the middle of a job, and the node's sshd waits for
# it. The job of the successor ends what the first job began on the node, takes the
# lock over, and says so. A packet filter loses the real packets of one real
# connection.

use FollowPrimary::Test;
use FollowPrimary::Mounts;
use FollowPrimary::Network;

my $made = FollowPrimary::Mounts::enter(FollowPrimary::Network::FILTER, network => 1);
plan(skip_all => 'namespaces or packet filters cannot be made here (unshare, ip, nft)') if !$made;

sub remote_sleep { return keys %{ { our_commands(qr/^sleep 987654/) } } }

my $cluster = FollowPrimary::Cluster->new(nodes => 3, extension => 1);
my ($primary, $successor, $node) = $cluster->nodes;
my $lock = $node->pgdata . '.follow_primary.lock';

my $slow = bindir_with(scratch_dir('slow'), 'pg_basebackup', 'exec sleep 987654');
$primary->set_row($node, node_bin_dir => $slow);
my $job = $primary->psql_start($primary->follow_sql($node, method => 'basebackup'));
wait_until('the copy is under way', sub { remote_sleep() });
$primary->wait_for_catchup($successor);
my ($who, $port) = slurp($lock) =~ /\A(Job 1 of the primary .*)\n\d+ \S+ (\d+) \S+ \d+\n\z/ or die "not expected in the lock file\n";

# While the host answers, its job keeps the lock.
$successor->promote;
$successor->set_row($node, node_bin_dir => undef);
my $r = $successor->make_follow($node);
is($r->{sqlstate}, '55006', 'the job of a host that answers keeps the node') or diag($r->{err});
like($r->{detail}, qr/\A\Q$who The lock is $lock, held by process\E \d+\.\z/, 'which says who it is');
is(scalar(remote_sleep()), 1, 'and goes on');

FollowPrimary::Network::lose_port($port);
$primary->kill9;
isnt($job->wait(10), 0, 'the primary is gone');
is(scalar(remote_sleep()), 1, 'the node has not noticed');

$r = makes_follow($successor, $node, 'the successor has its way');
like($r->{err}, qr/lock: \Q$lock, taken from a job whose host does not answer: $who\E, and another look at the node/, 'and tells what it did');
is(scalar(remote_sleep()), 0, 'nothing of the first job goes on');
ok(!-e $lock, 'nor is its lock there');
$successor->safe_psql('CREATE TABLE t AS SELECT 1 AS i');
$successor->wait_for_catchup($node);
is($node->safe_psql('SELECT i FROM t'), 1, 'the node follows');

done_testing();
