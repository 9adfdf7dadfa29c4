# A name server that never answers holds a job no longer than
# follow_primary.connect_timeout, and the job can be cancelled meanwhile; a name in
# /etc/hosts works. libc has limits of its own for a lookup, minutes with some
# settings, and reads only /etc/resolv.conf. So the test has its own mount and network
# namespaces, and a name server that only listens.

use IO::Socket::INET;
use Time::HiRes qw(time);

use FollowPrimary::Test;
use FollowPrimary::Mounts;

my $made = FollowPrimary::Mounts::enter(<<'END', network => 1);
printf 'nameserver 127.0.0.1\noptions timeout:30 attempts:5\n' >resolv.conf &&
printf '127.0.0.1 localhost\n127.0.0.77 known.invalid\n' >hosts &&
printf 'hosts: files dns\npasswd: files\ngroup: files\n' >nsswitch.conf &&
for f in resolv.conf hosts nsswitch.conf; do mount --bind "$f" "$(readlink -f "/etc/$f")" || exit 1; done &&
ip link set lo up &&
echo 0 >/proc/sys/net/ipv4/ip_unprivileged_port_start
END
plan(skip_all => 'namespaces cannot be made here (unshare, ip)') if !$made;

my $name_server = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 53, Proto => 'udp') or die "port 53: $!";

my $cluster = FollowPrimary::Cluster->new(nodes => 2, extension => 1);
my ($primary, $node) = $cluster->nodes;
my $connections = $primary->connstr;

# The caller looks the name up, and a worker does.
for my $call ([ 'a plan', 'SELECT * FROM follow_primary_plan' ], [ 'a job', 'SELECT follow_primary' ])
{
    my $start = time;
    my $r = $primary->try_sql("SET follow_primary.connect_timeout = 2; $call->[1]('nobody.example.com', when_down => 'rejoin')", timeout => 60);
    is($r->{sqlstate}, '08001', "$call->[0] gives up") or diag($r->{err});
    like($r->{message}, qr/could not resolve the host name: no answer in time/, 'it says at what');
    cmp_ok(time - $start, '<', 6, sprintf 'in time: %.1f s', time - $start);
}
my $start = time;
my $job = $primary->safe_psql("SET follow_primary.connect_timeout = 60; SELECT follow_primary('nobody.example.com', wait => false)");
$primary->poll_query_until("SELECT step FROM follow_primary_job WHERE id = $job", 'survey') or die;
ok($name_server->recv(my $question, 512), 'the name server was asked');
is($primary->safe_psql("SELECT follow_primary_cancel($job)"), 't', 'a job that waits for it is cancelled');
is($primary->safe_psql("SELECT follow_primary_wait($job, '10 s')"), 'cancelled', 'and ends');
cmp_ok(time - $start, '<', 10, 'at once');

# One session, whose earlier lookups may still be under way.
my $r = $primary->try_sql("SET follow_primary.connect_timeout = 1;
    DO \$\$ BEGIN FOR i IN 1 .. 3 LOOP BEGIN PERFORM follow_primary_plan('nobody' || i || '.example.com', when_down => 'rejoin');
        EXCEPTION WHEN sqlclient_unable_to_establish_sqlconnection THEN NULL; END; END LOOP; END \$\$;
    SELECT method FROM follow_primary_plan('@{[ $node->address ]}', @{[ $node->port ]})", timeout => 60);
is($r->{out}, 'none', 'a session goes on after lookups that it gave up') or diag($r->{err});
$r = $primary->try_sql("SELECT follow_primary_plan('known.invalid', when_down => 'rejoin')");
like($r->{message}, qr/127\.0\.0\.77: Connection refused/, 'a name of /etc/hosts is known') or diag($r->{err});

done_testing();
