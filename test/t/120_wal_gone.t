# The new primary no longer has WAL that a node needs. A repoint would make a standby
# that waits for ever, and a rewind one that cannot start. The method depends on who
# still has the WAL: the archive, if the node's restore_command really serves it; the
# node itself; or nobody, and only then the job makes a copy. A real checkpoint has to
# remove real segments.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 6, extension => 1, slots => 0, archive => 1, conf => {
    wal_keep_size => 0, min_wal_size => '32MB', max_wal_size => '32MB', checkpoint_timeout => '1h',
    'follow_primary.verify_timeout' => '30s', 'follow_primary.restore_command' => '' });
my ($old, $new, $served, $unserved, $stopped, $cut) = $cluster->nodes;
my $archive = $cluster->archive_dir;
my $reloads = reloads('restore_command');

sub segments
{
    my ($node) = @_;
    return split /\n/, $node->safe_psql(q{SELECT name FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$' ORDER BY 1});
}

# Three siblings stop receiving; each has a restore_command that serves nothing.
# Another one is down. Then the primary writes and recycles much WAL, and dies.
$old->safe_psql('CREATE TABLE t AS SELECT 1 AS i');
$old->wait_for_catchup($_) for $new, $served, $unserved, $stopped, $cut;
$stopped->stop;
for my $node ($served, $unserved, $cut)
{
    $node->set_standby(restore_command => 'false', primary_conninfo => 'host=127.0.0.1 port=1 user=repl');
    $node->poll_query_until('SELECT count(*) FROM pg_stat_wal_receiver', '0');
}
for my $i (1 .. 5)
{
    $old->safe_psql("INSERT INTO t SELECT $i; SELECT pg_switch_wal()");
    $new->poll_query_until("SELECT pg_last_wal_replay_lsn() >= '" . $old->lsn('flush') . "'");
}
$old->safe_psql('CHECKPOINT');
$old->wait_for_catchup($new);
$new->safe_psql('CHECKPOINT');    # a restartpoint
$old->kill9;
$new->promote;
$new->safe_psql('CHECKPOINT; INSERT INTO t SELECT 6');
$new->safe_psql('SELECT pg_switch_wal(); CHECKPOINT; SELECT pg_switch_wal(); CHECKPOINT');
my ($oldest) = segments($new);
my $behind = $served->safe_psql("SELECT pg_last_wal_replay_lsn()");
ok($new->safe_psql("SELECT ('x' || right('$oldest', 8))::bit(32)::int > ('x' || right(pg_walfile_name('$behind'), 8))::bit(32)::int") eq 't',
    'the WAL that the siblings need next is gone from the primary');

# Nobody serves the WAL: the job makes a copy and says why. It tries nothing that
# would hang.
my $node = $unserved;
like($new->plan_for($node), qr/^basebackup\|.*no longer on this server.*restore_command does not serve it/, 'an archive that does not serve it: the plan is a copy');
my $r = $new->make_follow($node, method => 'repoint');
is($r->{sqlstate}, '55000', 'a repoint is refused, for the node would wait for ever');
like($r->{message}, qr/no longer on this server/, 'with the reason');
makes_follow($new, $node, 'the copy is made');
is($new->job('method'), 'basebackup', 'and nothing else');
has_rows_of($new, $node, 'copied');

# The archive serves the WAL, by a restore_command that the repoint gives to the node,
# which goes on where it was. Before 14 this takes a restart.
$node = $served;
my $pid = $node->pid;
$new->set_row($node, restore_command => $cluster->restore_command);
my @before = glob $node->pgdata . '/*';
like($new->plan_for($node), qr/^repoint\|/, 'an archive that serves it: the plan is a repoint');
is_deeply([ glob $node->pgdata . '/*' ], \@before, 'trying the archive leaves nothing behind');

# The archive lacks a segment.
my $next = $new->safe_psql("SELECT right(pg_walfile_name('$behind'), 16)");
my $hole = sprintf '%s/00000001%08X%08X', $archive, hex(substr $next, 0, 8), hex(substr $next, 8) + 1;
rename $hole, "$hole.away" or BAIL_OUT("rename $hole: $!");
like($new->plan_for($node), qr/^basebackup\|.*does not serve it/, 'a hole in the archive: the plan is a copy');
rename "$hole.away", $hole;
makes_follow($new, $node, 'the node is repointed');
is($new->job('method'), 'repoint', 'and nothing else');
is($node->pid == $pid, $reloads, 'it was restarted only where PostgreSQL needs it');
has_rows_of($new, $node, 'from the archive');

# A node that is down and has no restore_command of its own gets ours.
$node = $stopped;
like($new->plan_for($node, when_down => 'rejoin'), qr/^rewind\|/, 'down, with an archive: it is started over');
makes_follow($new, $node, 'down, with an archive: it follows', when_down => 'rejoin');
is($new->step('rewind'),
    'no rewind was required', 'and no data was touched');
has_rows_of($new, $node, 'down');

# A node is down, and nobody has its WAL.
$node = $cut;
$node->stop;
like($new->plan_for($node, when_down => 'rejoin'), qr/^basebackup\|.*no longer on this server/, 'down, and nobody has its WAL: the plan is a copy, and not a start');

done_testing();
