# Until a started node is proven to follow, its restore_command fetches only what
# this server vouches for. The gate goes with the job, however it ends: an undo puts back
# the settings as they were, and what a killed job left goes with the next call. The
# node's own text of the setting is what it was, wherever it stands, and ALTER SYSTEM may be
# used meanwhile. Only a server tells which command is in force, and what it runs.

use FollowPrimary::Test;

my $archive = scratch_dir('archive');
my $cluster = FollowPrimary::Cluster->new(nodes => 5, extension => 1, hold => 1,
    conf => { 'follow_primary.verify_timeout' => '10s' });
my ($old, $new, $undone, $killed, $lines) = $cluster->nodes;

# What it is asked for, and what it says to all: nothing.
sub asked { my ($node) = @_; return "$archive/100%% 'asked' " . $node->name }
sub command
{
    my ($node) = @_;
    my $log = asked($node) =~ s/%%/%/gr;
    spew($log, '');
    return 'echo %f >>"' . asked($node) . '"; false # 100%%';
}
sub asked_for { my ($node) = @_; return split /\n/, slurp(asked($node) =~ s/%%/%/gr) }

# One of several lines, which ALTER SYSTEM cannot write.
sub lines_command
{
    my ($node) = @_;
    return "# it's asked\n" . (command($node) =~ s/; .*//r) . " # a back\\slash\nfalse";
}

my $undone_command = command($undone);
my $killed_command = command($killed);
my $lines_command  = lines_command($lines);
$undone->write_standby(restore_command => $undone_command, recovery_target_timeline => 'current');
if (pg_major() < 12)
{
    $killed->write_standby(restore_command => $killed_command);
}
else
{
    $killed->set(restore_command => $killed_command);
}
append_text($lines->recovery_file, q{restore_command = '} . $lines_command =~ s/(['\\])/$1$1/gr =~ s/\n/\\n/gr . "'\n");
$_->restart for $undone, $killed, $lines;
$old->safe_psql('CREATE TABLE t AS SELECT 1 AS i');
$old->wait_for_catchup($_) for $new, $undone, $killed, $lines;
$_->stop for $killed, $lines;
$old->stop;
$new->promote;
my $fork = substr $new->safe_psql('SELECT pg_walfile_name(pg_current_wal_lsn())'), 8;    # the segment
$new->safe_psql('INSERT INTO t VALUES (2); CHECKPOINT');

sub auto_conf { my ($node) = @_; return join '', grep { !/^#/ } slurp($node->pgdata . '/' . (pg_major() < 12 ? 'recovery.conf' : 'postgresql.auto.conf')) =~ /^.*\n/mg }

sub end_at_verify
{
    my ($what, $node, %arguments) = @_;
    my $meanwhile = delete $arguments{meanwhile} // sub { };
    $new->hold_step('verify');
    my $call = $new->psql_start($new->follow_sql($node, %arguments), keep_going => 1);
    $new->wait_held(1, 60);
    like($node->standby_setting('restore_command'), qr/gate/, "$what: until the proof the restore_command is behind a gate");
    $meanwhile->();
    $new->safe_psql('SELECT pg_terminate_backend(' . $new->job('worker_pid') . ')');
    $new->release_step;
    $call->wait(60);
    $new->poll_query_until(q{SELECT count(*) FROM follow_primary_job WHERE state = 'running'}, 0) or die;
    is($new->job('state'), 'interrupted', "$what: the job has not succeeded");
    return;
}

my $before = auto_conf($undone);
end_at_verify('undone', $undone, method => 'repoint');
ok(wait_until('it is up', sub { $undone->running }, 20), 'undone: the node is up again');
is(auto_conf($undone), $before, 'undone: its settings are what they were');
is($undone->standby_setting('restore_command'), $undone_command, 'undone: so is the command in force');
is(join(' ', grep { !/\.log$/ } glob $undone->pgdata . '.follow_primary*'), '', 'undone: nothing is left');

spew(asked($killed) =~ s/%%/%/gr, '');
$before = auto_conf($killed);
end_at_verify('killed', $killed, when_down => 'rejoin', method => 'rewind');
is(join(' ', grep { !/^00000001(.{16})$/ || $1 ge $fork } asked_for($killed)), '', 'killed: the archive was asked for old WAL alone');
ok(-e $killed->pgdata . '.follow_primary/job/gate', 'killed: the gate is left');
my $r = $new->make_follow($killed);
ok($r->{ok}, 'killed: the next call finishes') or diag($r->{err});

if (pg_major() >= 12)
{
    spew(asked($lines) =~ s/%%/%/gr, '');
    end_at_verify('lines', $lines, when_down => 'rejoin', method => 'rewind',
        meanwhile => sub { $lines->safe_psql(q{ALTER SYSTEM SET work_mem = '5MB'}) });
    is($lines->safe_psql('SELECT string_agg(error, $$, $$) FROM pg_file_settings WHERE error IS NOT NULL'), '', 'lines: after ALTER SYSTEM a start reads all settings');
    is(join(' ', grep { !/^00000001(.{16})$/ || $1 ge $fork } asked_for($lines)), '', 'lines: the archive was asked for old WAL alone');
    $r = $new->make_follow($lines);
    ok($r->{ok}, 'lines: the next call finishes') or diag($r->{err});
    is($lines->safe_psql('SHOW work_mem'), '5MB', 'lines: what was set meanwhile is in force');
}

$r = $new->make_follow($undone);
ok($r->{ok}, 'undone: the next call makes it follow') or diag($r->{err});
for my $case ([ undone => $undone, $undone_command ], [ killed => $killed, $killed_command ],
    pg_major() < 12 ? () : [ lines => $lines, $lines_command ])
{
    my ($what, $node, $command) = @$case;
    $new->safe_psql('INSERT INTO t VALUES (3)');
    $new->wait_for_catchup($node);
    $node->restart if !reloads('restore_command');
    ok($node->poll_query_until('SHOW restore_command', $command), "$what: its own restore_command is in force")
        or diag($node->standby_setting('restore_command')) if pg_major() >= 12;
    unlike(auto_conf($node), qr/gate/, "$what: and nothing else is written");
    is(join(' ', grep { !/\.log$/ } glob $node->pgdata . '.follow_primary*'), '', "$what: nothing is left");
    $node->restart;
    ok(wait_until('it asks', sub { asked_for($node) }, 10), "$what: after a restart its archive is asked");
    is($node->safe_psql('SELECT max(i) FROM t'), 3, "$what: and it has this server's rows");
}
is(auto_conf($killed), $before, 'killed: its settings are what they were') if pg_major() >= 12;

done_testing();
