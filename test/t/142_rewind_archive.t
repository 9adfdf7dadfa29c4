# pg_rewind reads the node's WAL from the last common checkpoint on. If the node has
# recycled it, the archive must serve it; if the archive has lost it too, only a copy
# helps. The diverged server has really recycled its segments, and pg_rewind fetches
# them in its own way.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 2, extension => 1, archive => 1, conf => {
    wal_keep_size => 0, min_wal_size => '32MB', max_wal_size => '32MB', checkpoint_timeout => '1h',
    'follow_primary.verify_timeout' => '30s' });
my ($first, $second) = $cluster->nodes;
my $archive = $cluster->archive_dir;

# Before 15 pg_rewind finds a restore_command only in the node's configuration,
# before 13 it uses none.
my $major = pg_major();
if ($major >= 13 && $major < 15)
{
    $_->safe_psql(q{ALTER SYSTEM SET restore_command = '} . $cluster->restore_command . q{'}) for $first, $second;
    $major < 14 ? $_->restart : $_->reload for $second, $first;
}
$first->safe_psql('CREATE TABLE t AS SELECT 1 AS i');

# Promotes $new; $old goes on apart, and recycles its WAL. Returns the fork's segment
# on their common timeline.
sub diverge
{
    my ($old, $new, $timeline) = @_;
    $old->safe_psql('CHECKPOINT; INSERT INTO t SELECT 1');
    $old->wait_for_catchup($new);
    $new->safe_psql('CHECKPOINT');
    $new->promote;
    my $segment = $old->safe_psql('SELECT pg_walfile_name(pg_current_wal_lsn())');
    $old->safe_psql('SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active');
    $old->safe_psql('INSERT INTO t SELECT 1000; SELECT pg_switch_wal(); CHECKPOINT') for 1 .. 5;
    $old->poll_query_until("SELECT archived_count > 0 AND last_archived_wal > '$segment' FROM pg_stat_archiver");
    $old->safe_psql('CHECKPOINT');
    $new->safe_psql('INSERT INTO t SELECT 2');
    is($new->timeline, $timeline, "the other is on timeline $timeline");
    ok(!-e $old->pgdata . "/pg_wal/$segment", 'the former primary has recycled the WAL of the fork');
    ok(-e "$archive/$segment", 'which is in the archive');
    return $segment;
}

diverge($first, $second, 2);
follows_by($second, $first, $major >= 13 ? 'rewind' : 'basebackup', 'with the archive');
is($second->safe_psql(q{SELECT detail FROM follow_primary_step WHERE step = 'rewind'}), 'rewound', 'and a real rewind it was') if $major >= 13;
is($second->job('lost_wal_bytes > 0, lost_transactions'), 't|',
    'what it committed is in WAL that it has no more: how much is not known, and not said to be nothing');
like($second->safe_psql(q{SELECT detail FROM follow_primary_step WHERE step = 'count'}),
    qr/ with at least 0 transactions, kept in .*; not all of it is on the node any more$/, 'nor is it all saved');
ok(!-e $first->pgdata . '.follow_primary/job/rewind.conf', 'the configuration that pg_rewind was given is gone');

# The other way round, and the archive has lost a segment.
my $segment = diverge($second, $first, 3);
unlink "$archive/$segment";
my $r = follows_by($first, $second, 'basebackup', 'with a hole in the archive');
like($r->{err}, qr/NOTICE: .*a copy is made: .*not possible/, 'the caller is told why');
like($first->job('reason'), qr/\Q$segment\E/, 'the missing segment is named');

sub saved
{
    my ($primary, $segment) = @_;
    return $primary->job('lost_wal_dir') . "/$segment";
}

# The node has recycled the fork's WAL, and is killed long after its last checkpoint.
diverge($first, $second, 4);
$first->safe_psql('INSERT INTO t SELECT 2000; SELECT pg_switch_wal()');
$first->safe_psql('INSERT INTO t SELECT 3000');
$segment = $first->safe_psql('SELECT pg_walfile_name(pg_current_wal_lsn())');
$first->kill9;
$r = makes_follow($second, $first, 'a killed primary follows', when_down => 'rejoin');
ok(-e saved($second, $segment), 'the last of what only it had is saved') or diag($r->{err});
like((run_command([ $first->bin('pg_waldump'), saved($second, $segment) ]))[1], qr/desc: COMMIT/, 'with its last commit');

# All servers have WAL from before the fork, but nobody else archives it.
$second->set(archive_command => 'false');
$second->reload;
$segment = $second->safe_psql('INSERT INTO t SELECT 4; SELECT pg_walfile_name(pg_switch_wal())');
$second->safe_psql('INSERT INTO t SELECT 5');
$second->wait_for_catchup($first);
wait_until('a segment is to be archived', sub { -e $second->pgdata . "/pg_wal/archive_status/$segment.ready" }, 30);
$second->kill9;
$first->promote;
my $content = slurp($second->pgdata . "/pg_wal/$segment");
$r = makes_follow($first, $second, 'a primary follows that was behind with its archive', when_down => 'rejoin');
like($first->step('count'),
    qr/ and [1-9]\d* older segments that were not archived yet, kept in /, 'what it was to archive is saved') or diag($r->{err});
ok(slurp(saved($first, $segment)) eq $content, 'as it was');

done_testing();
