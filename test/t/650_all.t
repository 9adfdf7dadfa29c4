# follow_primary_all: the whole cluster in one call. Only real workers, side by
# side, show that one node's failure ends no other, that a server with few workers
# lets nodes wait their turn, and that a cancel leaves the jobs running.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 5, extension => 1, hold => 1,
    conf => { 'follow_primary.verify_timeout' => '20s', max_worker_processes => 8 });
my ($old, $new, @siblings) = $cluster->nodes;

sub all_rows
{
    my ($primary, %args) = @_;
    my $list = join ', ', map { "$_ => " . ($args{$_} =~ /^(?:true|false)$/ ? $args{$_} : "'$args{$_}'") } sort keys %args;
    return $primary->try_sql("SELECT node_host, state, method, job_id IS NOT NULL, elapsed > '0', message, hint FROM follow_primary_all($list) ORDER BY node_host", timeout => 120);
}

# Before anything is asked for: each bad call is an error of its own.
$old->safe_psql('CREATE TABLE t AS SELECT 1 AS i');
for my $bad ([ "method => 'copy'", '22023' ], [ "when_down => 'never'", '22023' ], [ 'method => NULL', '22004' ], [ 'attach => NULL', '22004' ])
{
    is($old->try_sql("SELECT * FROM follow_primary_all($bad->[0])")->{sqlstate}, $bad->[1], "$bad->[0] is refused");
}
my $r = $new->try_sql('SELECT * FROM follow_primary_all()');
is($r->{sqlstate}, '55000', 'a standby refuses');
like($r->{hint}, qr/on the new primary/, 'and says where to call it');
is($old->safe_psql('SELECT count(*) FROM follow_primary_job'), '0', 'no job was made');

# After a failover: every other node, the dead one skipped, this server left out.
$old->kill9;
$new->promote;
$r = all_rows($new);
ok($r->{ok}, 'the call succeeds') or diag($r->{err});
my @rows = map { [ split /\|/, $_, -1 ] } split /\n/, $r->{out};
is(@rows, 4, 'a row for each node but this server');
is(scalar(grep { $_->[0] eq $new->address } @rows), 0, 'none for this server');
is_deeply([ sort map { "$_->[1] $_->[2]" } @rows ], [ 'skipped skip', ('succeeded repoint') x 3 ], 'three follow, the one that is down is skipped');
is(scalar(grep { $_->[3] eq 't' && $_->[4] eq 't' } @rows), 4, 'each with its job and its time');
$_->wait_for_streaming($new) for @siblings;
my ($one) = map { $_->address . ':' . $_->port } $siblings[0];
like($r->{err}, qr/NOTICE:  00000: \Q$one\E: node \Q$one\E follows this server$/m, 'each NOTICE names its node');
my $ids = $new->safe_psql('SELECT count(*), count(DISTINCT worker_pid) FROM follow_primary_job');
is($ids, '4|4', 'each node had a worker of its own');

# One node that cannot be reached ends no other.
$new->safe_psql("UPDATE follow_primary_node SET ssh_port = 1 WHERE host = '@{[ $siblings[1]->address ]}'");
$r = all_rows($new, when_down => 'rejoin');
ok($r->{ok}, 'a call in which a node fails succeeds') or diag($r->{err});
@rows = map { [ split /\|/, $_, -1 ] } split /\n/, $r->{out};
is_deeply([ sort map { "$_->[1] $_->[2]" } @rows ], [ 'failed ', 'succeeded none', 'succeeded none', 'succeeded rewind' ],
    'one has failed, two followed already, the former primary is rewound');
