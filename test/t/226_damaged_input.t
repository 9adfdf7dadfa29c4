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
# Commits in two segments, for save_wal.sh below.
my $fork = $primary->safe_psql('SELECT pg_current_wal_insert_lsn()');
$primary->safe_psql("CREATE TABLE behind_$_ ()") for 1 .. 3;
$primary->safe_psql('SELECT pg_switch_wal()');
$primary->safe_psql("CREATE TABLE behind_$_ ()") for 4 .. 5;
$primary->wait_for_catchup($node);
my @answers = (survey_says($node), survey_says($primary), survey_says($node, "$dir/none"));
$node->stop;
push @answers, survey_says($node);
mkdir "$dir/$_" or die for 'real', 'real/global', 'real/pg_wal', 'fake', 'fake/pg_wal', 'tools';
run_ok([ 'sh', '-c', 'cp "$1"/global/pg_control "$2/global" && cp "$1"/pg_wal/0000* "$2/pg_wal"', 'sh', $node->pgdata, "$dir/real" ]);
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
# 3. The answers of save_wal.sh, verify.sh and space.sh: numbers that are not in
# them are never made up, and what is not said is not taken for good news.
#
{
    my $numbers = sub { my ($text, @keys) = @_; return grep { defined } map { $text =~ /^$_=0*(\d+)$/m } @keys };
    my %scripts = (
        save_wal => {
            whole => [ [ "lost_wal_bytes=328\nlost_transactions=2\nunarchived=0\nlost_wal_dir=/data.follow_primary/lost_wal-7\ncomplete=yes", '328 bytes, 2 transactions in /data.follow_primary/lost_wal-7' ],
                [ "lost_wal_bytes=0\nlost_transactions=0\nunarchived=0\ncomplete=no", '0 bytes, 0 transactions' ],
                [ "lost_wal_dir=/data.follow_primary/lost_wal-7\ncomplete=unknown", 'not counted, in /data.follow_primary/lost_wal-7' ] ],
            said => sub { my ($text, $understood) = @_; return $text =~ /^complete=unknown$/m if $understood =~ /^not counted/; return join(' ', $understood =~ /^(\d+) bytes, (\d+)/) eq join ' ', $numbers->($text, qw(lost_wal_bytes lost_transactions)) },
        },
        verify => {
            whole => [ map { [ "answer=t|streaming|node|3|127.0.0.1|1|t|-\nseen=$_->[0]", $_->[1] ] } [ 'row', 'shows what is written here' ],
                [ 'nothing', 'replays what is written here; it shows nothing, for hot_standby is off' ],
                [ 'paused', 'has received what is written here; it does not show it yet, for recovery is paused' ],
                [ 'delayed', 'has received what is written here; it does not show it yet, for recovery_min_apply_delay is set' ] ],
            said => sub { return $_[0] =~ /^seen=(?:row|nothing|paused|delayed)$/m },
        },
        space => {
            whole => [ [ join("\n", map { "free_$_=700000\nunfinished_$_=1000\ndevice_$_=65024\nused_$_=2000" } 0 .. 2), 6 * 1048576 - 709000 . ' bytes missing' ],
                [ join("\n", map { "free_$_=4000000\ndevice_$_=$_" } 0 .. 2), '0 bytes missing' ],
                # three file systems, of which only that of the tablespace, or only that of the WAL, is too small
                [ "free_0=9000000\ndevice_0=1\nfree_1=9000000\ndevice_1=2\nfree_2=3000000\nunfinished_2=700\nused_2=20\ndevice_2=3", 3 * 1048576 - 3000720 . ' bytes missing' ],
                [ "free_0=9000000\ndevice_0=1\nfree_1=2000000\nunfinished_1=3\nused_1=4000\ndevice_1=2\nfree_2=9000000\ndevice_2=3", 2 * 1048576 - 2004003 . ' bytes missing' ] ],
            said => sub { my ($text) = @_; return 3 == $numbers->($text, map { "free_$_" } 0 .. 2) && !grep { $text !~ /^device_$_=/m } 0 .. 2 },
        });
    for my $script (sort keys %scripts)
    {
        my @whole  = @{ $scripts{$script}{whole} };
        my @texts  = map { $_->[0] } @whole;
        my @values = (marked(@texts, some_damaged(400, @texts)), some_damaged(50, marked(@texts)));
        my @understood = try_all("answers of $script.sh", door('answer', 'script text, output bytea', 'text'), "pg_temp.door('$script', r.v)", @values);
        is_deeply([ map { $_->[2] } @understood[ 0 .. $#whole ] ], [ map { $_->[1] } @whole ], 'those that are whole are understood');
        my @made_up = grep {
            my $text = $values[ $_->[0] - 1 ] =~ s/\\(.)/$1 eq 'n' ? "\n" : $1/ger;
            $_->[1] eq '' && $_->[2] !~ /^not (?:understood|whole)/ && !$scripts{$script}{said}->($text, $_->[2])
        } @understood;
        is(scalar(@made_up), 0, 'nothing is made up') or diag("$made_up[0][2], of:\n$values[ $made_up[0][0] - 1 ]");
    }
}

#
# Of the other scripts' answers the steps ask for a failure, a word, a number or a
# text, by key. All that are asked for are tried, and so are all accessors: each has
# what is in the answer for that key, or nothing.
#
{
    my $segment = '000000010000000000000003';
    my %scripts = (
        archive     => "missing=$segment\nserved=yes",
        basebackup  => "bytes=123456789\nverified=yes",
        clean       => 'kept=/data.follow_primary/old-7 /space/.follow_primary_old-7',
        lock        => "file=/data.follow_primary/../lo\\\\ck\\n\nfresh=yes\ntaken_from=Job 3 of the primary db1:5432 has it.\nheld=yes",
        rewind      => "recovered=yes\nresult=rewound\nnext_segment=$segment",
        save_config => 'saved=12',
        start       => "was_running=no\npid=4711\nstatus=standby\nlog_file=/data.follow_primary.log",
        stop        => "was_running=yes\ncontrol_time=Sat Nov 28 12:00:00 2026\nstate=shut down in recovery\npromoted=yes");
    my %asked = map { $_ => 1 } map { slurp("$FindBin::Bin/../../src/$_.c") =~ /(?:remote_(?:get|says|number)|text_of)\(&?reply, "(\w+)"/g } qw(node wal);
    delete @asked{qw(lost_wal_bytes lost_transactions unarchived lost_wal_dir complete)};
    is(join(' ', grep { my $key = $_; !grep { /^$key=/m } values %scripts } sort keys %asked), '',
        'the keys that are asked for are in the answers: ' . join ' ', sort keys %asked);
    for my $script (sort keys %scripts)
    {
        my ($whole) = marked($scripts{$script});
        my $failed  = "nonce begin\nchanged=no\nfailed=no_space\nnonce end 1\n";
        my @damaged = (marked(some_damaged(80, $scripts{$script})), some_damaged(40, $whole, $failed));
        for my $key (grep { $scripts{$script} =~ /^$_=/m } sort keys %asked)
        {
            my @values = ($whole, $failed, marked(map { "$key=$_" } @numbers, 'yes'), @damaged);
            my @got = try_all("$key of $script.sh", door('value', 'output bytea, key text', 'text'), "pg_temp.door(r.v, '$key')", @values);
            my @wrong;
            for my $got (grep { $_->[1] eq '' } @got)
            {
                my ($said, $status) = $values[ $got->[0] - 1 ] =~ /\A([^\0]*)/s && $1 =~ /nonce begin\n(?:(.*?)\n)??nonce end (.*)/s;
                my $expected = 'not whole';
                if (defined $status)
                {
                    $said //= '';
                    my ($text) = "\n$said" =~ /\n\Q$key\E=([^\n]*)/;
                    my ($reason) = "\n$said" =~ /\nfailed=([^\n]*)/;
                    s/\\(.)/$1 eq 'n' ? "\n" : $1/ge for grep { defined } $text, $reason;
                    $text //= 'unknown';
                    $expected = join '|', $status =~ /^\s*[-+]?0*([1-9]\d*)/ && (length $1 > 18 || $1 % 4294967296) ? ($reason // '') eq 'no_space' ? 'no_space' : 'failed' : 'ok',
                        $text eq 'yes' ? 'yes' : 'no', $text =~ /\A\d{1,18}\z/ ? $text + 0 : -2, $text;
                }
                # what psql shows, and how
                my $shown = $got->[2];
                s/[^ -{}~]|\s+//g for $expected, $shown;
                s/\?//g for $expected, $shown;
                push @wrong, [ $got->[0], $shown, $expected ] if $shown ne $expected;
            }
            is(scalar(@wrong), 0, 'and it is what was said') or diag("got:  $wrong[0][1]\nwant: $wrong[0][2]\nof: " . unpack 'H*', $values[ $wrong[0][0] - 1 ]);
        }
    }
}

#
# 4. What save_wal.sh and rewind.sh read on the node: what pg_waldump and
# pg_controldata say, and history files. Where there is WAL behind the fork, all
# of it is saved, whether or not it can be counted.
#
{
    my $bin     = FollowPrimary::Node::bindir();
    my $scripts = "$FindBin::Bin/../../src/remote";
    my @all     = sort map { s{.*/}{}r } glob "$dir/real/pg_wal/0*";
    my $save    = sub {
        my ($data, $tools, $from) = @_;
        run_ok([ 'rm', '-rf', "$data.follow_primary" ]);
        my ($code, $out, $err) = run_command([ 'sh', "$scripts/save_wal.sh", $data, $tools, $from // $fork, 1, 7, 16777216 ], timeout => 60);
        return { code => $code, out => $out, err => $err, saved => join ' ', sort map { s{.*/}{}r } glob "$data.follow_primary/lost_wal-7/0*[0-9A-F]" };
    };

    # With files that were made for the future, and never written to.
    for my $file (map { sprintf "$dir/real/pg_wal/0000000100000000000000%02X", $_ } 16 .. 60)
    {
        spew($file, '');
        truncate $file, 16777216 or die;
    }
    my $whole = $save->("$dir/real", $bin);
    my @needed = split ' ', $whole->{saved};
    is(scalar(@needed), 2, "WAL before files that were made for the future is saved: @needed") or diag("$whole->{out}$whole->{err}");

    # From here on programs say what is in files, of files with little in them.
    my $control = run_ok([ "$bin/pg_controldata", "$dir/real" ]);
    my (undef, $dump, $end) = run_command([ "$bin/pg_waldump", '-p', "$dir/real/pg_wal", '-t', 1, '-s', $fork, '-e', sprintf('0/%X', 16777216 * (1 + hex substr $needed[-1], -8)), $needed[0], $needed[-1] ]);
    my $commits = () = $dump =~ /desc: COMMIT/g;
    cmp_ok($commits, '>=', 5, 'there are commits in it');
    like($whole->{out}, qr/^lost_transactions=$commits\n(?:.*\n)*complete=yes\n\z/m, 'which are counted') or diag($whole->{err});
    my ($behind) = $end =~ m{length at (\w+/\w+):} or diag($end);
    my ($first_byte, $end_byte) = map { my ($high, $low) = map { hex } split m{/}; $high * 2**32 + $low } $fork, $behind;
    like($whole->{out}, qr/^lost_wal_bytes=@{[ $end_byte - $first_byte ]}$/m, 'and so is each byte from the fork to the end of WAL');

    # A promotion of the node ended its last segment.
    my $last = "$dir/real/pg_wal/$needed[-1]";
    rename $last, "$last.partial" or die;
    my $partial = $save->("$dir/real", $bin);
    is($partial->{out}, $whole->{out}, 'what is in a partial segment is counted') or diag($partial->{err});
    ok(-s "$dir/real.follow_primary/lost_wal-7/$needed[-1].partial", 'and saved');
    is_deeply([ glob "$dir/real.follow_primary/*" ], ["$dir/real.follow_primary/lost_wal-7"], 'and nothing else is left');
    like(run_ok([ 'sh', "$scripts/save_wal.sh", "$dir/real", $bin, $fork, 1, 7, 16777216 ]), qr{^lost_wal_dir=.*/lost_wal-7\.1$}m,
        "another primary's job of that number keeps it elsewhere");
    rename "$last.partial", $last or die;

    # The fork is not known.
    my $unknown = $save->("$dir/real", $bin, '');
    is($unknown->{code}, 0, 'where the fork is not known, ') or diag($unknown->{err});
    is($unknown->{out}, "lost_wal_dir=$dir/real.follow_primary/lost_wal-7\ncomplete=unknown\n", 'nothing is said of how much is lost');
    is(scalar(grep { $unknown->{saved} !~ /\b$_\b/ } @all), 0, 'and all WAL is saved');
    spew("$dir/fake/pg_wal/$_", 'WAL') for @all;
    for my $program (qw(pg_controldata pg_waldump))
    {
        spew("$dir/tools/$program", "#!/bin/sh\ncat \$0.out\nexit \$(cat \$0.status)\n", 0755);
    }
    my $says = sub {
        my ($program, $out, $status) = @_;
        spew("$dir/tools/$program.out", $out);
        spew("$dir/tools/$program.status", $status);
    };
    my $has_all = sub { my ($saved) = @_; return !grep { $saved !~ /\b$_\b/ } @needed };
    my @wrong;
    my $try = sub {
        my ($what, $text) = @_;
        my $r = $save->("$dir/fake", "$dir/tools");
        my ($commits) = $r->{out} =~ /^lost_transactions=(\d+)$/m;
        my $counted = $r->{out} !~ /^complete=unknown$/m;
        my $right = $r->{code} == 0 && $has_all->($r->{saved})
            && ($counted ? defined $commits && $commits <= (() = slurp("$dir/tools/pg_waldump.out") =~ /COMMIT/g)
                         : $r->{out} !~ /^lost_(?:wal_bytes|transactions)=/m && $r->{err} =~ /\w/);
        # nor may the shell itself have stumbled
        $right &&= $r->{err} !~ /save_wal\.sh: |awk: /;
        push @wrong, "$what: exit code $r->{code}, saved: $r->{saved}\n$r->{out}$r->{err}of:\n$text" unless $right;
        return $counted ? 'counted' : 'all';
    };
    my $tried = sub {
        my ($what, $program, $status, @texts) = @_;
        my %how;
        $says->('pg_controldata', $control, 0);
        $says->('pg_waldump', "$dump$end", 1);
        for my $text (@texts)
        {
            $says->($program, $text, $status);
            $how{ $try->($what, $text) }++;
        }
        is(scalar(@wrong), 0, "$what: " . join ', ', map { "$_ x $how{$_}" } sort keys %how) or diag($wrong[0]);
        @wrong = ();
        return join ' ', sort keys %how;
    };
    is($tried->('pg_waldump', 'pg_waldump', 1, "$dump$end"), 'counted', 'what is whole is understood');
    $tried->('pg_waldump says anything', 'pg_waldump', 1, some_damaged(60, "$dump$end"));
    my @cut = map { substr $dump, 0, int rand length $dump } 1 .. 4;
    is($tried->('pg_waldump is killed', 'pg_waldump', 137, @cut, '', $dump), 'all', 'so all is saved');
    $tried->('pg_waldump breaks off, but is content', 'pg_waldump', 0, @cut, '');
    is($tried->('pg_waldump fails', 'pg_waldump', 1, '', $dump, "pg_waldump: error: could not open directory\n", "${dump}pg_waldump: error: could not read file\n"), 'all', 'then, too');
    $tried->('pg_controldata says anything', 'pg_controldata', 0, '', some_damaged(40, $control));

    # A node that went on to two more timelines, which are in the file.
    my $told = "1\t$behind\tno recovery target specified\n2\t$behind\tbefore 2000-01-01 00:00:00+00\n";
    $says->('pg_controldata', $control =~ s/(TimeLineID: +|timeline: +)\d+/${1}3/gr, 0);
    for my $text ($told, '', "1\n", "1\tFFFFFFFF/FFFFFFFF\n", "1\t99999999999999999999/0\n", some_damaged(40, $told))
    {
        spew("$dir/fake/pg_wal/00000003.history", $text);
        my $r = $save->("$dir/fake", "$dir/tools");
        push @wrong, "$r->{code}\n$r->{out}$r->{err}of:\n$text" unless $r->{err} !~ /save_wal\.sh: |awk: /
            && $r->{code} == 0 && $r->{out} =~ /^complete=/m && ($r->{out} !~ /^complete=unknown/m || $r->{err} =~ /\w/ && $has_all->($r->{saved}));
        ok($has_all->($r->{saved}), 'a whole history is followed') or diag("$r->{out}$r->{err}") if $text eq $told;
    }
    is(scalar(@wrong), 0, 'histories') or diag($wrong[0]);

    # A cluster in a state that nobody knows is not run as a primary.
    spew("$dir/tools/postgres", "#!/bin/sh\ntouch $dir/started\nexit 1\n", 0755);
    @wrong = ();
    for my $text ('', $control =~ s/shut down in/shut dxwn in/r, some_damaged(25, $control))
    {
        $says->('pg_controldata', $text, 0);
        unlink "$dir/started";
        my ($code, $out, $err) = run_command([ 'sh', "$scripts/rewind.sh", "$dir/fake", "$dir/tools", '', 'host=/nowhere', '', '', 7, 150000, '', '', $fork, 16777216 ]);
        run_ok([ 'rm', '-rf', "$dir/fake.follow_primary" ]);
        push @wrong, "$code\n$out${err}of:\n$text" unless $code == 1 && $out =~ /^failed=\w+$/m && $out =~ /^changed=no$/m && !-e "$dir/started";
    }
    is(scalar(@wrong), 0, 'control files before a rewind') or diag($wrong[0]);
}

#
# 5. pgpool's answers, from one that says them damaged.
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
# 6. known_hosts and key files, and programs on the node that say anything: by
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
