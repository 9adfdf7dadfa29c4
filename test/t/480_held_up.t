# What keeps a standby from following, while it waits for something else than this
# server: its startup process is in a restore_command that asks a dead host, waits
# for a query that reads, or for a lock. The error names it, and says what to do;
# no settings are put back that lead to nobody. A startup process that hangs in
# these ways, and looks at no settings meanwhile, only a server has.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 6, extension => 1, conf => {
    'follow_primary.verify_timeout' => '10s', wal_retrieve_retry_interval => '200ms',
    max_standby_streaming_delay => -1, max_standby_archive_delay => -1 });
my ($old, $new, $archive, $reader, $locker, $pinner) = $cluster->nodes;

my $reloads = FollowPrimary::Node::reloads('restore_command');
plan(skip_all => 'a repoint restarts a node before PostgreSQL 14') if !$reloads;

sub last_error
{
    return $new->safe_psql('SELECT error, hint FROM follow_primary_job ORDER BY id DESC LIMIT 1');
}

sub slot_of
{
    my ($node) = @_;
    return $new->safe_psql("SELECT count(*) FROM pg_replication_slots WHERE slot_name = '@{[ $node->slot_name ]}'");
}

# The startup process of $node waits for $event.
sub startup_waits
{
    my ($node, $event) = @_;
    $node->poll_query_until("SELECT wait_event FROM pg_stat_activity WHERE backend_type = 'startup'", $event)
        or die $node->name . " does not wait for $event but for "
        . $node->safe_psql("SELECT wait_event FROM pg_stat_activity WHERE backend_type = 'startup'");
    return $node->safe_psql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'startup'");
}

$old->safe_psql('CREATE TABLE t AS SELECT generate_series(1, 1000) AS i; CREATE TABLE l (i int); CREATE TABLE p AS SELECT 1 AS i');
$old->wait_for_catchup($_) for $new, $archive, $reader, $locker, $pinner;

# A command that does not end, as one that asks a host that is off; that it has been
# called for shows that it is used.
my $mark = scratch_dir('restore') . '/called';
$archive->set_standby(restore_command => "touch $mark; sleep 4711 || exit 1");

