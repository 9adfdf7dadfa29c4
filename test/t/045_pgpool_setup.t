# pgpool's own pgpool_setup builds the cluster, and our follow_primary_command
# replaces its own. So settings files, slots and PCP password are not made by our
# library. All nodes are "localhost", so the default slot names are equal: of two jobs
# at once the second is refused in time, and rows of the node table are the cure.

use FollowPrimary::Test;

use IO::Socket::INET;

my $bindir = bindir();
my ($setup) = grep { -x } map { "$_/pgpool_setup" } '/usr/sbin', '/usr/bin', split /:/, $ENV{PATH};
plan(skip_all => 'no pgpool_setup') if !defined $setup;
chomp(my $sharedir = run_ok([ "$bindir/pg_config", '--sharedir' ]));
plan(skip_all => 'no extension pgpool_recovery, which pgpool_setup needs: Debian has it in postgresql-XX-pgpool2')
    if !-e "$sharedir/extension/pgpool_recovery.control";
plan(skip_all => 'no ed, which pgpool_setup needs') if !grep { -x "$_/ed" } split /:/, $ENV{PATH};
my ($examples) = grep { -e "$_/pgpool.conf.sample" || -e "$_/pgpool.conf.sample.gz" } '/usr/share/doc/pgpool2/examples', '/usr/share/pgpool2', '/etc/pgpool2';
plan(skip_all => 'no pgpool.conf.sample, which pgpool_setup needs') if !defined $examples || !-e "$examples/pgpool.conf.sample";

# pgpool_setup needs ssh without a password, ports in a row, and a prefix with bin and
# sbin. Its copies pass through /tmp, which every account shares.
my $around = scratch_dir('around');
my $host = FollowPrimary::Host->new(name => 'localhost', address => 'localhost',
    authorized_key => FollowPrimary::Host::make_ssh_key("$around/key"));
$host->ssh_start;
spew("$around/known_hosts", $host->known_hosts_line);
(my $sbin = $setup) =~ s{/[^/]+$}{};
mkdir "$around/$_" for qw(path pgbin prefix tmp sockets);
symlink $sbin, "$around/prefix/$_" for qw(bin sbin);
symlink $_, "$around/pgbin/" . s{.*/}{}r for glob "$bindir/*";
unlink "$around/pgbin/initdb";
my $ssh_port = $host->ssh_port;
spew("$around/pgbin/initdb", "#!/bin/sh\nexec $bindir/initdb \"\$@\" --no-sync\n", 0700);
spew("$around/path/ssh", "#!/bin/sh\nexec /usr/bin/ssh -F /dev/null -p $ssh_port -i $around/key -o UserKnownHostsFile=$around/known_hosts \"\$@\"\n", 0700);
spew("$around/path/cp", <<"END", 0700);
#!/bin/sh
for argument; do
    shift
    case \$argument in /tmp/ | /tmp/postgresql.conf) argument=$around\$argument ;; esac
    set -- "\$@" "\$argument"
done
exec /bin/cp "\$@"
END

my $base;
for (1 .. 100)
{
    $base = free_port();
    last if 4 == grep { IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $base + $_, Listen => 1, ReuseAddr => 1) } 1 .. 4;
}
my $dir = scratch_dir('setup');
my ($code, $out, $err) = run_command([ $setup, '-n', 3, '-s', '-p', $base, '-pg', $base + 2, '--no-stop' ],
    timeout => 120, cwd => $dir, env => {
    PATH => "$around/path:$sbin:$ENV{PATH}", PGBIN => "$around/pgbin", PGSOCKET_DIR => "$around/sockets",
    PGPOOL_INSTALL_DIR => "$around/prefix", PGPOOLDIR => $examples });
is($code, 0, 'pgpool_setup builds its cluster') or diag($out, $err);

my $me = getpwuid($<);
my @node = map { FollowPrimary::Node->new(host => $host, name => "server$_", id => $_, port => $base + 2 + $_,
    pgdata => "$dir/data$_", slot_name => "server$_") } 0 .. 2;
my $cluster = bless { nodes => \@node, passfile => "$dir/none" }, 'FollowPrimary::Cluster';
my $pgpool = FollowPrimary::Pgpool->of_others(cluster => $cluster, dir => $dir, address => 'localhost',
    port => $base, pcp_port => $base + 1, user => $me);
run_ok([ "$bindir/psql", '-XAqtw', '-v', 'ON_ERROR_STOP=1', '-d', "host=localhost port=@{[ $base + 2 ]} user=$me dbname=postgres",
    '-c', 'CREATE ROLE postgres SUPERUSER LOGIN' ]) if $me ne 'postgres';
