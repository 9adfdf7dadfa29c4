# Under which name a node reaches the new primary, where nobody says it: the one that
# it uses already, the one in the primary's own row of follow_primary_node, and only
# then the address that the node's sshd sees, which may be one of another network. A
# name is one that works when a WAL receiver has resolved it: the test has names of
# its own, in a hosts file that only it sees.

use FollowPrimary::Test;
use FollowPrimary::Mounts;

my $made = FollowPrimary::Mounts::enter(<<'END', network => 1);
echo '127.0.0.1 localhost' >hosts &&
printf 'hosts: files\npasswd: files\ngroup: files\n' >nsswitch.conf &&
for f in hosts nsswitch.conf; do mount --bind "$f" "$(readlink -f "/etc/$f")" || exit 1; done &&
ip link set lo up
END
plan(skip_all => 'namespaces cannot be made here (unshare, ip)') if !$made;

my $cluster = FollowPrimary::Cluster->new(nodes => 5, extension => 1, conf => { 'follow_primary.verify_timeout' => '20s', wal_keep_size => '512MB' });
my ($old, $new, $cascaded, $points, $sibling) = $cluster->nodes;
append_text('/etc/hosts', join '', map { "@{[ $new->address ]} $_.example\n" } qw(used points row));

# It listens on more than one address: that is no answer.
$new->set(listen_addresses => $new->address . ',127.0.0.1');
$new->restart;
$old->safe_psql('CREATE TABLE t AS SELECT 1 AS i');
$old->wait_for_catchup($new);

sub conninfo
{
    my ($node, $host) = @_;
    return "host=$host port=@{[ $new->port ]} user=repl passfile=@{[ $cluster->passfile ]} application_name=@{[ $node->name ]}";
}
sub host_of
{
    my ($node) = @_;
    my ($host) = $node->standby_setting('primary_conninfo') =~ /\bhost=(\S+)/;
    return $host;
}
sub follows
{
    my ($node, $host, $what, %arguments) = @_;
    makes_follow($new, $node, "$what: it follows", when_down => 'rejoin', %arguments);
    is(host_of($node), $host, "by $host");
    is($new->job('primary_host'), $host, "the job's row has it") if !$arguments{primary_host};
    return;
}

# One that streams from it already, as from another standby; one whose settings lead
# to it, and fail for another reason; one whose settings lead nowhere.
$cascaded->set_standby(primary_conninfo => conninfo($cascaded, 'nowhere.example,used.example'), primary_slot_name => '');
$cascaded->poll_query_until('SELECT status || sender_host FROM pg_stat_wal_receiver', 'streamingused.example') or die $cascaded->log_tail(10);
$points->set_standby(primary_conninfo => conninfo($points, 'points.example'), primary_slot_name => 'no_such_slot');
$points->poll_query_until('SELECT count(*) FROM pg_stat_wal_receiver', '0');
$sibling->set_standby(primary_conninfo => conninfo($sibling, 'nowhere.example'), primary_slot_name => '');
$sibling->poll_query_until('SELECT count(*) FROM pg_stat_wal_receiver', '0');
$old->safe_psql('SELECT 1');
$old->kill9;
$new->promote;
$new->safe_psql('CHECKPOINT');
$cascaded->poll_query_until("SELECT received_tli FROM pg_stat_wal_receiver WHERE status = 'streaming'", 2) or die $cascaded->log_tail(10);

$new->safe_psql("UPDATE follow_primary_node SET host = 'row.example' WHERE host = '@{[ $new->address ]}'");
follows($cascaded, 'used.example', 'one that streams from it');
follows($points, 'points.example', 'one whose settings lead to it');
follows($sibling, 'row.example', 'one whose settings lead elsewhere');
follows($old, 'row.example', 'the former primary, which has no such settings');

# Nobody knows a name: what sshd sees. The row of another data directory is another's,
# and a name that leads to another server is none.
$new->safe_psql("UPDATE follow_primary_node SET pgdata = '/another/server' WHERE host = 'row.example'");
$sibling->set_standby(primary_conninfo => conninfo($sibling, 'nowhere.example,' . $old->address));
follows($sibling, '127.0.0.1', 'one that no name is known to');

# What is given wins over all.
follows($sibling, 'used.example', 'told so', primary_host => 'used.example');

done_testing();
