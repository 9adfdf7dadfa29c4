# Programs and files of a node may say anything: pg_waldump, pg_controldata, psql,
# history files, keys and known_hosts. The scripts must save all WAL that they cannot
# count, and start nothing in a state that nobody knows; a session must not fail by an
# internal error, nor grow. Real scripts and whole plans read damaged copies of real
# texts.

use FindBin;
use FollowPrimary::Damage;
use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 2, extension => 1, sshd_conf => "MaxStartups 500\n");
my ($primary, $node) = $cluster->nodes;
my $host = $node->address;
my $dir  = scratch_dir('damaged');
watch($primary);

# Commits in two segments.
my $fork = $primary->safe_psql('SELECT pg_current_wal_insert_lsn()');
$primary->safe_psql("CREATE TABLE behind_$_ ()") for 1 .. 3;
$primary->safe_psql('SELECT pg_switch_wal()');
$primary->safe_psql("CREATE TABLE behind_$_ ()") for 4 .. 5;
$primary->wait_for_catchup($node);
my $answer = survey_says($node);
$node->stop;
mkdir "$dir/$_" or die for 'real', 'real/global', 'real/pg_wal', 'fake', 'fake/pg_wal', 'tools';
run_ok([ 'sh', '-c', 'cp "$1"/global/pg_control "$2/global" && cp "$1"/pg_wal/0000* "$2/pg_wal"', 'sh', $node->pgdata, "$dir/real" ]);
$node->start;

