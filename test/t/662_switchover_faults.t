# A switchover that is cut short: whatever ends it, and whenever, there is one primary
# afterwards, never two, and for no longer than the time limit none. What is killed is
# killed for real: the session, the standby, the connection.

use FollowPrimary::Test;

plan(skip_all => 'before PostgreSQL 12 there is no switchover') if FollowPrimary::Node::pg_major() < 12;

my $limit   = 12;
my $cluster = FollowPrimary::Cluster->new(nodes => 3, extension => 1,
    conf => { 'follow_primary.verify_timeout' => '20s', wal_log_hints => 'on' });
my ($one, $two, $three) = $cluster->nodes;
$_->set('follow_primary.primary_host' => $_->address) for $cluster->nodes;
$_->reload for $cluster->nodes;
$one->safe_psql('CREATE TABLE t AS SELECT 1 AS i');

# The primary's stop waits until the test lets it go on.
my $dir = scratch_dir('stop');
spew("$dir/stop", <<"END");
touch $dir/stopping
tries=0
while [ ! -e $dir/go ] && [ \$tries -lt 1200 ]; do sleep 0.05; tries=\$((tries + 1)); done
exec @{[ $one->bin('pg_ctl') ]} -D "\$1" -m fast -W stop
END
my $pg_ctl = $one->bin('pg_ctl');
$one->safe_psql("UPDATE follow_primary_node SET node_stop_command = 'sh $dir/stop %D', node_start_command = '$pg_ctl -D %D -w -l $dir/log start', node_reload_command = '$pg_ctl -D %D reload' WHERE host = '@{[ $one->address ]}'");
$one->wait_for_catchup($_) for $two, $three;

sub begin
{
    unlink "$dir/stopping", "$dir/go";
    my $session = $two->psql_start("SELECT * FROM follow_primary_switchover('$limit s')");
    wait_until('the primary is told to stop', sub { -e "$dir/stopping" }, 60);
    return $session;
}

# The primary is told to stop while the standby's WAL receiver is frozen: what it sends last
# does not arrive.
sub stop_unheard
{
    my $session  = begin();
    my $receiver = $two->safe_psql('SELECT pid FROM pg_stat_wal_receiver');
    kill 'STOP', $receiver or die;
    spew("$dir/go", '');
    return ($session, $receiver);
}

sub stop_primary
{
    my @begun = stop_unheard();
    wait_until('the primary has stopped', sub { !$one->running }, 30);
    return @begun;
}

sub primaries { return join ' ', map { $_->name } grep { $_->running && ($_->psql('SELECT pg_is_in_recovery()', timeout => 10))[1] =~ /^f/ } $cluster->nodes }

# The one that was the primary is it again, takes writes, and the standbys follow.
sub is_as_before
{
    my ($what) = @_;
    ok(wait_until("$what: there is a primary again", sub { primaries() eq $one->name }, $limit + 20), "$what: the old primary is the primary");
    is(primaries(), $one->name, "$what: it alone");
    $one->safe_psql('INSERT INTO t SELECT 0');
    for my $node ($two, $three)
    {
        $node->start if !$node->running;
        ok($node->poll_query_until("SELECT status FROM pg_stat_wal_receiver", 'streaming', 60), "$what: " . $node->name . ' streams');
        $one->wait_for_catchup($node);
    }
    return;
}

# The WAL does not arrive.
my ($session, $receiver) = stop_unheard();
$session->wait($limit + 60);
like($session->err, qr/ERROR: .*(did not arrive here in time|did not shut down in time|came too late)/, 'WAL that does not arrive ends the switchover');
kill 'CONT', $receiver;
is_as_before('no WAL');
is($two->safe_psql('SELECT count(*) FROM pg_replication_slots'), '0', 'no slot is left on the standby');

# The session is ended.
($session, $receiver) = stop_primary();
$two->safe_psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT * FROM follow_primary_switchover%'");
$session->wait(30);
kill 'CONT', $receiver;
is_as_before('session ended');

# The standby is stopped.
($session, $receiver) = stop_primary();
kill 'KILL', $receiver;
$two->stop('immediate');
$session->wait(30);
is_as_before('standby stopped');

# The connection to the primary's host is cut, and so is its sshd.
($session, $receiver) = stop_primary();
$one->host->ssh_stop;
$session->wait($limit + 60);
like($session->err, qr/ERROR/, 'a cut connection ends the switchover');
kill 'CONT', $receiver;
is_as_before('connection cut');
$one->host->ssh_start;

# A second call finishes: it does not wait for the watcher. The primary is down by a
# switchover whose session was ended.
($session, $receiver) = stop_primary();
$two->safe_psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT * FROM follow_primary_switchover%'");
$session->wait(30);
kill 'CONT', $receiver;
my $r = $two->try_sql('SELECT node_host, state FROM follow_primary_switchover()', timeout => 180);
ok($r->{ok}, 'a second call succeeds') or diag($r->{err});
like($r->{err}, qr/stopped by an earlier switchover, has been started again/, 'and has started the primary again first');
is(primaries(), $two->name, 'and the standby is the only primary');
$_->wait_for_streaming($two) for $one, $three;
is($two->safe_psql('SELECT sum(i) FROM t'), '1', 'no row is lost');

# While the primary is stopped another node is promoted: by a failover, when the standby's machine
# is lost, or by hand, when only the session is. Neither the watcher nor the next call starts the
# old one as a second primary, nor does anybody who finds it down.
makes_follow($two, $_, 'back to the beginning', when_down => 'rejoin') for $one, $three;
$two->wait_for_catchup($_) for $one, $three;
$two->stop;
$one->promote;
$one->safe_psql("UPDATE follow_primary_node SET node_stop_command = NULL WHERE host = '@{[ $two->address ]}'");
for my $case ([ 'a failover', $three ], [ 'a promotion by hand', $two ])
{
    my ($what, $next) = @$case;
    makes_follow($one, $_, "$what: a standby", when_down => 'rejoin') for $two, $three;
    $one->wait_for_catchup($_) for $two, $three;
    ($session, $receiver) = stop_primary();
    if ($next == $three)
    {
        kill 'KILL', $receiver;
        $two->stop('immediate');
    }
    else
    {
        $two->safe_psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT * FROM follow_primary_switchover%'");
        kill 'CONT', $receiver;
    }
    $session->wait(30);
    $next->promote if $next->in_recovery;
    $next->safe_psql('INSERT INTO t SELECT 0');
    my $log = $one->pgdata . '.follow_primary/job/switchover.log';
    ok(wait_until("$what: the watcher has decided", sub { -e $log && slurp($log) =~ /another node is a primary/ }, $limit + 20), "$what: the watcher starts nothing");
    is(primaries(), $next->name, "$what: there is one primary");
    if ($next == $three)
    {
        $two->start;
        $r = $two->try_sql('SELECT * FROM follow_primary_switchover()', timeout => 60);
        like($r->{message}, qr/is down, and another node has become one/, 'nor does the next call') or diag($r->{err});
        is(primaries(), $next->name, 'there is one primary still');
    }
    $one->start;
    ok($one->in_recovery, "$what: started by hand the old one is a standby");
    $one->stop;
    makes_follow($next, $_, "$what: the others follow", when_down => 'rejoin') for grep { $_ != $next } $one, $two, $three;
    has_rows_of($next, $one, $what);
    # to the beginning
    $next->wait_for_catchup($one);
    $next->stop;
    $one->promote;
}

done_testing();
