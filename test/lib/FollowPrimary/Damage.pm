package FollowPrimary::Damage;

# Damaged copies of what another machine says, and a server that has to survive
# them.  They are damaged alike each time: FOLLOW_PRIMARY_SEED makes other ones,
# FOLLOW_PRIMARY_ROUNDS more of them.
#
#   use FollowPrimary::Damage;
#
#   watch($server);
#   my @results = try_all('histories', door('history', 'file bytea, tli int', 'int'),
#       'pg_temp.door(r.v, 3)', $whole, some_damaged(2000, $whole));

use strict;
use warnings;

use Exporter qw(import);
use FollowPrimary::Node;
use FollowPrimary::Scratch qw(run_ok remote_script);
use FindBin;
use Test::More;

our @EXPORT = qw(@numbers $rounds $seed damaged some_damaged watch survives try_all door survey_says);

our $seed   = $ENV{FOLLOW_PRIMARY_SEED}   // 1;
our $rounds = $ENV{FOLLOW_PRIMARY_ROUNDS} // 1;
srand $seed;
note("FOLLOW_PRIMARY_SEED=$seed");

our @numbers = qw(-1 0 4294967295 4294967296 18446744073709551615 18446744073709551616 99999999999999999999999 0x 1e9 FFFFFFFF/FFFFFFFF);

# A few changes of any kind to a text.
sub damaged
{
    my ($text) = @_;
    for (1 .. 1 + int rand 4)
    {
        my $length = length $text;
        my $at     = int rand($length + 1);
        my $kind   = int rand 11;
        my @lines  = split /^/, $text;
        if    ($kind == 0) { $text = substr $text, 0, $at }
        elsif ($kind == 1) { substr($text, $at, int rand 20) = '' }
        elsif ($kind == 2 && $at < $length) { vec($text, $at, 8) ^= 1 << int rand 8 }
        elsif ($kind == 3) { substr($text, $at, 0) = join '', map { chr int rand 256 } 1 .. 1 + rand 12 }
        elsif ($kind == 4) { substr($text, $at, 0) = ('x', '\\', '=', "\n", ' ', "\xff", '%n%s', "\0", ',')[ rand 9 ] x (1 << rand 13) }
        elsif ($kind == 5 && @lines) { splice @lines, rand @lines, 1; $text = join '', @lines }
        elsif ($kind == 6 && @lines) { push @lines, $lines[ rand @lines ]; $text = join '', @lines }
        elsif ($kind == 7 && @lines) { @lines[ 0, -1 ] = @lines[ -1, 0 ]; $text = join '', @lines }
        elsif ($kind == 8) { my $n = $numbers[ rand @numbers ]; my $i = int rand 40; $text =~ s/\d+/$i-- == 0 ? $n : $&/ge }
        elsif ($kind == 9 && @lines) { my $line = \$lines[ rand @lines ]; $$line =~ s/([=:\t ]).*/$1/; $text = join '', @lines }
        elsif ($kind == 10 && @lines) { my $line = \$lines[ rand @lines ]; chop $$line; chop $$line; $text = join '', @lines }
    }
    return $text;
}

# So many damaged copies of the samples.
sub some_damaged
{
    my ($n, @samples) = @_;
    return map { damaged($samples[ rand @samples ]) } 1 .. $n * $rounds;
}

# The server that must survive all that follows.
my ($server, $postmaster, $log_start);

sub watch
{
    ($server) = @_;
    ($postmaster, $log_start) = ($server->pid, $server->log_size);
    return;
}

# The server has not restarted, nor has a process of it died.
sub survives
{
    my ($what) = @_;
    is($server->pid, $postmaster, "$what: the server runs on");
    my $log = $server->log_content($log_start);
    unlike($log, qr/was terminated by signal|PANIC:|TRAP:|XX000/, 'and no process of it has died');
    return;
}

# The SQL expression for each of the values, which it has as r.v, in one session.
# Returns [ number, SQLSTATE, result or message ] of each.
sub try_all
{
    my ($what, $create, $expression, @values) = @_;
    my $sql = "SET client_min_messages = error;\n$create;\nCREATE TEMP TABLE result (n int, sqlstate text, message text);\n"
        . "CREATE TEMP TABLE v (n serial, v bytea);\nCOPY v (v) FROM stdin;\n"
        . join('', map { '\\\\x' . unpack('H*', $_) . "\n" } @values)
        . "\\.\n" . <<"END";
DO \$code\$
DECLARE r record; m text; s text; result text;
BEGIN
    FOR r IN SELECT * FROM v ORDER BY n LOOP
        BEGIN
            result := $expression;
            INSERT INTO result VALUES (r.n, '', result);
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS m = MESSAGE_TEXT, s = RETURNED_SQLSTATE;
            INSERT INTO result VALUES (r.n, s, m);
        END;
    END LOOP;
END \$code\$;
SELECT n, sqlstate, replace(message, E'\\n', ' ') FROM result ORDER BY n;
END
    my ($code, $out, $err) = $server->psql($sql, timeout => 600);
    is($code, 0, "$what: " . @values . ' cases') or diag($err);
    my @results = map { [ split /\|/, $_, 3 ] } split /\n/, $out;
    my %how;
    $how{ $_->[1] || $_->[2] }++ for @results;
    my @internal = grep { $_->[1] =~ /^XX/ } @results;
    my @most = sort { $how{$b} <=> $how{$a} || $a cmp $b } keys %how;
    $#most = 4 if @most > 5;
    is(scalar(@internal), 0, join ', ', map { "$_ x $how{$_}" } @most)
        or diag("case $internal[0][0]: $internal[0][1] $internal[0][2]\n" . unpack 'H*', $values[ $internal[0][0] - 1 ]);
    survives($what);
    return @results;
}

# Makes one of the library's doors to its internal functions a function pg_temp.door.
sub door
{
    my ($name, $arguments, $returns) = @_;
    return "CREATE FUNCTION pg_temp.door($arguments) RETURNS $returns LANGUAGE c STRICT AS '\$libdir/follow_primary', 'follow_primary_unit_$name'";
}

# What survey.sh says of a server.
sub survey_says
{
    my ($of, $pgdata) = @_;
    my $out = run_ok(remote_script('survey', { pgdata => $pgdata // $of->pgdata, bin => FollowPrimary::Node::bindir(), port => $of->port, host => $of->address,
            records => join ' ', map { "$_->[0]:000000010000000000000001:$_->[1]" } [ '1/0/1000028', 40 ], [ '2/0/1000028', 40 ], [ '3/0/1800000', 8388608 ] }),
        env => { SSH_CONNECTION => '127.0.0.1 1 127.0.0.1 2' });
    return $out;
}

1;
