# A setting in the command that starts a server wins over all files: with such a
# restore_command a started node would replay what a former primary archived behind the
# fork, whatever a job writes. Where the command is known, the job refuses before
# anything has changed; where it hides in a script or a service, the server is stopped at
# once. Only a server decides what wins.

use FollowPrimary::Test;

plan(skip_all => 'before PostgreSQL 12 recovery.conf has them, and no command') if pg_major() < 12;

my $theirs  = scratch_dir('theirs');
my $cluster = FollowPrimary::Cluster->new(nodes => 5, extension => 1,
    conf => { 'follow_primary.verify_timeout' => '10s', archive_mode => 'on',
        archive_command => "cp %p $theirs/%f.part && mv $theirs/%f.part $theirs/%f" });
my ($old, $new, $running, $hidden, $waiting) = $cluster->nodes;
my @standbys = ($running, $hidden, $waiting);

$old->safe_psql('CREATE TABLE t AS SELECT 1 AS i');
for my $node ($new, @standbys)
{
    $old->wait_for_catchup($node);
    $node->set(archive_mode => 'off');
    $node->restart;
    $node->wait_for_streaming($old);
}
$_->stop for $hidden, $waiting;
$new->promote;
$new->safe_psql('INSERT INTO t SELECT 20; CHECKPOINT');
my $last;
$last = $old->safe_psql('INSERT INTO t SELECT 1000000; SELECT pg_walfile_name(pg_switch_wal())') for 1 .. 3;
wait_until("the former primary has archived $last", sub { -e "$theirs/$last" }, 30);
$old->stop;
$running->wait_for_log(qr/FATAL|could not connect|terminat/, 0);

sub start_command
{
    my ($node, $options) = @_;
    return "'@{[ $node->bin('pg_ctl') ]}' -w -D '@{[ $node->pgdata ]}' -l '@{[ $node->host->dir ]}/command.log'"
        . ($options ? qq{ -o "$options"} : '') . ' start';
}

sub checked
{
    my ($node) = @_;
    return $new->safe_psql("SELECT status, message, hint FROM follow_primary_check('@{[ $node->address ]}', @{[ $node->port ]})
        WHERE item = 'service_commands'");
}

# 1. It runs with one.
my $restore = "cp $theirs/%f %p";
for my $case (
    [ "-c restore_command='$restore'", 'restore_command' ],
    [ "--restore-command='$restore' --primary_slot_name=other", 'primary_slot_name, restore_command' ],
    [ "-cRecovery_target_timeline=current", 'recovery_target_timeline' ])
{
    my ($options, $names) = @$case;
    $running->stop;
    run_ok([ 'sh', '-c', start_command($running, lc $options) ]);
    $new->refuses($running, "started with $options", sqlstate => 'F0000',
        message => qr/the command that starts the node's server sets \Q$names\E, which wins/,
        hint => qr/node_start_command.*restart the node's server.*call follow_primary\(\) again/s,
        arguments => { method => $_ }) for qw(auto rewind basebackup);
    like(checked($running), qr/^error\|the command that starts the node's server sets \Q$names\E, which wins.*\|.*node_start_command/s,
        "started with $options: the check tells before the failover");
}

# 2. The command that is known would set one.
$running->restart;
$new->set_row($running, node_start_command => start_command($running, "-c restore_command='$restore'"));
$new->refuses($running, 'a node_start_command', sqlstate => 'F0000', message => qr/sets restore_command/, hint => qr/node_start_command/);
$new->set_row($running, node_start_command => undef);
like(checked($running), qr/^ok\|/, 'without it: the check is content');
makes_follow($new, $running, 'without it: it follows');
has_rows_of($new, $running, 'without it');

# 3. Nobody can know before: a command that waits for the server, and one that does not.
for my $case ([ 'a script', $hidden, '-w' ], [ 'a script that does not wait', $waiting, '-W' ])
{
    my ($what, $node, $wait) = @$case;
    my $script = spew($node->host->dir . '/start', "#!/bin/sh\n" . start_command($node, "-c restore_command='$restore'") =~ s/ -w / $wait /r . "\n", 0755);
    $new->set_row($node, node_start_command => $script);
    my $r = $new->make_follow($node, when_down => 'rejoin');
    ok(!$r->{ok}, "$what: the call fails");
    is($r->{sqlstate}, 'F0000', "$what: by SQLSTATE");
    like($r->{message}, qr/@{[ $node->address ]}.* was started with settings that win .*, and was stopped at once/, "$what: the error says so") or diag($r->{err});
    like($r->{detail}, qr/sets restore_command\. It was started by: \S*postgres .*restore_command/, "$what: and tells which, and how");
    like($r->{hint}, qr/its service/, "$what: the hint tells where to look");
    ok(!$node->running, "$what: the node is down");
    spew($script, "#!/bin/sh\n" . start_command($node) . "\n");
    makes_follow($new, $node, "$what, corrected: it follows");
    has_rows_of($new, $node, "$what, corrected");
}

done_testing();
