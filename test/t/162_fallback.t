# If a rewind cannot work, the job makes a copy by itself, and says why. If a copy
# would not cure the cause, the job ends, and the data stays as it was. Only a real
# pg_rewind decides what it says, and when.

use Digest::MD5;
use File::Find ();
use FollowPrimary::Test;

# The contents of all files.
sub contents
{
    my ($node) = @_;
    my %md5;
    File::Find::find({ no_chdir => 1, wanted => sub {
        $md5{$_} = Digest::MD5::md5_hex(slurp($_)) if -f;
    } }, $node->pgdata);
    return \%md5;
}

# A former primary was killed, started again and written to.
sub diverge
{
    my ($old, $new) = @_;
    $old->safe_psql('CREATE TABLE t AS SELECT generate_series(1, 1000) AS i');
    $old->wait_for_catchup($new);
    $old->kill9;
    $new->promote;
    $new->safe_psql('INSERT INTO t SELECT generate_series(1001, 1100)');
    $old->start;
    $old->safe_psql('INSERT INTO t SELECT generate_series(5001, 5100)');
    return;
}

# 1. Without checksums and wal_log_hints no rewind is even tried.
{
    my $cluster = FollowPrimary::Cluster->new(nodes => 2, extension => 1, checksums => 0,
        conf => { wal_log_hints => 'off' });
    my ($old, $new) = $cluster->nodes;
    diverge($old, $new);
    my $r = $new->make_follow($old, method => 'rewind');
    is($r->{sqlstate}, '55000', 'a rewind that is asked for is refused without checksums and hints');
    like($r->{message}, qr/neither data checksums nor wal_log_hints/, 'with the reason');
    ok($old->running && !$old->in_recovery, 'the node goes on');
    makes_follow($new, $old, 'else it gets a copy');
    is($new->job('method, reason'), 'basebackup|the node has neither data checksums nor wal_log_hints', 'for this reason');
    unlike($new->steps, qr/\brewind\b/, 'with no attempt to rewind');
    cmp_ok($new->job('lost_transactions'), '>=', 1, 'what it had is saved');
    has_rows_of($new, $old, 'neither checksums nor hints');
    $_->stop('immediate') for $old, $new;
}

# 2. The node no longer has the WAL that pg_rewind must read. Only pg_rewind finds
# that out, when the server is stopped.
my $cluster = FollowPrimary::Cluster->new(nodes => 2, extension => 1, hold => 1, slots => 0,
    auth => 'scram-sha-256', conf => { wal_keep_size => 0, max_wal_size => '32MB', min_wal_size => '32MB' });
my ($old, $new) = $cluster->nodes;
diverge($old, $new);
for (1 .. 4)
{
    $old->safe_psql('INSERT INTO t VALUES (-1); SELECT pg_switch_wal(); CHECKPOINT');
}
my ($fork_file) = $new->safe_psql("SELECT pg_walfile_name(substring(pg_read_file('pg_wal/00000002.history') FROM '\\S+/\\S+')::pg_lsn)");
(my $needed = $fork_file) =~ s/^00000002/00000001/;
ok(!-e $old->pgdata . "/pg_wal/$needed", 'the WAL from the fork on is not there any more');

my $r = $new->make_follow($old, method => 'rewind');
is($r->{sqlstate}, '55000', 'a rewind that is asked for fails') or diag($r->{err});
like($r->{message}, qr/at step rewind: the data cannot be rewound/, 'which is said');
like($r->{detail}, qr/pg_wal/, "with pg_rewind's words");
like($r->{hint}, qr/basebackup/, 'and what to do');

