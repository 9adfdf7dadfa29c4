# The SSH user has another name than the servers' user: only the node's row has the
# name, the port and the key. Only a real sshd tells who was let in, and whose home
# "~" on the node is; only a whole job uses all of it. nss_wrapper gives the test's
# account a second name, without root.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 2, extension => 1, auth => 'scram-sha-256',
    conf => { 'follow_primary.passfile' => '/nonexistent/pgpass', 'follow_primary.verify_timeout' => '20s' });
my ($old, $new) = $cluster->nodes;
my $os_user = getpwuid $<;
my $user = 'dba';

# The user's home. The passwords are neither where the cluster has them nor where the
# servers' own user would look.
my $home = scratch_dir("home of $user");
mkdir "$home/.ssh", 0700 or die;
my $key = scratch_dir('keys') . '/of the node';
spew("$home/.ssh/authorized_keys", make_ssh_key($key), 0600);
spew("$home/.pgpass of the node", slurp($cluster->passfile), 0600);
plan(skip_all => 'nss_wrapper is not installed (package libnss-wrapper)') if !$old->host->only_user($user, $home);

$old->safe_psql('CREATE TABLE t AS SELECT generate_series(1, 1000) AS i');
$old->wait_for_catchup($new);
$new->promote;
$old->safe_psql('INSERT INTO t VALUES (7777)');

isnt($old->host->ssh_port, 22, 'sshd has a port of its own');
$new->set_row($old, ssh_key_file => $key, passfile => '~/.pgpass of the node');

# Without the row's user the setting's counts. This sshd lets in neither name, and one
# of them is no account at all.
my $pid = $old->pid;
for my $wrong ([ undef, $os_user, 'the name that the servers run as' ], [ 'nobody_there', 'nobody_there', 'a name that the node does not know' ])
{
    my ($in_row, $name, $what) = @$wrong;
    $new->set_row($old, ssh_user => $in_row);
    my $r = $new->make_follow($old);
    is($r->{sqlstate}, '28000', "$what is refused") or diag($r->{err});
    like($r->{message}, qr/accepts no key of OS user "\Q$os_user\E" for user "\Q$name\E"/, 'the error tells who called, and whom for');
    like($r->{hint}, qr{\Q$key\E\.pub to ~\Q$name\E/\.ssh/authorized_keys}, 'the hint names the key and whose file it belongs into');
    like($r->{hint}, qr/another user than "\Q$name\E": set .*ssh_user/, 'and says what to do if it is another user');
}
is($old->pid, $pid, 'the node has run all the time');

# The right name carries a whole job.
my $log = length $old->host->ssh_log;
$new->set_row($old, ssh_user => $user);
my $r = makes_follow($new, $old, 'the user of the row is let in, and the node follows');
is($new->job('method, state, lost_transactions'),
    'rewind|succeeded|1', 'by a rewind');
my %accepted = map { $_ => 1 } substr($old->host->ssh_log, $log) =~ /Accepted publickey for (\S+)/g;
is(join(' ', keys %accepted), $user, 'every session was that user\'s');
like($old->safe_psql('SHOW primary_conninfo'), qr{passfile='\Q$home\E/\.pgpass of the node'}, 'its home is what ~ in passfile is');
has_rows_of($new, $old, 'rewound');

# The node also gets a copy, whose pg_basebackup takes the password from the same file.
makes_follow($new, $old, 'it gets a copy, too', method => 'basebackup');

# Without a password file in the row, libpq looks for its own in that home; before 15
# it asks the account, not the environment. (The standby's WAL receiver keeps what it
# has in primary_conninfo.)
SKIP:
{
    skip('libpq does not ask HOME', 2) if pg_major() < 15;
    $new->set_row($old, passfile => '');
    $r = $new->make_follow($old, method => 'basebackup');
    ok(!$r->{ok} && $r->{err} =~ /no password supplied/, 'without a name for it, no other password file is read') or diag($r->{err});
    spew("$home/.pgpass", slurp($cluster->passfile), 0600);
    makes_follow($new, $old, 'but ~/.pgpass of that user is', method => 'basebackup');
}

done_testing();
