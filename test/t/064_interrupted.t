# A primary goes down with its jobs, and their rows still say "running", for nobody is
# left to write more. Where the library is preloaded, a worker corrects the rows as
# soon as there is a primary again, without a call, and all standbys see it. Only real
# servers that are stopped, started and promoted show whether that worker runs.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 3, extension => 1, hold => 1,
    conf => { shared_preload_libraries => 'follow_primary' });
my ($primary, $standby, $node) = $cluster->nodes;

# Another database has the extension, in a schema of its own, and a row that says
# "running"; another takes no connections.
$primary->safe_psql($_) for 'CREATE DATABASE another', 'CREATE DATABASE closed ALLOW_CONNECTIONS false';
$primary->safe_psql(<<'END', dbname => 'another');
CREATE SCHEMA "Own Schema";
CREATE EXTENSION follow_primary SCHEMA "Own Schema";
INSERT INTO "Own Schema".follow_primary_job (node_host, node_port, requested_method, state, started_at)
    VALUES ('elsewhere', 5432, 'auto', 'running', now());
END

# In this database the schema's owner could have put other tables in the place of
# ours.
$primary->safe_psql($_) for 'CREATE ROLE owner LOGIN', 'CREATE DATABASE theirs OWNER owner';
$primary->safe_psql(<<'END', dbname => 'theirs');
CREATE SCHEMA theirs AUTHORIZATION owner;
CREATE EXTENSION follow_primary SCHEMA theirs;
INSERT INTO theirs.follow_primary_job (node_host, node_port, requested_method, state, started_at)
    VALUES ('elsewhere', 5432, 'auto', 'running', now());
END

sub start_held_job
{
    my ($server) = @_;
    $server->hold_step('verify');
    my $id = $server->safe_psql($server->follow_sql($node, when_down => 'rejoin', wait => 'false'));
    $server->wait_held(1);
    return $id;
}

# What the row says, and what the view shows.
sub state_sql
{
    my ($id) = @_;
    return "SELECT j.state, error_code, j.finished_at IS NOT NULL, hint LIKE 'Call follow_primary() again%',
        (SELECT v.state FROM follow_primary_progress v WHERE v.id = j.id)
        FROM follow_primary_job j WHERE j.id = $id";
}
my $interrupted = 'interrupted|57P01|t|t|interrupted';

sub no_sweeper_left
{
    my ($server, $offset) = @_;
    ok($server->poll_query_until("SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'follow_primary sweeper%'", 0, 10),
        'the workers that did it have ended');
    unlike($server->log_content($offset), qr/^.* (?:ERROR|FATAL|PANIC): .*follow_primary|exited with exit code/mi,
        'without an error');
    return;
}

# 1. The primary comes back.
my $id = start_held_job($primary);
$primary->wait_for_catchup($standby);
is($standby->safe_psql("SELECT state FROM follow_primary_progress WHERE id = $id"), 'running', 'a standby shows that a job runs');
$primary->stop('immediate');
my $offset = $primary->log_size;
$primary->start;
ok($standby->poll_query_until(state_sql($id), $interrupted, 20),
    'when the primary is back the standby shows that it was interrupted') or diag($standby->safe_psql(state_sql($id)));
is($primary->safe_psql(state_sql($id)), $interrupted, 'as does the primary');
wait_until('the row of another database is corrected, too', sub {
    return ($primary->psql('SELECT state, error_code FROM "Own Schema".follow_primary_job', dbname => 'another'))[1] eq "interrupted|57P01\n";
}, 10);
no_sweeper_left($primary, $offset);
is($primary->safe_psql('SELECT state FROM theirs.follow_primary_job', dbname => 'theirs'), 'running', 'nothing is done in a schema whose owner is no superuser');
is($primary->safe_psql('SELECT state FROM theirs.follow_primary_progress', dbname => 'theirs'), 'interrupted', 'the view there shows it all the same');
my $r = makes_follow($primary, $node, 'the next call succeeds', when_down => 'rejoin');

# 2. Another server is promoted instead.
$id = start_held_job($primary);
$primary->wait_for_catchup($standby);
$primary->kill9;
$offset = $standby->log_size;
$standby->promote;
ok($standby->poll_query_until("SELECT state, error_code FROM follow_primary_job WHERE id = $id", 'interrupted|57P01', 20),
    'the row is corrected where another standby is promoted');
no_sweeper_left($standby, $offset);
makes_follow($standby, $node, 'the next call succeeds', when_down => 'rejoin');

# 3. No background worker is free: the log says so, and the server serves.
$standby->set(max_worker_processes => 2);
$offset = $standby->log_size;
$standby->restart;
$standby->wait_for_log(qr/ERROR: .*no background worker is free to see whether jobs of follow_primary were interrupted/, $offset, 20);
is($standby->safe_psql('SELECT 1'), 1, 'without a free worker there is an error in the log, and the server serves');

done_testing();
