# The WAL that a rewind discards is saved by a second name, and counted when the node
# follows. What is saved never changes: not by pg_rewind, which overwrites what has the
# name of a file of the primary, not by crash recovery, not by a server that reuses its
# segments. Nothing has a second name while a server may write to it: not after an
# attempt that came to nothing. Only real servers write, remove and reuse segments.

use FollowPrimary::LostWal;
use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 2, lost_wal_options());
my ($old, $new) = $cluster->nodes;
$old->safe_psql('CREATE TABLE t AS SELECT 1 AS i');

for my $crashed (0, 1)
{
    my $what = $crashed ? 'a primary that crashed' : 'a primary that runs';
    my ($from, $to) = $crashed ? ($new, $old) : ($old, $new);
    diverge($from, $to);
    my %before = sums($from->pgdata . '/pg_wal');
    $crashed ? $from->kill9 : $from->safe_psql('SELECT 1');
    my %saved;
    my $r = $to->make_follow_held($from, 'count', sub {
        # it follows already
        is($to->job('state, lost_counted, lost_wal_bytes, lost_transactions'), 'running|f||', "$what: it follows before what it lost is counted");
        $to->safe_psql('INSERT INTO t VALUES (3)');
        $to->wait_for_catchup($from);
        like($to->job('lost_wal_dir'), qr{/lost_wal-\d+$}, "$what: the row says where that is");
        %saved = sums($to->job('lost_wal_dir'));
    }, when_down => 'rejoin');
    ok($r->{ok}, "$what: follows") or diag($r->{err});
    like($to->step('save_wal'), qr/^[4-9] segments have a second name, [1-9] are copied$/, "$what: most of it was not copied");
    is($to->job('method, state, lost_counted, lost_transactions, hint'), 'rewind|succeeded|t|6|', "$what: what is lost is counted in the end");
    my %counted = sums($to->job('lost_wal_dir'));
    cmp_ok(scalar(keys %counted), '>=', 6, "$what: all of it is saved");
    is(join(' ', grep { $saved{$_} ne $counted{$_} } sort keys %counted), '', "$what: to count it changes nothing");
    my @full = (sort keys %counted)[ 0 .. 4 ];
    is(join(' ', grep { $counted{$_} ne ($before{$_} // '') } @full[ 1 .. 4 ]), '', "$what: it is as it was");
    is(second_names($from), '', "$what: no segment of the node has a second name");
    is($from->commits_in($to->job('lost_wal_dir'), $crashed ? 2 : 1, $to->job('fork_lsn')), 6, "$what: pg_waldump reads all of it");
    live_on($to, $from);
    is_deeply({ sums($to->job('lost_wal_dir')) }, \%counted, "$what: nor does it change later");
    $from->restart;
    $from->wait_for_streaming($to);
    is_deeply({ sums($to->job('lost_wal_dir')) }, \%counted, "$what: nor by a restart");
    is(join(' ', grep { !/lost_wal-/ } glob($from->pgdata . '.follow_primary/*')), '', "$what: nothing else is left beside its data");
}

# The new primary has a file of the same name: pg_rewind overwrites it in place.
my $middle = sprintf '0000000300000000%08X', diverge($old, $new) - 2;
$old->stop;
my %before = sums($old->pgdata . '/pg_wal');
spew($new->pgdata . "/pg_wal/$middle", 'other WAL ' x 100000);
truncate $new->pgdata . "/pg_wal/$middle", 1048576 or die;
makes_follow($new, $old, 'the primary has a file of the same name: the node follows', when_down => 'rejoin');
is($new->job('method, lost_counted, lost_transactions'), 'rewind|t|6', 'by a rewind, and all that is lost is counted');
is({ sums($new->job('lost_wal_dir')) }->{$middle}, $before{$middle}, 'that file is saved as the node had it');
unlink $new->pgdata . "/pg_wal/$middle";

# A rewind that changes nothing: nothing is lost, and no segment keeps a second name.
run_ok([ 'rm', '-rf', glob($old->pgdata . '.follow_primary/lost_wal-*'), glob($new->pgdata . '.follow_primary/lost_wal-*') ]);
diverge($new, $old);
$new->stop;
my $bin = scratch_dir('bin');
FollowPrimary::Node::bindir_with($bin, 'pg_rewind', "echo 'pg_rewind: error: could not fetch file list' >&2\nexit 1\n");
$old->set_row($new, node_bin_dir => $bin);
my $r = $old->make_follow($new, when_down => 'rejoin', method => 'rewind');
ok(!$r->{ok}, 'a rewind fails');
like($old->step('save_wal'), qr/^[5-9] segments have a second name/, 'after their WAL got a second name');
is($old->job('lost_wal_dir, lost_counted'), '|', 'nothing is lost, as the row says');
is(staged($new) . second_names($new), '', 'and nothing is left of that');
$old->set_row($new, node_bin_dir => undef);

# The job ends between the two, by a cancel and by the loss of its worker.
for my $how ('pg_cancel_backend(worker_pid)', 'pg_terminate_backend(worker_pid)')
{
    $old->hold_step('rewind');
    my $call = $old->psql_start($old->follow_sql($new, when_down => 'rejoin'));
    $old->wait_held(1, 60);
    isnt(second_names($new), '', "$how: the WAL has a second name");
    $old->job($how);
    isnt($call->wait(60), 0, "$how: the job ends");
    $old->release_step;
    wait_until("$how: the second names go", sub { staged($new) . second_names($new) eq '' }, 30);
    pass("$how: no second name is left");
}

# The rewind begins to change the data, and fails: a copy follows, and what was lost
# is saved, and counted.
my $real = $old->bin('pg_rewind');
$bin = scratch_dir('half');
FollowPrimary::Node::bindir_with($bin, 'pg_rewind', "'$real' \"\$@\"\necho 'pg_rewind: fatal: could not open file: No such file or directory' >&2\nexit 1\n");
$old->set_row($new, node_bin_dir => $bin);
$r = $old->make_follow($new, when_down => 'rejoin', method => 'rewind');
ok(!$r->{ok}, 'a rewind fails half-way') or diag($r->{err});
is($old->job('lost_counted'), 'f', 'what is lost is saved, and not counted');
my $failed = $old->job('id');
my %half = sums($old->job('lost_wal_dir'));
$old->set_row($new, node_bin_dir => undef);

# The count is interrupted: the row says how anybody does it, and the next call does.
$r = $old->make_follow_held($new, 'count', sub { $old->job('follow_primary_cancel(id)') }, when_down => 'rejoin');
is($r->{sqlstate}, '57014', 'a cancel while it is counted ends the job') or diag($r->{err});
is($old->job('lost_counted, lost_transactions', id => $failed), 'f|', 'what was lost is not counted yet');
$new->wait_for_streaming($old);
makes_follow($old, $new, 'the next call');
is($old->job('method'), 'none', 'has nothing else to do');
is($old->job('lost_counted, lost_transactions, lost_wal_bytes > 4 * 1024 * 1024', id => $failed), 't|6|t', 'it has counted, and the row of the job that saved it says so');
my %after = sums($old->job('lost_wal_dir', id => $failed));
is(join(' ', grep { $after{$_} ne $half{$_} } sort keys %after), '', 'nothing has changed');
is(scalar(keys %after) >= 6, 1, 'all is saved');

done_testing();
