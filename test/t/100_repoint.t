# Healthy standbys follow the new primary by new settings alone. Running servers show
# what no table of facts can: PostgreSQL takes the settings without a restart (before
# 13 with one), no reader notices, the primary has no extra work, and a repoint that
# fails is taken back.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 4, extension => 1, hold => 1,
    conf => { 'follow_primary.verify_timeout' => '3s', checkpoint_timeout => '1h' });
my ($old, $new, $reader, $pinned) = $cluster->nodes;

# A standby as a DBA may have it: settings by ALTER SYSTEM, which would win over ours,
# and a connection string with keys of its own, such as hostaddr.
my $keys = 'user=repl sslmode=disable keepalives_idle=7 passfile=' . $cluster->passfile;
$reader->safe_psql("ALTER SYSTEM SET work_mem = '5MB'");
$reader->set_standby(primary_slot_name => $reader->slot_name, primary_conninfo =>
    "host=old.example hostaddr=@{[ $old->address ]} port=@{[ $old->port ]} application_name=the_reader $keys");
my $reloads = reloads('primary_conninfo');

# Another one needs a restart to follow a new timeline.
$pinned->set_standby(recovery_target_timeline => 'current');

run_ok([ $old->bin('pgbench'), '-i', '-q', '-s', '1', $old->connstr ]);
$_->poll_query_until("SELECT status FROM pg_stat_wal_receiver", 'streaming') for $reader, $pinned;
$old->wait_for_catchup($_) for $new, $reader, $pinned;
$old->kill9;
$new->promote;

sub settings_files
{
    my ($node) = @_;
    return join '', map {
        my $file = $node->pgdata . "/$_";
        sprintf "%s %o\n%s", $_, (stat $file)[2] // 0, -e $file ? slurp($file) : '(none)'
    } 'postgresql.conf', 'postgresql.auto.conf', $node->standby_files;
}

# The primary refuses the standbys: the job fails before it changes anything. If
# the primary refuses them later, the job puts everything back.
for my $node ($reader, $pinned)
{
    my $name   = $node->name;
    my $before = settings_files($node);
    my $pid    = $node->pid;
    my $let_in = $new->shut_out('repl');
    my $r      = $new->make_follow($node);
    is($r->{sqlstate}, '08006', "$name: a repoint that the primary's pg_hba.conf forbids is refused") or diag($r->{err});
    like($r->{message}, qr/at step connect/, "$name: before it changes anything");
    is($node->pid, $pid, "$name: it runs on");
    $let_in->();
    $r = $new->make_follow_held($node, 'slot', sub { $let_in = $new->shut_out('repl') });
    is($r->{sqlstate}, '55000', "$name: what is forbidden later fails at the proof") or diag($r->{err});
    like($r->{message}, qr/ failed at step verify/, "$name: with the step");
    $let_in->();
    is(settings_files($node), $before, "$name: the former settings are back, byte for byte");
    is($node->safe_psql('SELECT pg_is_in_recovery(), count(*) FROM pgbench_accounts'), 't|100000', "$name: it serves on");
    is($node->pid, $pid, "$name: by the same postmaster") if $node == $reader && $reloads;
    ok(!-e $node->pgdata . '.follow_primary', "$name: nothing is left beside its data");
    is($new->safe_psql('SELECT count(*) FROM pg_replication_slots'), '0', "$name: nor a slot on the primary");
}

# Now the repoint succeeds, while somebody reads.
my $plan = $new->plan_for($reader);
my $how  = $reloads ? 'repoint' : 'stop configure start';
like($plan, qr/^repoint\|.*\{lock,connect,@{[ $reloads ? '' : 'try,' ]}slot,@{[ $how =~ tr{ }{,}r ]},verify,clean\}$/, 'the plan: a repoint, with no restart where none is needed');
my ($checkpoint, $began) = split /\|/, $new->safe_psql('SELECT checkpoint_lsn, pg_current_wal_flush_lsn() FROM pg_control_checkpoint()');
my $log        = $new->log_size;
my $pid        = $reader->pid;
my $pgbench    = $reloads && FollowPrimary::Process->start([ $reader->bin('pgbench'), '-S', '-n', '-c', '3', '-T', '300', $reader->connstr ]);
my $pids       = q{SELECT string_agg(pid::text, ' ' ORDER BY pid) FROM pg_stat_activity WHERE application_name = 'pgbench'};
my $clients;
wait_until('three clients read', sub { split(' ', $clients = $reader->safe_psql($pids)) == 3 }) if $reloads;
my $r = makes_follow($new, $reader, 'the standby follows the new primary');
if ($reloads)
{
    # A client of pgbench ends at an error, and its connection with it.
    is($reader->safe_psql($pids), $clients, 'its readers are connected as before');
    ok($pgbench->running, 'and go on reading');
    unlike($pgbench->out . $pgbench->err, qr/error|abort|fatal/i, 'without an error');
    $pgbench->stop(signal => 'INT');
}
is($reader->pid == $pid, $reloads, 'the postmaster is the same, unless PostgreSQL needs a restart');
is($new->job('method || state'), 'repointsucceeded', 'the job says so');
is($new->steps, 'survey plan lock connect ' . ($reloads ? '' : 'try ') . "slot $how verify clean", 'its steps are the cheap ones');
is($new->safe_psql('SELECT checkpoint_lsn FROM pg_control_checkpoint()'), $checkpoint, 'no checkpoint was made on the primary for it');
unlike($new->log_content($log), qr/checkpoint starting/, 'nor begun');
# The first segment is named: else pg_waldump looks for one, and may find one that is not written yet.
my $segment = $new->safe_psql("SELECT pg_walfile_name('$began')");
my (undef, $dump) = run_command([ $new->bin('pg_waldump'), '-p', $new->pgdata . '/pg_wal', '-s', $began, '-r', 'Transaction', $segment ]);
like($dump, qr/COMMIT/, 'the job has committed');
unlike($dump, qr/; sync/, 'nothing for which each standby would flush its control file, before it shows that');
$new->safe_psql('CREATE TABLE t AS SELECT 1 AS i');
$new->wait_for_catchup($reader);
is($reader->safe_psql('SELECT i FROM t'), '1', 'new rows arrive');

