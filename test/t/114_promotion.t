# The call comes at the moment of promotion: the new primary takes writes, but its
# checkpoint goes on, and its control file still has the old timeline. pg_rewind would
# answer "no rewind required", and the node would never stream. Shared buffers full of
# dirty pages, and a checkpoint that PostgreSQL spreads over most of an hour, make
# that moment last.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 3, extension => 1, conf => {
    shared_buffers => '128MB', checkpoint_timeout => '1h', max_wal_size => '4GB',
    checkpoint_completion_target => '0.9', bgwriter_lru_maxpages => 0,
    'follow_primary.verify_timeout' => '20s' });
my ($old, $new, $sibling) = $cluster->nodes;

$old->safe_psql(q{CREATE TABLE t AS SELECT i, repeat('x', 500) AS filler FROM generate_series(1, 120000) AS i});
$old->wait_for_catchup($_, undef, 120) for $new, $sibling;
$old->kill9;
$old->start;
$old->safe_psql(q{INSERT INTO t VALUES (-1, 'stray')});

my $on_old_timeline = 'SELECT timeline_id = 1 FROM pg_control_checkpoint()';
$new->promote;

# The sibling comes first: it needs no checkpoint, and must not wait for one.
my $log = $new->log_size;
my $r = makes_follow($new, $sibling, 'the sibling is repointed while the checkpoint runs');
is($new->safe_psql('SELECT method FROM follow_primary_job'), 'repoint', 'by a repoint');
is($new->safe_psql($on_old_timeline), 't', 'the checkpoint of the promotion has not ended yet');
unlike($new->log_content($log), qr/checkpoint complete/, 'nor was it hurried');

makes_follow($new, $old, 'the former primary follows');
is($new->job('method, lost_transactions'), 'rewind|1', 'by a rewind');
is($new->safe_psql(q{SELECT detail FROM follow_primary_step WHERE step = 'rewind'}), 'rewound', 'that was none in name only');
is($new->safe_psql($on_old_timeline), 'f', 'for which the control file had to show the new timeline');

$new->safe_psql(q{INSERT INTO t VALUES (-2, 'new')});
for my $node ($old, $sibling)
{
    $new->wait_for_catchup($node);
    is($node->safe_psql('SELECT count(*), min(i) FROM t'), '120001|-2', $node->name . " has the primary's rows, and no other");
}

done_testing();
