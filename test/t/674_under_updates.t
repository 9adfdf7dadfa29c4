# A switchover while the primary updates and vacuums. What VACUUM removes, a snapshot on
# a standby may still see, so replay would stop there for the statement that waits for
# this very replay: it must hold none, in the form for an exit code, too. In others the
# switchover is refused, and the primary goes on.

use FollowPrimary::Test;

plan(skip_all => 'before PostgreSQL 12 there is no switchover') if pg_major() < 12;

my $cluster = FollowPrimary::Cluster->new(nodes => 2, extension => 1, conf => { max_standby_streaming_delay => '120s' });
my @nodes = $cluster->nodes;
$_->set('follow_primary.primary_host' => $_->address) for @nodes;
$_->reload for @nodes;
$nodes[0]->safe_psql('CREATE TABLE t AS SELECT generate_series(1, 1000) AS i');
$nodes[0]->wait_for_catchup($nodes[1]);

for my $form ('SELECT state FROM follow_primary_switchover()',
    "SELECT CASE WHEN 1 / bool_and(state = 'succeeded')::int = 1 THEN 'succeeded' END FROM follow_primary_switchover()")
{
    my ($from, $to) = @nodes;
    my $updates = $from->psql_start("UPDATE t SET i = i + 1;\nVACUUM t;\n" x 20000);
    $to->poll_query_until('SELECT min(i) > 20 FROM t');
    my $r = $to->try_sql($form, timeout => 120);
    is($r->{out}, 'succeeded', "it goes on: $form") or diag($r->{err});
    $updates->stop;
    @nodes = reverse @nodes;
}

done_testing();
