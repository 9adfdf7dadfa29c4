# A server that a job has started, and that is a primary all the same, is stopped at
# once, and the error says so: where the start command takes the signal file away,
# where it promotes the server. What an undo starts
# again is a standby, whatever has been written to its settings since its own start.
# Only a real server takes such a thing for what it is.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 4, extension => 1, conf => { 'follow_primary.verify_timeout' => '10s' });
my ($old, $new, $restarted, $rewound) = $cluster->nodes;
my $bin = bindir();

$old->safe_psql('CREATE TABLE t AS SELECT 1 AS i');
$old->wait_for_catchup($_) for $new, $restarted, $rewound;

# What a later start would make of them a primary, and what is in force does not.
sub write_target
{
    my ($node) = @_;
    return $node->write_standby(recovery_target_time => '2020-01-01 00:00:00+00', recovery_target_action => 'promote');
}
$restarted->set_standby(recovery_target_timeline => 'current');    # it needs a restart
$_->wait_for_streaming($old) for $restarted, $rewound;
$new->promote;

# 1. The undo of a restart, and of a rewind that has not begun.
for my $case ([ 'a restart', $restarted, 'start', 'repoint' ], [ 'a rewind', $rewound, 'rewind', 'rewind' ])
{
    my ($what, $node, $step, $method) = @$case;
    $old->safe_psql('INSERT INTO t SELECT 7777'), $old->wait_for_catchup($node) if $method eq 'rewind';
    write_target($node);
    $new->fail_steps($step);
    my $r = $new->try_sql($new->follow_sql($node, method => $method));
    $new->fail_steps();
    like($r->{message}, qr/the test fails step $step/, "$what fails") or diag($r->{err});
    like($r->{detail}, qr/started again/, "$what: the error tells that the node was started again");
    like($r->{detail}, qr/recovery targets in its settings, .* are emptied/, "$what: and what was changed for that");
    ok($node->running && $node->in_recovery, "$what: the node is a standby");
    is($node->safe_psql(q{SELECT count(*) FROM pg_settings WHERE name ~ '^recovery_target(_name|_time|_xid|_lsn)?$' AND (setting <> '' OR pending_restart)}),
        0, "$what: no target is in force or written") if pg_major() >= 12;
    $node->restart;
    ok($node->in_recovery, "$what: it is one after its next start");
}

# 2. The signal file is gone when the server starts.
$old->stop;
my $signal = $old->pgdata . '/' . (pg_major() < 12 ? 'recovery.conf' : 'standby.signal');
my $start = "'$bin/pg_ctl' -w -D '" . $old->pgdata . "' -l '" . $old->host->dir . "/hook.log'";
my $timeline = $new->timeline;
for my $case (
    [ 'without its signal file', "rm '$signal'; $start start" ],
    [ 'promoted by the command', "$start start && '$bin/pg_ctl' -D '" . $old->pgdata . "' promote" ])
{
    my ($what, $command) = @$case;
    $new->set_row($old, node_start_command => $command);
    my $r = $new->make_follow($old, when_down => 'rejoin');
    ok(!$r->{ok}, "$what: the call fails");
    is($r->{sqlstate}, '55000', "$what: by SQLSTATE");
    like($r->{message}, qr/became a primary after its start, and was stopped at once/, "$what: the error says so") or diag($r->{err});
    like($r->{detail}, qr/It was started by: \S*postgres .*-D/, "$what: and tells how it was started");
    like($r->{hint}, qr/start command.*method => 'rewind'/s, "$what: the hint tells where to look, and what to call then");
    ok(!$old->running, "$what: the node is down");
}
$new->set_row($old, node_start_command => undef);
makes_follow($new, $old, 'the next call, as the hint has it, brings it back', when_down => 'rejoin', method => 'basebackup');
has_rows_of($new, $old, 'then');
is($new->timeline, $timeline, 'this server is where it was');

done_testing();
