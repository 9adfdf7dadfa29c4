package FollowPrimary::Scratch;

# The ground that the test library stands on: one scratch folder per test
# process, the processes started in it, addresses and ports of its own, and
# waits with a deadline.
#
# The test process is the subreaper (prctl(2)) of all that it starts: a server
# that a session of our sshd started and left behind is still its descendant,
# and is ended with it, also on INT and TERM.  It also buries what is killed at
# once; to a postmaster that starts again, a zombie is "another server".
# FOLLOW_PRIMARY_KEEP=1 keeps the folder, never a process.

use strict;
use warnings;

use Cwd qw(realpath);
use Exporter qw(import);
use File::Basename qw(dirname);
use Fcntl qw(:DEFAULT);
use File::Path qw(remove_tree);
use File::Temp qw(tempdir);
use IO::Socket::IP;
use IO::Socket::UNIX;
use IPC::SysV qw(IPC_RMID GETPID);
use POSIX qw(:sys_wait_h);
use Time::HiRes qw(sleep time);

{
    no warnings;
    require 'syscall.ph';
}

our @EXPORT_OK = qw(
    scratch_dir run_command run_ok remote_script wait_until
    free_address free_port
    slurp spew append_text
    process_alive process_tree our_processes our_commands
    bury kill_tree
);

my $owner = $$;
my $folder;
my %started;    # pid => FollowPrimary::Process
my @claims;     # sockets that hold addresses and ports
my %killed;     # pid => 1, whose shared memory may be left over
my %shm_files;

# The tools' messages are parsed; the caller's connection settings are not meant
# for our servers.
delete @ENV{ grep { /^PG/ && $_ ne 'PG_CONFIG' } keys %ENV };
delete @ENV{qw(LANGUAGE LC_ALL)};
$ENV{LC_MESSAGES} = 'C';

$SIG{HUP}  = sub { exit 129 };
$SIG{INT}  = sub { exit 130 };
$SIG{TERM} = sub { exit 143 };
# prove may be gone before we have cleaned up.
$SIG{PIPE} = 'IGNORE';

# The command that runs a script of src/remote by hand: its name without .sh, its named
# arguments, and the list behind them.
sub remote_script
{
    my ($name, $named, @list) = @_;
    return [ 'env', (map { "$_=$named->{$_}" } sort keys %$named), 'sh', dirname(realpath(__FILE__)) . "/../../../src/remote/$name.sh", @list ];
}

