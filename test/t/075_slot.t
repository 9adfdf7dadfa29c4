# What a job does with the node's replication slot on the primary: it makes the slot,
# uses it again, makes it anew when it is of no use, or leaves it alone when it is
# another node's. After a failure only the job that made the slot drops it. Only
# PostgreSQL knows whether a real slot has lost its WAL.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 3, extension => 1, hold => 1, slots => 0, conf => {
    wal_keep_size => 0, max_wal_size => '32MB', min_wal_size => '32MB', 'follow_primary.verify_timeout' => '20s' });
my ($primary, $node, $other) = $cluster->nodes;
my $slot = $node->slot_name;

sub slots { return $primary->safe_psql(q{SELECT string_agg(slot_name || ' ' || slot_type || ' ' || active, ', ' ORDER BY slot_name)
    FROM pg_replication_slots}) }
sub free_slot
{
    $node->stop('fast');
    $primary->poll_query_until("SELECT count(*) = 0 FROM pg_replication_slots WHERE slot_name = '$slot' AND active");
    return;
}

my $r = makes_follow($primary, $node, 'a node without a slot');
is(slots(), "$slot physical true", 'has one now, and uses it');
is($primary->step('slot'), "$slot, made", 'as the step says');

free_slot();
makes_follow($primary, $node, 'a node with a slot', when_down => 'rejoin');
is($primary->step('slot'), "$slot, which was there", 'keeps it');

# A slot that holds back no WAL.
free_slot();
$primary->safe_psql("SELECT pg_drop_replication_slot('$slot'); SELECT pg_create_physical_replication_slot('$slot')");
makes_follow($primary, $node, 'a node whose slot reserves nothing', when_down => 'rejoin');
is($primary->step('slot'), "$slot, made", 'gets it anew');

SKIP:
{
    skip 'before PostgreSQL 13 a slot never loses WAL', 3 if pg_major() < 13;
    free_slot();
    $primary->set(max_slot_wal_keep_size => '1MB');
    $primary->reload;
    for (1 .. 6)
    {
        $primary->safe_psql('CREATE TABLE IF NOT EXISTS t (i int); INSERT INTO t VALUES (1); SELECT pg_switch_wal()');
        $primary->wait_for_catchup($other);    # which has no slot
        $primary->safe_psql('CHECKPOINT');
    }
    is($primary->safe_psql("SELECT wal_status FROM pg_replication_slots WHERE slot_name = '$slot'"), 'lost', 'a slot has lost its WAL');
    $primary->set(max_slot_wal_keep_size => -1);
    $primary->reload;
    makes_follow($primary, $node, 'its node follows again', when_down => 'rejoin');
    is($primary->step('slot'), "$slot, made", 'through one made anew');
}

# Slots of other nodes.
$r = $primary->make_follow($other, slot_name => $slot);
is($r->{sqlstate}, '55006', "another node's slot is refused");
like($r->{hint}, qr/slot_name of its own/, 'with a hint');
is(slots(), "$slot physical true", 'and left alone');

# The same slot while its node is down; the test made it, so no job knows whose it is.
$node->stop('fast');
$other->set_standby(primary_slot_name => $slot);
$other->wait_for_streaming($primary);
my $sender = $primary->safe_psql("SELECT active_pid FROM pg_replication_slots WHERE slot_name = '$slot'");
isnt($sender, '', "another server uses the slot of a node that is down");
$r = $primary->make_follow($node, when_down => 'rejoin');
is($r->{sqlstate}, '55006', "the node's call is refused");
like($r->{detail}, qr/"\Q@{[ $primary->safe_psql("SELECT application_name FROM pg_stat_replication WHERE pid = $sender") ]}\E" at 127\S+, process $sender here, streams through the slot/, 'and told who has it');
is($primary->safe_psql("SELECT active_pid FROM pg_replication_slots WHERE slot_name = '$slot'"), $sender, 'who goes on');

# The job ends a WAL sender whose client is gone: here the client cannot answer any
# more.
my @stopped = process_tree($other->pid);
kill 'STOP', @stopped;
makes_follow($primary, $node, 'a slot whose client does not answer is taken', when_down => 'rejoin');
is($primary->step('slot'), "$slot, which was there; its WAL sender of a connection that is lost, process $sender, was ended", 'as it is, and that is told');
isnt($primary->safe_psql("SELECT active_pid FROM pg_replication_slots WHERE slot_name = '$slot'"), $sender, 'its sender is another now');
kill 'CONT', @stopped;
$other->set_standby(primary_slot_name => '');
$other->wait_for_streaming($primary);

# A job that fails drops the slot that it made, and leaves one that was there.
$primary->fail_steps('repoint', 'stop');
my $before = slots();
$r = $primary->make_follow($other, method => 'repoint');
ok(!$r->{ok}, 'a job fails after it has made its slot');
is(slots(), $before, 'the slot is gone');
$primary->safe_psql("SELECT pg_create_physical_replication_slot('@{[ $other->slot_name ]}', true)");
$before = slots();
$r = $primary->make_follow($other, method => 'repoint');
ok(!$r->{ok}, 'a job fails whose slot was there');
is(slots(), $before, 'the slot stays');

# A worker that is killed cannot drop its slot; the primary restarts, and a later
# worker drops it.
my $others = $other->slot_name;
my $has_slot = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = '$others'";
$primary->fail_steps;
$primary->safe_psql("SELECT pg_drop_replication_slot('$others')");
$primary->hold_step(reloads('primary_conninfo') ? 'repoint' : 'stop');
my $id = $primary->safe_psql($primary->follow_sql($other, method => 'repoint', wait => 'false'));
$primary->wait_held(1);
is($primary->safe_psql($has_slot), 1, 'a job has made a slot');
kill 'KILL', $primary->safe_psql("SELECT worker_pid FROM follow_primary_job WHERE id = $id");
ok($primary->poll_query_until("SELECT state FROM follow_primary_job WHERE id = $id", 'interrupted', 30), 'its worker is killed');
ok($primary->poll_query_until($has_slot, 0, 10), 'the slot is gone');
makes_follow($primary, $other, 'the next call succeeds', method => 'repoint');
is($primary->safe_psql($has_slot), 1, 'with a slot');

done_testing();
