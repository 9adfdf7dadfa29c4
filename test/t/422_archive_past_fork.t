# A standby that is started asks the archive before it streams. If the former
# primary, which lived on, has archived WAL past the fork, a node that was an
# exact prefix of this server replays that, and has diverged: its data silently
# differs, or it never streams. It is started so that its next WAL is ours, and
# has its restore_command again in the end. Only a server decides where it takes
# its WAL from.

use FollowPrimary::Test;

# What the former primary archives, and what this server does.
my $theirs = scratch_dir('theirs');
my $ours   = scratch_dir('ours');

my $cluster = FollowPrimary::Cluster->new(nodes => 7, extension => 1, hold => 1,
    conf => { 'follow_primary.verify_timeout' => '10s', wal_keep_size => 0, archive_mode => 'on',
        archive_command => "cp %p $theirs/%f.part && mv $theirs/%f.part $theirs/%f" });
my ($old, $new, $stopped, $killed, $restarted, $reloaded, $late) = $cluster->nodes;

# A command that serves what the former primary has archived, and then what this
# server has, once it may.
sub gate    { my ($node) = @_; return "$theirs/gate-" . $node->name }
sub command { my ($node) = @_; my $gate = gate($node); return "test -e $gate && { cp $theirs/%f %p || cp $ours/%f %p; }" }

$old->safe_psql('CREATE TABLE t AS SELECT 1 AS i');
for my $server ($new, $stopped, $killed, $restarted, $reloaded, $late)
{
    $server->set(archive_command => "cp %p $ours/%f.part && mv $ours/%f.part $ours/%f");
    $server->write_standby(restore_command => command($server)) if $server != $new;
    $server->write_standby(recovery_target_timeline => 'current') if $server == $restarted;
    $server->restart;
}
$_->wait_for_streaming($old) for $new, $stopped, $killed, $restarted, $reloaded, $late;

# One is down long before the fork: the WAL that it needs is in the archive alone.
$late->stop;
$old->safe_psql('SELECT pg_drop_replication_slot(' . FollowPrimary::Node::quote($late->slot_name) . ')');
for (1 .. 3)
{
    $old->safe_psql('INSERT INTO t SELECT 10; SELECT pg_switch_wal()');
}
$old->wait_for_catchup($_) for $new, $stopped, $killed, $restarted, $reloaded;
$_->safe_psql('CHECKPOINT') for $old, $new;
$stopped->stop;
$killed->kill9;
$old->safe_psql('INSERT INTO t SELECT 10');
$old->wait_for_catchup($_) for $new, $restarted, $reloaded;

# The others receive nothing past the fork.
$_->safe_psql('SELECT pg_promote()') for $new;
$new->safe_psql('INSERT INTO t SELECT 20; CHECKPOINT');
for my $server ($restarted, $reloaded)
{
    # By a name that leads nowhere: the receiver ends.
    $server->write_standby(primary_conninfo => 'host=' . $cluster->dir . '/nowhere');
    $server->reload;
    $server->poll_query_until('SELECT count(*) FROM pg_stat_wal_receiver', '0');
}
$old->safe_psql(q{INSERT INTO t SELECT 1000000 FROM generate_series(1, 100); SELECT pg_switch_wal();
    INSERT INTO t SELECT 1000000; SELECT pg_switch_wal(); INSERT INTO t SELECT 1000000});
my $last = $old->safe_psql(q{SELECT pg_walfile_name(pg_switch_wal())});
wait_until("the former primary has archived $last", sub { -e "$theirs/$last" }, 30);

sub has_our_rows
{
    my ($server, $what) = @_;
    $new->safe_psql('INSERT INTO t SELECT 2');
    ok(eval { $new->wait_for_catchup($server, undef, 10); 1 }, "$what: it replays") or diag($@);
    is($server->safe_psql('SELECT count(*), sum(i) FROM t'), $new->safe_psql('SELECT count(*), sum(i) FROM t'), "$what: it has this server's rows");
    is($server->standby_setting('restore_command'), command($server), "$what: its restore_command is in force again")
        if FollowPrimary::Node::reloads('restore_command') || FollowPrimary::Node::pg_major() < 12;
    ok($server->in_recovery, "$what: it is a standby");
    $server->restart;
    ok(eval { $server->wait_for_streaming($new, 10); 1 }, "$what: after a restart it streams") or diag($@);
    is($server->standby_setting('restore_command'), command($server), "$what: with its restore_command");
    $new->safe_psql('INSERT INTO t SELECT 3');
    ok(eval { $new->wait_for_catchup($server, undef, 10); 1 }, "$what: and replays") or diag($@);
    is($server->safe_psql('SELECT count(*), sum(i) FROM t'), $new->safe_psql('SELECT count(*), sum(i) FROM t'), "$what: and has this server's rows");
    is(join(' ', grep { !/lost_wal|\.log$/ } glob $server->pgdata . '.follow_primary*'), '', "$what: nothing is left");
    return;
}

sub method { return $new->safe_psql('SELECT method FROM follow_primary_job ORDER BY id DESC LIMIT 1') }

# Down: what it is started with.
for my $case ([ stopped => $stopped, 'repoint' ], [ killed => $killed, 'rewind' ])
{
    my ($what, $server, $method) = @$case;
    spew(gate($server), '');
    my $r = $new->make_follow($server, when_down => 'rejoin');
    ok($r->{ok}, "$what: it follows") or diag($r->{err}, $server->log_tail(30));
    is(method(), $method, "$what: without a copy");
    has_our_rows($server, $what);
}

# Running: the archive is reached again when it is down, or has lost its primary.
for my $case ([ restarted => $restarted, 'start' ], [ reloaded => $reloaded, 'verify' ])
{
    my ($what, $server, $step) = @$case;
    $new->hold_step($step);
    my $call = $new->psql_start($new->follow_sql($server, method => 'repoint'));
    $new->wait_held(1);
    spew(gate($server), '');
    $new->release_step;
    is($call->wait(60), 0, "$what: it follows") or diag($call->err, $server->log_tail(30));
    has_our_rows($server, $what);
}

# The WAL that it needs is gone from this server: it may have from the archive what
# both had before the fork, and what this server has archived.
$old->stop;
spew(gate($late), '');
my $r = $new->make_follow($late, when_down => 'rejoin', method => 'rewind');
ok($r->{ok}, 'from the archive: it follows') or diag($r->{err}, $late->log_tail(30));
has_our_rows($late, 'from the archive');

done_testing();
