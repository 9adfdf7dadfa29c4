package FollowPrimary::Host;

# A "machine": a loopback address and a folder of its own, and a private sshd
# that lets the test's account in by key.
#
#   my $host = FollowPrimary::Host->new(name => 'node0', authorized_key => $pub);
#   $host->address  $host->ssh_port  $host->dir  $host->known_hosts_line
#   $host->ssh_start  ssh_stop  ssh_kill      # listener and sessions
#   $host->ssh_cut                            # sessions only, as a broken line
#   $host->ssh_freeze  ssh_thaw               # it no longer answers, and again
#   $host->login_shell('/bin/tcsh', $home)    # of the account, from the next login on
#   $host->only_user('dba', $home)            # the name that is let in, instead of the account's

use strict;
use warnings;

use Exporter qw(import);
use FollowPrimary::Scratch qw(scratch_dir run_command run_ok wait_until
    free_address free_port slurp spew process_tree kill_tree);
use IO::Socket::IP;

our @EXPORT_OK = qw(libssh2 make_ssh_key);

# What the libssh2 that the installed extension is linked with is:
# { version => 1.010, only_rsa => 0 }.  Built with libgcrypt, as Debian 11's, it
# knows only RSA keys, reads them in PEM format only, and wants the .pub file.
my $libssh2;

