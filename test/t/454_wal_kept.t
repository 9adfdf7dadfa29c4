# The stop that precedes a rewind ends in a checkpoint, which removes or reuses the very
# segments that pg_rewind looks for the last common checkpoint in, and those with
# commits that are to be saved. The node's WAL is kept over its stop, so a busy former primary is
# rewound, and all that it loses is counted; no second name of a segment is left, and
# none that was written to under another name comes back. Only a real checkpoint
# removes, renames and overwrites segments.

use FollowPrimary::Test;
use FollowPrimary::Mounts;

# pg_wal on a file system of its own, behind a link or as a mount point.
my $dir = FollowPrimary::Mounts::enter(<<'END');
fs='mount -t tmpfs -o mode=0700,size=600m tmpfs'
mkdir wal disk && $fs wal && $fs disk && mkdir -m 0700 disk/data disk/data/pg_wal && $fs disk/data/pg_wal
END

sub segments { my ($node) = @_; return glob $node->pgdata . '/pg_wal/????????????????????????' }

# second_names(node): segments that have one, and folders for them.
sub second_names
{
    my ($node) = @_;
    my $wal = readlink($node->pgdata . '/pg_wal') // $node->pgdata . '/pg_wal';
    return join ' ', glob($node->pgdata . '.follow_primary/*/wal'), glob("$wal*follow_primary*"), glob("$wal/.f*"),
        grep { (stat $_)[3] > 1 } segments($node);
}

# litter(node): the same, and what is left beside its data.
sub litter
{
    my ($node) = @_;
    return join ' ', (grep { !/lost_wal-/ } glob($node->pgdata . '.follow_primary/*')), second_names($node);
}

# busy_former_primary(options): old, which lives on apart with more WAL since its last
# checkpoint than it keeps; new; and the segment of the fork.
sub busy_former_primary
{
    my (%opt) = @_;
    my $conf = delete $opt{conf} // {};
    my $pgdata = delete $opt{pgdata};
    my $cluster = FollowPrimary::Cluster->new(nodes => 2, extension => 1, %opt,
        conf => { wal_keep_size => 0, min_wal_size => '32MB', max_wal_size => '1GB', checkpoint_timeout => '1h', %$conf });
    my ($old, $new) = $cluster->nodes;

    if (defined $pgdata)
    {
        $old->stop;
        run_ok([ 'cp', '-a', $old->pgdata . '/.', "$pgdata/" ]);
        $old->{pgdata} = $pgdata;
        $old->start;
        $old->safe_psql("UPDATE follow_primary_node SET pgdata = '$pgdata' WHERE pgdata LIKE '%node0%'");
        $new->wait_for_streaming($old);
    }
    $old->safe_psql('CREATE TABLE t AS SELECT 1 AS i; CHECKPOINT');
    $old->wait_for_catchup($new);
    $old->refuse_standbys;
    $new->promote;
    my $fork = $old->safe_psql('SELECT pg_walfile_name(pg_current_wal_lsn())');
    $old->safe_psql('SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active');
    $old->safe_psql('INSERT INTO t SELECT 1000; SELECT pg_switch_wal()') for 1 .. 8;
    $new->safe_psql('INSERT INTO t SELECT 2');
    return ($old, $new, $fork);
}

sub has_the_rows
{
    my ($old, $new, $what) = @_;
    $new->safe_psql('INSERT INTO t SELECT 3');
    $new->wait_for_catchup($old);
    is($old->safe_psql('SELECT count(*), sum(i) FROM t'), '3|6', "$what: it has the primary's rows, and no other");
    return;
}

my %places = (
    'in the data directory' => [],
    $dir ? (
        'behind a link to another file system' => [ initdb => [ '-X', "$dir/wal/pg_wal" ] ],
        'as a mount point' => [ pgdata => "$dir/disk/data" ]) : ());
for my $place (sort keys %places)
{
    my $what = "pg_wal $place";
    my ($old, $new, $fork) = busy_former_primary(@{ $places{$place} });
    my $pg_wal = $old->pgdata . '/pg_wal';
    ok(-e "$pg_wal/$fork", "$what: the node has the WAL of the fork while it runs");

    # A stop that fails leaves the server as it was.
    $new->set_row($old, node_stop_command => 'exit 7');
    my $r = $new->make_follow($old);
    like($r->{message}, qr/at step stop/, "$what: a stop that fails");
    is(second_names($old), '', "$what: it leaves no second name of a segment");
    $new->set_row($old, node_stop_command => undef);

    my $log = $old->log_size;
    $r = $new->make_follow($old);
    ok($r->{ok}, "$what: the busy former primary follows") or diag($r->{err});
    is($new->job('method, state, lost_transactions'), 'rewind|succeeded|8', "$what: by a rewind, and all lost transactions are counted");
    my ($removed, $recycled) = $old->log_content($log) =~ /checkpoint complete:.* (\d+) removed, (\d+) recycled/;
    cmp_ok(($removed // 0) + ($recycled // 0), '>=', 8, "$what: although its stop removed or recycled its WAL");
    has_the_rows($old, $new, $what);
    is(litter($old), '', "$what: no second name of a segment, and nothing else is left");
    $old->restart;
    $old->wait_for_streaming($new);
    $_->stop for $new, $old;
}

# Segments that the server reuses after they were linked, and writes to: they are not
# taken for what they were. The archive does not get any segment again.
my $archive = scratch_dir('former_archive');
my ($old, $new, $fork) = busy_former_primary(conf => {
    max_wal_size => '32MB', archive_mode => 'on', archive_command => "test ! -e $archive/%f && cp %p $archive/%f" });
my $bin = FollowPrimary::Node::bindir();
my $psql = "$bin/psql -X -d " . "'" . $old->connstr . "'";
my $script = scratch_dir('stop') . '/stop';
spew($script, <<"END", 0755);
#!/bin/sh
for n in 1 2 3 4 5 6; do
    $psql -c "INSERT INTO t SELECT 1000" -c "SELECT pg_switch_wal()" -c CHECKPOINT
done
sleep 1
exec $bin/pg_ctl -D \$1 -m fast -w stop
END
$new->set_row($old, node_stop_command => "$script %D");
$old->poll_query_until("SELECT last_archived_wal >= '$fork' FROM pg_stat_archiver");
my $r = $new->make_follow($old);
ok($r->{ok}, 'it writes on while it stops: the former primary follows') or diag($r->{err});
is($new->job('state'), 'succeeded', 'the job says so');
has_the_rows($old, $new, 'it writes on while it stops');
is(litter($old), '', 'it writes on while it stops: nothing is left');
unlike($old->log_content, qr/archive command failed/, 'nothing was archived twice');
for my $segment (segments($old))
{
    open my $file, '<:raw', $segment or die "$segment: $!";
    read $file, my $page, 16;
    my ($magic, $address) = unpack 'S x6 Q', $page;
    my ($high, $low) = $segment =~ /(.{8})(.{8})$/;
    my $expected = hex($high) * 2**32 + hex($low) * 16 * 2**20;
    next if !$magic || $address == $expected;
    # one that is to come, and was not written to yet
    cmp_ok($expected, '>', $address, "$segment has no newer WAL than its name says");
}

done_testing();
