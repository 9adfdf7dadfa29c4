# The server's log tells of each job, whether anybody waits for it or not: a line
# where it begins, one where it ends, with what became of it; and whatever a job
# has to say there says which job, node and step it is about.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 3, extension => 1, hold => 1, conf => {
    'follow_primary.verify_timeout' => '4s', log_min_messages => 'warning' });
my ($old, $new, $node) = $cluster->nodes;
$old->kill9;
$new->promote;
my $name = $node->address . ':' . $node->port;

for my $wait ('true', 'false')
{
    my $log = $new->log_size;
    my $id  = $new->safe_psql($new->follow_sql($node, wait => $wait, method => 'repoint'));
    is($new->safe_psql("SELECT follow_primary_wait($id)"), 'succeeded', "wait => $wait: a job succeeds");
    eval { $new->wait_for_log(qr/job $id for .*: succeeded/, $log, 5) };
    my $text = $new->log_content($log);
    like($text, qr/LOG:  follow_primary job $id for node \Q$name\E: begun.*/, "wait => $wait: its begin is in the log");
    like($text, qr/LOG:  follow_primary job $id for node \Q$name\E: succeeded.*repoint/, "wait => $wait: so is its end, with the method");
    is(() = $text =~ /LOG:  follow_primary job $id/g, 2, "wait => $wait: in a line each");
}

# One that fails: why, and what to do.
my $log = $new->log_size;
$new->hold_step('slot');
my $id = $new->safe_psql($new->follow_sql($node, wait => 'false', method => 'repoint'));
$new->wait_held(1);
my $let_in = $new->shut_out('repl');
$new->safe_psql("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active");
$new->release_step;
is($new->safe_psql("SELECT follow_primary_wait($id)"), 'failed', 'a job fails');
my $text = $new->log_content($log);
like($text, qr/follow_primary job $id for node \Q$name\E: failed at step verify.*does not prove to follow/, 'its end is in the log, with step and reason');
like($text, qr/job $id.*\n(?:.*\n)*?.*DETAIL:/, 'and the detail');
like($text, qr/job $id.*\n(?:.*\n)*?.*HINT:/, 'and the hint');
my @of_worker = grep { /(ERROR|LOG):  / && !/begun|failed at/ } split /\n/, join '', $text =~ /^(.*\[@{[ $new->safe_psql("SELECT worker_pid FROM follow_primary_job WHERE id = $id") ]}\].*\n)/mg;
my $contexts = () = $text =~ /CONTEXT:  follow_primary job $id, node \Q$name\E, step \w+/g;
cmp_ok($contexts, '>=', scalar @of_worker, 'every other line of the worker has job, node and step');

# Skipped, refused, cancelled.
$let_in->();
$log = $new->log_size;
my $r = $new->make_follow($old);
ok($r->{ok}, 'a node that is down is skipped');
like($new->log_content($log), qr/LOG:  follow_primary job \d+ for node \S+: skipped: the node is down/, 'as the log has it');
$log = $new->log_size;
$r = $new->make_follow($new);
ok(!$r->{ok}, 'this server itself is refused');
like($new->log_content($log), qr/follow_primary job \d+ for node \S+: failed at step plan: the node is this server itself/, 'as the log has it');

# A SQL error of the worker's own.
$new->safe_psql(q{CREATE FUNCTION trouble() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'trouble'; END$$;
    CREATE TRIGGER trouble BEFORE INSERT ON follow_primary_step FOR EACH ROW WHEN (NEW.step = 'repoint') EXECUTE FUNCTION trouble()});
$log = $new->log_size;
$r = $new->make_follow($node, method => 'repoint');
ok(!$r->{ok}, 'an error of SQL ends a job');
like($new->log_content($log), qr/ERROR:  trouble\n(?:.*\n)*?.*follow_primary job \d+, node \Q$name\E, step \w+/, 'its line in the log says of which job, node and step');

done_testing();
