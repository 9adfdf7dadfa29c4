# The ten usual mistakes of a new cluster. Each is made alone, on real servers: before
# the failover follow_primary_check() on the candidate finds it, with a hint that
# mends it; after the failover the job that meets it says the same within two seconds,
# and has stopped nothing. Only this shows that nobody learns of them at three in the
# morning, and that the check and the jobs speak of the same things.

use FollowPrimary::Test;
use FollowPrimary::Mounts;
use FollowPrimary::Network;

my $filter  = FollowPrimary::Mounts::enter(FollowPrimary::Network::FILTER, network => 1);
my $outside = '127.0.9.9';    # one more address of the candidate: a firewall's rule is for it
my $cluster = FollowPrimary::Cluster->new(nodes => 3, extension => 1,
    conf => { shared_preload_libraries => 'follow_primary', max_worker_processes => 12,
        'follow_primary.rewind_user' => 'rewind', 'follow_primary.connect_timeout' => '3s' },
    hba => <<'END');
local all         postgres              trust
local all         rewind                trust
host  all         postgres 127.0.0.0/8  trust
host  all         rewind   127.0.0.0/8  scram-sha-256
host  replication repl     127.0.0.0/8  scram-sha-256
END
my ($old, $new, $sibling) = $cluster->nodes;
my %password = (repl => 'repl:pass\word', rewind => 'a secret');
append_text($cluster->passfile, "*:*:*:rewind:$password{rewind}\n");
my ($manual) = grep { -e } map { "$_/doc/installation.md" } split /:/, $INC{'FollowPrimary/Test.pm'} =~ s{/?test/lib/.*}{}r || '.';
my ($grants) = slurp($manual) =~ /^(GRANT EXECUTE ON FUNCTION pg_ls_dir.*?TO rewind;\nGRANT pg_monitor TO rewind;)$/ms
    or BAIL_OUT('the manual has no grants for the rewind role');
$old->safe_psql("SET password_encryption = 'scram-sha-256'; CREATE ROLE rewind LOGIN PASSWORD '$password{rewind}'; $grants; CREATE TABLE t AS SELECT 1 AS i");
$new->set(listen_addresses => $new->address . ", $outside");
$new->restart;

# As a job leaves it, or an administrator: the trial of a connection has its own limit.
if (reloads('primary_conninfo'))
{
    my $conninfo = $sibling->safe_psql('SHOW primary_conninfo');
    $sibling->safe_psql('ALTER SYSTEM SET primary_conninfo = ' . FollowPrimary::Node::quote("$conninfo connect_timeout=30"));
    $sibling->reload_for_all;
    $sibling->wait_for_streaming($old);
}

my $pgpool = FollowPrimary::Pgpool->new(cluster => $cluster);
$pgpool->start;
$cluster->set('follow_primary.pcp_host' => $pgpool->address, 'follow_primary.pcp_port' => $pgpool->pcp_port,
    'follow_primary.pcp_user' => $pgpool->pcp_user, 'follow_primary.pcp_pass_file' => $pgpool->pcp_pass_file);
$old->set_row($_, node_id => $_->id) for $cluster->nodes;

# Another cluster, which lets everybody in.
my $stranger = FollowPrimary::Node->new(host => FollowPrimary::Host->new(name => 'stranger', address => free_address()), port => $new->port);
$stranger->init;
$stranger->start;
$stranger->safe_psql("CREATE ROLE $_ SUPERUSER LOGIN") for 'repl', 'rewind';

# The server that takes writes, now.
my $primary = $old;

# After the failover nobody follows yet.
sub standbys_know { $primary->wait_for_catchup($_) for grep { $primary == $old } $new, $sibling; return }

