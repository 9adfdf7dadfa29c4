# The WAL that a copy discards is not copied: it gets a second name, and is the only
# one when the old data is gone. What is saved never changes, whatever a server
# does: one that goes on with the old data, after an attempt that came to nothing,
# leaves no second name; old data that is kept shares nothing with it; where pg_wal is
# on another file system, it is copied. Only real servers write, remove and reuse
# segments, and only the files tell whether they were copied.

use FollowPrimary::LostWal;
use FollowPrimary::Mounts;
use FollowPrimary::Test;

my $dir = FollowPrimary::Mounts::enter('mkdir wal && mount -t tmpfs -o mode=0700,size=600m tmpfs wal');

my $cluster = FollowPrimary::Cluster->new(nodes => 2, lost_wal_options());
my ($old, $new) = $cluster->nodes;
$old->safe_psql('CREATE TABLE t AS SELECT 1 AS i');

sub beside { my ($node) = @_; return join ' ', grep { !/lost_wal-/ } glob($node->pgdata . '.follow_primary/*') }
sub clear { run_ok([ 'rm', '-rf', map { glob $_->pgdata . '.follow_primary/lost_wal-*' } $old, $new ]); return }

# is_saved(primary, node, what, before, inodes): all that only the node had is where the row says, as
# it was, in the very files; returns their sums.
sub is_saved
{
    my ($primary, $node, $what, $before, $inodes) = @_;
    is($primary->job('method, state, lost_counted, lost_transactions, hint'), 'basebackup|succeeded|t|6|', "$what: what is lost is counted in the end");
    my $saved = $primary->job('lost_wal_dir');
    like($saved, qr{^\Q@{[ $node->pgdata ]}\E\.follow_primary/lost_wal-\d+$}, "$what: the row says where it is");
    my %saved  = sums($saved);
    my %inodes = inodes($saved);
    cmp_ok(scalar(keys %saved), '>=', 6, "$what: all of it is saved");
    is(join(' ', grep { $saved{$_} ne ($before->{$_} // '') } sort keys %saved), '', "$what: as it was");
    is(join(' ', grep { $inodes{$_} ne $inodes->{$_} } sort keys %saved), '', "$what: nothing was copied") if $inodes;
    is(beside($node), '', "$what: nothing else is left beside its data");
    is(second_names($node), '', "$what: no segment of the node has a second name");
    return \%saved;
}

# stays(primary, node, what, saved)
sub stays
{
    my ($primary, $node, $what, $saved) = @_;
    my $folder = $primary->job('lost_wal_dir');
    live_on($primary, $node);
    is_deeply({ sums($folder) }, $saved, "$what: it does not change later");
    return;
}

# 1. A former primary that runs, and one that crashed. The copy follows before what is lost is
# counted. Then the WAL is in its final place.
my $timeline = 0;
for my $crashed (0, 1)
{
    my $what = $crashed ? 'a primary that crashed' : 'a primary that runs';
    my ($from, $to) = $crashed ? ($new, $old) : ($old, $new);
    $timeline++;
    diverge($from, $to);
    $crashed ? $from->kill9 : $from->safe_psql('CHECKPOINT');
    my (%before, %inodes);
    my $r = $to->make_follow_held($from, 'swap', sub {
        # stopped
        %before = map { s/ \d+$/ 1/r } sums($from->pgdata . '/pg_wal');
        %inodes = inodes($from->pgdata . '/pg_wal');
    }, when_down => 'rejoin', method => 'basebackup');
    ok($r->{ok}, "$what: follows") or diag($r->{err});
    like($to->step('save_wal'), qr/^[6-9]\d? segments have a second name, 0 are copied$/, "$what: nothing had to be copied");
    my $saved = is_saved($to, $from, $what, \%before, \%inodes);
    is($from->commits_in($to->job('lost_wal_dir'), $timeline, $to->job('fork_lsn')), 6, "$what: pg_waldump reads all of it");
    stays($to, $from, $what, $saved);
}

# 2. An attempt that comes to nothing: its standby is started again, and writes to its WAL.
# Nobody starts a primary again; a person does.
clear();
my ($node, $primary) = ($new, $old);
for my $how ('follow_primary_cancel(id)', 'pg_terminate_backend(worker_pid)')
{
    $primary->hold_step('swap');
    my $call = $primary->psql_start($primary->follow_sql($node, method => 'basebackup'));
    $primary->wait_held(1, 120);
    ok(!$node->running, "$how: a standby is stopped");
    $primary->job($how);
    isnt($call->wait(60), 0, "$how: the job ends");
    $primary->release_step;
    wait_until("$how: the second names go", sub { staged($node) . second_names($node) eq '' }, 30);
    $node->start if !$node->running;
    live_on($primary, $node);
    is(staged($node) . second_names($node), '', "$how: nothing has a second name");
}
makes_follow($primary, $node, 'it follows again');
diverge($primary, $node);
($node, $primary) = ($primary, $node);
my $middle;
for my $how ('follow_primary_cancel(id)', 'pg_terminate_backend(worker_pid)')
{
    $primary->hold_step('swap');
    my $call = $primary->psql_start($primary->follow_sql($node, method => 'basebackup', when_down => 'rejoin'));
    $primary->wait_held(1, 120);
    isnt(second_names($node), '', "$how: its WAL has a second name");
    $primary->job($how);
    isnt($call->wait(60), 0, "$how: the job ends");
    $primary->release_step;
    wait_until("$how: the second names go", sub { staged($node) . second_names($node) eq '' }, 30);
    pass("$how: no second name is left, and nothing is said to be saved");
    is($primary->job('lost_wal_dir'), '', "$how: nor in the row");
}

# 3. The worker is lost when the copy is in place: another call goes on, and the row of the first
# job tells what was lost. Until then the old data is as it was, and so is what is saved.
my (%before, %inodes);
$primary->hold_step('start');
my $call = $primary->psql_start($primary->follow_sql($node, method => 'basebackup', when_down => 'rejoin'));
$primary->wait_held(1, 120);
my $first = $primary->job('id');
my ($aside) = glob $node->pgdata . '.follow_primary/job/old/pg_wal';
%before = map { s/ \d+$/ 1/r } sums($aside);
%inodes = inodes($aside);
$primary->job('pg_terminate_backend(worker_pid)');
$call->wait(60);
$primary->release_step;
wait_until('nobody works there', sub { !-e $node->pgdata . '.follow_primary.lock' }, 30);
is($primary->job('lost_wal_dir', id => $first), '', 'a job that was lost after the swap says of nothing that it is saved for good');
cmp_ok(scalar(keys %before), '>=', 6, 'the old data has all its WAL still');
makes_follow($primary, $node, 'the next call goes on', when_down => 'rejoin');
is($primary->job('lost_counted, lost_transactions', id => $first), 't|6', 'the row of the first job tells what was lost');
my $saved = is_saved($primary, $node, 'another call', \%before, \%inodes);
stays($primary, $node, 'another call', $saved);

# 4. The old data is kept, and is for people: should they start it, it shares nothing with what is
# saved.
clear();
diverge($primary, $node);
($node, $primary) = ($primary, $node);
my $r = $primary->try_sql("SET follow_primary.keep_old_data = 'always'; " . $primary->follow_sql($node, method => 'basebackup'), timeout => 120);
ok($r->{ok}, 'the old data is kept: it follows') or diag($r->{err});
my ($kept) = $primary->job('hint') =~ /rm -r '([^']+)'/;
my %kept = sums("$kept/pg_wal");
my %copy = sums($primary->job('lost_wal_dir'));
is(join(' ', grep { $copy{$_} ne $kept{$_} } sort keys %copy), '', 'what is saved is the same as in the kept data');
my (%a, %b) = ();
%a = inodes($primary->job('lost_wal_dir'));
%b = inodes("$kept/pg_wal");
is(join(' ', grep { $a{$_} eq $b{$_} } sort keys %a), '', 'but other files');
is($primary->job('lost_counted, lost_transactions'), 't|6', 'and counted');
run_ok([ 'rm', '-rf', $kept ]);

# 5. What a node has yet to archive is lost, too, and not copied either.
clear();
$primary->wait_for_catchup($node);
$primary->set(archive_mode => 'on', archive_command => 'false');
$primary->restart;
$node->wait_for_streaming($primary);
$primary->safe_psql('INSERT INTO t VALUES (2); SELECT pg_switch_wal()') for 1 .. 3;
diverge($primary, $node);
($node, $primary) = ($primary, $node);
%inodes = inodes($node->pgdata . '/pg_wal');
makes_follow($primary, $node, 'a node with WAL that is not archived follows', method => 'basebackup');
like($primary->step('count'), qr/and [3-9] older segments that were not archived yet, kept in/, 'that WAL is saved, too');
%a = inodes($primary->job('lost_wal_dir'));
is(join(' ', grep { $a{$_} ne ($inodes{$_} // '') } sort keys %a), '', 'and nothing was copied') or diag(explain(\%a, \%inodes));
$node->set(archive_mode => 'off');
$primary->set(archive_mode => 'off');

# 6. pg_wal is a link to another file system.
SKIP:
{
    skip(FollowPrimary::Mounts::NONE, 6) if !$dir;
    clear();
    $_->restart for $primary, $node;
    $node->wait_for_streaming($primary);
    $primary->stop;
    run_ok([ 'sh', '-ec', 'mv "$1/pg_wal" "$2/pg_wal" && ln -s "$2/pg_wal" "$1/pg_wal"', 'sh', $primary->pgdata, "$dir/wal" ]);
    $primary->start;
    $node->wait_for_streaming($primary);
    diverge($primary, $node);
    ($node, $primary) = ($primary, $node);
    %before = sums("$dir/wal/pg_wal");
    makes_follow($primary, $node, 'a node with its WAL on another file system follows', method => 'basebackup');
    like($primary->step('save_wal'), qr/^0 segments have a second name, [6-9]\d? are copied$/, 'its WAL is copied');
    is($primary->job('lost_counted, lost_transactions'), 't|6', 'and counted');
    my %saved = sums($primary->job('lost_wal_dir'));
    cmp_ok(scalar(keys %saved), '>=', 6, 'all of it is saved');
    my $last = (sort keys %saved)[-1];
    is(join(' ', grep { $_ ne $last && $saved{$_} ne $before{$_} } sort keys %saved), '', 'as it was');
    stays($primary, $node, 'WAL on another file system', \%saved);
}

done_testing();
