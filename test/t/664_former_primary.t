# A former primary that was shut down in good order, and whose last record the new
# primary has, needs no rewind: it becomes a standby as it is. Here neither data
# checksums nor wal_log_hints are on, so pg_rewind would refuse, and a copy is the only
# other way. Only a real shutdown writes that last record, and only a real standby has
# it, or lacks it.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 2, extension => 1, checksums => 0, conf => {
    wal_log_hints => 'off', wal_level => 'logical', archive_mode => 'on', archive_command => 'false',
    'follow_primary.verify_timeout' => '20s' });
my ($one, $two) = $cluster->nodes;
my @rejoin = (when_down => 'rejoin');

$one->safe_psql('CREATE TABLE t AS SELECT generate_series(1, 100) AS i');
$one->safe_psql(q{SELECT pg_create_physical_replication_slot('of_nobody', true), pg_create_logical_replication_slot('logical', 'test_decoding')});
$one->safe_psql('SELECT pg_switch_wal()');
$one->wait_for_catchup($two);

# What is to come is told before: the plan is the same, and says why.
sub plan_of { my ($primary, $node) = @_; return $primary->safe_psql($primary->follow_sql($node, @rejoin) =~ s/follow_primary\(/follow_primary_plan(/r =~ s/^SELECT/SELECT method || ': ' || reason || ': ' || array_to_string(steps, ' ') FROM/r) }

$one->stop('fast');
is($one->controldata('Database cluster state'), 'shut down', 'the primary is shut down');
my @waiting = map { s{.*/}{}r =~ s/\.ready$//r } glob $one->pgdata . '/pg_wal/archive_status/*.ready';
isnt(scalar @waiting, 0, 'and has WAL that it has not archived');
$two->promote;
like(plan_of($two, $one), qr{^repoint: the node was shut down, and its WAL up to \S+ on timeline 1 is part of this server's history: lock connect try slot stop save_wal configure start verify clean$}m,
    'the plan is to start it as a standby');
makes_follow($two, $one, 'it follows', @rejoin);
is($two->job('state, method, lost_wal_bytes, lost_transactions'), 'succeeded|repoint|0|0', 'without a rewind, and without a loss');
has_rows_of($two, $one, 'it');
streams_from($two, $one, 'it');
ok($one->in_recovery, 'it is a standby');
is($one->slots, '', 'it has no slot of its life as a primary');
my ($dir) = glob $one->pgdata . '.follow_primary/lost_wal-*';
is_deeply([ sort map { s{.*/}{}r } glob "$dir/????????????????????????" ], [ sort grep { length == 24 } @waiting ], 'the WAL that it had not archived is kept') if ok(defined $dir, 'something is kept');

# To and fro: on the new timeline it works as well.
$two->stop('fast');
$one->promote;
makes_follow($one, $two, 'the other way round', @rejoin);
is($one->job('state, method'), 'succeeded|repoint', 'it is no rewind either');
has_rows_of($one, $two, 'the other');

# A job that fails at the start leaves a standby's data, not a primary's: whoever starts it
# starts no second primary.
$one->stop('fast');
$two->promote;

# What an interrupted rewind put aside on the node would not come back.
{
    my $folder = $one->pgdata . '.follow_primary/job';
    my $token = $two->safe_psql("SELECT token FROM follow_primary_job WHERE node_host = '@{[ $one->address ]}' ORDER BY id LIMIT 1");
    mkdir $folder or die;
    spew("$folder/mark", "job=1\ntoken=$token\nphase=recovering\nmethod=rewind\n");
    like(plan_of($two, $one), qr/^basebackup: the node has neither data checksums nor wal_log_hints/, 'not after an interrupted rewind');
    unlink "$folder/mark" or die;
    rmdir $folder or die;
    like(plan_of($two, $one), qr/^repoint/, 'but without its mark');
}
$two->safe_psql("UPDATE follow_primary_node SET node_start_command = 'echo no such thing >&2; exit 1' WHERE host = '@{[ $one->address ]}'");
my $r = $two->make_follow($one, @rejoin);
like($r->{message}, qr/PostgreSQL did not start/, 'a start that fails ends the job');
ok(-e $one->pgdata . '/standby.signal', 'and leaves what starts as a standby') if pg_major() >= 12;
$one->start;
ok($one->in_recovery, 'as it does by hand');
$one->stop('fast');
$two->safe_psql("UPDATE follow_primary_node SET node_start_command = NULL WHERE host = '@{[ $one->address ]}'");
makes_follow($two, $one, 'the next call goes on from there', method => 'basebackup', @rejoin);

# Its last record has not reached the standby, which is promoted without it.
$two->safe_psql('INSERT INTO t VALUES (1)');
$two->wait_for_catchup($one);
my $receiver = $one->safe_psql('SELECT pid FROM pg_stat_wal_receiver');
kill 'STOP', $receiver or die;
kill 'KILL', $two->safe_psql('SELECT pid FROM pg_stat_replication');
wait_until('the primary runs again', sub { ($two->psql('SELECT 1'))[0] == 0 }, 60);
$two->stop('fast');
kill 'KILL', $receiver;
wait_until('the standby answers', sub { ($one->psql('SELECT 1'))[0] == 0 }, 60);
$one->promote;
unlike(plan_of($one, $two), qr/^repoint/, 'a former primary whose last record the new one lacks is no prefix');
like(plan_of($one, $two), qr/^basebackup: the node has neither data checksums nor wal_log_hints/, 'only a copy helps');

done_testing();
