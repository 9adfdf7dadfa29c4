# Twenty switchovers in a row, round and round three servers, while a client writes. What
# a single one cannot show adds up: timelines, slots, settings and leftovers of the last
# one. No acknowledged row is lost, no node is rewound or copied, and a session that
# reads on the sibling goes on.

use FollowPrimary::Test;
use FollowPrimary::Writer;
use Time::HiRes qw(time);

plan(skip_all => 'before PostgreSQL 12 there is no switchover') if FollowPrimary::Node::pg_major() < 12;

my $cluster = FollowPrimary::Cluster->new(nodes => 3, extension => 1, checksums => 0,
    conf => { 'follow_primary.verify_timeout' => '20s', wal_log_hints => 'off' });
my @nodes = $cluster->nodes;
$_->set('follow_primary.primary_host' => $_->address) for @nodes;
$_->reload for @nodes;

my $writer = FollowPrimary::Writer->start($cluster);
$nodes[0]->wait_for_catchup($_) for @nodes[ 1, 2 ];
my (@gaps, @whole);
for my $turn (1 .. 20)
{
    my ($to, $sibling) = @nodes[ $turn % 3, ($turn + 1) % 3 ];
    my $go = scratch_dir("turn$turn") . '/go';
    my $reader = $sibling->psql_start("SELECT 'began';\n\\! while [ ! -e $go ]; do sleep 0.05; done\nSELECT 'goes on';\n");
    wait_until('a session reads on the sibling', sub { $reader->out =~ /began/ }, 20);
    my $began = time;
    my $r = $to->try_sql('SELECT state, method FROM follow_primary_switchover()', timeout => 120);
    push @whole, time - $began;
    is($r->{out}, "succeeded|repoint\nsucceeded|repoint", "$turn: the two others follow") or diag($r->{err});
    spew($go, '');
    $reader->wait(20);
    like($reader->out, qr/goes on/, "$turn: the session on the sibling goes on") or diag($reader->err);
    last if !$r->{ok};
    $writer->wait_for_rows(5);
    push @gaps, $writer->longest_gap($began);
}
$writer->stop;
my $primary = $cluster->primary;
my $rows = () = $writer->rows;
is($writer->lost($primary), '0', "of $rows acknowledged rows none is lost");
is($primary->timeline, 21, 'each was a promotion');
$primary->wait_for_catchup($_) for grep { $_ != $primary } @nodes;
is($_->safe_psql('SELECT count(*) FROM written'), $primary->safe_psql('SELECT count(*) FROM written'), $_->name . ' has them all') for @nodes;
is($primary->safe_psql('SELECT count(*) FROM follow_primary_job WHERE coalesce(lost_wal_bytes, 0) > 0'), '0', 'and no WAL is lost');
is($_->safe_psql('SELECT count(*) <= 2 FROM pg_replication_slots'), 't', $_->name . ' has slots for the two others at most') for @nodes;
my @left = grep { -e } map { glob $_->pgdata . ".follow_primary/{job,old-*,lost_wal-*}" } @nodes;
is("@left", '', 'nothing is left beside the data');

@gaps  = sort { $a <=> $b } @gaps;
@whole = sort { $a <=> $b } @whole;
note(sprintf 'seconds without an acknowledged row: median %.2f, longest %.2f; until whole: median %.2f, longest %.2f',
    map { ($_->[ @$_ / 2 ], $_->[-1]) } \@gaps, \@whole);

done_testing();
