# A standby becomes a primary without a promotion when its signal file is taken away: it
# goes on on the timeline that it had. A former primary that was shut down in good order,
# and whose last record the other has, still needs no rewind; one with a record more has
# diverged where no history shows it, and only a copy helps. Only real servers write such
# WAL.

use FollowPrimary::Test;

plan(skip_all => 'before PostgreSQL 12 recovery.conf makes a standby') if pg_major() < 12;

my $cluster = FollowPrimary::Cluster->new(nodes => 3, extension => 1, conf => { 'follow_primary.verify_timeout' => '20s' });
my ($one, $two, $three) = $cluster->nodes;
my @rejoin = (when_down => 'rejoin');

sub without_promotion
{
    my ($node) = @_;
    $node->stop;
    unlink $node->pgdata . '/standby.signal' or die;
    $node->start;
    is($node->safe_psql('SELECT pg_is_in_recovery()'), 'f', $node->name . ' is a primary');
    is($node->timeline, 1, 'on the first timeline');
    return;
}

$one->safe_psql('CREATE TABLE t AS SELECT generate_series(1, 100) AS i');
$one->wait_for_catchup($_) for $two, $three;

# 1. It has all of the former primary, that one's last record too; a sibling that was shut
# down has a part.
$three->stop;
$one->safe_psql('INSERT INTO t VALUES (7)');
$one->stop('fast');
without_promotion($two);
follows_by($two, $one, 'repoint', 'the former primary', @rejoin);
follows_by($two, $three, 'repoint', 'a sibling that was shut down', @rejoin);

# 2. The former primary has a commit that the new one never got.
$_->stop for $one, $three;
my $own = $two->lsn('flush');
$two->safe_psql('INSERT INTO t VALUES (8000)');
$two->stop('fast');
without_promotion($one);
$one->safe_psql('INSERT INTO t VALUES (9)');
like($one->plan_for($two, @rejoin), qr/^basebackup\|/, 'a former primary with a commit of its own: the plan is a copy');
is($one->try_sql($one->follow_sql($two, @rejoin, method => 'rewind'))->{sqlstate}, '55000', 'a rewind, which would see nothing to do, is refused');
follows_by($one, $two, 'basebackup', 'a former primary with a commit of its own', @rejoin);
cmp_ok($one->commits_in($one->job('lost_wal_dir'), 1, $own), '>=', 1, 'it is kept');

# 3. A standby that has received some of what the former primary wrote since.
follows_by($one, $three, 'repoint', 'a sibling without it', @rejoin);

done_testing();
