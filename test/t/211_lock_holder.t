# A job holds the lock on a node until nothing of the job goes on there, however
# slowly that ends, and no longer. The last part tries the script alone: many
# processes take the lock at once, in folders that they may write or not. Only real
# processes hold real locks.

use FindBin;
use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 2, extension => 1, hold => 1);
my ($new, $node) = $cluster->nodes;
my ($first, $second, $r);

sub lock_file { return $_[0]->pgdata . '.follow_primary.lock' }

#
# A job takes its time to end
#

my $key = FollowPrimary::Node::hold_key("'the end'");
$new->safe_psql(<<"END");
CREATE FUNCTION hold_end() RETURNS trigger LANGUAGE plpgsql AS \$\$
BEGIN
    PERFORM pg_advisory_lock_shared($key);
    PERFORM pg_advisory_unlock_shared($key);
    RETURN NEW;
END \$\$;
CREATE TRIGGER hold_end BEFORE UPDATE ON follow_primary_job
    FOR EACH ROW WHEN (NEW.state = 'succeeded') EXECUTE FUNCTION hold_end();
END
$new->hold_step('the end');
$first = $new->psql_start($new->follow_sql($node, method => 'repoint'));
$new->wait_held(1);
ok(!-e lock_file($node), 'a job that is about to say that it has succeeded has let its lock go');
$node->host->ssh_freeze;    # a session that is still open could not end now
$new->release_step;
ok($new->poll_query_until("SELECT state FROM follow_primary_job ORDER BY id DESC LIMIT 1", 'succeeded'), 'it says so');
$second = $new->psql_start($new->follow_sql($node, method => 'repoint'));
ok($new->poll_query_until("SELECT step IS NOT NULL FROM follow_primary_job ORDER BY id DESC LIMIT 1", 't', 10),
    'the next job of the node begins at once');
$node->host->ssh_thaw;
is($second->wait(60), 0, 'and goes through') or diag($second->err);
is($first->wait(60), 0, 'the first has ended') or diag($first->err);
$new->safe_psql('DROP TRIGGER hold_end ON follow_primary_job');

#
# A script takes its time to end
#

my $dir = scratch_dir('lock');
my $bin = bindir_with(scratch_dir('stubborn'), 'pg_basebackup',
    "trap : TERM; echo \$\$ >'$dir/pid'; while :; do sleep 0.1; done");
$new->set_row($node, node_bin_dir => $bin);
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
$new->set_row($node, node_bin_dir => undef);
makes_follow($new, $node, 'and then the next call goes through', method => 'basebackup');

# Somebody ends the lock's holder on the node, as the hint of a refusal says.
$bin = bindir_with(scratch_dir('patient'), 'pg_basebackup', "echo \$\$ >'$dir/pid'; exec sleep 987654");
$new->set_row($node, node_bin_dir => $bin);
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
$new->set_row($node, node_bin_dir => undef);

#
# The script alone
#

my $script = "$FindBin::Bin/../../src/remote/lock.sh";

# Many processes take it and let it go.
spew("$dir/take", <<'END');
n=0
while [ $n -lt 25 ]; do
    n=$((n + 1))
    mkfifo "$1.fifo" "$1.stdin"
    pgdata=$2 who=$1 beside=x sh "$3" <"$1.stdin" >"$1.fifo" 2>/dev/null &
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
    $script ], env => { HOME => "$dir/home", pgdata => "$dir/closed/data", who => 'me', beside => 'x' });
wait_until('the script has the lock', sub { $p->out =~ /^held=yes$/m }, 60);
like($p->out, qr{^file=\Q$dir\E/home/\.follow_primary-\d+\.lock$}m, 'where nothing can be written beside the data, it locks a file at home');
my ($code, $out, $err) = run_command(remote_script('lock', { pgdata => "$dir/closed/data", who => 'him', beside => 'x' }), env => { HOME => "$dir/home" });
like("$code $out $err", qr/\A1 failed=locked\n me The lock is \S+, held by process @{[ $p->pid ]}\.\n\z/, 'that lock holds too');
$p->stop;
is(join(' ', glob "$dir/home/.follow_primary*"), '', 'and its file goes');
($code, $out, $err) = run_command(remote_script('lock', { pgdata => "$dir/closed/data", who => 'me', beside => 'x' }), env => { HOME => "$dir/closed" });
like("$code $out $err", qr/^1 failed=permission\n .* can write neither \S+ nor \S+\n\z/, 'where it can write nowhere it says so');
mkdir "$dir/bin" or die "$dir/bin: $!";
symlink "/usr/bin/id", "$dir/bin/id" or die "symlink: $!";
($code, $out, $err) = run_command([ '/bin/sh', $script ], env => { PATH => "$dir/bin", pgdata => "$dir/data", who => 'me', beside => 'x' });
like("$code $out $err", qr/^1 failed=no_flock\n there is no program flock/, 'without flock it says so');
chmod 0700, "$dir/closed";

done_testing();
