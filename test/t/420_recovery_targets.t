# A primary ignores recovery targets and a promote_trigger_file, wherever they
# were left over from; a standby obeys them. A node that is made a standby with
# one in force promotes itself, at once, at the next commit or when somebody makes
# a restore point: a second primary, writable, with a timeline of its own in the
# archive. Or it stops replaying. Only real servers show what they obey, at a
# start and after the next one.

use FollowPrimary::Test;

plan(skip_all => 'before 12 they are in recovery.conf, which a primary has not') if FollowPrimary::Node::pg_major() < 12;

my $cluster = FollowPrimary::Cluster->new(nodes => 3, extension => 1, conf => { 'follow_primary.verify_timeout' => '10s', wal_keep_size => '2GB' });
my ($old, $new, $node) = $cluster->nodes;
my $pgdata = $node->pgdata;
my $ended  = $node->host->dir . '/recovery_ended';
my $trigger = $node->host->dir . '/trigger';
my $has_trigger = FollowPrimary::Node::pg_major() < 16;

$old->safe_psql('CREATE TABLE t (i bigint)');
$old->wait_for_catchup($_) for $new, $node;
$new->promote;
$old->stop;
my $r = $new->make_follow($node);
ok($r->{ok}, 'the node follows') or diag($r->{err});

# What the node's settings have while it is a primary, which it was for a while.
my $conf_of_its_own = slurp("$pgdata/postgresql.conf") =~ s/^include_if_exists.*\n//mgr;

# A position that WAL reaches later. (pg_lsn + integer is there from 14 on.)
sub far_ahead
{
    my ($high, $low) = split m{/}, $new->lsn('write');
    return sprintf '%s/%X', $high, hex($low) + 40_000_000;
}

sub settings
{
    my (%settings) = @_;
    return join '', map { "$_ = '$settings{$_}'\n" } sort keys %settings;
}

sub in_conf     { my (%s) = @_; $node->append_conf(settings(%s)); return }
sub in_auto     { my (%s) = @_; append_text("$pgdata/postgresql.auto.conf", settings(%s)); return }
sub in_included
{
    my (%s) = @_;
    spew("$pgdata/more.conf", settings(%s));
    $node->append_conf("include 'more.conf'\n");
    return;
}
sub in_folder
{
    my (%s) = @_;
    mkdir "$pgdata/conf.d";
    spew("$pgdata/conf.d/99-more.conf", settings(%s));
    $node->append_conf("include_dir 'conf.d'\n");
    return;
}
sub behind_ours { my (%s) = @_; append_text("$pgdata/postgresql.conf", settings(%s)); return }
sub in_ours     { my (%s) = @_; append_text($node->recovery_file, settings(%s)); return }

sub clean_settings
{
    unlink glob("$pgdata/conf.d/*"), "$pgdata/more.conf", $trigger, $ended;
    my $auto = slurp("$pgdata/postgresql.auto.conf") =~ s/^(?:recovery_target|promote_trigger).*\n//mgr;
    spew("$pgdata/postgresql.auto.conf", $auto);
    spew("$pgdata/postgresql.conf", $conf_of_its_own);
    $node->append_conf(settings(recovery_end_command => "touch $ended"));
    return;
}

# Does it stay a standby that replays, whatever is written, now and after its next start?
sub stays_a_standby
{
    my ($what) = @_;
    for my $when ('now', 'after a restart')
    {
        $node->stop, $node->start(fail_ok => 1) if $when ne 'now';
        my $lived = eval {
            $node->wait_for_streaming($new, 10);
            $new->safe_psql(q{INSERT INTO t SELECT 1; SELECT pg_create_restore_point('later'); SELECT txid_current(); INSERT INTO t SELECT 2; SELECT pg_switch_wal()});
            $new->wait_for_catchup($node, undef, 10);
            1;
        };
        ok($lived, "$what, $when: it streams and replays") or diag($@);
        is(($node->psql('SELECT pg_is_in_recovery()'))[1], "t\n", "$what, $when: it is a standby");
    }
    ok(!-e $ended, "$what: its recovery never ended");
    is(($node->psql(q{SELECT name FROM pg_settings WHERE (name ~ '^recovery_target(_name|_time|_xid|_lsn)?$' OR name = 'promote_trigger_file') AND setting <> ''}))[1], '',
        "$what: no target is in force");
    return;
}