my %set = map { split /=/, $_, 2 } split ' ', $reader->standby_setting('primary_conninfo');
my %added = (connect_timeout => 10, pg_major() >= 12 ? (tcp_user_timeout => 10000) : (), pg_major() >= 17 ? (dbname => 'postgres') : ());
is_deeply(\%set, { host => $new->address, port => $new->port, application_name => 'the_reader', %added, map { split /=/, $_, 2 } split ' ', $keys },
    'host and port are the new ones, hostaddr is gone, every other key is kept, and there are limits and a database');
is($reader->standby_setting('primary_slot_name'), $reader->slot_name, 'the slot is named');
my $auto = slurp($reader->pgdata . '/postgresql.auto.conf');
unlike($auto, qr/primary_/, 'what would win in postgresql.auto.conf is gone');
like($auto, qr/work_mem = '5MB'/, 'and nothing else of it');
is($reader->safe_psql('SHOW work_mem'), '5MB', 'it is in force');
is(() = slurp($reader->pgdata . '/postgresql.conf') =~ /^include_if_exists/mg, pg_major() >= 12 ? 1 : 0, 'postgresql.conf has one include');
ok(!-e $reader->pgdata . '.follow_primary', 'nothing is left beside the data');
$reader->restart;
$reader->wait_for_streaming($new);
pass('the settings outlive a restart');

# Only a start reads recovery_target_timeline. What failed above was put back in the
# files, without a restart.
$pinned->restart;
$plan = $new->plan_for($pinned);
like($plan, qr/^repoint\|.*\{lock,connect,try,slot,stop,configure,start,verify,clean\}$/, 'recovery_target_timeline makes it a repoint with a restart');
makes_follow($new, $pinned, 'which works');
unlike($new->steps, qr/rewind|copy|checkpoint/, 'without a rewind');
is($pinned->standby_setting('recovery_target_timeline'), 'latest', 'and for the next time it is right');
$new->wait_for_catchup($pinned);
is($pinned->safe_psql('SELECT i FROM t'), '1', 'rows arrive');

# A second call has nothing to do, and proves that at once.
for my $node ($reader, $pinned)
{
    my $name = $node->name;
    $pid   = $node->pid;
    $log   = $node->log_size;
    $r     = $new->make_follow($node);
    ok($r->{ok}, "$name: a second call succeeds");
    is($new->job('method'), 'none', 'with nothing to do');
    is($new->steps, 'survey plan verify', 'but the proof');
    unlike($node->log_content($log), qr/SIGHUP/, 'its settings are not even reloaded');
    is($node->pid, $pid, 'nor is it restarted');
}

# While the job waits for its row, it looks at the node again and again. It must not
# hold a snapshot meanwhile, or the replay of a VACUUM would wait for it.
my $startup = $reader->safe_psql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'startup'");
kill 'STOP', $startup;
my $job = $new->safe_psql(q(SET follow_primary.verify_timeout = '60s'; ) . $new->follow_sql($reader, wait => 'false'));
my %seen;
wait_until('it has looked for a while', sub {
    $seen{$_}++ for split /\n/, $reader->safe_psql(q{SELECT CASE WHEN state = 'idle' THEN 'idle' ELSE 'active ' || coalesce(wait_event, '') END
        FROM pg_stat_activity WHERE application_name = 'follow_primary'});
    return ($seen{idle} // 0) >= 20 || ($seen{'active PgSleep'} // 0) >= 20;
}, 60);
kill 'CONT', $startup;
is($seen{'active PgSleep'} // 0, 0, 'what looks at the node pauses without a snapshot') or diag(explain(\%seen));
is($new->safe_psql("SELECT follow_primary_wait($job)"), 'succeeded', 'and sees the row when it comes');

done_testing();
