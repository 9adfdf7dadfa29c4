# The demonstration: three PostgreSQL servers, each with an sshd of its own,
# behind a real pgpool. The primary is killed under load; pgpool promotes
# another, and has the extension make the rest follow it; the killed one is
# brought back by one SQL call. In the end pgpool is gone, and node0 takes the
# primary's place and gives it back while a client writes. Every table shown is
# read from the servers.
#
# Run by test/demo/run.

use strict;
use warnings;

use FollowPrimary::Cluster;
use FollowPrimary::Node;
use FollowPrimary::Pgpool;
use FollowPrimary::Scratch qw(run_command run_ok wait_until);
use FollowPrimary::Writer;
use Time::HiRes qw(sleep time);

my $started = time;
my $pgpool;
$| = 1;

# A paragraph that says what is about to happen.
sub explain
{
    my ($text) = @_;
    my $line = sprintf '[%4.1f s]', time - $started;
    my $width = length $line;
    for my $word (split ' ', $text)
    {
        if ($width + 1 + length $word > 88)
        {
            $line .= "\n" . ' ' x 8;
            $width = 8;
        }
        $line .= " $word";
        $width += 1 + length $word;
    }
    print "\n$line\n";
    return;
}

# Columns as psql aligns them.  Rows are arrays; undef is empty.
sub table
{
    my ($head, @rows) = @_;
    my @width = map { length } @$head;
    my @number = (1) x @$head;
    for my $row (@rows)
    {
        for my $i (0 .. $#$head)
        {
            my $text = $row->[$i] //= '';
            $width[$i] = length $text if length $text > $width[$i];
            $number[$i] = 0 if $text !~ /^[\d.,]*$/;
        }
    }
    print ' ' . join(' | ', map { sprintf '%-*s', $width[$_], $head->[$_] } 0 .. $#$head) . "\n";
    print '-' . join('-+-', map { '-' x $_ } @width) . "-\n";
    for my $row (@rows)
    {
        my $line = ' ' . join(' | ', map { sprintf $number[$_] ? '%*s' : '%2$-*1$s', $width[$_], $row->[$_] } 0 .. $#$head);
        $line =~ s/ +$//;
        print "$line\n";
    }
    return;
}

# A statement as one types it, and what psql prints.
sub show
{
    my ($node, $prompt, $sql) = @_;
    my @lines = split /\n/, $sql;
    print join("\n", map { ($_ ? '    ' : "$prompt=# ") . $lines[$_] } 0 .. $#lines) . ";\n";
    my $out = run_ok([ $node->bin('psql'), '-Xqw', '-P', 'pager=off', '-P', 'footer=off', '-P', 'format=wrapped',
        '-P', 'columns=110', '-d', $node->connstr, '-c', $sql ], env => { PGPASSFILE => $node->{passfile} });
    $out =~ s/\n\n\z/\n/;
    print $out;
    return;
}

sub show_pool
{
    my @nodes = $pgpool->pool_nodes;
    # Some versions lack some of the columns.
    my @columns = grep { exists $nodes[0]{$_} }
        qw(node_id hostname port status pg_status role pg_role replication_state);
    print "pgpool=# SHOW pool_nodes;\n";
    table(\@columns, map { my $n = $_; [ map { $n->{$_} } @columns ] } @nodes);
    return;
}

# Prints each row of follow_primary_progress when it has changed, until $done
# returns true.
my %shown;

sub watch_progress
{
    my ($server, $done, $timeout) = @_;
    my @width = (16, 10, 11, 9, 7, 7, 18);
    my $print = sub {
        my $line = ' ' . join(' | ', map { sprintf '%-*s', $width[$_] // 0, $_[$_] } 0 .. $#_);
        $line =~ s/ +$//;
        print "$line\n";
    };
    my $look = sub {
        my ($code, $out) = $server->psql(<<'END');
SELECT id, node_host || ':' || node_port, coalesce(method, ''), coalesce(step, ''), state, coalesce(percent || ' %', ''),
       to_char(extract(epoch FROM elapsed), 'FM990.0') || ' s',
       CASE WHEN bytes_total > 0 THEN pg_size_pretty(bytes_done) || ' of ' || pg_size_pretty(bytes_total) ELSE '' END
FROM follow_primary_progress ORDER BY id
END
        return if $code != 0;
        for my $row (split /\n/, $out)
        {
            my ($id, $node, $method, $step, $state, $percent, $elapsed, $bytes) = split /\|/, $row, -1;
            my $what = join '|', $node, $method, $step, $state, $percent, $bytes;
            next if ($shown{$id} // '') eq $what;
            $shown{$id} = $what;
            $print->($node, $method, $step, $state, $percent, $elapsed, $bytes);
        }
    };

    $print->(qw(node method step state percent elapsed bytes));
    print '-' . join('-+-', map { '-' x $_ } @width) . "\n";
    my $deadline = time + $timeout;
    while (!$done->())
    {
        die "no end of it within $timeout s\n" if time > $deadline;
        $look->();
        sleep 0.02;
    }
    $look->();

    # The rest of the demonstration needs these.
    my $failed = $server->safe_psql(q{SELECT 'job ' || concat_ws(E'\n', id || ', step ' || step || ': ' || error, 'HINT: ' || hint)
        FROM follow_primary_job WHERE state NOT IN ('running', 'skipped', 'succeeded') ORDER BY id});
    die "\n$failed\n" if $failed ne '';
    return;
}

# Waits until pgpool shows the state. pgpool looks once a second, and from 4.3 on
# it tells what it saw.
sub wait_until_streaming
{
    my ($node) = @_;
    $pgpool->wait_for($node->name . ' is up', sub {
        my ($row) = grep { $_->{node_id} == $node->id } @_;
        return $row->{status} eq 'up' && ($row->{replication_state} // '-') ne '';
    }, 20);
    return;
}

sub pgbench
{
    my ($host, $port, @arguments) = @_;
    return [ FollowPrimary::Node::bindir() . '/pgbench', '-n', '-h', $host, '-p', $port, '-U', 'postgres', @arguments, 'postgres' ];
}

# "12,345"
sub number
{
    my ($n) = @_;
    1 while $n =~ s/^(\d+)(\d{3})/$1,$2/;
    return $n;
}

my $commits = 0;

sub transactions
{
    my ($text) = @_;
    my ($n)   = $text =~ /transactions actually processed: (\d+)/;
    my ($tps) = $text =~ /^tps = ([\d.]+)/m;
    $commits += $n // 0;
    return number($n // 0) . ' transactions' . ($tps ? ', ' . number(int $tps) . ' per second' : '');
}

my @wrong;

sub must
{
    my ($ok, $what) = @_;
    push @wrong, $what if !$ok;
    return;
}

#
# The cluster
#

explain('Three PostgreSQL servers, each with an sshd of its own, and pgpool in front of them. '
    . 'node0 is the primary; node1 and node2 stream from it.');
my $cluster = FollowPrimary::Cluster->new(nodes => 3, extension => 1);
my ($node0, $node1, $node2) = $cluster->nodes;
$pgpool = FollowPrimary::Pgpool->new(cluster => $cluster, follow => 1);
my $address = '127.0.0.1';
my %env = (env => { PGPASSFILE => $cluster->passfile });
# pgpool knows the standbys by these names.
$node0->safe_psql("UPDATE follow_primary_node SET node_id = @{[ $_->id ]}, application_name = '@{[ $_->name ]}'
    WHERE host = '@{[ $_->address ]}'") for $cluster->nodes;
$pgpool->start;
show_pool();

explain('500,000 rows by pgbench, then four clients that write through pgpool and do not stop.');
run_ok(pgbench($node0->address, $node0->port, '-q', '-i', '-s', 5), %env);
# A checkpoint, as time would bring one: a rewind needs no WAL from before it.
$node0->safe_psql('CHECKPOINT');
$_->wait_for_streaming($node0) for $node1, $node2;
my $load = FollowPrimary::Process->start(pgbench($address, $pgpool->port, '-c', 4, '-T', 60), %env);
wait_until('the load writes', sub { $node0->safe_psql('SELECT count(*) > 2000 FROM pgbench_history') eq 't' }, 20);
show($node0, 'node0', 'SELECT application_name, state, sent_lsn, replay_lsn
FROM pg_stat_replication ORDER BY application_name');

#
# The failover
#

explain('The network stalls: for half a second the primary commits what no standby receives. '
    . 'Then it is killed, kill -9, all its processes at once.');
# Ends its WAL senders, node2's first, so that node1 has all that node2 has.
for my $node ($node2, $node1)
{
    kill 'STOP', $node0->safe_psql("SELECT pid FROM pg_stat_replication WHERE application_name = '@{[ $node->name ]}'");
}
sleep 0.5;
my $killed = time;
$node0->kill9;
$pgpool->wait_for_primary($node1->id, 40);
printf "pgpool has promoted node1, %.1f s after the kill.\n", time - $killed;
my $code = $load->wait(20) // $load->stop;
print 'pgbench lost its connections after ' . transactions($load->out) . ".\n";

explain('pgpool calls follow_primary() on the new primary for every other node, by the psql line in its '
    . 'pgpool.conf. node2 is healthy: new settings and a reload are enough. node0 is down: skipped.');
watch_progress($node1, sub {
    return $node1->safe_psql("SELECT count(DISTINCT node_host) = 2 AND bool_and(state <> 'running') FROM follow_primary_job") eq 't';
}, 40);
wait_until_streaming($node2);
show_pool();

#
# The return of the killed one
#

# Not through pgpool, which ends its clients' sessions when it attaches node0 again:
# node0 becomes pgpool's main node by its number. The job itself disturbs no session.
explain('Writing goes on, on the new primary itself.');
$load = FollowPrimary::Process->start(pgbench($node1->address, $node1->port, '-c', 4, '-T', 5), %env);

my $sql = $node1->follow_sql($node0, when_down => 'rejoin');
explain('node0 is brought back, by one statement on the new primary. What it had written and nobody else '
    . 'received is saved and taken back; then it streams.');
print "node1=# $sql;\n";
my $call = $node1->psql_start($sql);
watch_progress($node1, sub { !$call->running }, 60);
if ($call->wait(0) != 0)
{
    must(0, 'the call that brings node0 back failed');
    print $call->err;
}
wait_until_streaming($node0) if !@wrong;
$code = $load->wait(20) // $load->stop;
print 'pgbench meanwhile: ' . transactions($load->out) . ".\n";
must($code == 0, 'pgbench lost a connection while node0 came back');

#
# The proof
#

explain('The result. pgpool has every node up:');
show_pool();
for my $node ($pgpool->pool_nodes)
{
    must($node->{status} eq 'up', "pgpool shows node$node->{node_id} $node->{status}");
    my $role = $node->{node_id} == $node1->id ? 'primary' : 'standby';
    must($node->{role} eq $role, "pgpool shows node$node->{node_id} as a $node->{role}");
}

explain('Both others stream from the new primary, each through its slot:');
show($node1, 'node1', 'SELECT r.application_name, r.state, r.sent_lsn, r.replay_lsn, s.slot_name, s.active
FROM pg_stat_replication r JOIN pg_replication_slots s ON s.active_pid = r.pid
ORDER BY r.application_name');
must($node1->safe_psql("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'") == 2,
    'not both standbys stream');

my $lost = $node1->safe_psql('SELECT coalesce(sum(lost_transactions), 0) FROM follow_primary_job');
explain('The same rows everywhere, on one timeline. pgbench was told of ' . number($commits) . ' commits; '
    . number($lost) . ' of them no standby had received: they are in the WAL that was saved from node0.');
my @rows;
for my $node ($node0, $node1, $node2)
{
    $node1->wait_for_catchup($node, undef, 20) if $node != $node1;
    push @rows, [ $node->name, $node->in_recovery ? 'standby' : 'primary', $node->timeline,
        split /\|/, $node->safe_psql('SELECT (SELECT count(*) FROM pgbench_accounts),
            count(*), sum(delta), md5(string_agg(h::text, \'\' ORDER BY mtime, tid, bid, aid, delta)) FROM pgbench_history h') ];
}
table([ 'node', 'role', 'timeline', 'accounts', 'history', 'sum(delta)', 'md5 of history' ], @rows);
for my $column (2 .. $#{ $rows[0] })
{
    my %different = map { $_->[$column] => 1 } @rows;
    must(keys %different == 1, "the nodes differ: @{[ join ', ', sort keys %different ]}");
}

explain('What the extension did:');
show($node1, 'node1', q{SELECT id, node_host AS node, method, state, date_trunc('milliseconds', finished_at - started_at) AS took,
       lost_transactions AS lost, reason
FROM follow_primary_job ORDER BY id});
show($node1, 'node1', q{SELECT seq, step, date_trunc('milliseconds', finished_at - started_at) AS took, detail
FROM follow_primary_step WHERE job_id = (SELECT max(id) FROM follow_primary_job) ORDER BY seq});
must($node1->safe_psql("SELECT count(*) FILTER (WHERE state = 'succeeded') = 2 AND bool_and(state IN ('skipped', 'succeeded'))
    FROM follow_primary_job") eq 't', 'not every job succeeded');

#
# A planned change of the primary, to and fro
#

explain('A planned change, without pgpool, which would fail over by itself: node0 takes the place of node1, '
    . 'and gives it back. A client inserts all the time, wherever the primary is.');
$pgpool->stop;
$_->set('follow_primary.primary_host' => $_->address, 'follow_primary.pcp_host' => '') for $cluster->nodes;
$_->reload for $cluster->nodes;
$node1->safe_psql('UPDATE follow_primary_node SET node_id = NULL');
my $writer = FollowPrimary::Writer->start($cluster);
$node1->wait_for_catchup($_) for $node0, $node2;
for my $to ($node0, $node1)
{
    my $began = time;
    show($to, $to->name, 'SELECT node_host, state, method, message FROM follow_primary_switchover()');
    my $took = time - $began;
    $writer->wait_for_rows(10);
    printf "The call took %.1f s, without an acknowledged row for %.2f s of them.\n", $took, $writer->longest_gap($began);
    must($cluster->primary == $to, $to->name . ' is not the primary');
}
$writer->stop;
my $acknowledged = () = $writer->rows;
my $missing = $writer->lost($node1);
must($missing == 0, "$missing acknowledged rows are lost");
explain('Of ' . number($acknowledged) . " acknowledged rows $missing are lost. The cluster at a glance:");
show($node1, 'node1', 'SELECT node_host, role, state, slot_state, lag_bytes, job_state FROM follow_primary_cluster ORDER BY node_host');

if (@wrong)
{
    print "\nNot as it should be:\n", map { "  $_\n" } @wrong;
    exit 1;
}
explain('All three nodes are up, stream and agree.');
