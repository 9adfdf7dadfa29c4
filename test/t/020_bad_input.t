# Each wrong call, and each obstacle, has an error of its own that says what to do. It
# changes nothing on the node or the primary, and leaves no worker, process or folder.
# The errors are those of SSH, of PostgreSQL's limits and of its authentication, so
# the servers are real.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(
    nodes     => 3,
    extension => 1,
    auth      => 'scram-sha-256',
    conf      => { max_worker_processes => 3, max_wal_senders => 5, max_replication_slots => 6 });
my ($old, $new, $sibling) = $cluster->nodes;

# All calls are made on the new primary after a failover: for the sibling, which waits
# for the dead primary, and for the former primary, which was restarted by mistake.
$old->safe_psql('CREATE TABLE t AS SELECT generate_series(1, 1000) AS i');
$old->wait_for_catchup($_) for $new, $sibling;
$old->kill9;
$new->promote;
$old->start;
$old->safe_psql('INSERT INTO t SELECT generate_series(100001, 100100)');

# All that a wrong call could have changed.
sub state_of_all
{
    return join "\n", (map { $_->fingerprint } $old, $new, $sibling),
        $new->safe_psql('SELECT slot_name, slot_type, active FROM pg_replication_slots ORDER BY 1');
}

# What may be left: running jobs and workers, and on the nodes sessions of sshd with
# what runs in them.
sub left_behind
{
    my @left = $new->safe_psql("SELECT count(*) FROM follow_primary_job WHERE state = 'running'")
        + $new->safe_psql("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'follow_primary'");
    push @left, map { my @sshd = process_tree($_->host->ssh_pid); @sshd - 1 } $old, $sibling;
    return "@left";
}

my $before = state_of_all();

sub nothing_is_changed
{
    my $now  = state_of_all();
    my %was  = map { $_ => 1 } split /\n/, $before;
    my %is   = map { $_ => 1 } split /\n/, $now;
    ok($now eq $before, 'nothing is changed')
        or diag((map { "was: $_\n" } grep { !$is{$_} } sort keys %was), (map { "is:  $_\n" } grep { !$was{$_} } sort keys %is));
    return;
}

