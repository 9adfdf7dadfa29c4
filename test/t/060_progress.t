# What a job tells while it runs, to a caller who waits and to everybody else; and
# what happens when somebody ends the waiting, the job, its worker or the whole
# primary. The test stops the copy by SIGSTOP at its start, so the job surely runs
# meanwhile. Only real processes show that the remote side ends with the job.

use File::Find ();
use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 3, extension => 1);
my ($old, $new, $sibling) = $cluster->nodes;

$old->safe_psql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS i");
$old->wait_for_catchup($_) for $new, $sibling;
$old->kill9;
$new->promote;
my $r = makes_follow($new, $sibling, 'a sibling follows');
$new->safe_psql("CREATE TABLE big AS SELECT i, repeat('x', 1000) AS t FROM generate_series(1, 60000) i");
$new->wait_for_catchup($sibling);

# Every file of a data directory and beside it: name, size, mode, time.
sub listing
{
    my ($node, $names_only) = @_;
    my @lines;
    File::Find::find({ no_chdir => 1, wanted => sub {
        my @s = lstat or return;
        push @lines, $names_only ? $_ : sprintf '%s %o %d %d', $_, @s[ 2, 7, 9 ];
    } }, grep { !/\.log\z/ } glob($node->pgdata . '*'));
    return join "\n", sort @lines;
}

# The processes on the node that copy.
sub copying
{
    my ($node) = @_;
    my %command = $node->host->ssh_commands;
    return grep { $command{$_} =~ m{^\S*/pg_basebackup } } keys %command;
}

# Before PostgreSQL 13 only pg_basebackup tells how far the copy is, once a second.
my $tells = pg_major() >= 13;
my $copies = $tells ? 'bytes_done > 0 AND bytes_total > bytes_done' : "step = 'copy'";

