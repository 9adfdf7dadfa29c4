# readiness.pl - how long follow_primary_check() takes, and what the keeper costs.
#
# usage: perl -I test/lib test/bench/readiness.pl OUT_DIR [CASE ...]
# (test/bench/run calls it; not as root)
#
# Cases:
#   check   one node, three nodes everywhere, and a node that hangs
#   rows    a table of many nodes, everywhere: all servers are on this one machine
#   keeper  pgbench as fast as it goes, on a primary with two standbys: what of the
#           servers' processor time is the keepers', and what of the WAL
# Times are of a psql that calls the function, its start included. Processor time is
# that of all processes: servers, workers, sshds, and what they start.

use strict;
use warnings;

use FollowPrimary::Cluster;
use FollowPrimary::Node;
use FollowPrimary::Scratch qw(run_ok run_command wait_until slurp spew);
use POSIX qw(sysconf _SC_CLK_TCK);
use Time::HiRes qw(time);

my ($out_dir, @wanted) = @ARGV;
my $runs    = $ENV{BENCH_RUNS} // 5;
my $many    = $ENV{BENCH_NODES} // 20;
my $seconds = $ENV{BENCH_KEEPER_SECONDS} // 600;
my $hz      = sysconf(_SC_CLK_TCK);
my @lines;

sub wanted { my ($name) = @_; return !@wanted || grep { $_ eq $name } @wanted }