sub libssh2
{
    return $libssh2 if $libssh2;
    my ($lib) = split /\n/, run_ok([ $ENV{PG_CONFIG} // 'pg_config', '--pkglibdir' ]);
    my ($file) = run_ok([ 'ldd', "$lib/follow_primary.so" ]) =~ /libssh2\.so\.1 => (\S+)/
        or die "$lib/follow_primary.so is not linked with libssh2";
    my ($major, $minor) = slurp($file) =~ /SSH-2\.0-libssh2_(\d+)\.(\d+)/ or die "no version in $file";
    return $libssh2 = {
        version  => sprintf('%d.%03d', $major, $minor),
        only_rsa => scalar(run_ok([ 'ldd', $file ]) =~ /libgcrypt/),
    };
}

# Makes a key pair, of a kind that this libssh2 can use unless told otherwise.
# Options: type (ed25519 | ecdsa | rsa), format (PEM | RFC4716, OpenSSH's own),
# passphrase.  Returns the line for authorized_keys.
sub make_ssh_key
{
    my ($file, %opt) = @_;
    my $only_rsa = libssh2()->{only_rsa};
    my $type     = $opt{type} // ($only_rsa ? 'rsa' : 'ed25519');
    my $format   = $opt{format} // ($only_rsa && $type eq 'rsa' ? 'PEM' : undef);

    run_ok([ 'ssh-keygen', '-q', '-t', $type, $type eq 'rsa' ? ('-b', 2048) : (),
        defined $format ? ('-m', $format) : (),
        '-N', $opt{passphrase} // '', '-C', 'follow_primary', '-f', $file ]);
    return slurp("$file.pub");
}

# Options: name, address, ssh_port, key_type (ed25519 | ecdsa | rsa),
# authorized_key (a line), sshd_conf (more lines for sshd_config).
sub new
{
    my ($class, %opt) = @_;
    my $self = bless {
        name     => $opt{name} // die("a host needs a name"),
        address  => $opt{address} // free_address(),
        key_type => $opt{key_type},
    }, $class;
    $self->{ssh_port} = $opt{ssh_port} // free_port($self->{address});
    $self->{dir}      = scratch_dir($self->{name});

    my $dir = $self->{dir};
    spew("$dir/authorized_keys", ($opt{authorized_key} // '') . "\n");
    $self->new_host_key;

    my $conf = <<"END";
ListenAddress $self->{address}
Port $self->{ssh_port}
HostKey $dir/host_key
AuthorizedKeysFile $dir/authorized_keys
PidFile $dir/sshd.pid
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
UseDNS no
PrintMotd no
LogLevel VERBOSE
MaxStartups 200
MaxSessions 100
END
    # From 9.8 on failed logins would shut out the whole loopback.
    $conf .= "PerSourcePenalties no\n" if openssh_version() >= 9.8;
    spew("$dir/sshd_config", $conf . ($opt{sshd_conf} // ''));
    return $self;
}

my $openssh_version;

sub openssh_version
{
    if (!defined $openssh_version)
    {
        my (undef, $out, $err) = run_command([ 'ssh', '-V' ]);
        $openssh_version = "$out$err" =~ /OpenSSH_(\d+\.\d+)/ ? $1 : 0;
    }
    return $openssh_version;
}

sub name     { $_[0]{name} }
sub address  { $_[0]{address} }
sub ssh_port { $_[0]{ssh_port} }
sub dir      { $_[0]{dir} }
sub ssh_log  { slurp("$_[0]{dir}/sshd.log") }
sub ssh_pid  { $_[0]{sshd} && $_[0]{sshd}->running ? $_[0]{sshd}->pid : undef }

# Makes the host's key (again: then it no longer is what known_hosts says).
sub new_host_key
{
    my ($self, $type) = @_;
    my $file = "$self->{dir}/host_key";
    $self->{key_type} = $type if defined $type;
    unlink $file, "$file.pub";
    make_ssh_key($file, type => $self->{key_type});
    return;
}

sub known_hosts_line
{
    my ($self) = @_;
    my ($type, $key) = split ' ', slurp("$self->{dir}/host_key.pub");
    return "[$self->{address}]:$self->{ssh_port} $type $key\n";
}

# Starts sshd; with wait => 0 without waiting until it answers.
sub ssh_start
{
    my ($self, %opt) = @_;
    return if $self->ssh_pid;
    my $log = "$self->{dir}/sshd.log";
    $self->{sshd} = FollowPrimary::Process->start(
        [ '/usr/sbin/sshd', '-D', '-f', "$self->{dir}/sshd_config", '-E', $log ],
        out => "$self->{dir}/sshd.out.log",
        env => -e "$self->{dir}/passwd" ? {
            LD_PRELOAD         => _nss_wrapper(),
            NSS_WRAPPER_PASSWD => "$self->{dir}/passwd",
            NSS_WRAPPER_GROUP  => "$self->{dir}/group" } : {});
    $self->ssh_wait if $opt{wait} // 1;
    return;
}

# sshd takes shell and home from the account, which only root can change: nss_wrapper
# tells it of others. Undef without that library.
sub login_shell
{
    my ($self, $shell, $home) = @_;
    return $self->_accounts([ scalar getpwuid $<, $home, $shell ]);
}

# Another name of the test's account, with a home of its own and the keys in its
# ~/.ssh/authorized_keys. The account's own name is known, but has no keys. Undef
# without nss_wrapper.
sub only_user
{
    my ($self, $user, $home) = @_;
    my $conf = "$self->{dir}/sshd_config";
    spew($conf, slurp($conf) =~ s/^AuthorizedKeysFile .*$/AuthorizedKeysFile .ssh\/authorized_keys/mr);
    return $self->_accounts([ scalar getpwuid $<, $self->{dir}, '/bin/sh' ], [ $user, $home, '/bin/sh' ]);
}

sub _accounts
{
    my ($self, @accounts) = @_;
    return if !defined _nss_wrapper();
    my $first = !-e "$self->{dir}/passwd";
    my ($user, undef, $uid, $gid) = getpwuid $<;
    spew("$self->{dir}/passwd", join '', map { my ($name, $home, $shell) = @$_; "$name:x:$uid:${gid}::$home:$shell\n" } @accounts);
    spew("$self->{dir}/group", "$user:x:$gid:\n");
    if ($first && $self->ssh_pid)
    {
        $self->ssh_stop;
        $self->ssh_start;
    }
    return 1;
}

sub _nss_wrapper { return (grep { -e } glob '/usr/lib/*/libnss_wrapper.so')[0] }

sub ssh_wait
{
    my ($self) = @_;
    wait_until("sshd of $self->{name} answers at $self->{address}:$self->{ssh_port}", sub {
        return IO::Socket::IP->new(
            PeerAddr => $self->{address},
            PeerPort => $self->{ssh_port},
            Timeout  => 1);
    }, 10);
    return;
}

sub ssh_stop
{
    my ($self) = @_;
    my $pid = $self->ssh_pid // return;
    $self->ssh_cut;
    $self->{sshd}->stop;
    return;
}

# Kills at once the listener and its sessions, with all that they run.
sub ssh_kill
{
    my ($self) = @_;
    my $pid = $self->ssh_pid // return;
    kill_tree($pid);
    return;
}

# Ends the sessions' own processes, not the commands that they run: these have to
# notice a broken line themselves.
sub ssh_cut
{
    my ($self) = @_;
    my $pid = $self->ssh_pid // return;
    my @sessions = grep { _is_sshd($_) } process_tree($pid);
    kill 'KILL', grep { $_ != $pid } @sessions;
    return;
}

sub ssh_freeze { my ($self) = @_; kill 'STOP', grep { _is_sshd($_) } process_tree($self->ssh_pid); return }
sub ssh_thaw   { my ($self) = @_; kill 'CONT', grep { _is_sshd($_) } process_tree($self->ssh_pid); return }

sub _is_sshd
{
    my ($pid) = @_;
    my $exe = readlink("/proc/$pid/exe") // '';
    my $comm = eval { slurp("/proc/$pid/comm") } // '';
    return $exe =~ m{/sshd} || $comm =~ /^sshd/;
}

# The commands that run in sshd's sessions now: pid => command line.
sub ssh_commands
{
    my ($self) = @_;
    my $pid = $self->ssh_pid // return;
    my %command;
    for my $p (grep { !_is_sshd($_) } process_tree($pid))
    {
        my $line = eval { slurp("/proc/$p/cmdline") } // next;
        $line =~ tr/\0/ /;
        $command{$p} = $line;
    }
    return %command;
}

1;
