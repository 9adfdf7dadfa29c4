# States between up and down: a server that still starts, or still stops, one that
# a single-user server is at work in, a stale lock file, a server in another PID
# namespace, whose processes nobody sees. None of them is "down", but the one that
# is. What lock files and sockets say then only real servers show.

use FollowPrimary::Test;

my $namespace = (run_command([ 'unshare', '--user', '--map-current-user', '--pid', '--fork', '--mount-proc', 'true' ]))[0] == 0;
my $container = scratch_dir('container');
my $cluster = FollowPrimary::Cluster->new(nodes => 7, extension => 1, conf => {
    'follow_primary.verify_timeout' => '20s', 'follow_primary.stop_timeout' => '20s' });
my ($old, $new, $single, $stale, $starting, $stopping, $contained) = $cluster->nodes;
my @all = ($new, $single, $stale, $starting, $stopping, $contained);
$old->safe_psql('CREATE TABLE t AS SELECT 1 AS i');
$old->wait_for_catchup($_) for @all;
$old->kill9;
$new->promote;

sub set_pgdata
{
    my ($node, $value) = @_;
    $new->safe_psql('UPDATE follow_primary_node SET pgdata = ' . FollowPrimary::Node::quote($value) . " WHERE host = '@{[ $node->address ]}'");
    return;
}

# A stale lock file, whose pid another process has.
my $bystander = FollowPrimary::Process->start([ 'sleep', '300' ]);
my @lines = split /\n/, slurp($stale->pgdata . '/postmaster.pid');
$stale->kill9;
$lines[0] = $bystander->pid;
spew($stale->pgdata . '/postmaster.pid', join("\n", @lines) . "\n");
my $r = $new->make_follow($stale);
ok($r->{ok}, 'a stale lock file: the node is down, and skipped') or diag($r->{err});
like($r->{err}, qr/skipped: the node is down/, 'which is said');
$r = $new->make_follow($stale, when_down => 'rejoin');
ok($r->{ok}, 'a stale lock file: it is started over where that is asked for') or diag($r->{err});
ok($bystander->running, 'and the process that has the pid goes on');