# Sessions that read what is vacuumed, and what is locked.
my $reading = $reader->psql_start("SET application_name = 'monthly report';
    BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM t; SELECT pg_sleep(600)");
my $locking = $locker->psql_start("SET application_name = 'dump'; BEGIN; SELECT count(*) FROM l; SELECT pg_sleep(600)");
my %pid = map {
    my ($node, $application) = @$_;
    $node->poll_query_until("SELECT count(*) FROM pg_stat_activity WHERE application_name = '$application' AND query ~ 'pg_sleep'", 1) or die;
    ($application => $node->safe_psql("SELECT pid FROM pg_stat_activity WHERE application_name = '$application'"))
} [ $reader, 'monthly report' ], [ $locker, 'dump' ];

# The reader and the locker are stopped by what the old primary does now.
$old->safe_psql('DELETE FROM t WHERE i <= 900; BEGIN; LOCK TABLE l IN ACCESS EXCLUSIVE MODE; INSERT INTO l VALUES (1); COMMIT;
    SELECT pg_sleep(0.1)');
$old->safe_psql('VACUUM t');
$old->safe_psql('INSERT INTO t VALUES (0)');
$old->wait_for_catchup($_) for $new, $archive;
startup_waits($reader, 'RecoveryConflictSnapshot');
startup_waits($locker, 'relation');
$_->poll_query_until("SELECT pg_last_wal_receive_lsn() >= '@{[ $old->lsn('flush') ]}'") for $reader, $locker;
$old->kill9;
$new->promote;
$new->safe_psql('CREATE TABLE after AS SELECT 1');

#
# restore_command
#
wait_until('the archive is asked', sub { -e $mark });
startup_waits($archive, 'RestoreCommand') if FollowPrimary::Node::pg_major() >= 15;
my ($child) = map { s/^\s+|\s+$//gr } run_ok([ 'pgrep', '-f', '^sleep 4711' ]) =~ /(\d+)/;
my $before = slurp($archive->recovery_file);
my $started = time;
my $r = $new->make_follow($archive);
cmp_ok(time - $started, '<', 30, 'restore_command: the time limit holds');
is($r->{sqlstate}, '55000', 'a standby whose restore_command hangs does not follow in time') or diag($r->{err});
like($r->{message}, qr/at step verify/, 'the step is named');
like($r->{detail}, qr/restore_command.*process \d+.*for \d+ s.*: .*sleep 4711/s, 'the detail names the command that holds it up, its process, and for how long');
like($r->{detail}, qr/\b$child\b/, 'the very process that hangs');
like($r->{hint}, qr/On node \Q@{[ $archive->address ]}\E:\d+: .*restore_command/s, 'the hint names the machine, and the setting that is to be mended');
like($r->{hint}, qr/pg_ctl'? .*restart/, 'and the command that ends it');
unlike($r->{hint}, qr/kill \d/, 'not a kill of the command, by which the server would end');
like($r->{err}, qr/NOTICE:.*verify.*restore_command/, 'whoever waits has been told before');
like($r->{detail}, qr/settings.*left in place/s, 'the new settings stay, for the old ones lead to a host that does not answer');
like($archive->safe_psql('SHOW primary_conninfo'), qr/host=\Q@{[ $new->address ]}\E/, 'and so it is');
is(slot_of($archive), 1, 'the slot stays with them');
like($r->{detail}, qr/fetches no WAL behind the fork until/, 'and a gate before its restore_command, which is said');
is(join(' ', map { s{.*/}{}r } glob $archive->pgdata . '.follow_primary/job/*'), 'gate', 'nothing else is left on the node');
my $n = () = run_ok([ 'ps', '-A', '-o', 'args' ]) =~ /^sleep 4711/mg;
is($n, 1, 'the command has not been ended by the job');

# As the hint says it.
$archive->safe_psql("ALTER SYSTEM SET restore_command = 'false'");
$archive->reload;
my ($restart) = $r->{hint} =~ /(\S*pg_ctl'? .*?restart)/;
run_ok([ 'sh', '-c', "$restart >/dev/null 2>&1" ], timeout => 60);
$archive->wait_for_streaming($new);
pass('what the hint says ends it, and the node follows by itself');
$r = $new->make_follow($archive);
ok($r->{ok}, 'which a call proves') or diag($r->{err});
is($new->safe_psql('SELECT method FROM follow_primary_job ORDER BY id DESC LIMIT 1'), 'none', 'with nothing else to do');
ok(!-e $archive->pgdata . '.follow_primary', 'and the gate is gone');

#
# a query that reads
#
$before = slurp($reader->recovery_file);
$r = $new->make_follow($reader);
is($r->{sqlstate}, '55000', 'a standby that a query holds up does not follow in time') or diag($r->{err});
like($r->{detail}, qr/RecoveryConflictSnapshot/, 'the detail has what the startup process waits for');
like($r->{detail}, qr/$pid{'monthly report'}/, 'the session');
like($r->{detail}, qr/user "postgres".*application "monthly report"/s, 'its user and its application');
like($r->{detail}, qr/for \d+ s/, 'and how long it has run');
my $terminate = "SELECT pg_terminate_backend($pid{'monthly report'})";
like($r->{hint}, qr/\Q@{[ $reader->address ]}\E.*\Q$terminate\E/s, 'the hint says what ends it, and where');
like($r->{detail}, qr/left in place/, 'the new settings stay');
like(last_error(), qr/monthly report.*pg_terminate_backend/s, "the job's row tells all that");
is(slot_of($reader), 1, 'the slot is there');
$reader->safe_psql($terminate);
$reader->wait_for_streaming($new);
$new->wait_for_catchup($reader);
pass('when that is done the node follows by itself');

# The same where the node streams already: its row does not come.
$reading = $reader->psql_start("SET application_name = 'monthly report'; BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM t; SELECT pg_sleep(600)");
$reader->poll_query_until(q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'monthly report' AND query ~ 'pg_sleep'}, 1) or die;
$new->safe_psql('DELETE FROM t WHERE i > 950');
$new->safe_psql('VACUUM t');
startup_waits($reader, 'RecoveryConflictSnapshot');
$r = $new->make_follow($reader);
is($r->{sqlstate}, '55000', 'one that streams, but does not replay, is not proven') or diag($r->{err});
like($r->{detail}, qr/row of this job is not visible.*RecoveryConflictSnapshot.*application "monthly report"/s, 'with the reason');
like($r->{hint}, qr/pg_terminate_backend\(\d+\)/, 'and what to do');
$reading->stop(signal => 'INT');
$reader->safe_psql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'monthly report'});
$r = $new->make_follow($reader);
ok($r->{ok}, 'without that session it is') or diag($r->{err});

#
# a lock
#
$r = $new->make_follow($locker);
is($r->{sqlstate}, '55000', 'a standby that a lock holds up does not follow in time') or diag($r->{err});
like($r->{detail}, qr/waits for a lock.*"?l"?.*$pid{dump}.*application "dump"/s, 'the detail names the lock and the session that has it');
like($r->{hint}, qr/SELECT pg_terminate_backend\($pid{dump}\)/, 'the hint says what ends it');
like($r->{detail}, qr/left in place/, 'the new settings stay');
$locker->safe_psql("SELECT pg_terminate_backend($pid{dump})");
$locker->wait_for_streaming($new);
$r = $new->make_follow($locker);
ok($r->{ok}, 'without that session the node follows') or diag($r->{err});

# A pin.
$r = $new->make_follow($pinner);
ok($r->{ok}, 'a standby that nothing holds up follows') or diag($r->{err});
my $pinning = $pinner->psql_start("SET application_name = 'cursor'; BEGIN; DECLARE c CURSOR FOR SELECT * FROM p; FETCH c; SELECT pg_sleep(600)");
$pinner->poll_query_until(q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'cursor' AND query ~ 'pg_sleep'}, 1) or die;
$pid{cursor} = $pinner->safe_psql(q{SELECT pid FROM pg_stat_activity WHERE application_name = 'cursor'});
$new->safe_psql("DELETE FROM p");
$new->safe_psql("VACUUM p");
SKIP:
{
    skip 'the vacuum did not need that page for itself', 3
        if !$pinner->poll_query_until("SELECT wait_event IN ('BufferPin', 'RecoveryConflictSnapshot') FROM pg_stat_activity WHERE backend_type = 'startup'", 't', 10);
    $r = $new->make_follow($pinner);
    is($r->{sqlstate}, '55000', 'a standby that a pin holds up does not show the row') or diag($r->{err});
    like($r->{detail}, qr/(BufferPin|RecoveryConflictSnapshot).*$pid{cursor}.*application "cursor"/s, 'the detail names the session');
    like($r->{hint}, qr/SELECT pg_terminate_backend\($pid{cursor}\)/, 'the hint says what ends it');
}

done_testing();
