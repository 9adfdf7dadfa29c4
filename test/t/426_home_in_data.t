# The SSH user's home is the data directory, and the keys are in it. While the data is
# half-changed no server starts there, and sshd, which looks at modes, still lets the
# next job in. Only a real sshd and a real server tell what they refuse.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 2, extension => 1,
    conf => { 'follow_primary.passfile' => '/nonexistent/pgpass' }, auth => 'trust');
my ($node, $primary) = $cluster->nodes;
my $data = $node->pgdata;
my $dir  = $node->host->dir;

# So it is on each server; the cluster's key is let in on both.
for my $server ($node, $primary)
{
    mkdir $server->pgdata . '/.ssh', 0700 or die;
    spew($server->pgdata . '/.ssh/authorized_keys', slurp("$dir/authorized_keys") . '# of ' . $server->name . "\n", 0600);
}
my $keys = slurp("$data/.ssh/authorized_keys");
spew("$dir/sshd_config", slurp("$dir/sshd_config") =~ s/^AuthorizedKeysFile .*$/AuthorizedKeysFile .ssh\/authorized_keys/mr =~ s/^StrictModes no$/StrictModes yes/mr);
plan(skip_all => 'nss_wrapper is not installed (package libnss-wrapper)') if !$node->host->login_shell('/bin/sh', $data);

$node->safe_psql('CREATE TABLE t AS SELECT generate_series(1, 1000) AS i');
$node->wait_for_catchup($primary);
$primary->promote;
$node->safe_psql('INSERT INTO t VALUES (7777)');
$node->stop;
$primary->safe_psql('INSERT INTO t VALUES (1)');

# The power fails when pg_rewind has ended, and nothing came after it.
my $real = bindir();
my $bin = scratch_dir('bin');
my $ended = "$bin/ended";
bindir_with($bin, 'pg_rewind', "'$real/pg_rewind' \"\$@\" || exit\n>'$ended'\nsleep 100\n");
$primary->set_row($node, node_bin_dir => $bin);
my $call = $primary->psql_start($primary->follow_sql($node, when_down => 'rejoin', method => 'rewind'));
wait_until('pg_rewind has ended', sub { -e $ended }, 60);
$node->host->ssh_kill;
isnt($call->wait(60), 0, 'the power fails when pg_rewind has ended: the call fails');
ok(!$node->start(fail_ok => 1), 'no server starts from what it left');
like(slurp("$dir/" . $node->name . '.start.log'), qr/FATAL: .*has invalid permissions/, 'for the mode of the directory');

# sshd takes the key from that directory.
$node->host->ssh_start;
$primary->set_row($node, node_bin_dir => undef);
makes_follow($primary, $node, 'the next call is let in', when_down => 'rejoin');
has_rows_of($primary, $node, 'after that');
is(slurp("$data/.ssh/authorized_keys"), $keys, 'the keys are where they were');
is(sprintf('%o', (stat $data)[2] & 07777), '700', 'and so is the mode');

done_testing();
