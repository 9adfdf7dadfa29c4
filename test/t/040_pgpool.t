# pgpool-II drives the extension unattended. The primary is killed and pgpool promotes
# a standby; its follow_primary_command, a psql one-liner, makes the sibling follow
# and attaches it. One call brings the crashed node back. Only a real pgpool shows
# what it does to a node at which moment, and that its answers prove nothing.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 3, extension => 1, conf => {
    'follow_primary.connect_timeout' => 5 });
my @node = $cluster->nodes;
my $pgpool = FollowPrimary::Pgpool->new(cluster => $cluster, follow => 1);
$pgpool->start;

# Waits until pgpool shows the nodes up; if it does not, tells what the jobs did.
sub all_up
{
    my ($primary, @ids) = @_;
    return if eval { $pgpool->wait_for_status($_ => 'up', 30) for @ids; 1 };
    die $@ . $primary->safe_psql('SELECT * FROM follow_primary_job ORDER BY id') . "\n"
        . $primary->safe_psql('SELECT * FROM follow_primary_step ORDER BY job_id, seq');
}

# A row that is written through pgpool arrives on the node.
my $n = 0;
sub follows_now
{
    my ($primary, $node, $what) = @_;
    $n++;
    my ($code, undef, $err) = $pgpool->psql("INSERT INTO t VALUES (-$n)");
    is($code, 0, "$what: pgpool takes a write") or diag($err);
    ok($node->poll_query_until("SELECT count(*) FROM t WHERE i = -$n", 1, 20), "$what: it arrives");
    streams_from($primary, $node, $what);
    is($node->safe_psql('SELECT sender_host FROM pg_stat_wal_receiver'), $primary->address, "$what: from the new primary");
    return;
}

$node[0]->safe_psql('CREATE TABLE t AS SELECT generate_series(1, 1000) AS i');
$node[0]->wait_for_catchup($_) for @node[ 1, 2 ];
is($pgpool->nodes, '0:primary:up 1:standby:up 2:standby:up', 'pgpool shows a primary and two standbys');

# 1. The primary is killed; from here on nobody touches anything.
$node[0]->kill9;
$pgpool->wait_for_primary(1, 30);
all_up($node[1], 2);
is($pgpool->nodes, '0:standby:down 1:primary:up 2:standby:up', 'pgpool fails over, and has the sibling back');
follows_now(@node[ 1, 2 ], 'the sibling');
is($node[1]->job('state, method, node_id, primary_host, primary_port', node => $node[2]),
    join('|', 'succeeded', 'repoint', 2, $node[1]->address, $node[1]->port), "the job's row tells what pgpool asked for");
ok($node[1]->poll_query_until("SELECT state FROM follow_primary_job WHERE node_host = '@{[ $node[0]->address ]}'",
    'skipped', 20), 'pgpool asked for the crashed node too, which was skipped');

# 2. One call brings the crashed node back.
my $r = makes_follow($node[1], $node[0], 'the crashed node rejoins', when_down => 'rejoin', node_id => 0);
like($r->{err}, qr/NOTICE: .*attach: pgpool at 127\.0\.0\.1:\d+ shows node 0 up/, 'pgpool was found where the caller is');
is($pgpool->nodes, '0:standby:up 1:primary:up 2:standby:up', 'pgpool has all nodes up');
follows_now(@node[ 1, 0 ], 'the crashed node');

# 3. A wrong node id is refused before anything has changed. The node was killed, so
# whatever a call did to it would show.
$node[2]->kill9;
$pgpool->wait_for_status(2 => 'down', 20);
my $slots = $node[1]->slots;
my $untouched = sub {
    my ($what) = @_;
    ok(!$node[2]->running && $node[2]->controldata('Database cluster state') eq 'in archive recovery'
        && !-e $node[2]->pgdata . '.follow_primary', "$what: the node is untouched");
    is($node[1]->slots, $slots,
        "$what: so are the slots");
    return;
};

