# Some programs say nothing for longer than follow_primary.progress_timeout: a copy of
# terabytes is verified for hours. The job goes on while they work, and ends when they
# stand still. Only a real program uses processor time. The worker does not grow while
# it waits.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 4, extension => 1,
    conf => { 'follow_primary.progress_timeout' => '20s', wal_log_hints => 'on' });
my ($primary, @nodes) = $cluster->nodes;
my %tool = (basebackup => 'pg_verifybackup', rewind => 'pg_rewind', saving => 'pg_waldump');
$tool{basebackup} = 'pg_basebackup' if pg_major() < 13;

# Makes one of PostgreSQL's programs do something else first.
sub with_tool
{
    my ($node, $tool, $first) = @_;
    my $bin = bindir_with(scratch_dir('bin' . $node->name), $tool,
        "touch \$0.begins\n$first\ntouch \$0.ends\nexec '@{[ $node->bin($tool) ]}' \"\$@\"\n");
    $primary->set_row($node, node_bin_dir => $bin);
    return "$bin/$tool";
}
my $works = 'end=$(($(date +%s) + 40)); while [ "$(date +%s)" -lt "$end" ]; do n=0; while [ "$n" -lt 20000 ]; do n=$((n + 1)); done; done';

# Each node has rows of its own, which it loses.
$primary->safe_psql('CREATE TABLE t AS SELECT generate_series(1, 1000) AS i');
$primary->wait_for_catchup($_) for @nodes;
for my $node (@nodes)
{
    $node->promote;
    $node->safe_psql('INSERT INTO t SELECT generate_series(1, 10)');
    $node->stop;
}
my @case = (
    [ $nodes[0], 'basebackup', $tool{basebackup}, $works ],
    [ $nodes[1], 'rewind', $tool{rewind}, $works ],
    [ $nodes[2], 'rewind', $tool{saving}, 'sleep 100' ]);
my (%job, %stand_in);
for my $case (@case)
{
    my ($node, $method, $tool, $first) = @$case;
    $stand_in{ $node->name } = with_tool($node, $tool, $first);
    $job{ $node->name } = $primary->safe_psql($primary->follow_sql($node, method => $method, when_down => 'rejoin', wait => 'false'));
}

# The memory of the copy's worker when its tool begins to work, and when it ends.
my @memory;
my $worker;
for my $moment (qw(begins ends))
{
    wait_until("$tool{basebackup} $moment", sub { -e "$stand_in{ $nodes[0]->name }.$moment" }, 90);
    $worker //= $primary->safe_psql('SELECT worker_pid FROM follow_primary_job WHERE id = ' . $job{ $nodes[0]->name });
    push @memory, slurp("/proc/$worker/status") =~ /^VmRSS:\s*(\d+) kB/m;
}
cmp_ok($memory[1] - $memory[0], '<', 2048, "the worker of a copy does not grow meanwhile: $memory[0] kB, $memory[1] kB");

for my $case (@case)
{
    my ($node, $method, $tool, $first) = @$case;
    my $id = $job{ $node->name };
    my $row = sub { $primary->safe_psql("SELECT $_[0] FROM follow_primary_job WHERE id = $id") };
    my $state = $primary->safe_psql("SELECT follow_primary_wait($id, '100 s')", timeout => 120);
    if ($first eq $works)
    {
        is($state, 'succeeded', "$method: $tool works for 40 s without a word") or diag($row->('error'));
        unlike($primary->safe_psql("SELECT string_agg(detail, ' ') FROM follow_primary_step WHERE job_id = $id"), qr/\n\n/, 'which leaves no trace in what is told');
        $primary->wait_for_catchup($node);
        is($node->safe_psql('SELECT count(*) FROM t'), 1000, 'the node is whole');
        ok(!-e $node->pgdata . '.follow_primary/job', 'nothing is left');
    }
    else
    {
        is($row->('state, step, error_code'), 'failed|count|58000', "$tool stands still: that ends the job") or diag($row->('error'));
        like($row->('error'), qr/made no progress for 20000 ms/, 'which says so');
        $primary->set_row($node, node_bin_dir => undef);
        makes_follow($primary, $node, 'the next call succeeds', method => $method, when_down => 'rejoin');
    }
}

done_testing();
