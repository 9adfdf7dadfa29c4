# A switchover whose primary's host is lost while that is told to become a standby: what the
# host had done by then, it alone knows. The session asks it when it is back; else the next
# call finds a server that runs as a standby, and nobody is the primary. In each case there is
# one primary in the end, and never a second. Only a script that is killed between two of its
# steps, with all else on that host, leaves what must be told apart.

use FollowPrimary::Test;
use FollowPrimary::Scratch qw(our_processes);

plan(skip_all => 'before PostgreSQL 12 there is no switchover') if FollowPrimary::Node::pg_major() < 12;

# The script that makes the commit waits at what is named in "hold" until that file is gone.
my $limit = 15;
my $tools = scratch_dir('tools');
spew("$tools/sync", <<"END", 0755);
#!/bin/sh
case \$1:\$(cat "\$1" $tools/hold 2>/dev/null) in
    *standby.signal:signal | *.tmp:committed*word)
        echo \$\$ \$PPID >$tools/held.tmp
        mv $tools/held.tmp $tools/held
        while [ -e $tools/hold ]; do sleep 0.05; done ;;
esac
exec /bin/sync "\$@"
END
my $cluster = FollowPrimary::Cluster->new(nodes => 3, extension => 1, sshd_conf => "SetEnv PATH=$tools:/usr/bin:/bin",
    conf => { wal_retrieve_retry_interval => '200ms', 'follow_primary.connect_timeout' => '3s', 'follow_primary.verify_timeout' => '20s' });
my ($one, $two, $three) = $cluster->nodes;
$_->set('follow_primary.primary_host' => $_->address) for $cluster->nodes;
$_->reload for $cluster->nodes;
$one->safe_psql('CREATE TABLE t AS SELECT 1 AS i');

sub primaries { return join ' ', map { $_->name } grep { $_->running && ($_->psql('SELECT pg_is_in_recovery()', timeout => 10))[1] =~ /^f/ } $cluster->nodes }

# A switchover from $one to $two; all that runs on the host of $one ends when the script there
# flushes standby.signal ("signal"), or before, its word that it does ("word").
sub lose_host_at
{
    my ($point) = @_;
    unlink "$tools/held";
    spew("$tools/hold", $point);
    $one->wait_for_catchup($_) for $two, $three;
    my $call = $two->psql_start("SELECT node_host, state FROM follow_primary_switchover('$limit s')");
    wait_until("$point is flushed", sub { -e "$tools/held" || !$call->running }, 60) or die;
    die $call->err if !$call->running;
    my @watchers = grep { (eval { slurp("/proc/$_/cmdline") } // '') =~ /follow_primary-watcher/ } our_processes();
    is(scalar @watchers, 1, 'a watcher is there');
    $one->host->ssh_kill;
    kill 'KILL', @watchers, split ' ', slurp("$tools/held");
    unlink "$tools/hold";
    return $call;
}

# Back to the beginning: $one is the primary.
sub turn_back
{
    return if primaries() eq $one->name;
    $two->wait_for_catchup($_) for $one, $three;
    my $r = $one->try_sql('SELECT state FROM follow_primary_switchover()', timeout => 120);
    is($r->{out}, "succeeded\nsucceeded", 'back to the beginning') or diag($r->{err});
    return;
}

# It was committed, and the host is back at once.
my $call = lose_host_at('signal');
$one->host->ssh_start;
$one->start;
ok($one->in_recovery, 'after the commit the former primary starts as a standby');
is($call->wait($limit + 60), 0, 'the same call goes on when the host is back') or diag($call->err);
like($call->err, qr/WARNING:.*broke, and is made again/, 'and says why it took longer');
is(primaries(), $two->name, 'the standby is the only primary');
$_->wait_for_streaming($two) for $one, $three;
turn_back();

# It was not; the server is started with the host, or by the call.
for my $boots (1, 0)
{
    my $how = $boots ? 'a server that starts with its host' : 'a server that does not';
    $call = lose_host_at('word');
    $one->start if $boots;
    $one->host->ssh_start;
    isnt($call->wait($limit + 60), 0, "$how: without a commit the switchover is over");
    like($call->err, qr/ERROR:.*came too late.*had been told/s, "$how: and says so");
    is(primaries(), $one->name, "$how: the former primary is the only one");
    $_->wait_for_streaming($one) for $two, $three;
}

# The host is back too late for the call, and its server a standby: nobody is the primary.
$call = lose_host_at('signal');
isnt($call->wait($limit + 60), 0, 'without the host nobody knows');
like($call->err, qr/ERROR:.*cannot be asked whether it has become a standby/, 'and it says so');
is(primaries(), '', 'nothing is promoted: the former primary might be one when it is back');
$one->host->ssh_start;
$one->start;
$three->stop;
my $r = $two->try_sql('SELECT node_host, state FROM follow_primary_switchover()', timeout => 120);
is($r->{sqlstate}, '55000', 'while a node cannot be asked, the next call refuses');
like("$r->{message}\n$r->{detail}", qr/runs as a standby since a switchover was cut short.*cannot ask: host=\Q@{[ $three->address ]}\E /s, 'and names it') or diag($r->{err});
$three->start;
$r = $two->try_sql('SELECT state FROM follow_primary_switchover()', timeout => 120);
is($r->{out}, "succeeded\nsucceeded", 'with all nodes the next call finishes') or diag($r->{err});
is(primaries(), $two->name, 'the standby is the only primary again');
$_->wait_for_streaming($two) for $one, $three;
is($two->safe_psql('SELECT sum(i) FROM t'), '1', 'no row is lost');

done_testing();
