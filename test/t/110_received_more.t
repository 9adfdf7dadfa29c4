# A standby received WAL that the promoted one never had. So it is no prefix of the
# new primary, whether it has replayed that WAL or only stored it. Stored WAL is a
# trap: the replay position looks harmless, pg_rewind looks only at what was replayed
# and sees nothing to do, and at its next start the server would replay what lies in
# pg_wal, on the wrong timeline. Only real standbys, WAL files and a real pg_rewind
# show the way out.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 5, extension => 1,
    conf => { 'follow_primary.verify_timeout' => '20s', autovacuum => 'off', checkpoint_timeout => '1h' });
my ($old, $new, $replayed, $stored, $restarted) = $cluster->nodes;

$old->safe_psql('CREATE TABLE t AS SELECT 1 AS i');
$old->wait_for_catchup($_) for $new, $replayed, $stored, $restarted;

# No record that the server writes by itself may come before the commit: the delayed
# standby would replay it.
$old->wait_until_quiet;

# A transaction that only has to commit: the new primary does not get its commit
# record, and a delayed standby stops right before it.
my $gate = $old->psql_start('SELECT pg_advisory_lock(1); SELECT pg_sleep(600)');
$old->poll_query_until("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted", '1');
my $open = $old->psql_start('BEGIN; INSERT INTO t VALUES (1000); SELECT pg_advisory_lock(1); COMMIT');
$old->poll_query_until("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted", '1');
$old->safe_psql('SELECT pg_switch_wal()');
$old->wait_for_catchup($_) for $new, $replayed, $stored, $restarted;

# The server that will be promoted is cut off, and the others get more WAL. One
# replays it, one is paused before it, one is delayed by an hour and restarted: only
# its WAL still tells what it received before.
$stored->safe_psql('SELECT pg_wal_replay_pause()');
ok($stored->poll_query_until('SELECT pg_is_wal_replay_paused()'), 'one standby is paused');
$restarted->set_standby(recovery_min_apply_delay => '1h');
$new->stop;
$old->safe_psql("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted");
is($open->wait(30), 0, 'the transaction commits');
$old->safe_psql('INSERT INTO t SELECT generate_series(1001, 1999)');
my $end = $old->lsn('flush');
$replayed->poll_query_until("SELECT pg_last_wal_replay_lsn() >= '$end'");
$_->poll_query_until("SELECT pg_last_wal_receive_lsn() >= '$end'") for $stored, $restarted;
$old->kill9;
$restarted->restart;
$new->start;
$new->promote;
$new->safe_psql('INSERT INTO t VALUES (2)');
my $fork = (split ' ', slurp($new->pgdata . '/pg_wal/00000002.history'))[1];

ok($stored->safe_psql("SELECT pg_last_wal_replay_lsn() <= '$fork' AND pg_last_wal_receive_lsn() > '$fork'") eq 't',
    'the paused one has replayed nothing past the fork, but received more');
is($restarted->safe_psql("SELECT pg_last_wal_replay_lsn() <= '$fork', coalesce(pg_last_wal_receive_lsn() <= '$fork', true)"),
    't|t', 'the delayed one does not know that it received more')
    or diag($restarted->safe_psql("SELECT pg_last_wal_replay_lsn(), pg_last_wal_receive_lsn(), '$fork'"));

for my $case ([ $replayed, 'replayed' ], [ $stored, 'received' ], [ $restarted, 'received before a restart' ])
{
    my ($node, $what) = @$case;
    my $plan = $new->plan_for($node);
    like($plan, qr/^rewind\|/, "more WAL $what: the plan is a rewind");
    my $r = $new->try_sql($new->follow_sql($node, function => 'follow_primary_plan', method => 'repoint'));
    like($r->{out}, qr/^refuse\|/, "$what: a repoint is refused even when it is asked for");

    makes_follow($new, $node, "$what: the node follows");
    is($new->job('method, fork_lsn, lost_transactions, lost_wal_bytes > 50000'),
        "rewind|$fork|2|t", "$what: by a rewind; the fork is known, what was lost is counted");
    my $dir = $new->job('lost_wal_dir');
    is($node->commits_in($dir, 1, $fork), 2, "$what: and can be read in the WAL that was saved");

    $new->safe_psql("INSERT INTO t VALUES (3)");
    if ($node == $restarted)
    {
        # The proof was what it received; now it may show the rows.
        is($node->standby_setting('recovery_min_apply_delay'), '1h', "$what: its delay is its own affair");
        like($new->step('verify'),
            qr/received.*recovery_min_apply_delay/, "$what: the proof says what it could not show");
        $node->set_standby(recovery_min_apply_delay => undef);
    }
    $new->wait_for_catchup($node);
    is($node->safe_psql('SELECT count(*) FILTER (WHERE i >= 1000), count(*) FROM t'),
        $new->safe_psql('SELECT count(*) FILTER (WHERE i >= 1000), count(*) FROM t'),
        "$what: it has the primary's rows, and no other");
    $node->restart;
    $new->wait_for_catchup($node);
    is($node->timeline, 2, "$what: after a restart it is on the primary's timeline as before");
}

done_testing();
