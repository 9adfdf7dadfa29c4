# The last words of the node's WAL receiver are in the error of a verify that
# fails, wherever the node's log goes and whatever language it is in; where they
# cannot be had, that is said. And when the settings that are put back lead to a
# host that does not answer, so is that. Logs in five forms only servers write.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 7, extension => 1, hold => 1, conf => {
    'follow_primary.verify_timeout' => '4s', wal_retrieve_retry_interval => '200ms' });
my ($old, $new, $plain, $german, $csv, $uncollected, $syslog) = $cluster->nodes;
my $major = FollowPrimary::Node::pg_major();
my $has_german = (run_command([ 'locale', '-a' ]))[1] =~ /^de_DE\.utf-?8$/mi;

$old->wait_for_catchup($_) for $new, $plain, $german, $csv, $uncollected, $syslog;
$german->set(lc_messages => 'de_DE.UTF-8') if $has_german;
$csv->set(log_destination => 'csvlog', log_filename => 'csv.log');
$csv->restart;
$uncollected->set(logging_collector => 'off');
$uncollected->restart;
$syslog->set(log_destination => 'syslog');
$_->reload for $german, $syslog;
$_->wait_for_streaming($old) for $german, $csv, $uncollected, $syslog;
$old->kill9;
$new->promote;

# A process that says such a thing is not the WAL receiver.
sub noise { my ($node) = @_; $node->psql('SELECT 1', user => 'nobody_of_that_name'); return }

# The call, which the primary lets in until the job has seen so, and not any more
# when the node's settings have changed.
my $hba  = slurp($new->pgdata . '/pg_hba.conf');
my $step = reloads('primary_conninfo') ? 'repoint' : 'configure';
sub keep_out
{
    my ($how) = @_;
    spew($new->pgdata . '/pg_hba.conf', ($how ? "host replication repl all reject\n" : '') . $hba);
    $new->reload;
    return;
}

sub follow_kept_out
{
    my ($node, %arguments) = @_;
    keep_out(0);
    $new->hold_step($step);
    my $call = $new->psql_start($new->follow_sql($node, %arguments), variables => { VERBOSITY => 'verbose' });
    $new->wait_held(1);
    keep_out(1);
    $new->safe_psql("SELECT pg_terminate_backend(pid) FROM pg_stat_replication WHERE application_name = '@{[ $node->name ]}'");
    $new->release_step;
    my $code = $call->wait(60);
    return FollowPrimary::Node::result($code // die('the call does not end'), $call->out, $call->err);
}

for ([ $plain, 'plain' ], [ $german, 'German' ], [ $csv, 'csvlog' ], [ $uncollected, 'without a collector' ])
{
    my ($node, $what) = @$_;
    my $conf = slurp($node->recovery_file);
    noise($node);
    my $r = follow_kept_out($node);
    noise($node);
    is($r->{sqlstate}, '55000', "$what: a standby that the primary's pg_hba.conf keeps out does not follow") or diag($r->{err});
    like($r->{detail}, qr/WAL receiver.*pg_hba\.conf rejects replication connection.*user "repl"/s, "$what: the WAL receiver's last words are in the detail");
    unlike($r->{detail}, qr/nobody_of_that_name/, "$what: and nobody else's");
    like($r->{detail}, qr/[Vv]erbind/, "$what: in its language") if $what eq 'German' && $has_german;
    is(slurp($node->recovery_file), $conf, "$what: the former settings are back");
    like($r->{detail}, qr/put back.*\Q@{[ $old->address ]}\E.*does not answer/s, "$what: which lead to a dead host, and that is said");
}
my $r = follow_kept_out($syslog);
is($r->{sqlstate}, '55000', 'syslog: it does not follow either');
like($r->{detail}, qr/WAL receiver.*(syslog)/s, 'syslog: it is said where its last words are to be found');

# With the rejection gone they follow.
keep_out(0);
for my $node ($plain, $german, $csv, $uncollected, $syslog)
{
    $r = $new->make_follow($node);
    ok($r->{ok}, $node->name . ' follows now') or diag($r->{err});
}

# A message of before is not taken for one of now.
$plain->stop;
$plain->start;
$plain->wait_for_streaming($new);
$plain->set_standby(recovery_min_apply_delay => undef);
my $startup = $plain->safe_psql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'startup'");
kill 'STOP', $startup;
$r = $new->make_follow($plain);
kill 'CONT', $startup;
is($r->{sqlstate}, '55000', 'a standby that streams and does not replay is not proven') or diag($r->{err});
unlike($r->{detail}, qr/pg_hba\.conf/, 'what its WAL receiver said in former times is not the reason');
like($r->{detail}, qr/row of this job is not visible/, 'but this');

SKIP:
{
    skip 'jsonlog comes with PostgreSQL 15', 2 if $major < 15;
    $csv->set(log_destination => 'jsonlog', log_filename => 'json.log');
    $csv->restart;
    $csv->wait_for_streaming($new);
    $r = follow_kept_out($csv, method => 'repoint');
    is($r->{sqlstate}, '55000', 'jsonlog: it does not follow') or diag($r->{err});
    like($r->{detail}, qr/WAL receiver.*pg_hba\.conf rejects replication connection.*user "repl"/s, 'jsonlog: with the last words');
}

done_testing();