# The scratch folder, made at the first call; with a name, a folder in it.
sub scratch_dir
{
    my ($name) = @_;

    if (!defined $folder)
    {
        $folder = realpath(tempdir('fp-XXXXXX', TMPDIR => 1, CLEANUP => 0));
        chmod 0700, $folder or die "chmod $folder: $!";
        my $PR_SET_CHILD_SUBREAPER = 36;
        syscall(SYS_prctl(), $PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0 or die "prctl: $!";
    }
    return $folder if !defined $name;

    my $path = "$folder/$name";
    mkdir $path, 0700 or die "mkdir $path: $!";
    return $path;
}

# run_command(\@command, in => text, timeout => seconds, env => {}, cwd => dir)
# returns (exit code, stdout, stderr).  The code is 128 + the signal when one
# ended it.  Dies when the time is over, after ending the command.
sub run_command
{
    my ($command, %opt) = @_;
    my $timeout = $opt{timeout} // 60;
    my $process = FollowPrimary::Process->start($command, %opt);
    my $code    = $process->wait($timeout);

    if (!defined $code)
    {
        $process->stop(signal => 'KILL');
        my $err = $process->err;
        $process->forget;
        die "no end within $timeout s: @$command\n$err";
    }
    my @result = ($code, $process->out, $process->err);
    $process->forget;
    return @result;
}

# The same, returning stdout; dies when the command fails.
sub run_ok
{
    my ($command, %opt) = @_;
    my ($code, $out, $err) = run_command($command, %opt);

    die "exit code $code: @$command\n$out$err" if $code != 0;
    return $out;
}

# Waits until the sub returns true, and returns that value; dies naming $what
# when it has not within $timeout seconds.  A sub that dies is tried again.
sub wait_until
{
    my ($what, $sub, $timeout) = @_;
    $timeout //= 30;
    my $deadline = time + $timeout;
    my $problem;

    while (1)
    {
        bury();
        my $value = eval { $sub->() };
        $problem = $@;
        return $value if $value;
        last if time >= $deadline;
        sleep 0.05;
    }
    die "not within $timeout s: $what" . ($problem ? "\n$problem" : "\n");
}

# An address in the abstract socket namespace is a lock that needs no file and
# dies with us.
sub _claim
{
    my ($what) = @_;
    my $socket = IO::Socket::UNIX->new(Local => "\0follow_primary/$what", Listen => 1)
        or return 0;
    push @claims, $socket;
    return 1;
}

# A loopback address that no other test process uses.
sub free_address
{
    for my $n (11 .. 254)
    {
        return "127.0.0.$n" if _claim("address/$n");
    }
    die "no loopback address is free";
}

# A port that no other test process uses, free on each of the addresses; below
# the range of outgoing connections.
sub free_port
{
    my @addresses = @_ ? @_ : ('127.0.0.1');
    my $first     = 10000 + int(rand 20000);

PORT:
    for my $try (0 .. 1999)
    {
        my $port = 10000 + ($first - 10000 + $try) % 22000;
        for my $address (@addresses)
        {
            my $probe = IO::Socket::IP->new(
                LocalAddr => $address,
                LocalPort => $port,
                Proto     => 'tcp',
                Listen    => 1,
                ReuseAddr => 1) or next PORT;
            close $probe;
        }
        return $port if _claim("port/$port");
    }
    die "no port is free on @addresses";
}

sub slurp
{
    my ($file) = @_;
    open my $fh, '<:raw', $file or die "open $file: $!";
    local $/;
    my $text = <$fh>;
    return $text // '';
}

sub spew
{
    my ($file, $text, $mode) = @_;
    sysopen my $fh, $file, O_WRONLY | O_CREAT | O_TRUNC, $mode // 0600
        or die "open $file: $!";
    print $fh $text;
    close $fh or die "write $file: $!";
    chmod $mode, $file if defined $mode;
    return $file;
}

sub append_text
{
    my ($file, $text) = @_;
    open my $fh, '>>:raw', $file or die "open $file: $!";
    print $fh $text;
    close $fh or die "write $file: $!";
    return;
}

# A zombie is dead.
sub process_alive
{
    my ($pid) = @_;
    open my $fh, '<', "/proc/$pid/stat" or return 0;
    my $stat = <$fh> // return 0;
    return $stat =~ /\) ([^XxZ]) /s ? 1 : 0;
}

sub _all_processes
{
    opendir my $dh, '/proc' or die "/proc: $!";
    my %parent;
    for my $pid (grep { /^\d+$/ } readdir $dh)
    {
        open my $fh, '<', "/proc/$pid/stat" or next;
        my $stat = <$fh> // next;
        $parent{$pid} = $2 if $stat =~ /.*\) (\S) (\d+) /s && $1 !~ /[XxZ]/;
    }
    return \%parent;
}

# The given processes and all that descend from them.
sub process_tree
{
    my @roots  = @_;
    my $parent = _all_processes();
    my %in     = map { $_ => 1 } grep { exists $parent->{$_} } @roots;
    my $grown  = 1;

    while ($grown)
    {
        $grown = 0;
        for my $pid (keys %$parent)
        {
            next if $in{$pid} || !$in{ $parent->{$pid} };
            $in{$pid} = $grown = 1;
        }
    }
    return sort { $a <=> $b } keys %in;
}

# Every live process that this test process started, itself or through others.
sub our_processes
{
    return if !defined $folder;
    return grep { $_ != $$ && $_ != $owner } process_tree($owner);
}

