# Random bytes come through unchanged: from the worker's quoting through every shell
# that a node may have as sh to a script's arguments, and from a script's output back
# to the worker. A list of awkward values would show only the mistakes that somebody
# has thought of. The test prints its seed; FOLLOW_PRIMARY_SEED repeats a run,
# FOLLOW_PRIMARY_ROUNDS makes it longer.

use FindBin;
use IO::Handle;
use POSIX qw(mkfifo);
use FollowPrimary::Test;

my $seed   = $ENV{FOLLOW_PRIMARY_SEED}   // time ^ $$ << 8;
my $rounds = $ENV{FOLLOW_PRIMARY_ROUNDS} // 1;
my $count  = 2000 * $rounds;
srand $seed;
note("FOLLOW_PRIMARY_SEED=$seed");

my $cluster = FollowPrimary::Cluster->new(nodes => 1, ssh => 0);
my ($server) = $cluster->nodes;

# Any bytes but NUL; half of them are such as mean something.
my @telling = (split(//, q('"\\$`!;&|<>(){}[]*?~#%=,-^@: ) . "\n\t\r\a\b\e"), 'n', 'x', "\xff", "\xc3", "\\'", "'\\''", "\\n", "\n\n", '$(', "%s");
sub random_text
{
    my $length = int(rand() < 0.02 ? rand 3000 : rand 40);
    return join '', map { rand() < 0.5 ? $telling[ rand @telling ] : chr 1 + int rand 255 } 1 .. $length;
}
my @texts = ('', (map { chr } 1 .. 255), map { random_text() } 1 .. $count);

# 1. On the way to a script's arguments. A database without an encoding takes any
# bytes.
$server->safe_psql("CREATE DATABASE bytes ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
sub call
{
    my ($door, $arguments, $returns, $expression, @values) = @_;
    my $sql = "CREATE FUNCTION pg_temp.door($arguments) RETURNS $returns LANGUAGE c STRICT AS '\$libdir/follow_primary', 'follow_primary_unit_$door';\n"
        . "CREATE TEMP TABLE v (n serial, v bytea);\nCOPY v (v) FROM stdin;\n"
        . join('', map { '\\\\x' . unpack('H*', $_) . "\n" } @values)
        . "\\.\nSELECT encode($expression, 'hex') FROM v ORDER BY n;\n";
    my $out = $server->safe_psql($sql, dbname => 'bytes', timeout => 300);
    return map { pack 'H*', $_ } split /\n/, $out, -1;
}
my @quoted = call('quote', 'text', 'text', q(convert_to(pg_temp.door(convert_from(v, 'SQL_ASCII')), 'SQL_ASCII')), @texts);
is(scalar(@quoted), scalar(@texts), scalar(@texts) . ' texts are quoted');

# Sent as remote.c does it, to a shell that reads its stdin.
my $dir     = scratch_dir('shells');
my $wrapper = slurp("$FindBin::Bin/../../src/remote/wrapper.sh");
my $script  = q(for word; do printf '%s\0' "$word"; done);
my $input   = join(' ', "{\nset --", 'nonce', 'watcher', "'" . $script =~ s/'/'\\''/gr . "'", @quoted) . "\n$wrapper}\n";
my $expected = join '', map { "$_\0" } @texts;
my %shells = (sh => ['/bin/sh'], dash => ['/bin/dash'], bash => ['/bin/bash'], 'bash as sh' => ['/bin/bash', '--posix'],
    'busybox ash' => ['/bin/busybox', 'sh'], ksh => ['/bin/ksh'], mksh => ['/bin/mksh'], zsh => ['/bin/zsh', '--emulate', 'sh']);
for my $name (sort keys %shells)
{
    my @shell = @{ $shells{$name} };
    if (!-x $shell[0])
    {
        note("$name is not installed");
        next;
    }
    for my $locale ('C', 'C.UTF-8')
    {
        my ($out, $err) = run_held_open($input, { LC_ALL => $locale }, @shell, '-s', 'follow_primary');
        $out =~ s/\Anonce begin\n//;
        $out =~ s/\ntimes=[\dms., ]+\n[\dms., ]+\n\nnonce end 0\n\z//;
        ok($out eq $expected, "$name in $locale reads them byte for byte") or diag(first_difference($out, $expected), $err);
    }
}

# Keeps stdin open until the script has said that it ended, as sshd does.
sub run_held_open
{
    my ($input, $env, @command) = @_;
    unlink "$dir/stdin";
    mkfifo("$dir/stdin", 0600) or die "mkfifo: $!";
    my $process = FollowPrimary::Process->start([ 'sh', '-c', 'exec "$@" <"$0"', "$dir/stdin", @command ], env => $env);
    open my $stdin, '>:raw', "$dir/stdin" or die "fifo: $!";
    print $stdin $input;
    $stdin->flush;
    eval { wait_until('the end', sub { $process->out =~ /\nnonce end \d+\n\z/ || !$process->running }, 60) };
    close $stdin;
    die "it does not end: @command\n" if !defined $process->wait(10);
    my @result = ($process->out, $process->err);
    $process->forget;
    return @result;
}

sub first_difference
{
    my ($got, $want) = @_;
    my @got = split /\0/, $got, -1;
    my @want = split /\0/, $want, -1;
    for my $n (0 .. $#want)
    {
        next if defined $got[$n] && $got[$n] eq $want[$n];
        return "text $n of seed $seed: got " . unpack('H*', $got[$n] // '') . ', not ' . unpack('H*', $want[$n]);
    }
    return 'more than was sent';
}

# 2. On the way back the worker reads what emit prints. A shell strips the newlines at
# the end of a command's output, so no value of a script ends in one.
my @values = grep { !/\n\z/ } @texts[ 0 .. $count / 4 ];
my $emitter = slurp("$FindBin::Bin/../../src/remote/lib.sh") . "\n" . q(for word; do emit key "$word"; printf '\0'; done);
(my @words = @quoted[ grep { $texts[$_] !~ /\n\z/ } 0 .. $count / 4 ]);
$input = join(' ', 'set --', @words) . "\n$emitter\n";
for my $name (grep { -x $shells{$_}[0] } sort keys %shells)
{
    my ($code, $out, $err) = run_command([ @{ $shells{$name} }, '-s' ], in => $input, timeout => 120);
    my @lines = split /\0/, $out;
    my @read = call('reply', 'bytea', 'bytea', 'pg_temp.door(v)', map { "nonce begin\n$_\nnonce end 0\n" } @lines);
    my @wrong = grep { ($read[$_] // '') ne "key=$values[$_]\n" } 0 .. $#values;
    is(scalar(@wrong), 0, "what $name prints arrives as it was")
        or diag("seed $seed: got " . unpack('H*', $read[ $wrong[0] ] // '') . ', not ' . unpack('H*', "key=$values[$wrong[0]]\n"), substr $err, 0, 200);
}

done_testing();
