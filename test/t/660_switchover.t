# follow_primary_switchover: a standby takes the primary's place, and nothing that was
# acknowledged is lost. Only real servers show that all WAL arrives before the promotion,
# that the former primary follows without a rewind's loss, and that a client which writes all
# the time misses no row.

use FollowPrimary::Test;

plan(skip_all => 'before PostgreSQL 12 there is no switchover') if FollowPrimary::Node::pg_major() < 12;

my $cluster = FollowPrimary::Cluster->new(nodes => 3, extension => 1,
    conf => { 'follow_primary.verify_timeout' => '20s', wal_log_hints => 'on' });
my ($one, $two, $three) = $cluster->nodes;
$_->set('follow_primary.primary_host' => $_->address) for $cluster->nodes;
$_->reload for $cluster->nodes;

sub switchover
{
    my ($to, $timeout) = @_;
    return $to->try_sql('SELECT node_host, state, message FROM follow_primary_switchover(' . ($timeout // '') . ') ORDER BY node_host', timeout => 180);
}

$one->safe_psql('CREATE TABLE t (i bigint PRIMARY KEY)');
$one->wait_for_catchup($_) for $two, $three;

# Bad calls: each its own error, and the primary has not noticed.
my $pid = $one->pid;
is(switchover($one)->{sqlstate}, '55000', 'the primary refuses');
is(switchover($two, "'0 s'")->{sqlstate}, '22023', 'no time is refused');
is(switchover($two, "'1 day'")->{sqlstate}, '22023', 'a day is refused');
is($two->try_sql('BEGIN; SELECT * FROM follow_primary_switchover()')->{sqlstate}, '25001', 'a transaction block is refused');
$one->safe_psql('CREATE ROLE nobody LOGIN; GRANT EXECUTE ON FUNCTION follow_primary_switchover(interval) TO nobody');
$one->wait_for_catchup($two);
is($two->try_sql('SET ROLE nobody; SELECT * FROM follow_primary_switchover()')->{sqlstate}, '42501', 'a role that is no superuser is refused');
$two->safe_psql('SELECT pg_wal_replay_pause()');
my $r = switchover($two);
is($r->{sqlstate}, '55000', 'a paused standby is refused');
like($r->{message}, qr/replay is paused/, 'and it says so');
$two->safe_psql('SELECT pg_wal_replay_resume()');
is($one->pid, $pid, 'the primary goes on');

# A switchover, to and fro, while a client writes.
my $total = 0;
for my $turn ([ $one, $two ], [ $two, $three ], [ $three, $one ])
{
    my ($from, $to) = @$turn;
    my $acknowledged = 0;
    my $writer = $from->psql_start(join('', map { "INSERT INTO t VALUES ($_);\n\\echo $_\n" } $total + 1 .. $total + 3000));
    $from->poll_query_until('SELECT count(*) > ' . ($total + 20) . ' FROM t', 't');
    $r = switchover($to);
    ok($r->{ok}, $from->name . ' gives its place to ' . $to->name) or diag($r->{err});
    $writer->wait(60);
    my @acknowledged = $writer->out =~ /^(\d+)$/mg;
    is(scalar(grep { /\|succeeded\|/ } split /\n/, $r->{out}), 2, 'the two others follow') or diag($r->{out}, $r->{err});
    is($to->safe_psql('SELECT pg_is_in_recovery()'), 'f', 'it is the primary');
    is($to->safe_psql('SELECT count(*) FROM unnest(ARRAY[' . join(',', @acknowledged ? @acknowledged : 0) . ']::bigint[]) a WHERE NOT EXISTS (SELECT FROM t WHERE i = a)'),
        @acknowledged ? '0' : '1', 'no acknowledged row of ' . @acknowledged . ' is lost');
    my $lost = $to->safe_psql(q{SELECT coalesce(sum(lost_wal_bytes), 0) FROM follow_primary_job});
    is($lost, '0', 'no WAL is lost');
    $total = $to->safe_psql('SELECT max(i) FROM t');
    for my $node (grep { $_ != $to } $cluster->nodes)
    {
        $node->wait_for_streaming($to);
        $to->safe_psql('INSERT INTO t VALUES (' . ++$total . ')');
        $to->wait_for_catchup($node);
        is($node->safe_psql('SELECT count(*) FROM t'), $to->safe_psql('SELECT count(*) FROM t'), $node->name . ' has its rows');
    }
    like($to->safe_psql(q{SELECT string_agg(step, ' ' ORDER BY seq) FROM follow_primary_step
        WHERE job_id = (SELECT job_id FROM follow_primary_step WHERE step = 'promote' ORDER BY started_at DESC LIMIT 1)}),
        qr/^check prepare stop promote survey plan .* verify /, "the former primary's job has the steps of the switchover");
}

done_testing();
