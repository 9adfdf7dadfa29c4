# The former primary still runs when pgpool chooses another one: by pcp_promote_node
# without -s, which promotes nothing, by pcp_detach_node, and by a switchover.
# detach_false_primary is on, so pgpool detaches every node that it takes for a false
# primary. It believes the last node that says it is a primary: a former primary that
# is attached too early gets the cluster back. Only a real pgpool does that.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 3, extension => 1, hold => 1);
my @node = $cluster->nodes;
my $pgpool = FollowPrimary::Pgpool->new(cluster => $cluster, follow => 1, conf => { detach_false_primary => 'on' });
$pgpool->start;

sub jobs
{
    my ($primary) = @_;
    return $primary->safe_psql(q{SELECT string_agg(concat_ws(' ', node_id, method, state), ', ' ORDER BY node_id)
        FROM (SELECT DISTINCT ON (node_id) * FROM follow_primary_job ORDER BY node_id, id DESC) j});
}

$node[0]->safe_psql('CREATE TABLE t (i int)');
is($pgpool->untruths($node[0]), '', 'pgpool shows a primary and two standbys, and so it is');

# 1. Nobody is promoted, but pgpool believes so, and names a standby as the new
# primary.
my $size = length $pgpool->log_content;
my $slots = $node[0]->slots;
my $started = $node[0]->safe_psql('SELECT pg_postmaster_start_time()');
my ($code, $out, $err) = $pgpool->pcp('pcp_promote_node', '-n', 1);
is($code, 0, 'pcp_promote_node without -s') or diag($out, $err);
wait_until('pgpool has run the command for both other nodes', sub {
    return 2 == (() = substr($pgpool->log_content, $size) =~ /^ERROR:  this server is a standby$/mg);
}, 60);
is($pgpool->nodes, '0:standby:down 1:primary:up 2:standby:down', 'pgpool takes a standby for the primary');
ok($node[1]->in_recovery && !$node[0]->in_recovery, 'which it is not');
is($node[0]->safe_psql('SELECT count(*) FROM follow_primary_job'), 0, 'no job has begun');
is($node[0]->safe_psql('SELECT pg_postmaster_start_time()'), $started, 'the primary was not touched');
is($node[0]->slots, $slots, 'nor its slots');
for my $id (0, 2)
{
    ($code, $out, $err) = $pgpool->pcp('pcp_attach_node', '-n', $id);
    $pgpool->wait_for_status($id => 'up', 20);
}
is($pgpool->untruths($node[0]), '', 'pgpool is put right by attaching the primary, then the other');

# 2. The primary is detached: pgpool fails over, and the primary runs on.
$node[1]->hold_step('attach');
($code, $out, $err) = $pgpool->pcp('pcp_detach_node', '-n', 0);
is($code, 0, 'the primary is detached') or diag($out, $err);
$pgpool->wait_for_primary(1, 30);
$node[1]->wait_held(2);
for my $id (0, 2)
{
    is($node[$id]->safe_psql('SELECT status, sender_host, received_tli FROM pg_stat_wal_receiver'),
        join('|', 'streaming', $node[1]->address, $node[1]->timeline), "node $id follows");
}
is($pgpool->nodes, '0:standby:down 1:primary:up 2:standby:down', 'and neither is attached before that is proven');
$node[1]->release_step;
is($pgpool->untruths($node[1]), '', 'then pgpool has them all, and they follow');
like(jobs($node[1]), qr/^0 rewind succeeded, 2 (repoint|rewind) succeeded$/, 'by what their jobs say');

# 3. A switchover.
SKIP:
{
    skip 'no switchover before pgpool 4.3', 3 if $pgpool->version < 4.3;
    ($code, $out, $err) = $pgpool->pcp('pcp_promote_node', '-s', '-n', 2);
    is($code, 0, 'a switchover') or diag($out, $err);
    $pgpool->wait_for_primary(2, 30);
    is($pgpool->untruths($node[2]), '', 'pgpool has the former primary as a standby, which it is');
    like(jobs($node[2]), qr/^0 (repoint|rewind) succeeded, 1 rewind succeeded, 2 /, 'by what its job says');
}
unlike($pgpool->log_content, qr/invalid node/, 'pgpool has never seen a false primary');
done_testing();
