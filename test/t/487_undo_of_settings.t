# What somebody writes into a standby's configuration while a job repoints it is
# there when the job fails, too: ALTER SYSTEM, and a line in postgresql.conf. An
# undo puts back what the job itself has changed. Only a server writes
# postgresql.auto.conf anew at each ALTER SYSTEM, job or not.

use FollowPrimary::Test;

plan(skip_all => 'before PostgreSQL 12 the settings of a standby are in recovery.conf') if pg_major() < 12;

my $cluster = FollowPrimary::Cluster->new(nodes => 3, extension => 1, hold => 1, conf => { 'follow_primary.verify_timeout' => '3s' });
my ($old, $new, $node) = $cluster->nodes;
$old->safe_psql('CREATE TABLE t AS SELECT 1 AS i');
# settings of a standby that a job takes out of postgresql.auto.conf
my %own = (primary_conninfo => "host=@{[ $old->address ]} port=@{[ $old->port ]} user=repl application_name=own", restore_command => 'false # own');
$node->set_standby(%own);
$node->wait_for_streaming($old);
$old->wait_for_catchup($_) for $new, $node;
$new->promote;

my $conf = $node->pgdata . '/postgresql.conf';
my $auto = $node->pgdata . '/postgresql.auto.conf';

# The job fails in its proof, for the standby cannot connect any more.
sub fails_while
{
    my ($what, $meanwhile) = @_;
    my $r = $new->make_follow_held($node, 'verify', sub {
        $meanwhile->();
        $new->safe_psql('ALTER ROLE repl NOLOGIN; SELECT pg_terminate_backend(pid) FROM pg_stat_replication');
        $node->poll_query_until('SELECT count(*) FROM pg_stat_wal_receiver', 0) or die;
    });
    $new->safe_psql('ALTER ROLE repl LOGIN');
    is($r->{sqlstate}, '55000', "$what: the job fails") or diag($r->{err});
    like($r->{detail}, qr/The former settings are put back/, "$what: and is undone");
    ok($node->running, "$what: the server runs");
    is($node->safe_psql('SELECT string_agg(error, $$, $$) FROM pg_file_settings WHERE error !~ $$without restarting|could not be applied$$'), '', "$what: a start reads all settings");
    unlike(slurp($auto), qr/follow_primary/, "$what: nothing of the job is left in postgresql.auto.conf");
    return;
}

sub in_force
{
    my ($setting, $value, $what) = @_;
    ok($node->poll_query_until("SELECT setting FROM pg_settings WHERE name = '$setting'", $value, 10), $what)
        or diag($node->safe_psql("SHOW $setting"));
    return;
}

for my $restart (0, 1)
{
    my $what = $restart ? 'repoint with a restart' : 'repoint';
    $node->set_standby(recovery_target_timeline => 'current') if $restart;

    my @before = map { slurp($_) } $conf, $auto;
    fails_while("$what, nobody writes", sub { });
    is(slurp($conf), $before[0], "$what: postgresql.conf is what it was");
    is(slurp($auto), $before[1], "$what: and so is postgresql.auto.conf");

    fails_while("$what, somebody writes", sub {
        $node->safe_psql("ALTER SYSTEM SET work_mem = '${restart}1MB'");
        append_text($conf, "maintenance_work_mem = '3${restart}MB'\n");
    });
    in_force('work_mem', $restart ? 11264 : 1024, "$what: what ALTER SYSTEM has set meanwhile is in force");
    in_force('maintenance_work_mem', $restart ? 31744 : 30720, "$what: what was written to postgresql.conf, too");
    in_force($_, $own{$_}, "$what: $_ is the former one") for sort keys %own;
    like(slurp($auto), qr/^recovery_target_timeline = 'current'$/m, "$what: and so is the one that needs a restart") if $restart;
}

fails_while('a setting of a standby', sub { $node->safe_psql(q{ALTER SYSTEM SET restore_command = 'false # set meanwhile'}) });
in_force('restore_command', 'false # set meanwhile', 'one that was set meanwhile stays');
in_force('primary_conninfo', $own{primary_conninfo}, 'and the other one is back');

makes_follow($new, $node, 'then the node follows');
has_rows_of($new, $node, 'then');
in_force('work_mem', 11264, 'the setting is in force still');

done_testing();
