# A name may have several addresses, and one leads elsewhere: today's
# connection proves nothing of tomorrow's. All that answer must be this server.
# Needs a name service of the test's own, so a mount namespace.

use FollowPrimary::Test;
use FollowPrimary::Mounts;

my $made = FollowPrimary::Mounts::enter(<<'END');
printf '127.0.0.1 localhost\n' >hosts &&
printf 'hosts: files\npasswd: files\ngroup: files\n' >nsswitch.conf &&
for f in hosts nsswitch.conf; do mount --bind "$f" "$(readlink -f "/etc/$f")" || exit 1; done
END
plan(skip_all => FollowPrimary::Mounts::NONE) if !$made;

my $cluster = FollowPrimary::Cluster->new(nodes => 4, extension => 1, conf => { 'follow_primary.verify_timeout' => '10s' });
my ($old, $new, $node, $sibling) = $cluster->nodes;
my $nobody = free_address();

sub hosts { spew("$made/hosts", join '', "127.0.0.1 localhost\n", map { "$_ db-primary\n" } @_); return }

$old->wait_for_catchup($_) for $new, $node, $sibling;
$new->promote;
my $pid = $node->pid;

sub refused
{
    my ($what, $detail, %arguments) = @_;
    my $before = slurp($node->recovery_file);
    my $r = $new->make_follow($node, primary_host => 'db-primary', %arguments);
    is($r->{sqlstate}, '08006', "$what: refused") or diag($r->{err});
    like($r->{message}, qr/primary_host leads to another server/, "$what: for this reason");
    like($r->{detail}, $detail, "$what: the address is told");
    is($node->pid, $pid, "$what: the node runs as before");
    is(slurp($node->recovery_file), $before, "$what: with the settings as before");
    return;
}

for my $method (qw(repoint rewind basebackup))
{
    hosts($new->address, $old->address);
    refused("$method, the second is the former primary's", qr/\Q@{[ $old->address ]}\E/, method => $method);
    hosts($old->address, $new->address);
    refused("$method, the first is", qr/\Q@{[ $old->address ]}\E/, method => $method);
    hosts($new->address, $nobody, $node->address);
    refused("$method, the last is the node's own", qr/\Q@{[ $node->address ]}\E/, method => $method);
}

# One that nobody answers at is no harm.
hosts($nobody, $new->address);
my $r = $new->make_follow($node, primary_host => 'db-primary');
ok($r->{ok}, 'one where nobody answers is no harm') or diag($r->{err});
$new->wait_for_catchup($node);
is($node->safe_psql('SELECT sender_host FROM pg_stat_wal_receiver'), 'db-primary', 'the node follows by the name');
hosts($nobody);
$r = $new->make_follow($sibling, primary_host => 'db-primary');
is($r->{sqlstate}, '08006', 'none where somebody answers is an error') or diag($r->{err});
like($r->{message}, qr/a connection to this server cannot be made/, 'of its own');

done_testing();
