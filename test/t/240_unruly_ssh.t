# The way to the node misbehaves. Nobody answers, or not as an SSH server does; sshd
# lets only one session in, or runs another command; a script floods its outputs, is
# killed or stands still, or its sshd does; the line is cut; a copy arrives damaged.
# Each has an error that tells the cause in time. The node is as it was, nothing goes
# on there, and the next call succeeds. Real processes of a real sshd are stopped and
# killed.

use IO::Socket::INET;
use FollowPrimary::Test;
use Time::HiRes qw(time);

my $cluster = FollowPrimary::Cluster->new(nodes => 2, extension => 1, conf => { 'follow_primary.connect_timeout' => 2 });
my ($primary, $node) = $cluster->nodes;
my $sshd = $node->host;
my $host = $node->address;
my $dir  = scratch_dir('unruly');
my $bin  = bindir();

# A folder of PostgreSQL's programs; one of them is this script.
my $folders = 0;
sub stand_in
{
    my ($program, $script) = @_;
    return bindir_with(scratch_dir('unruly_bin' . $folders++), $program, "$script\n");
}

sub row { my (%row) = @_; return $primary->set_row($node, %row) }

sub remote_processes
{
    my %command = our_commands(qr{^sleep 987654|^yes |^/bin/sh -s follow_primary $|pg_basebackup|pg_rewind});
    return map { "$_ $command{$_}" } keys %command;
}

sub state_of_node
{
    return $node->pid . $node->standby_setting('primary_conninfo') . join ' ', grep { !/\.log\z|\.lock\z/ } glob $node->pgdata . '*';
}

