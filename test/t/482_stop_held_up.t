# What keeps a server from stopping is named: the process and its command. Only a
# server that shuts down waits so for an archive_command, a WAL sender's client, a
# WAL receiver.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 4, extension => 1, conf => {
    'follow_primary.stop_timeout' => '4s', 'follow_primary.start_timeout' => '30s' });
my ($old, $new, $frozen, $receiver) = $cluster->nodes;

# The former primary still runs: its archiver has something to do that never ends.
$old->set(archive_mode => 'on', archive_command => 'sleep 4712; false # %f');
$old->restart;
$_->wait_for_streaming($old) for $new, $frozen, $receiver;
$old->safe_psql('CREATE TABLE t AS SELECT 1 AS i; SELECT pg_switch_wal()');
$old->wait_for_catchup($_) for $new, $frozen, $receiver;
wait_until('the archiver is at work', sub { (run_command([ 'pgrep', '-f', '^sleep 4712' ]))[0] == 0 });
my ($sleep) = run_ok([ 'pgrep', '-f', '^sleep 4712' ]) =~ /(\d+)/;
my ($child) = run_ok([ 'ps', '-o', 'ppid=', '-p', $sleep ]) =~ /(\d+)/;
$new->promote;
my $r;
for my $node ($frozen, $receiver)
{
    $r = $new->make_follow($node);
    ok($r->{ok}, $node->name . ' follows the new primary') or diag($r->{err});
}

my $started = time;
$r = $new->make_follow($old);
cmp_ok(time - $started, '<', 20, 'a stop that hangs ends the job in time');
is($r->{sqlstate}, '58000', 'a former primary whose archive_command hangs does not stop in time') or diag($r->{err});
like($r->{message}, qr/at step stop/, 'the step is named');
like($r->{detail}, qr/archiver/, 'the detail names the server process');
like($r->{detail}, qr/process $child\b.*: .*sleep 4712/s, 'and the command with its process');
like($r->{detail}, qr/for \d+ s/, 'and its age');
like($r->{hint}, qr/\Q@{[ $old->address ]}\E.*\bkill $child\b/s, 'the hint says how it is ended, and on which machine');
like($r->{detail} . $r->{hint}, qr/call follow_primary\(\) again/, 'and what then');
my ($kill) = $r->{hint} =~ /(kill \d+)/;
run_ok([ 'sh', '-c', $kill ]);
wait_until('the server has stopped', sub { !$old->running }, 30);
$r = $new->make_follow($old);
ok($r->{ok}, 'the next call takes it from there, though it is down') or diag($r->{err});

# A client of the node's own that does not answer: a WAL sender waits for it.
my $client = FollowPrimary::Process->start([ $frozen->bin('pg_receivewal'), '-D', scratch_dir('wal'), '-w',
    '-d', $frozen->connstr(undef, 'repl') . ' application_name=backup_tool' ], env => { PGPASSFILE => $cluster->passfile });
$frozen->poll_query_until(q{SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'}, 1) or die $client->err;
my $sender = $frozen->safe_psql('SELECT pid FROM pg_stat_replication');
$client->signal('STOP');
$r = $new->make_follow($frozen, method => 'rewind');
SKIP:
{
    skip 'the WAL sender did not wait', 3 if $r->{ok};
    is($r->{sqlstate}, '58000', 'a standby whose WAL sender waits does not stop in time') or diag($r->{err});
    like($r->{detail}, qr/process $sender\b.*walsender/s, 'the detail names the process');
    like($r->{hint}, qr/kill $sender\b/, 'the hint, how to end it');
}
$client->signal('CONT');
$client->stop;

wait_until('it has stopped', sub { !$frozen->running }, 30) if !$r->{ok};
$r = $new->make_follow($frozen);
ok($r->{ok}, 'the next call brings it back') or diag($r->{err});

# A WAL receiver that hangs.
my $pid = $receiver->safe_psql("SELECT pid FROM pg_stat_wal_receiver");
kill 'STOP', $pid;
$r = $new->make_follow($receiver, method => 'rewind');
kill 'CONT', $pid;
is($r->{sqlstate}, '58000', 'a standby whose WAL receiver hangs does not stop in time') or diag($r->{err});
like($r->{detail}, qr/process $pid\b.*walreceiver/s, 'the detail names it');
like($r->{detail}, qr/stopped|state T/, 'and that it is stopped by a signal');
like($r->{hint}, qr/\Q@{[ $receiver->address ]}\E.*kill -CONT $pid\b/s, 'the hint says what makes it go on');
wait_until('it has stopped', sub { !$receiver->running }, 30);
$r = $new->make_follow($receiver);
ok($r->{ok}, 'the next call brings it back') or diag($r->{err});

done_testing();
