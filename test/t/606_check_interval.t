# With check_interval set, the primary's keeper runs the check everywhere and writes
# follow_primary_readiness, which all servers can read; what becomes an error is one
# line in the primary's log. Proves it with a key that is lost and comes back, and
# that the one who was promoted goes on with it.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 3, extension => 1,
    conf => { shared_preload_libraries => 'follow_primary', max_worker_processes => 16, 'follow_primary.connect_timeout' => '3s' });
my ($primary, $standby, $sibling) = $cluster->nodes;

is($primary->safe_psql('SELECT count(*) FROM follow_primary_readiness'), 0, 'off in the beginning');
my $r = $primary->try_sql(q{ALTER SYSTEM SET follow_primary.check_interval = -1});
is($r->{sqlstate}, '22023', 'a negative interval is refused');
$cluster->set('follow_primary.check_interval' => '1s');
ok($primary->poll_query_until('SELECT count(DISTINCT candidate) = 3 AND bool_and(status = \'ok\') FROM follow_primary_readiness', 't', 60), 'soon all is known, and well')
    or diag($primary->safe_psql(q{SELECT * FROM follow_primary_readiness WHERE status <> 'ok'}) . $primary->log_tail(20));
ok($standby->poll_query_until('SELECT count(*) > 100 FROM follow_primary_readiness'), 'on a standby as well');
is($standby->safe_psql('SELECT bool_and(ready) FROM follow_primary_cluster'), 't', 'and in follow_primary_cluster');

my $log  = $primary->log_size;
my $line = qr/WARNING:  if \S+ became the primary: node \S+, ssh: /;
$sibling->host->ssh_stop;
ok($primary->poll_query_until(q{SELECT count(*) FROM follow_primary_readiness WHERE item = 'ssh' AND status = 'error'}, 2, 60), 'a server that is lost to SSH is an error for both others');
my $first = $primary->safe_psql('SELECT min(checked_at) FROM follow_primary_readiness');
ok($primary->poll_query_until("SELECT min(checked_at) > '$first' FROM follow_primary_readiness"), 'it is checked again');
is(scalar(() = $primary->log_content($log) =~ /$line/g), 2, 'each is one line in the log, however often it is checked') or diag($primary->log_content($log));
is($primary->safe_psql("SELECT string_agg(ready::text, ' ' ORDER BY node_host) FROM follow_primary_cluster"), 'false false', 'who cannot reach it is not ready; of itself nothing is known');
$sibling->host->ssh_start;
ok($primary->poll_query_until('SELECT bool_and(status = \'ok\') FROM follow_primary_readiness', 't', 60), 'all is well again');

ok($primary->poll_query_until(q{SELECT n_tup_upd > 0 FROM pg_stat_user_tables WHERE relname = 'follow_primary_readiness'}), 'autovacuum learns what is written');

# The rows of a server that is gone go, too.
$primary->safe_psql("DELETE FROM follow_primary_node WHERE host = '@{[ $sibling->address ]}'");
ok($primary->poll_query_until('SELECT count(DISTINCT candidate) FROM follow_primary_readiness', 2, 60), 'a node that is gone has no rows any more');

# The next primary goes on.
$primary->wait_for_catchup($standby);
$primary->kill9;
$standby->promote;
ok($standby->poll_query_until(q{SELECT count(*) > 0 FROM follow_primary_readiness WHERE item = 'ssh' AND status = 'ok' AND checked_at > pg_postmaster_start_time()}, 't', 60), 'the new primary checks');
ok($standby->poll_query_until(q{SELECT status FROM follow_primary_readiness WHERE candidate = '} . $standby->address . ':' . $standby->port . q{' AND item = 'sql'}, 'error', 60), 'and sees that the old one is down');
unlike($standby->log_content, qr/the keeper of follow_primary cannot go on/, 'its keeper met no error');

$cluster->set('follow_primary.check_interval' => 0);
done_testing();
