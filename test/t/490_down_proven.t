# A node is down when that is proven, not when its server is not found: the server
# of a port is found by the sockets that it listens on, whatever its
# listen_addresses say, and while anything listens there the node is not down.
# Postmasters, their lock files and sockets are what is looked at: so real ones.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 9, extension => 1, conf => {
    'follow_primary.verify_timeout' => '20s', max_replication_slots => 20, max_wal_senders => 20 });
my ($old, $new, $two, $named, $unix, $dot, $relative, $any, $six) = $cluster->nodes;
$new->safe_psql('SELECT 1');
my %listen = (
    two => [ $two, '127.0.0.1,' . $two->address ],
    # the resolver's other spelling of its address
    named => [ $named, $named->address =~ s/^127\.0\.0\./127./r ],
    unix => [ $unix, '' ],
    any => [ $any, undef ],
    six => [ $six, '::1' ]);
my @ready = ($new, $two, $named, $unix, $dot, $relative, $any, $six);

$old->safe_psql('CREATE TABLE t AS SELECT 1 AS i; UPDATE follow_primary_node SET pgdata = NULL');
$old->wait_for_catchup($_) for @ready;

for my $case (sort keys %listen)
{
    my ($node, $addresses) = @{ $listen{$case} };
    next if !defined $addresses;
    $node->set(listen_addresses => $addresses);
    $node->restart;
}
$dot->set(unix_socket_directories => '.');
mkdir $relative->pgdata . '/sock', 0700;
$relative->set(unix_socket_directories => 'sock', listen_addresses => $relative->address);
$_->restart for $dot, $relative;
is((split /\n/, slurp($two->pgdata . '/postmaster.pid'))[5], '127.0.0.1', 'the lock file has the first address alone');
is((split /\n/, slurp($dot->pgdata . '/postmaster.pid'))[4], '.', 'and a folder as it was given');
wait_until('all stream', sub { $old->safe_psql(q{SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'}) == 8 });
$old->kill9;
$new->promote;

sub follows
{
    my ($what, $node, %expected) = @_;
    my $r = $new->make_follow($node);
    ok($r->{ok}, "$what: the node follows") or diag($r->{err});
    unlike($r->{err}, qr/skipped/, "$what: it is not skipped");
    is($new->job('method, state, node_pgdata'), ($expected{method} // 'repoint') . '|succeeded|' . $node->pgdata,
        "$what: it is the right server, which was not stopped");
    return;
}
follows('two addresses', $two);
follows('a name', $named);
follows("sockets in '.'", $dot);
follows("sockets in 'sock'", $relative);

# Two servers that have the port on no address but the loopback: which one is meant?
my $r = $new->make_follow($unix);
is($r->{sqlstate}, '22023', 'of two servers that could be the node none is chosen') or diag($r->{err});
like("$r->{message} $r->{detail}", qr/\Q@{[ $_->pgdata ]}\E/, 'both are named') for $unix, $six;
like($r->{hint}, qr/node_pgdata/, 'and what tells them apart');
$six->stop;
follows('no address', $unix);
$unix->stop;
$six->start;
follows('IPv6 alone', $six);
$six->stop;

# Down, and that is so: other servers have the port on addresses of their own.
$any->stop;
$r = $new->make_follow($any);
ok($r->{ok}, 'a node that is down is skipped') or diag($r->{err});
like($r->{err}, qr/skipped: the node is down/, 'which is said');
unlike($r->{err}, qr{timeline 0|0/0\b}, 'without a timeline that there is not');
is($new->safe_psql(q{SELECT count(*) FROM follow_primary_step WHERE detail ~ 'timeline 0|0/0( |$)'}), 0, 'nor in the record');

# A pooler has its port; hidden as another user's, whom nobody may look into, it says that it is not to be dumped.
my $pooler_pl = scratch_dir('pooler') . '/pooler.pl';
spew($pooler_pl, <<'END');
use IO::Socket::IP;
use POSIX ();
my ($address, $port, $hidden) = @ARGV;
my %prctl = (x86_64 => 157, aarch64 => 167);
!$hidden || syscall($prctl{ (POSIX::uname())[4] } // die('unknown machine'), 4, 0, 0, 0, 0) == 0 or die;
my $socket = IO::Socket::IP->new(LocalAddr => $address, LocalPort => $port, Listen => 5, ReuseAddr => 1) or die $@;
$0 = 'mybouncer';
while (my $client = $socket->accept) { close $client }
END

sub pooler
{
    my ($address, $port, $hidden) = @_;
    my $process = FollowPrimary::Process->start([ $^X, $pooler_pl, $address, $port, $hidden // 0 ]);
    wait_until('the pooler listens', sub { IO::Socket::IP->new(PeerAddr => $address, PeerPort => $port) });
    return $process;
}
my $pooler = pooler($any->address, $any->port);
for my $pgdata (undef, $any->pgdata)
{
    for my $when ('skip', 'rejoin')
    {
        my $what = "a pooler has the port, pgdata @{[ defined $pgdata ? 'given' : 'not given' ]}, $when";
        $r = $new->make_follow($any, when_down => $when, node_pgdata => $pgdata);
        is($r->{sqlstate}, '55006', "$what: refused") or diag($r->{err});
        like("$r->{message} $r->{detail}", qr/port @{[ $any->port ]}/, "$what: with the port");
        like("$r->{message} $r->{detail}", qr/process @{[ $pooler->pid ]}\b/, "$what: and who has it");
        like($r->{hint}, qr/node_port/, "$what: and what to do");
        ok(!$any->running, "$what: nothing was started");
    }
}
my $where = sprintf "node = '%s:%d'", $any->address, $any->port;
like($new->safe_psql("SELECT status, message, hint FROM follow_primary_check() WHERE item = 'data_directory' AND $where"),
    qr/^error\|the node's port \d+ is in use by process @{[ $pooler->pid ]} .*\|.*node_port/, 'the check says the same');
like($new->safe_psql("SELECT state, message FROM follow_primary_all() WHERE node_host = '@{[ $any->address ]}'"),
    qr/^failed\|.*port \d+ is in use by process @{[ $pooler->pid ]}\b/, 'and so does the call for all nodes');
$pooler->stop;

# The server is elsewhere: a wrong port.
my $other_port = free_port($any->address);
$any->set(port => $other_port);
$any->start;
$r = $new->make_follow($any);
is($r->{sqlstate}, '22023', 'a port that no server has, where the node\'s server has another, is refused') or diag($r->{err});
like("$r->{message} $r->{detail}", qr/\Q@{[ $any->pgdata ]}\E.*$other_port/s, 'with the data directory and port of the server that is there');
like($r->{hint}, qr/node_port/, 'and what to correct');
$pooler = pooler($any->address, $any->port);
$r = $new->make_follow($any);
is($r->{sqlstate}, '55006', 'the same where a pooler has the port that was given') or diag($r->{err});
like("$r->{message} $r->{detail}", qr/\Q@{[ $any->pgdata ]}\E.*$other_port/s, 'with the server that is behind it');
$pooler->stop;

# Given the data directory: the port is wrong all the same.
$r = $new->make_follow($any, node_pgdata => $any->pgdata);
is($r->{sqlstate}, '22023', 'with node_pgdata the port is known to be wrong, too') or diag($r->{err});
like("$r->{message} $r->{detail}", qr/$other_port/, 'and which is right');
my $port = $any->{port};
$new->safe_psql("UPDATE follow_primary_node SET port = $other_port WHERE host = '@{[ $any->address ]}'");
$any->{port} = $other_port;
follows('the right port', $any);

# A process that listens there, and that we may not look into, as the server of another user.
$any->stop;
my $hidden = pooler($any->address, $any->port, 1);
$r = $new->make_follow($any);
is($r->{sqlstate}, '55006', 'a port that somebody has, who is not to be seen, is not taken for none') or diag($r->{err});
like("$r->{message} $r->{detail}", qr/port $other_port/, 'the port is named');
like("$r->{message} $r->{detail}", qr/user @{[ scalar getpwuid $> ]}/, 'and whose socket it is');
like($r->{hint}, qr/ssh_user.*node_pgdata/, 'and what to do');
$hidden->stop;

# The port in the settings is not the one that the server has.
my $port_given = free_port($any->address);
run_ok([ $any->bin('pg_ctl'), '-D', $any->pgdata, '-w', '-l', $any->host->dir . '/given.log', '-o', "-p $port_given", 'start' ]);
$new->safe_psql("UPDATE follow_primary_node SET port = $port_given WHERE host = '@{[ $any->address ]}'");
$any->{port} = $port_given;
follows('a port of the command line', $any, method => 'none');

done_testing();
