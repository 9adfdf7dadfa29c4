# What a switchover refuses before it touches the primary: each check fails once, on real
# servers, and the primary has not noticed. Only real ones show that the check asks what
# is so now: a WAL receiver that is frozen is still shown as streaming.

use FollowPrimary::Test;

plan(skip_all => 'before PostgreSQL 12 there is no switchover') if FollowPrimary::Node::pg_major() < 12;

my $cluster = FollowPrimary::Cluster->new(nodes => 3, extension => 1, conf => {
    archive_mode => 'on', archive_command => 'true', max_standby_streaming_delay => -1,
    wal_retrieve_retry_interval => '200ms', 'follow_primary.connect_timeout' => '3s' });
my ($one, $two, $three) = $cluster->nodes;
$_->set('follow_primary.primary_host' => $_->address) for $cluster->nodes;
$_->reload for $cluster->nodes;
$one->safe_psql('CREATE TABLE t AS SELECT 1 AS i; CREATE ROLE granted LOGIN; GRANT EXECUTE ON FUNCTION follow_primary_switchover(interval) TO granted');
my ($pgpool, $kept);

# In the table of nodes, on the primary; when it returns, the standby has it.
sub nodes_sql { my ($sql) = @_; $one->safe_psql($sql); $one->wait_for_catchup($_) for $two, $three; return }
sub row_of { my ($node) = @_; return "host = '" . $node->address . "'" }

sub streams { my ($node) = @_; $node->poll_query_until('SELECT status FROM pg_stat_wal_receiver', 'streaming', 60) or die; return }

sub switch_wal { $one->safe_psql('INSERT INTO t VALUES (1)'); $one->safe_psql('SELECT pg_switch_wal()'); return }

sub receiver_conninfo
{
    my ($from, $to) = @_;
    (my $conninfo = $two->safe_psql('SHOW primary_conninfo')) =~ s/$from/$to/ or die;
    $conninfo =~ s/'/''/g;
    $two->safe_psql("ALTER SYSTEM SET primary_conninfo = '$conninfo'");
    $two->reload;
    $two->poll_query_until('SELECT count(*) FROM pg_stat_wal_receiver WHERE status = \'streaming\'', '0') or die;
    return;
}

sub receiver_mended { $two->safe_psql('ALTER SYSTEM RESET ALL'); $two->reload; streams($two); return }

