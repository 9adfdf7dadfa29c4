# What a job has used of processors is in its row, apart for this server and the node. A
# reload command that computes for a while shows that what scripts run counts, and on
# which side; how long it computes, it measures itself. Only real jobs run scripts.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 2, extension => 1);
my ($primary, $node) = $cluster->nodes;
my $times = $node->host->dir . '/times';
my $used = 'extract(epoch FROM cpu_primary), extract(epoch FROM cpu_node)';

sub used { return split /\|/, $primary->job($used) }

# A job that has to repoint the node: it has another slot now.
sub repoint
{
    my ($slot, $reload) = @_;
    $primary->set_row($node, node_reload_command => $reload);
    my $r = $primary->make_follow($node, slot_name => $slot);
    ok($r->{ok}, "repointed to slot $slot") or diag($r->{err});
    is($primary->job('method'), 'repoint', 'by this method');
    return used();
}

my $reload = $node->bin('pg_ctl') . ' -D %D reload';
my ($here, $there) = repoint('first', $reload);
cmp_ok($here, '>', 0, 'it has used some of this server');
cmp_ok($there, '>', 0, 'and of the node');

# 2. The shell that computes tells what times(1) says of itself.
my ($here_again, $there_again) = repoint('second',
    "i=0; while [ \$i -lt 1000000 ]; do i=\$((i + 1)); done; times >$times; $reload");
my ($minutes, $seconds) = slurp($times) =~ /^(\d+)m([\d.]+)s/;
my $computed = $minutes * 60 + $seconds;
note("computed for $computed s; before that the node had used $there s, now $there_again s");
cmp_ok($there_again, '>=', 0.9 * $computed, 'what a command of the node has used counts');
cmp_ok($there_again, '<', $there + 3 * $computed, 'once');
cmp_ok($here_again, '<', $here + 0.5 * $computed, 'but not as time of this server');

# 3. A job that fails tells it, too; one that never reached the node knows nothing of it.
$primary->set_row($node, node_reload_command => 'false');
my $r = $primary->make_follow($node, slot_name => 'third');
ok(!$r->{ok}, 'a reload that fails');
is($primary->job("state, cpu_primary > '0', cpu_node > '0'"), 'failed|t|t', 'the row of the failed job has both');
$node->host->ssh_stop;
$primary->make_follow($node, slot_name => 'fourth');
is($primary->job("state, cpu_primary > '0', cpu_node"), 'failed|t|', 'without SSH there is none of the node');

done_testing();
