# A node's WAL folder and tablespaces are outside its data directory, and elsewhere
# than the primary's. The job puts a copy beside each, and renames it into place; the
# links must lead to the new folders, and to none of the primary's. On one machine, as
# here, a wrong path would hit the primary's own files.

use File::Path qw(remove_tree);
use FollowPrimary::Test;

# Ports of their own: with an empty data directory the configuration is the
# primary's, and so is the folder of the sockets.
my $cluster = FollowPrimary::Cluster->new(nodes => 3, extension => 1, same_port => 0);
my ($old, $new, $third) = $cluster->nodes;

sub space { my ($node, $name) = @_; return $node->host->dir . "/$name" }
sub links { my ($node) = @_; return join ' ', sort map { readlink } grep { -l } glob($node->pgdata . '/pg_tblspc/*') }

sub beside
{
    my ($node) = @_;
    return join ' ', map { s{.*/}{}r } glob(join ' ', map { "$_*.follow_primary*/*" } $node->host->dir . '/data'),
        glob($node->host->dir . '/{wal,space}.follow_primary*');
}

# Each node has its tablespace in another place; the third has its pg_wal elsewhere,
# too.
$_->stop for $new, $third;
mkdir space($_, 'space'), 0700 for $old;
$old->safe_psql("CREATE TABLESPACE space LOCATION '" . space($old, 'space') . "'");
$old->safe_psql('CREATE TABLE t AS SELECT generate_series(1, 1000) AS i;
    CREATE TABLE spaced TABLESPACE space AS SELECT generate_series(1, 1000) AS i');
for my $node ($new, $third)
{
    remove_tree($node->pgdata);
    $node->init_standby_from($old, slot => 1, basebackup => [
        '-T', space($old, 'space') . '=' . space($node, 'space'),
        $node->name eq $third->name ? ('--waldir', space($node, 'wal')) : () ]);
    $node->start;
    $old->wait_for_catchup($node);
}
$old->kill9;
$new->promote;
$new->safe_psql('INSERT INTO spaced SELECT generate_series(1001, 1100)');
my $links_of_new = links($new);
is($links_of_new, space($new, 'space'), 'the primary has its tablespace in a place of its own');

# 1. A copy of the running standby.
my $r = makes_follow($new, $third, 'a node with tablespace and WAL elsewhere gets a copy', method => 'basebackup');
is(links($third), space($third, 'space'), 'its tablespace is in its own place');
is(readlink($third->pgdata . '/pg_wal'), space($third, 'wal'), 'its WAL, too');
ok(glob(space($third, 'wal') . '/00000002*'), 'which is the new one');
has_rows_of($new, $third, 'it', 't', 'spaced');
is(beside($third), '', 'nothing is left beside them');
is(links($new), $links_of_new, "the primary's links are as they were");

# 2. keep_old_data keeps the replaced data whole: a server could start from it.
my $id = $new->safe_psql("SET follow_primary.keep_old_data = 'always'; " . $new->follow_sql($third, method => 'basebackup'));
my $kept = $new->safe_psql("SELECT detail FROM follow_primary_step WHERE job_id = $id AND step = 'clean'");
my @folders = (space($third, 'wal') . ".follow_primary_old-$id", space($third, 'space') . ".follow_primary_old-$id",
    $third->pgdata . ".follow_primary/old-$id");
is(join(' ', grep { -d } @folders), "@folders", 'the replaced folders are kept');
like($kept, qr/\Q$_\E/, 'and named') for @folders;
my $hint = $new->safe_psql("SELECT hint FROM follow_primary_job WHERE id = $id");
like($hint, qr/: rm -r .*'\Q$_\E'/, "in the job's row, too") for @folders;
is(readlink("$folders[2]/pg_wal"), $folders[0], 'the kept data leads to the kept WAL');
is((readlink((glob("$folders[2]/pg_tblspc/*"))[0])), $folders[1], 'and to the kept tablespace');
has_rows_of($new, $third, 'the node', 't', 'spaced');

# 3. A former primary with a tablespace is rewound.
makes_follow($new, $old, 'the killed primary is rewound', when_down => 'rejoin');
is($new->job('method'), 'rewind', 'so says the job');
is(links($old), space($old, 'space'), 'its tablespace stays where it is');
has_rows_of($new, $old, 'it', 't', 'spaced');

# 4. Its data directory is emptied. On this machine the place where the primary has
# the tablespace is the primary's own, and nobody may touch it.
$old->stop;
my $slots = $new->slots;
my @before = sort glob(space($new, 'space') . '/*/*/*');
remove_tree($old->pgdata, { keep_root => 1 });
$r = $new->make_follow($old, when_down => 'rejoin');
is($r->{sqlstate}, '55006', 'a tablespace for which there is no free place is an error') or diag($r->{err});
like($r->{detail}, qr/\Q@{[ space($new, 'space') ]}\E is a tablespace of the primary/, 'the detail names the place');
is(join(' ', sort glob(space($new, 'space') . '/*/*/*')), "@before", 'nothing has changed there');
ok(!glob(space($new, 'space') . '.follow_primary*'), 'nor beside it');
is($new->slots, $slots, 'the slots are those that were there');

# On another machine the place would be free; here it is free after this.
$new->safe_psql('ALTER TABLE spaced SET TABLESPACE pg_default');
$new->safe_psql('DROP TABLESPACE space');
makes_follow($new, $old, 'without that tablespace the node gets its copy', when_down => 'rejoin');
has_rows_of($new, $old, 'it', 't', 'spaced');

done_testing();
