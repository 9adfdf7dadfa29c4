# A service manager runs the servers, as systemd does: it is the postmaster's parent.
# It refuses to start what it believes to run, and to stop what it does not believe to
# run. A postmaster that a job starts past it is out of its care: the next "systemctl
# stop" does not see it, and nobody ends it at shutdown. So after every job, also one
# that fails and undoes its work, the postmaster is the manager's child. Only
# processes have parents.

use FollowPrimary::Test;

my $manager = scratch_dir('manager');
my $program = $INC{'FollowPrimary/Test.pm'} =~ s{[^/]*/[^/]*\z}{service-manager}r;
$program = run_ok([ 'readlink', '-f', $program ], cwd => POSIX::getcwd());
chomp $program;

# %D must take any name of a data directory.
my $cluster = FollowPrimary::Cluster->new(nodes => 3, extension => 1, hold => 1,
    node => sub { my ($host) = @_; return (pgdata => $host->dir . q{/the server's "data" & $HOME}) },
    conf => { autovacuum => 'off', bgwriter_delay => '10ms', checkpoint_timeout => '1h', 'follow_primary.verify_timeout' => '2s' });
my ($old, $new, $sibling) = $cluster->nodes;

sub unit { my ($node) = @_; return 'postgresql@' . $node->name }
sub ask { my (@words) = @_; return run_command([ $program, $manager, @words ]) }
sub asked { my $text = -e "$manager/commands" ? slurp("$manager/commands") : ''; unlink "$manager/commands"; return $text }
sub state_of { my ($node) = @_; chomp(my $state = slurp("$manager/" . unit($node) . '.state')); return $state }

# The manager takes the nodes over.
my $daemon = FollowPrimary::Process->start([ $program, $manager, 'serve' ], out => "$manager/daemon.log");
wait_until('the service manager answers', sub { -S "$manager/socket" });
for my $node ($old, $sibling)
{
    spew("$manager/" . unit($node) . '.conf', join "\n", $node->bin('postgres'), '-D', $node->pgdata);
    $node->stop;
    my ($code, undef, $err) = ask('start', unit($node));
    is($code, 0, $node->name . ' is run by the service manager') or diag($err);
    my $unit = unit($node);
    my %command = map { ("node_${_}_command" => "$program $manager --no-block $_ $unit %D %p 100%%") } qw(start stop reload);
    $old->set_row($node, %command, start_timeout => 20);
}

sub in_care
{
    my ($node, $what) = @_;
    my $pid = $node->pid // 'none';
    is(state_of($node), "active $pid", "$what: the service manager knows the server that runs");
    my ($parent) = slurp("/proc/$pid/stat") =~ /.*\) \S (\d+)/s;
    is($parent, $daemon->pid, "$what: it is its parent");
    return;
}

sub follows
{
    my ($node, $method, $what) = @_;
    is($new->job('method, state'), "$method|succeeded", "$what: $method");
    has_rows_of($new, $node, $what);
    in_care($node, $what);
    return;
}

$old->safe_psql('CREATE TABLE t AS SELECT generate_series(1, 1000) AS i');
# The sibling would receive what the former primary logs by itself after the fork, and
# would need a rewind.
$old->wait_until_quiet;
$old->wait_for_catchup($_) for $new, $sibling;
$new->promote;
asked();

# What a command is told after the words of the setting.
sub told { my ($node, $verb) = @_; return join('|', $verb, unit($node), $node->pgdata, $node->port, '100%') . "\n" }

# 1. The primary refuses a repoint by reload, and one by restart, when the job has
# found that it would not: the job takes both back through the manager.
my $let_in;
my $shut_out = sub { $let_in = $new->shut_out('repl') };
my $r = $new->make_follow_held($sibling, 'slot', $shut_out);
is($r->{sqlstate}, '55000', 'a repoint that the primary refuses fails') or diag($r->{err});
my @how = reloads('primary_conninfo') ? ('reload') : ('stop', 'start');
is(asked(), join('', map { told($sibling, $_) } @how, @how), 'the manager was asked to reload, and again to take it back');
in_care($sibling, 'after a repoint was taken back');
$let_in->();

$sibling->write_standby(recovery_target_timeline => 'current');
ask('stop', unit($sibling));
ask('start', unit($sibling));
asked();
$r = $new->make_follow_held($sibling, 'slot', $shut_out);
is($r->{sqlstate}, '55000', 'so does one that needs a restart') or diag($r->{err});
# What is taken back is reloaded where it can be: the rest waits for the next start.
is(asked(), join('', map { told($sibling, $_) } qw(stop start), reloads('primary_conninfo') ? 'reload' : qw(stop start)),
    'the manager was asked to restart, and again to take it back');
in_care($sibling, 'after a repoint by restart was taken back');
ask('stop', unit($sibling));
ask('start', unit($sibling));
asked();
is($sibling->standby_setting('recovery_target_timeline'), 'current', 'with the former settings');
$let_in->();

# 2. Now the repoint succeeds.
makes_follow($new, $sibling, 'the sibling follows');
follows($sibling, 'repoint', 'restart');
is(asked(), join('', map { told($sibling, $_) } qw(stop start)), 'restart: by the manager');

# 3. A server that still runs as a primary is stopped and rewound.
$old->safe_psql('INSERT INTO t VALUES (7777)');
makes_follow($new, $old, 'the former primary follows');
follows($old, 'rewind', 'former primary');
is(asked(), join('', map { told($old, $_) } qw(stop start)), 'former primary: by the manager');

# 4. A copy of a running standby.
makes_follow($new, $sibling, 'the sibling gets a copy', method => 'basebackup');
follows($sibling, 'basebackup', 'copy');

# 5. A rewind fails before it changes anything: the job starts the standby again.
my $bin = scratch_dir('bin');
bindir_with($bin, 'pg_rewind', "echo 'pg_rewind: error: no such luck' >&2\nexit 1\n");
$new->set_row($sibling, node_bin_dir => $bin);
asked();
$r = $new->make_follow($sibling, method => 'rewind');
is($r->{sqlstate}, '38000', 'a pg_rewind that fails is an error') or diag($r->{err});
like($r->{detail}, qr/no such luck/, 'with its words');
is(asked(), join('', map { told($sibling, $_) } qw(stop start)), 'the standby is started again by the manager');
in_care($sibling, 'after a rewind that failed');
$new->set_row($sibling, node_bin_dir => undef);

# 6. A crashed server, which the manager has seen fail. Its start fails, too: what the
# server logged tells why, or else what the manager says.
$new->safe_psql("UPDATE follow_primary_node SET node_start_command = replace(node_start_command, '--no-block', '') WHERE host = '@{[ $old->address ]}'");
my $file = spew(scratch_dir('logs') . '/no folder', '');
my $long = scratch_dir('sockets') . '/' . 'x' x 110;
mkdir $long or die;
for my $fault ([ unix_socket_directories => $long, qr/FATAL: .*could not create any Unix-domain sockets/ ],
    [ log_directory => $file, qr/failed with exit code 1/ ])
{
    my ($name, $value, $words) = @$fault;
    if ($name eq 'unix_socket_directories')
    {
        $old->kill9;
        wait_until('the manager has seen it fail', sub { state_of($old) eq 'failed' });
    }
    else
    {
        ask('stop', unit($old));
    }
    $old->append_conf("$name = '$value'\n");
    $r = $new->make_follow($old, when_down => 'rejoin');
    is($r->{sqlstate}, '55000', "$name: a start that fails is an error") or diag($r->{err});
    like($r->{detail}, $words, "$name: the detail has the reason");
    like($r->{detail}, qr/^Job for \S+ failed\. See "journalctl -xeu/m, "$name: and what the manager says");
    ok(!$old->running, "$name: nothing runs there");
    is(state_of($old), 'failed', "$name: nor does the manager believe so");

    my $conf = slurp($old->pgdata . '/postgresql.conf');
    $conf =~ s/^$name = '\Q$value\E'\n//m;
    spew($old->pgdata . '/postgresql.conf', $conf);
    makes_follow($new, $old, "$name: once the cause is gone the next call succeeds", when_down => 'rejoin');
    in_care($old, $name);
}

# 7. Somebody started a server past the manager: the job cannot stop it by the
# manager, and says so; it starts no second one.
ask('stop', unit($old));
$old->start;
my $pid = $old->pid;
$r = $new->make_follow($old, method => 'rewind');
is($r->{sqlstate}, '38000', 'a server past the manager cannot be stopped by it') or diag($r->{err});
like($r->{detail}, qr/Unit \S+ is not active/, 'the manager says why');
is($old->pid, $pid, 'the server runs on');

done_testing();
