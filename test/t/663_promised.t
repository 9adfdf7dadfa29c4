# A switchover's session has told the former primary's watcher that this server will be
# promoted, and then it, or the server, is killed: before the promotion has been asked for,
# when it has been but the startup process has not seen it, and when that has begun. The
# promise holds through a crash of the server, and a start takes it back: in either case there
# is one primary within the time limit, and the next call finishes. Only a server that restarts
# its processes under the same postmaster shows which is which.

use FollowPrimary::Test;

plan(skip_all => 'before PostgreSQL 12 there is no switchover') if FollowPrimary::Node::pg_major() < 12;

my $limit = 10;

# recovery waits for ever for a timeline's history while there is "block", but not while
# a promotion is asked for and not seen
my $dir = scratch_dir('restore');
spew("$dir/restore", <<"END");
case \$1 in
    *.history) while [ -e $dir/block ] && [ ! -e promote ]; do touch $dir/blocked; sleep 0.05; done ;;
esac
exit 1
END
my $cluster = FollowPrimary::Cluster->new(nodes => 2, extension => 1,
    conf => { restore_command => "sh $dir/restore %f", wal_retrieve_retry_interval => '200ms', 'follow_primary.verify_timeout' => '20s' });
my ($one, $two) = $cluster->nodes;
$_->set('follow_primary.primary_host' => $_->address) for $one, $two;
$_->reload for $one, $two;

# The function finds another pg_promote() before the server's, which waits for a lock, or fails.
my $hold = 4713;
sub promotion
{
    my ($before) = @_;
    $one->safe_psql("CREATE OR REPLACE FUNCTION held.pg_promote(wait boolean DEFAULT true, wait_seconds integer DEFAULT 60) RETURNS boolean "
        . "LANGUAGE plpgsql AS 'BEGIN $before; RETURN pg_catalog.pg_promote(wait, wait_seconds); END'");
    $one->wait_for_catchup($two);
    return;
}
$one->safe_psql('CREATE SCHEMA held; ALTER FUNCTION follow_primary_switchover SET search_path = held, pg_catalog, pg_temp; CREATE TABLE t (i int)');

my $startup = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'startup'";
my $session = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'SELECT * FROM follow_primary_switchover%'";

# A switchover that has got there.
sub get_to
{
    my ($point) = @_;
    unlink "$dir/block", "$dir/blocked";
    promotion("PERFORM pg_advisory_lock_shared($hold)");
    my $holder = $two->psql_start("SELECT pg_advisory_lock($hold); SELECT pg_sleep(600)");
    $two->poll_query_until("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = $hold", '1') or die;
    my $call = $two->psql_start("SELECT * FROM follow_primary_switchover('$limit s')");
    $two->poll_query_until("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = $hold AND NOT granted", '1', 60)
        or die 'it does not come to the promotion: ' . $call->err;
    my $recovery = $two->safe_psql($startup);
    my $pid = $two->safe_psql($session);
    return ($call, $pid, $holder) if $point eq 'promised';
    kill 'STOP', $recovery or die;
    $two->safe_psql("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objid = $hold AND granted");
    wait_until('the promotion is asked for', sub { -e $two->pgdata . '/promote' }) or die;
    return ($call, $pid, $holder) if $point eq 'asked for';
    spew("$dir/block", '');
    kill 'CONT', $recovery;
    wait_until('the promotion has begun', sub { -e "$dir/blocked" }) or die;
    return ($call, $pid, $holder);
}

sub primaries { return join ' ', map { $_->name } grep { $_->running && ($_->psql('SELECT pg_is_in_recovery()', timeout => 10))[1] =~ /^f/ } $one, $two }

my $rows = 0;
for my $case (
    [ 'promised',  'the session is killed', $two ],
    [ 'promised',  'the session fails',     $two ],
    [ 'promised',  'the server is stopped', $one ],
    [ 'asked for', 'the session is killed', $two ],
    [ 'asked for', 'the server is stopped', $one ],
    [ 'begun',     'the session is killed', $two ],
    [ 'begun',     'the server is stopped', $one ])
{
    my ($point, $fault, $expected) = @$case;
    my $what = "$point, and $fault";
    my ($call, $pid, $holder);
    if ($fault eq 'the session fails')
    {
        promotion(q{RAISE ''no promotion''});
        $call = $two->psql_start("SELECT * FROM follow_primary_switchover('$limit s')");
        $call->wait(60);
        like($call->err, qr/ERROR:  no promotion/, "$what: it has failed");
    }
    else
    {
        ($call, $pid, $holder) = get_to($point);
        if ($fault eq 'the session is killed') { kill 'KILL', $pid or die }
        else                                   { $two->stop('immediate') }
        $call->wait(30);
        $holder->stop;
    }
    unlink "$dir/block";
    $two->start if !$two->running;
    ok(wait_until("$what: one primary", sub { primaries() eq $expected->name }, $limit + 25), "$what: " . $expected->name . ' is the primary')
        or diag('primaries: ' . primaries(), $two->log_tail(30));
    is(primaries(), $expected->name, "$what: it alone");

    # The next call finishes.
    $one->start if !$one->running && $expected == $one;
    $expected->safe_psql('INSERT INTO t SELECT 1');
    $rows++;
    if ($expected == $one)
    {
        promotion('NULL');
        $two->wait_for_streaming($one);
    }
    my $r = $two->try_sql($expected == $one ? 'SELECT state FROM follow_primary_switchover()' : q{SELECT state FROM follow_primary_all(when_down => 'rejoin')}, timeout => 120);
    is($r->{out}, 'succeeded', "$what: the next call finishes") or diag($r->{err});
    is(primaries(), $two->name, "$what: with one primary");
    $one->wait_for_streaming($two);
    is($two->safe_psql('SELECT count(*) FROM t'), $rows, "$what: no row is lost");

    # to the beginning
    $two->safe_psql('DROP FUNCTION held.pg_promote');
    $two->wait_for_catchup($one);
    $r = $one->try_sql('SELECT state FROM follow_primary_switchover()', timeout => 120);
    $r->{out} eq 'succeeded' or die "no way back\n$r->{err}";
}

done_testing();