# While the job makes the copy instead, somebody starts the node and writes to it. The
# server may have ended again when the copy is there.
$new->set(wal_keep_size => '1GB');
$new->reload;
for my $ends (0, 1)
{
    $new->hold_step('copy');
    my $call = $new->psql_start($new->follow_sql($old, when_down => 'rejoin'));
    $new->wait_held(1, 60);
    $old->start;
    $old->safe_psql('INSERT INTO t VALUES (-2)');
    $old->kill9 if $ends;
    $new->release_step;
    isnt($call->wait(60), 0, 'a node that was started meanwhile is not replaced');
    like($call->err, qr/changes while it is worked on/, 'as the error says');
    $old->start;
    is($old->safe_psql('SELECT count(*) FROM t WHERE i = -2'), 1 + $ends, 'it has what was written there');
    $old->stop;
}
makes_follow($new, $old, 'else it goes over to a copy by itself', when_down => 'rejoin');
is($new->job('method'), 'basebackup', "which the job's row names");
like($new->job('reason'), qr/^the node .*; not possible: .*pg_wal/s, 'with both reasons');
is($new->safe_psql("SELECT count(*) FROM follow_primary_step WHERE step IN ('rewind', 'copy')
    AND job_id = (SELECT max(id) FROM follow_primary_job)"), 2, 'both attempts are in the steps');
has_rows_of($new, $old, 'without the WAL that a rewind needs');

# 3. A copy would not cure the cause: the rewind's role is not let in. The node is
# shut down cleanly, so nothing but a job could change its files.
($old, $new) = ($new, $old);
$old->kill9;
$new->promote;
$old->start;
$old->safe_psql('INSERT INTO t VALUES (7777)');
$old->stop;
$new->safe_psql("CREATE ROLE rewinder SUPERUSER LOGIN PASSWORD 'right'");
my $before = contents($old);
my %how = (when_down => 'rejoin', method => 'auto');
my $untouched = sub {
    my ($what) = @_;
    is_deeply(contents($old), $before, "$what: not a byte of the data has changed");
    is($new->job('state, method'), 'failed|rewind', "$what: there was no copy");
    is($new->safe_psql("SELECT count(*) FROM pg_replication_slots"), 0, "$what: no slot is left");
    return;
};

# The password file is the node's, and the connections of the rewind and of
# replication both use it.
my $passfile = $cluster->dir . '/rewinder.pgpass';
spew($passfile, "*:*:*:rewinder:wrong\n*:*:*:repl:@{[ $cluster->{password}{repl} =~ s/([:\\])/\\$1/gr ]}\n", 0600);
my $as_rewinder = "SET follow_primary.rewind_user = 'rewinder'; SET follow_primary.passfile = '$passfile'; ";
$r = $new->try_sql($as_rewinder . $new->follow_sql($old, %how));
like($r->{sqlstate}, qr/^(08006|28P01|28000)$/, 'a wrong password is an error') or diag($r->{err});
like($r->{detail}, qr/password authentication failed for user "rewinder"/, 'which is shown as PostgreSQL says it');
unlike($r->{err}, qr/wrong\b/, 'without the password');
like($r->{hint}, qr/password file/, 'with a hint');
$untouched->('a wrong password');

spew($passfile, slurp($passfile) =~ s/wrong/right/r, 0600);
my $hba = slurp($new->pgdata . '/pg_hba.conf');
spew($new->pgdata . '/pg_hba.conf', "host all rewinder all reject\n$hba");
$new->reload;
$r = $new->try_sql($as_rewinder . $new->follow_sql($old, %how));
like($r->{sqlstate}, qr/^(08006|28000)$/, 'a role that pg_hba.conf rejects is an error') or diag($r->{err});
like($r->{detail}, qr/pg_hba\.conf rejects connection.* user "rewinder"/, 'which is shown, too');
$untouched->('pg_hba.conf');

spew($new->pgdata . '/pg_hba.conf', $hba);
$new->reload;
$r = $new->try_sql($as_rewinder . $new->follow_sql($old, %how));
ok($r->{ok}, 'once it is let in the same call succeeds') or diag($r->{err});
is($new->job('state, method'), 'succeeded|rewind', 'by a rewind');
has_rows_of($new, $old, 'with a role that is let in');

# 4. A node that crashed long after its last checkpoint needs no copy. Crash recovery
# comes before pg_rewind, and would remove WAL that pg_rewind needs, if neither a slot
# nor wal_keep_size holds it. The new primary still has its own.
($old, $new) = ($new, $old);
$new->safe_psql(q{ALTER SYSTEM SET primary_slot_name = ''});
$new->safe_psql(q{ALTER SYSTEM SET wal_keep_size = '1GB'});
$new->reload;
$old->poll_query_until('SELECT count(*) FROM pg_replication_slots WHERE active', '0');
$old->safe_psql('SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots');
$new->wait_for_streaming($old);
$old->safe_psql(q{ALTER SYSTEM SET max_wal_size = '1GB'});
$old->reload;
$old->safe_psql('CHECKPOINT');
$old->safe_psql('INSERT INTO t VALUES (-2); SELECT pg_switch_wal()') for 1 .. 3;
$old->wait_for_catchup($new);
$old->kill9;
$new->promote;
makes_follow($new, $old, 'a node that crashed long after its checkpoint follows', when_down => 'rejoin');
is($new->job('state, method, reason'), 'succeeded|rewind|the node is down', 'by a rewind');
has_rows_of($new, $old, 'long after its checkpoint');

done_testing();
