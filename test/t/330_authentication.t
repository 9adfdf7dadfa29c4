# A cluster as strict as can be: TLS with sslmode=verify-full, passwords everywhere,
# even on the Unix socket, a superuser of another name, a rewind role with only the
# README's rights, host names in any case, several servers on one host, IPv6, and
# hashed known_hosts. Each connection of a job passes all that: psql's, pg_rewind's,
# pg_basebackup's and the WAL receiver's. Only real connections do.

use FollowPrimary::Test;
use IO::Socket::IP;

plan(skip_all => 'this machine has no ::1') if !IO::Socket::IP->new(LocalHost => '::1', Listen => 1);
plan(skip_all => 'openssl is not installed') if !grep { -x "$_/openssl" } split /:/, $ENV{PATH};

# An authority, and a certificate for both names of this host.
my $tls = scratch_dir('tls');
spew("$tls/names", "subjectAltName=DNS:localhost,IP:::1\n");
run_ok([ 'sh', '-c', <<"END" ]);
cd '$tls' && exec 2>&1 &&
openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=authority -keyout ca.key -out ca.crt -days 30 &&
openssl req -newkey rsa:2048 -nodes -subj /CN=server -keyout server.key -out server.csr &&
openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -extfile names -out server.crt -days 30 &&
chmod 600 server.key
END

# The SSH user's home, where ~/.pgpass is. libpq before 15 does not ask the
# environment for it, and knows no addresses in certificates.
my $home = scratch_dir('home');
my $major = pg_major();
my $tls_options = "sslmode=verify-full sslrootcert=$tls/ca.crt";
my $cluster = FollowPrimary::Cluster->new(
    nodes     => 4,
    addresses => [ 'localhost', 'localhost', '::1', 'localhost' ],
    same_port => 0,
    node      => sub { return $_[0]->name eq 'node3' ? (slot_name => 'at_first') : () },
    superuser => 'admin',
    auth      => 'scram-sha-256',
    conninfo  => $major >= 15 ? $tls_options : "sslmode=verify-ca sslrootcert=$tls/ca.crt",
    sshd_conf => "SetEnv HOME=$home\n",
    conf      => {
        ssl => 'on', ssl_cert_file => "$tls/server.crt", ssl_key_file => "$tls/server.key",
        password_encryption                  => 'scram-sha-256',
        'follow_primary.rewind_user'         => 'rewind',
        'follow_primary.replication_options' => $tls_options,
        'follow_primary.primary_host'        => 'localhost',
        'follow_primary.passfile'            => $major >= 15 ? '' : '~/.pgpass',
        'follow_primary.verify_timeout'      => '20s' },
    hba => <<'END');
