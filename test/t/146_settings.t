# pg_rewind and pg_basebackup bring the primary's settings files. The primary was a
# standby once, so its myrecovery.conf and its ALTER SYSTEM would make the node follow
# the dead server, or itself. None of these settings may win, and the node's own
# settings must survive. The server decides which file wins, so the test asks a
# server.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 2, extension => 1,
    conf => { 'follow_primary.verify_timeout' => '20s' });
my ($old, $new) = $cluster->nodes;

# What the primary was told when it was a standby.
$new->safe_psql(q{ALTER SYSTEM SET maintenance_work_mem = '33MB'});
$new->set_standby(
    primary_conninfo => sprintf('host=%s port=%d user=repl passfile=%s', $old->address, $old->port, $cluster->passfile),
    primary_slot_name        => $new->slot_name,
    restore_command          => 'false',
    recovery_target_timeline => 'current',
    recovery_target_action   => 'shutdown');
my $included = pg_major() >= 12;
$new->wait_for_streaming($old);

# The node's own settings.
$old->safe_psql(q{ALTER SYSTEM SET work_mem = '7MB'});
$old->safe_psql(q{CREATE TABLE t AS SELECT 1 AS i});
append_text($old->pgdata . '/pg_hba.conf', "# the node's own\n");
append_text($old->pgdata . '/pg_ident.conf', "# the node's own\n");
$old->reload;
spew($old->pgdata . '/server.key', "the node's own\n", 0600);
spew($new->pgdata . '/server.key', "the primary's\n", 0640);
my %before = map { $_ => slurp($old->pgdata . "/$_") } qw(pg_hba.conf pg_ident.conf postgresql.conf server.key);
$old->wait_for_catchup($new);
$new->promote;
$old->safe_psql('INSERT INTO t SELECT 1000');
$new->safe_psql('INSERT INTO t SELECT 2');

for my $method ('rewind', 'basebackup')
{
    makes_follow($new, $old, "$method: the node follows", method => $method);
    has_rows_of($new, $old, $method);
    my %set = map { split /=/, $_, 2 } split ' ', $old->standby_setting('primary_conninfo');
    is("$set{host}:$set{port} $set{user}", $new->address . ':' . $new->port . ' repl', "$method: it follows the primary by its settings");
    is($old->standby_setting('primary_slot_name'), $old->slot_name, "$method: through its own slot");
    is(join(' ', map { "$_=" . $old->standby_setting($_) } qw(recovery_target_action recovery_target_timeline restore_command)),
        'recovery_target_action=pause recovery_target_timeline=latest restore_command=', "$method: nothing of the primary's former life is in force");
    is($old->safe_psql(q{SELECT count(*) FROM pg_file_settings WHERE (name LIKE 'primary\_%' OR name LIKE 'recovery%') AND setting <> ''}), '3',
        "$method: nor in a file") if $included;
    is($old->safe_psql(q{SHOW work_mem}), '7MB', "$method: the node's ALTER SYSTEM is in force");
    isnt($old->safe_psql(q{SHOW maintenance_work_mem}), '33MB', "$method: the primary's is not");
    is(slurp($old->pgdata . "/$_"), $before{$_}, "$method: $_ is the node's own") for 'pg_hba.conf', 'pg_ident.conf', 'server.key';
    is(sprintf('%o', (stat $old->pgdata . '/server.key')[2] & 07777), '600', "$method: which nobody else may read");
    my $conf = slurp($old->pgdata . '/postgresql.conf');
    is(() = $conf =~ /^include_if_exists/mg, $included ? 1 : 0, "$method: postgresql.conf has one include");
    $conf =~ s/^include_if_exists.*\n//mg;
    (my $was = $before{'postgresql.conf'}) =~ s/^include_if_exists.*\n//mg;
    is($conf, $was, "$method: and is the node's own otherwise");
    $old->restart;
    $old->wait_for_streaming($new);
    pass("$method: after a restart it follows as before");
}

done_testing();
