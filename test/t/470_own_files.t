# The node's own files in its data directory survive a rewind: its logs, with the
# reason of the crash, and whatever its settings, its connection strings and its
# commands name, and what lies beside that. The primary has files of the same
# names. They survive a rewind that fails, one that is interrupted, and the copy
# that follows on it. Only real pg_rewinds and servers show what is replaced.

use FollowPrimary::Test;
use FollowPrimary::OwnFiles;

my $cluster = FollowPrimary::Cluster->new(nodes => 2, extension => 1, hold => 1);
my ($old, $new) = $cluster->nodes;
my %own = map { $_->name => FollowPrimary::OwnFiles->new($_, sockets => 0) } $old, $new;

# For a node that was no standby yet, these are the job's settings that name them.
# The paths are the node's: each server has the other's.
for my $pair ([ $old, $new ], [ $new, $old ])
{
    my ($server, $node) = @$pair;
    $server->set('follow_primary.replication_options' => $own{ $node->name }->conninfo,
        'follow_primary.passfile' => $own{ $node->name }->passfile, 'follow_primary.verify_timeout' => '20s');
}
$old->safe_psql('CREATE TABLE t AS SELECT generate_series(1, 1000) AS i');
$old->wait_for_catchup($new);
$_->restart for $old, $new;
$new->wait_for_streaming($old);
$_->remember for values %own;

# The standby is promoted, and the primary lives on.
sub fail_over
{
    ($old, $new) = ($new, $old);
    $new->promote;
    $_->safe_psql('INSERT INTO t VALUES (7777)') for $old, $new;
    return;
}

sub follows
{
    my ($method, $what) = @_;
    is($new->job('method, state'), "$method|succeeded", "$what: $method");
    has_rows_of($new, $old, $what);
    $own{ $old->name }->unchanged($what);
    is(join(' ', grep { !m{/lost_wal-} } glob($old->pgdata . '.follow_primary/*')), '', "$what: nothing is left beside the data");
    return;
}

# 1. A former primary, which has diverged.
$old->kill9;
$new->promote;
$new->safe_psql('INSERT INTO t VALUES (-1)');
$old->start;
$old->safe_psql('INSERT INTO t VALUES (7777)');
$old->kill9;
my $r = $new->make_follow($old, when_down => 'rejoin');
ok($r->{ok}, 'the former primary follows') or diag($r->{err});
follows('rewind', 'rewind');

# 2. pg_rewind says that it cannot, and has changed nothing. What was moved aside
# is back.
sub tool_says
{
    my ($name, $script) = @_;
    my $bin = scratch_dir("bin-$name");
    FollowPrimary::Node::bindir_with($bin, 'pg_rewind', $script);
    return "SET follow_primary.node_bin_dir = '$bin'; ";
}
fail_over();
$r = $new->try_sql(tool_says('refuses', 'echo "pg_rewind: error: could not fetch anything: FATAL: no such luck" >&2; exit 1')
    . $new->follow_sql($old, method => 'rewind'));
is($r->{sqlstate}, '08006', 'a rewind that fails before it changes anything') or diag($r->{err});
$own{ $old->name }->unchanged('failed rewind');

# 3. One that dies in the middle, with all that it does to files; then a copy.
$r = $new->try_sql(tool_says('dies', <<'SH') . $new->follow_sql($old, method => 'rewind', when_down => 'rejoin'));
echo "pg_rewind: need to copy 1 MB" >&2
while [ $# -gt 0 ]; do case $1 in -D) data=$2 ;; esac; shift; done
cd "$data" || exit 1
for f in log/crash.log certs/client.key certs/root.crt scripts/archive.sh top-script conf/extra.conf; do echo "the primary's" >"$f"; done
rm -rf tools hidden sub "my scripts" spool "last crash" .pgpass
exit 1
SH
ok(!$r->{ok}, 'a rewind that dies in the middle');
$r = $new->make_follow($old, when_down => 'rejoin');
ok($r->{ok}, 'is followed by a copy') or diag($r->{err});
follows('basebackup', 'copy after a rewind that died');

# 4. One whose job ends before the node's configuration is there again.
fail_over();
$new->hold_step('configure');
my $id = $new->safe_psql($new->follow_sql($old, method => 'rewind', wait => 'false'));
$new->wait_held(1);
$new->safe_psql("SELECT pg_terminate_backend(worker_pid) FROM follow_primary_job WHERE id = $id");
$new->release_step;
$new->poll_query_until('SELECT state FROM follow_primary_job ORDER BY id DESC LIMIT 1', 'cancelled');
$r = $new->make_follow($old, method => 'rewind', when_down => 'rejoin');
ok($r->{ok}, 'a rewind that was interrupted is finished') or diag($r->{err});
follows('rewind', 'finished rewind');

done_testing();
