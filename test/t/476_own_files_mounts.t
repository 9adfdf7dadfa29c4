# The data directory is a mount point, so nothing in it can be moved out by a rename;
# and the logs in it are on a disk of their own, so their folder cannot be moved at
# all. They survive a rewind and a copy all the same. If there is no room for them
# beside the data, a rewind changes nothing. Only the kernel tells what can be renamed.

use FollowPrimary::Test;
use FollowPrimary::Mounts;

my $disk = FollowPrimary::Mounts::enter(<<'END');
mkdir disk
mount -t tmpfs -o mode=0700,size=90m tmpfs disk
mkdir disk/data
mount -t tmpfs -o mode=0700,size=300m tmpfs disk/data
mkdir disk/data/log
mount -t tmpfs -o mode=0700,size=150m tmpfs disk/data/log
mkdir other
mount -t tmpfs -o mode=0700,size=300m tmpfs other
mkdir other/data other/data/static
mount -t tmpfs -o ro,mode=0700 tmpfs other/data/static
END
plan(skip_all => FollowPrimary::Mounts::NONE) if !$disk;
my $other = "$disk/other/data";
$disk .= '/disk';

my $cluster = FollowPrimary::Cluster->new(nodes => 3, extension => 1, same_port => 0, conf => { 'follow_primary.verify_timeout' => '20s' });
my ($old, $new, $third) = $cluster->nodes;
$old->safe_psql('CREATE TABLE t AS SELECT generate_series(1, 1000) AS i');
$old->wait_for_catchup($_) for $new, $third;
for my $moved ([ $old, "$disk/data" ], [ $third, $other ])
{
    my ($node, $to) = @$moved;
    $node->stop;
    run_ok([ 'cp', '-a', $node->pgdata . '/.', "$to/" ]);
    run_ok([ 'rm', '-r', $node->pgdata ]);
    $node->{pgdata} = $to;
}
for my $node ($old, $new)
{
    my $data = $node->pgdata;
    mkdir "$data/$_" for 'log', 'archive';
    spew("$data/log/crash.log", 'own of ' . $node->name);
    spew("$data/archive/000000010000000000000001", 'own of ' . $node->name, 0640);
    $node->set(log_directory => 'log', archive_command => "cp %p $data/archive/%f");
}
$new->promote;
$old->start;
$old->safe_psql('INSERT INTO t VALUES (7777)');
$new->safe_psql("UPDATE follow_primary_node SET pgdata = '$disk/data' WHERE port = " . $old->port);

sub own
{
    return join ' ', map { my $file = "$disk/data/$_"; $_ . sprintf(' %o ', (stat $file)[2] & 07777) . (eval { slurp($file) } // 'gone') }
        'log/crash.log', 'archive/000000010000000000000001';
}
my $own = own();

sub follows
{
    my ($method, $what) = @_;
    is($new->job('method, state'), "$method|succeeded", "$what: $method");
    has_rows_of($new, $old, $what);
    is(own(), $own, "$what: the logs and the archive are the node's own");
    is(join(' ', grep { !m{/lost_wal-} } glob("$disk/data.follow_primary/* $disk/data/.follow_primary*")), '', "$what: nothing is left");
    return;
}

# 1. There is no room for the logs beside the data.
run_ok([ 'fallocate', '-l', '100M', "$disk/data/log/large.log" ]);
my $r = $new->make_follow($old, method => 'rewind');
is($r->{sqlstate}, '53100', 'without room for the logs a rewind is not possible') or diag($r->{err});
like($r->{detail}, qr/data\/log is the node's own, .*\d+ MB are needed there, \d+ MB are free/, 'and how much is missing is said');
is(own(), $own, 'they are where they were');
$old->start;
is($old->safe_psql('SELECT max(i) FROM t'), '7777', 'and nothing was changed');
unlink "$disk/data/log/large.log";

# 2. There is.
$r = $new->make_follow($old, method => 'rewind');
ok($r->{ok}, 'the node follows') or diag($r->{err});
follows('rewind', 'rewind');

# 3. A copy changes places with the data in the mount point.
$r = $new->make_follow($old, method => 'basebackup');
ok($r->{ok}, 'the node gets a copy') or diag($r->{err});
follows('basebackup', 'copy');

# 4. What is mounted for reading only cannot be emptied, and no mode cures that.
chmod 0700, $other;
$third->start;
$new->safe_psql("UPDATE follow_primary_node SET pgdata = '$other' WHERE port = " . $third->port);
$new->refuses($third, "$_: a folder mounted for reading only", sqlstate => '42501', message => qr/at step try/, detail => qr{/static},
    hint => qr{On the node .*run as root: mount -o remount,rw '\Q$other\E/static'}, arguments => { method => $_ }) for 'rewind', 'basebackup';

done_testing();
