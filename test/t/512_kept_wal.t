# What is kept beside the data is what is nowhere else, once: nothing of a node that
# loses nothing, nothing twice when attempt after attempt fails; and one query tells
# what is kept on all nodes. The segments and how often they are there are files.

use FindBin;
use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 3, extension => 1, conf => { archive_mode => 'on', archive_command => 'true', wal_keep_size => '512MB', 'follow_primary.verify_timeout' => '20s' });
my ($one, $two, $sibling) = $cluster->nodes;
$one->safe_psql('CREATE TABLE t AS SELECT 1 AS i');
$one->wait_for_catchup($_) for $two, $sibling;

sub kept
{
    my ($node) = @_;
    return sort map { s{.*/}{}r } glob $node->pgdata . '.follow_primary/*';
}
# Switchovers, by a fast stop: with nothing lost there is nothing to keep. The
# shutdown checkpoint, which the standby may not have, is none of anybody's rows.
for my $turn (1, 2)
{
    my ($from, $to) = $turn == 1 ? ($one, $two) : ($two, $one);
    $from->safe_psql("INSERT INTO t VALUES ($turn)");
    $from->wait_for_catchup($to);
    $from->stop;
    $to->promote;
    $to->safe_psql('INSERT INTO t VALUES (0)');
    my $r = $to->make_follow($from, when_down => 'rejoin');
    ok($r->{ok}, "switchover $turn: the former primary follows") or diag($r->{err});
    is_deeply([ kept($from) ], [], 'nothing is kept beside its data') or diag(join ' ', kept($from));
    is($to->job('lost_transactions, lost_wal_dir'), '0|', 'the job says so');
    is($sibling->safe_psql('SELECT 1'), 1);
    $to->make_follow($sibling);
}

# WAL behind the fork with no commit in it is nobody's rows either: a checkpoint, a
# rolled back transaction. One with a commit is kept.
for my $lost (0, 1)
{
    $one->wait_for_catchup($two);
    $two->promote;
    $two->safe_psql('INSERT INTO t VALUES (0); CHECKPOINT');
    $one->safe_psql('BEGIN; INSERT INTO t SELECT generate_series(1, 1000); ROLLBACK; CHECKPOINT');
    $one->safe_psql('INSERT INTO t VALUES (1000)') if $lost;
    $one->stop;
    my $r = $two->make_follow($one, when_down => 'rejoin');
    ok($r->{ok}, "$lost transactions lost: it follows") or diag($r->{err});
    is($two->job('lost_transactions'), $lost, 'so many are counted');
    is(scalar(grep { /^lost_wal/ } kept($one)), $lost, $lost ? 'their WAL is kept' : 'their WAL is not kept');
    last if $lost;
    # back
    $two->stop;
    $one->promote;
    $r = $one->make_follow($two, when_down => 'rejoin');
    ok($r->{ok}, 'and back') or diag($r->{err});
}
my ($first) = grep { /^lost_wal/ } kept($one);

# Attempts that fail, again and again, before they have changed anything: all is where it was.
$two->make_follow($sibling);
$two->wait_for_catchup($sibling);
$sibling->promote;
$sibling->safe_psql('INSERT INTO t VALUES (2000)');
$sibling->safe_psql('SELECT pg_switch_wal(); INSERT INTO t VALUES (2001)');
$sibling->stop;
my $bin = scratch_dir('bin');
FollowPrimary::Node::bindir_with($bin, 'pg_rewind', "echo 'pg_rewind: error: could not fetch file list' >&2\nexit 1\n");
$two->safe_psql("UPDATE follow_primary_node SET node_bin_dir = '$bin' WHERE host = '@{[ $sibling->address ]}'");
for my $attempt (1 .. 4)
{
    my $r = $two->make_follow($sibling, when_down => 'rejoin', method => 'rewind');
    ok(!$r->{ok}, "attempt $attempt fails");
    is($two->job('lost_wal_dir'), '', 'it has changed nothing, so nothing is lost');
    my @folders = grep { /^lost_wal/ } kept($sibling);
    is(scalar @folders, 0, 'and nothing kept') or diag("@folders");
}
$two->safe_psql("UPDATE follow_primary_node SET node_bin_dir = NULL WHERE host = '@{[ $sibling->address ]}'");
my $r = $two->make_follow($sibling, when_down => 'rejoin', method => 'rewind');
ok($r->{ok}, 'then it follows') or diag($r->{err});
is($two->job('lost_transactions'), 2, 'what is lost is counted');
my @folders = grep { /^lost_wal/ } kept($sibling);
is(scalar @folders, 1, 'and kept once') or diag("@folders");
is($sibling->pgdata . ".follow_primary/$folders[0]", $two->job('lost_wal_dir'), "where the job's row says");

# What is kept, on all nodes, and how much.
my $manual = slurp("$FindBin::Bin/../../doc/methods.md");
my ($query) = $manual =~ /(SELECT node_host[^;]*lost_wal_dir[^;]*);/ or die 'the manual has no query';
is($two->safe_psql("SELECT node_host, lost_transactions, lost_wal_dir FROM ($query) q ORDER BY 1"),
    join("\n", sort map { join '|', $_->[0]->address, $_->[1], $_->[0]->pgdata . ".follow_primary/$_->[2]" } [ $one, 1, $first ], [ $sibling, 2, $folders[0] ]),
    'one query tells what is kept on all nodes');

done_testing();
