# A virtual address, a name or a port by which the node is to reach this server
# may lead to another one: to the former primary, to a sibling, to another
# cluster, to the node itself, to a twin that was promoted at the same point.
# "A connection can be made" proves nothing, and what answers is copied, or
# followed. Only real servers that answer show that each is told from this one,
# before anything is stopped, changed or left, for every method.

use Digest::MD5 qw(md5_hex);
use Time::HiRes qw(time);

use FollowPrimary::Test;

# The third server of the cluster, which is followed by nobody, is another
# cluster's in the end; all have one port, as on real machines.
my $cluster = FollowPrimary::Cluster->new(nodes => 5, extension => 1, conf => { 'follow_primary.verify_timeout' => '10s' });
my ($old, $new, $node, $twin, $sibling) = $cluster->nodes;

my $host = FollowPrimary::Host->new(name => 'elsewhere', address => free_address());
my $other = FollowPrimary::Node->new(host => $host, port => $new->port, passfile => $cluster->passfile);
$other->init(conf => { listen_addresses => $host->address . ',127.0.0.1' });
$other->start;
$other->safe_psql('CREATE ROLE repl LOGIN REPLICATION; CREATE TABLE theirs ()');

# The servers have another address each, by which they are reached as something else.
my %alias = map { $_->name => free_address() } $old, $node;
for my $server ($old, $node)
{
    $server->set(listen_addresses => $server->address . ',' . $alias{ $server->name });
    $server->restart;
}
$_->wait_for_streaming($old) for $new, $node, $twin, $sibling;
$old->safe_psql('CREATE TABLE t AS SELECT generate_series(1, 1000) AS i');
$old->wait_for_catchup($_) for $new, $node, $twin, $sibling;
$old->stop;
$_->poll_query_until('SELECT count(*) FROM pg_stat_wal_receiver', '0') for $new, $node, $twin, $sibling;
$_->promote for $new, $twin;    # at one point
# It receives nothing more, whoever writes.
spew($node->recovery_file, slurp($node->recovery_file) =~ s/ port=\d+/ port=1/r);
FollowPrimary::Node::reloads('primary_conninfo') ? $node->reload : $node->restart;
$node->wait_for_log(qr/port 1 failed/);
$old->start;                    # a primary, too
my $r = $new->make_follow($sibling);
ok($r->{ok}, 'a sibling follows') or diag($r->{err});

my $system = $old->controldata('Database system identifier');

# What may not change, as text.
sub state_of
{
    my ($server) = @_;
    my $work = $server->pgdata . '.follow_primary';
    my @files = map { -e $_ ? md5_hex(slurp($_)) . " $_" : "no $_" } map { $server->pgdata . "/$_" }
        qw(postgresql.conf postgresql.auto.conf myrecovery.conf standby.signal PG_VERSION);
    return join "\n", $server->pid // 'down', $server->controldata('Database system identifier'),
        ($server->running ? $server->safe_psql('SELECT pg_postmaster_start_time(), pg_is_in_recovery(), pg_conf_load_time()') : ''),
        (map { "left: $_" } glob "$work $work/* $work.*"), @files;
}

# A job to this address fails as it is to, and nothing is touched.
sub is_refused
{
    my ($what, $of, $detail, %arguments) = @_;
    my $before = state_of($of);
    my $slots  = $new->safe_psql('SELECT slot_name FROM pg_replication_slots ORDER BY 1');
    my $log    = $new->log_size;
    my $start  = time;
    my $r      = $new->make_follow($of, %arguments);
    my $took   = time - $start;

    is($r->{sqlstate}, '08006', "$what: refused") or diag($r->{err});
    like($r->{message}, qr/primary_host leads to another server/, "$what: for this reason");
    like($r->{detail}, $detail, "$what: which server it is");
    like($r->{hint}, qr/\w/, "$what: what to do");
    cmp_ok($took, '<', 3, sprintf '%s: at once, %.1f s', $what, $took);
    is(state_of($of), $before, "$what: nothing is changed, nothing left");
    is($new->safe_psql('SELECT slot_name FROM pg_replication_slots ORDER BY 1'), $slots, "$what: nor here");
    is($new->safe_psql("SELECT state, error_code FROM follow_primary_job ORDER BY id DESC LIMIT 1"), 'failed|08006', "$what: as the job's row says");
    is($new->safe_psql(q{SELECT count(*) FROM follow_primary_step WHERE job_id = (SELECT max(id) FROM follow_primary_job)
        AND step IN ('stop', 'copy', 'rewind', 'repoint', 'configure', 'slot', 'checkpoint')}), 0, "$what: before any step that changes something");
    is(scalar(grep { /\b(?:FATAL|PANIC)\b/ } split /\n/, $new->log_content($log)), 0, "$what: nor is this server's log alarmed");
    return;
}

