# Some standbys cannot show a new row at once: they are paused or delayed, or
# hot_standby is off. The job proves otherwise what it can, and says what it cannot.
# Nobody could make up how a WAL receiver and a startup process behave in these
# states.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 6, extension => 1,
    conf => { 'follow_primary.verify_timeout' => '5s', wal_retrieve_retry_interval => '200ms' });
my ($old, $new, $paused, $delayed, $late, $blind) = $cluster->nodes;

sub proof
{
    return $new->safe_psql(q{SELECT method, s.detail FROM follow_primary_job j JOIN follow_primary_step s
        ON s.job_id = j.id AND s.step = 'verify' ORDER BY j.id DESC LIMIT 1});
}

$old->safe_psql('CREATE TABLE t AS SELECT 1 AS i');
$old->wait_for_catchup($_) for $new, $paused, $delayed, $late, $blind;
$blind->safe_psql(q{ALTER SYSTEM SET hot_standby = 'off'});
$blind->restart;
$late->set_standby(recovery_min_apply_delay => '1h');
wait_until('it is delayed', sub { $late->standby_setting('recovery_min_apply_delay') eq '1h' });
$old->safe_psql('INSERT INTO t SELECT 2');
my $end = $old->lsn('flush');
$old->wait_for_catchup($_) for $new, $paused;
$late->poll_query_until("SELECT pg_last_wal_receive_lsn() >= '$end' AND pg_last_wal_replay_lsn() < '$end'");
$paused->safe_psql('SELECT pg_wal_replay_pause()');
$old->wait_for_catchup($delayed);
$delayed->set_standby(recovery_min_apply_delay => '1h');    # nothing waits to be replayed there
wait_until('it is delayed', sub { $delayed->standby_setting('recovery_min_apply_delay') eq '1h' });
$old->kill9;
$new->promote;
$new->safe_psql('INSERT INTO t SELECT 3');

# A paused standby does not even look for another primary until it goes on.
like($new->plan_for($paused), qr/^refuse\|recovery is paused/, 'paused: the plan is to refuse');
my $r = $new->make_follow($paused);
is($r->{sqlstate}, '55000', 'paused: the call says so');
like($r->{hint}, qr/pg_wal_replay_resume/, 'and what to do');
$paused->safe_psql('SELECT pg_wal_replay_resume()');
makes_follow($new, $paused, 'paused no more: it follows');
like(proof(), qr/^repoint\|.*shows what is written here/, 'proven by the row');

$paused->safe_psql('SELECT pg_wal_replay_pause()');
$paused->poll_query_until('SELECT pg_is_wal_replay_paused()');
makes_follow($new, $paused, 'paused while it follows: a second call succeeds');
like(proof(), qr/^none\|.*has received what is written here.*recovery is paused/, 'proven by what it received, and said');
$paused->safe_psql('SELECT pg_wal_replay_resume()');

# A delayed standby; no WAL waits to be replayed.
makes_follow($new, $delayed, 'delayed: it follows');
like(proof(), qr/^repoint\|.*has received what is written here.*recovery_min_apply_delay/, 'proven by what it received, and said');
is($delayed->safe_psql('SELECT count(*) FROM t'), '2', 'it shows no new row: its delay is respected');
is($delayed->standby_setting('recovery_min_apply_delay'), '1h', 'and as it was set');

# A delayed standby, and a commit waits: PostgreSQL starts no WAL receiver before it
# is replayed. The job cannot prove in time that the node follows, and does not claim
# it.
my $conf = slurp($late->recovery_file);
$r = $new->make_follow($late);
is($r->{sqlstate}, '55000', 'delayed, with WAL that waits: not proven in time');
like($r->{detail}, qr/recovery_min_apply_delay/, 'with the reason');
is(slurp($late->recovery_file), $conf, 'its settings are as they were');
$late->set_standby(recovery_min_apply_delay => undef);
$late->poll_query_until('SELECT count(*) FROM t', '2');
makes_follow($new, $late, 'when that is over, it follows');
like(proof(), qr/^repoint\|.*shows what is written here/, 'proven by the row');

# With hot_standby = off nobody can ask the node what it received.
like($new->plan_for($blind), qr/^rewind\|the node cannot be asked/, 'hot_standby off: no repoint without knowing');
makes_follow($new, $blind, 'hot_standby off: it follows');
like(proof(), qr/^rewind\|.*replays what is written here.*hot_standby is off/, 'proven by what it replays, and said');
is($new->safe_psql(q{SELECT detail FROM follow_primary_step WHERE step = 'rewind'}), 'no rewind was required', 'it was only restarted');
makes_follow($new, $blind, 'hot_standby off: so does a second call');

$delayed->set_standby(recovery_min_apply_delay => undef);
$blind->stop;
spew($blind->pgdata . '/postgresql.auto.conf', '');
$blind->start;
for my $node ($paused, $delayed, $late, $blind)
{
    $new->wait_for_catchup($node);
    is($node->safe_psql('SELECT count(*), sum(i) FROM t'), '3|6', $node->name . " has the primary's rows in the end");
}

# The primary allows more connections than a standby, so the standby streams, but has
# stopped to replay for good.
SKIP:
{
    skip 'such a standby ends before PostgreSQL 14', 7 if pg_major() < 14;
    $new->set(max_connections => 500);
    $new->restart;
    $paused->poll_query_until('SELECT pg_is_wal_replay_paused() AND EXISTS (SELECT FROM pg_stat_wal_receiver)')
        or die "it is not paused\n";
    $r = $new->make_follow($paused);
    is($r->{sqlstate}, '55000', 'too few connections: a standby that streams does not count as one that follows') or diag($r->{err});
    like($r->{detail}, qr/recovery is paused, for max_connections is \d+ on the node, lower than this server's 500/, 'it says why');
    $r = $new->make_follow($paused, method => 'repoint');
    is($r->{sqlstate}, '55000', 'too few connections: nor is it repointed');
    like($r->{message}, qr/at step plan: max_connections is \d+ on the node/, 'before it is touched');
    like($r->{hint}, qr/Raise it there/, 'and it is said what to do');
    $paused->set(max_connections => 500);
    $paused->restart;
    makes_follow($new, $paused, 'enough connections: it follows');
    like(proof(), qr/shows what is written here/, 'and shows it');
}

done_testing();
