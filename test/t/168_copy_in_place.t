# The disk has room for the node's data, but not for a copy as well. The job removes
# nothing unless that is permitted; if it is, it first saves what nobody else has. A
# job that fails after that leaves a node that nobody can start, and the next call
# brings it back. Only a file system that is really full shows it.

use FollowPrimary::Test;
use FollowPrimary::Mounts;

my $disk = FollowPrimary::Mounts::enter('mkdir disk && mount -t tmpfs -o mode=0700,size=900m tmpfs disk');
plan(skip_all => FollowPrimary::Mounts::NONE) if !$disk;
$disk .= '/disk';

my $cluster = FollowPrimary::Cluster->new(nodes => 2, extension => 1, same_port => 0);
my ($old, $new) = $cluster->nodes;

sub megabytes { my ($column, $path) = @_; return (split ' ', (split /\n/, run_ok([ 'df', '-Pm', $path ]))[1])[$column] }

# Leaves so many MB free.
sub leave_free
{
    my ($mb) = @_;
    unlink "$disk/ballast";
    run_ok([ 'fallocate', '-l', (megabytes(3, $disk) - $mb) . 'M', "$disk/ballast" ]) if megabytes(3, $disk) > $mb;
    return;
}

# The node's data, WAL and tablespace, each in a folder of its own on the disk.
$old->safe_psql('CREATE TABLE t AS SELECT generate_series(1, 1000) AS i');
mkdir $_->host->dir . '/space' or die for $old;
$old->safe_psql("CREATE TABLESPACE space LOCATION '" . $old->host->dir . "/space'");
$old->safe_psql('CREATE TABLE spaced TABLESPACE space AS SELECT generate_series(1, 1000) AS i, repeat(\'x\', 1000) AS filler');
$new->stop;
run_ok([ 'rm', '-r', $new->pgdata ]);
$new->init_standby_from($old, slot => 1, basebackup => [ '-T', $old->host->dir . '/space=' . $new->host->dir . '/space' ]);
$new->start;
$old->wait_for_catchup($new);
$old->stop;
run_ok([ 'sh', '-ec', <<'END', 'sh', $old->pgdata, $old->host->dir . '/space', $disk ]);
mv "$1" "$3/data"
mv "$2" "$3/space"
mv "$3/data/pg_wal" "$3/wal"
ln -s "$3/wal" "$3/data/pg_wal"
ln -sfn "$3/space" "$3"/data/pg_tblspc/*
END
$old->{pgdata} = "$disk/data";
$new->promote;
$old->set(work_mem => '12345kB');
$old->start;
$old->safe_psql('CREATE TABLE stray AS SELECT generate_series(1, 100) AS i');
$new->set_row($old, pgdata => "$disk/data");

sub folders { return join ' ', readlink("$disk/data/pg_wal"), map { readlink } glob("$disk/data/pg_tblspc/*") }
my $folders = folders();
my $slots = $new->safe_psql('SELECT count(*) FROM pg_replication_slots');

sub untouched
{
    my ($what) = @_;
    is($old->safe_psql('SELECT count(*) FROM stray'), '100', "$what: the node's data is untouched, its server runs");
    is($new->safe_psql('SELECT count(*) FROM pg_replication_slots'), $slots, "$what: no slot is left");
    return;
}

# 1. A copy in place is not permitted.
leave_free(20);
my $plan = $new->make_follow($old, method => 'basebackup', function => 'follow_primary_plan')->{out};
like($plan, qr/^refuse\|there is no room for a copy beside the data: on the file system of "\Q$disk\E\/data" about \d+ MB are needed, (?:19|20) MB are free, \d+ MB are missing\. /,
    'the plan tells what is missing, and where');
like($plan, qr/follow_primary\.copy_in_place/, 'and which setting permits a copy in place');
my $r = $new->make_follow($old, method => 'basebackup');
is($r->{sqlstate}, '53100', 'the job says the same') or diag($r->{err});
like($r->{hint}, qr/follow_primary\.copy_in_place, or copy_in_place in the node's row: then the old data is removed/, 'its hint too');
untouched('not permitted');

# 2. It is permitted, but something else forbids it.
$new->set_row($old, copy_in_place => 'true');
$r = $new->try_sql("SET follow_primary.keep_old_data = 'always'; " . $new->follow_sql($old, method => 'basebackup'));
is($r->{sqlstate}, '53100', 'what is to be kept makes no room') or diag($r->{err});
like($r->{hint}, qr/keep_old_data = always forbids/, 'the hint says so');
untouched('kept');
$new->safe_psql('ALTER ROLE repl NOLOGIN');
$r = $new->make_follow($old, method => 'basebackup');
is($r->{sqlstate}, '08006', 'nor is room made before the node has connected to its primary') or diag($r->{err});
untouched('no connection');
$new->safe_psql('ALTER ROLE repl LOGIN');
$new->safe_psql("CREATE TABLE big AS SELECT i, repeat(md5(i::text), 30) AS t FROM generate_series(1, 200000) i; CHECKPOINT");
$r = $new->make_follow($old, method => 'basebackup');
is($r->{sqlstate}, '53100', 'nor where even that would not do') or diag($r->{err});
like($r->{hint}, qr/Even without its old data \d+ MB would be missing/, 'the hint says so');
untouched('too large');
$new->safe_psql('DROP TABLE big; CHECKPOINT');

# 3. The node lacks a tablespace, and what is in its place is not the node's: both
# servers are on one machine, and it is the primary's own.
leave_free(20);
my $extra = $new->host->dir . '/extra';
mkdir $extra or die;
$new->safe_psql("CREATE TABLESPACE extra LOCATION '$extra'");
$new->safe_psql('CREATE TABLE extra TABLESPACE extra AS SELECT generate_series(1, 1000) AS i');
$new->safe_psql('CHECKPOINT');
my ($file) = $new->safe_psql("SELECT pg_relation_filepath('extra')");
$r = $new->make_follow($old, method => 'basebackup');
is($r->{sqlstate}, '55006', 'what is in the place of a tablespace, and not the node\'s, is in the way') or diag($r->{err});
like($r->{message}, qr/at step clear: there is no place for a tablespace/, 'and is so before anything is removed');
ok(-s $new->pgdata . "/$file", 'the primary has its tablespace');
$old->start;
untouched('a tablespace in use');
$new->safe_psql('DROP TABLE extra');
$new->safe_psql('DROP TABLESPACE extra');

# 4. A job fails between the removal and the copy.
leave_free(20);
$plan = $new->make_follow($old, method => 'basebackup', function => 'follow_primary_plan')->{out};
like($plan, qr/^basebackup\|asked for; there is no room for both, so the old data is removed before its replacement is proven\|.*save_wal,clear,copy,swap/,
    'the plan says that the old data goes first');
$new->fail_steps('copy');
$r = $new->make_follow($old, method => 'basebackup');
ok(!$r->{ok}, 'a job ends before the copy is made');
like($r->{err}, qr/NOTICE: .*the old data of node \S+ is removed now, before its replacement is proven, for there is no room for both/, 'the caller was told of the removal');
like($new->job('reason'), qr/the old data is removed before its replacement is proven/, "the job's row tells it, too");
is($new->step('clear'),
    'the old data is removed, its replacement not proven yet', 'and the row of its step');
my $first = $new->job('id');
my ($counted, $dir, $fork) = split /\|/, $new->job('lost_counted, lost_wal_dir, fork_lsn');
my $transactions = $new->commits_in($dir, 1, $fork);
cmp_ok($transactions, '>=', 1, 'the WAL that only the node had was saved before');
is($counted, 'f', 'not counted yet, as its row says');
ok(!-e "$disk/data/base" && !glob("$disk/wal/0*") && !glob("$disk/space/*"), 'the old data is gone');
ok(!$old->start(fail_ok => 1), 'nobody can start the node');
$new->fail_steps;

# 5. The next call goes on, though copy_in_place is off by now.
$new->set_row($old, copy_in_place => undef);
makes_follow($new, $old, 'the next call makes the copy');
is($new->job('lost_counted, lost_transactions', id => $first), "t|$transactions", 'and counts what was lost');
like($new->job('method, reason'), qr/^basebackup\|an interrupted job removed the old data to make room for a copy/, 'and says why');
sub follows_now
{
    my ($what) = @_;
    has_rows_of($new, $old, $what, 't', 'spaced');
    is($old->safe_psql("SELECT to_regclass('stray')"), '', "$what: and no stray table");
    is($old->safe_psql('SHOW work_mem'), '12345kB', "$what: its own configuration");
    is($old->safe_psql("SELECT setting FROM pg_settings WHERE name = 'port'"), $old->port, "$what: its own port");
    is(folders(), $folders, "$what: WAL and tablespace where they were");
    is(join(' ', grep { !m{/lost_wal-} } glob("$disk/data.follow_primary/* $disk/*.follow_primary_*")), '', "$what: nothing is left");
    return;
}
follows_now('after the failure');

# 6. A whole copy in place, of a running standby.
leave_free(20);
$r = $new->try_sql('SET follow_primary.copy_in_place = on; ' . $new->follow_sql($old, method => 'basebackup'), timeout => 60);
ok($r->{ok}, 'a copy in place') or diag($r->{err});
is($new->job('state'), 'succeeded', 'succeeds');
follows_now('in place');

# 7. Where there is room for both, nothing is removed first.
unlink "$disk/ballast";
$r = $new->try_sql('SET follow_primary.copy_in_place = on; ' . $new->follow_sql($old, method => 'basebackup'), timeout => 60);
ok($r->{ok}, 'with room for both') or diag($r->{err});
unlike($new->steps, qr/\bclear\b/, 'the old data stays until the new standby is proven');
is($new->job('reason'), 'asked for', 'and nothing is said of a removal');

done_testing();