# Waits until the newest job of each node copies and shows how far it is, and stops
# its processes on the node then. Returns their ids.
sub hold_copy
{
    my @nodes = @_;
    my (%begun, @held);
    wait_until('the copy has begun', sub {
        for my $node (grep { !$begun{ $_->name } } @nodes)
        {
            $begun{ $node->name } = kill 'STOP', copying($node);
        }
        return !grep { !$begun{ $_->name } } @nodes;
    }, 30);
    NODE: for my $node (@nodes)
    {
        for (1 .. 200)
        {
            my @pids = copying($node);
            kill 'STOP', @pids;
            if ($new->poll_query_until("SELECT $copies
                FROM follow_primary_job WHERE node_host = '@{[ $node->address ]}' ORDER BY id DESC LIMIT 1", 't', 1.5))
            {
                push @held, @pids;
                next NODE;
            }
            kill 'CONT', @pids;
            select undef, undef, undef, 0.01;
        }
        die "the copy could not be held\n";
    }
    return @held;
}

sub start
{
    my ($node, %arguments) = @_;
    return $new->safe_psql($new->follow_sql($node, when_down => 'rejoin', method => 'basebackup',
        wait => 'false', %arguments));
}

sub state_is
{
    my ($id, $state, $what) = @_;
    ok($new->poll_query_until("SELECT state FROM follow_primary_job WHERE id = $id", $state, 60), $what)
        or diag($new->job('*', id => $id));
    return;
}

# The scripts' shells and what they run.
sub remote_processes { return our_commands(qr{/pg_basebackup |^/bin/sh -s follow_primary $}) }

sub nothing_runs
{
    my ($what) = @_;
    ok(eval { wait_until('it ends', sub { my %left = remote_processes(); return !%left }, 15) }, $what)
        or diag(explain({ remote_processes() }));
    return;
}

# 1. A plan changes nothing, here or there.
my $before = listing($old);
my $sibling_before = listing($sibling, 1);
my $tables = 'SELECT (SELECT count(*) FROM follow_primary_job), (SELECT count(*) FROM follow_primary_step)';
my ($rows, $slots) = ($new->safe_psql($tables), $new->slots);
for my $method (qw(auto rewind basebackup))
{
    $r = makes_follow($new, $old, "a plan, method $method", function => 'follow_primary_plan', method => $method, when_down => 'rejoin');
    my $expected = $method eq 'basebackup' ? 'basebackup' : 'rewind';
    like($r->{out}, qr/^$expected\|.*\|\{.*start,verify/, 'it tells method, reason and steps');
    $r = $new->make_follow($sibling, function => 'follow_primary_plan', method => $method);
    like($r->{out}, $method eq 'auto' ? qr/^none\|/ : qr/^$method\|/, 'that of a running standby too') or diag($r->{err});
}
is(listing($old), $before, 'no file has changed on the node that is down');
is(listing($sibling, 1), $sibling_before, 'none has come or gone on the running one');
is($new->safe_psql($tables), $rows, 'no job was recorded');
is($new->slots, $slots, 'no slot was made');

# 2. What a caller who waits sees, and what others see.
my $caller = $new->psql_start($new->follow_sql($old, when_down => 'rejoin', method => 'basebackup'));
my @held = hold_copy($old);
my $id = $new->job('id');
like($new->safe_psql("SELECT string_agg(step || ' ' || state, ', ' ORDER BY seq) FROM follow_primary_step WHERE job_id = $id"),
    qr/^survey succeeded, plan succeeded, (\w+ succeeded, )+copy running$/, 'the steps are there as they come');
is($new->job("state, step, method, worker_pid > 0, finished_at", id => $id), 'running|copy|basebackup|t|', "so is the job's row");
my $far = $tells ? "percent > 0 AND percent < 100, elapsed > '0', rate IS NOT NULL, eta >= '0'" : "percent IS NULL OR percent < 100, elapsed > '0', true, true";
is($new->safe_psql("SELECT state, step, $far
    FROM follow_primary_progress WHERE id = $id"), 'running|copy|t|t|t|t', 'follow_primary_progress tells how far it is');
my $last = $tells ? qr/copy: \d+% of \d+ MB/ : qr/space: /;
eval { wait_until('it has', sub { $caller->err =~ $last }, 60) };
like($caller->err, qr/NOTICE:  job $id has begun\n.*NOTICE:  survey: .*NOTICE:  plan: basebackup: asked for\n.*NOTICE:  $last/s,
    'the waiting caller has seen it in NOTICEs') or diag($caller->err);
# It has one for a moment, when it looks at something.
ok($new->poll_query_until("SELECT backend_xmin IS NULL AND xact_start IS NULL FROM pg_stat_activity
    WHERE pid = (SELECT worker_pid FROM follow_primary_job WHERE id = $id)", 't', 10), 'the worker holds no transaction meanwhile');

is($new->safe_psql("SELECT string_agg(coalesce(backend_xmin::text, 'none'), ' ') FROM pg_stat_activity
    WHERE query LIKE 'SELECT follow_primary(%' AND backend_type = 'client backend'"), 'none',
    'the waiting caller holds no snapshot, so VACUUM is not held back');
$new->safe_psql('CREATE TABLE swept AS SELECT generate_series(1, 1000) AS i');
$new->safe_psql('DELETE FROM swept');
$new->safe_psql('VACUUM swept');
is($new->safe_psql("SELECT pg_relation_size('swept')"), 0, 'nor by the copy: it removes rows that the copy began with')
    or diag($new->safe_psql('SELECT pid, backend_type, backend_xmin, query FROM pg_stat_activity'));

# 3. A second call for the same node.
my ($since, $pid) = split /\|/, $new->job('started_at, worker_pid', id => $id);
$r = $new->make_follow($old, when_down => 'rejoin');
is($r->{sqlstate}, '55006', 'a second call for the node is refused');
is($r->{detail}, "Job $id has it since $since, in process $pid.", 'it is told who has it, and since when');
like($r->{hint}, qr/follow_primary_wait\($id\).*follow_primary_cancel\($id\)/, 'and what can be done');
is($new->job('state, error_code'), 'failed|55006', "the second job's row says so");
is($new->job('state', id => $id), 'running', 'the first goes on');

# 4. Another session waits for the job.
is($new->safe_psql("SELECT follow_primary_wait($id, '0.2 s')"), 'running', 'follow_primary_wait ends with its timeout');
$r = $new->try_sql('SELECT follow_primary_wait(987654)');
is($r->{sqlstate}, '42704', 'it knows no job that is not there');
my $waiter = $new->psql_start("BEGIN ISOLATION LEVEL REPEATABLE READ;
    SELECT state FROM follow_primary_job WHERE id = $id;
    SELECT follow_primary_wait($id);
    SELECT state FROM follow_primary_job WHERE id = $id;
    SELECT state FROM follow_primary_progress WHERE id = $id;
    COMMIT");
wait_until('it waits', sub { $waiter->out =~ /running/ });
my @plain = map { $new->psql_start($_) } "SELECT follow_primary_wait($id)",
    "SELECT follow_primary_wait($id), (SELECT count(*) FROM t)";
my $viewer = $new->psql_start("WITH waited AS (SELECT follow_primary_wait($id) AS state)
    SELECT w.state, v.state FROM waited w, LATERAL (SELECT state FROM follow_primary_progress WHERE id = $id AND w.state <> '') v");
ok($new->poll_query_until("SELECT string_agg((backend_xmin IS NULL)::text, ' ' ORDER BY query) FROM pg_stat_activity
    WHERE query LIKE 'SELECT follow_primary_wait(%' AND state = 'active'", 'true false false', 10),
    'nor does one in follow_primary_wait, unless its query or transaction needs the snapshot');

# 5. The waiting query is cancelled, and the job goes on.
$new->safe_psql("SELECT pg_cancel_backend(pid) FROM pg_stat_activity
    WHERE query LIKE 'SELECT follow_primary(%' AND backend_type = 'client backend'");
is($caller->wait(10), 3, 'the waiting call is cancelled');
like($caller->err, qr/ERROR:  canceling statement due to user request\nHINT:  Job $id goes on; .*follow_primary_cancel\($id\)/,
    'it says that the job goes on') or diag($caller->err);
is($new->job('state, step', id => $id), 'running|copy', 'which it does');

# 6. The job is cancelled.
is($new->safe_psql("SELECT follow_primary_cancel($id)"), 't', 'the job can be cancelled');
kill 'CONT', @held;
state_is($id, 'cancelled', 'its row says cancelled');
is($new->job('error_code, finished_at IS NOT NULL', id => $id), '57014|t', 'with the SQLSTATE of it');
is($new->safe_psql("SELECT step FROM follow_primary_step WHERE job_id = $id AND state = 'cancelled'"), 'copy', 'in the step that ran');
is($waiter->wait(10), 0, 'who waited for it is told');
is($waiter->out, "running\ncancelled\nrunning\nrunning\n", 'the state, even where the snapshot is older; the view shows what was so then');
is($viewer->wait(10), 0, 'a view is looked at whose snapshot is older than the end of the job') or diag($viewer->err);
is($viewer->out, "cancelled|running\n", 'which does not show it as interrupted');
is(join('', map { $_->wait(10); $_->out } @plain), "cancelled\ncancelled|1000\n", 'so are the others, and what else they asked for is right');
nothing_runs('no process of it is left on the node');
is($new->slots, $slots, 'its slot is gone');
ok(!-e $old->pgdata . '.follow_primary/job/new', 'so is what was copied');
(my $now = listing($old)) =~ s/^\Q@{[ $old->pgdata ]}\E\.follow_primary.*\n?//mg;
chomp $now;
is($now, $before, "the node's data is as it was");
is($new->safe_psql("SELECT follow_primary_cancel($id)"), 'f', 'a job that has ended cannot be cancelled');

# 7. The waiting ends by a timeout; the job succeeds all the same.
$caller = $new->psql_start("SET statement_timeout = '4s'; "
    . $new->follow_sql($old, when_down => 'rejoin', method => 'basebackup'));
@held = hold_copy($old);
$id = $new->job('id');
is($caller->wait(20), 3, 'statement_timeout ends the waiting');
like($caller->err, qr/canceling statement due to statement timeout\nHINT:  Job $id goes on/, 'which is said, too');
kill 'CONT', @held;
state_is($id, 'succeeded', 'the job goes on to its end');
ok($old->in_recovery, 'its node is a standby');
is($new->safe_psql("SELECT state, percent FROM follow_primary_progress WHERE id = $id"), 'succeeded|100.0', 'at 100 percent');

# 8. The caller's transaction is rolled back, then the worker is terminated.
$id = (split /\n/, $new->safe_psql('BEGIN; '
    . $new->follow_sql($old, method => 'basebackup', wait => 'false') . '; ROLLBACK'))[0];
hold_copy($old);
is($new->job('state', id => $id), 'running', "a rollback of the caller's is no end of a job that was not waited for");
$new->safe_psql('SELECT pg_terminate_backend(' . $new->job('worker_pid', id => $id) . ')');
state_is($id, 'interrupted', "a terminated worker's row says interrupted");
is($new->job("error_code, error LIKE '%terminated%', hint <> ''", id => $id), '57P01|t|t', 'and why, and what to do');
nothing_runs('nothing of it is left on the node');
ok($old->in_recovery, 'whose server goes on');
is($new->safe_psql("SELECT count(*) FROM pg_replication_slots WHERE temporary"), 0, 'nor a slot on the primary');

# 9. The worker is killed, so the primary restarts.
$id = start($old);
hold_copy($old);
cmp_ok(scalar(() = remote_processes()), '>=', 4, 'there are processes on the node');
my $worker = $new->job('worker_pid', id => $id);
my $offset = $new->log_size;
kill 'KILL', $worker;
$new->wait_for_log(qr/database system is ready to accept connections/, $offset, 30);
ok($new->poll_query_until("SELECT state FROM follow_primary_progress WHERE id = $id", 'interrupted', 20),
    "a killed worker's job is shown as interrupted");
state_is($id, 'interrupted', 'and its row says so, for the server that starts again writes it');
is($new->job("error_code, finished_at IS NOT NULL, (SELECT s.state FROM follow_primary_step s WHERE s.job_id = $id ORDER BY seq DESC LIMIT 1)", id => $id),
    '57P01|t|interrupted', 'as does its last step');
$new->wait_for_catchup($sibling);
is($sibling->safe_psql("SELECT state FROM follow_primary_progress WHERE id = $id"), 'interrupted', 'on a standby, too');
is($new->safe_psql("SELECT follow_primary_wait($id)"), 'interrupted', 'follow_primary_wait knows it, too');
is($new->safe_psql("SELECT follow_primary_cancel($id)"), 'f', 'there is nothing to cancel');
nothing_runs('nothing of it is left on the node');

# Two calls in one query: neither leaves the other without a snapshot.
$new->safe_psql('CREATE FUNCTION nested(text) RETURNS text STABLE LANGUAGE plpgsql AS
    $$BEGIN RETURN follow_primary_wait(-1); EXCEPTION WHEN OTHERS THEN RETURN SQLSTATE; END$$');
is($new->safe_psql("SELECT nested(w), (SELECT count(*) FROM t) > 0 FROM follow_primary_wait($id) w"), '42704|t', 'a call within a call');
is($new->safe_psql("SELECT nested(w) FROM follow_primary_wait($id) w"), '42704', 'and within a plain one');

# 10. A worker fails before it can say anything.
$r = $new->try_sql("UPDATE pg_database SET datallowconn = false WHERE datname = 'postgres';\n" . $new->follow_sql($old), timeout => 20);
$new->safe_psql("UPDATE pg_database SET datallowconn = true WHERE datname = 'postgres'", dbname => 'template1');
is($r->{sqlstate}, '57P01', 'a worker that cannot start is an error, not a wait') or diag($r->{err});
like($r->{err}, qr/ended without a word.*HINT:.*server log/s, 'that sends one to the server log');

# 11. Two nodes at once.
my ($first, $second) = split /\n/, $new->safe_psql(
    "SELECT follow_primary(host, port, method => 'basebackup', wait => false) FROM follow_primary_node
     WHERE host IN ('@{[ $old->address ]}', '@{[ $sibling->address ]}') ORDER BY host");
@held = hold_copy($old, $sibling);
is($new->safe_psql("SELECT count(*) FROM follow_primary_progress WHERE state = 'running' AND step = 'copy'"), 2,
    'two nodes are copied to side by side');
kill 'CONT', @held;
state_is($_, 'succeeded', "job $_ of both succeeds") for $first, $second;
$new->safe_psql('INSERT INTO t VALUES (0)');
for my $node ($old, $sibling)
{
    $new->wait_for_catchup($node);
    is($node->safe_psql('SELECT count(*) FROM t'), 1001, $node->name . ' has the rows');
    is(join(' ', glob($node->pgdata . '.follow_primary*/*')), '', 'nothing is left beside its data');
}

done_testing();
