# A cluster that has been through 300 or 1000 timelines is looked at as fast as a
# young one: only what is needed of its histories is read, sent and compared, by no
# step in a time that grows by the square. There must be a server that has really
# such a history, for it is the files in its pg_wal, one a timeline, each longer
# than the one before, that took minutes.

use File::Path qw(remove_tree);
use List::Util qw(min);
use Time::HiRes qw(time);

use FollowPrimary::Test;

# A former primary, a new one, a sibling that received no more than that, and one
# that did: on timeline $n, but for the new primary, which is one further.
sub cluster
{
    my ($n) = @_;
    my $cluster = FollowPrimary::Cluster->new(nodes => 4, extension => 1, conf => { wal_keep_size => '128MB', 'follow_primary.verify_timeout' => '30s' });
    my ($old, @standbys) = $cluster->nodes;
    my ($new, $sibling) = @standbys;

    $old->safe_psql('CREATE TABLE t AS SELECT 1 AS i');
    $_->stop for @standbys, $old;
    my $segment = hex(substr $old->controldata("Latest checkpoint's REDO WAL file"), 16) + 3;
    run_ok([ $old->bin('pg_resetwal'), '-l', sprintf('%08X%08X%08X', $n, 0, $segment), '-D', $old->pgdata ]);
    $old->write_histories($n);
    $old->start;
    for my $standby (@standbys)
    {
        remove_tree($standby->pgdata);
        $standby->init_standby_from($old, slot => 1);
        $standby->write_histories($n);
        $standby->start;
        $standby->wait_for_streaming($old);
    }
    $old->safe_psql('INSERT INTO t VALUES (2)');
    $old->wait_for_catchup($_) for @standbys;
    is($old->safe_psql('SELECT timeline_id FROM pg_control_checkpoint()'), $n, "a cluster on timeline $n");

    for my $node ($new, $sibling)
    {
        $node->set_standby(primary_conninfo => 'host=127.0.0.1 port=1 user=repl');
        $node->poll_query_until('SELECT count(*) FROM pg_stat_wal_receiver', '0');
    }
    $old->safe_psql('INSERT INTO t VALUES (1000)');
    $old->wait_for_catchup($standbys[2]);
    $old->kill9;
    $new->promote;
    $new->safe_psql('INSERT INTO t VALUES (3); CHECKPOINT');
    return ($new, $sibling, $standbys[2], $old);
}

sub seconds
{
    my ($primary, $sql) = @_;
    return min(map { my $start = time; my ($code) = $primary->psql($sql, timeout => 300); $code ? 1000 : time - $start } 1 .. 3);
}

my (%look, %step);
for my $n (2, 300, 1000)
{
    my ($primary, @nodes) = cluster($n);
    for my $node (@nodes)
    {
        my $what = ('a standby', 'a standby that is ahead', 'a former primary')[ grep { $nodes[$_] == $node } 0 .. 2 ];
        $look{$what}{$n} = seconds($primary, $primary->follow_sql($node, function => 'follow_primary_plan', when_down => 'rejoin'));
        next if $n == 300;
        my $r = $primary->make_follow($node, when_down => 'rejoin');
        ok($r->{ok}, "$n timelines: $what follows") or diag($r->{err}, $node->log_tail(10));
        my %time = map { split /\|/ } split /\n/, $primary->safe_psql(q{SELECT step, round(extract(epoch FROM sum(finished_at - started_at)) * 1000)
            FROM follow_primary_step WHERE job_id = (SELECT max(id) FROM follow_primary_job) GROUP BY step});
        $step{"$what, $_"}{$n} = $time{$_} for keys %time;
        is($node->safe_psql('SELECT sum(i) FROM t'), 6, "it has the primary's rows, and no other") if $r->{ok};
    }
    $_->stop('immediate') for $primary, @nodes;
}

# A third and half a second are what a busy machine may add.
for my $what (sort keys %look)
{
    my $young = $look{$what}{2};
    for my $n (300, 1000)
    {
        cmp_ok($look{$what}{$n}, '<', 2 * $young + 0.33, sprintf '%s of %d timelines is looked at in %.2f s, one of 2 in %.2f s', $what, $n, $look{$what}{$n}, $young);
    }
}
for my $what (sort keys %step)
{
    cmp_ok($step{$what}{1000}, '<', 2 * $step{$what}{2} + 500, "$what: $step{$what}{1000} ms with 1000 timelines, $step{$what}{2} ms with 2")
        if defined $step{$what}{1000} && defined $step{$what}{2};
}

done_testing();