sub become_primary
{
    clean_settings();
    $node->running ? $node->restart : $node->start;
    $node->promote if $node->in_recovery;
    $node->safe_psql('INSERT INTO t SELECT 1000');
    unlink $ended;
    return;
}

my $past = '2020-01-01 00:00:00+00';
my @cases = (
    [ 'a time in the past, in postgresql.conf', \&in_conf, recovery_target_time => $past, recovery_target_action => 'promote' ],
    [ 'immediate, in postgresql.auto.conf', \&in_auto, recovery_target => 'immediate', recovery_target_action => 'promote' ],
    [ 'a transaction, in an included file', \&in_included, recovery_target_xid => 'NEXT', recovery_target_action => 'promote' ],
    [ 'a name that does not exist yet, in conf.d', \&in_folder, recovery_target_name => 'later', recovery_target_action => 'promote' ],
    [ 'an LSN not reached yet, behind our include', \&behind_ours, recovery_target_lsn => 'AHEAD', recovery_target_action => 'promote' ],
    [ 'to pause', \&in_conf, recovery_target_time => $past, recovery_target_action => 'pause' ],
    [ 'to shut down at a name, in our file', \&in_ours, recovery_target_name => 'later', recovery_target_action => 'shutdown' ],
    $has_trigger ? [ 'a promote_trigger_file that is there', \&in_conf, promote_trigger_file => $trigger ] : ());

for my $method (qw(rewind basebackup))
{
    for my $case (@cases)
    {
        my ($name, $write, %settings) = @$case;
        my $what = "$method, $name";

        become_primary();
        for (values %settings)
        {
            $_ = $new->safe_psql('SELECT txid_current() + 3') if $_ eq 'NEXT';
            $_ = far_ahead() if $_ eq 'AHEAD';
        }
        $write->(%settings);
        spew($trigger, '') if $settings{promote_trigger_file};
        $node->stop;
        $r = $new->make_follow($node, method => $method, when_down => 'rejoin');
        ok($r->{ok}, "$what: it follows") or diag($r->{err});
        stays_a_standby($what);
    }
}

# A running standby, which has its settings from its start on: in force, or only
# written for the next one.
for my $case (grep { $_->[0] =~ /auto.conf|later|not reached|trigger/ || $_->[0] =~ /^to / } @cases)
{
    my ($name, $write, %settings) = @$case;
    for my $when ('written', 'in force')
    {
        next if $when eq 'in force' && $name !~ /not (?:exist|reached)|^to shut down/;
        my $what = "repoint, $name, $when";
        clean_settings();
        $new->create_slot($node->slot_name);
        $node->follow($new, slot => 1);
        $node->restart if $node->running;
        $node->start if !$node->running;
        if (!$node->in_recovery) { fail("$what: it is no standby"); next }
        $node->wait_for_streaming($new);
        $settings{recovery_target_lsn} = far_ahead() if $settings{recovery_target_lsn};
        $settings{recovery_target_name} = 'later ' . $what =~ s/\W+/ /gr if $settings{recovery_target_name};
        $write->(%settings);
        $node->restart if $when eq 'in force';
        $r = $new->make_follow($node, method => 'repoint', slot_name => 'another');
        ok($r->{ok}, "$what: it follows") or diag($r->{err});
        $new->safe_psql("SELECT pg_create_restore_point('$settings{recovery_target_name}')") if $settings{recovery_target_name};
        stays_a_standby($what);
    }
}

# One that has reached its target, and waits there: told to go on, it would be promoted.
clean_settings();
$new->create_slot($node->slot_name);
$node->follow($new, slot => 1);
in_conf(recovery_target_name => 'here', recovery_target_action => 'pause');
$node->restart;
$node->wait_for_streaming($new);
$new->safe_psql(q{SELECT pg_create_restore_point('here'); INSERT INTO t SELECT 3});
$node->poll_query_until('SELECT pg_is_wal_replay_paused()') or die;
$r = $new->make_follow($node);
ok($r->{ok}, 'paused at its target: it follows') or diag($r->{err});
stays_a_standby('paused at its target');

done_testing();