# Those of them whose command line, its words divided by blanks, matches: pid =>
# command line.  What a session of sshd left behind is among them.
sub our_commands
{
    my ($regex) = @_;
    my %command;
    for my $pid (our_processes())
    {
        my $line = eval { slurp("/proc/$pid/cmdline") } // next;
        $line =~ tr/\0/ /;
        $command{$pid} = $line if $line =~ $regex;
    }
    return %command;
}

# Collects the ended children, noting the exit codes of those we know.
sub bury
{
    while ((my $pid = waitpid(-1, WNOHANG)) > 0)
    {
        my $process = delete $started{$pid} // next;
        $process->{code} = $? & 127 ? 128 + ($? & 127) : $? >> 8;
    }
    return;
}

# Called before processes are killed outright: what they would have removed of
# shared memory is removed at the end.
sub remember_killed
{
    my (@pids) = @_;
    for my $pid (@pids)
    {
        $killed{$pid} = 1;
        open my $fh, '<', "/proc/$pid/maps" or next;
        while (my $line = <$fh>)
        {
            $shm_files{$1} = 1 if $line =~ m{\s(/dev/shm/PostgreSQL\.\d+)};
        }
    }
    return;
}

# Kills the process and all that descends from it as at one moment; returns when
# none is left.
sub kill_tree
{
    my ($pid) = @_;
    kill 'STOP', process_tree($pid);
    my @tree = process_tree($pid);
    remember_killed(@tree);
    kill 'KILL', @tree;
    wait_until("the processes @tree are gone", sub { !grep { -e "/proc/$_" } @tree }, 10);
    return;
}

sub _remove_shared_memory
{
    unlink keys %shm_files;
    return if !%killed;

    if (open my $fh, '<', '/proc/sysvipc/shm')
    {
        while (<$fh>)
        {
            my (undef, $id, undef, undef, $creator, undef, $attached) = split;
            next if $id !~ /^\d+$/ || !$killed{$creator} || $attached > 0;
            shmctl($id, IPC_RMID, 0);
        }
    }
    if (open my $fh, '<', '/proc/sysvipc/sem')
    {
        while (<$fh>)
        {
            my (undef, $id, undef, $count, $uid) = split;
            next if $id !~ /^\d+$/ || $uid != $<;
            my $user = semctl($id, 0, GETPID, 0);
            semctl($id, 0, IPC_RMID, 0) if defined $user && $killed{ 0 + $user };
        }
    }
    return;
}

# A postmaster is asked by QUIT, which ends it at once and cleans up behind it.
sub _end_all
{
    my $deadline = time + 8;
    my %asked;

    while (my @pids = our_processes())
    {
        my $late = time >= $deadline;
        last if time >= $deadline + 4;
        remember_killed(@pids) if $late;
        for my $pid (@pids)
        {
            next if $asked{$pid}++ && !$late;
            my $cwd = readlink("/proc/$pid/cwd") // '';
            my $pidfile = eval { slurp("$cwd/postmaster.pid") } // '';
            my $backend = -e "$cwd/PG_VERSION" && $pidfile !~ /\A\Q$pid\E\n/;

            kill 'CONT', $pid;
            if    ($late) { kill 'KILL', $pid }
            elsif ($pidfile =~ /\A\Q$pid\E\n/) { kill 'QUIT', $pid }
            elsif (!$backend) { kill 'TERM', $pid }
        }
        bury();
        sleep 0.02;
    }

    # What has just been ended passes to us for burial, level by level.
    for (1 .. 50)
    {
        bury();
        last if waitpid(-1, WNOHANG) < 0;
        sleep 0.02;
    }
    return;
}

