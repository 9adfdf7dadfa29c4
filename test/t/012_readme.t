# The test follows the manual's installation by hand to the letter. It takes the key,
# roles and rights, lines of pg_hba.conf, passwords, settings and rows out of the
# files, and changes only host names, port 22 and the network's addresses. A failover
# then shows that they lack nothing. The other tests have a superuser for
# everything, and settings of their own.

use FollowPrimary::Test;

my $top = $INC{'FollowPrimary/Test.pm'} =~ s{/?test/lib/.*}{}r || '.';
my ($section) = slurp("$top/README.md") =~ /^## Installing on a cluster\n(.*?)^## /ms or BAIL_OUT('the README tells nothing of installing');
$section .= slurp("$top/doc/installation.md");

# The block of code that begins with the text.
sub block
{
    my ($begin, $text) = @_;
    my ($block) = grep { /\A$begin/ } ($text // $section) =~ /^```\w*\n(.*?)^```$/msg or BAIL_OUT("the README has no block that begins with $begin");
    return $block;
}

my $major = pg_major();
plan(skip_all => 'the README is for PostgreSQL 13 and later') if $major < 13;

# SSH. This is the home of the servers' user, and by sshd that of the nodes' user.
my $home = scratch_dir('home');
$ENV{HOME} = $home;
mkdir "$home/.ssh", 0700 or die;
run_ok([ 'sh', '-c', block(libssh2()->{only_rsa} ? 'ssh-keygen -q -t rsa' : 'ssh-keygen -q -t ed25519') =~ s{~}{$home}gr ]);
my ($public) = map { slurp($_) } glob "$home/.ssh/*.pub";
my @hosts = map { FollowPrimary::Host->new(name => $_, authorized_key => $public, sshd_conf => "SetEnv HOME=$home\n") } qw(db1 db2 db3);
$_->ssh_start for @hosts;
for my $host (@hosts)
{
    my $keyscan = block('ssh-keyscan');
    $keyscan =~ s{^(ssh-keyscan) db1 db2 db3 }{"$1 -p @{[ $host->ssh_port ]} @{[ $host->address ]} "}me or BAIL_OUT('ssh-keyscan is called in another way');
    $keyscan =~ s{~}{$home}g;
    run_ok([ 'sh', '-c', ($keyscan =~ /^(.*)$/m)[0] ]);
}

# Only the superuser, as whom these tests connect, is not the README's.
my $port = free_port(map { $_->address } @hosts);
my $hba = block('local  postgres') =~ s{10\.0\.0\.0/24}{127.0.0.0/8}gr;
spew("$home/.pgpass", block('\*:\*:\*:repl') . "*:*:*:postgres:superuser password\n", 0600);
my %conf = map { /^([\w.]+) = (?:'(.*?)'|(\S+))/ ? ($1 => $2 // $3) : () } split /\n/, block('listen_addresses');
is($conf{wal_log_hints}, 'on', 'the settings are read');
delete @conf{qw(listen_addresses follow_primary.pcp_host)};
# The server looks up its user's home by the account, and so does libpq before 15.
@conf{qw(follow_primary.ssh_key_file follow_primary.ssh_known_hosts_file)} = ((glob "$home/.ssh/id_*")[0], "$home/.ssh/known_hosts");
$conf{'follow_primary.passfile'} = "$home/.pgpass" if $major < 15;
my ($old, $new, $sibling) = map { FollowPrimary::Node->new(host => $_, port => $port, passfile => "$home/.pgpass") } @hosts;
sub own_name { my ($node) = @_; return $node->set('follow_primary.primary_host' => $node->address) }

$old->init(auth => 'scram-sha-256', conf => { %conf, password_encryption => 'scram-sha-256' },
    hba => $hba . "local all postgres scram-sha-256\nhost all postgres 127.0.0.0/8 scram-sha-256\n");
own_name($old);
$old->start;

# Roles and extension.
$old->safe_psql(block('CREATE ROLE repl'));
$old->safe_psql('CREATE TABLE t AS SELECT generate_series(1, 1000) AS i');
for my $standby ($new, $sibling)
{
    $standby->init_standby_from($old, slot => 1);
    own_name($standby);
    $standby->start;
}
$_->wait_for_streaming($old) for $new, $sibling;

# The node table.
my $rows = block('INSERT INTO follow_primary_node');
for my $node ($old, $new, $sibling)
{
    my ($name, $pgdata, $address) = ($node->name, $node->pgdata, $node->address);
    $rows =~ s{\('$name', (\d), '[^']*'\)}{('$address', $1, '$pgdata')} or BAIL_OUT("the README has no row for $name");
}
$old->safe_psql($rows);
$old->safe_psql("UPDATE follow_primary_node SET node_id = NULL, port = $port, ssh_port = CASE host "
    . join(' ', map { "WHEN '@{[ $_->address ]}' THEN @{[ $_->ssh_port ]}" } @hosts) . ' END');
$old->wait_for_catchup($_) for $new, $sibling;

# The proof, which is taken from the README as it is.
my $r = $old->try_sql(block('SELECT candidate, node, item'), timeout => 120);
ok($r->{ok}, 'the check and the look at the cluster answer') or diag($r->{err});
unlike($r->{out}, qr/\|error\|/, 'the check finds no error') or diag($r->{out});
is(scalar(() = $r->{out} =~ /\|(?:running|streaming)\|/g), 3, 'three servers are seen, and stream') or diag($r->{out});

# The failover. The caller is the operator of the section on privileges.
my ($grant) = slurp("$top/doc/privileges.md") =~ /^(GRANT EXECUTE ON FUNCTION follow_primary, .*? TO operator;)$/ms or BAIL_OUT('the manual has no grant for an operator');
$old->safe_psql("CREATE ROLE operator; $grant");
$old->wait_for_catchup($_) for $new, $sibling;
$old->kill9;
$new->promote;
$old->start;
$old->safe_psql('INSERT INTO t VALUES (7777)');

sub follows
{
    my ($node, $method, %arguments) = @_;
    my $result = $new->try_sql('SET ROLE operator; ' . $new->follow_sql($node, %arguments), timeout => 300);
    ok($result->{ok}, $node->name . ' follows') or diag($result->{err});
    is($new->job('method, state'), "$method|succeeded", "by a $method");
    has_rows_of($new, $node, $node->name);
    return;
}
follows($sibling, 'repoint');
follows($old, 'rewind');
follows($old, 'basebackup', method => 'basebackup');
is($new->safe_psql('SELECT string_agg(DISTINCT usename, \' \') FROM pg_stat_replication'), 'repl', 'they replicate as the role for it');

done_testing();
