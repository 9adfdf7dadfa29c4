# A restore_command that the node only inherits, from its postgresql.conf or a file
# that is included there, stays where it is: a copy of it in the recovery file would
# win over the DBA's next change. One that is in the recovery file, or set by ALTER
# SYSTEM, stays there, too. The primary's own, of the time when it was a standby, does
# not come along. Which file wins, the server decides.

use FollowPrimary::Test;

plan(skip_all => 'before PostgreSQL 12 only recovery.conf has it') if FollowPrimary::Node::pg_major() < 12;

my $cluster = FollowPrimary::Cluster->new(nodes => 2, extension => 1, conf => { 'follow_primary.verify_timeout' => '20s' });
my ($old, $new) = $cluster->nodes;
$old->safe_psql('CREATE TABLE t AS SELECT 1 AS i');
my $file = $old->pgdata . '/myrecovery.conf';

# The new primary's time as a standby has left one.
append_text($new->pgdata . '/myrecovery.conf', "restore_command = 'false # of the primary'\narchive_cleanup_command = 'true # of the primary'\n");
$new->restart;
$old->wait_for_catchup($new);
$old->set(restore_command => 'false # inherited');
$old->reload;
$old->kill9;
$new->promote;

my $slot = 'one';
sub changed
{
    my ($what, $where, $set) = @_;
    is($old->safe_psql('SHOW restore_command'), 'false # ' . $where, "$what: it is in force");
    $set->('false # changed');
    $old->restart;
    is($old->safe_psql('SHOW restore_command'), 'false # changed', "$what: and still the DBA's to change");
    $set->('false # ' . $where);
    $old->restart;
    $old->wait_for_streaming($new);
    return;
}

# 1. Inherited, by a node that was no standby yet, and then by one.
sub inherited
{
    my ($value) = @_;
    (my $conf = slurp($old->pgdata . '/postgresql.conf')) =~ s/^restore_command = .*\n//mg;
    spew($old->pgdata . '/postgresql.conf', $conf);
    $old->set(restore_command => $value) if defined $value;
    return;
}
my $first = 1;
for my $method ('rewind', 'repoint', 'basebackup', 'rewind')
{
    if ($method eq 'rewind' && !$first)
    {
        $old->stop;
        unlink $old->pgdata . '/standby.signal', $file;
    }
    my $r = $new->make_follow($old, slot_name => $slot++, when_down => 'rejoin', method => $method eq 'repoint' ? 'auto' : $method);
    ok($r->{ok}, "$method: it follows") or diag($r->{err});
    unlike(slurp($file), qr/restore_command|of the primary/, "$method: the recovery file has none");
    is($old->safe_psql('SHOW archive_cleanup_command'), '', "$method: nor anything of the primary's");
    changed($method, 'inherited', \&inherited);
    $first = 0;
}

# 2. In the recovery file.
inherited(undef);
append_text($file, "restore_command = 'false # in the file'\n");
$old->restart;
for my $method ('repoint', 'rewind', 'basebackup')
{
    my $r = $new->make_follow($old, slot_name => $slot++, method => $method eq 'repoint' ? 'auto' : $method);
    ok($r->{ok}, "$method, in the recovery file: it follows") or diag($r->{err});
    changed("$method, in the recovery file", 'in the file', sub { spew($file, slurp($file) =~ s/^restore_command = .*/restore_command = '$_[0]'/mr) });
}
is(() = slurp($file) =~ /^restore_command/mg, 1, 'it is there once');

# 3. By ALTER SYSTEM.
spew($file, slurp($file) =~ s/^restore_command.*\n//mgr);
$old->safe_psql("ALTER SYSTEM SET restore_command = 'false # by ALTER SYSTEM'");
$old->restart;
for my $method ('repoint', 'rewind', 'basebackup')
{
    my $r = $new->make_follow($old, slot_name => $slot++, method => $method eq 'repoint' ? 'auto' : $method);
    ok($r->{ok}, "$method, ALTER SYSTEM: it follows") or diag($r->{err});
    changed("$method, ALTER SYSTEM", 'by ALTER SYSTEM', sub { $old->safe_psql("ALTER SYSTEM SET restore_command = '$_[0]'") });
}

# 4. What a job is told wins over all of them.
my $r = $new->try_sql("SET follow_primary.restore_command = 'false # of the job'; " . $new->follow_sql($old, slot_name => $slot++));
ok($r->{ok}, 'a job with a restore_command') or diag($r->{err});
like($old->safe_psql('SHOW restore_command'), qr/of the job/, 'its own is in force');

done_testing();
