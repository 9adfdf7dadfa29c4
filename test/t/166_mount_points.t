# Data directory, WAL directory and tablespace are mount points, or the tablespace is
# within the data directory. None of them can be renamed, so the job makes the copy
# inside and exchanges the contents. Only the kernel tells what cannot be renamed, and
# only a server whether all is in its place.

use File::Path qw(remove_tree);
use FollowPrimary::Test;
use FollowPrimary::Mounts;

# The WAL directory is a mount point in the data directory; the tablespace's file
# system has files of others, too.
my $dir = FollowPrimary::Mounts::enter(<<'END');
fs='mount -t tmpfs -o mode=0700,size=300m tmpfs'
mkdir data space
$fs data && mkdir data/pg_wal && $fs data/pg_wal && $fs space
END
plan(skip_all => FollowPrimary::Mounts::NONE) if !$dir;

my $cluster = FollowPrimary::Cluster->new(nodes => 3, extension => 1, same_port => 0);
my ($new, $mounted, $nested) = $cluster->nodes;

sub follows_now
{
    my ($node, $what) = @_;
    has_rows_of($new, $node, $what, 't', 'spaced');
    is($node->safe_psql('SHOW work_mem'), '12345kB', "$what has its own configuration");
    return;
}

sub tablespace_link { my ($node) = @_; return (glob($node->pgdata . '/pg_tblspc/*'))[0] }
sub device { return (stat $_[0])[0] }

# All files of ours in and beside the node's folders.
sub litter
{
    my ($node) = @_;
    my @at = ($node->pgdata, readlink tablespace_link($node));
    return join ' ', sort grep { !m{/lost_wal-|\.follow_primary\.log$} }
        (map { glob("$_/.follow_primary*"), glob("$_.follow_primary_*") } @at, $node->pgdata . '/pg_wal'),
        glob($node->pgdata . '.follow_primary/*');
}

# The primary gets a tablespace, and the standbys are made anew.
$new->safe_psql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS i");
mkdir $new->host->dir . '/space' or die;
$new->safe_psql("CREATE TABLESPACE space LOCATION '" . $new->host->dir . "/space'");
$new->safe_psql('CREATE TABLE spaced TABLESPACE space AS SELECT generate_series(1, 1000) AS i');
my $copied = $mounted->host->dir . '/data';
for my $node ($mounted, $nested)
{
    $node->stop;
    remove_tree($node->pgdata);
    $node->init_standby_from($new, slot => 1, basebackup => [ '-T', $new->host->dir . '/space=' . $node->host->dir . '/space' ]);
    $node->set(work_mem => '12345kB');
}

