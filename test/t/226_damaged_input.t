# What another machine says may be damaged in any way: the outputs of the remote
# scripts and of the programs they run, history files, pgpool's answers, the
# known_hosts file and keys. The server must never crash on it, which would take
# the whole cluster down, nor fail by an internal error, nor grow. Every parser
# gets damaged copies of what is really said. They are damaged alike each time;
# FOLLOW_PRIMARY_SEED makes other ones, FOLLOW_PRIMARY_ROUNDS more of them.

use FindBin;
use IO::Socket::INET;
use FollowPrimary::Test;

my $seed   = $ENV{FOLLOW_PRIMARY_SEED}   // 1;
my $rounds = $ENV{FOLLOW_PRIMARY_ROUNDS} // 1;
srand $seed;
note("FOLLOW_PRIMARY_SEED=$seed");

my $cluster = FollowPrimary::Cluster->new(nodes => 2, extension => 1, sshd_conf => "MaxStartups 500\n");
my ($primary, $node) = $cluster->nodes;
my $host = $node->address;
my $dir  = scratch_dir('damaged');
my ($postmaster, $log_start) = ($primary->pid, $primary->log_size);

# A few changes of any kind to a text.
my @numbers = qw(-1 0 4294967295 4294967296 18446744073709551615 18446744073709551616 99999999999999999999999 0x 1e9 FFFFFFFF/FFFFFFFF);
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
sub some_damaged { my ($n, @samples) = @_; return map { damaged($samples[ rand @samples ]) } 1 .. $n * $rounds }

sub survives
{
    my ($what) = @_;
    is($primary->pid, $postmaster, "$what: the server runs on");
    my $log = $primary->log_content($log_start);
    unlike($log, qr/was terminated by signal|PANIC:|TRAP:|XX000/, 'and no process of it has died');
    return;
}

# The SQL expression of v for each of the values, in one session; %s is v.
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
    my ($code, $out, $err) = $primary->psql($sql, timeout => 600);
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
sub door
{
    my ($name, $arguments, $returns) = @_;
    return "CREATE FUNCTION pg_temp.door($arguments) RETURNS $returns LANGUAGE c STRICT AS '\$libdir/follow_primary', 'follow_primary_unit_$name'";
}

