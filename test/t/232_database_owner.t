# A database's owner who is no superuser gets no shell by the extension. A job asks
# the node and this server as a superuser, and the owner decides what names mean in
# that database. Only a whole job shows it, for the victim would be a session on the
# node in the middle of the job. Neither other settings of the database nor its
# owner's locks keep a job from its work.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 2);
my ($primary, $node) = $cluster->nodes;
my $canary = scratch_dir('owner') . '/canary';

$primary->safe_psql('CREATE ROLE owner LOGIN');
$primary->safe_psql('CREATE DATABASE theirs OWNER owner');
my @their = (dbname => 'theirs', user => 'owner');
# In a schema of their own they could put tables with triggers in the place of ours.
$primary->safe_psql('CREATE SCHEMA theirs AUTHORIZATION owner; CREATE EXTENSION follow_primary SCHEMA theirs', dbname => 'theirs');
for my $schema ('theirs', pg_major() >= 15 ? 'public' : ())
{
    for my $call ("follow_primary('127.0.0.1')", "follow_primary_plan('127.0.0.1')", 'follow_primary_wait(1)')
    {
        my $r = $primary->try_sql("SELECT * FROM $schema.$call", dbname => 'theirs');
        is($r->{sqlstate}, '55000', "$call: refused in schema $schema, which is the owner's");
        like($r->{hint}, qr/^As a superuser: ALTER SCHEMA \Q$schema\E OWNER TO postgres\./, 'the hint says what to do');
    }
    $primary->safe_psql("ALTER SCHEMA $schema OWNER TO postgres", dbname => 'theirs');
    is($primary->try_sql("SELECT * FROM $schema.follow_primary_wait(1)", dbname => 'theirs')->{sqlstate}, '42704', 'and that does it');
    $primary->safe_psql('DROP EXTENSION follow_primary; CREATE EXTENSION follow_primary', dbname => 'theirs');
}
$primary->safe_psql('DROP EXTENSION follow_primary; CREATE SCHEMA ours; CREATE EXTENSION follow_primary SCHEMA ours', dbname => 'theirs');
$primary->safe_psql(sprintf("INSERT INTO ours.follow_primary_node (host, port, ssh_port, rewind_database) VALUES ('%s', %d, %d, 'theirs')",
    $node->address, $node->port, $node->host->ssh_port), dbname => 'theirs');

# A superuser's session would do this for them.
my @functions = split /\n/, $primary->safe_psql(q(SELECT p.proname || '|' || pg_get_function_arguments(p.oid) || '|' || p.prorettype::regtype
    FROM pg_proc p WHERE p.proname ~ '^pg_(is_in_recovery|is_wal_replay_paused|last_wal|current_wal|walfile_name|wal_lsn_diff|create_physical|drop_repl|control_)'
    AND NOT p.proretset AND p.pronargs < 3));
my $evil = "CREATE SCHEMA evil;\n";
for my $function (@functions)
{
    my ($name, $arguments, $returns) = split /\|/, $function, 3;
    $arguments =~ s/\bOUT .*|DEFAULT [^,]*//g;
    next if $returns =~ /^(?:record|void)$/;
    $evil .= <<"END";
CREATE FUNCTION evil.$name($arguments) RETURNS $returns LANGUAGE plpgsql AS \$\$
BEGIN
    EXECUTE 'COPY (SELECT 1) TO PROGRAM ''cat >$canary''';
    RETURN NULL;
END \$\$;
END
}
$evil .= "ALTER DATABASE theirs SET search_path = evil, pg_catalog, public;
ALTER DATABASE theirs SET default_transaction_isolation = serializable;
ALTER DATABASE theirs SET default_transaction_read_only = on;\n";
$primary->safe_psql($evil, @their);
$primary->wait_for_catchup($node);
is($primary->try_sql('SELECT pg_is_in_recovery()', @their)->{sqlstate}, '42501', 'the owner alone cannot run a program');
$primary->safe_psql('SELECT pg_is_in_recovery()', dbname => 'theirs');
ok(unlink($canary), 'with a superuser who asks there it could');
$primary->safe_psql('ALTER DATABASE theirs SET role = owner');
$primary->wait_for_catchup($node);

# Nobody who may connect can hold up a job by taking its locks.
my $theirs = $primary->psql_start(sprintf(<<'END', $node->address, $node->port, $node->slot_name), @their);
SELECT pg_advisory_lock(1718645615 + class, key) FROM generate_series(0, 2) AS class,
    (VALUES (1), (2), (3), (hashtext('%s:%d')), (hashtext('%s'))) AS keys (key);
SELECT pg_sleep(300);
END
ok($primary->poll_query_until("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 2", 15, 30), 'the owner holds what looks like locks of jobs') or diag($theirs->err);
is($primary->try_sql('SELECT pg_advisory_lock(1718645615, 1, 3)', @their)->{sqlstate}, '42883', 'those of jobs nobody can ask for');

for my $method (qw(repoint rewind basebackup))
{
    my $r = $primary->try_sql('SET role = none; SET default_transaction_read_only = off; SET follow_primary.verify_timeout = 5; SELECT ours.follow_primary(' . "'@{[ $node->address ]}', @{[ $node->port ]}, method => '$method')", dbname => 'theirs', timeout => 120);
    ok($r->{ok}, "a $method in that database") or diag($r->{err});
}
$theirs->stop;
$primary->safe_psql("SET role = none; SELECT * FROM ours.follow_primary_progress", dbname => 'theirs');
ok(!-e $canary, 'nothing was executed for the owner');

done_testing();
