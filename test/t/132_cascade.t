# Standbys of standbys. A job repoints a standby that has standbys of its own, and
# they do not notice; after a rewind it still has their slots, but none that pins WAL
# for nobody. A standby of another standby follows the primary when it is told to,
# even though it streams well. Only real WAL senders of a standby change timelines
# like that.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 4, extension => 1,
    conf => { 'follow_primary.verify_timeout' => '20s', wal_retrieve_retry_interval => '200ms' });
my ($old, $new, $middle, $leaf) = $cluster->nodes;

$old->safe_psql('CREATE TABLE t AS SELECT 1 AS i');
$old->wait_for_catchup($_) for $new, $middle, $leaf;
$leaf->stop;
$middle->create_slot('leaf_of_middle');
# The middle one has slots of other nodes, too, as if it had been a primary once:
# named by a node's host, by a host that is longer than a slot's name may be, and by a
# row's slot_name.
my $long_host = 'a-long-name.' x 6 . 'example';
$old->safe_psql("INSERT INTO follow_primary_node (host, slot_name) VALUES ('$long_host', NULL), ('away.example', 'by_its_row')");
(my $long_slot = substr $long_host, 0, 63) =~ tr/a-z0-9/_/c;
$middle->create_slot($_) for $new->slot_name, $long_slot, 'by_its_row';
$leaf->follow($middle, slot => 'leaf_of_middle');
$leaf->start;
$leaf->wait_for_streaming($middle);
has_rows_of($old, $leaf, 'the leaf streams from the middle one');

# A failover. The middle one has received more, and the leaf is down.
$leaf->stop;
$middle->poll_query_until('SELECT count(*) FROM pg_replication_slots WHERE active', '0');
$new->stop;
$old->safe_psql('INSERT INTO t SELECT 1000');
$old->wait_for_catchup($middle);
$old->kill9;
$new->start;
$new->promote;
my $r = makes_follow($new, $middle, 'the middle one is made to follow');
is($new->safe_psql(q{SELECT method, detail FROM follow_primary_job j JOIN follow_primary_step s ON j.id = s.job_id AND s.step = 'rewind'}),
    'rewind|rewound', 'by a rewind');
is($middle->safe_psql('SELECT slot_name FROM pg_replication_slots'), 'leaf_of_middle', 'it has kept the slot of its own standby, and no other');
$leaf->start;
$leaf->wait_for_streaming($middle);
makes_follow($new, $middle, 'it is copied anew', method => 'basebackup');
is($middle->safe_psql('SELECT slot_name FROM pg_replication_slots'), 'leaf_of_middle', 'the slot is still there');
$leaf->wait_for_streaming($middle);
has_rows_of($new, $leaf, "the leaf streams from it again, and has the primary's rows");

# The former primary comes back, and a second failover follows: now the job repoints
# the middle one while the leaf streams.
makes_follow($new, $old, 'the former primary follows', when_down => 'rejoin');
$new->wait_for_catchup($_) for $old, $middle, $leaf;
$new->kill9;
$old->promote;
my $receiver = 'SELECT pid, status, slot_name, sender_host FROM pg_stat_wal_receiver';
my $before   = $leaf->safe_psql($receiver);
my $pid      = $middle->pid;
makes_follow($old, $middle, 'the middle one is made to follow again');
is($old->job('method'), 'repoint', 'by a repoint');
my $reloads = reloads('primary_conninfo');
is($middle->pid == $pid, $reloads, 'with no restart where PostgreSQL needs none');
has_rows_of($old, $leaf, 'its standby has new rows, on the new timeline');
is($leaf->safe_psql($receiver), $before, 'by the same WAL receiver as before') if $reloads;

# The leaf itself is told to follow the primary. The slot has a name that needs no
# quoting: pg_receivewal does not quote it in every version.
my $slot      = 'leaf';
my %leaf_slot = (slot_name => $slot);
is($leaf->safe_psql('SELECT received_tli FROM pg_stat_wal_receiver'), '3', "the leaf streams the primary's timeline, though not from it");
like($old->plan_for($leaf, %leaf_slot), qr/^repoint\|/, 'the plan is a repoint, not none');
makes_follow($old, $leaf, 'it is made to follow', %leaf_slot);
is($leaf->safe_psql('SELECT sender_host FROM pg_stat_wal_receiver'), $old->address, 'it streams from the primary now');
is($middle->safe_psql('SELECT count(*) FROM pg_stat_replication'), '0', 'and no longer from the other standby');
has_rows_of($old, $leaf, 'new rows arrive');

# The leaf streams from the middle one again, through a slot there that has the same
# name as the leaf's slot on the primary. Meanwhile somebody else uses the slot on the
# primary.
$leaf->stop;
$middle->create_slot($slot);
$leaf->follow($middle, slot => $slot);
$leaf->start;
$leaf->wait_for_streaming($middle);
my $archiver = FollowPrimary::Process->start(
    [ $old->bin('pg_receivewal'), '-w', '-d', $old->connstr(undef, 'repl'), '-S', $slot, '-D', scratch_dir('archive') ],
    env => { PGPASSFILE => $cluster->passfile });
ok($old->poll_query_until("SELECT active FROM pg_replication_slots WHERE slot_name = '$slot'", 't'), 'its slot is in use');
$old->safe_psql('DELETE FROM follow_primary_job');    # which knew whose the slot is
like($old->plan_for($leaf, %leaf_slot), qr/^repoint\|/, 'that is not taken for its own');
$archiver->stop;
ok($old->poll_query_until("SELECT active FROM pg_replication_slots WHERE slot_name = '$slot'", 'f'), 'its slot is free');
makes_follow($old, $leaf, 'it is made to follow', %leaf_slot);
is($leaf->safe_psql('SELECT sender_host FROM pg_stat_wal_receiver'), $old->address, 'it streams from the primary again');

done_testing();
