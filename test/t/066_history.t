# The record keeps every job. With 100,000 of them the views tell the same as what
# they are defined by would, a node a row, and are as quick as with none: who looks
# at them in the middle of a failover must not wait. Only a real planner shows whether
# it uses the indexes, with statistics and without.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 2, extension => 1);
my ($primary, $standby) = $cluster->nodes;
$primary->safe_psql('ALTER TABLE follow_primary_job SET (autovacuum_enabled = off); ALTER TABLE follow_primary_step SET (autovacuum_enabled = off)');

# Of eight nodes, in any case of letters; one has a job that says that it runs, before
# many others.
$primary->safe_psql(<<'END');
INSERT INTO follow_primary_job (node_host, node_port, requested_method, method, state, slot_name, started_at, finished_at, bytes_done, bytes_total)
SELECT CASE WHEN i % 3 = 0 THEN 'DB' ELSE 'db' END || i % 4, 5432 + i / 4 % 2, 'auto', 'rewind',
    CASE WHEN i = 50004 THEN 'running' WHEN i % 7 = 0 THEN 'failed' ELSE 'succeeded' END,
    CASE WHEN i % 5 > 0 THEN 'slot_' || i END, now() - '1 day'::interval, now() - '23 hours'::interval, i, i
FROM generate_series(1, 100000) i;
INSERT INTO follow_primary_step (job_id, seq, step, state, started_at, finished_at)
SELECT id, s, CASE s WHEN 3 THEN 'rewind' ELSE 'verify' END, 'succeeded', now() - '1 day'::interval, now() - '23 hours'::interval
FROM follow_primary_job, generate_series(1, 5) s;
END

is($primary->safe_psql('SELECT id, node_host, node_port, state FROM follow_primary_progress ORDER BY id'),
    $primary->safe_psql(<<'END'), 'each node has its running job in the view, else its latest');
SELECT id, node_host, node_port, CASE state WHEN 'running' THEN 'interrupted' ELSE state END
FROM (SELECT DISTINCT ON (lower(node_host), node_port) * FROM follow_primary_job
      ORDER BY lower(node_host), node_port, (state = 'running') DESC, id DESC) j ORDER BY id
END
is($primary->safe_psql('SELECT count(*) FROM follow_primary_progress'), '8', 'there are as many rows as nodes');

# The quickest of some looks: others use this machine, too.
sub milliseconds
{
    my ($node, $sql) = @_;
    my (undef, $out) = $node->psql("\\timing on\n" . join "\n", ("$sql;") x 15);
    my @times = sort { $a <=> $b } $out =~ /^Time: ([\d.]+) ms/mg;
    return $times[0] // die "no times: $out\n";
}

for my $how ('without statistics', 'with statistics')
{
    for my $view (qw(follow_primary_progress follow_primary_cluster))
    {
        cmp_ok(milliseconds($primary, "SELECT * FROM $view"), '<', 20, "$view, $how, on the primary: under 20 ms");
        $primary->wait_for_catchup($standby);
        cmp_ok(milliseconds($standby, "SELECT * FROM $view"), '<', 20, "$view, $how, on a standby: under 20 ms");
    }
    my $jobs = $primary->safe_psql('EXPLAIN SELECT * FROM follow_primary_cluster');
    unlike($jobs, qr/Seq Scan on follow_primary_(?:job|step)/, "no look reads all jobs or steps, $how") or diag($jobs);
    $primary->safe_psql('VACUUM ANALYZE follow_primary_job, follow_primary_step');
}

# What a job looks for at its beginning.
for my $sql (q{SELECT id FROM follow_primary_job WHERE state = 'running' AND slot_made},
    q{SELECT id FROM follow_primary_job WHERE lower(node_host) = lower('db1') AND node_port = 5433 AND id <> 7 AND state = 'running' ORDER BY id DESC LIMIT 1},
    q{SELECT slot_name FROM follow_primary_job WHERE lower(node_host) = lower('db1') AND node_port = 5433 AND slot_name IS NOT NULL AND state IN ('running', 'succeeded') ORDER BY id DESC LIMIT 1})
{
    my $plan = $primary->safe_psql("EXPLAIN $sql");
    unlike($plan, qr/Seq Scan/, 'an index serves what a job or the keeper looks for') or diag($plan);
}

done_testing();