sub median { my @sorted = sort { $a <=> $b } @_; return ($sorted[ $#sorted / 2 ] + $sorted[ @sorted / 2 ]) / 2 }

# Ticks of the process; with children => 1 also of those that have ended.
sub ticks
{
    my ($pid, %opt) = @_;
    my $stat = eval { slurp("/proc/$pid/stat") } // return 0;
    my @field = split ' ', $stat =~ s/.*\) //r;
    return $field[11] + $field[12] + ($opt{children} ? $field[13] + $field[14] : 0);
}

sub all_ticks
{
    my $sum = 0;
    $sum += ticks($_, children => 1) for map { m{/(\d+)/} } glob '/proc/[0-9]*/stat';
    return $sum;
}

# Calls the function so many times; a line of the table.
sub measure
{
    my ($title, $limit, $node, $arguments, $rows) = @_;
    my $sql = "SELECT count(*) || ' ' || count(*) FILTER (WHERE status NOT IN ('ok', 'warning')) FROM follow_primary_check($arguments)";
    my (@times, $said);
    $node->safe_psql($sql);    # what is cached, is
    my $before = all_ticks();
    for (1 .. $runs)
    {
        my $begin = time;
        $said = $node->safe_psql($sql, timeout => 600);
        push @times, time - $begin;
    }
    my $cpu  = (all_ticks() - $before) / $hz / $runs;
    my $took = median(@times);
    my ($all, $bad) = split ' ', $said;
    push @lines, sprintf '| %s | %.3f s (at most %s: %s) | %.3f to %.3f | %.2f s | %d, %d not ok |',
        $title, $took, $limit, $took <= $limit ? 'yes' : '**no**', (sort { $a <=> $b } @times)[ 0, -1 ], $cpu, $all, $bad;
    printf STDERR "# %s\n", $lines[-1];
    return;
}

sub check_cases
{
    my $timeout = 2;
    my $cluster = FollowPrimary::Cluster->new(nodes => 3, extension => 1, conf => { shared_preload_libraries => 'follow_primary', max_worker_processes => 20, 'follow_primary.connect_timeout' => "${timeout}s" });
    my ($primary, $standby, $sibling) = $cluster->nodes;
    measure('one node', 0.3, $standby, sprintf(q{'%s', %d}, $sibling->address, $sibling->port));
    measure('3 nodes, everywhere', 2, $primary, 'everywhere => true');
    $sibling->host->ssh_freeze;
    measure("3 nodes, everywhere, one hangs: its connect_timeout of $timeout s once", $timeout + 2, $primary, 'everywhere => true');
    $sibling->host->ssh_thaw;
    $_->stop('immediate') for $cluster->nodes;
    return;
}

sub rows_case
{
    my $cluster = FollowPrimary::Cluster->new(nodes => $many, extension => 1, conf => { shared_preload_libraries => 'follow_primary',
        max_worker_processes => $many + 10, max_wal_senders => 2 * $many, max_replication_slots => 2 * $many, max_connections => 100, 'follow_primary.connect_timeout' => '60s' });
    my ($primary) = $cluster->nodes;
    measure("$many nodes", 20, $primary, '');
    measure("$many nodes, everywhere", 20, $primary, 'everywhere => true');
    $_->stop('immediate') for $cluster->nodes;
    return;
}

# Of the server's processes: the keepers' ticks, and all.
sub keepers_and_all
{
    my ($node) = @_;
    my $all = ticks($node->pid, children => 1);
    my $keepers = 0;
    for my $line (split /\n/, $node->safe_psql('SELECT pid, backend_type FROM pg_stat_activity'))
    {
        my ($pid, $type) = split /\|/, $line;
        $all += ticks($pid);
        $keepers += ticks($pid) if $type =~ /^follow_primary keeper/;
    }
    return ($keepers, $all);
}

sub keeper_case
{
    my $cluster = FollowPrimary::Cluster->new(nodes => 3, extension => 1, conf => { shared_preload_libraries => 'follow_primary', max_worker_processes => 20,
        max_wal_size => '1GB', wal_keep_size => '20GB', shared_buffers => '128MB' });
    my ($primary, $standby) = $cluster->nodes;
    run_ok([ $primary->bin('pgbench'), '-iq', '-s', 10, $primary->connstr ], timeout => 900);
    $primary->wait_for_catchup($standby);
    $primary->poll_query_until('SELECT count(*) FROM follow_primary_slot', 3) or die "no keeper\n";

    my $begin = $primary->safe_psql('CHECKPOINT; SELECT pg_current_wal_lsn()');
    my %before = map { $_->name => [ keepers_and_all($_) ] } $primary, $standby;
    my $out = run_ok([ $primary->bin('pgbench'), qw(-n -c 4 -j 1 -T), $seconds, $primary->connstr ], timeout => $seconds + 120);
    my ($transactions) = $out =~ /transactions actually processed: (\d+)/;
    my %after = map { $_->name => [ keepers_and_all($_) ] } $primary, $standby;
    my $end = $primary->safe_psql('SELECT pg_current_wal_flush_lsn()');
    my $wal = $primary->safe_psql("SELECT '$end'::pg_lsn - '$begin'::pg_lsn");

    # Every record that touches the table or its index, and as many commits.
    my ($written, $records) = (0, 0);
    for my $relation ('follow_primary_slot', 'follow_primary_slot_pkey')
    {
        my $file = $primary->safe_psql("SELECT (SELECT oid FROM pg_tablespace WHERE spcname = 'pg_default') || '/' || d.oid || '/' || c.relfilenode
            FROM pg_class c, pg_database d WHERE c.relname = '$relation' AND datname = current_database()");
        my (undef, $dump) = run_command([ $primary->bin('pg_waldump'), '-p', $primary->pgdata . '/pg_wal', '-s', $begin, '-e', $end, '-R', $file ], timeout => 900);
        while ($dump =~ m{len \(rec/tot\):\s*\d+/\s*(\d+)}g) { $written += $1; $records++ }
    }
    push @lines, sprintf 'The keeper, over %d s of pgbench (4 clients, %d transactions, %.1f GB of WAL): %.3f %% of the processor time of the primary and %.3f %% of a standby\'s; %d records of WAL, %.1f kB, which are %.4f %% of it.',
        $seconds, $transactions, $wal / 2**30,
        (map { my $name = $_->name; my ($k, $a) = map { $after{$name}[$_] - $before{$name}[$_] } 0, 1; 100 * $k / $a } $primary, $standby),
        $records, $written / 1024, 100 * $written / $wal;
    printf STDERR "# %s\n", $lines[-1];
    $_->stop('immediate') for $cluster->nodes;
    return;
}

die "usage: readiness.pl OUT_DIR [CASE ...]\n" if !defined $out_dir;
die "PostgreSQL does not run as root\n" if $> == 0;

my $cores   = () = slurp('/proc/cpuinfo') =~ /^processor\s*:/mg;
my ($load)  = slurp('/proc/loadavg') =~ /^(\S+)/;
my $version = (split /\n/, run_ok([ FollowPrimary::Node::bindir() . '/postgres', '-V' ]))[0];

check_cases() if wanted('check');
rows_case()   if wanted('rows');
my @times = @lines;
@lines = ();
keeper_case() if wanted('keeper');

my $text = <<"END";
# What readiness costs

Written by `make bench`: $version, $cores cores, all servers, sshds and clients on this one machine, whose load average was $load
before. Times are medians of $runs calls by psql. *Processor time* is that of all processes on the machine, which are many
machines' in real life: of $many nodes everywhere, each server takes a ${many}th.

END
$text .= join "\n", '| follow_primary_check() | time | its runs | processor time | rows |', '|---|---|---|---|---|', @times, '' if @times;
$text .= "\n$_\n" for @lines;
spew("$out_dir/readiness.md", $text, 0644) if !@wanted || @wanted == 3;
print $text;
