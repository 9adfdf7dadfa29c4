# A login that the job, or the node that follows, will need and that is refused, is
# refused before anything is stopped or changed, whatever the method, and with the
# line or the command that lets it in. Passwords, pg_hba.conf and the limits of
# roles are judged by real servers only.

use FollowPrimary::Test;

# The nodes have a password file of their own, not that of this test.
my $passfile = scratch_dir('passwords') . '/pgpass';
my $repl = '*:*:*:repl:repl\:pass\\\\word';
sub passwords { my ($r, $w, $mode) = @_; unlink $passfile; spew($passfile, join("\n", grep { defined } $r, $w) . "\n", $mode // 0600); return }
passwords($repl, '*:*:*:rewind:a secret');
my $cluster = FollowPrimary::Cluster->new(nodes => 3, extension => 1, auth => 'scram-sha-256', superuser => 'admin',
    conninfo => "passfile=$passfile",
    conf => { 'follow_primary.rewind_user' => 'rewind', 'follow_primary.passfile' => $passfile });
my ($old, $new, $sibling) = $cluster->nodes;

$old->safe_psql(<<'END');
SET password_encryption = 'scram-sha-256';
CREATE ROLE rewind LOGIN PASSWORD 'a secret';
GRANT EXECUTE ON FUNCTION pg_ls_dir(text, boolean, boolean), pg_stat_file(text, boolean), pg_read_binary_file(text),
    pg_read_binary_file(text, bigint, bigint, boolean) TO rewind;
GRANT pg_monitor TO rewind;
CREATE TABLE t AS SELECT 1 AS i;
END
$old->wait_for_catchup($_) for $new, $sibling;
$old->refuse_standbys;

# The former primary lives on, apart.
$new->promote;
$new->poll_query_until('SELECT NOT pg_is_in_recovery()');
$old->safe_psql('INSERT INTO t SELECT 1000');
$new->safe_psql('INSERT INTO t SELECT 2');

# The method that each case is tried with, and its node.
my %methods = (repoint => $sibling, rewind => $old, basebackup => $old);

sub each_refused
{
    my ($what, $methods, %expect) = @_;
    for my $method (split ' ', $methods)
    {
        my $node = $methods{$method};
        my %all = %expect;
        $all{$_} = ref $all{$_} eq 'CODE' ? $all{$_}->($node) : $all{$_} for grep { ref $all{$_} eq 'CODE' } keys %all;
        $new->refuses($node, "$method: $what", %all, arguments => { method => $method });
    }
    return;
}

sub with_hba
{
    my ($node, $lines, $do) = @_;
    my $file = $node->pgdata . '/pg_hba.conf';
    my $before = slurp($file);
    spew($file, $lines . $before);
    $node->reload;
    # a reload is not waited for
    $node->poll_query_until("SELECT count(*) > 0 FROM pg_hba_file_rules WHERE auth_method = 'reject'", 't', 10);
    wait_until('it refuses', sub { ($node->psql('SELECT 1', user => 'nobody'))[0] != 0 });
    $do->();
    spew($file, $before);
    $node->reload;
    return;
}

my $all = 'repoint rewind basebackup';
my $address = $new->address;

# 1. The password of the replication role.
(my $wrong = $repl) =~ s/repl:.*/repl:wrong/;
passwords($wrong, '*:*:*:rewind:a secret');
each_refused('a wrong password of the replication role', $all,
    sqlstate => '08006', message => qr/at step (?!verify|copy)/, detail => qr/password authentication failed for user "repl"/,
    hint => qr/password file.*repl/is);
passwords(undef, '*:*:*:rewind:a secret');
each_refused('no password of the replication role', $all,
    sqlstate => '08006', detail => qr/no password supplied/, hint => qr/password file.*repl/is);

# 2. A password file that libpq does not read.
passwords($repl, '*:*:*:rewind:a secret', 0644);
each_refused('a password file that others can read', $all,
    sqlstate => '08006|28000', detail => qr/has group or world access/, hint => qr/chmod 0?600 \Q$passfile\E/);
passwords($repl, '*:*:*:rewind:a secret');

# 3. No line in the primary's pg_hba.conf.
with_hba($new, "host replication repl all reject\n", sub {
    each_refused('the primary has no line for the replication role', $all,
        sqlstate => '08006', message => qr/at step (?!verify|copy)/, detail => qr/pg_hba\.conf rejects replication connection/,
        hint => qr/pg_hba\.conf of this server.*host\s+replication\s+repl\s/is);
});
with_hba($new, "host all rewind all reject\n", sub {
    each_refused('the primary has no line for the rewind role', 'rewind',
        sqlstate => '08006', detail => qr/pg_hba\.conf rejects connection/,
        hint => qr/pg_hba\.conf of this server.*host\s+postgres\s+rewind\s/is);
});

# 4. The roles' own limits.
my @limits = (
    [ "ALTER ROLE repl VALID UNTIL '2001-01-01'", "ALTER ROLE repl VALID UNTIL 'infinity'", 'repl', $all, qr/ALTER ROLE repl VALID UNTIL/ ],
    [ 'ALTER ROLE repl CONNECTION LIMIT 0', 'ALTER ROLE repl CONNECTION LIMIT -1', 'repl', $all, qr/ALTER ROLE repl CONNECTION LIMIT/ ],
    [ 'ALTER ROLE repl CONNECTION LIMIT 1', 'ALTER ROLE repl CONNECTION LIMIT -1', 'repl', 'basebackup', qr/ALTER ROLE repl CONNECTION LIMIT/ ],
    [ 'ALTER ROLE repl NOLOGIN', 'ALTER ROLE repl LOGIN', 'repl', $all, qr/ALTER ROLE repl LOGIN/ ],
    [ 'ALTER ROLE repl NOREPLICATION', 'ALTER ROLE repl REPLICATION', 'repl', $all, qr/ALTER ROLE repl REPLICATION/ ],
    [ 'ALTER ROLE rewind NOLOGIN', 'ALTER ROLE rewind LOGIN', 'rewind', $all, qr/ALTER ROLE rewind LOGIN/ ],
    [ "ALTER ROLE rewind VALID UNTIL '2001-01-01'", "ALTER ROLE rewind VALID UNTIL 'infinity'", 'rewind', 'rewind', qr/ALTER ROLE rewind VALID UNTIL/ ],
    [ 'ALTER ROLE rewind CONNECTION LIMIT 0', 'ALTER ROLE rewind CONNECTION LIMIT -1', 'rewind', 'rewind', qr/ALTER ROLE rewind CONNECTION LIMIT/ ],
);
for my $limit (@limits)
{
    my ($set, $unset, $role, $methods, $hint) = @$limit;
    $new->safe_psql($set);
    each_refused($set, $methods, sqlstate => '08006|28000|53400|42501', message => qr/at step (?!verify|copy)/,
        says => qr/$role|permission denied to start WAL sender/, hint => qr/on this server.*$hint/is);
    $new->safe_psql($unset);
}

# 5. No WAL sender is free.
my $taken = $new->safe_psql('SHOW max_wal_senders') - $new->safe_psql('SELECT count(*) FROM pg_stat_replication');
my @clients = map {
    FollowPrimary::Process->start([ $new->bin('pg_receivewal'), '-D', scratch_dir("receiver$_"), '-w', '-d', $new->connstr(undef, 'repl') =~ s/ dbname=\S+//r ],
        env => { PGPASSFILE => $cluster->passfile })
} 1 .. $taken;
$new->poll_query_until('SELECT count(*) = current_setting($$max_wal_senders$$)::int FROM pg_stat_get_wal_senders() WHERE pid IS NOT NULL');
each_refused('no WAL sender is free', $all, sqlstate => '53400', message => qr/no WAL sender is free on this server/, hint => qr/max_wal_senders/);
$_->stop for @clients;
$new->poll_query_until('SELECT count(*) = 0 FROM pg_stat_get_wal_senders() WHERE pid IS NOT NULL');

# 6. The node's own server refuses us: it is a healthy one, and stays as it is.
for my $node ($sibling, $old)
{
    my @methods = grep { $methods{$_} == $node } split ' ', $all;
    with_hba($node, "local all rewind reject\n", sub {
        for my $method (@methods, 'auto')
        {
            $new->refuses($node, $node->name . " refuses the rewind role, method $method", arguments => { method => $method },
                sqlstate => '28000', message => qr/pg_hba\.conf rejects connection.*"rewind"/s,
                hint => qr/pg_hba\.conf of the node.*local\s+postgres\s+rewind\s/is);
        }
        my $plan = $new->plan_for($node);
        like($plan, qr/^refuse\|/, $node->name . ': the plan says so');
    });
}
with_hba($sibling, "local all rewind scram-sha-256\nlocal all nobody reject\n", sub {
    passwords($repl, '*:*:*:rewind:wrong');
    $new->refuses($sibling, 'the node refuses the password of the rewind role',
        sqlstate => '28000', message => qr/password authentication failed for user "rewind"/, hint => qr/password file.*above all others that match.*rewind/is);
    passwords($repl, '*:*:*:rewind:a secret');
});
# One that is in a rule for another database only is told, too; so is peer, for
# another account.
with_hba($sibling, "local all rewind peer map=nobody\nlocal all nobody reject\n", sub {
    $new->refuses($sibling, 'the node wants another account for the rewind role',
        sqlstate => '28000', message => qr/Peer authentication failed for user "rewind"/, hint => qr/pg_hba\.conf of the node.*local\s+postgres\s+rewind/is);
});
# Its password has expired on this server: the node lets it in until it follows.
my %expired = (sqlstate => '28000', message => qr/at step plan: .*the password of role "rewind" has expired/, hint => qr/on this server: ALTER ROLE rewind VALID UNTIL/);
$new->safe_psql("ALTER ROLE rewind VALID UNTIL '2001-01-01'");
for my $method ('repoint', 'basebackup', 'auto')
{
    my $node = $methods{$method} // $sibling;
    with_hba($node, "local all rewind scram-sha-256\nlocal all nobody reject\n", sub {
        $new->refuses($node, "$method: the node asks for a password that has expired", arguments => { method => $method }, %expired);
    });
}
$new->safe_psql("ALTER ROLE rewind VALID UNTIL 'infinity'");
# All connections of the node are in use.
my @busy;
wait_until('the node lets nobody in any more', sub {
    return 1 if ($sibling->psql('SELECT 1', user => 'repl'))[2] =~ /slots are reserved/;
    push @busy, $sibling->psql_start('SELECT pg_sleep(600)', user => 'repl');
    return 0;
}, 60);
$new->refuses($sibling, 'the node has no connection left', sqlstate => '53300', message => qr/connection slots are reserved/, hint => qr/on the node/i);
$_->stop for @busy;
$sibling->poll_query_until(q{SELECT count(pg_terminate_backend(pid)) = 0 FROM pg_stat_activity WHERE usename = 'repl' AND backend_type = 'client backend'});

# A node that is down cannot be tried; its pg_hba.conf can be read.
my $hba = slurp($old->pgdata . '/pg_hba.conf');
$old->kill9;
spew($old->pgdata . '/pg_hba.conf', "local all rewind reject\n$hba");
my $control = $old->controldata('Latest checkpoint location');
$new->refuses($old, 'the pg_hba.conf of a node that is down', arguments => { when_down => 'rejoin' },
    sqlstate => '28000', hint => qr/pg_hba\.conf of the node.*local\s+postgres\s+rewind/is);
spew($old->pgdata . '/pg_hba.conf', "local all rewind scram-sha-256\n$hba");
$new->safe_psql("ALTER ROLE rewind VALID UNTIL '2001-01-01'");
$new->refuses($old, 'an expired password, which the pg_hba.conf of a node that is down asks for', arguments => { method => 'basebackup', when_down => 'rejoin' },
    sqlstate => '28000', detail => qr/line 1 wants its password, which has expired/, hint => qr/on this server: ALTER ROLE rewind VALID UNTIL/);
spew($old->pgdata . '/pg_hba.conf', $hba);
# Where it lets the role in without one, that is no matter.
my $r = $new->make_follow($sibling);
ok($r->{ok}, 'a password that has expired, and that nobody asks for') or diag($r->{err});
$new->safe_psql("ALTER ROLE rewind VALID UNTIL 'infinity'");

# And with all of it right.
for my $node ($sibling, $old)
{
    my $r = $new->make_follow($node, when_down => 'rejoin');
    ok($r->{ok}, $node->name . ' follows') or diag($r->{err});
}
done_testing();