my ($failed) = grep { $_->[1] eq 'failed' } @rows;
is($failed->[0], $siblings[1]->address, 'the one whose port is wrong has failed');
like($failed->[5], qr/could not connect to SSH server/, 'its message says why');
isnt($failed->[6], '', 'and its hint what to do');
like($r->{err}, qr/WARNING:  08001: .*could not connect to SSH server/m, 'it is a WARNING, too');
$old->wait_for_streaming($new);
$new->safe_psql('UPDATE follow_primary_node SET ssh_port = ' . $siblings[1]->host->ssh_port . " WHERE host = '@{[ $siblings[1]->address ]}'");

# One line turns a failure into psql's exit code.
my $check = "SELECT 1 / bool_and(state IN ('succeeded', 'skipped'))::int AS all_follow FROM follow_primary_all()";
is(($new->psql($check))[0], 0, 'the line for scripts succeeds when all follow');
$siblings[0]->stop;
$new->safe_psql("UPDATE follow_primary_node SET ssh_port = 1 WHERE host = '@{[ $siblings[1]->address ]}'");
isnt(($new->psql($check))[0], 0, 'and fails when a node does');
$new->safe_psql('UPDATE follow_primary_node SET ssh_port = ' . $siblings[1]->host->ssh_port . " WHERE host = '@{[ $siblings[1]->address ]}'");
$siblings[0]->start;
$siblings[0]->wait_for_streaming($new);

# A granted role may call it; what it may not do is the node table's to say.
$new->safe_psql('CREATE ROLE operator LOGIN; GRANT EXECUTE ON FUNCTION follow_primary_all(text, text, boolean) TO operator');
$r = $new->try_sql('SET ROLE operator; SELECT count(*) FILTER (WHERE state = \'succeeded\') FROM follow_primary_all()');
is($r->{out}, '4', 'a granted role can call it') or diag($r->{err});
$r = $new->try_sql('CREATE ROLE nobody; SET ROLE nobody; SELECT * FROM follow_primary_all()');
is($r->{sqlstate}, '42501', 'another cannot');

# A cancel ends the waiting, not the jobs.
$new->hold_step('verify');
my $caller = $new->psql_start('SELECT * FROM follow_primary_all()');
ok($new->poll_query_until("SELECT count(*) FROM follow_primary_job WHERE state = 'running'", '4'), 'four jobs run at once');
$new->safe_psql("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query = 'SELECT * FROM follow_primary_all()'");
$caller->wait(60);
like($caller->err, qr/HINT:  The jobs that have begun go on; SELECT public\.follow_primary_cancel\(id\) FROM unnest\('\{[0-9,]+\}'::bigint\[\]\) id ends them/, 'a cancelled call says how to end them');
is($new->safe_psql("SELECT count(*) FROM follow_primary_job WHERE state = 'running'"), '4', 'they go on');
$new->release_step('verify');
ok($new->poll_query_until("SELECT count(*) FROM follow_primary_job WHERE state = 'running'", '0'), 'and end');
is($new->safe_psql("SELECT string_agg(DISTINCT state, ',') FROM (SELECT state FROM follow_primary_job ORDER BY id DESC LIMIT 4) j"), 'succeeded', 'well');

# With fewer workers than nodes, the surplus waits its turn and says so.
$new->set(max_worker_processes => 3);
$new->restart;
$_->wait_for_streaming($new) for $old, @siblings;
$r = all_rows($new);
is(scalar(grep { /\|succeeded\|/ } split /\n/, $r->{out}), 4, 'with few workers all nodes follow') or diag($r->{err});
like($r->{err}, qr/NOTICE:  00000: [123] nodes are worked on, the others wait until a background worker and a WAL sender are free/, 'those that wait are told of');

# No row is this server's own: it is told, and no other node is harmed.
$new->safe_psql("DELETE FROM follow_primary_node WHERE host = '@{[ $new->address ]}'");
$r = all_rows($new);
is(scalar(grep { /\|succeeded\|/ } split /\n/, $r->{out}), 4, 'without a row of its own all others follow') or diag($r->{err});
like($r->{err}, qr/no row of follow_primary_node is known to be this server's own/, 'and it is said');

done_testing();
