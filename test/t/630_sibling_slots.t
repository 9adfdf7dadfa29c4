# Standbys keep WAL for each other by slots of the keeper's, without any setting for
# it: what a failover needs is there. Proves on running servers that a sibling which
# was down while 50 segments went by is repointed, and that the same without the
# keeper is a copy; that the keeper touches no slot but its own, also after a restart;
# and that an idle cluster writes nothing.

use FollowPrimary::Test;

my %conf = (shared_preload_libraries => 'follow_primary', wal_keep_size => 0, max_worker_processes => 16,
    max_wal_size => '64MB', min_wal_size => '32MB', checkpoint_timeout => '1h', autovacuum => 'off', max_slot_wal_keep_size => -1);
delete $conf{max_slot_wal_keep_size} if pg_major() < 13;

sub slots { my ($node) = @_; return $node->safe_psql(q{SELECT string_agg(slot_name, ' ' ORDER BY slot_name) FROM pg_replication_slots WHERE restart_lsn IS NOT NULL}) }

sub has_slots_for
{
    my ($node, @others) = @_;
    my $expected = join ' ', sort map { $_->slot_name } @others;
    return $node->poll_query_until(q{SELECT string_agg(slot_name, ' ' ORDER BY slot_name) FROM pg_replication_slots WHERE restart_lsn IS NOT NULL}, $expected, 30)
        || do { diag($node->name . ' has ' . slots($node) . ", not $expected\n" . $node->log_tail(10)); 0 };
}

# So many segments, with checkpoints that remove what nobody keeps.
sub write_segments
{
    my ($primary, $n, @standbys) = @_;
    $primary->safe_psql('CREATE TABLE IF NOT EXISTS filler (i int)');
    for my $i (1 .. $n)
    {
        $primary->safe_psql('INSERT INTO filler SELECT 1; SELECT pg_switch_wal()');
        next if $i % 10 != 0;
        $primary->safe_psql('CHECKPOINT');
        $primary->wait_for_catchup($_) for @standbys;
        $_->safe_psql('CHECKPOINT') for @standbys;
    }
    return;
}

# How long ago the keeper of a server did its last round; every round is a new one.
sub rounds
{
    my ($node, $n) = @_;
    my $seen = '';
    my $rounds = 0;
    wait_until("$n rounds of the keeper of " . $node->name, sub {
        my $now = $node->safe_psql(q{SELECT string_agg(state_change::text, ' ') FROM pg_stat_activity WHERE backend_type = 'follow_primary keeper' AND datname IS NOT NULL});
        $rounds++ if $now ne $seen;
        $seen = $now;
        return $rounds > $n;
    }, 60);
    return;
}

