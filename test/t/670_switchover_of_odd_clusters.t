# A switchover of clusters with more than tables: an archiver that hangs, synchronous
# replication by names that are gone, a prepared transaction, a logical slot, an unlogged
# table, a tablespace. Only a real shutdown waits for an archiver, and only a real
# promotion shows what of the rest comes along.

use FollowPrimary::Test;
use FollowPrimary::Writer;
use Time::HiRes qw(time);

plan(skip_all => 'before PostgreSQL 12 there is no switchover') if FollowPrimary::Node::pg_major() < 12;

my $cluster = FollowPrimary::Cluster->new(nodes => 3, extension => 1, conf => {
    archive_mode => 'on', archive_command => 'true', wal_level => 'logical', max_prepared_transactions => 5,
    pg_major() >= 15 ? (allow_in_place_tablespaces => 'on') : (),
    'follow_primary.verify_timeout' => '20s' });
my ($one, $two, $three) = $cluster->nodes;
$_->set('follow_primary.primary_host' => $_->address) for $cluster->nodes;
$_->reload for $cluster->nodes;

$one->safe_psql('CREATE TABLE t AS SELECT generate_series(1, 100) AS i; CREATE UNLOGGED TABLE u AS SELECT 1 AS i');
$one->safe_psql("SELECT pg_create_logical_replication_slot('logical', 'test_decoding')");
$one->safe_psql("BEGIN; INSERT INTO t VALUES (101); PREPARE TRANSACTION 'prepared'");
if (pg_major() >= 15)
{
    $one->safe_psql("CREATE TABLESPACE ts LOCATION ''");
    $one->safe_psql('CREATE TABLE in_ts TABLESPACE ts AS SELECT 1 AS i');
}

# The archiver begins with a segment and does not end; nor do commits wait for who is gone.
my $pids = scratch_dir('archiver');
$one->set(archive_command => "echo \$\$ >$pids/pid; exec sleep 1000");
$_->set(synchronous_standby_names => 'ANY 1 (gone, ' . join(', ', map { '"' . $_->name . '"' } $cluster->nodes) . ')') for $cluster->nodes;
$_->reload for $cluster->nodes;
$one->safe_psql('SELECT pg_switch_wal()');
wait_until('the archiver hangs', sub { -s "$pids/pid" }, 60);

my $writer = FollowPrimary::Writer->start($cluster);
$one->wait_for_catchup($_) for $two, $three;
my $began = time;
my $r = $two->try_sql('SELECT state, method FROM follow_primary_switchover()', timeout => 120);
my $took = time - $began;
is($r->{out}, "succeeded|repoint\nsucceeded|repoint", 'an archiver that hangs does not hold it up') or diag($r->{err});
like($r->{err}, qr/WARNING: .*logical replication slots of the primary end with this switchover: logical\n.*NOTICE: .*stop:/s, 'before the stop it tells of a logical slot that does not come along');
$writer->wait_for_rows(10);
my $gap = $writer->longest_gap($began);
cmp_ok($gap, '<', 5, sprintf 'there is no acknowledged row for %.2f s only, of %.1f', $gap, $took);
is($writer->lost($two), '0', 'no acknowledged row is lost');
is($cluster->primary->name, $two->name, 'the standby is the only primary');
my ($archiver) = slurp("$pids/pid") =~ /(\d+)/;
ok(!-e "/proc/$archiver" || kill('TERM', $archiver), 'what the archiver ran is ended, by the server or here');
my ($dir) = glob $one->pgdata . '.follow_primary/lost_wal-*';
ok(defined $dir && glob("$dir/0*"), 'what it had not archived is kept');

$two->safe_psql("COMMIT PREPARED 'prepared'");
has_rows_of($two, $_, 'with the prepared transaction, ' . $_->name) for $one, $three;
is($two->safe_psql('SELECT count(*) FROM t WHERE i = 101'), '1', 'the prepared transaction is committed on the new primary');
is($two->safe_psql('SELECT count(*) FROM u'), '0', 'an unlogged table is there, and empty as after any promotion');
is($two->safe_psql('SELECT count(*) FROM in_ts'), '1', 'a table in a tablespace is there') if pg_major() >= 15;
is($one->safe_psql("SELECT count(*) FROM pg_replication_slots WHERE slot_type = 'logical'"), '0', 'no logical slot holds WAL on the former primary');

# Where none of the names is there, every commit would wait on the new primary: that is
# said before, and the primary goes on.
$writer->stop;
$one->set(archive_command => 'true');
$three->set(synchronous_standby_names => 'gone');
$_->reload for $one, $three;
$two->wait_for_catchup($three);
$r = $three->try_sql('SELECT state, method FROM follow_primary_switchover()', timeout => 120);
like($r->{message}, qr/synchronous_standby_names: commits would wait for ever/, 'names of which none is there are refused') or diag($r->{err});
has_rows_of($two, $three, 'the primary goes on');
$three->set(synchronous_standby_names => '');
$three->reload;
$r = $three->try_sql('SELECT state, method FROM follow_primary_switchover()', timeout => 120);
is($r->{out}, "succeeded|repoint\nsucceeded|repoint", 'without them the same call succeeds') or diag($r->{err});

done_testing();
