# A healthy sibling has replayed checkpoints of the former primary, and made no
# restartpoint since. Its control file then has the next XID of the newest checkpoint,
# but the location of an older one. That is no fork, so the job repoints the sibling.
# Only a real standby under load writes such a control file.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 3, extension => 1);
my ($old, $new, $sibling) = $cluster->nodes;
my @checkpoint = map { $sibling->controldata($_) } 'Latest checkpoint location', "Latest checkpoint's NextXID";

# More than the shared buffers hold: a server that writes them out updates its control
# file.
sub load
{
    $old->safe_psql("INSERT INTO t SELECT g, repeat('x', 500) FROM generate_series(1, 20000) g") for 1 .. 5;
}

$old->safe_psql('CREATE TABLE t (i int, x text)');
load();
$old->safe_psql('CHECKPOINT');
load();
$old->wait_for_catchup($_) for $new, $sibling;
is($sibling->controldata('Latest checkpoint location'), $checkpoint[0], 'the sibling made no restartpoint');
isnt($sibling->controldata("Latest checkpoint's NextXID"), $checkpoint[1], 'but has the next XID of a later checkpoint');

$old->kill9;
$new->promote;
makes_follow($new, $sibling, 'it follows the new primary');
is($new->safe_psql('SELECT method FROM follow_primary_job'), 'repoint', 'by a repoint');

done_testing();