# fails() makes a call that must fail, works() one that must succeed. %case: row, with
# (arguments), meanwhile (a sub that runs beside the call), seconds (20), sqlstate,
# message, detail, hint.
my $expected_state = state_of_node();
sub fails
{
    my ($what, %case) = @_;
    my $row = $case{row} // {};
    row(%$row) if %$row;
    my $start = time;
    my $call = $primary->psql_start($primary->follow_sql($node, method => 'repoint', when_down => 'rejoin', %{ $case{with} // {} }),
        variables => { VERBOSITY => 'verbose' });
    $case{meanwhile}->() if $case{meanwhile};
    my $code = $call->wait($case{seconds} // 20);
    my $r = FollowPrimary::Node::result($code // -1, $call->out, $call->err);
    is($r->{sqlstate}, $case{sqlstate}, sprintf '%s: SQLSTATE, after %.1f s', $what, time - $start) or diag(substr $r->{err}, -2000);
    ok($r->{$_} =~ $case{$_}, $_) or diag(length $r->{$_}, ' bytes, ending in ', substr $r->{$_}, -1000) for grep { $case{$_} } qw(message detail hint);
    row(map { $_ => undef } keys %$row) if %$row;
    return $r if $case{then};
    ok(eval { wait_until('it ends', sub { !remote_processes() }, 10) }, 'nothing of it goes on there') or diag(remote_processes());
    is(state_of_node(), $expected_state, 'the node is as it was');
    return $r;
}

sub works
{
    my ($what, %arguments) = @_;
    my $r = $primary->make_follow($node, when_down => 'rejoin', %arguments);
    ok($r->{ok}, $what) or diag($r->{err});
    $expected_state = state_of_node();
    return;
}
works('a first call');

#
# Nobody answers, or nobody who speaks SSH
#
{
    kill 'STOP', $sshd->ssh_pid;
    fails('sshd accepts and is silent', sqlstate => '08001', message => qr/did not end within 2000 ms|within 2 s/, seconds => 8);
    kill 'CONT', $sshd->ssh_pid;

    for my $server (
        [ 'a server that says nothing', sub { sleep 20 }, '08001', qr/did not end within|within 2/ ],
        [ 'one that speaks HTTP', sub { syswrite $_[0], "HTTP/1.0 400 Bad Request\r\n\r\n"; sleep 20 }, '08001|08P01', qr/SSH/ ],
        [ 'one that goes on for ever', sub { 1 while syswrite $_[0], 'x' x 100 . "\r\n" }, '08001|08P01', qr/SSH/ ],
        [ 'one that breaks off', sub { syswrite $_[0], "SSH-2.0-OpenSSH_9.2\r\n"; sysread $_[0], my $hello, 100 }, '08P01', qr/SSH handshake/ ],
        [ 'one that sends garbage', sub { syswrite $_[0], "SSH-2.0-OpenSSH_9.2\r\n"; srand 1; syswrite $_[0], join '', map { chr int rand 256 } 1 .. 5000; sleep 20 }, '08001|08P01', qr/SSH/ ])
    {
        my ($what, $serve, $sqlstate, $message) = @$server;
        my $listener = IO::Socket::INET->new(LocalAddr => $host, LocalPort => 0, Listen => 5, Proto => 'tcp') or die;
        my $child = fork // die;
        if ($child == 0)
        {
            $SIG{$_} = 'DEFAULT' for qw(HUP INT TERM PIPE);
            while (my $client = $listener->accept) { $serve->($client); close $client }
            POSIX::_exit(0);
        }
        row(ssh_port => $listener->sockport);
        my $start = time;
        my $r = $primary->try_sql($primary->follow_sql($node, when_down => 'rejoin'), timeout => 30);
        like($r->{sqlstate}, qr/^(?:$sqlstate)$/, sprintf '%s, after %.1f s', $what, time - $start) or diag($r->{err});
        like($r->{message}, $message, 'message');
        cmp_ok(time - $start, '<', 8, 'in time');
        row(ssh_port => $sshd->ssh_port);
        kill 'KILL', $child;
        waitpid $child, 0;
    }
}

sub sshd_with
{
    my ($line) = @_;
    my $file = $sshd->dir . '/sshd_config';
    my $was  = slurp($file);
    my ($name) = split ' ', $line;
    spew($file, "$line\n" . $was =~ s/^$name .*\n//mr);
    $sshd->ssh_stop;
    $sshd->ssh_start;
    return sub { spew($file, $was); $sshd->ssh_stop; $sshd->ssh_start };
}
my $restore = sshd_with('MaxSessions 1');
fails('only one session is let in', sqlstate => '08006', message => qr/could not open a channel/, hint => qr/MaxSessions/);
$restore->();
# It looks the same when the server takes its time to end the only session.
$restore = sshd_with('MaxSessions 0');
fails('no session is let in', sqlstate => '08006', message => qr/could not open a channel/, hint => qr/MaxSessions/);
$restore->();
$restore = sshd_with('ForceCommand echo This account is closed.; echo Go away. >&2; exit 7');
fails('another command is run', sqlstate => '08006', message => qr/outcome of the script "survey" is not known/,
    detail => qr/The shell ended with status 7 before the script did. Its last messages: Go away\./);
$restore->();

#
# Floods
#
my $reload = "$bin/pg_ctl -D %D reload";
row(node_reload_command => "yes this is no news | head -c 6000000 >&2; $reload");
works('6 MB on stderr are no harm', method => 'repoint');
row(node_reload_command => undef);
my $r = fails('a command fails after 6 MB on stderr', sqlstate => 'F0000', detail => qr/the last words/,
    row => { node_reload_command => "if ! [ -e $dir/once ]; then touch $dir/once; yes this is no news | head -c 6000000 >&2; echo the last words >&2; exit 1; fi; $reload" });
cmp_ok(length $r->{detail}, '<', 8192, 'and tells only the end of it');
fails('18 MB on stdout', sqlstate => '08006', message => qr/outcome of the script "survey" is not known/, detail => qr/more than 16 MB/,
    row => { node_bin_dir => stand_in('pg_controldata', "case \$1 in -V) exec $bin/pg_controldata -V ;; esac\nhead -c 18000000 /dev/zero | tr '\\0' x") });

#
# Signals
#
sub sessions_of_sshd
{
    my %child_of_sshd;
    for my $pid (process_tree($sshd->ssh_pid))
    {
        my $command = eval { slurp("/proc/$pid/cmdline") } // next;
        $command =~ tr/\0/ /;
        my ($parent) = slurp("/proc/$pid/stat") =~ /.*\) \S (\d+)/s;
        $child_of_sshd{$pid} = $parent if $command =~ m{^/bin/sh -s follow_primary $} && slurp("/proc/$parent/comm") =~ /^sshd/;
    }
    return %child_of_sshd;
}
sub remote_sleep { return grep { /sleep 987654/ } remote_processes() }
fails('a script is killed', sqlstate => '08006', message => qr/outcome of the script "repoint" is not known/, detail => qr/It was ended by signal KILL/,
    row => { node_reload_command => "[ -e $dir/killed ] || sleep 987654; $reload" },
    meanwhile => sub {
        wait_until('it runs', sub { remote_sleep() });
        spew("$dir/killed", '');
        # The session that holds the lock lives on.
        my %session = sessions_of_sshd();
        my ($sleep) = map { /^(\d+)/ } remote_sleep();
        kill 'KILL', grep { grep { $_ == $sleep } process_tree($_) } keys %session;
    });
works('the next call works', method => 'repoint');
my $sleeping = stand_in('pg_controldata', "case \$1 in -V) exec $bin/pg_controldata -V ;; esac\nexec sleep 987654");
fails('the line is cut', sqlstate => '08006', message => qr/outcome of the script "survey" is not known/,
    detail => qr/The connection was lost: the SSH connection was closed or cut from outside/,
    row => { node_bin_dir => $sleeping },
    meanwhile => sub {
        wait_until('it runs', sub { remote_sleep() });
        $sshd->ssh_cut;
    });
works('the next call works', method => 'repoint');

# A control file that cannot be read may be of any cluster.
fails('pg_controldata tells nothing', sqlstate => '55000', message => qr/a repoint is not possible: the node's control file cannot be read/,
    row => { node_bin_dir => stand_in('pg_controldata', "case \$1 in -V) exec $bin/pg_controldata -V ;; esac\nexit 1") });

# A plan holds no snapshot while it waits for the node.
row(node_bin_dir => $sleeping);
my $plan = $primary->psql_start($primary->follow_sql($node, function => 'follow_primary_plan'));
wait_until('a plan is in the middle of its look at the node', sub { remote_sleep() }, 20);
ok($primary->poll_query_until(q{SELECT backend_xmin IS NULL FROM pg_stat_activity WHERE query LIKE '%follow_primary_plan(%' AND state = 'active'
    AND pid <> pg_backend_pid()}, 't', 5), 'and holds no snapshot') or diag($plan->err);
kill 'KILL', map { /^(\d+)/ } remote_sleep();
row(node_bin_dir => undef);
$plan->wait(30);
like($primary->safe_psql('SELECT reason, method FROM follow_primary_plan(' . quote($host) . ', ' . $node->port . ') WHERE method <> \'\''),
    qr/^the node .*\|\w+$/, 'what the query does with its result has one again');

#
# Damage; before 13 no manifest would show it
#
if (pg_major() >= 13)
{
    fails('a copy is damaged', sqlstate => 'XX001', message => qr/the copy does not verify/, detail => qr{global/pg_filenode\.map},
        hint => qr/data is as it was before the copy/, with => { method => 'basebackup' },
        row => { node_bin_dir => stand_in('pg_basebackup',
            "$bin/pg_basebackup \"\$@\" && printf X | dd of=\"\$2/global/pg_filenode.map\" bs=1 seek=100 conv=notrunc") });
    works('the next call copies', method => 'basebackup');
}

#
# Standstill
#
fails('pg_basebackup stands still', sqlstate => '58000', message => qr/the script "basebackup" was ended: the command made no progress for 2000 ms/,
    hint => qr/progress_timeout/, with => { method => 'basebackup' },
    row => { progress_timeout => 2, node_bin_dir => stand_in('pg_basebackup', "kill -STOP \$\$\nexec $bin/pg_basebackup \"\$@\"") });
works('the next call copies', method => 'basebackup');

my @stopped;
fails('sshd stands still', sqlstate => '58000', message => qr/the script "basebackup" was ended: the command made no progress for 2000 ms/,
    with => { method => 'basebackup' }, then => 1,
    row => { progress_timeout => 2, node_bin_dir => stand_in('pg_basebackup', 'sleep 987654') },
    meanwhile => sub {
        wait_until('it runs', sub { remote_sleep() });
        my %session = sessions_of_sshd();
        kill 'STOP', values %session;
        push @stopped, values %session;
    });
$r = $primary->make_follow($node, method => 'basebackup');
is($r->{sqlstate}, '55006', 'what was begun there may go on: the node stays locked') or diag($r->{err});
kill 'CONT', @stopped;
ok(eval { wait_until('it ends', sub { !remote_processes() }, 10) }, 'until sshd goes on, which ends it all') or diag(remote_processes());
works('the next call copies', method => 'basebackup');

# The rewind comes last, for it stops the node.
$node->promote;
$node->safe_psql('CREATE TABLE stray (i int)');
$node->kill9;
$r = fails('pg_rewind stands still', sqlstate => '58000', message => qr/the script "rewind" was ended: the command made no progress for 2000 ms/,
    with => { method => 'rewind' }, then => 1,
    row => { progress_timeout => 2, node_bin_dir => stand_in('pg_rewind', "kill -STOP \$\$\nexec $bin/pg_rewind \"\$@\"") });
ok(eval { wait_until('it ends', sub { !remote_processes() }, 10) }, 'nothing of it goes on there') or diag(remote_processes());
works('nothing had been changed, and the next call rewinds it', method => 'rewind');
is($node->safe_psql("SELECT to_regclass('stray') IS NULL, pg_is_in_recovery()"), 't|t', 'rightly');

done_testing();
