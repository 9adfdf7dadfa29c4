# After a broken line the WAL sender of the node may live on here, for as long as
# wal_sender_timeout says, and have the node's slot. It is the node's own, is told
# from another server's, and is ended. A forwarder between the two servers, which
# keeps one half of the connection and drops the other, stands in for the network.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 3, extension => 1, conf => {
    wal_sender_timeout => 0, 'follow_primary.verify_timeout' => '20s' });
my ($primary, $node, $other) = $cluster->nodes;

# Some pg_receivewal, as of 15.18, does not quote the name of a slot: one that begins with a digit is
# a syntax error then.
my $slot = 'of_node';
$primary->set_row($node, slot_name => $slot);
$primary->safe_psql("SELECT pg_create_physical_replication_slot('$slot')");

# Between the node, whose address it has, and the primary. On USR1 it keeps the
# primary's ends, and drops the node's with the listener.
my $port = free_port($node->address);
my $dir = scratch_dir('forwarder');
sub forward
{
    my ($from) = @_;
    spew("$dir/forward.pl", <<'END');
use IO::Socket::INET;
use IO::Select;
my ($listen, $port, $to, $to_port, $from) = @ARGV;
my $socket = IO::Socket::INET->new(LocalAddr => $listen, LocalPort => $port, Listen => 20, ReuseAddr => 1) or die $@;
my ($cut, %peer, %up) = (0);
$SIG{USR1} = sub { $cut = 1 };
my $select = IO::Select->new($socket);
while (1)
{
    for my $s ($select->can_read(0.1))
    {
        if ($s == $socket)
        {
            my $client = $socket->accept or next;
            my $server = IO::Socket::INET->new(PeerAddr => $to, PeerPort => $to_port, LocalAddr => $from) or do { close $client; next };
            @peer{$client, $server} = ($server, $client);
            $up{$server} = $server;
            $select->add($client, $server);
        }
        elsif (!sysread($s, my $bytes, 65536)) { $select->remove($s, $peer{$s}); close $peer{$s}; close $s }
        else { syswrite($peer{$s}, $bytes) }
    }
    next if !$cut;
    $select->remove($socket);
    close $socket;
    for my $server (values %up) { $select->remove($server, $peer{$server}) ; close $peer{$server} }
    sleep 1 while 1;
}
END
    my $process = FollowPrimary::Process->start([ $^X, "$dir/forward.pl", $node->address, $port, $primary->address, $primary->port, $from ], out => "$dir/log");
    wait_until('the forwarder listens', sub { IO::Socket::IP->new(PeerAddr => $node->address, PeerPort => $port) });
    return $process;
}

sub sender { return $primary->safe_psql("SELECT active_pid FROM pg_replication_slots WHERE slot_name = '$slot'") }

# The node streams by way of the forwarder, whose connections come from $from; then
# the line is cut.
sub cut_line
{
    my ($from, %conninfo) = @_;
    my $forwarder = forward($from);
    my $name = exists $conninfo{application_name} ? $conninfo{application_name} : $node->name;
    $node->set_standby(primary_slot_name => $slot, primary_conninfo => "host=@{[ $node->address ]} port=$port user=repl passfile="
        . $cluster->passfile . ($name ne '' ? " application_name=$name" : ''));
    $primary->poll_query_until("SELECT host(client_addr) FROM pg_stat_replication r JOIN pg_replication_slots s ON s.active_pid = r.pid WHERE s.slot_name = '$slot'", $from)
        or die $node->log_tail(20) . slurp("$dir/log");
    $node->poll_query_until("SELECT status FROM pg_stat_wal_receiver", 'streaming');
    my $sender = sender();
    $forwarder->signal('USR1');
    $node->poll_query_until('SELECT count(*) FROM pg_stat_wal_receiver', 0) or die;
    $primary->safe_psql('CREATE TABLE IF NOT EXISTS t (i int); INSERT INTO t VALUES (1)');
    is(sender(), $sender, "from $from: the line is cut, and the primary's WAL sender lives");
    return ($forwarder, $sender);
}

sub slot_step { return $primary->safe_psql(q{SELECT detail FROM follow_primary_step WHERE step = 'slot' ORDER BY job_id DESC LIMIT 1}) }

# Its application_name, and no name at all: then its cluster_name is what it is known by.
for my $name ($node->name, '')
{
    my ($forwarder, $sender) = cut_line($node->address, application_name => $name);
    my $r = $primary->make_follow($node);
    ok($r->{ok}, "name '$name': a slot that the node's own dead WAL sender has is no obstacle") or diag($r->{err});
    isnt(sender(), $sender, 'its sender is another now');
    ok(!process_alive($sender), 'and the dead one has ended');
    like(slot_step(), qr/process $sender\b/, 'the step tells of it');
    $primary->wait_for_catchup($node);
    $forwarder->stop;
}

# From another address, as by NAT, or another server's in truth: not the node's, as far as is known.
my ($forwarder, $sender) = cut_line($other->address);
my $r = $primary->make_follow($node);
is($r->{sqlstate}, '55006', 'a sender whose client has another address is not taken for the node\'s') or diag($r->{err});
like($r->{detail} . $r->{message}, qr/\Q@{[ $other->address ]}\E, process $sender\b/, 'the error has its process and its address');
like($r->{detail} . $r->{message}, qr/"\Q@{[ $node->name ]}\E"/, 'and its application_name');
like($r->{hint}, qr/SELECT pg_terminate_backend\($sender\)/, 'and the hint what ends it');
is(sender(), $sender, 'it was left alone');
$primary->safe_psql("SELECT pg_terminate_backend($sender)");
$r = $primary->make_follow($node);
ok($r->{ok}, 'which makes the next call succeed') or diag($r->{err});
$forwarder->stop;

# Another server that lives, with the node's name and address: it answers, and goes on.
$node->set_standby(primary_slot_name => '');
$node->wait_for_streaming($primary);
$primary->poll_query_until("SELECT active FROM pg_replication_slots WHERE slot_name = '$slot'", 'f') or die;
$forwarder = forward($node->address);
my $impostor = FollowPrimary::Process->start([ $other->bin('pg_receivewal'), '-D', scratch_dir('impostor'), '-w', '-S', $slot, '--synchronous',
    '-d', 'host=' . $node->address . " port=$port user=repl application_name=" . $node->name ], env => { PGPASSFILE => $cluster->passfile });
wait_until('another client has the slot', sub { sender() ne '' });
$sender = sender();
$r = $primary->make_follow($node);
is($r->{sqlstate}, '55006', 'a client that answers is another server\'s, whatever its name') or diag($r->{err});
like($r->{detail} . $r->{message}, qr/process $sender\b/, 'it is named');
is(sender(), $sender, 'and goes on');
$impostor->stop;
$r = $primary->make_follow($node);
ok($r->{ok}, 'when it is gone the node has its slot') or diag($r->{err});

done_testing();
