# Nobody waits in silence: while a proof, or pgpool, is waited for, what is missing
# is told every few seconds; where pgpool refuses the connection a call by hand
# ends soon; and attach => false leaves pgpool alone. Takes a standby that does not
# follow, a port where nobody listens, and a real pgpool.

use FollowPrimary::Test;
use Time::HiRes qw(time);

my $cluster = FollowPrimary::Cluster->new(nodes => 3, extension => 1, conf => {
    'follow_primary.verify_timeout' => '20s' });
my ($old, $new, $node) = $cluster->nodes;

# psql's output as it comes: what was said when.
sub notices
{
    my ($sql) = @_;
    my $call = $new->psql_start($sql, keep_going => 1);
    my %at;
    my $started = time;
    wait_until('the call ends', sub {
        my $said = $call->err;
        $at{$1} //= time - $started while $said =~ /^(?:psql:\S+ )?NOTICE:  (.*)$/mg;
        return !$call->running;
    }, 100);
    return ($call->err, time - $started, %at);
}

$old->kill9;
$new->promote;

# It looks at no new settings.
my $startup = $node->safe_psql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'startup'");
kill 'STOP', $startup;
my ($err, $took, %at) = notices($new->follow_sql($node));
like($err, qr/ERROR/, 'a node that is held up does not follow');
like($err, qr/kill -CONT $startup/, 'the hint says how it goes on');
kill 'CONT', $startup;
my @said = sort { $a <=> $b } map { $at{$_} } grep { /^verify.*(nobody streams|WAL receiver)/ } keys %at;
cmp_ok(scalar @said, '>=', 2, 'what is missing was told more than once in 20 s') or diag($err);
cmp_ok($said[0] // 99, '<', 10, 'first after a few seconds');
like((grep { /^verify/ } keys %at)[0] // '', qr/\d+ s/, 'with how long it has taken');

# Where nobody listens.
my $port = free_port('127.0.0.1');
my $with = "SET follow_primary.verify_timeout = '30s'; SET follow_primary.pcp_host = '127.0.0.1'; SET follow_primary.pcp_port = $port; ";
spew($cluster->dir . '/pcppass', "*:*:pgpool:secret\n", 0600);
$with .= "SET follow_primary.pcp_pass_file = '@{[ $cluster->dir ]}/pcppass'; ";
($err, $took, %at) = notices($with . $new->follow_sql($node, node_id => 2));
like($err, qr/ERROR:.*at step attach.*refused/s, 'where pgpool refuses the connection that is an error') or diag($err);
cmp_ok($took, '<', 15, 'which comes soon');
like($err, qr/attach => false/, 'and the hint says how to do without');
like($err, qr/pcp_host|pcp_port/, 'or what to correct');
is($node->safe_psql('SELECT sender_host FROM pg_stat_wal_receiver'), $new->address, 'the node follows all the same');

# Not attached, though its row has a number.
$new->safe_psql("UPDATE follow_primary_node SET node_id = 2 WHERE host = '@{[ $node->address ]}'");
SKIP:
{
    skip 'there is no argument attach yet', 4
        if $new->safe_psql(q{SELECT count(*) FROM pg_proc WHERE proname = 'follow_primary' AND 'attach' = ANY (proargnames)}) eq '0';
    my $r = $new->try_sql($with . $new->follow_sql($node, attach => 'false'));
    ok($r->{ok}, 'attach => false: the job succeeds without pgpool') or diag($r->{err});
    unlike($r->{err}, qr/pgpool/, 'which is not asked');
    is($new->safe_psql(q{SELECT count(*) FROM follow_primary_step WHERE step = 'attach' AND job_id = (SELECT max(id) FROM follow_primary_job)}), 0, 'there is no such step');
    unlike($new->safe_psql($with . $new->follow_sql($node, function => 'follow_primary_plan', attach => 'false', method => 'repoint')), qr/attach/, 'nor in the plan');
}
$new->safe_psql('UPDATE follow_primary_node SET node_id = NULL');

# A pgpool that is restarted in that moment is waited for, which is told.
my $pgpool = FollowPrimary::Pgpool->new(cluster => $cluster);
$pgpool->start;
$pgpool->wait_for_status($node->id, 'up');
my $r = $new->make_follow($node, node_id => $node->id);
ok($r->{ok}, 'with pgpool there it is attached') or diag($r->{err});
my @pgpool = process_tree($pgpool->pid);
kill 'STOP', @pgpool;
($err, $took, %at) = notices("SET follow_primary.connect_timeout = 2; " . $new->follow_sql($node, node_id => $node->id));
kill 'CONT', @pgpool;
like($err, qr/NOTICE:  attach: .*\d+ s.*does not answer/, 'a pgpool that does not answer is waited for, and that is told') or diag($err);

done_testing();
