# One job at a time has a node, also when two servers take themselves for the
# primary: the lock is on the node. It must be let go when a job succeeds, fails
# or is cancelled, when its worker is killed, and it must be noticed when it is
# lost. Two primaries that share a standby, a killed backend and a closed
# connection are what it is about: so real servers and a real sshd.

use FollowPrimary::Test;

use FindBin;
use Time::HiRes qw(time);

my $cluster = FollowPrimary::Cluster->new(nodes => 4, extension => 1);
my ($old, $new, $node, $other) = $cluster->nodes;

# The former primary goes on: there are two now, and both standbys are its own.
$new->promote;
ok(!$old->in_recovery && !$new->in_recovery, 'there are two primaries');

# Steps named in the table wait, or fail, on the server that it is on.
my $key = 4711;
for my $server ($old, $new)
{
    $server->safe_psql(<<"END");
CREATE TABLE trouble (step text, kind text);
CREATE FUNCTION make_trouble() RETURNS trigger LANGUAGE plpgsql AS \$\$
BEGIN
    IF EXISTS (SELECT FROM public.trouble t WHERE t.step = NEW.step AND kind = 'fail') THEN
        RAISE 'trouble at %', NEW.step;
    ELSIF EXISTS (SELECT FROM public.trouble t WHERE t.step = NEW.step AND kind = 'hold') THEN
        PERFORM pg_advisory_lock($key);
        PERFORM pg_advisory_unlock($key);
    END IF;
    RETURN NEW;
END \$\$;
CREATE TRIGGER make_trouble BEFORE INSERT ON follow_primary_step
    FOR EACH ROW EXECUTE FUNCTION make_trouble();
END
}

my $held;

# Jobs of $server stop before that step.
sub hold
{
    my ($server, $step) = @_;
    $server->safe_psql("DELETE FROM trouble; INSERT INTO trouble VALUES ('$step', 'hold')");
    $held = $server->psql_start("SELECT pg_advisory_lock($key); SELECT pg_sleep(300)");
    $server->poll_query_until("SELECT count(*) FROM pg_locks WHERE objid = $key AND granted", 1)
        or die "the advisory lock is not held\n";
    return;
}

sub wait_held
{
    my ($server, $jobs) = @_;
    return ok($server->poll_query_until("SELECT count(*) FROM pg_locks WHERE objid = $key AND NOT granted", $jobs, 30),
        "in the middle: $jobs") || die "no job waits\n";
}

