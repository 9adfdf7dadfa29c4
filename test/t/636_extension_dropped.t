# What the keeper of a standby has made ends with the extension: a slot that nobody moves
# would hold WAL until the disk is full, and DROP EXTENSION is replicated, so no call on the
# standby could drop it. Slots of others stay. Only running servers show that the keepers of
# other databases, and of a database that is dropped, are told from a failed one; and that the
# manual's statement finds what is left where the library is not loaded any more.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 2, extension => 1, conf => { shared_preload_libraries => 'follow_primary', max_worker_processes => 16 });
my ($primary, $standby) = $cluster->nodes;
my $slots = q{SELECT coalesce(string_agg(slot_name, ' ' ORDER BY slot_name), '') FROM pg_replication_slots};
my $kept = join ' ', $primary->slot_name, 'somebody';
$standby->safe_psql(q{SELECT pg_create_physical_replication_slot('somebody', true)});
ok($standby->poll_query_until($slots, $kept, 30), 'the standby has a slot of its keeper, and one of others');
my $rows = $primary->safe_psql(q{SELECT string_agg(format('(%L, %L)', host, port), ', ') FROM follow_primary_node});

# How often the standby's first keeper has looked at every database, each time in new processes.
sub rounds
{
    my ($n) = @_;
    my $offset = $standby->log_size;
    $standby->set(log_min_messages => 'debug1');
    $standby->reload;
    wait_until("$n rounds", sub { (() = $standby->log_content($offset) =~ /registering background worker "follow_primary keeper of a database"/g) >= $n * 2 }, 90);
    return;
}

# In two databases.
$primary->safe_psql('CREATE DATABASE second');
$primary->safe_psql("CREATE EXTENSION follow_primary; INSERT INTO follow_primary_node (host, port) VALUES $rows", dbname => 'second');
$primary->wait_for_catchup($standby);
ok($standby->poll_query_until(q{SELECT count(*) FROM pg_stat_activity WHERE datname = 'second' AND backend_type = 'follow_primary keeper'}, 1, 60), 'a second database has a keeper');
$primary->safe_psql('DROP EXTENSION follow_primary');
$primary->wait_for_catchup($standby);
rounds(2);
is($standby->safe_psql($slots), $kept, 'dropped in one of two databases, the slots stay');
$primary->safe_psql('DROP EXTENSION follow_primary', dbname => 'second');
ok($standby->poll_query_until($slots, 'somebody', 60), 'dropped in both, the slot of the keeper is gone, and the other one stays');
$primary->safe_psql('DROP DATABASE second');
ok(1, 'no keeper holds up DROP DATABASE then');

# Made again, it is there again.
$cluster->create_extension;
ok($standby->poll_query_until($slots, $kept, 60), 'made again, the extension has its slot again');

# A database that is dropped with it.
$primary->safe_psql('DROP EXTENSION follow_primary; CREATE DATABASE second');
$primary->safe_psql("CREATE EXTENSION follow_primary; INSERT INTO follow_primary_node (host, port) VALUES $rows", dbname => 'second');
$primary->wait_for_catchup($standby);
ok($standby->poll_query_until(q{SELECT count(*) FROM pg_stat_activity WHERE datname = 'second' AND backend_type = 'follow_primary keeper'}, 1, 60), 'the other database has the keeper');
ok($standby->poll_query_until($slots, $kept, 60), 'and the slot');
if (pg_major() >= 13)
{
    $primary->safe_psql('DROP DATABASE second WITH (FORCE)');
    ok($standby->poll_query_until($slots, 'somebody', 60), 'with its database the slot is gone, too');
}

# Without the library nobody drops it.
$cluster->create_extension;
ok($standby->poll_query_until($slots, $kept, 60), 'there once more');
$standby->set(shared_preload_libraries => '');
$standby->restart;
$primary->safe_psql('DROP EXTENSION follow_primary');
$primary->wait_for_catchup($standby);
my ($manual) = grep { -e } map { "$_/doc/operations.md" } split /:/, $INC{'FollowPrimary/Test.pm'} =~ s{/?test/lib/.*}{}r || '.';
my ($statement) = slurp($manual) =~ /^(SELECT pg_drop_replication_slot\(slot_name\).*?;)$/ms or BAIL_OUT('the manual has no statement for the slots');
is($standby->safe_psql($slots), $kept, 'without the library the slot is left');
$standby->safe_psql($statement);
is($standby->safe_psql($slots), 'somebody', "the manual's statement drops it, and no other");

done_testing();