my %leads_to = (
    'the former primary' => [ $old->address, qr/system identifier $system\b.*timeline 1\b.*not in recovery/s ],
    'another cluster'    => [ $other->address, qr/system identifier @{[ $other->controldata('Database system identifier') ]}\b/ ],
    'a loopback name'    => [ 'localhost', qr/system identifier @{[ $other->controldata('Database system identifier') ]}\b/ ],
    'a twin'             => [ $twin->address, qr/system identifier $system\b.*timeline 2\b.*not in recovery/s ],
    'a sibling'          => [ $sibling->address, qr/system identifier $system\b.*timeline 2\b.*in recovery/s ]);

# A running standby that is a prefix, and down.
for my $what (sort keys %leads_to)
{
    my ($address, $detail) = @{ $leads_to{$what} };
    is_refused("$_, $what", $node, $detail, method => $_, primary_host => $address) for qw(auto repoint rewind basebackup);
}
is_refused("$_, the node itself", $node, qr/in recovery: it is the node itself/, method => $_, primary_host => $alias{ $node->name })
    for qw(repoint rewind basebackup);

# By the setting, and by the node's row.
$new->safe_psql("SET follow_primary.primary_host = '@{[ $old->address ]}'; SELECT 1");
$new->safe_psql("UPDATE follow_primary_node SET primary_host = '@{[ $old->address ]}' WHERE host = '@{[ $node->address ]}'");
is_refused("auto, by the node's row", $node, qr/timeline 1\b/);
$new->safe_psql('UPDATE follow_primary_node SET primary_host = NULL');

# By a port, as of a connection pool that has another server behind it.
my $port = free_port($new->address);
$sibling->set(port => $port, listen_addresses => $new->address);
$sibling->restart;
is_refused("$_, another port of this host", $node, qr/in recovery/, method => $_, primary_port => $port) for qw(repoint rewind basebackup);
$sibling->set(port => $new->port, listen_addresses => $sibling->address);
$sibling->stop;
$sibling->start;

# The old primary, which runs: by an address that leads to itself; and one that is down.
is_refused("$_, the running former primary's own address", $old, qr/on timeline 1, not in recovery: it is the node itself/, method => $_, primary_host => $alias{ $old->name })
    for qw(rewind basebackup);
$new->safe_psql("UPDATE follow_primary_node SET copy_in_place = true WHERE host = '@{[ $old->address ]}'");
is_refused('another cluster, copy_in_place', $old, qr/system identifier/, method => 'basebackup', primary_host => $other->address);
$node->stop;
for my $what ('the former primary', 'another cluster', 'a twin', 'a sibling')
{
    my ($address, $detail) = @{ $leads_to{$what} };
    is_refused("$_ of a stopped node, $what", $node, $detail, method => $_, primary_host => $address, when_down => 'rejoin') for qw(auto basebackup);
}

# Where nobody answers, the error is another one.
$r = $new->make_follow($node, when_down => 'rejoin', primary_host => free_address());
is($r->{sqlstate}, '08006', 'nobody answers: an error');
like($r->{message}, qr/a connection to this server cannot be made/, 'nobody answers: of its own');
is($new->safe_psql(q{SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'follow_primary\_%'}), 0, 'no connection is left here');

# And it works by the right name, for each method.
$node->start;
for my $method (qw(repoint rewind basebackup))
{
    $node->follow($old, slot => 0), $node->restart if $method ne 'repoint';
    $r = $new->make_follow($node, method => $method, primary_host => $new->address);
    ok($r->{ok}, "$method: by the right address it follows") or diag($r->{err});
    # With a restartpoint on this server's timeline: pg_rewind before 16 looks for a
    # target's timeline in its last one alone.
    $new->safe_psql('INSERT INTO t SELECT 0; CHECKPOINT');
    $new->wait_for_catchup($node);
}
is($node->safe_psql('SELECT count(*) FROM t'), '1003', 'it has the rows of this server');
$r = $new->make_follow($old, primary_host => $new->address);
ok($r->{ok}, 'and so does the former primary') or diag($r->{err});

done_testing();