sub release
{
    my ($server) = @_;
    $server->safe_psql("DELETE FROM trouble;
        SELECT pg_terminate_backend(pid) FROM pg_locks WHERE objid = $key AND granted");
    $held->wait(10);
    return;
}

sub lock_file { return $_[0]->pgdata . '.follow_primary.lock' }

sub last_job
{
    my ($server, $columns) = @_;
    return $server->safe_psql("SELECT $columns FROM follow_primary_job ORDER BY id DESC LIMIT 1");
}

# All that a job might change on a node and on the server that it runs on.
sub state_of
{
    my ($server, $standby) = @_;
    return join "\n", $standby->pid, sort(glob $standby->pgdata . '*'),
        map({ slurp($standby->pgdata . "/$_") } qw(postgresql.conf postgresql.auto.conf), $standby->standby_files),
        $server->safe_psql('SELECT slot_name, active_pid FROM pg_replication_slots ORDER BY 1');
}

#
# Two servers, one node
#

hold($new, 'slot');
my $first = $new->psql_start($new->follow_sql($node));
wait_held($new, 1);
like(slurp(lock_file($node)), qr/\AJob 1 of the primary \S+:\d+ has it since \S+ \S+ UTC\.\n\d+ \S+ \d+ \S+ \d+\n\z/, 'the lock file says who has it');
is((stat lock_file($node))[2] & 0777, 0600, 'and only its owner can read it');

my $before = state_of($old, $node);
my $r = $old->make_follow($node, method => 'rewind');
is($r->{sqlstate}, '55006', "another server's call for the node is refused") or diag($r->{err});
like($r->{message}, qr/at step lock: another job is at work on node \Q@{[ $node->address ]}\E/, 'by the lock');
like($r->{detail}, qr/\AJob 1 of the primary \Q@{[ $new->address . ':' . $new->port ]}\E has it since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC\. The lock is \Q@{[ lock_file($node) ]}\E, held by process \d+\.\z/,
    'the error says who has it, and since when');
like($r->{hint}, qr/Wait until it has ended/, 'and what to do');
is(last_job($old, 'state, error_code, step'), 'failed|55006|lock', "so does the job's row");
is(state_of($old, $node), $before, 'nothing was changed');
is($first->wait(0), undef, 'the first goes on');

release($new);
is($first->wait(60), 0, 'and comes to its end') or diag($first->err);
is($new->safe_psql("SELECT active FROM pg_replication_slots WHERE slot_name = '" . $node->slot_name . "'"), 't',
    'the node follows the first');
ok(!-e lock_file($node), 'the lock file is gone');
is($new->safe_psql("SELECT count(*) FROM follow_primary_step WHERE job_id = 1 AND step IN ('plan', 'lock')"), 2,
    'nobody came between, so it planned once');
$r = $old->make_follow($node);
is($r->{sqlstate}, '55000', 'the second call is now refused by the plan') or diag($r->{err});
like($r->{message}, qr/the node is on timeline 2, above this server's 1/, 'for its own reason');

#
# The second waits for the lock just when the first ends: what it saw is old.
#

hold($new, 'verify');
$first = $new->psql_start($new->follow_sql($node, method => 'rewind'));
wait_held($new, 1);
my $second = $old->psql_start($old->follow_sql($other, method => 'rewind'));
is($second->wait(60), 0, 'meanwhile a job for another node goes through') or diag($second->err);
release($new);
is($first->wait(60), 0, 'the first ends') or diag($first->err);

# As another job that comes and goes between survey and lock.
hold($old, 'lock');
$second = $old->psql_start($old->follow_sql($other, method => 'rewind'));
wait_held($old, 1);
$r = $new->make_follow($other);
ok($r->{ok}, 'a job has the node between the survey and the lock of another') or diag($r->{err});
release($old);
is($second->wait(60), 0, 'which looks again') or diag($second->err);
is($old->safe_psql("SELECT string_agg(step, ' ' ORDER BY seq) FROM follow_primary_step
    WHERE job_id = (SELECT max(id) FROM follow_primary_job) AND seq <= 5"), 'survey plan lock plan lock', 'and plans anew');
is(last_job($old, 'fork_lsn IS NOT NULL'), 't', 'for what the node is now: diverged');

#
# Ends that nobody planned
#

sub lock_gone
{
    my ($standby, $what) = @_;
    my $start = time;
    wait_until("the lock file goes when $what", sub { !-e lock_file($standby) }, 30);
    cmp_ok(time - $start, '<', 2, "the lock is free within two seconds when $what");
    return;
}

for my $kind (qw(cancelled terminated killed lost))
{
    hold($new, 'stop');
    $first = $new->psql_start($new->follow_sql($other, method => 'rewind'));
    wait_held($new, 1);
    ok(-e lock_file($other), 'the node is locked');
    my ($id, $pid) = split /\|/, last_job($new, 'id, worker_pid');
    my $postmaster = $other->pid;

    if ($kind eq 'cancelled')
    {
        is($new->safe_psql("SELECT follow_primary_cancel($id)"), 't', 'the job is cancelled');
        lock_gone($other, $kind);
        release($new);
        isnt($first->wait(30), 0, 'its caller is told');
        is(last_job($new, 'state'), 'cancelled', 'and so is its row');
    }
    elsif ($kind eq 'terminated')
    {
        kill 'TERM', $pid;
        lock_gone($other, $kind);
        release($new);
        isnt($first->wait(30), 0, 'its caller is told');
        is(last_job($new, 'state'), 'interrupted', 'and so is its row');
    }
    elsif ($kind eq 'killed')
    {
        kill 'KILL', $pid;
        lock_gone($other, $kind);
        $first->wait(30);
        $new->poll_query_until('SELECT true', 't', 30) or die "the server does not restart\n";
    }
    else
    {
        # Whoever holds it on the node is killed, with nothing that could clean up.
        my %command = $other->host->ssh_commands;
        kill 'KILL', keys %command;
        release($new);
        isnt($first->wait(30), 0, 'a job that has lost its lock fails');
        like($first->err, qr/the lock on the node is lost/, 'and says so');
        is(last_job($new, 'state, error_code, step'), 'failed|58000|stop', "so does the job's row");

        # Its file may stay, as what is killed last decides: the next job shall meet one.
        append_text(lock_file($other), "left by job $id\n");
    }
    is($other->pid, $postmaster, "the node's server was not touched");
}

$r = $new->make_follow($other, method => 'rewind');
ok($r->{ok}, 'a file that nobody locks is no hindrance') or diag($r->{err});
ok(!-e lock_file($other), 'and it goes with the next job');

$new->safe_psql("DELETE FROM trouble; INSERT INTO trouble VALUES ('stop', 'fail')");
$r = $new->make_follow($other, method => 'rewind');
like($r->{message}, qr/trouble at stop/, 'a step fails');
ok(!-e lock_file($other), 'no lock file is left');
$new->safe_psql('DELETE FROM trouble');

#
# An end that takes its time
#

$new->safe_psql(<<"END");
CREATE FUNCTION hold_end() RETURNS trigger LANGUAGE plpgsql AS \$\$
BEGIN
    PERFORM pg_advisory_lock($key);
    PERFORM pg_advisory_unlock($key);
    RETURN NEW;
END \$\$;
CREATE TRIGGER hold_end BEFORE UPDATE ON follow_primary_job
    FOR EACH ROW WHEN (NEW.state = 'succeeded') EXECUTE FUNCTION hold_end();
END
hold($new, 'no step');
$first = $new->psql_start($new->follow_sql($node, method => 'repoint'));
wait_held($new, 1);
ok(!-e lock_file($node), 'a job that is about to say that it has succeeded has let its lock go');
$node->host->ssh_freeze;    # a session that is still open could not end now
release($new);
ok($new->poll_query_until("SELECT state FROM follow_primary_job ORDER BY id DESC LIMIT 1", 'succeeded'), 'it says so');
$second = $new->psql_start($new->follow_sql($node, method => 'repoint'));
ok($new->poll_query_until("SELECT step IS NOT NULL FROM follow_primary_job ORDER BY id DESC LIMIT 1", 't', 10),
    'the next job of the node begins at once');
$node->host->ssh_thaw;
is($second->wait(60), 0, 'and goes through') or diag($second->err);
is($first->wait(60), 0, 'the first has ended') or diag($first->err);
$new->safe_psql('DROP TRIGGER hold_end ON follow_primary_job');

#
# A script that takes its time to end
#

my $dir = scratch_dir('lock');
my $bin = FollowPrimary::Node::bindir_with(scratch_dir('stubborn'), 'pg_basebackup',
    "trap : TERM; echo \$\$ >'$dir/pid'; while :; do sleep 0.1; done");
$new->safe_psql("UPDATE follow_primary_node SET node_bin_dir = '$bin' WHERE host = '@{[ $node->address ]}'");
$first = $new->psql_start($new->follow_sql($node, method => 'basebackup'));
wait_until('the copy is under way', sub { -s "$dir/pid" });
my ($stubborn) = slurp("$dir/pid") =~ /(\d+)/;
is($new->safe_psql('SELECT follow_primary_cancel(max(id)) FROM follow_primary_job'), 't', 'a copy that does not end at once is cancelled');
isnt($first->wait(30), 0, 'its caller is told');
my $unlocked = 0;
wait_until('all of it has ended', sub {
    my $locked = -e lock_file($node);
    return 1 if !process_alive($stubborn);
    $unlocked++ if !$locked;
    return;
}, 10);
is($unlocked, 0, 'the node is locked for as long as something of it goes on');
$new->safe_psql("UPDATE follow_primary_node SET node_bin_dir = NULL WHERE host = '@{[ $node->address ]}'");
$r = $new->make_follow($node, method => 'basebackup');
ok($r->{ok}, 'and then the next call goes through') or diag($r->{err});

# Its holder on the node is ended, as the hint of a refusal says.
$bin = FollowPrimary::Node::bindir_with(scratch_dir('patient'), 'pg_basebackup', "echo \$\$ >'$dir/pid'; exec sleep 987654");
$new->safe_psql("UPDATE follow_primary_node SET node_bin_dir = '$bin' WHERE host = '@{[ $node->address ]}'");
unlink "$dir/pid";
$first = $new->psql_start($new->follow_sql($node, method => 'basebackup'));
wait_until('the copy is under way', sub { -s "$dir/pid" });
my ($patient) = slurp("$dir/pid") =~ /(\d+)/;
my ($holder) = slurp(lock_file($node)) =~ /\n(\d+) /;
kill 'TERM', $holder or die "kill: $!";
$unlocked = 0;
# The holder itself waits for five seconds.
ok(eval { wait_until('all of it has ended', sub {
    my $locked = -e lock_file($node);
    return 1 if !process_alive($patient);
    $unlocked++ if !$locked;
    return;
}, 4) }, 'what a job does there ends at once when its lock\'s holder is ended');
isnt($first->wait(30), 0, 'the job fails');
like($first->err, qr/the lock on the node is lost/, 'and says why');
is($unlocked, 0, 'and the node was locked until it had ended there, too');
$new->safe_psql("UPDATE follow_primary_node SET node_bin_dir = NULL WHERE host = '@{[ $node->address ]}'");

#
# Two nodes, one server
#

hold($new, 'stop');
my @both = map { $new->psql_start($new->follow_sql($_, method => 'rewind')) } $node, $other;
wait_held($new, 2);
ok(-e lock_file($node) && -e lock_file($other), 'two nodes are locked at once');
release($new);
is($_->wait(60), 0, 'both jobs go through') or diag($_->err) for @both;
ok(!-e lock_file($node) && !-e lock_file($other), 'and unlock them');
is(join(' ', grep { !m{/lost_wal-\d+\z} } map { glob $_->pgdata . '.follow_primary/*' } $node, $other), '',
    'nothing is left beside the data but the WAL that was saved');

#
# The script alone
#

my $script = "$FindBin::Bin/../../src/remote/lock.sh";

# What keeps it from being taken by two: many who take it and let it go.
spew("$dir/take", <<'END');
n=0
while [ $n -lt 25 ]; do
    n=$((n + 1))
    mkfifo "$1.fifo" "$1.stdin"
    sh "$3" "$2" "$1" x <"$1.stdin" >"$1.fifo" 2>/dev/null &
    exec 8>"$1.stdin"
    while read -r line; do
        if [ "$line" = held=yes ]; then
            mkdir "$2.inside" && rmdir "$2.inside" && echo "had it" || echo clash
            # A shell may not see a signal that comes just before it reads.
            kill $!
            exec 8>&-
        fi
    done <"$1.fifo"
    wait
    rm "$1.fifo" "$1.stdin"
done
END
my @takers = map { FollowPrimary::Process->start([ 'sh', "$dir/take", "$dir/$_", "$dir/data", $script ]) } 1 .. 6;
is($_->wait(60), 0, 'a taker ends') for @takers;
my $output = join '', map { $_->out } @takers;
unlike($output, qr/clash/, 'never two have the lock');
cmp_ok(scalar(() = $output =~ /had it/g), '>', 100, 'and most get it');
ok(!-e "$dir/data.follow_primary.lock", 'no file is left');

mkdir "$dir/$_" or die "$dir/$_: $!" for qw(closed home);
chmod 0500, "$dir/closed" or die "chmod: $!";
my $p = FollowPrimary::Process->start([ 'sh', '-c', 'mkfifo "$0" && exec 8<>"$0" && exec sh "$@" <&8', "$dir/stdin",
    $script, "$dir/closed/data", 'me', 'x' ], env => { HOME => "$dir/home" });
wait_until('the script has the lock', sub { $p->out =~ /^held=yes$/m }, 60);
like($p->out, qr{^file=\Q$dir\E/home/\.follow_primary-\d+\.lock$}m, 'where nothing can be written beside the data, it locks a file at home');
my ($code, $out, $err) = run_command([ 'sh', $script, "$dir/closed/data", 'him', 'x' ], env => { HOME => "$dir/home" });
like("$code $out $err", qr/\A1 failed=locked\n me The lock is \S+, held by process @{[ $p->pid ]}\.\n\z/, 'that lock holds too');
$p->stop;
is(join(' ', glob "$dir/home/.follow_primary*"), '', 'and its file goes');
($code, $out, $err) = run_command([ 'sh', $script, "$dir/closed/data", 'me', 'x' ], env => { HOME => "$dir/closed" });
like("$code $out $err", qr/^1 failed=permission\n .* can write neither \S+ nor \S+\n\z/, 'where it can write nowhere it says so');
mkdir "$dir/bin" or die "$dir/bin: $!";
symlink "/usr/bin/id", "$dir/bin/id" or die "symlink: $!";
($code, $out, $err) = run_command([ '/bin/sh', $script, "$dir/data", 'me', 'x' ], env => { PATH => "$dir/bin" });
like("$code $out $err", qr/^1 failed=no_flock\n there is no program flock/, 'without flock it says so');
chmod 0700, "$dir/closed";

done_testing();
