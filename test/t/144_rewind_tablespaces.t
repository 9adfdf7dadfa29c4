# A rewind of a node whose tablespaces are in other folders than the primary's. The
# node keeps its folders. A new tablespace of the primary would be at the same place
# on the node; if that place belongs to somebody else (here, on one machine, to the
# primary), pg_rewind would write into it, so the job does not start it. pg_rewind
# follows real links into real folders.

use FollowPrimary::Test;

my $ts = scratch_dir('tablespaces');
mkdir "$ts/$_", 0700 or die "mkdir $ts/$_: $!" for qw(kept kept_there gone gone_there made);

my $cluster = FollowPrimary::Cluster->new(nodes => 1, extension => 1, checksums => 1,
    conf => { 'follow_primary.verify_timeout' => '20s' });
my ($old) = $cluster->nodes;
$old->safe_psql($_) for
    "CREATE TABLESPACE kept LOCATION '$ts/kept'", "CREATE TABLESPACE gone LOCATION '$ts/gone'",
    'CREATE TABLE t TABLESPACE kept AS SELECT 1 AS i', 'CREATE TABLE u TABLESPACE gone AS SELECT 1 AS i';

my $host = FollowPrimary::Host->new(name => 'mapped', authorized_key => '');
my $new = FollowPrimary::Node->new(host => $host, passfile => $cluster->passfile);
$new->init_standby_from($old, slot => 1, basebackup => [ map { ('-T', "$ts/$_=$ts/${_}_there") } qw(kept gone) ]);
$new->start;
$new->wait_for_streaming($old);
$old->wait_for_catchup($new);
$new->promote;

$old->safe_psql('INSERT INTO t SELECT 1000; INSERT INTO u SELECT 1000; CREATE TABLE v TABLESPACE kept AS SELECT generate_series(1, 1000) AS i');
$new->safe_psql('INSERT INTO t SELECT 2; DROP TABLE u; CREATE TABLE w TABLESPACE kept AS SELECT generate_series(1, 500) AS i');
$new->safe_psql('DROP TABLESPACE gone');
$new->safe_psql("CREATE TABLESPACE made LOCATION '$ts/made'");
$new->safe_psql('CREATE TABLE x TABLESPACE made AS SELECT generate_series(1, 500) AS i');
$new->safe_psql('CHECKPOINT');

my $r = $new->make_follow($old);
is($r->{sqlstate}, '55006', 'a folder that is in use stops the rewind') or diag($r->{err});
like($r->{detail}, qr/\Q$ts\E\/made/, 'the folder is named');
is($new->safe_psql('SELECT count(*) FROM x'), '500', "the primary's data is whole");
is($old->controldata('Database cluster state'), 'in production', 'the node runs on, as it was');

$new->safe_psql('DROP TABLE x');
$new->safe_psql('DROP TABLESPACE made');
makes_follow($new, $old, 'without it, the node follows');
is($new->job('method'), 'rewind', 'by a rewind');
$new->safe_psql('INSERT INTO t SELECT 3');
$new->wait_for_catchup($old);
is($old->safe_psql('SELECT (SELECT sum(i) FROM t), (SELECT count(*) FROM w)'), '6|500', "it has the primary's rows");
is($old->safe_psql(q{SELECT to_regclass('v') IS NULL}), 't', 'and not its own');
is_deeply([ map { readlink } glob $old->pgdata . '/pg_tblspc/*' ], ["$ts/kept"], 'its tablespace is in its own folder, the dropped one is gone');
is_deeply([ map { readlink } glob $new->pgdata . '/pg_tblspc/*' ], ["$ts/kept_there"], "the primary's is in the primary's");
$old->stop;
$old->check_pages;
pass('every page has the checksum that it should');

done_testing();
