# By default a job leaves a node alone that is down, as pgpool wants it; if the caller
# says so, it makes the node a standby, whichever way it went down. A killed, a
# stopped and a crashed standby differ in the control file, in the WAL and in crash
# recovery; a dead host differs from a dead sshd only on a network. So real servers
# are really killed. The nodes' clocks show another time zone than the primary's.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 5, extension => 1, sshd_conf => "SetEnv TZ=XYZ-9\n", conf => {
    'follow_primary.connect_timeout' => 5 });
my ($old, $new, $stopped, $crashed, $restarted) = $cluster->nodes;

sub follows_now
{
    my ($node, $what) = @_;
    has_rows_of($new, $node, $what);
    streams_from($new, $node, $what);
    ok($node->in_recovery, "$what: it is a standby");
    return;
}

$old->safe_psql('CREATE TABLE t AS SELECT generate_series(1, 1000) AS i');
$old->safe_psql('CHECKPOINT');
$old->wait_for_catchup($_) for $new, $stopped, $crashed, $restarted;
$old->kill9;
$new->promote;

# By default a job only says that the node is down.
my $r = $new->make_follow($old);
is($r->{code}, 0, 'a node that is down is no error by default') or diag($r->{err});
like($r->{err}, qr/NOTICE: .*node \S+ is skipped: the node is down.*when_down => 'rejoin'/,
    'a NOTICE says that it is skipped, and how it can be had');
is($new->job('state, method, error_code, step'), 'skipped|skip||plan', "so does the job's row");
ok(!$old->running, 'it is still down');
is($old->controldata('Database cluster state'), 'in production', 'and its data is as the crash left it');
is($new->safe_psql("SELECT count(*) FROM pg_replication_slots WHERE slot_name = '" . $old->slot_name . "'"), 0,
    'no slot was made for it');

# A crashed former primary.
makes_follow($new, $old, "when_down => 'rejoin' brings the killed primary back", when_down => 'rejoin');
is($new->job('state, method'), 'succeeded|rewind', 'by a rewind');
follows_now($old, 'it');

# A standby that is stopped, and one that crashes, while both follow the dead primary.
$stopped->stop('fast');
is($stopped->controldata('Database cluster state'), 'shut down in recovery', 'a standby is stopped');
makes_follow($new, $stopped, 'the stopped standby comes back', when_down => 'rejoin');
follows_now($stopped, 'it');

$crashed->kill9;
is($crashed->controldata('Database cluster state'), 'in archive recovery', 'a standby is killed');
makes_follow($new, $crashed, 'the killed standby comes back', when_down => 'rejoin');
follows_now($crashed, 'it');

# A standby that was restarted when its primary was gone already: its data is
# consistent at the last record of its WAL, which is no commit.
$restarted->restart;
$restarted->kill9;
makes_follow($new, $restarted, 'a standby that was restarted without its primary, and killed, comes back', when_down => 'rejoin');
follows_now($restarted, 'it');

# A former primary that was shut down cleanly: its last record, the shutdown
# checkpoint, reached the standby that was promoted.
$new->safe_psql('INSERT INTO t SELECT generate_series(1001, 1100)');
$new->wait_for_catchup($_) for $old, $stopped, $crashed, $restarted;
$new->stop('fast');
($old, $new) = ($new, $old);
$new->promote;
makes_follow($new, $old, 'a primary that was shut down in good order comes back', when_down => 'rejoin');
is($new->job('coalesce(lost_transactions, 0)'), 0, 'and has lost nothing');
makes_follow($new, $stopped, 'its sibling follows');
follows_now($old, 'the former primary');

# A standby with nothing to replay: the last record is the shutdown checkpoint, and a
# restartpoint has used it.
$restarted->poll_query_until('SELECT pg_last_wal_replay_lsn() >= pg_last_wal_receive_lsn()', 't') or die;
$restarted->safe_psql('CHECKPOINT');
$restarted->kill9;
is($restarted->controldata("Latest checkpoint's REDO location"), $restarted->controldata('Latest checkpoint location'),
    'a standby is killed whose WAL ends in a shutdown checkpoint');
makes_follow($new, $restarted, 'it comes back', when_down => 'rejoin');
follows_now($restarted, 'it');

# Neither sshd nor PostgreSQL answers: a dead host is a node that is down.
$crashed->kill9;
$crashed->host->ssh_kill;
$r = $new->make_follow($crashed);
is($r->{code}, 0, 'a dead host is skipped') or diag($r->{err});
like($r->{err}, qr/NOTICE: .*node \S+ is skipped: the node is down/, 'with a NOTICE');
is($new->job('state'), 'skipped', "its job's state is skipped");

# A dead host cannot rejoin: an error says so.
$r = $new->make_follow($crashed, when_down => 'rejoin');
is($r->{sqlstate}, '08001', 'a dead host cannot rejoin: 08001');
like($r->{message}, qr/\Q@{[ $crashed->address ]}\E/, 'the message names the host');
isnt($r->{hint}, '', 'there is a hint');
is($new->job('state, error_code'), 'failed|08001', "the job's row says so");

# sshd is gone, but the server is up: nobody may say that this node is down.
$stopped->host->ssh_kill;
$r = $new->make_follow($stopped);
is($r->{sqlstate}, '08001', 'a node whose sshd alone is gone is an error: 08001');
isnt($r->{code}, 0, 'psql fails');
ok($stopped->running, 'its server goes on');

# The host is back, and the same call succeeds.
$crashed->host->ssh_start;
makes_follow($new, $crashed, 'once the host is back it rejoins', when_down => 'rejoin');
follows_now($crashed, 'it');

done_testing();