local   all         all                scram-sha-256
hostssl all         all  127.0.0.0/8   scram-sha-256
hostssl all         all  ::1/128       scram-sha-256
hostssl replication all  127.0.0.0/8   scram-sha-256
hostssl replication all  ::1/128       scram-sha-256
END
my ($old, $new, $six, $beside) = $cluster->nodes;
# For replication alone: what a WAL receiver looks for, whatever dbname there is.
my ($repl) = slurp($cluster->passfile) =~ /^(.*:repl:.*)$/m;
$repl =~ s/^\*:\*:\*:/*:*:replication:/ or die "no line for repl\n";
spew("$home/.pgpass", "$repl\n*:*:*:rewind:a secret\n", 0600);
run_ok([ 'ssh-keygen', '-q', '-H', '-f', $cluster->known_hosts ]);
unlike(slurp($cluster->known_hosts), qr/localhost|::1/, 'known_hosts tells no names');

# The manual's own lines.
my ($manual) = grep { -e } map { "$_/doc/installation.md" } split /:/, $INC{'FollowPrimary/Test.pm'} =~ s{/?test/lib/.*}{}r || '.';
my ($grants) = slurp($manual) =~ /^(GRANT EXECUTE ON FUNCTION pg_ls_dir.*?TO rewind;\nGRANT pg_monitor TO rewind;)$/ms
    or BAIL_OUT('the manual has no grants for the rewind role');
# In a schema of its own, as many have it.
$old->safe_psql(<<"END");
CREATE ROLE rewind LOGIN PASSWORD 'a secret';
$grants
CREATE SCHEMA dba;
GRANT USAGE ON SCHEMA dba TO rewind;
CREATE EXTENSION follow_primary SCHEMA dba;
ALTER DATABASE postgres SET search_path = dba, public;
CREATE TABLE public.t AS SELECT generate_series(1, 1000) AS i;
END
for my $node ($cluster->nodes)
{
    $old->safe_psql(sprintf q{INSERT INTO follow_primary_node (host, port, pgdata, ssh_port) VALUES ('%s', %d, '%s', %d)},
        $node->address, $node->port, $node->pgdata, $node->host->ssh_port);
}
$new->set(listen_addresses => 'localhost, ::1');
$new->restart;
$old->wait_for_catchup($_) for $new, $six, $beside;
$old->kill9;
$new->promote;

sub follows
{
    my ($node, $method, $what, %arguments) = @_;
    follows_by($new, $node, $method, $what, %arguments);
    is($new->safe_psql('SELECT count(*) FROM pg_stat_replication r LEFT JOIN pg_stat_ssl s USING (pid) WHERE s.ssl IS NOT TRUE'),
        '0', "$what: and streams by TLS");
    return;
}

# 1. A standby that is reached by IPv6, and reaches the primary by it.
my $pid = $six->pid;
follows($six, 'repoint', 'repoint by IPv6', primary_host => '::1');
is($six->pid, $pid, 'repoint by IPv6: by a reload');
is($six->safe_psql('SELECT sender_host, slot_name FROM pg_stat_wal_receiver'), '::1|__1', 'repoint by IPv6: it streams from there');

# 2. Two nodes on one host, whose slots would be of one name.
follows($beside, 'repoint', 'a node on the same host');
$old->start;
my $r = $new->make_follow($old);
is($r->{sqlstate}, '55006', 'a second node on that host is refused') or diag($r->{err});
like($r->{message}, qr/slot.* is in use by node localhost:@{[ $beside->port ]}/i, 'the error names the first');
like($r->{hint}, qr/slot_name of its own/, 'the hint says what to do');
$new->set_row($beside, slot_name => 'beside');
follows($beside, 'repoint', 'the first, with a slot of its own');
is($beside->safe_psql('SELECT slot_name FROM pg_stat_wal_receiver'), 'beside', 'which its row names');

# 3. What cannot work is known before anything is touched.
$new->safe_psql('REVOKE USAGE ON SCHEMA dba FROM rewind');
$pid = $old->pid;
$r = $new->make_follow($old);
is($r->{sqlstate}, '42501', 'a rewind role that cannot see the proof is an error') or diag($r->{err});
like($r->{message}, qr/at step survey: role "rewind" cannot read dba\.follow_primary_step/, 'at once');
like($r->{hint}, qr/GRANT USAGE ON SCHEMA dba TO rewind/, 'the hint says what to do');
$new->safe_psql('GRANT USAGE ON SCHEMA dba TO rewind');

my $needed = 'pg_read_binary_file(text, bigint, bigint, boolean)';
$new->safe_psql("REVOKE EXECUTE ON FUNCTION $needed FROM rewind");
$r = $new->make_follow($old);
is($r->{sqlstate}, '42501', 'a rewind role that may not read files is an error') or diag($r->{err});
like($r->{message}, qr/at step connect: role "rewind" may not run what pg_rewind needs/, 'before the node is stopped');
like($r->{hint}, qr/GRANT EXECUTE ON FUNCTION \Q$needed\E TO rewind/, 'the hint says what to do');
$new->safe_psql("GRANT EXECUTE ON FUNCTION $needed TO rewind");

$r = $new->make_follow($old, primary_host => '127.0.0.1');
is($r->{sqlstate}, '08006', "a name of the primary that its certificate does not have is an error") or diag($r->{err});
like($r->{message}, qr/at step connect/, 'before the node is stopped');
like($r->{detail}, qr/does not match host name "127\.0\.0\.1"/, "with libpq's words");

spew("$home/.pgpass", "$repl\n*:*:*:rewind:wrong\n", 0600);
$r = $new->make_follow($old);
is($r->{sqlstate}, '28000', 'a wrong password is an error') or diag($r->{err});
like($r->{message}, qr/password authentication failed for user "rewind"/, 'with the words of the node, which is asked first');
spew("$home/.pgpass", "$repl\n*:*:*:rewind:a secret\n", 0600);
is($old->pid, $pid, 'the node has run all the time');

# 4. The former primary, on the primary's own host, under its name in capitals.
$old->safe_psql('INSERT INTO t VALUES (7777)');
follows($old, 'rewind', 'rewind', node_host => 'LocalHOST');
is($new->job('lost_transactions'), '1', 'rewind: the lost transaction is counted');
is($old->safe_psql('SELECT slot_name FROM pg_stat_wal_receiver'), 'localhost', 'rewind: its slot is named in small letters');
my $conninfo = $old->safe_psql('SHOW primary_conninfo');
like($conninfo, qr/host=localhost .*sslmode=verify-full sslrootcert=\Q$tls\E/, 'rewind: it connects as it was told');
unlike($conninfo, qr/password=/, 'rewind: with no password in it');

# 5. Copies, by both names.
follows($old, 'basebackup', 'copy', method => 'basebackup', node_host => 'LOCALHOST');
follows($six, 'basebackup', 'copy by IPv6', method => 'basebackup', primary_host => $major >= 15 ? '::1' : 'localhost');

is($new->safe_psql(q{SELECT string_agg(slot_name || active, ' ' ORDER BY slot_name) FROM pg_replication_slots}), '__1true besidetrue localhosttrue',
    'the primary has a slot for each');

done_testing();
