# A primary's name that has several addresses, one of which swallows what is sent
# there: the node tries the next one after seconds, not after the two minutes that
# TCP takes. libpq's connect_timeout does nothing in a WAL receiver, so only a real
# one, and packets that are really dropped, show it.

use Time::HiRes qw(time);

use FollowPrimary::Test;
use FollowPrimary::Mounts;

my $made = FollowPrimary::Mounts::enter(<<'END', network => 1);
for n in $(seq 11 254); do echo "127.0.0.$n many.example"; done >many &&
{ echo '127.0.0.1 localhost'; echo '127.9.9.9 many.example'; } >hosts &&
printf 'hosts: files\npasswd: files\ngroup: files\n' >nsswitch.conf &&
for f in hosts nsswitch.conf; do mount --bind "$f" "$(readlink -f "/etc/$f")" || exit 1; done &&
ip link set lo up &&
nft add table ip t && nft add chain ip t in '{ type filter hook input priority 0; }' &&
nft add rule ip t in ip daddr 127.9.9.9 drop
END
plan(skip_all => 'namespaces cannot be made here (unshare, ip, nft)') if !$made;

my $cluster = FollowPrimary::Cluster->new(nodes => 3, extension => 1, conf => { 'follow_primary.connect_timeout' => '2s' });
my ($old, $new, $sibling) = $cluster->nodes;
append_text('/etc/hosts', $new->address . " many.example\n");
$old->safe_psql('CREATE TABLE t AS SELECT 1 AS i');
$old->wait_for_catchup($_) for $new, $sibling;
$old->kill9;
$new->promote;
$new->safe_psql('CHECKPOINT');

sub keys_of { return map { split /=/, $_, 2 } split ' ', $_[0]->standby_setting('primary_conninfo') }

for my $node ($sibling, $old)
{
    my $start = time;
    my $r = $new->make_follow($node, primary_host => 'many.example', when_down => 'rejoin');
    ok($r->{ok}, 'a node follows by a name, one of whose addresses is a black hole') or diag($r->{err});
    cmp_ok(time - $start, '<', 30, sprintf 'within seconds: %.1f', time - $start);
    my %set = keys_of($node);
    is($set{host}, 'many.example', 'it has the name');
    is($set{connect_timeout}, 2, 'and a limit for each address');
    is($set{tcp_user_timeout}, 2000, 'which a WAL receiver knows') if FollowPrimary::Node::pg_major() >= 12;
}

# A value of the user's own stays.
my $timeouts = 'connect_timeout=7' . (FollowPrimary::Node::pg_major() >= 12 ? ' tcp_user_timeout=3000' : '');
$sibling->set_standby(primary_conninfo => "host=127.0.0.1 port=1 user=repl passfile=@{[ $cluster->passfile ]} $timeouts");
my $r = $new->make_follow($sibling);
ok($r->{ok}, 'a node with limits of its own follows') or diag($r->{err});
my %set = keys_of($sibling);
is($set{connect_timeout}, 7, 'they stay');
is($set{tcp_user_timeout}, 3000, 'both') if FollowPrimary::Node::pg_major() >= 12;

done_testing();