run_ok([ 'sh', '-ec', <<'END', 'sh', $copied, $mounted->host->dir . '/space', $dir ]);
cp -a "$1/." "$3/data/"
cp -a "$2/." "$3/space/"
ln -sfn "$3/space" "$3"/data/pg_tblspc/*
rm -r "$1" "$2"
mkdir "$3/space/lost+found" "$3/space/PG_9_1" "$3/data/lost+found"
echo theirs >"$3/space/theirs"
echo theirs >"$3/space/PG_9_1/theirs"
END
$mounted->{pgdata} = "$dir/data";
$new->set_row($mounted, pgdata => "$dir/data");
chmod 0, "$dir/space/lost+found", "$dir/data/lost+found";

my $within = $nested->pgdata . '/space';
run_ok([ 'sh', '-ec', 'mv "$1" "$2"; ln -sfn "$2" "$3"', 'sh', $nested->host->dir . '/space', $within, tablespace_link($nested) ]);
for my $node ($mounted, $nested)
{
    $node->start;
    $node->wait_for_streaming($new);
}

# 1. A copy of a running standby, on three mount points.
my $id = $new->safe_psql($new->follow_sql($mounted, method => 'basebackup', wait => 'false'));
my $reads = 0;
wait_until('the job ends', sub {
    my $inside = -d "$dir/data/.follow_primary_new/base" && -d "$dir/space/.follow_primary_new";
    $reads++ if $inside && ($mounted->psql('SELECT count(*) FROM spaced; SELECT pg_reload_conf()'))[0] == 0;
    return $new->safe_psql("SELECT state FROM follow_primary_job WHERE id = $id") ne 'running';
}, 60);
is($new->job(q{state, coalesce(error, '')}), 'succeeded|', 'a node on mount points gets a copy');
cmp_ok($reads, '>', 0, 'it answered queries while the copy lay in its data directory');
follows_now($mounted, 'the copy');
is(litter($mounted), '', 'nothing is left in them, nor beside them');
is(readlink tablespace_link($mounted), "$dir/space", 'the tablespace is where it was');
ok(!-l "$dir/data/pg_wal", 'pg_wal is the folder that it was');
is(scalar(grep { device($_) != device($dir) } "$dir/data", "$dir/data/pg_wal", "$dir/space"), 3, 'on their own file systems');
isnt(device("$dir/data/pg_wal"), device("$dir/data"), 'the WAL on one of its own');
is((stat "$dir/$_/lost+found")[2] & 07777, 0, "lost+found of $_ is as it was") for qw(data space);
is(slurp("$dir/space/theirs") . slurp("$dir/space/PG_9_1/theirs"), "theirs\ntheirs\n", "and so is what others have there");

# 2. The replaced data is kept whole, and the job's row names it. A rewind would
# remove it, so the job makes none.
$id = $new->safe_psql("SET follow_primary.keep_old_data = 'always'; " . $new->follow_sql($mounted, method => 'basebackup'));
my @kept = map { "$dir/$_/.follow_primary_old-$id" } 'data/pg_wal', 'space', 'data';
is(join(' ', sort split /\n/, $new->step('clean') =~ s/^the replaced data is kept in //r), join(' ', sort @kept), 'the kept folders are named');
is(litter($mounted), join(' ', sort @kept), 'and are all that is there');
is(readlink "$kept[2]/pg_wal", $kept[0], 'the kept data leads to the kept WAL');
is((readlink((glob "$kept[2]/pg_tblspc/*")[0])), $kept[1], 'and to the kept tablespace');
like((run_command([ $mounted->bin('pg_controldata'), $kept[2] ]))[1], qr/^Database cluster state: *shut down in recovery/m, 'and was shut down in order');
follows_now($mounted, 'the copy of the copy');

chmod 0700, "$dir/data/lost+found", "$dir/space/lost+found";
$mounted->stop;
my $r = $new->make_follow($mounted, method => 'rewind', when_down => 'rejoin');
is($r->{sqlstate}, '55000', 'a rewind is refused while kept data is in the data directory') or diag($r->{err});
like($r->{detail}, qr/pg_rewind would remove .*\.follow_primary_old-$id/, 'the detail says why');
is(join(' ', grep { -d } @kept), "@kept", 'and it is still there');
# As the README says.
my $hint = $new->safe_psql("SELECT hint FROM follow_primary_job WHERE id = $id");
like($hint, qr/^The replaced data is kept\..*: rm -r(?: '[^']+'){3}$/, "the job's row says how to remove it");
run_ok([ 'sh', '-c', $hint =~ s/.*?: (?=rm )//r ]);
is(join(' ', grep { -e } @kept), '', 'and so it is removed');
makes_follow($new, $mounted, 'once it is removed the rewind succeeds', method => 'rewind', when_down => 'rejoin');
follows_now($mounted, 'the rewound node');
is(litter($mounted), '', 'and nothing is left');

# 3. A tablespace is in the data directory, and the account may not write in the
# folder that has both: nobody can rename the data directory or make anything beside
# it.
my $beside = $nested->pgdata . '.follow_primary';
run_ok([ 'sh', '-ec', 'mkdir "$1/closed"; mv "$1/data" "$1/closed/"; ln -sfn "$1/closed/data/space" "$1"/closed/data/pg_tblspc/*; chmod 0500 "$1/closed"',
    'sh', $nested->host->dir ]) if $nested->stop || 1;
$nested->{pgdata} = $nested->host->dir . '/closed/data';
$new->set_row($nested, pgdata => $nested->pgdata);
$nested->start;
$nested->wait_for_streaming($new);
$r = $new->make_follow($nested, method => 'basebackup');
is($r->{sqlstate}, '42501', 'where nothing can be made beside the data, that is an error') or diag($r->{err});
like($r->{detail}, qr/cannot write \S+data\.follow_primary, .* make that directory and give it to/, 'which says what root has to do');
ok($nested->in_recovery, 'the standby was not even stopped');
chmod 0700, $nested->host->dir . '/closed' or die;
mkdir $nested->pgdata . '.follow_primary', 0700 or die;
chmod 0500, $nested->host->dir . '/closed' or die;
makes_follow($new, $nested, 'once that is done, the copy is made', method => 'basebackup');
follows_now($nested, 'the node with a tablespace in its data directory');
is(readlink tablespace_link($nested), $nested->pgdata . '/space', 'which is where it was');
is(litter($nested), $nested->pgdata . '.follow_primary/server.log', 'only the log of the start is left');
chmod 0700, $nested->host->dir . '/closed';

# 4. The job fills emptied mount points. Nothing tells any more where the tablespace
# was.
$new->safe_psql('ALTER TABLE spaced SET TABLESPACE pg_default');
$new->wait_for_catchup($_) for $mounted, $nested;
$new->safe_psql('DROP TABLESPACE space');
$mounted->stop('immediate');
run_ok([ 'sh', '-ec', 'cd "$1/data"; rm -rf pg_wal/* $(ls -A | grep -vxF pg_wal | grep -vxF lost+found); rm -rf ../space/PG_1*', 'sh', $dir ]);
makes_follow($new, $mounted, 'an empty mount point gets a copy', when_down => 'rejoin');
is($new->job('method'), 'basebackup', 'without being asked');
$mounted->set(work_mem => '12345kB');
$mounted->reload;
ok($mounted->poll_query_until('SHOW work_mem', '12345kB', 10), 'its lost configuration is set again');

done_testing();