$r = $node[1]->make_follow($node[2], when_down => 'rejoin', node_id => 7);
is($r->{sqlstate}, '22023', 'a node id that pgpool does not have is refused');
like($r->{message}, qr/pgpool at 127\.0\.0\.1:\d+ has no node 7/, 'the message names it');
is($r->{detail}, 'It has 3 nodes, numbered from 0.', 'the detail says which there are');
is($node[1]->job('state, step, error_code', node => $node[2]), 'failed|survey|22023', "the job's row too");
$untouched->('no such node id');

$r = $node[1]->make_follow($node[2], when_down => 'rejoin', node_id => 0);
is($r->{sqlstate}, '22023', "another node's id is refused");
like($r->{message}, qr/pgpool's node 0 is \Q@{[ $node[0]->address . ':' . $node[0]->port ]}\E/, 'the message tells whose it is');
$untouched->("another node's id");

# 4. pgpool's control port does not let the job in: the node follows all the same, and
# the error says what is missing.
spew($cluster->dir . '/wrong_pcppass', "*:*:*:wrong\n", 0600);
$r = $node[1]->try_sql("SET follow_primary.pcp_pass_file = '" . $cluster->dir . "/wrong_pcppass'; "
    . $node[1]->follow_sql($node[2], when_down => 'rejoin', node_id => 2));
is($r->{sqlstate}, '28P01', 'a wrong password for the control port is an error at last');
like($r->{message}, qr/at step attach: pgpool at /, 'the message says whose, and when');
like($r->{hint}, qr/The node follows this server; calling follow_primary\(\) again only attaches it/, 'the hint what is done, and what not');
unlike($r->{err}, qr/wrong\b(?!_pcppass)/, 'the password is not shown');
is($node[1]->job('state, step, error_code', node => $node[2]), 'failed|attach|28P01', "the job's row tells it");
is($pgpool->nodes, '0:standby:up 1:primary:up 2:standby:down', 'pgpool knows nothing of it');
follows_now(@node[ 1, 2 ], 'the node itself');

# 5. The control port does not answer, as if pgpool were not there; the next call only
# attaches the node.
my $closed = free_port();
$r = $node[1]->try_sql("SET follow_primary.pcp_port = $closed; SET follow_primary.verify_timeout = 3; "
    . $node[1]->follow_sql($node[2], node_id => 2));
is($r->{sqlstate}, '08001', 'a closed control port is an error at last');
like($r->{message}, qr/at step attach: .*"127\.0\.0\.1" port $closed/, 'the message names step and port');
like($r->{hint}, qr/The node follows this server/, 'the hint says what is done');
makes_follow($node[1], $node[2], 'the same call with pgpool answering succeeds', node_id => 2);
is($node[1]->job('state, method', node => $node[2]), 'succeeded|none', 'nothing else was left to do');
is($pgpool->nodes, '0:standby:up 1:primary:up 2:standby:up', 'pgpool has the node up');

# 6. pgpool calls with %d = %m when the new primary fails in its turn.
$r = $node[1]->make_follow($node[1], node_id => 1, primary_host => $node[1]->address,
    primary_port => $node[1]->port, wait => 'false');
is($r->{sqlstate}, '22023', 'the primary is not made to follow itself');
ok(!$node[1]->in_recovery, 'it goes on');

# 7. A switchover: the former primary still runs, as a primary, when pgpool
# tells it to follow.
SKIP:
{
    skip 'no switchover before pgpool 4.3', 4 if $pgpool->version < 4.3;
    my ($code, $out, $err) = $pgpool->pcp('pcp_promote_node', '-s', '-n', 2);
    is($code, 0, 'a switchover is asked for') or diag($out, $err);
    $pgpool->wait_for_primary(2, 30);
    all_up($node[2], 0, 1);
    is($pgpool->nodes, '0:standby:up 1:standby:up 2:primary:up', 'pgpool has them all up under the new primary');
    follows_now(@node[ 2, 1 ], 'the former primary');
    follows_now(@node[ 2, 0 ], 'the sibling');
    # It may have received more of what the former primary went on to write.
    like($node[2]->job('state, method', node => $node[0]), qr/^succeeded\|(repoint|rewind)$/, 'the sibling was repointed, or rewound');
}

done_testing();
