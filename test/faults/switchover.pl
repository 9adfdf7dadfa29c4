# Stops a switchover at every step, with every fault, and prints a table of what held.
#
# usage: perl -I test/lib -I test/faults test/faults/switchover.pl [step=REGEX] [fault=REGEX]
#
# A filter has to match the whole name. Clients write to both servers all the time, each to
# one, whenever that is a primary. After each fault, what was ended is started again, as
# the operating system would do it. Then
#   - there was never a second primary: once the standby has taken a row, the former
#     primary takes none
#   - there was none for no longer than the time limit, and the time of a start
#   - one more call finishes, and all nodes stream
#   - no acknowledged row is lost
# A fault comes when the step before it has been told of; the steps are short, so it may hit
# the beginning of the next one. Exits 1 when a case failed.

use strict;
use warnings;

use Faults;
use FollowPrimary::Cluster;
use FollowPrimary::Network;
use FollowPrimary::Scratch qw(wait_until our_processes slurp);
use FollowPrimary::Writer;
use Time::HiRes qw(sleep time);

use constant {
    LIMIT_S => 12,    # of the call
    START_S => 15,    # for what was ended to be a primary again
};

my %want = map { /\A(method|step|fault)=(.+)\z/ ? ($1 => $2) : /\A(?:sample|part|minutes|point)=/ ? () : die "not understood: $_\n" } @ARGV;
exit 0 if defined $want{method} && 'switchover' !~ /\A(?:$want{method})\z/;
die "PostgreSQL does not run as root\n" if $> == 0;
Faults::enter_namespace();
$| = 1;

# Each step, and what is told before it begins.
my @steps = ([ check => undef ], [ prepare => 'check' ], [ stop => 'prepare' ], [ promote => 'stop' ], [ follow => 'promote' ]);
my @faults = qw(terminate kill immediate cut host network);

my $cluster = FollowPrimary::Cluster->new(nodes => 3, extension => 1, conf => {
    wal_retrieve_retry_interval      => '200ms',
    'follow_primary.connect_timeout' => '10s',
    'follow_primary.verify_timeout'  => '20s' });
$_->set('follow_primary.primary_host' => $_->address) for $cluster->nodes;
$_->reload for $cluster->nodes;
my ($from, $to, $sibling) = $cluster->nodes;
my $number = 0;

# The session that switches over.
sub session_pid
{
    return $to->safe_psql(q{SELECT pid FROM pg_stat_activity WHERE query LIKE '%follow_primary_switchover(%' AND pid <> pg_backend_pid()
        AND backend_type = 'client backend' LIMIT 1});
}