is($pgpool->nodes, '0:primary:up 1:standby:up 2:standby:up', 'pgpool shows a primary and two standbys');
if ($pgpool->pool_node(0)->{hostname} =~ m{^/})
{
  SKIP: { skip 'before pgpool 4.2, pgpool_setup names its nodes by the folder of their sockets, by which no machine is reached', 1 }
    done_testing();
    exit 0;
}

# The extension, as the README has it, without rows of the node table yet.
for my $node (@node)
{
    append_text($node->pgdata . '/postgresql.conf', <<"END");
follow_primary.ssh_port = $ssh_port
follow_primary.ssh_key_file = '$around/key'
follow_primary.ssh_known_hosts_file = '$around/known_hosts'
wal_keep_size = 256MB
follow_primary.primary_host = 'localhost'
follow_primary.replication_user = '$me'
follow_primary.rewind_user = '$me'
follow_primary.pcp_host = 'localhost'
follow_primary.pcp_port = @{[ $base + 1 ]}
follow_primary.pcp_user = '$me'
follow_primary.pcp_pass_file = '$dir/pcppass'
END
    $node->reload;
}
$node[0]->safe_psql('CREATE EXTENSION follow_primary');
$node[0]->wait_for_catchup($_) for @node[ 1, 2 ];
(my $command = $pgpool->follow_command) =~ s/(?=wait => false)/when_down => \\\$\\\$rejoin\\\$\\\$, /;
append_text("$dir/etc/pgpool.conf", join "\n", "@{[ $pgpool->version >= 4.2 ? 'follow_primary_command' : 'follow_master_command' ]} = '$command'",
    (map { ("health_check_period$_ = 1", "health_check_max_retries$_ = 0") } 0 .. 2), '');
run_ok([ "$sbin/pgpool", '-f', "$dir/etc/pgpool.conf", 'reload' ]);
wait_until('pgpool has read it', sub { return ($pgpool->psql('PGPOOL SHOW health_check_period2'))[1] =~ /^1$/m }, 60);

# 1. Two jobs run at once, and their slots have the same name.
($code, $out, $err) = $pgpool->pcp('pcp_detach_node', '-n', 0);
is($code, 0, 'the primary is detached') or diag($out, $err);
$pgpool->wait_for_primary(1, 60);
my $jobs = q{SELECT string_agg(state || coalesce(' ' || error_code, ''), ', ' ORDER BY state) FROM follow_primary_job};
ok($node[1]->poll_query_until($jobs, 'failed 55006, succeeded', 60), 'of the jobs for the two others, one is refused')
    or diag($node[1]->safe_psql('SELECT * FROM follow_primary_job'));
like($node[1]->safe_psql(q{SELECT error || ' ' || hint FROM follow_primary_job WHERE state = 'failed'}),
    qr/slot.* is in use by node localhost:\d+.* slot_name of its own/s, 'its row says why, and what to do');
my ($refused) = grep { $_->id == $node[1]->safe_psql(q{SELECT node_id FROM follow_primary_job WHERE state = 'failed'}) } @node;
ok($refused->running && $pgpool->pool_node($refused->id)->{status} eq 'down', 'the refused node runs on, and is not attached');
my $plan = $node[1]->make_follow($refused, function => 'follow_primary_plan');
like($plan->{out}, qr/^refuse\|the node's replication slot is in use by node localhost:/, 'the plan says so, too');

# 2. Each node has a slot name in the node table, which tells nodes apart by port.
$node[1]->safe_psql("INSERT INTO follow_primary_node (host, port, node_id, pgdata, slot_name, application_name)
    VALUES ('localhost', @{[ $_->port ]}, @{[ $_->id ]}, '@{[ $_->pgdata ]}', '@{[ $_->slot_name ]}', 'server@{[ $_->id ]}')") for @node;
for my $id (0, 2)
{
    makes_follow($node[1], $node[$id], "node $id follows through a slot of its own");
}
is($pgpool->untruths($node[1]), '', 'all are up, and follow');
is($node[1]->slots, 'server0 server2',
    'no other slot is left on the primary');

# 3. pgpool alone brings all nodes back, also the crashed one: the command says
# rejoin.
$node[1]->kill9;
$pgpool->wait_for_primary(0, 60);
is($pgpool->untruths($node[0]), '', 'all are up again, and follow the new primary') or diag($node[0]->safe_psql('TABLE follow_primary_job'));
is($node[0]->safe_psql('SELECT string_agg(slot_name, \' \' ORDER BY slot_name) FROM pg_replication_slots WHERE active'), 'server1 server2',
    'each through its own slot');
done_testing();