END
{
    if ($$ == $owner && defined $folder)
    {
        my $status = $?;
        local @SIG{qw(HUP INT TERM)} = ('IGNORE') x 3;
        local $@;

        _end_all();
        _remove_shared_memory();
        if ($ENV{FOLLOW_PRIMARY_KEEP})
        {
            print STDERR "# kept: $folder\n";
        }
        else
        {
            remove_tree($folder, { error => \my $ignored });
        }
        $? = $status;
    }
}

package FollowPrimary::Process;

# A command that runs beside the test.
#   my $p = FollowPrimary::Process->start(['psql', ...], in => 'SELECT 1');
#   $p->running; $p->out; $p->err; $p->signal('INT');
#   my $code = $p->wait(10);    # undef when it still runs
#   $p->stop;
# Its output goes to files, so that a server which inherits them cannot keep
# anybody waiting.

use strict;
use warnings;

use POSIX qw(_exit);
use Time::HiRes qw(sleep time);

my $number = 0;

sub start
{
    my ($class, $command, %opt) = @_;
    my $base = FollowPrimary::Scratch::scratch_dir();
    my $dir  = "$base/run";
    mkdir $dir, 0700 if !-d $dir;
    $number++;

    my $self = bless {
        command => $command,
        out     => $opt{out} // "$dir/$number.out",
        err     => $opt{err} // $opt{out} // "$dir/$number.err",
        kept    => defined $opt{out},
    }, $class;

    my $in = '/dev/null';
    if (defined $opt{in})
    {
        $in = "$dir/$number.in";
        FollowPrimary::Scratch::spew($in, $opt{in});
        $self->{in} = $in;
    }

    my $pid = fork // die "fork: $!";
    if ($pid == 0)
    {
        # Not die: the parent's END blocks and handlers are not for a child.
        $SIG{$_} = 'DEFAULT' for qw(HUP INT TERM PIPE);
        %ENV = (%ENV, %{ $opt{env} // {} });
        setpgrp;
        my $ok = chdir($opt{cwd} // $base)
            && open(STDIN,  '<',  $in)
            && open(STDOUT, '>>', $self->{out})
            && open(STDERR, '>>', $self->{err});
        if ($ok)
        {
            no warnings 'exec';
            exec { $command->[0] } @$command;
        }
        print STDERR "cannot run $command->[0]: $!\n";
        _exit(127);
    }
    $self->{pid} = $pid;
    return $started{$pid} = $self;
}

sub pid     { $_[0]{pid} }
sub out     { my ($self) = @_; return -e $self->{out} ? FollowPrimary::Scratch::slurp($self->{out}) : '' }
sub err     { my ($self) = @_; return -e $self->{err} ? FollowPrimary::Scratch::slurp($self->{err}) : '' }
sub running { return !defined $_[0]->wait(0) }

# The exit code (128 + signal), or undef when it still runs after $timeout s.
sub wait
{
    my ($self, $timeout) = @_;
    $timeout //= 60;
    my $deadline = time + $timeout;
    my $pause    = 0.001;

    while (1)
    {
        FollowPrimary::Scratch::bury();
        last if defined $self->{code};
        return if time >= $deadline;
        sleep $pause;
        $pause *= 1.5 if $pause < 0.02;
    }
    return $self->{code};
}

sub signal
{
    my ($self, $signal) = @_;
    return $self->running ? kill($signal, $self->{pid}) : 0;
}

# Ends it: the signal (TERM), and after 10 s KILL for it and what it started.
sub stop
{
    my ($self, %opt) = @_;
    return $self->{code} if !$self->running;

    my $signal = $opt{signal} // 'TERM';
    if ($signal ne 'KILL')
    {
        kill $signal, $self->{pid};
        my $code = $self->wait($opt{timeout} // 10);
        return $code if defined $code;
    }
    FollowPrimary::Scratch::kill_tree($self->{pid});
    return $self->wait(10);
}

# Removes its files; it must have ended.
sub forget
{
    my ($self) = @_;
    unlink grep { defined } $self->{in}, $self->{kept} ? () : ($self->{out}, $self->{err});
    return;
}

1;
