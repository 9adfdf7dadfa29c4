package FollowPrimary::Mounts;

# File systems of a test's own, real and small, for an ordinary account: the
# program is run again in a mount namespace of its own.
#
#   my $dir = FollowPrimary::Mounts::enter('mount -t tmpfs -o size=100m,mode=0700 tmpfs disk');
#   plan(skip_all => FollowPrimary::Mounts::NONE) if !$dir;

use strict;
use warnings;

use POSIX ();

use constant NONE => 'the kernel lets this account have no mount namespace (unshare -Urm)';

# Runs the shell commands as the namespace's root in a new folder, and the
# program again, as the account itself; with network => 1 in a network namespace
# of its own, too.  There it returns the folder; '' where the kernel does not
# allow any of this.  Exits as the program does.
sub enter
{
    my ($commands, %opt) = @_;
    return $ENV{FOLLOW_PRIMARY_MOUNTS} if defined $ENV{FOLLOW_PRIMARY_MOUNTS};
    my $dir = ($ENV{TMPDIR} // '/tmp') . "/fp-mounts-$$";
    mkdir $dir, 0700 or die "mkdir $dir: $!";
    # A tmpfs below all: what is made in the folder goes with the namespace.
    $commands =~ s/\n+\z//;
    my $script = 'here=$PWD && cd "$1" && mount -t tmpfs -o mode=0700,size=10m tmpfs . && cd "$1" && { ' . $commands . '; } && cd "$here" && '
        . 'exec unshare -U --map-user="$2" --map-group="$3" sh -c \'shift 3; exec "$@"\' sh "$@"';
    my ($gid) = split ' ', $(;
    my @unshare = ('unshare', $opt{network} ? '-Urmn' : '-Urm', 'sh', '-ec', $script, 'sh', $dir, $<, $gid);

    if (system('sh', '-c', 'exec "$@" >/dev/null 2>&1', 'sh', @unshare, 'true') != 0)
    {
        rmdir $dir;
        return $ENV{FOLLOW_PRIMARY_MOUNTS} = '';
    }
    my $child = fork // die "fork: $!";
    if ($child == 0)
    {
        $ENV{FOLLOW_PRIMARY_MOUNTS} = $dir;
        exec @unshare, $^X, (map { "-I$_" } @INC), $0, @ARGV or POSIX::_exit(127);
    }
    # The mounts go with their last process; the folder under them is ours.
    local @SIG{qw(INT TERM)} = (sub { kill 'TERM', $child }) x 2;
    1 while waitpid($child, 0) != $child;
    rmdir $dir;
    POSIX::_exit($? & 127 ? 128 + ($? & 127) : $? >> 8);
}

1;
