# The main job. The primary is killed and a standby promoted; somebody restarts the
# former primary by mistake and writes to it. One call makes it a standby of the new
# primary: its stray rows are gone, and new rows arrive. Only real servers show what
# pg_rewind and recovery make of a fork.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 3, extension => 1);
my ($old, $new, $sibling) = $cluster->nodes;

$old->safe_psql('CREATE TABLE t (i int); INSERT INTO t SELECT generate_series(1, 1000)');
$old->wait_for_catchup($new);
$old->wait_for_catchup($sibling);
$old->kill9;
$new->promote;
$new->safe_psql('INSERT INTO t SELECT generate_series(1001, 2000)');
$sibling->stop;    # else it may receive them, too
$old->start;
$old->safe_psql('INSERT INTO t SELECT generate_series(100001, 102000)');
is($old->safe_psql('SELECT count(*) FROM t WHERE i > 100000'), 2000, 'the former primary has stray rows');

my $r = makes_follow($new, $old, 'one call makes the former primary follow');
$new->safe_psql('INSERT INTO t VALUES (5000)');
$new->wait_for_catchup($old);
is($old->safe_psql('SELECT count(*), count(*) FILTER (WHERE i > 100000), max(i) FROM t'), '2001|0|5000',
    'its stray rows are gone and new rows arrive');
ok($old->in_recovery, 'it is a standby');

$sibling->start;
makes_follow($new, $sibling, 'the sibling follows');
makes_follow($new, $sibling, 'and a second call finds that it does');
is($new->safe_psql('SELECT string_agg(method, \' \' ORDER BY id) FROM follow_primary_job'), 'rewind repoint none',
    'each by the cheapest method');
done_testing();
