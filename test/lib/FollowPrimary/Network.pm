package FollowPrimary::Network;

# A network that loses packets, for an ordinary account: a real packet filter in
# a network namespace of the test's own.
#
#   FollowPrimary::Mounts::enter(FollowPrimary::Network::FILTER, network => 1) or plan(skip_all => ...);
#   FollowPrimary::Network::lose_address('127.0.0.12');    # from now on
#   FollowPrimary::Network::pass_address('127.0.0.12');
#
# Only the root of that namespace may change its rules, and the test is an ordinary
# account in it.  So datagrams to ports of their own tell the filter itself whose
# TCP packets it loses: those from and to an IPv4 address, or a port of 127.0.0.1.

use strict;
use warnings;

use IO::Socket::INET;

use constant FILTER => <<'END';
export PATH="$PATH:/usr/sbin:/sbin" && ip link set lo up && nft 'table ip lossy {
    set ports { type inet_service; size 64; flags dynamic; }
    set addresses { type ipv4_addr; size 64; flags dynamic; }
    chain input {
        type filter hook input priority 0;
        udp dport 9 add @ports { udp sport } drop
        udp dport 10 delete @ports { udp sport } drop
        udp dport 11 add @addresses { ip daddr } drop
        udp dport 12 delete @addresses { ip daddr } drop
        tcp sport @ports drop
        tcp dport @ports drop
        ip protocol tcp ip saddr @addresses drop
        ip protocol tcp ip daddr @addresses drop
    }
}'
END

sub lose_port    { return _tell('127.0.0.1', $_[0], 9) }
sub pass_port    { return _tell('127.0.0.1', $_[0], 10) }
sub lose_address { return _tell($_[0], 0, 11) }
sub pass_address { return _tell($_[0], 0, 12) }

sub _tell
{
    my ($address, $from_port, $to_port) = @_;
    my $socket = IO::Socket::INET->new(Proto => 'udp', LocalAddr => '127.0.0.1', LocalPort => $from_port, PeerAddr => $address, PeerPort => $to_port)
        or die "no socket for port $from_port: $!";
    $socket->send('x') or die "send: $!";
    return;
}

1;
