# The ground of all other scenarios, without the extension: three servers with an sshd
# each, and a real pgpool. pgpool promotes the second server when the first crashes.
# If this test fails, the others say nothing.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 3);
my ($old, $new, $sibling) = $cluster->nodes;

$old->safe_psql('CREATE TABLE t AS SELECT generate_series(1, 100) AS i');
$old->wait_for_catchup($sibling);
is($sibling->safe_psql('SELECT count(*) FROM t'), 100, 'the standby has what the primary wrote');
is($old->safe_psql('SELECT count(*) FROM pg_replication_slots WHERE active'), 2, 'each standby streams through its slot');
is($sibling->controldata('Database cluster state'), 'in archive recovery', 'its control data says what it is');

is(run_ok([ 'ssh', '-F', '/dev/null', '-o', 'BatchMode=yes', '-o', 'StrictHostKeyChecking=yes',
    '-o', 'UserKnownHostsFile=' . $cluster->known_hosts, '-i', $cluster->ssh_key,
    '-p', $sibling->host->ssh_port, $sibling->address, 'echo $SSH_CONNECTION | cut -d" " -f3' ]),
    $sibling->address . "\n", "the node's sshd lets the key in");

my $r = $sibling->try_sql('CREATE TABLE u ()');
is($r->{sqlstate}, '25006', 'a failed statement gives its SQLSTATE');
is($r->{message}, 'cannot execute CREATE TABLE in a read-only transaction', 'and its message');

my $pgpool = FollowPrimary::Pgpool->new(cluster => $cluster,
    follow => 'echo follow node_id=%d node_port=%p host=%h primary=%H:%r');
$pgpool->start;
is(join(' ', map { $_->{status} } $pgpool->pool_nodes), 'up up up', 'pgpool shows every node up');
is(($pgpool->pcp('pcp_node_count'))[1], "3\n", 'its control port answers');

my @processes = process_tree($old->pid);
$old->kill9;
ok(!$old->running && !grep({ process_alive($_) } @processes), 'the primary is dead');
$pgpool->wait_for_primary($new->id, 60);
ok(!$new->in_recovery, 'pgpool promoted the second node');
is($new->timeline, 2, 'which is on a new timeline');
is(($cluster->primary)->name, $new->name, 'and is the only primary');
wait_until('pgpool runs follow_primary_command for the sibling', sub {
    return $pgpool->log_content =~ /^follow node_id= ?2 .*host=\S+ primary=\Q@{[ $new->address ]}\E:/m;
}, 60);
is($pgpool->pool_node($sibling->id)->{status}, 'down', 'pgpool leaves the sibling down');

ok($old->start, 'the crashed server starts again');
$old->stop('immediate');

done_testing();
