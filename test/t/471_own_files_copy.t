# The node's own files in its data directory survive a copy, as they do a rewind
# (470): of a running standby, with the old data kept, finished after an
# interruption, and of a node whose logs and more are behind symbolic links. Only
# real copies by pg_basebackup show what comes from the primary.

use FollowPrimary::Test;
use FollowPrimary::OwnFiles;

my $cluster = FollowPrimary::Cluster->new(nodes => 2, extension => 1, hold => 1);
my ($primary, $node) = $cluster->nodes;
my %own = map { $_->name => FollowPrimary::OwnFiles->new($_) } $primary, $node;
my $own = $own{ $node->name };

# A standby that is down gets a connection string by the job's settings.
$primary->set('follow_primary.verify_timeout' => '20s', 'follow_primary.replication_options' => $own->conninfo,
    'follow_primary.passfile' => $own->passfile);
$primary->safe_psql('CREATE TABLE t AS SELECT generate_series(1, 1000) AS i');

# A standby's own connection string names its files.
{
    local $node->{passfile} = $own->passfile;
    $node->follow($primary, $cluster->standby_options, conninfo => $own->conninfo);
}
$_->restart for $primary, $node;
$node->wait_for_streaming($primary);
$own->remember;

sub follows
{
    my ($what) = @_;
    is($primary->job('method, state'), 'basebackup|succeeded', "$what: basebackup");
    has_rows_of($primary, $node, $what);
    $own->unchanged($what);
    return;
}

# 1.
my $r = $primary->make_follow($node, method => 'basebackup');
ok($r->{ok}, 'a standby gets a copy') or diag($r->{err});
follows('copy');
is(join(' ', glob($node->pgdata . '.follow_primary/*')), '', 'nothing is left beside the data');

# 2. Twice with the replaced data kept: its names have numbers then.
for my $n (1, 2)
{
    $r = $primary->try_sql("SET follow_primary.keep_old_data = 'always'; " . $primary->follow_sql($node, method => 'basebackup'));
    ok($r->{ok}, "the replaced data is kept, $n") or diag($r->{err});
    follows("kept old data, $n");
}

# 3. Ended between the exchange and the configuration, and before the exchange.
for my $step ('configure', 'swap')
{
    $primary->hold_step($step);
    my $id = $primary->safe_psql($primary->follow_sql($node, method => 'basebackup', wait => 'false'));
    $primary->wait_held(1);
    $primary->safe_psql("SELECT pg_terminate_backend(worker_pid) FROM follow_primary_job WHERE id = $id");
    $primary->release_step;
    $primary->poll_query_until("SELECT state FROM follow_primary_job WHERE id = $id", 'cancelled');
    $own->unchanged("ended before $step") if $step eq 'swap';
    $r = $primary->make_follow($node, method => 'basebackup', when_down => 'rejoin');
    ok($r->{ok}, "ended before $step, and called again") or diag($r->{err});
    follows("ended before $step");
}

# 4. The logs are on another disk, behind a link, as are scripts and the
# configuration itself.
$node->stop;
for my $name ('log', 'scripts', 'certs', 'postgresql.conf', 'pg_hba.conf', 'conf.d')
{
    rename $node->pgdata . "/$name", $node->host->dir . "/outside/$name" or die "rename: $!";
    symlink $node->host->dir . "/outside/$name", $node->pgdata . "/$name" or die "symlink: $!";
}
$own->{also} = [ 'postgresql.conf', 'pg_hba.conf' ];
$own->remember;
$node->start;
my $crash = slurp($node->host->dir . '/outside/log/crash.log');
$r = $primary->make_follow($node, method => 'basebackup');
ok($r->{ok}, 'a standby with links gets a copy') or diag($r->{err});
follows('links');
is(slurp($node->host->dir . '/outside/log/crash.log'), $crash, 'links: what they lead to is as it was');

done_testing();