#
# 1. The answers of a survey: of a standby that runs, a primary, and a server
# that is down, with records of its WAL in them.
#
sub survey_says
{
    my ($of, $pgdata) = @_;
    my $out = run_ok([ 'sh', "$FindBin::Bin/../../src/remote/survey.sh", $pgdata // $of->pgdata, $of->port, FollowPrimary::Node::bindir(), '',
        'postgres', 'postgres', '', 16777216, $of->address, '1/0/1000028 2/0/1000028 3/0/1800000' ],
        env => { SSH_CONNECTION => '127.0.0.1 1 127.0.0.1 2' });
    return $out;
}
sub marked { return map { "nonce begin\n$_\nnonce end 0\n" } @_ }
my @answers = (survey_says($node), survey_says($primary), survey_says($node, "$dir/none"));
$node->stop;
push @answers, survey_says($node);
my $history = "1\t0/1000000\tno recovery target specified\n\n2\t0/1800000\tbefore 2000-01-01 00:00:00+00\n";
# Nodes that are on this server's timeline or beyond, as after a failover.
for my $answer (@answers[ 0, 1, 3 ])
{
    (my $later = $answer) =~ s/^wal_timeline=.*/wal_timeline=00000003/m;
    my $flat = $history =~ s/\n/\\n/gr;
    $later =~ s/^(pgdata_state=ok\n)/$1history.00000003=$flat\nslot.other=physical active\ntablespace.16400=\/space\n/m;
    push @answers, $later, $later =~ s/^(pgdata_state=ok\n)/$1mark=job=1\\nphase=rewinding\n/mr;
}
$node->start;
my @results = try_all('surveys', door('survey', 'output bytea, port int', 'text'), "pg_temp.door(r.v, @{[ $node->port ]})", marked(@answers, some_damaged(3000, @answers)), some_damaged(300, marked(@answers)));
is(join(' ', map { $_->[2] =~ /^(\w+)/ } @results[ 0 .. $#answers ]), 'rewind rewind refuse rewind repoint basebackup rewind basebackup rewind basebackup', 'those that are whole are understood')
    or diag(map { "$_->[2]\n" } @results[ 0 .. $#answers ]);

#
# 2. Histories and connection strings.
#
try_all('histories', door('history', 'file bytea, tli int', 'int'), 'pg_temp.door(r.v, 3)', $history, some_damaged(2000, $history, $history x 20));
my $conninfo = q(host=db1 port=5432 user='re pl' password='it\'s' application_name=a\\\\b sslmode=prefer options='-c geqo=off');
try_all('connection strings',
    'CREATE FUNCTION pg_temp.door(base text, options text, host text, port integer, "user" text, application_name text)'
        . " RETURNS text LANGUAGE c AS '\$libdir/follow_primary', 'follow_primary_unit_conninfo'",
    "length(pg_temp.door(convert_from(r.v, 'LATIN1'), convert_from(r.v, 'LATIN1'), 'db2', 5432, NULL, 'x'))",
    $conninfo, grep { !/\0/ } some_damaged(1000, $conninfo, 'postgresql://u:p@[::1]:5432,h2:1/db?sslmode=prefer&options=a%20b'));

#
# 3. pgpool's answers, from one that says them damaged.
#
{
    my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 0, Listen => 50, Proto => 'tcp') or die;
    my $count  = 150 * $rounds;
    my $packet = sub { my ($type, $body) = @_; return $type . pack('N', 4 + length $body) . $body };
    my @dialogue = ($packet->('m', 'salt'), $packet->('r', "AuthenticationOK\0"),
        $packet->('i', "ArraySize\0" . "1\0") . $packet->('i', "NodeInfo\0node0\0005432\0002\000up\0"),
        $packet->('l', "CommandComplete\0003\0"), $packet->('E', "SERROR\0Mno\0Dat all\0\0"));
    my $child = fork // die;
    if ($child == 0)
    {
        $SIG{$_} = 'DEFAULT' for qw(HUP INT TERM);
        srand $seed;
        my $connection = 0;
        while (my $client = $listener->accept)
        {
            # The first is answered as it should be, both questions of it.
            my @says = @dialogue[ 0, 1, $connection == 1 ? 3 : 2 ];
            if ($connection++ > 1)
            {
                my $n = int rand @says;
                $says[$n] = rand() < 0.2 ? $dialogue[4] : $says[$n];
                $says[$n] = damaged($says[$n]);
                # A length that fits, for what comes after it to be read.
                substr($says[$n], 1, 4) = pack 'N', length($says[$n]) - 1 if rand() < 0.5 && length $says[$n] > 5;
            }
            my $select = '';
            vec($select, fileno($client), 1) = 1;
            for my $answer (@says)
            {
                select(my $ready = $select, undef, undef, 1) or last;
                sysread $client, my $question, 4096 or last;
                syswrite $client, $answer;
            }
            close $client;
        }
        POSIX::_exit(0);
    }
    spew("$dir/pcppass", "*:*:pgpool:secret\n", 0600);
    my @answered = try_all("pgpool's answers", door('pcp', 'port int, "user" text, file text', 'text'),
        "pg_temp.door(@{[ $listener->sockport ]}, 'pgpool', '$dir/pcppass')", map { chr } (0) x $count);
    is($answered[0][2], '3 nodes, node0:5432 is 2', 'what is whole is understood');
    kill 'KILL', $child;
    waitpid $child, 0;
}

#
# 4. known_hosts and key files, and programs on the node that say anything: by
# whole plans, from one session, which must not grow by them.
#
my @known = some_damaged(60, slurp($cluster->known_hosts), "@ revoked\n" . slurp($cluster->known_hosts) . "|1|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|3988QV0VE8wmZL7suNrYQLITLCg= ssh-rsa AAAA\n");
my @keys = some_damaged(40, slurp($cluster->ssh_key));
spew("$dir/known.$_", $known[$_]) for 0 .. $#known;
spew("$dir/key.$_", $keys[$_], 0600) for 0 .. $#keys;
my @programs;
my %real = map { $_ => run_ok([ FollowPrimary::Node::bindir() . "/$_", $_ eq 'pg_controldata' ? $node->pgdata : '--version' ]) } qw(pg_controldata psql);
my $bin_dir = FollowPrimary::Node::bindir();
for my $n (0 .. 40 * $rounds - 1)
{
    mkdir "$dir/bin.$n" or die;
    for my $program (qw(pg_controldata psql postgres))
    {
        spew("$dir/bin.$n/$program.out", damaged($program eq 'pg_controldata' ? $real{$program} : join "\n", map { /^((?:sql|set|slot)\..*)/ } split /\n/, $answers[0]));
        spew("$dir/bin.$n/$program", "#!/bin/sh\ncase \$* in *-V*|*--version*) exec $bin_dir/$program \"\$@\" ;; esac\ncat \"\$0.out\"\n", 0755);
    }
}
my @plans = ((map { "ssh_known_hosts_file = '$dir/known.$_'" } 0 .. $#known), (map { "ssh_key_file = '$dir/key.$_'" } 0 .. $#keys),
    (map { "node_bin_dir = '$dir/bin.$_'" } 0 .. 40 * $rounds - 1));
my $plan = "SELECT method FROM follow_primary_plan('$host', @{[ $node->port ]})";
my $grown = '\\! grep VmRSS /proc/$PID/status; find /proc/$PID/fd -type l -printf "%l\n" | grep -Evc "^/(.*/data|dev)/"';
my $sql = "SELECT pg_backend_pid() AS pid \\gset\n\\setenv PID :pid\nSET client_min_messages = fatal;\n" . "$plan;\n" x 5;
my @set = map { "BEGIN;\nUPDATE follow_primary_node SET $_ WHERE host = '$host';\n\\o /dev/null\n$plan;\n\\o\n\\echo state :SQLSTATE\nROLLBACK;\n" } @plans;
# The first of each kind load what stays loaded.
$sql .= join('', @set) . "$grown\n" . join('', @set[ grep { $_ % 2 } 0 .. $#set ]) . "$grown\n";
my ($code, $out, $err) = $primary->psql($sql, timeout => 600, keep_going => 1);
my %states;
$states{$1}++ while $out =~ /^state (\S+)/mg;
my @internal = grep { /^XX/ } keys %states;
is(scalar(@internal), 0, "known hosts, keys and programs: " . join ', ', map { "$_ x $states{$_}" } sort keys %states);
survives('plans');
my ($rss, $fds, $rss_after, $fds_after) = $out =~ /VmRSS:\s*(\d+) kB\n(\d+)\n.*VmRSS:\s*(\d+) kB\n(\d+)\n/s;
is($fds_after, $fds, 'the session has no more open files');
cmp_ok($rss_after - $rss, '<', $ENV{FOLLOW_PRIMARY_VALGRIND} ? 100000 : 1000, "nor much more memory, after plans that failed: $rss kB, $rss_after kB");

done_testing();
