# The answers of another machine may be damaged in any way: outputs of the remote
# scripts, history files, connection strings, pgpool's packets. The server must not
# crash on them, which would take the whole cluster down, nor fail by an internal
# error, nor make anything up. Every parser gets damaged copies of real answers.

use FindBin;
use IO::Socket::INET;
use FollowPrimary::Damage;
use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 2, extension => 1);
my ($primary, $node) = $cluster->nodes;
my $dir = scratch_dir('damaged');
watch($primary);

#
# 1. The answers of a survey: of a standby that runs, a primary, and a server that is
# down, with records of their WAL.
#
sub marked { return map { "nonce begin\n$_\nnonce end 0\n" } @_ }
my @answers = (survey_says($node), survey_says($primary), survey_says($node, "$dir/none"));
$node->stop;
push @answers, survey_says($node);
my $history = "1\t0/1000000\tno recovery target specified\n\n2\t0/1800000\tbefore 2000-01-01 00:00:00+00\n";
# Nodes on this server's timeline or above it, as after a failover.
for my $answer (@answers[ 0, 1, 3 ])
{
    (my $later = $answer) =~ s/^wal_timeline=.*/wal_timeline=00000003/m;
    my $flat = $history =~ s/\n/\\n/gr;
    $later =~ s/^(pgdata_state=ok\n)/$1history.00000003=$flat\nslot.other=physical active\ntablespace.16400=\/space\n/m;
    push @answers, $later, $later =~ s/^(pgdata_state=ok\n)/$1mark_phase=rewinding\nmark_token=1\nmark_stale=no\n/mr;
}
$node->start;
my @results = try_all('surveys', door('survey', 'output bytea, port int', 'text'), "pg_temp.door(r.v, @{[ $node->port ]})", marked(@answers, some_damaged(3000, @answers)), some_damaged(300, marked(@answers)));
is(join(' ', map { $_->[2] =~ /^(\w+)/ } @results[ 0 .. $#answers ]), 'rewind rewind refuse rewind repoint basebackup rewind basebackup repoint basebackup', 'those that are whole are understood')
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
# 3. The answers of count_wal.sh, verify.sh and space.sh: the server makes up no number
# that is not in them, and takes nothing for good news that they do not say.
#
{
    my $numbers = sub { my ($text, @keys) = @_; return grep { defined } map { $text =~ /^$_=0*(\d+)$/m } @keys };
    my %scripts = (
        count_wal => {
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
                # three file systems: only that of the tablespace, or only that of the
                # WAL, is too small
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
# The steps ask the other scripts' answers for a failure, a word, a number or a text,
# by key. The test tries all keys that they ask for, and all accessors: each has what
# the answer has for that key, or nothing.
#
{
    my $segment = '000000010000000000000003';
    my %scripts = (
        archive     => "missing=$segment\nserved=yes",
        basebackup  => "bytes=123456789\nverified=yes",
        clean       => 'kept=/data.follow_primary/old-7 /space/.follow_primary_old-7',
        configure   => "changed=yes\ngated=yes",
        lock        => "file=/data.follow_primary/../lo\\\\ck\\n\nfresh=yes\ntaken_from=Job 3 of the primary db1:5432 has it.\nheld=yes",
        rewind      => "recovered=yes\nresult=rewound\nnext_segment=$segment",
        save_config => 'saved=12',
        start       => "was_running=no\nemptied=yes\npid=4711\nstatus=standby\nlog_file=/data.follow_primary.log\nstarted_with=restore_command",
        stop        => "was_running=yes\ncontrol_time=Sat Nov 28 12:00:00 2026\npromoted=yes\nremedy=End process 7 there.\nstarted_by=/usr/lib/postgresql/15/bin/postgres -D /data");
    my %asked = map { $_ => 1 } map { slurp($_) =~ /(?:remote_(?:get|says|number)|text_of)\(&?reply, "(\w+)"/g }
        grep { -e } map { "$FindBin::Bin/../../src/$_.c" } qw(node wal steps/config steps/copy steps/node steps/rewind);
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
                # What psql shows, and how.
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
# 4. pgpool's answers, from a server that damages them.
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
            # The first connection, which asks twice, gets whole answers.
            my @says = @dialogue[ 0, 1, $connection == 1 ? 3 : 2 ];
            if ($connection++ > 1)
            {
                my $n = int rand @says;
                $says[$n] = rand() < 0.2 ? $dialogue[4] : $says[$n];
                $says[$n] = damaged($says[$n]);
                # A length that fits, so that the rest is read.
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

done_testing();