# One mistake: how it is made and mended.
sub file_without
{
    my ($file, $line, $node) = @_;
    my $text = slurp($file);
    return (sub { spew($file, $text =~ s/$line//r, 0600); $node->reload_for_all if $node }, sub { spew($file, $text, 0600); $node->reload_for_all if $node });
}

sub hba_without { my ($node, $line) = @_; return file_without($node->config_dir . '/pg_hba.conf', qr/^$line.*\n/m, $node) }

sub password
{
    my ($role) = @_;
    my $set = sub {
        $primary->safe_psql("SET password_encryption = 'scram-sha-256'; ALTER ROLE $role PASSWORD " . FollowPrimary::Node::quote($_[0]));
        standbys_know();
    };
    return (sub { $set->('another one') }, sub { $set->($password{$role}) });
}

sub row
{
    my ($node, $column, $value, $meanwhile) = @_;
    my $set = sub { $primary->set_row($node, $column => $_[0]); standbys_know() };
    return (sub { $set->($value); $meanwhile->(1) if $meanwhile }, sub { $meanwhile->(0) if $meanwhile; $set->(undef) });
}

my $wrong_pcp = spew(scratch_dir('pcp') . '/pcppass', '*:*:' . $pgpool->pcp_user . ":wrong\n", 0600);
my $no_library = FollowPrimary::Node::bindir_with(scratch_dir('programs'), 'pg_config', "echo /nowhere\n");
my $line = 'Add this line to pg_hba\.conf of';

# what, item, hint, how; node: which shows it after the failover
my @mistakes = (
    { what => 'no key on one host', item => 'ssh', hint => qr/authorized_keys/, node => $sibling,
        how => [ file_without($sibling->host->dir . '/authorized_keys', qr/.*/s) ] },
    { what => 'host key unknown', item => 'ssh', hint => qr/ssh-keyscan/, node => $sibling,
        how => [ file_without($cluster->known_hosts, qr/^\Q@{[ $sibling->host->known_hosts_line ]}\E/m) ] },
    { what => 'wrong password for replication', item => 'replication', hint => qr/Put the password of role "repl" into the password file/, node => $sibling,
        how => [ password('repl') ] },
    { what => 'wrong password for rewinds', item => 'rewind_role', hint => qr/Put the password of role "rewind" into the password file/, node => $old,
        how => [ password('rewind') ] },
    { what => 'no line for replication', item => 'replication', hint => qr{$line this server .*: host replication repl 127\.0\.0\.1/32 }, node => $sibling,
        how => [ hba_without($new, 'host +replication') ] },
    { what => 'no line for rewinds', item => 'rewind_role', hint => qr{$line this server .*: host postgres rewind 127\.0\.0\.1/32 }, node => $old,
        how => [ hba_without($new, 'host +all +rewind') ] },
    { what => 'no line for the local socket', item => 'sql', hint => qr/pg_hba\.conf/, node => $sibling,
        how => [ hba_without($sibling, 'local +all +rewind') ] },
    { what => "another server's name", item => 'replication', hint => qr/leads? to this server alone.*primary_host/, node => $sibling,
        how => [ row($sibling, primary_host => $stranger->address) ] },
    { what => 'wrong PCP password', item => 'pgpool', hint => qr/Compare the password in \Q$wrong_pcp\E of this server .* on pgpool.s machine/, node => $sibling,
        # which leaves no node without a primary: it is said at once, and is the end of the job
        said => qr/NOTICE: .*node \d+ cannot be looked up in pgpool: .*/,
        how => [ sub { $new->set('follow_primary.pcp_pass_file' => $wrong_pcp); $new->reload_for_all },
            sub { $new->set('follow_primary.pcp_pass_file' => $pgpool->pcp_pass_file); $new->reload_for_all } ] },
    { what => 'no library on a standby', item => 'library', hint => qr/Install follow_primary/,
        how => [ row($sibling, node_bin_dir => $no_library) ] });
push @mistakes, { what => 'a port that a firewall drops', item => 'replication', hint => qr/firewall/, node => $sibling, within => 3 + 2,
        said => qr/NOTICE: .*has no answer yet from "\Q$outside\E" port \d+, and waits for 3 s at most: if none comes, a firewall drops it/,
        how => [ row($sibling, primary_host => $outside, sub { $_[0] ? FollowPrimary::Network::lose_address($outside) : FollowPrimary::Network::pass_address($outside) }) ] }
    if $filter;

sub not_ok
{
    my $rows = $new->safe_psql(q{SELECT coalesce(node, '-') || ' ' || item || ' ' || status || ' ' || coalesce(message, '') || '|' || coalesce(hint, '') FROM follow_primary_check() WHERE status <> 'ok'});
    return split /\n/, $rows;
}

standbys_know();
$new->poll_query_until('SELECT count(*) FROM pg_replication_slots', 2) or die "no slots\n";
is(join("\n", not_ok()), '', 'nothing is wrong in the beginning');
for my $mistake (@mistakes)
{
    my ($make, $mend) = @{ $mistake->{how} };
    $make->();
    my $name = ($mistake->{node} // $sibling)->address;
    my @found = not_ok();
    my ($row) = grep { /^\Q$name\E:\d+ $mistake->{item} error / } @found;
    like($row // join("\n", @found), qr/^\S+ $mistake->{item} error .*\|.*$mistake->{hint}/, "$mistake->{what}: the check finds it");
    $mend->();
    is(join("\n", not_ok()), '', "$mistake->{what}: mended");
}

$old->kill9;
$new->promote;
$primary = $new;
$new->safe_psql('CHECKPOINT');
for my $mistake (grep { $_->{node} } @mistakes)
{
    my ($make, $mend) = @{ $mistake->{how} };
    my $node   = $mistake->{node};
    my $server = $sibling->pid;
    $make->();
    my $r = $new->make_follow($node, when_down => 'rejoin');
    is($r->{ok}, 0, "$mistake->{what}: after the failover the job fails");
    like($r->{hint}, qr/$mistake->{hint}/, "$mistake->{what}: with the hint") or diag($r->{err});
    my $took = $new->job('extract(epoch FROM finished_at - started_at)');
    cmp_ok($took, '<', $mistake->{within} // 2, "$mistake->{what}: at once") or diag($r->{err});
    like($r->{err}, $mistake->{said}, "$mistake->{what}: in the beginning") if $mistake->{said};
    is($sibling->pid, $server, "$mistake->{what}: nothing was stopped");
    $mend->();
}
makes_follow($new, $sibling, 'without mistakes the sibling follows');
makes_follow($new, $old, 'and so does the former primary', when_down => 'rejoin');
is($new->job('method'), 'rewind', 'by a rewind');
is(join("\n", not_ok()), '', 'nothing is wrong in the end');

done_testing();
