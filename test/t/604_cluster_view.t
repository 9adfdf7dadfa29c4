# follow_primary_cluster on real servers: what it shows on the primary, of nodes
# that follow, lag, follow nobody, and of old calls; and on a standby. Proves that no
# row looks well only because its last job did.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 3, extension => 1);
my ($primary, $standby, $sibling) = $cluster->nodes;
my $columns = 'node_host || \':\' || node_port';
my %label = map { ($_->address . ':' . $_->port => $_->name) } $cluster->nodes;

# The columns of every row, as "name: a b c" in the view's order; null is -.
sub look
{
    my ($node, @what) = @_;
    my $out = $node->safe_psql('SELECT ' . join(q{ || ' ' || }, $columns, map { "coalesce($_\::text, '-')" } @what) . ' FROM follow_primary_cluster');
    $out =~ s/^(\S+) /($label{$1} \/\/ $1) . ': '/emg;
    return $out;
}

is(look($primary, qw(role state sync_state slot_state job_state ready)), <<'END' =~ s/\n\z//r, 'on the primary: itself first, and its standbys');
node0: primary running - - - -
node1: standby streaming async active - -
node2: standby streaming async active - -
END
is($primary->safe_psql('SELECT slot_name FROM follow_primary_cluster'), join("\n", '', map { $_->slot_name } $standby, $sibling), 'with the slots that they use');
is(look($standby, qw(role state sync_state slot_state wal_kept job_state ready)), <<'END' =~ s/\n\z//r, 'on a standby: itself, and its upstream');
node1: standby streaming - - - - -
node0: upstream - - - - - -
node2: - - - - - - -
END
is($standby->safe_psql(q{SELECT lag_bytes, replay_lag FROM follow_primary_cluster WHERE role = 'standby'}), '0|00:00:00', 'which has replayed all that it received');

# Its last job succeeded, and now it is gone.
my $r = $primary->make_follow($sibling);
ok($r->{ok}, 'a job finds that the sibling follows') or diag($r->{err});
like(look($primary, qw(role state job_state)), qr/^node2: standby streaming succeeded$/m, 'the job is shown');
$sibling->stop;
$primary->poll_query_until("SELECT count(*) FROM pg_stat_replication", 1);
$primary->safe_psql('CREATE TABLE t AS SELECT generate_series(1, 10000)');
like(look($primary, qw(role state slot_state job_state lag_bytes)), qr/^node2: - not following inactive succeeded -$/m, 'a node that follows nobody does not look well, though its job succeeded');
cmp_ok($primary->safe_psql(q{SELECT max(wal_kept) FROM follow_primary_cluster}), '>', 300_000, 'and what its slot holds is seen');
$primary->safe_psql("SELECT pg_drop_replication_slot('@{[ $sibling->slot_name ]}')");
like(look($primary, qw(state slot_state)), qr/^node2: not following missing$/m, 'nor without its slot');

# Without a slot, it is known by its name.
$primary->safe_psql("UPDATE follow_primary_node SET application_name = 'node2' WHERE host = '@{[ $sibling->address ]}'");
$sibling->start;
$sibling->set_standby(primary_slot_name => '');
$sibling->wait_for_streaming($primary);
like(look($primary, qw(role state slot_state)), qr/^node2: standby streaming missing$/m, 'what streams without a slot is known by its application_name');

# Old calls with typos have no row; a node without a row has one while its slot is there.
$primary->make_follow($sibling, node_host => 'db33');
unlike(look($primary, 'state'), qr/db33/, 'a call that found nothing is no row');
$sibling->set_standby(primary_slot_name => $sibling->slot_name);
$r = $primary->make_follow($sibling);
ok($r->{ok}, 'it gets its slot again') or diag($r->{err});
$primary->safe_psql("DELETE FROM follow_primary_node WHERE host = '@{[ $sibling->address ]}'");
like(look($primary, qw(role state slot_state)), qr/^node2: standby streaming active$/m, 'a node without a row is seen by the slot that its job made');

# This server's row is one, by its own name; also without one in the table.
is($primary->safe_psql(q{SELECT count(*) FROM follow_primary_cluster WHERE role = 'primary'}), 1, 'this server is one row');
$primary->safe_psql('DELETE FROM follow_primary_node');
like(look($primary, qw(role state)), qr/^node0: primary running$/m, 'also without a row in the table');
$primary->wait_for_catchup($standby);
like(look($standby, qw(role state)), qr/\Anode1: standby streaming\nnode0: upstream -/, 'on a standby as well');

# Readiness.
$primary->safe_psql(sprintf q{INSERT INTO follow_primary_readiness VALUES ('%1$s', NULL, 'preload', 'warning', 'm', 'h', '2026-01-01'), ('%1$s', '%2$s', 'ssh', 'ok', NULL, NULL, '2026-01-02'),
    ('%2$s', '%1$s', 'ssh', 'error', 'm', 'h', '2026-01-02')}, map { $_->address . ':' . $_->port } $primary, $standby);
is(look($primary, 'ready') =~ /^node0: true$/m, 1, 'ready, with a warning');
$primary->wait_for_catchup($standby);
is(look($standby, 'ready') =~ /^node1: false$/m, 1, 'not ready, with an error: on the standby, too');

# pg_monitor reads it.
$primary->safe_psql('CREATE ROLE watcher LOGIN; GRANT pg_monitor TO watcher; CREATE ROLE plain LOGIN');
$primary->wait_for_catchup($standby);
for my $node ($primary, $standby)
{
    is($node->try_sql('SELECT count(*) FROM follow_primary_cluster', user => 'watcher')->{out} > 0, 1, $node->name . ': pg_monitor reads it');
    is($node->try_sql('SELECT count(*) FROM follow_primary_cluster', user => 'plain')->{sqlstate}, '42501', 'others do not');
}

done_testing();
