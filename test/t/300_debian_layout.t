# Debian's layout, made by its own pg_createcluster: the configuration is in
# /etc/postgresql, the data directory has none, and pg_ctlcluster starts the servers,
# or pg_ctl with the right configuration file. Every method works on running, stopped
# and crashed servers. Only pg_rewind, crash recovery and a start know where they look
# for their configuration. PG_CLUSTER_CONF_ROOT puts a folder of ours in the place of
# /etc/postgresql.

use File::Path qw(remove_tree);
use FollowPrimary::Test;

plan(skip_all => 'pg_createcluster is not installed') if !grep { -x "$_/pg_createcluster" } split /:/, $ENV{PATH};
plan(skip_all => "these programs are not Debian's")
    if !-x '/usr/lib/postgresql/' . pg_major() . '/bin/postgres';

my $etc = $ENV{PG_CLUSTER_CONF_ROOT} = scratch_dir('etc');
my $cluster = FollowPrimary::Cluster->new(nodes => 3, extension => 1, archive => 1,
    node      => sub { return (debian => 1) },
    sshd_conf => "SetEnv PG_CLUSTER_CONF_ROOT=$etc\n",
    conf      => { wal_keep_size => 0, min_wal_size => '32MB', max_wal_size => '32MB', checkpoint_timeout => '1h' });
my ($old, $new, $sibling) = $cluster->nodes;
my $version = pg_major();

# All files below /etc with their contents, but for the line that is ours.
sub etc
{
    my ($node) = @_;
    my $files = run_ok([ 'find', $node->config_dir, '-type', 'f' ]);
    return join '', map {
        my $text = slurp($_);
        $text =~ s/^include_if_exists = .*\n//mg if /postgresql\.conf$/;
        "$_\n$text"
    } sort split /\n/, $files;
}

# The configuration in /etc includes a file in the data directory.
for my $node ($cluster->nodes)
{
    mkdir $node->pgdata . '/mine' or die "mkdir: $!";
    spew($node->pgdata . '/mine/more.conf', "application_name = '" . $node->name . "'\n");
    append_text($node->config_dir . '/postgresql.conf', "include = '" . $node->pgdata . "/mine/more.conf'\n");
}

my %etc = map { $_->name => etc($_) } $cluster->nodes;

sub follows
{
    my ($node, $method, $what) = @_;
    is($new->job('method, state'), "$method|succeeded", "$what: $method");
    has_rows_of($new, $node, $what);
    is($node->safe_psql('SHOW config_file'), $node->config_dir . '/postgresql.conf', "$what: it runs with its own configuration");
    is(etc($node), $etc{ $node->name }, "$what: nothing has changed in /etc");
    my @includes = slurp($node->config_dir . '/postgresql.conf') =~ /^(include_if_exists.*)/mg;
    is("@includes", "include_if_exists = '@{[ $node->pgdata ]}/myrecovery.conf'", "$what: but for one line");
    like(slurp($node->pgdata . '/mine/more.conf'), qr/'@{[ $what eq 'emptied' ? $new->name : $node->name ]}'/, "$what: it has its own file in the data directory");
    ok(!-e $node->pgdata . '/postgresql.conf', "$what: the data directory has no configuration");
    is(join(' ', grep { !m{/lost_wal-} } glob($node->pgdata . '.follow_primary/*')), '', "$what: nothing is left beside it");
    return;
}

# 1. A running sibling: the server tells where its settings are.
$old->safe_psql('CREATE TABLE t AS SELECT generate_series(1, 1000) AS i');
$old->wait_for_catchup($_) for $new, $sibling;
my $pid = $sibling->pid;
# Else the sibling may receive more of it than the server that is promoted.
$old->kill9;
$new->promote;
my $r = makes_follow($new, $sibling, 'the sibling follows');
is($sibling->pid, $pid, 'it was not restarted');
follows($sibling, 'repoint', 'sibling');
$old->start;

# 2. A crashed primary, by pg_ctl. Crash recovery, pg_rewind and the start need the
# settings in /etc; only the archive has the WAL of the fork.
my $segment = $old->safe_psql('SELECT pg_walfile_name(pg_current_wal_lsn())');
if ($version < 15)
{
    note('pg_rewind before 15 cannot use a restore_command in /etc');
}
else
{
    $old->safe_psql('SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active');
    $old->safe_psql('INSERT INTO t SELECT 1000; SELECT pg_switch_wal(); CHECKPOINT') for 1 .. 4;
    $old->poll_query_until("SELECT last_archived_wal > '$segment' FROM pg_stat_archiver");
    $old->safe_psql('CHECKPOINT');
    ok(!-e $old->pgdata . "/pg_wal/$segment", 'the former primary has recycled the WAL of the fork');
}
$old->safe_psql('INSERT INTO t SELECT 7777');
$old->kill9;
makes_follow($new, $old, 'the crashed primary follows', when_down => 'rejoin');
follows($old, 'rewind', 'crashed primary');

# 3. By pg_ctlcluster, as DBAs of Debian use it.
my $name = $old->name;
$new->set_row($old, node_start_command => "pg_ctlcluster $version $name start",
    node_stop_command   => "pg_ctlcluster $version $name stop -m fast",
    node_reload_command => "pg_ctlcluster $version $name reload");
my $log = $old->host->dir . "/$name.ctl.log";
for my $method ('basebackup', 'rewind')
{
    my $size = -s $log // 0;
    makes_follow($new, $old, "$method: pg_ctlcluster stops and starts the node", method => $method);
    follows($old, $method, "$method by pg_ctlcluster");
    cmp_ok(-s $log, '>', $size, "$method: the server writes where pg_ctlcluster lets it");
    like(run_ok([ 'pg_ctlcluster', $version, $name, 'status' ]), qr/server is running/, "$method: pg_ctlcluster knows it");
}

# 4. The node does not start. Then all data is gone, and only a setting in the
# configuration still says which data directory it belongs to.
my $long = scratch_dir('sockets') . '/' . 'x' x 110;
mkdir $long or die;
append_text($old->config_dir . '/postgresql.conf', "unix_socket_directories = '$long'\n");
$r = $new->make_follow($old, method => 'basebackup');
is($r->{sqlstate}, '55000', 'a server that pg_ctlcluster cannot start is an error') or diag($r->{err});
like($r->{detail}, qr/could not create any Unix-domain sockets/, "the server's own words are in the detail");
my $conf = slurp($old->config_dir . '/postgresql.conf');
$conf =~ s/^unix_socket_directories = '\Q$long\E'\n//m;
spew($old->config_dir . '/postgresql.conf', $conf);
remove_tree($old->pgdata, { keep_root => 1 });
remove_tree($old->pgdata . '.follow_primary');
makes_follow($new, $old, 'an emptied data directory is filled', when_down => 'rejoin');
follows($old, 'basebackup', 'emptied');

done_testing();
