# The copy is in place, but the server does not start with the node's own
# configuration. The old data must stay until the new standby is proven, and the error
# must show why the server did not start. Only a server fails so late, for every file
# was readable before.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 2, extension => 1);
my ($old, $new) = $cluster->nodes;

$old->safe_psql('CREATE TABLE t AS SELECT generate_series(1, 1000) AS i');
$old->wait_for_catchup($new);
$old->kill9;
$new->promote;
$old->start;
$old->safe_psql('INSERT INTO t VALUES (7777)');

# It is there, as the job sees before it stops the server; that it is too long for a socket's
# name, only a start shows.
my $long = scratch_dir('sockets') . '/' . 'x' x 110;
mkdir $long or die;
my $first;
for my $method (qw(basebackup rewind))
{
    # The setting takes effect at the next start, which the job makes.
    $old->set(unix_socket_directories => $long);
    $new->safe_psql('INSERT INTO t VALUES (0)');
    my $slots = $new->safe_psql('SELECT count(*) FROM pg_replication_slots');
    if ($method eq 'rewind')
    {
        $old->stop;
        $new->safe_psql('SELECT pg_switch_wal()');
    }
    my $r = $new->make_follow($old, method => $method, when_down => 'rejoin');
    is($r->{sqlstate}, '55000', "$method: a server that does not start is an error") or diag($r->{err});
    like($r->{message}, qr/at step start: PostgreSQL did not start on node \Q@{[ $old->address ]}\E/, "$method: it names step and node");
    like($r->{detail}, qr/FATAL: .*could not create any Unix-domain sockets/, "$method: the server's own words are in the detail");
    like($r->{hint}, qr/follow_primary\(\) again/, "$method: the hint says what to do");
    is($new->job('state, step, error_code'), 'failed|start|55000', "$method: so says the job's row");
    like($new->job('error'), qr/Unix-domain sockets/, "$method: with the server's words");
    ok(!$old->running, "$method: nothing runs there");
    is($new->safe_psql('SELECT count(*) FROM pg_replication_slots'), $slots, "$method: no slot is left that was not there");

    if ($method eq 'basebackup')
    {
        my $kept = $old->pgdata . '.follow_primary/job/old';
        my ($where) = run_ok([ $old->bin('pg_controldata'), $kept ]) =~ /^Database cluster state: *(.*)/m;
        is($where, 'shut down', 'the old data is there, whole');
        cmp_ok($old->commits_in("$kept/pg_wal", 1, $new->job('fork_lsn')), '>', 0, 'with what only it had');
        is($new->job('lost_wal_dir'), '', 'which is saved elsewhere when that goes');
        $first = $new->job('id');

        # Somebody starts it by hand: it must not come up as a primary.
        ok(-e $old->pgdata . '/' . ($old->standby_files)[-1], 'whoever starts the new data starts a standby');
    }

    # The same call again, while the cause is still there.
    $r = $new->make_follow($old, when_down => 'rejoin');
    is($r->{sqlstate}, '55000', "$method: the same error as long as the cause is there") or diag($r->{err});
    like($r->{detail}, qr/Unix-domain sockets/, "$method: with the same words");
    ok(-e $old->pgdata . '.follow_primary/job/old/PG_VERSION', 'the old data is still there') if $method eq 'basebackup';

    my $conf = slurp($old->pgdata . '/postgresql.conf');
    $conf =~ s/^unix_socket_directories = '\Q$long\E'\n//mg;
    spew($old->pgdata . '/postgresql.conf', $conf);
    makes_follow($new, $old, "$method: once the cause is gone the next call succeeds", when_down => 'rejoin');
    has_rows_of($new, $old, $method);
    is($old->safe_psql("SELECT setting FROM pg_settings WHERE name = 'port'"), $old->port, "$method: its own port");
    is(join(' ', grep { !m{/lost_wal-} } glob($old->pgdata . '.follow_primary/*')), '',
        "$method: now the old data is gone");
    next if $method ne 'basebackup';
    like($new->job('lost_counted, lost_transactions > 0, lost_wal_dir', id => $first), qr{^t\|t\|.*/lost_wal-}, 'what only it had is saved and counted, as the row of the first job says');
    cmp_ok($old->commits_in($new->job('lost_wal_dir', id => $first), 1, $new->job('fork_lsn', id => $first)), '>', 0, 'and is there');
}

# A job ends while the standby stops, before anything was changed: the standby is
# started again.
my $checkpointer = $old->safe_psql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'");
kill 'STOP', $checkpointer;
my $log = $old->log_size;
my $id = $new->safe_psql($new->follow_sql($old, method => 'rewind', wait => 'false'));
$old->wait_for_log(qr/received fast shutdown request/, $log);
$new->safe_psql("SELECT follow_primary_cancel($id)");
kill 'CONT', $checkpointer;
is($new->safe_psql("SELECT follow_primary_wait($id, '90 s')", timeout => 100), 'cancelled', 'a job is cancelled while the standby is stopped');
is($new->job('step, worker_pid IS NOT NULL'), 'stop|t', 'at that step');
ok($old->running, 'the standby runs again');
$old->wait_for_streaming($new);
pass('and streams');

done_testing();