# One wrong call. A hash: sql, or for (the node) and with (arguments), row
# (columns of the node's row in follow_primary_node, for this call alone),
# sqlstate, message, detail, hint; job => 0 when it must not become a job.
sub is_refused
{
    my ($what, %case) = @_;
    my $node = $case{for} // $sibling;
    my $on   = $case{on} // $new;
    my $jobs = 'SELECT coalesce(max(id), 0) FROM follow_primary_job';
    my $last = $new->safe_psql($jobs);
    my $sql  = $case{sql} // $on->follow_sql($node, %{ $case{with} // {} });
    if ($case{row})
    {
        my $row = join ', ', map { "$_ = " . quote($case{row}{$_}) } sort keys %{ $case{row} };
        $sql = "BEGIN;\nUPDATE follow_primary_node SET $row WHERE host = '@{[ $node->address ]}';\n$sql";
    }

    subtest $what => sub {
        my $r = $on->try_sql($sql, user => $case{user}, timeout => 60);
        is($r->{sqlstate}, $case{sqlstate}, 'SQLSTATE');
        like($r->{$_}, $case{$_} // qr/^$/, $_) for grep { $case{$_} || $_ eq 'detail' } qw(message detail hint);
        if ($case{job} // 1)
        {
            is($new->safe_psql("SELECT state, error_code, hint <> '', finished_at IS NOT NULL
                    FROM follow_primary_job WHERE id > $last"),
                "failed|$case{sqlstate}|t|t", "the job's row says so");
        }
        else
        {
            is($new->safe_psql($jobs), $last, 'it did not become a job');
        }
        ok(eval { wait_until('nothing is left', sub { left_behind() eq '0 0 0' }, 60) }, 'nothing is left behind')
            or diag(left_behind());
        nothing_is_changed();
    };
    return;
}

my $scratch = scratch_dir('input');

#
# Who asks, and where
#
is_refused('on a standby', on => $sibling, for => $new, job => 0,
    sqlstate => '55000', message => qr/this server is a standby/, detail => qr/by that primary/, hint => qr/on the new primary/);
is_refused('in a read-only transaction', job => 0,
    sql      => 'BEGIN READ ONLY; ' . $new->follow_sql($sibling),
    sqlstate => '25006', message => qr/follow_primary\(\) in a read-only transaction/);
$new->safe_psql(q(CREATE ROLE plain LOGIN PASSWORD 'plain'; CREATE ROLE granted LOGIN PASSWORD 'granted';
    GRANT EXECUTE ON FUNCTION follow_primary TO granted));
append_text($cluster->passfile, "*:*:*:plain:plain\n*:*:*:granted:granted\n");
is_refused('by a plain role', user => 'plain', job => 0,
    sqlstate => '42501', message => qr/permission denied for function follow_primary/);
is_refused('by a role with EXECUTE, for an unknown node', user => 'granted', job => 0,
    sql      => "SELECT follow_primary('127.0.0.1')",
    sqlstate => '42501', message => qr/permission denied for node 127\.0\.0\.1:5432/, detail => qr/have a row/, hint => qr/superuser/);

#
# The way there
#
is_refused('an unknown host',
    sql      => "SELECT follow_primary('no-such-host.invalid')",
    sqlstate => '08001', message => qr/survey.*"no-such-host\.invalid"/, hint => qr/spelling/);
is_refused('a port that refuses SSH, on a host whose PostgreSQL runs',
    row      => { ssh_port => free_port($sibling->address) },
    sqlstate => '08001', message => qr/Connection refused/, hint => qr/sshd runs there/);

make_ssh_key("$scratch/wrong");
make_ssh_key("$scratch/encrypted", passphrase => 'passphrase');
is_refused('a key that the node does not take',
    row      => { ssh_key_file => "$scratch/wrong" },
    sqlstate => '28000', message => qr/accepts no key/, detail => qr{input/wrong}, hint => qr/authorized_keys/);
is_refused('a key that needs a passphrase',
    row      => { ssh_key_file => "$scratch/encrypted" },
    sqlstate => '28000', message => qr/no usable SSH key/, detail => qr{input/encrypted}, hint => qr/passphrase/);
is_refused('no key file',
    row      => { ssh_key_file => "$scratch/none" },
    sqlstate => '28000', message => qr/no usable SSH key/, detail => qr{input/none}, hint => qr/private key file/);

# What the log of its sshd says from there on.
sub nobody_asked_to_be_let_in
{
    my ($start) = @_;
    my $log = substr $sibling->host->ssh_log, $start;
    like($log, qr/Connection from/, 'its sshd saw a connection');
    unlike($log, qr/publickey|Accepted|Failed|for user/, 'that was ended before anybody asked to be let in');
    return;
}
spew("$scratch/known_hosts", '');
my $logged = length $sibling->host->ssh_log;
is_refused('a host key that is not known',
    row      => { ssh_known_hosts_file => "$scratch/known_hosts" },
    sqlstate => '28000', message => qr/host key of .* is not known/, detail => qr/SHA256:/, hint => qr/ssh-keyscan|accept-new/);
nobody_asked_to_be_let_in($logged);
is(slurp("$scratch/known_hosts"), '', 'it is not added to the file');
{
    my @key = split ' ', $old->host->known_hosts_line;
    my ($name) = split ' ', $sibling->host->known_hosts_line;
    spew("$scratch/known_hosts", "$name @key[1, 2]\n");
}
$logged = length $sibling->host->ssh_log;
is_refused('a host key that has changed',
    row      => { ssh_known_hosts_file => "$scratch/known_hosts" },
    sqlstate => '28000', message => qr/host key of .* has changed/, detail => qr/line 1/, hint => qr/poses/);
nobody_asked_to_be_let_in($logged);
is_refused('the same, where new ones are accepted',
    row      => { ssh_known_hosts_file => "$scratch/known_hosts", ssh_host_key_checking => 'accept-new' },
    sqlstate => '28000', message => qr/host key of .* has changed/, detail => qr/line 1/, hint => qr/poses/);
is_refused('no PostgreSQL where it is said to be',
    row      => { node_bin_dir => $scratch },
    sqlstate => '58P01', message => qr/cannot be surveyed/, detail => qr/no PostgreSQL server in/, hint => qr/node_bin_dir/);

#
# The data directory
#
my $hint_pgdata = qr/Correct node_pgdata/;
is_refused('PGDATA is relative', with => { node_pgdata => 'data' }, job => 0,
    sqlstate => '22023', message => qr/node_pgdata/, detail => qr/not an absolute path/, hint => qr/data_directory/);
is_refused('PGDATA is /', with => { node_pgdata => '/' }, job => 0,
    sqlstate => '22023', message => qr/node_pgdata/, detail => qr/root directory/, hint => qr/data_directory/);

# On a port that no server uses, no other server is in the way.
my $free = free_port($sibling->address);
my $ssh_port = $sibling->host->ssh_port;
$new->safe_psql("INSERT INTO follow_primary_node (host, port, ssh_port) VALUES ('@{[ $sibling->address ]}', $free, $ssh_port)");
my %elsewhere = (node_port => $free, when_down => 'rejoin');
mkdir "$scratch/something" or die;
spew("$scratch/something/precious", 'data');

is_refused('PGDATA is / by another name', with => { %elsewhere, node_pgdata => '/usr/..' },
    sqlstate => '22023', message => qr/not a PostgreSQL data directory/, detail => qr/Nothing was changed/, hint => $hint_pgdata);
is_refused('PGDATA is not there', with => { %elsewhere, node_pgdata => "$scratch/none" },
    sqlstate => '58P01', message => qr{"$scratch/none" does not exist}, detail => qr/Nothing was changed/, hint => $hint_pgdata);
for my $method (qw(auto basebackup))
{
    is_refused("PGDATA is something else, method $method",
        with     => { %elsewhere, node_pgdata => "$scratch/something", method => $method },
        sqlstate => '22023', message => qr/not a PostgreSQL data directory/, detail => qr/Nothing was changed/, hint => $hint_pgdata);
}
is(slurp("$scratch/something/precious"), 'data', 'what is in there stays');
ok(!-e "$scratch/something.follow_primary", 'and nothing is put beside it');
is_refused('PGDATA is not known', with => {%elsewhere},
    sqlstate => '22023', message => qr/not known/, detail => qr/Nothing was changed/, hint => qr/node_pgdata/);
is_refused('PGDATA is that of another server than the one on the port', with => { node_pgdata => $old->pgdata },
    sqlstate => '22023', message => qr/the server on the node's port uses data directory/, detail => qr/Nothing was changed/, hint => $hint_pgdata);
is_refused("PGDATA is this server's own", with => { %elsewhere, node_pgdata => $new->pgdata },
    sqlstate => '22023', message => qr/the node is this server itself/, detail => qr/Nothing was changed/, hint => qr/every other node/);
is_refused('the node is this server', for => $new, with => { primary_host => $new->address }, job => 0,
    sqlstate => '22023', message => qr/is this server itself/, detail => qr/host and port/, hint => qr/every other node/);

{
    my $other = FollowPrimary::Node->new(host => $sibling->host, name => 'other');
    $other->init;
    $before = state_of_all();
    for my $method (qw(auto rewind basebackup))
    {
        is_refused("PGDATA of another cluster, method $method",
            with     => { %elsewhere, node_pgdata => $other->pgdata, method => $method },
            sqlstate => '55000', message => qr/another cluster: its system identifier/, detail => qr/Nothing was changed/, hint => qr/Correct node_host, node_port or node_pgdata/);
    }
    spew($other->pgdata . '/PG_VERSION', "9.6\n");
    unlink $other->pgdata . '/global/pg_control' or die;
    is_refused('data of another major version',
        with     => { %elsewhere, node_pgdata => $other->pgdata },
        sqlstate => '0A000', message => qr/the node's data is of PostgreSQL 9, this/, detail => qr/Nothing was changed/, hint => qr/same major version/);
    spew($other->pgdata . '/PG_VERSION', pg_major() . "\n");
    is_refused('data without a control file',
        with     => { %elsewhere, node_pgdata => $other->pgdata },
        sqlstate => '55000', message => qr/may belong to any cluster/, detail => qr/Nothing was changed/, hint => qr/method => 'basebackup'/);
}

#
# What the primary has too little of
#
$new->safe_psql("SELECT pg_create_physical_replication_slot('held_' || i)
    FROM generate_series(1, 6 - (SELECT count(*)::int FROM pg_replication_slots)) i");
$before = state_of_all();
is_refused('every replication slot is taken',
    sqlstate => '53400', message => qr/no replication slot is free/, detail => qr/Nothing was changed/, hint => qr/max_replication_slots/);
$new->safe_psql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name LIKE 'held%'");
$before = state_of_all();

{
    my @held = map { FollowPrimary::Process->start(
        [ $new->bin('pg_receivewal'), '-w', '-d', $new->connstr(undef, 'repl'), '-D', scratch_dir("wal$_") ],
        env => { PGPASSFILE => $cluster->passfile }) } 1 .. 5;
    $new->poll_query_until('SELECT count(*) FROM pg_stat_replication', 5) or die 'the WAL senders are not taken';
    is_refused('every WAL sender is taken',
        sqlstate => '53400', message => qr/no WAL sender is free/, detail => qr/Nothing was changed/, hint => qr/max_wal_senders/);
    $held[0]->stop;
    $new->poll_query_until('SELECT count(*) FROM pg_stat_replication', 4) or die 'no WAL sender is freed';
    is_refused('a copy finds only one of two WAL senders', with => { method => 'basebackup' },
        sqlstate => '53400', message => qr/needs 2, 1 are left/, detail => qr/Nothing was changed/, hint => qr/max_wal_senders/);
    $_->stop for @held;
    $new->poll_query_until('SELECT count(*) FROM pg_stat_replication', 0) or die 'the WAL senders stay';
}

# One of the three workers is PostgreSQL's own; an sshd that does not answer keeps the
# others busy.
$_->host->ssh_freeze for $old, $sibling;
my @busy = map { $new->safe_psql($new->follow_sql($_, wait => 'false', method => 'repoint')) } $old, $sibling;
{
    my $r = $new->make_follow($sibling, node_port => $free);
    is($r->{sqlstate}, '53400', 'every worker is taken') or diag($r->{err});
    like($r->{detail}, qr/max_worker_processes \(3\)/, 'it says of which limit');
    like($r->{hint}, qr/raise max_worker_processes/, 'and what to do');
    is($new->safe_psql('SELECT max(id) FROM follow_primary_job'), $busy[1], 'it did not become a job');
}
is($new->safe_psql("SELECT follow_primary_cancel($busy[0])"), 't', 'the first is cancelled');
is($new->safe_psql("SELECT follow_primary_wait($busy[0], '10 s')"), 'cancelled', 'and ends');
{
    my $r = $new->make_follow($sibling);
    is($r->{sqlstate}, '55006', 'a node that another job has') or diag($r->{err});
    like($r->{detail}, qr/Job $busy[1] has it since/, 'it says which');
    like($r->{hint}, qr/follow_primary_cancel\($busy[1]\)/, 'and what to do');
}
is($new->safe_psql("SELECT follow_primary_cancel($busy[1])"), 't', 'the second is cancelled');
is($new->safe_psql("SELECT follow_primary_wait($busy[1], '10 s')"), 'cancelled', 'and ends');
$_->host->ssh_thaw for $old, $sibling;
ok(eval { wait_until('nothing is left', sub { left_behind() eq '0 0 0' }, 60) }, 'nothing is left behind') or diag(left_behind());
nothing_is_changed();

#
# The way back
#
spew("$scratch/pgpass", "*:*:*:*:wrong\n", 0600);
is_refused('a wrong password for a copy', row => { passfile => "$scratch/pgpass" }, with => { method => 'basebackup' },
    sqlstate => '08006', message => qr/at step connect/, detail => qr/password authentication failed for user "repl"/, hint => qr/password file/);
spew("$scratch/pgpass", (slurp($cluster->passfile) =~ /^(.*:repl:.*\n)/m)[0] . "*:*:*:*:wrong\n");
is_refused('a wrong password for a rewind', for => $old, row => { passfile => "$scratch/pgpass" },
    sqlstate => '08006', message => qr/at step connect/, detail => qr/password authentication failed for user "postgres"/, hint => qr/password file/);
is_refused('a role that may not replicate', for => $old, row => { replication_user => 'plain' },
    sqlstate => '08006', message => qr/at step connect/, detail => qr/must be superuser or replication role|permission denied to start WAL sender/, hint => qr/ALTER ROLE plain REPLICATION/);

# After all that the right calls work.
ok($new->make_follow($sibling)->{ok}, 'the sibling follows');
makes_follow($new, $old, 'the former primary follows');

# pg_dump takes the rows of the node table, which a DBA wrote, and not the jobs.
$new->set_row($old, restore_command => 'cp "/a b/%f" %p', stop_timeout => 7);
my $rows = 'SELECT n::text FROM follow_primary_node n ORDER BY host, port';
my $env  = { PGPASSFILE => $cluster->passfile };
my $dump = run_ok([ $new->bin('pg_dump'), '-w', '-d', $new->connstr ], env => $env);
$new->safe_psql('CREATE DATABASE restored');
my ($code, $out, $err) = $new->psql($dump, dbname => 'restored');
is($code, 0, 'a dump can be restored') or diag($err);
is($new->safe_psql($rows, dbname => 'restored'), $new->safe_psql($rows), 'with the rows of the node table');
is($new->safe_psql('SELECT count(*) FROM follow_primary_job', dbname => 'restored'), 0, 'and without the jobs of another server');
is($new->safe_psql($new->follow_sql($sibling, function => 'follow_primary_plan'), dbname => 'restored'),
    'none|the node follows this server already|{verify}', 'the extension works there');

done_testing();