# All that runs on the host ends at one moment.
sub lose_host
{
    my ($node) = @_;
    my @watchers = grep { (eval { slurp("/proc/$_/cmdline") } // '') =~ /follow_primary-watcher/ } our_processes();
    kill 'KILL', @watchers;
    $node->host->ssh_kill;
    $node->kill9;
    return;
}

# Does the harm, and returns what undoes it, as the operating system would.
sub harm
{
    my ($fault) = @_;
    if ($fault eq 'terminate')
    {
        $to->safe_psql('SELECT pg_terminate_backend(' . (session_pid() || 0) . ')');
        return sub { };
    }
    if ($fault eq 'kill')
    {
        my $pid = session_pid();
        kill 'KILL', $pid if $pid;
        return sub { };
    }
    if ($fault eq 'immediate')
    {
        $to->stop('immediate');
        return sub { $to->start };
    }
    if ($fault eq 'cut')
    {
        $from->host->ssh_stop;
        return sub { $from->host->ssh_start };
    }
    if ($fault eq 'host')
    {
        lose_host($from);
        return sub { $from->host->ssh_start; $from->start if !$from->running };
    }
    FollowPrimary::Network::lose_address($from->address);
    return sub { FollowPrimary::Network::pass_address($from->address) };
}

sub primaries
{
    return grep {
        my $node = $_;
        my ($code, $out) = FollowPrimary::Scratch::run_command([ $node->bin('psql'), '-XAtqw', '-d',
            sprintf('host=%s port=%d user=postgres dbname=postgres connect_timeout=2', $node->host->dir, $node->port), '-c', 'SELECT pg_is_in_recovery()' ], timeout => 10);
        $node->running && $code == 0 && $out =~ /^f/;
    } $cluster->nodes;
}

# Returns what was wrong, or nothing.
sub run_case
{
    my ($step, $before, $fault) = @_;
    my %writer = map { $_->name => FollowPrimary::Writer->start($cluster, node => $_, first => ++$number * 1_000_000_000) } $from, $to;
    my $rows = sub { my ($name) = @_; return $writer{$name}->rows };
    $writer{ $from->name }->wait_for_rows(5);
    my $began = time;
    my $call = $to->psql_start("SELECT * FROM follow_primary_switchover('@{[ LIMIT_S ]} s')");
    if (defined $before)
    {
        wait_until("$before is told", sub { $call->err =~ /NOTICE: .*\b$before\b/ || !$call->running }, 30);
    }
    else
    {
        sleep 0.3;
    }
    my $undo = harm($fault);
    sleep $fault eq 'network' ? LIMIT_S + 4 : 1;
    $undo->();
    $call->wait(LIMIT_S + 60) // die "the call does not end\n";

    # It is decided by itself, whatever the call said.
    my @now;
    wait_until('there is one primary', sub { @now = primaries(); @now == 1 }, LIMIT_S + START_S + 10) or die "there are " . @now . " primaries\n";
    for my $node ($from, $to, $sibling) { $node->start if !$node->running }
    my $sql = $now[0] == $from ? 'SELECT state FROM follow_primary_switchover()' : q{SELECT state FROM follow_primary_all(when_down => 'rejoin')};
    # What its WAL receiver shows may be of a connection that is dead.
    $from->wait_for_catchup($to) if $now[0] == $from;
    # Jobs of the first call may go on, and have their nodes so long.
    $now[0]->poll_query_until("SELECT count(*) FROM follow_primary_job WHERE state = 'running'", '0', 60);
    my $r = $to->try_sql($sql, timeout => 180);
    die "one more call does not finish: $r->{err}\n" if $r->{out} ne "succeeded\nsucceeded";
    @now = primaries();
    die "the primary is " . join(' ', map { $_->name } @now) . ", not " . $to->name . "\n" if "@now" ne "$to";
    $_->wait_for_streaming($to) for $from, $sibling;
    $writer{ $to->name }->wait_for_rows(5);
    $_->stop for values %writer;

    my @old = $rows->($from->name);
    my @new = $rows->($to->name);
    die sprintf "a second primary: %s took a row %.2f s after %s had begun to\n", $from->name, $old[-1][1] - $new[0][1], $to->name if @old && $old[-1][1] > $new[0][1];
    my ($longest, $last) = (0, $began);
    for my $when (sort { $a <=> $b } map { $_->[1] } @old, @new)
    {
        $longest = $when - $last if $when > $began && $when - $last > $longest;
        $last = $when if $when > $began;
    }
    die sprintf "no primary for %.1f s\n", $longest if $longest > LIMIT_S + START_S;
    my $lost = 0;
    $lost += $_->lost($to) for map { $writer{$_} } $from->name, $to->name;
    die "$lost acknowledged rows are lost\n" if $lost != 0;
    return sprintf 'passed, no row for %.1f s', $longest;
}

my %result;
my $failed = 0;
for my $step (@steps)
{
    my ($name, $before) = @$step;
    next if defined $want{step} && $name !~ /\A(?:$want{step})\z/;
    for my $fault (@faults)
    {
        next if defined $want{fault} && $fault !~ /\A(?:$want{fault})\z/;
        my $began = time;
        my $said = eval { run_case($name, $before, $fault) } // "FAILED: $@";
        chomp $said;
        $failed++ if $said =~ /^FAILED/;
        printf "switchover  %-8s %-10s %5.1f s  %s\n", $name, $fault, time - $began, $said;
        last if $said =~ /^FAILED/ && !eval { ($from, $to, $sibling) = sort { ($b == $cluster->primary) <=> ($a == $cluster->primary) } $cluster->nodes; 1 };
        # the next one goes the other way
        my $primary = eval { $cluster->primary } or last;
        ($from, $to, $sibling) = ($primary, grep { $_ != $primary } $cluster->nodes);
    }
}
print $failed ? "$failed cases of the switchover failed\n" : "all cases of the switchover passed\n";
exit($failed ? 1 : 0);
