# Which kinds of keys the SSH connection takes, for hosts and for users. What the
# linked libssh2 can do works; what it cannot do is refused, and the hint says so.
# Each kind needs a real sshd, for the two libraries negotiate.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 2, extension => 1);
my ($primary, $node) = $cluster->nodes;
my $host = $node->host;

# libssh2 1.11 brought RSA with SHA-2 signatures; OpenSSH 8.8 ended those with SHA-1.
my ($version, $only_rsa) = @{ libssh2() }{qw(version only_rsa)};
my $rsa = $version >= 1.011 || FollowPrimary::Host::openssh_version() < 8.8;
my %can = (ed25519 => !$only_rsa, ecdsa => !$only_rsa, rsa => $rsa);
note("libssh2 $version", $only_rsa ? ', with libgcrypt' : '');

sub connects { return $primary->make_follow($node, function => 'follow_primary_plan') }

sub host_key
{
    my ($type) = @_;
    $host->ssh_stop;
    $host->new_host_key($type);
    $host->ssh_start;
    $cluster->write_known_hosts;
    return;
}

# Makes a new key that the host knows; returns the result of a call that uses it.
sub user_key
{
    my ($name, %opt) = @_;
    our $keys //= scratch_dir('keys');
    my $file = "$keys/$name";
    append_text($host->dir . '/authorized_keys', make_ssh_key($file, %opt));
    unlink "$file.pub" if $opt{without_public};
    $primary->set_row($node, ssh_key_file => $file);
    return connects();
}

for my $type (qw(ed25519 ecdsa rsa))
{
    host_key($type);
    my $r = connects();
    if ($can{$type})
    {
        ok($r->{ok}, "a host with a key of type $type") or diag($r->{err});
        next;
    }
    is($r->{sqlstate}, '08P01', "a host with a key of type $type alone is refused by this libssh2");
    like($r->{hint}, qr/libssh2.*RSA.*ssh-keygen -A/s, 'and the hint says why, and what to do');
}
host_key($only_rsa ? 'rsa' : 'ed25519');

for my $type (qw(ed25519 ecdsa rsa))
{
    my $r = user_key($type, type => $type);
    if ($can{$type})
    {
        ok($r->{ok}, "a user's key of type $type") or diag($r->{err});
        next;
    }
    is($r->{sqlstate}, '28000', "a user's key of type $type is refused with this libssh2");
    like($r->{hint}, $only_rsa ? qr/libgcrypt.*ssh-keygen -t rsa -m PEM/s : qr/SHA-1.*ed25519/s,
        'and the hint says why, and what to do');
}

my $r = user_key('openssh', format => 'RFC4716');
if ($only_rsa)
{
    is($r->{sqlstate}, '28000', "a key in OpenSSH's own format is refused with this libssh2");
    like($r->{hint}, qr/libgcrypt.*ssh-keygen -t rsa -m PEM/s, 'and the hint says why, and what to do');
}
else
{
    ok($r->{ok}, "a key in OpenSSH's own format") or diag($r->{err});
}

$r = user_key('alone', without_public => 1);
if ($only_rsa)
{
    is($r->{sqlstate}, '28000', 'a key without its .pub file is refused with this libssh2');
    like($r->{hint}, qr/libgcrypt.*ssh-keygen -y/s, 'and the hint says why, and what to do');
    my ($command) = $r->{hint} =~ /: (ssh-keygen -y .*)/;
    run_ok([ 'sh', '-c', $command ]);
    $r = connects();
}
ok($r->{ok}, $only_rsa ? 'until that is done' : 'a key without its .pub file') or diag($r->{err});

$r = user_key('locked', passphrase => 'a passphrase');
is($r->{sqlstate}, '28000', 'a key with a passphrase is refused');
like($r->{detail}, qr/encrypted with a passphrase/, 'and is told to have one');
my ($command) = $r->{hint} =~ /: (ssh-keygen -t .*)/;
ok($command =~ /-t (\w+)/ && $can{$1}, 'the hint makes a key that this libssh2 can use') or diag($r->{hint});

done_testing();
