# The test holds a job in the middle of each script that it sends to the node.
# Meanwhile the worker has neither transaction nor snapshot; a cancel ends the job and
# all its processes on the node, and the next call goes on. All of that also works
# where no commit can be confirmed, for synchronous_standby_names names only dead
# nodes. The test does not name the steps: the node's real shell holds the n-th
# script, for every n there is.

use FollowPrimary::Test;

my $dir = scratch_dir('hold');
my $cluster = FollowPrimary::Cluster->new(nodes => 2, extension => 1,
    sshd_conf => "ForceCommand { cat $dir/hold.sh; exec cat; } | exec /bin/sh -s follow_primary\n");
my ($primary, $node) = $cluster->nodes;

# The session's shell reads this first. The wrapper runs each script by eval, in a
# subshell; what the script itself evaluates is not held.
spew("$dir/hold.sh", <<"END");
hold()
{
    read -r n <$dir/n
    n=\$((n - 1))
    echo \$n >$dir/n
    if [ \$n = 0 ]; then
        : >$dir/held
        sleep 987654
    fi
}
alias eval='hold; unalias eval; eval'
END

sub hold_at
{
    my ($n) = @_;
    unlink "$dir/held";
    spew("$dir/n", "$n\n");
    return;
}
hold_at(0);

# The processes of the node's sessions, also when their sshd has ended.
sub remote_processes
{
    my %command = our_commands(qr{^sleep 987654|^/bin/sh -s follow_primary $});
    return map { "$_ $command{$_}" } keys %command;
}
sub held_processes { return grep { /sleep/ } remote_processes() }

# From here on nobody confirms a commit; the test's own sessions do not wait.
$primary->safe_psql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS i");
$primary->wait_for_catchup($node);
$primary->safe_psql("ALTER ROLE postgres SET synchronous_commit = local");
$primary->set(synchronous_standby_names => 'FIRST 2 (dead1, dead2)');
$primary->reload;
$primary->poll_query_until("SHOW synchronous_standby_names", 'FIRST 2 (dead1, dead2)') or die;
$primary->safe_psql('CREATE ROLE caller LOGIN SUPERUSER');

my %held_at;
my $previous = '';
for my $call (
    { name => 'a repoint', method => 'repoint' },
    { name => 'a rewind', method => 'rewind', before => sub {
        $node->promote;
        $node->safe_psql('INSERT INTO t SELECT generate_series(1, 10)');
        $node->kill9;
    } },
    { name => 'a copy', method => 'basebackup', before => sub {
        # Its control file has no former timeline then, so each call sends the same
        # scripts.
        $primary->safe_psql('CHECKPOINT');
        $primary->wait_for_catchup($node);
        $node->safe_psql('CHECKPOINT');
    } })
{
    my ($name, $before) = delete @$call{qw(name before)};
    my (@cancelled, @wrong);
    $before->() if $before;
    for my $n (1 .. 30)
    {
        hold_at($n);
        # A caller who waits for a confirmation, as anybody does.
        my $id = $primary->safe_psql($primary->follow_sql($node, %$call, wait => 'false', when_down => 'rejoin'),
            user => 'caller', timeout => 20);
        my $row = sub { $primary->safe_psql("SELECT $_[0] FROM follow_primary_job WHERE id = $id") };
        wait_until("job $id is held, or ends", sub { -e "$dir/held" || $row->('state') ne 'running' }, 60);
        if (!-e "$dir/held")
        {
            is($row->('state'), 'succeeded', "$name succeeds at last") or diag($row->('*'));
            last;
        }
        wait_until('it sleeps', sub { held_processes() }, 60);
        my $activity = $primary->safe_psql("SELECT backend_xmin IS NULL AND backend_xid IS NULL AND xact_start IS NULL, wait_event
            FROM pg_stat_activity WHERE pid = (SELECT worker_pid FROM follow_primary_job WHERE id = $id)");
        push @wrong, $row->('step') . " holds a transaction: $activity" if $activity !~ /^t\|/;
        my $step = $row->('step');
        $primary->safe_psql("SELECT follow_primary_cancel($id)", user => 'caller', timeout => 20);
        my $state = $primary->safe_psql("SELECT follow_primary_wait($id, '20 s')", user => 'caller', timeout => 40);
        push @wrong, "$step: $state" if $state ne 'cancelled';
        push @cancelled, $step;
        push @wrong, "$step: left on the node: " . join ' ', held_processes()
            if !eval { wait_until('it does not run on the node', sub { !held_processes() }, 10) };
    }
    ok(eval { wait_until('nothing runs on the node', sub { !remote_processes() }, 10) }, 'nothing runs on the node')
        or diag(remote_processes());
    is(join("\n", @wrong), '', "$name, cancelled at each of its scripts: @cancelled");
    $held_at{$_} = 1 for @cancelled;
    $primary->safe_psql('INSERT INTO t VALUES (0)');
    $primary->wait_for_catchup($node);
    is($node->safe_psql('SELECT count(*) FROM t'), $primary->safe_psql('SELECT count(*) FROM t'), 'the node has what the primary has');
}
is(join(' ', grep { !$held_at{$_} } qw(survey lock connect repoint stop save_config save_wal rewind configure start verify clean count space copy swap)),
    '', 'every step that sends a script was among them');
is($primary->safe_psql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"), 0, 'and nobody waits for a dead node');

done_testing();
