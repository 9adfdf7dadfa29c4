# A switchover of a primary whose archive_command fails, with 20 segments that wait for it.
# Only a real archiver shows what it does to a shutdown, and whether the segments are kept
# that are then archived by nobody.

use FollowPrimary::Test;
use FollowPrimary::Writer;
use Time::HiRes qw(time);

plan(skip_all => 'before PostgreSQL 12 there is no switchover') if FollowPrimary::Node::pg_major() < 12;

my $cluster = FollowPrimary::Cluster->new(nodes => 3, extension => 1, conf => {
    archive_mode => 'on', archive_command => 'false', wal_keep_size => '1GB', max_wal_size => '1GB',
    'follow_primary.verify_timeout' => '20s' });
my ($one, $two, $three) = $cluster->nodes;
$_->set('follow_primary.primary_host' => $_->address) for $cluster->nodes;
$_->reload for $cluster->nodes;

$one->safe_psql('CREATE TABLE t (i int)');
$one->safe_psql('INSERT INTO t VALUES (1)'), $one->safe_psql('SELECT pg_switch_wal()') for 1 .. 20;
sub waiting { my ($node) = @_; return sort grep { length == 24 } map { s{.*/}{}r =~ s/\.ready$//r } glob $node->pgdata . '/pg_wal/archive_status/*.ready' }
my @waiting = waiting($one);
cmp_ok(scalar @waiting, '>=', 20, '20 segments wait to be archived');
$one->poll_query_until('SELECT failed_count > 0 FROM pg_stat_archiver', 't') or die;
my $writer = FollowPrimary::Writer->start($cluster);
$one->wait_for_catchup($_) for $two, $three;

sub switchover { my ($to, $set) = @_; return $to->try_sql(($set // '') . 'SELECT state, method FROM follow_primary_switchover()', timeout => 120) }

# By choice of a setting it is refused, and the primary goes on.
my $pid = $one->pid;
for my $limit (0, 19)
{
    my $r = switchover($two, "SET follow_primary.max_archive_backlog = $limit; ");
    is($r->{sqlstate}, '55000', "with max_archive_backlog = $limit it is refused");
    like($r->{message}, qr/WAL waits to be archived on the primary: 2\d segments/, 'and it says why') or diag($r->{err});
}
is($one->pid, $pid, 'the primary goes on');
ok(!$one->in_recovery, 'as the primary');

# Else it is no obstacle, and nothing is lost.
@waiting = waiting($one);
my $began = time;
my $r = switchover($two);
my $took = time - $began;
is($r->{out}, "succeeded|repoint\nsucceeded|repoint", 'it succeeds') or diag($r->{err});
like($r->{err}, qr/WARNING: .*archive_command fails, and 2\d segments wait for it.*lost_wal-JOB/s, 'and warns');
$writer->wait_for_rows(10);
my $gap = $writer->longest_gap($began);
cmp_ok($gap, '<', 2, sprintf 'there is no acknowledged row for %.2f s only, of %.1f', $gap, $took);
is($writer->lost($two), '0', 'no acknowledged row is lost');
$writer->stop;
my ($dir) = glob $one->pgdata . '.follow_primary/lost_wal-*';
my %kept = map { s{.*/}{}r => 1 } glob "$dir/*";
is(scalar(grep { !$kept{$_} } @waiting), 0, 'all that waited is kept on the host of the former primary') or diag(join ' ', %kept);
is($dir, $two->safe_psql("SELECT lost_wal_dir FROM follow_primary_job WHERE node_host = '@{[ $one->address ]}'"), 'where the row of its job says');
has_rows_of($two, $_, $_->name) for $one, $three;

done_testing();
