# Which kinds of keys an SSH connection can do, for hosts and for users: what
# the linked libssh2 can is done, what it cannot is refused with a hint that
# says so. Needs a real sshd for each kind, since the two libraries negotiate.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 2, extension => 1);
my ($primary, $node) = $cluster->nodes;
my $host = $node->host;

# RSA with SHA-2 signatures came with libssh2 1.11.
my ($version) = map { m{/libssh2\.so\.[\d.]+\z} ? $_ : () } split /\n/, run_ok([ 'sh', '-c',
    'for f in /usr/lib/*/libssh2.so.1.*; do readlink -f "$f"; done' ]);
my $library = slurp($version);
my ($major, $minor) = $library =~ /SSH-2\.0-libssh2_(\d+)\.(\d+)/ or BAIL_OUT("no version in $version");
my $rsa = $major > 1 || $minor >= 11;
note("libssh2 $major.$minor");

sub connects { return $primary->make_follow($node, function => 'follow_primary_plan') }

for my $type (qw(ed25519 ecdsa rsa))
{
    $host->ssh_stop;
    $host->new_host_key($type);
    $host->ssh_start;
    $cluster->write_known_hosts;
    my $r = connects();
    if ($type eq 'rsa' && !$rsa)
    {
        is($r->{sqlstate}, '08P01', 'a host with an RSA key alone is refused by this libssh2');
        like($r->{hint}, qr/libssh2.*RSA.*ssh-keygen -A/s, 'and the hint says why, and what to do');
    }
    else
    {
        ok($r->{ok}, "a host with a key of type $type") or diag($r->{err});
    }
}
$host->ssh_stop;
$host->new_host_key('ed25519');
$host->ssh_start;
$cluster->write_known_hosts;

my $keys = scratch_dir('keys');
for my $type (qw(ed25519 ecdsa rsa))
{
    run_ok([ 'ssh-keygen', '-q', '-t', $type, '-N', '', '-C', '', '-f', "$keys/$type" ]);
    append_text($host->dir . '/authorized_keys', slurp("$keys/$type.pub"));
    $primary->safe_psql("UPDATE follow_primary_node SET ssh_key_file = '$keys/$type'");
    my $r = connects();
    if ($type eq 'rsa' && !$rsa)
    {
        is($r->{sqlstate}, '28000', 'an RSA key is refused with this libssh2');
        like($r->{hint}, qr/SHA-1.*ed25519/s, 'and the hint says why, and what to do');
    }
    else
    {
        ok($r->{ok}, "a user's key of type $type") or diag($r->{err});
    }
}

run_ok([ 'ssh-keygen', '-q', '-t', 'ed25519', '-N', 'a passphrase', '-C', '', '-f', "$keys/locked" ]);
$primary->safe_psql("UPDATE follow_primary_node SET ssh_key_file = '$keys/locked'");
my $r = connects();
is($r->{sqlstate}, '28000', 'a key with a passphrase is refused');
like("$r->{message} $r->{detail} $r->{hint}", qr/passphrase|encrypted/, 'and is told to have one');

done_testing();