# A single-user server.
$single->stop;
unlink map { $single->pgdata . "/$_" } $single->standby_files;
my $in = scratch_dir('single') . '/in';
run_ok([ 'mkfifo', $in ]);
my $at_work = FollowPrimary::Process->start([ 'sh', '-c', "exec @{[ $single->bin('postgres') ]} --single -D @{[ $single->pgdata ]} postgres <$in" ]);
open my $keep, '>', $in or die;    # it reads from there, for as long
wait_until('a single-user server is at work', sub { -e $single->pgdata . '/postmaster.pid' && slurp($single->pgdata . '/postmaster.pid') =~ /^-\d+/ });
for my $pgdata (undef, $single->pgdata)
{
    set_pgdata($single, $pgdata // $single->pgdata);
    for my $when ('skip', 'rejoin')
    {
        $r = $new->make_follow($single, when_down => $when);
        is($r->{sqlstate}, '55006', "single-user, $when: refused") or diag($r->{err});
        like($r->{message}, qr/at step plan: .*single-user/, "single-user, $when: for that reason, before anything is done");
        like("$r->{message} $r->{detail}", qr/process @{[ $at_work->pid ]}\b/, "single-user, $when: with its process");
    }
}
ok($at_work->running, 'it goes on');
close $keep;
$at_work->wait(20);

# A server that is starting: its recovery waits for WAL that a command is to bring.
my $gate = scratch_dir('gate');
$starting->stop;
$starting->append_conf("restore_command = 'while ! [ -e $gate/open ]; do sleep 0.1; done; false'\n");
my $start = FollowPrimary::Process->start([ $starting->bin('pg_ctl'), '-D', $starting->pgdata, '-W', '-l', $starting->host->dir . '/starting.start.log', 'start' ]);
wait_until('it starts', sub { -e $starting->pgdata . '/postmaster.pid' && slurp($starting->pgdata . '/postmaster.pid') =~ /starting/ });
set_pgdata($starting, undef);
my $plan = $new->safe_psql($new->follow_sql($starting, function => 'follow_primary_plan'));
unlike($plan, qr/^skip/, 'a server that starts is not down') or diag($plan);
like($plan, qr/starting|starts/, 'and that is said');
spew("$gate/open", '');
$starting->poll_query_until('SELECT true');
$r = $new->make_follow($starting);
ok($r->{ok}, 'when it is up it follows') or diag($r->{err});

# A server that is stopping: its checkpointer takes its time.
my $checkpointer = $stopping->safe_psql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'");
kill 'STOP', $checkpointer;
run_ok([ $stopping->bin('pg_ctl'), '-D', $stopping->pgdata, '-W', '-m', 'fast', 'stop' ]);
wait_until('it stops', sub { slurp($stopping->pgdata . '/postmaster.pid') =~ /stopping/ });
$plan = $new->safe_psql($new->follow_sql($stopping, function => 'follow_primary_plan'));
unlike($plan, qr/^skip/, 'a server that stops is not down yet') or diag($plan);
like($plan, qr/stopping|shut/, 'and that is said');
kill 'CONT', $checkpointer;
wait_until('it has stopped', sub { !$stopping->running });

$stopping->start;

# Its lock file is gone, and the server goes on for a while.
my ($postmaster) = split /\n/, slurp($stopping->pgdata . '/postmaster.pid');
rename $stopping->pgdata . '/postmaster.pid', $stopping->pgdata . '/gone.pid' or die;
set_pgdata($stopping, $stopping->pgdata);
for my $when ('skip', 'rejoin')
{
    $r = $new->make_follow($stopping, when_down => $when);
    is($r->{sqlstate}, '55006', "no lock file, $when: refused") or diag($r->{err});
    like($r->{message}, qr/at step plan: .*no postmaster\.pid: process $postmaster:/, "no lock file, $when: that is the reason");
    ok(process_alive($postmaster), "no lock file, $when: the server goes on");
}
set_pgdata($stopping, undef);
$r = $new->make_follow($stopping);
is($r->{sqlstate}, '55006', 'no lock file, pgdata not given: refused') or diag($r->{err});
like($r->{message}, qr/port @{[ $stopping->port ]} is in use by process $postmaster\b/, 'for somebody has the port');
rename $stopping->pgdata . '/gone.pid', $stopping->pgdata . '/postmaster.pid' or die;
set_pgdata($stopping, $stopping->pgdata);

# It was killed, and a child of it goes on.
my $orphan = $stopping->safe_psql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'");
kill 'STOP', $orphan;
kill 'KILL', $postmaster;
wait_until('the postmaster is gone', sub { !process_alive($postmaster) });
$r = $new->make_follow($stopping, when_down => 'rejoin');
is($r->{sqlstate}, '55006', 'a server whose child is left is not started over it') or diag($r->{err});
like("$r->{message} $r->{hint}", qr/at step plan: .*process $orphan:.*kill -QUIT .*\b$orphan\b/s, 'the child is named');
kill 'CONT', $orphan;
kill 'KILL', $orphan;
wait_until('the child is gone', sub { !process_alive($orphan) });
$r = $new->make_follow($stopping, when_down => 'rejoin');
ok($r->{ok}, 'when it is gone the node comes back') or diag($r->{err});

# Neither its SSH nor its PostgreSQL port answers: but it streams from this server.
$stale->set(listen_addresses => '');
$stale->restart;
my $its_slot = FollowPrimary::Node::quote($stale->slot_name);
$new->poll_query_until("SELECT active FROM pg_replication_slots WHERE slot_name = $its_slot") or die;
$stale->host->ssh_stop;
$r = $new->make_follow($stale);
is($r->{sqlstate}, '08001', 'a node that streams is not down, though neither port answers') or diag($r->{err});
like($r->{hint}, qr/not down: it streams .*\Q@{[ $stale->slot_name ]}\E/, 'which is said');
is($new->job('state'), 'failed', 'nor skipped');
$stale->stop;
$new->poll_query_until("SELECT NOT active FROM pg_replication_slots WHERE slot_name = $its_slot") or die;
$r = $new->make_follow($stale);
like($r->{err}, qr/skipped: the node is down/, 'when it streams no more, it is') or diag($r->{err});

# A container: the account that SSH lets in sees no process of the server.
SKIP:
{
    skip 'the kernel lets this account have no PID namespace', 18 if !$namespace;
    my $host = $contained->host;
    append_text($host->dir . '/sshd_config', "ForceCommand exec unshare --user --map-current-user --pid --fork --mount-proc --kill-child sh -c \"\$SSH_ORIGINAL_COMMAND\"\n");
    $host->ssh_stop;
    $host->ssh_start;
    for my $pgdata (undef, $contained->pgdata)
    {
        set_pgdata($contained, $pgdata);
        my $what = defined $pgdata ? 'pgdata given' : 'pgdata not given';
        for my $when ('skip', 'rejoin')
        {
            $r = $new->make_follow($contained, when_down => $when);
            is($r->{sqlstate}, '55006', "a server in another PID namespace, $what, $when: refused") or diag($r->{err});
            like("$r->{message} $r->{detail}", qr/port @{[ $contained->port ]}/, 'for somebody has the port');
            like($r->{hint}, qr/container|namespace/, 'and what that may be');
        }
    }
    ok($contained->running, 'the server goes on');
    is($contained->safe_psql('SELECT pg_is_in_recovery(), i FROM t'), 't|1', 'as a standby');

    # A port that leads into a network of its own: nobody is to be seen who listens.
    my $config = slurp($host->dir . '/sshd_config');
    spew($host->dir . '/sshd_config', $config =~ s/--pid/--net --pid/r);
    $host->ssh_stop;
    $host->ssh_start;
    set_pgdata($contained, undef);
    $r = $new->make_follow($contained);
    is($r->{sqlstate}, '55006', 'a port that is answered from elsewhere: refused') or diag($r->{err});
    like($r->{message}, qr/something answers at port @{[ $contained->port ]} /, 'for that reason');
    like($r->{hint}, qr/container/, 'and what that may be');

    # Down, and that is so.
    $contained->stop;
    $r = $new->make_follow($contained);
    ok($r->{ok}, 'when it is down nobody listens, and it is skipped') or diag($r->{err});

    # The other way: the server alone is in a namespace, whose pid another process may have here.
    spew($host->dir . '/sshd_config', $config =~ s/^ForceCommand.*\n//mr);
    $host->ssh_stop;
    $host->ssh_start;
    set_pgdata($contained, $contained->pgdata);
    my $inside = FollowPrimary::Process->start([ 'unshare', '--user', '--map-current-user', '--pid', '--fork', '--mount-proc', '--kill-child',
        $contained->bin('postgres'), '-D', $contained->pgdata ], out => $host->dir . '/inside.log');
    $contained->poll_query_until('SELECT true') or die slurp($host->dir . '/inside.log');
    is((split /\n/, slurp($contained->pgdata . '/postmaster.pid'))[0], 1, 'a server has pid 1 where it runs');
    $r = $new->make_follow($contained, when_down => 'rejoin');
    is($r->{sqlstate}, '55006', 'such a server is not down, nor started once more') or diag($r->{err});
    like("$r->{message} $r->{hint}", qr/PID namespace.*container/s, 'and that is said');
    $inside->stop;
}

done_testing();