# What is wrong, how it is made and mended, what is said, and what else: on, the server that
# is asked, call, the call, before, SQL before it, sqlstate (55000), hint, lets_pass
# (a checkpoint).
my @cases = (
    { what => 'the role is no superuser', before => 'SET ROLE granted; ', sqlstate => '42501', says => qr/superuser/ },
    { what => 'no time', call => "'0 s'", sqlstate => '22023', says => qr/timeout/ },
    { what => 'a day', call => "'1 day'", sqlstate => '22023', says => qr/timeout/ },
    { what => 'no value', call => 'NULL', sqlstate => '22004', says => qr/timeout/ },
    { what => 'a transaction block', before => 'BEGIN; ', sqlstate => '25001', says => qr/transaction block/ },
    { what => 'called on the primary', on => $one, says => qr/primary already/, hint => qr/on the standby/ },
    {   what => 'no SSH to the primary', sqlstate => '08001', says => qr/SSH/,
        make => sub { $one->host->ssh_stop }, mend => sub { $one->host->ssh_start } },
    {   what => 'no SSH to a sibling', says => qr/\Q@{[ $three->address ]}\E.*SSH/,
        make => sub { $three->host->ssh_stop }, mend => sub { $three->host->ssh_start } },
    {   what => 'the WAL receiver is let in nowhere', says => qr/does not stream/, hint => qr/failover/,
        make => sub { receiver_conninfo(qr/user=\S+/, 'user=nobody_there') }, mend => \&receiver_mended },
    {   what => 'recovery that follows nobody', says => qr/does not stream from a primary/,
        make => sub { receiver_conninfo(qr/.*/, '') }, mend => \&receiver_mended },
    {   what => 'the WAL receiver is frozen', call => "'10 s'", says => qr/too far behind/, lets_pass => 1,
        make => sub { kill 'STOP', $kept = $two->safe_psql('SELECT pid FROM pg_stat_wal_receiver') or die },
        mend => sub { kill 'CONT', $kept; streams($two) } },
    {   what => 'replay is held up by a session', call => "'10 s'", says => qr/too far behind/, lets_pass => 1,
        make => sub {
            $kept = $two->psql_start("BEGIN; SELECT 'holds ' || count(*) FROM t;\n\\! sleep 60\n");
            wait_until('a session reads', sub { $kept->out =~ /holds/ }, 20);
            $one->safe_psql('ALTER TABLE t ADD COLUMN j int');
        },
        mend => sub { $two->safe_psql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%holds%' AND pid <> pg_backend_pid()}); $kept->stop } },
    {   what => 'replay is paused', says => qr/replay is paused/, hint => qr/pg_wal_replay_resume/,
        make => sub { $two->safe_psql('SELECT pg_wal_replay_pause()') }, mend => sub { $two->safe_psql('SELECT pg_wal_replay_resume()') } },
    {   what => 'replay is delayed', says => qr/recovery_min_apply_delay/,
        make => sub { $two->safe_psql(q{ALTER SYSTEM SET recovery_min_apply_delay = '1h'}); $two->reload; $two->poll_query_until('SHOW recovery_min_apply_delay', '1h') or die },
        mend => \&receiver_mended },
    {   what => 'a base backup runs', says => qr/base backup/, lets_pass => 1,
        make => sub {
            $kept = FollowPrimary::Process->start([ $one->bin('pg_basebackup'), '-d', $one->connstr(undef, 'repl'), qw(-w -c fast -X none -r 100k -D), scratch_dir('copy') . '/data' ]);
            $one->poll_query_until(q{SELECT count(*) FROM pg_stat_replication WHERE state = 'backup'}, '1') or die;
        },
        mend => sub { $kept->stop; $one->poll_query_until(q{SELECT count(*) FROM pg_stat_replication WHERE state = 'backup'}, '0') or die } },
    {   what => 'more WAL waits for the archiver than may', says => qr/waits to be archived.*: 3 segments/, before => 'SET follow_primary.max_archive_backlog = 2; ', lets_pass => 1,
        make => sub {
            $one->set(archive_command => 'false');
            $one->reload;
            switch_wal() for 1 .. 3;
            $one->poll_query_until('SELECT last_failed_time > coalesce(last_archived_time, \'-infinity\') FROM pg_stat_archiver', 't') or die;
            $one->wait_for_catchup($two);
        },
        mend => sub {
            $one->set(archive_command => 'true');
            $one->reload;
            switch_wal();
            $one->poll_query_until('SELECT last_failed_time < last_archived_time FROM pg_stat_archiver', 't', 90) or die;
        } },
    {   what => 'the primary has no row', says => qr/the primary has no row/, hint => qr/INSERT INTO/,
        make => sub { nodes_sql('CREATE TABLE nodes AS TABLE follow_primary_node; DELETE FROM follow_primary_node WHERE ' . row_of($one)) },
        mend => sub { nodes_sql('INSERT INTO follow_primary_node SELECT * FROM nodes WHERE ' . row_of($one)) } },
    {   what => 'this server has no row', says => qr/this server has no row/,
        make => sub { nodes_sql('DELETE FROM follow_primary_node WHERE ' . row_of($two)) },
        mend => sub { nodes_sql('INSERT INTO follow_primary_node SELECT * FROM nodes WHERE ' . row_of($two)) } },
    {   what => "the primary's row has another data directory", says => qr/pgdata|data directory/,
        make => sub { nodes_sql("UPDATE follow_primary_node SET pgdata = '/nowhere' WHERE " . row_of($one)) },
        mend => sub { nodes_sql("UPDATE follow_primary_node SET pgdata = '@{[ $one->pgdata ]}' WHERE " . row_of($one)) } },
    {   what => 'a sibling does not tell whether it is a primary, and something else is in the way', says => qr/waits to be archived/,
        notice => qr/WARNING: .*not known whether it is a second primary.*cannot ask: host=@{[ $three->address ]} port=@{[ $three->port ]}\./s,
        before => 'SET follow_primary.max_archive_backlog = 0; ', lets_pass => 1,
        make => sub { $three->stop; $one->set(archive_command => 'false'); $one->reload; switch_wal(); $one->wait_for_catchup($two) },
        mend => sub { $three->start; $one->set(archive_command => 'true'); $one->reload; switch_wal(); streams($three) } },
    {   what => 'a pgpool is in front', says => qr/pgpool would fail over by itself/,
        hint => qr/pcp_promote_node -s -h \S+ -p \d+ -U pgpool -w -n @{[ $two->id ]}\./,
        make => sub {
            $pgpool = FollowPrimary::Pgpool->new(cluster => $cluster, conf => { failover_command => '', failover_on_backend_error => 'off' });
            $pgpool->start;
            nodes_sql(join ';', map { 'UPDATE follow_primary_node SET node_id = ' . $_->id . ' WHERE ' . row_of($_) } $cluster->nodes);
            $two->set('follow_primary.pcp_host' => $pgpool->address);
            $two->reload;
        },
        mend => sub { } },
    {   what => 'a pgpool is in front, by the numbers of the nodes alone', says => qr/pgpool would fail over by itself/, hint => qr/pcp_promote_node -s /,
        before => sprintf(q{SET follow_primary.pcp_host = ''; }),
        make => sub { }, mend => sub { } },
    {   what => 'a pgpool is in front, and its password is not here', says => qr/pgpool would fail over by itself/, notice => qr/NOTICE: .*PCP password file/,
        before => q{SET follow_primary.pcp_pass_file = '/nowhere'; },
        make => sub { }, mend => sub { } },
    {   what => 'that pgpool does not answer, and something else is in the way', says => qr/replay is paused/, notice => qr/NOTICE: .*pgpool at/,
        make => sub { $pgpool->stop; $two->safe_psql('SELECT pg_wal_replay_pause()') },
        mend => sub { } },
    {   what => 'nor is its password here', says => qr/replay is paused/, notice => qr/NOTICE: .*PCP password file/,
        before => q{SET follow_primary.pcp_pass_file = '/nowhere'; },
        make => sub { }, mend => sub { $two->safe_psql('SELECT pg_wal_replay_resume()') } });

sub refused
{
    my ($case) = @_;
    my $to = $case->{on} // $two;
    $case->{make}->() if $case->{make};
    my $look = sub {
        my $seen = $one->_untouched_by($two);
        delete $seen->{control} if $case->{lets_pass};
        return { %$seen, files => join ' ', glob $two->pgdata . '/follow_primary_switchover.*' };
    };
    my $before = $look->();
    my $r = $to->try_sql(($case->{before} // '') . 'SELECT * FROM follow_primary_switchover(' . ($case->{call} // '') . ')', timeout => 60);
    my $after = $look->();
    $case->{mend}->() if $case->{mend};
    subtest $case->{what} => sub {
        is($r->{sqlstate}, $case->{sqlstate} // '55000', 'the SQLSTATE');
        like("$r->{message}\n$r->{detail}", $case->{says}, 'what is wrong is said');
        like($r->{hint}, $case->{hint}, 'and what to do') if $case->{hint};
        like($r->{err}, $case->{notice}, 'and what was seen before') if $case->{notice};
        is_deeply($after, $before, 'the primary has not noticed, and nothing is left');
    } or diag($r->{err});
    return;
}

refused($_) for @cases;

# With all of that mended the same call succeeds, beside a pgpool that does not answer.
my $r = $two->try_sql('SELECT state FROM follow_primary_switchover()', timeout => 120);
is($r->{out}, "succeeded\nsucceeded", 'with all mended it succeeds') or diag($r->{err});

# A sibling was promoted by somebody else: the primary must not go down for another one.
($one, $two) = ($two, $one);
$two->wait_for_streaming($one);
$three->promote;
refused({ what => 'there is a second primary', says => qr/there is a second primary.*another node is a primary: host=@{[ $three->address ]} port=@{[ $three->port ]}/s,
    hint => qr/which of them is the right one.*follow_primary_all\(\)/ });

done_testing();