for my $keeper (1, 0)
{
    my $how     = $keeper ? 'with the keeper' : 'without';
    my $cluster = FollowPrimary::Cluster->new(nodes => 3, extension => 1, conf => { %conf, $keeper ? () : ('follow_primary.sibling_slots' => 'off') });
    my ($old, $new, $sibling) = $cluster->nodes;

    if ($keeper)
    {
        ok(has_slots_for($new, $old, $sibling), 'a standby has a slot for the primary and for its sibling');
        ok(has_slots_for($sibling, $old, $new), 'so has the other');
        is($old->safe_psql('SELECT count(*) FROM follow_primary_slot'), 3, 'by the rows that the primary has written');

        # Idle, as soon as what was written before has been flushed and told, and the server has
        # made its own last records of it.
        $old->safe_psql('CHECKPOINT');
        my $state = sub { return $old->lsn('insert') . ' ' . $old->safe_psql('SELECT max(written_at) FROM follow_primary_slot') };
        my ($before, $after);
        for (1 .. 4)
        {
            $before = $state->();
            rounds($old, 4);
            $after = $state->();
            last if $after eq $before;
        }
        is($after, $before, 'an idle cluster writes nothing');

        # Not its own.
        $new->safe_psql(q{SELECT pg_create_physical_replication_slot('somebody', true)});
        $new->restart;
        rounds($new, 2);
        is(slots($new), join(' ', sort 'somebody', map { $_->slot_name } $old, $sibling), 'a slot that the keeper did not make stays');
        $new->safe_psql(q{SELECT pg_drop_replication_slot('somebody')});

        # What follows is followed; a node that is gone is dropped, also after a restart.
        write_segments($old, 10, $new, $sibling);
        my $kept = "SELECT bool_and(pg_last_wal_replay_lsn() - restart_lsn < 3 * 16 * 1024 * 1024) FROM pg_replication_slots WHERE slot_name = '@{[ $sibling->slot_name ]}'";
        ok($new->poll_query_until($kept), 'its slots follow the nodes') or diag($new->safe_psql('SELECT *, pg_last_wal_replay_lsn() FROM pg_replication_slots') . $old->safe_psql('TABLE follow_primary_slot'));
        my $row = $old->safe_psql("DELETE FROM follow_primary_node WHERE host = '@{[ $sibling->address ]}' RETURNING format('(%L, %L, %L, %L)', host, port, pgdata, ssh_port)");
        ok(has_slots_for($new, $old), 'the slot of a node that is gone is dropped');
        ok(has_slots_for($old, $new, $sibling), 'but not on the primary, where it streams through it');
        $old->safe_psql("INSERT INTO follow_primary_node (host, port, pgdata, ssh_port) VALUES $row");
        ok(has_slots_for($new, $old, $sibling), 'and made again when it is back');
        $new->set('follow_primary.sibling_slots' => 'off');
        $new->reload;
        ok($new->poll_query_until('SELECT count(*) FROM pg_replication_slots', 0), 'switched off, it has none');
        $new->set('follow_primary.sibling_slots' => 'on');
        $new->reload;
        ok(has_slots_for($new, $old, $sibling), 'and on again');
    }
    else
    {
        rounds($_, 2) for $new, $sibling;
        is(slots($new) . slots($sibling), '', 'without, standbys have no slots');
    }

    # A sibling is down while 50 segments go by; then the primary crashes.
    $sibling->stop;
    $old->poll_query_until('SELECT count(*) FROM pg_stat_replication', 1);
    write_segments($old, 50, $new);
    cmp_ok($old->safe_psql("SELECT pg_current_wal_lsn() - restart_lsn FROM pg_replication_slots WHERE slot_name = '@{[ $sibling->slot_name ]}'"), '>', 49 * 16 * 1024 * 1024,
        "$how: the primary keeps 50 segments for it");
    my $held = $new->safe_psql("SELECT wal_kept FROM follow_primary_cluster WHERE node_host = '@{[ $sibling->address ]}'");
    $keeper ? cmp_ok($held, '>', 48 * 16 * 1024 * 1024, "$how: so does the standby, and shows it") : is($held, '', "$how: the standby does not");
    $old->kill9;
    $new->promote;
    $sibling->start;
    my $r = $new->make_follow($sibling);
    ok($r->{ok}, "$how: the sibling follows the new primary") or diag($r->{err});
    is($new->safe_psql('SELECT method, coalesce(bytes_done, 0) > 0 FROM follow_primary_job ORDER BY id DESC LIMIT 1'), $keeper ? 'repoint|f' : 'basebackup|t',
        $keeper ? 'by a repoint: nothing is copied' : "$how: by a copy");
    $r = $new->make_follow($old, when_down => 'rejoin');
    ok($r->{ok}, "$how: so does the former primary") or diag($r->{err});
    is($new->safe_psql('SELECT method FROM follow_primary_job ORDER BY id DESC LIMIT 1'), 'rewind', 'by a rewind') if $keeper;
    $new->safe_psql('CREATE TABLE t AS SELECT 1 AS i');
    $new->wait_for_catchup($_) for $old, $sibling;
    is($_->safe_psql('SELECT i FROM t'), 1, $_->name . ' has new rows') for $old, $sibling;

    next if !$keeper;
    ok(has_slots_for($new, $old, $sibling), 'the new primary has one slot for each node');
    ok(has_slots_for($old, $new, $sibling), 'the former primary, as a standby, gets its slots from its keeper');
    ok(has_slots_for($sibling, $old, $new), 'the sibling has the same ones as before');
    write_segments($new, 10, $old, $sibling);
    for my $node ($new, $old, $sibling)
    {
        ok($node->poll_query_until(q{SELECT bool_and(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END - restart_lsn < 3 * 16 * 1024 * 1024) FROM pg_replication_slots}),
            $node->name . ': no slot keeps WAL that nobody needs') or diag($node->safe_psql('TABLE pg_replication_slots') . "\n" . $new->safe_psql('TABLE follow_primary_slot'));
        unlike($node->log_content, qr/the keeper of follow_primary cannot go on/, $node->name . ': the keeper met no error');
    }
}

done_testing();
