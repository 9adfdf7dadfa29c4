# What a rewind brings into line: databases, tablespaces and relations that both sides
# made and dropped after the fork, files that grow while pg_rewind copies them, and a
# WAL directory behind a symbolic link. pg_rewind decides file by file, so the files
# are real.

use FollowPrimary::Test;

my $wal = scratch_dir('wal') . '/pg_wal';
my $cluster = FollowPrimary::Cluster->new(nodes => 2, extension => 1, checksums => 1, initdb => [ '-X', $wal ], conf => {
    wal_log_hints => 'off', wal_keep_size => '512MB', max_wal_size => '2GB', 'follow_primary.verify_timeout' => '60s' });
my ($old, $new) = $cluster->nodes;

# Several servers on one machine have tablespaces, so these are within the data
# directories. Replay needs the setting, too.
my $tablespaces = pg_major() >= 16;
$cluster->set(allow_in_place_tablespaces => 'on') if $tablespaces;

run_ok([ $old->bin('pgbench'), '-i', '-q', '-s', '2', $old->connstr ]);
$old->safe_psql('CREATE DATABASE kept');
$old->safe_psql('CREATE DATABASE dropped_here');
$old->safe_psql('CREATE DATABASE dropped_there');
$old->safe_psql('CREATE TABLE common AS SELECT 1 AS i; CREATE TABLE dropped_here AS SELECT 1 AS i; CREATE TABLE dropped_there AS SELECT 1 AS i;
    CREATE TABLE truncated AS SELECT generate_series(1, 20000) AS i; CREATE TABLE grown AS SELECT 1 AS i');
if ($tablespaces)
{
    $old->safe_psql("CREATE TABLESPACE $_ LOCATION ''") for qw(shared gone_here gone_there);
    $old->safe_psql('CREATE TABLE in_shared TABLESPACE shared AS SELECT 1 AS i');
}
$old->safe_psql('CHECKPOINT');
$old->wait_for_catchup($new);
$new->promote;

# The node goes on as a primary.
$old->safe_psql($_) for 'CREATE DATABASE made_there', 'DROP DATABASE dropped_there', 'DROP TABLE dropped_there',
    'CREATE TABLE made_there AS SELECT generate_series(1, 5000) AS i', 'INSERT INTO common SELECT 1000', 'TRUNCATE truncated',
    'INSERT INTO grown SELECT generate_series(1000, 90000)', 'ALTER TABLE pgbench_accounts ADD COLUMN there int DEFAULT 1',
    'VACUUM FULL pgbench_branches', 'CREATE INDEX ON pgbench_accounts (bid)',
    $tablespaces ? ("CREATE TABLESPACE made_there LOCATION ''", 'DROP TABLESPACE gone_there', 'INSERT INTO in_shared SELECT 1000') : ();
$old->safe_psql('CREATE TABLE made_there AS SELECT 1', dbname => 'kept');
$old->safe_psql('CHECKPOINT');

# The primary.
$new->safe_psql($_) for 'CREATE DATABASE made_here', 'DROP DATABASE dropped_here', 'DROP TABLE dropped_here',
    'CREATE TABLE made_here AS SELECT generate_series(1, 5000) AS i', 'INSERT INTO common SELECT 2', 'DELETE FROM truncated WHERE i > 10000', 'VACUUM truncated',
    $tablespaces ? ("CREATE TABLESPACE made_here LOCATION ''", 'DROP TABLESPACE gone_here', 'INSERT INTO in_shared SELECT 2') : ();
$new->safe_psql('CREATE TABLE made_here AS SELECT 1', dbname => 'kept');

# Relations grow while the job runs.
my $pgbench = FollowPrimary::Process->start([ $new->bin('pgbench'), '-n', '-c', '2', '-R', '300', '-T', '300', $new->connstr ]);
my $grows = $new->psql_start('CREATE TABLE grows (filler text);
    DO $$ BEGIN FOR n IN 1 .. 100000 LOOP INSERT INTO grows SELECT repeat(md5(n::text), 60) FROM generate_series(1, 20); COMMIT; PERFORM pg_sleep(0.005); END LOOP; END $$');
$new->poll_query_until(q{SELECT pg_relation_size('grows') > 1000000});
my $size = $new->safe_psql(q{SELECT pg_relation_size('grows')});
makes_follow($new, $old, 'the former primary follows');
cmp_ok($new->safe_psql(q{SELECT pg_relation_size('grows')}), '>', $size, 'files have grown meanwhile');
ok($pgbench->running && $grows->running, 'and still do');
$pgbench->stop(signal => 'INT');
$new->safe_psql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query ~ '^DO' AND pid <> pg_backend_pid()});
$grows->wait(30);
is($new->safe_psql('SELECT method FROM follow_primary_job'), 'rewind', 'by a rewind');
ok(-l $old->pgdata . '/pg_wal' && readlink($old->pgdata . '/pg_wal') eq $wal, 'its WAL directory is where it was');
$new->wait_for_catchup($old);

# All databases with all their relations and rows.
my $contents = q{SELECT format('SELECT %L, count(*), sum(hashtext(x::text)::bigint) FROM %I.%I x', relname, nspname, relname)
    FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE relkind = 'r' AND nspname = 'public' ORDER BY relname \gexec};
my @databases = split /\n/, $new->safe_psql('SELECT datname FROM pg_database WHERE datallowconn ORDER BY 1');
is(join(' ', @databases), 'dropped_there kept made_here postgres template1', 'the primary has the databases that it should');
is(join(' ', split /\n/, $old->safe_psql('SELECT datname FROM pg_database WHERE datallowconn ORDER BY 1')), "@databases", 'and the node the same');
for my $database (grep { $_ ne 'template1' } @databases)
{
    my $mine = $new->safe_psql($contents, dbname => $database);
    is($old->safe_psql($contents, dbname => $database), $mine, "all rows of all tables of database $database are the same");
}
my $oids = join ' ', sort map { m{/(\d+)$} } glob $old->pgdata . '/base/*';
is($oids, join(' ', sort map { m{/(\d+)$} } glob $new->pgdata . '/base/*'), 'no folder of a dropped database is left');
SKIP:
{
    skip 'pg_rewind knows tablespaces within PGDATA from 16 on', 2 if !$tablespaces;
    my $list = q{SELECT string_agg(spcname, ' ' ORDER BY 1) FROM pg_tablespace};
    is($old->safe_psql($list), $new->safe_psql($list), 'the tablespaces are the same');
    is(join(' ', sort map { m{/(\d+)$} } glob $old->pgdata . '/pg_tblspc/*'),
        join(' ', sort map { m{/(\d+)$} } glob $new->pgdata . '/pg_tblspc/*'), 'and their folders');
}
is($old->safe_psql(q{SELECT count(*) FROM pg_class WHERE relkind IN ('i', 'r') AND pg_relation_size(oid) < 0}), '0', 'every relation has its file');
$old->stop;
$old->check_pages;
pass('every page has the checksum that it should');
$old->start;
$old->wait_for_streaming($new);

done_testing();