#
# 1. count_wal.sh, stage_wal.sh and rewind.sh read what pg_waldump and pg_controldata
# say, and history files. If there is WAL behind the fork, they save all of it,
# whether or not they can count it.
#
{
    my $bin     = bindir();
    my @all     = sort map { s{.*/}{}r } glob "$dir/real/pg_wal/0*";
    # as before and after a copy: the data itself stays as it is
    my $save    = sub {
        my ($data, $tools, $from) = @_;
        my %args = (pgdata => $data, bin => $tools, job => 7);
        run_ok([ 'rm', '-rf', "$data.follow_primary" ]);
        my ($code, $out, $err) = run_command(remote_script('stage_wal', { %args, data => 'replaced', fork_lsn => $from // $fork, fork_tli => 1 }), timeout => 60);
        my $staged = "$data.follow_primary/job/lost";
        if ($code == 0 && -d $staged)
        {
            rename $staged, "$data.follow_primary/lost_wal-7" or die;
            rmdir "$data.follow_primary/job";
            ($code, $out, my $more) = run_command(remote_script('count_wal', { %args }), timeout => 60);
            $err .= $more;
        }
        return { code => $code, out => $out, err => $err, saved => join ' ', sort map { s{.*/}{}r } glob "$data.follow_primary/lost_wal-7/0*[0-9A-F]" };
    };

    # Some files were made for the future, and never written to.
    for my $file (map { sprintf "$dir/real/pg_wal/0000000100000000000000%02X", $_ } 16 .. 60)
    {
        spew($file, '');
        truncate $file, 16777216 or die;
    }
    my $whole = $save->("$dir/real", $bin);
    my @needed = split ' ', $whole->{saved};
    is(scalar(@needed), 2, "WAL before files that were made for the future is saved: @needed") or diag("$whole->{out}$whole->{err}");

    # From here on the programs print the contents of files, and the data directory
    # has little in it.
    my $control = run_ok([ "$bin/pg_controldata", "$dir/real" ]);
    my (undef, $dump, $end) = run_command([ "$bin/pg_waldump", '-p', "$dir/real/pg_wal", '-t', 1, '-s', $fork, '-e', sprintf('0/%X', 16777216 * (1 + hex substr $needed[-1], -8)), $needed[0], $needed[-1] ]);
    my $commits = () = $dump =~ /desc: COMMIT/g;
    cmp_ok($commits, '>=', 5, 'there are commits in it');
    like($whole->{out}, qr/^lost_transactions=$commits\n(?:.*\n)*complete=yes$/m, 'which are counted') or diag($whole->{err});
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
    rename "$last.partial", $last or die;

    # The fork is not known.
    my $unknown = $save->("$dir/real", $bin, '');
    is($unknown->{code}, 0, 'where the fork is not known, ') or diag($unknown->{err});
    like($unknown->{out}, qr{^complete=unknown\nlost_wal_dir=\Q$dir\E/real\.follow_primary/lost_wal-7\n\z}m, 'where all is that may be lost');
    unlike($unknown->{out}, qr/^lost_(?:wal_bytes|transactions)=/m, 'nothing is said of how much is lost');
    is(scalar(grep { $unknown->{saved} !~ /\b$_\b/ } @all), 0, 'and all WAL is saved');

    # The same before a rewind: pg_rewind and the server write to all but what is on a timeline that
    # the primary does not have.
    my $foreign = "$dir/real/pg_wal/000000020000000000000009";
    spew($foreign, "of another timeline\n");
    run_ok([ 'rm', '-rf', "$dir/real.follow_primary" ]);
    my $rewound = run_ok(remote_script('stage_wal', { pgdata => "$dir/real", bin => $bin, job => 7, data => 'rewound', primary_tli => 1 }));
    like($rewound, qr/^lost=yes\nlinked=1\ncopied=\d\d\n/m, 'before a rewind only what nobody writes to is a link');
    is(join(' ', map { s{.*/}{}r } grep { (stat)[3] > 1 } glob "$dir/real.follow_primary/job/lost/*"), '000000020000000000000009', 'which is on a timeline of the node alone');
    is(scalar(grep { !-e "$dir/real.follow_primary/job/lost/$_" } @all), 0, 'all WAL is staged');
    unlink $foreign;
    # with the address in it that belongs to the name
    spew("$dir/fake/pg_wal/$_", pack 'SSLQ', 0xD110, 2, 1, 16777216 * hex substr $_, -8) for grep { !/history/ } @all;
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
        # The shell itself did not stumble, either.
        $right &&= $r->{err} !~ /(?:stage|count)_wal\.sh: |awk: /;
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

    # The history file of a node that went on to two more timelines.
    my $told = "1\t$behind\tno recovery target specified\n2\t$behind\tbefore 2000-01-01 00:00:00+00\n";
    $says->('pg_controldata', $control =~ s/(TimeLineID: +|timeline: +)\d+/${1}3/gr, 0);
    for my $text ($told, '', "1\n", "1\tFFFFFFFF/FFFFFFFF\n", "1\t99999999999999999999/0\n", some_damaged(40, $told))
    {
        spew("$dir/fake/pg_wal/00000003.history", $text);
        my $r = $save->("$dir/fake", "$dir/tools");
        push @wrong, "$r->{code}\n$r->{out}$r->{err}of:\n$text" unless $r->{err} !~ /(?:stage|count)_wal\.sh: |awk: /
            && $r->{code} == 0 && $r->{out} =~ /^complete=/m && ($r->{out} !~ /^complete=unknown/m || $r->{err} =~ /\w/ && $has_all->($r->{saved}));
        ok($has_all->($r->{saved}), 'a whole history is followed') or diag("$r->{out}$r->{err}") if $text eq $told;
    }
    is(scalar(@wrong), 0, 'histories') or diag($wrong[0]);

    # The script does not run a cluster as a primary whose state nobody knows.
    spew("$dir/tools/postgres", "#!/bin/sh\ntouch $dir/started\nexit 1\n", 0755);
    @wrong = ();
    for my $text ('', $control =~ s/shut down in/shut dxwn in/r, some_damaged(25, $control))
    {
        $says->('pg_controldata', $text, 0);
        unlink "$dir/started";
        my ($code, $out, $err) = run_command(remote_script('rewind', { pgdata => "$dir/fake", bin => "$dir/tools", job => 7, conninfo => 'host=/nowhere', version => 150000, fork_lsn => $fork }));
        run_ok([ 'rm', '-rf', "$dir/fake.follow_primary" ]);
        push @wrong, "$code\n$out${err}of:\n$text" unless $code == 1 && $out =~ /^failed=\w+$/m && $out =~ /^changed=no$/m && !-e "$dir/started";
    }
    is(scalar(@wrong), 0, 'control files before a rewind') or diag($wrong[0]);
}

#
# 2. known_hosts, key files, and programs on the node that say anything. Whole plans
# read them in one session, which must not grow.
#
my @known = some_damaged(60, slurp($cluster->known_hosts), "@ revoked\n" . slurp($cluster->known_hosts) . "|1|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|3988QV0VE8wmZL7suNrYQLITLCg= ssh-rsa AAAA\n");
my @keys = some_damaged(40, slurp($cluster->ssh_key));
spew("$dir/known.$_", $known[$_]) for 0 .. $#known;
spew("$dir/key.$_", $keys[$_], 0600) for 0 .. $#keys;
my @programs;
my %real = map { $_ => run_ok([ bindir() . "/$_", $_ eq 'pg_controldata' ? $node->pgdata : '--version' ]) } qw(pg_controldata psql);
my $bin_dir = bindir();
for my $n (0 .. 40 * $rounds - 1)
{
    mkdir "$dir/bin.$n" or die;
    for my $program (qw(pg_controldata psql postgres))
    {
        spew("$dir/bin.$n/$program.out", damaged($program eq 'pg_controldata' ? $real{$program} : join "\n", map { /^((?:sql|set|slot)\..*)/ } split /\n/, $answer));
        spew("$dir/bin.$n/$program", "#!/bin/sh\ncase \$1 in -V|--version) exec $bin_dir/$program \"\$@\" ;; esac\ncat \"\$0.out\"\n", 0755);
    }
}
my @plans = ((map { "ssh_known_hosts_file = '$dir/known.$_'" } 0 .. $#known), (map { "ssh_key_file = '$dir/key.$_'" } 0 .. $#keys),
    (map { "node_bin_dir = '$dir/bin.$_'" } 0 .. 40 * $rounds - 1));
my $plan = "SELECT method FROM follow_primary_plan('$host', @{[ $node->port ]})";
my $grown = '\\! grep VmRSS /proc/$PID/status; find /proc/$PID/fd -type l -printf "%l\n" | grep -Evc "^/(.*/data|dev)/"';
my $sql = "SELECT pg_backend_pid() AS pid \\gset\n\\setenv PID :pid\nSET client_min_messages = fatal;\n" . "$plan;\n" x 5;
my @set = map { "BEGIN;\nUPDATE follow_primary_node SET $_ WHERE host = '$host';\n\\o /dev/null\n$plan;\n\\o\n\\echo state :SQLSTATE\nROLLBACK;\n" } @plans;
# The first of each kind make libraries load data that stays.
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
