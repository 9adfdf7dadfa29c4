# pgpool and the new primary fail while jobs run: pgpool is restarted between survey
# and attach, its control process says nothing, and the new primary dies. A job gives
# up neither too early nor too late, and the next call mends what it left. Only a real
# pgpool shows how it comes back, and in which state.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 3, extension => 1, hold => 1);
my @node = $cluster->nodes;
my $pgpool = FollowPrimary::Pgpool->new(cluster => $cluster, follow => 1);
$pgpool->start;

is($pgpool->untruths($node[0]), '', 'pgpool shows a primary and two standbys, and so it is');

# 1. pgpool is restarted while the sibling's job runs.
$node[1]->hold_step('attach');
$node[0]->kill9;
$node[1]->wait_held(1, 60);
$pgpool->stop;
$node[1]->release_step;
ok($node[1]->poll_query_until(q{SELECT state FROM follow_primary_step WHERE step = 'attach'}, 'running', 20),
    'the job is to attach the node, and pgpool is not there');
$pgpool->start;
is($pgpool->untruths($node[1], $node[0]), '', 'when pgpool is back the node is attached');
is($node[1]->job('state, method', node => $node[2]), 'succeeded|repoint', 'the job has succeeded');

# 2. pgpool's control process takes connections and says nothing.
my @pcp = grep { (eval { slurp("/proc/$_/cmdline") } // '') =~ /\bPCP\b/i } process_tree($pgpool->pid);
ok(@pcp, 'pgpool has a control process');
kill 'STOP', @pcp;
my $r = $node[1]->try_sql('SET follow_primary.verify_timeout = 4; SET follow_primary.connect_timeout = 1; '
    . $node[1]->follow_sql($node[0], when_down => 'rejoin', node_id => 0));
is($r->{sqlstate}, '08001', 'that is an error at last');
like($r->{message}, qr/at step attach: .* accepts connections but does not answer in time/, 'which says so');
like($r->{hint}, qr/The node follows this server/, 'and what is done');
ok(!-e $node[0]->pgdata . '.follow_primary/job/mark', 'nothing says any more that the node is half-changed');
is($node[1]->safe_psql(q{SELECT string_agg(step, ' ') FROM follow_primary_step WHERE job_id = (SELECT max(id) FROM follow_primary_job)
    AND (step = 'survey' AND finished_at - started_at > '5 s' OR step = 'attach' AND finished_at - started_at > '8 s')}),
    '', 'in bounded time');
is($node[1]->job('state, step, error_code', node => $node[0]), 'failed|attach|08001', "the job's row tells it");
is($node[0]->safe_psql('SELECT status, sender_host, slot_name FROM pg_stat_wal_receiver'),
    join('|', 'streaming', $node[1]->address, $node[0]->slot_name), 'the node follows');

# The node is lost at that moment, when the slot that the job made is its own already.
$node[0]->stop;
$node[1]->safe_psql("SELECT pg_drop_replication_slot('@{[ $node[0]->slot_name ]}')");
my $attaching = $node[1]->safe_psql('SET follow_primary.verify_timeout = 4; SET follow_primary.connect_timeout = 1; '
    . $node[1]->follow_sql($node[0], when_down => 'rejoin', node_id => 0, wait => 'false'));
ok($node[1]->poll_query_until(qq{SELECT state FROM follow_primary_step WHERE job_id = $attaching AND step = 'attach'}, 'running', 60), 'another job has proven it');
$node[0]->kill9;
is($node[1]->safe_psql("SELECT follow_primary_wait($attaching)", timeout => 60), 'failed', 'it fails at attach, and the node is down');
is($node[1]->safe_psql("SELECT count(*) FROM pg_replication_slots WHERE slot_name = '@{[ $node[0]->slot_name ]}'"), 1, 'the slot that it made is there');
$node[0]->start;
$node[0]->wait_for_streaming($node[1]);
kill 'CONT', @pcp;
is($pgpool->nodes, '0:standby:down 1:primary:up 2:standby:up', 'pgpool knows nothing of it');
makes_follow($node[1], $node[0], 'the next call', node_id => 0);
is($node[1]->job('state, method', node => $node[0]), 'succeeded|none', 'only attaches it');
is($pgpool->untruths($node[1]), '', 'all are up, and follow');

# 3. The new primary dies while its job runs: pgpool has no node left.
$node[0]->hold_step('attach');
$node[1]->kill9;
$node[0]->wait_held(1, 60);
my $held = $node[0]->job('id', node => $node[2]);
$node[0]->kill9;
# pgpool lets no client in then; its control port tells.
wait_until('pgpool has no node left', sub {
    $pgpool->psql('SELECT 1');    # by which pgpool 4.1 notices
    my @info = map { ($pgpool->pcp('pcp_node_info', '-n', $_))[1] } 0 .. 2;
    return 3 == grep({ /^\S+ \d+ 3 .*\bdown\b/ } @info) || die @info;
}, 40);
$node[2]->promote;
$pgpool->pcp('pcp_attach_node', '-n', 2);
$pgpool->wait_for_primary(2, 30);
for my $id (0, 1)
{
    makes_follow($node[2], $node[$id], "a call on the third node brings back node $id", node_id => $id, when_down => 'rejoin');
}
is($pgpool->untruths($node[2]), '', 'all are up, and follow');
is($node[2]->safe_psql("SELECT state, error_code FROM follow_primary_job WHERE id = $held"),
    'interrupted|57P01', "the row of the dead primary's job tells what became of it");

done_testing();
