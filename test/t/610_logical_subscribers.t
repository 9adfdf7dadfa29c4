# A logical subscriber outlives failovers and switchovers from 17 on: its slot is on every standby,
# whichever method made it one, for primary_conninfo has the database that the
# synchronization connects to; and synchronized_standby_slots finds the nodes' slots
# on each new primary. Only a real subscriber shows that no row is lost or comes
# twice, and only running servers that synchronization goes on.

use FollowPrimary::Test;

plan(skip_all => 'PostgreSQL synchronizes logical slots from 17 on') if pg_major() < 17;

my $cluster = FollowPrimary::Cluster->new(nodes => 3, extension => 1, conninfo => 'dbname=postgres',
    conf => { shared_preload_libraries => 'follow_primary', max_worker_processes => 16, wal_level => 'logical', wal_keep_size => 0,
        sync_replication_slots => 'on', hot_standby_feedback => 'on' });
my @nodes = $cluster->nodes;
my ($old, $new, $sibling) = @nodes;
for my $node (@nodes)
{
    my @others = grep { $_ != $node } @nodes;
    $node->set(synchronized_standby_slots => join ', ', map { $_->slot_name } @others);
    $node->reload;
}

# As a standby that nobody has set up for it: nothing is synchronized there yet.
spew($sibling->recovery_file, slurp($sibling->recovery_file) =~ s/ dbname=postgres//r);
$sibling->reload;

my $subscriber = FollowPrimary::Node->new(host => FollowPrimary::Host->new(name => 'subscriber', address => free_address()));
$subscriber->init;
$subscriber->start;
$old->safe_psql('CREATE TABLE t (i int PRIMARY KEY); CREATE PUBLICATION p FOR TABLE t');
$subscriber->safe_psql('CREATE TABLE t (i int PRIMARY KEY)');
$subscriber->safe_psql("CREATE SUBSCRIPTION s CONNECTION '@{[ $old->connstr ]}' PUBLICATION p WITH (failover = true)");

my $rows = 0;

# New rows of the primary arrive at the subscriber, and all others are there.
sub arrive
{
    my ($primary, $what) = @_;
    $primary->safe_psql('INSERT INTO t SELECT generate_series(' . ($rows + 1) . ', ' . ($rows + 100) . ')');
    $rows += 100;
    ok($subscriber->poll_query_until("SELECT count(*) || ' ' || max(i) FROM t", "$rows $rows", 60), $what)
        or diag($subscriber->safe_psql('SELECT count(*), max(i) FROM t') . "\n" . $subscriber->log_tail(10) . $primary->safe_psql('TABLE pg_replication_slots') . $primary->log_tail(20));
    return;
}

# The standby has the subscriber's slot, ready for a failover.
sub synchronized
{
    my ($node, $what) = @_;
    ok($node->poll_query_until(q{SELECT synced AND NOT temporary AND invalidation_reason IS NULL FROM pg_replication_slots WHERE slot_name = 's'}, 't', 90), $what)
        or diag($node->safe_psql('TABLE pg_replication_slots') . "\n" . $node->log_tail(20));
    return;
}

# The node follows by that method, and has a database to synchronize from.
sub follows
{
    my ($primary, $node, $method, %arguments) = @_;
    my $name = $node->name;
    makes_follow($primary, $node, "$name follows " . $primary->name, %arguments);
    is($primary->job('method, state'), "$method|succeeded", "$name: $method");
    like($node->standby_setting('primary_conninfo'), qr/ dbname=postgres\b/, "$name: with a database");
    return;
}

# The slot is ready on a standby only if the primary has nothing that it waits for.
sub stands
{
    my ($primary) = @_;
    return $primary->safe_psql(q{SELECT status || ': ' || message FROM follow_primary_check() WHERE item = 'synchronized_standby_slots'});
}

arrive($old, 'the subscriber has the rows');
synchronized($new, 'the candidate has its slot');
is($sibling->safe_psql(q{SELECT count(*) FROM pg_replication_slots WHERE slot_name = 's'}), 0, 'a standby without a database does not');
is(stands($new), 'ok: ' . join(', ', map { $_->slot_name } $old, $sibling), 'the check has found all slots that the candidate would wait for');

# A failover.
$old->kill9;
$new->promote;
$subscriber->safe_psql("ALTER SUBSCRIPTION s CONNECTION '@{[ $new->connstr ]}'");
follows($new, $sibling, 'repoint');
follows($new, $old, 'rewind', when_down => 'rejoin');
arrive($new, 'the subscriber goes on with the new primary');
synchronized($sibling, 'a standby that was repointed has its slot');
synchronized($old, 'so has the former primary, whose own slot of that name is gone');

# A standby that is copied.
follows($new, $sibling, 'basebackup', method => 'basebackup');
arrive($new, 'no row waits for the copy');
synchronized($sibling, 'one that was copied has the slot');

# The next failover, to the former primary.
$new->kill9;
$old->promote;
$subscriber->safe_psql("ALTER SUBSCRIPTION s CONNECTION '@{[ $old->connstr ]}'");
follows($old, $sibling, 'repoint');
follows($old, $new, 'rewind', when_down => 'rejoin');
arrive($old, 'the subscriber goes on with the next one');
synchronized($_, $_->name . ' has the slot again') for $sibling, $new;

# A switchover there and back. A slot that is on the primary alone is told of before the stop, and those that come
# along are not.
$_->set('follow_primary.primary_host' => $_->address) for @nodes;
$_->reload for @nodes;
for my $pair ([ $old, $sibling ], [ $sibling, $old ])
{
    my ($from, $to) = @$pair;
    my $name = $to->name;
    synchronized($to, "$name has the slot before the switchover");
    $from->safe_psql("SELECT pg_create_logical_replication_slot('alone', 'test_decoding')");
    my $r = $to->try_sql('SELECT state, method FROM follow_primary_switchover()', timeout => 120);
    is($r->{out}, "succeeded|repoint\nsucceeded|repoint", "$name takes over") or diag($r->{err});
    like($r->{err}, qr/WARNING: .*logical replication slots of the primary end with this switchover: alone\n.*NOTICE: .*stop:/s, "$name: the slot that does not come along is told of");
    $subscriber->safe_psql("ALTER SUBSCRIPTION s CONNECTION '@{[ $to->connstr ]}'");
    arrive($to, "the subscriber goes on with $name");
    is($from->safe_psql(q{SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'alone'}), 0, "$name: the former primary keeps no WAL for it");
    synchronized($from, "$name: the former primary has the subscriber's slot again");
}
synchronized($new, 'so has the third');
is($old->safe_psql(q{SELECT string_agg(slot_name, ' ' ORDER BY slot_name) FROM pg_replication_slots WHERE active}),
    join(' ', sort('s', map { $_->slot_name } $sibling, $new)), 'the primary has the slots that are needed, and uses them');

done_testing();
