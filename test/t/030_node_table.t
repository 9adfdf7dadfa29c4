# Every column of follow_primary_node overrides its setting. The settings are all
# wrong: a call that names only the node succeeds by the node's row alone. A column
# that sets a limit is made too tight, and the error names the limit. Only a whole job
# uses all values where they count: in SSH, in a conninfo, in a script's time limit.
# At the end the test shows that a row is checked when it is written.

use FollowPrimary::Test;

# column => true, once it has shown. The prototype lets a match that fails be
# false, not nothing.
my %shown;
sub shows($$@) { my ($ok, $text, @columns) = @_; $shown{$_} = 1 for @columns; return ok($ok, $text) }

my $cluster = FollowPrimary::Cluster->new(nodes => 2, extension => 1, hold => 1, archive => 1, auth => 'scram-sha-256');
my ($old, $new) = $cluster->nodes;
my ($dir, $data) = ($old->host->dir, $old->pgdata);
my $bin = bindir();
$old->safe_psql(q{CREATE ROLE streamer LOGIN REPLICATION PASSWORD 'streamer'; CREATE ROLE asker LOGIN SUPERUSER PASSWORD 'asker';
    CREATE DATABASE apart; CREATE TABLE t AS SELECT generate_series(1, 1000) AS i; DELETE FROM follow_primary_node});
$old->wait_for_catchup($new);
$new->promote;
$old->safe_psql('INSERT INTO t VALUES (7777)');
$old->stop;

# A value for each column; other settings have values that work.
my %wrong = (
    ssh_user => 'nobody_of_this_name', ssh_port => 1, ssh_key_file => '/nonexistent/key',
    ssh_known_hosts_file => '/nonexistent/known_hosts', ssh_host_key_checking => 'strict',
    node_bin_dir => '/nonexistent', node_start_command => 'exit 99', node_stop_command => 'exit 99', node_reload_command => 'exit 99',
    primary_host => 'nowhere.invalid', replication_user => 'nobody', replication_options => 'sslmode=require',
    passfile => '/nonexistent/pgpass', rewind_user => 'nobody', rewind_database => 'nowhere', recovery_file => 'wrong.conf',
    restore_command => 'exit 99', archive_dir => '/nonexistent/archive', keep_old_data => 'until_proven', copy_in_place => 'off',
    connect_timeout => 30, stop_timeout => 300, start_timeout => 300, verify_timeout => 300, progress_timeout => 300,
    pcp_host => 'nowhere.invalid', pcp_port => 1, pcp_user => 'nobody', pcp_pass_file => '/nonexistent/pcppass');
$new->set(map { ("follow_primary.$_" => $wrong{$_}) } keys %wrong);
$new->reload;
my $conf_of_new = slurp($new->pgdata . '/postgresql.conf');

my $pgpass = "$dir/row's pgpass";
spew($pgpass, "*:*:*:streamer:streamer\n*:*:*:asker:asker\n", 0600);
spew("$dir/known_hosts", '');
my %row = (
    host => $old->address, port => $old->port, pgdata => $data, slot_name => 'slot_of_the_row', application_name => 'name of the row',
    config_file => "$data/postgresql.conf",
    ssh_user => scalar getpwuid($<), ssh_port => $old->host->ssh_port, ssh_key_file => $cluster->ssh_key,
    ssh_known_hosts_file => "$dir/known_hosts", ssh_host_key_checking => 'accept-new',
    node_bin_dir => $bin,
    node_start_command => "touch $dir/started; $bin/pg_ctl -D %D -l $dir/start.log -W start",
    node_stop_command => "touch $dir/stopped; $bin/pg_ctl -D %D -m fast stop",
    node_reload_command => "touch $dir/reloaded; $bin/pg_ctl -D %D reload",
    primary_host => $new->address, replication_user => 'streamer', replication_options => 'sslmode=disable keepalives_idle=77',
    passfile => $pgpass, rewind_user => 'asker', rewind_database => 'apart', recovery_file => 'row/standby.conf',
    restore_command => "cp @{[ $cluster->archive_dir ]}/%f %p", archive_dir => '', keep_old_data => 'always');
mkdir "$data/row", 0700;
my @columns = sort keys %row;
my $quoted = join ', ', map { quote($row{$_}) } @columns;
$new->safe_psql("INSERT INTO follow_primary_node (" . join(', ', @columns) . ") VALUES ($quoted)");

# 1. Three jobs by the row alone: a rewind, a repoint, a copy.
sub call { return $new->try_sql("SELECT follow_primary('@{[ $old->address ]}', @{[ $old->port ]}$_[0])") }
my $log = $new->log_size;
my $r = call(q{, when_down => 'rejoin'});
ok($r->{ok}, 'a node follows by what its row says') or diag($r->{err});
shows($new->job('method, state') eq 'rewind|succeeded', 'a server that is down was found, by SSH', qw(pgdata ssh_user ssh_port ssh_key_file node_bin_dir));
shows(slurp("$dir/known_hosts") =~ /(?:ssh|ecdsa)-\S+ AAAA/, 'its host key was taken in', qw(ssh_known_hosts_file ssh_host_key_checking));
shows(-e "$dir/started", 'the start command was run', 'node_start_command');
shows(-e "$data/row/standby.conf" && !-e "$data/wrong.conf", 'the settings are in their file', 'recovery_file');
my %conninfo = $old->safe_psql('SHOW primary_conninfo') =~ /(\w+)=('(?:[^'\\]|\\.)*'|\S+)/g;
shows($conninfo{host} eq $new->address, 'it streams from the host', 'primary_host');
shows($conninfo{user} eq 'streamer', 'as the role', 'replication_user');
shows($conninfo{sslmode} eq 'disable' && $conninfo{keepalives_idle} eq '77', 'with the options', 'replication_options');
shows($conninfo{passfile} eq "'$dir/row\\'s pgpass'", 'and the password file', 'passfile');
shows($conninfo{application_name} eq "'name of the row'", 'under the name', 'application_name');
shows($old->safe_psql('SHOW primary_slot_name') eq 'slot_of_the_row', 'through the slot', 'slot_name');
shows(index($old->safe_psql('SHOW restore_command'), $row{restore_command}) >= 0, 'with the restore_command', 'restore_command');
$new->safe_psql('SELECT pg_switch_wal()');

unlink "$dir/started";
$new->set_row($old, slot_name => 'another_slot', restore_command => '', archive_dir => $cluster->archive_dir);
$log = $old->log_size;
$r = call('');
ok($r->{ok}, 'it is repointed') or diag($r->{err});
shows($new->job('method, state') eq 'repoint|succeeded' && -e "$dir/reloaded", 'the reload command was run', 'node_reload_command');
ok(!-e "$dir/started", 'the start command was not');
shows(index($old->safe_psql('SHOW restore_command'), $cluster->archive_dir) >= 0, 'the restore_command is that of the archive', 'archive_dir');

$r = call(q{, method => 'basebackup'});
ok($r->{ok}, 'it gets a copy') or diag($r->{err});
shows(-e "$dir/stopped", 'the stop command was run', 'node_stop_command');
shows(-d "$data.follow_primary/old-" . $new->job('id'), 'the replaced data is kept', 'keep_old_data');
is($old->safe_psql('SELECT count(*) FROM t'), '1000', 'it has the rows of the primary');

# The servers' logs tell who asked the node, and which server pg_rewind read.
$new->set_row($old, rewind_database => 'apart_from_all');
$r = call(q{, method => 'rewind'});
shows(!$r->{ok} && $r->{err} =~ /database "apart_from_all" does not exist/, 'the database is the one that is connected to', 'rewind_database') or diag($r->{err});
$new->set_row($old, rewind_database => 'apart', rewind_user => 'nobody_there');
$r = call('');
shows(!$r->{ok} && $r->{err} =~ /role "nobody_there"/, 'as the role', 'rewind_user') or diag($r->{err});
$new->set_row($old, rewind_user => 'asker', config_file => $new->pgdata . '/postgresql.conf');
$old->stop;
$r = call(q{, when_down => 'rejoin'});
shows(!$r->{ok} && $r->{err} =~ /\Q@{[ $new->pgdata ]}\E/, 'with the configuration file', 'config_file') or diag($r->{err});
is(slurp($new->pgdata . '/postgresql.conf'), $conf_of_new, "which is another server's, and is left alone");
$new->set_row($old, config_file => undef);
$old->start;
$old->wait_for_streaming($new);

# 2. Each limit is so tight that it is exceeded at once.
sub bites
{
    my ($column, $text, $arguments, %columns) = @_;
    $new->set_row($old, $column => 1, %columns);
    my $from = time;
    my $result = call($arguments);
    my $took = time - $from;
    shows(!$result->{ok} && $result->{err} =~ $text && $took < 30, "$column ends the job", $column)
        or diag("after $took s: $result->{err}");
    $new->set_row($old, $column => undef, map { $_ => $row{$_} } keys %columns);
    return;
}
$old->host->ssh_freeze;
bites('connect_timeout', qr/did not end within 1/, '');
$old->host->ssh_thaw;
bites('stop_timeout', qr/did not stop in time/, q{, method => 'rewind'}, node_stop_command => 'true');
my $slow = bindir_with(scratch_dir('slow'), 'pg_basebackup', "exec sleep 60\n");
bites('progress_timeout', qr/no progress/, q{, method => 'basebackup'}, node_bin_dir => $slow);
$new->set_row($old, slot_name => 'third_slot');
my $let_in;
$new->set_row($old, verify_timeout => 1);
$r = $new->make_follow_held($old, 'slot', sub { $let_in = $new->shut_out('streamer') });
shows(!$r->{ok} && $r->{err} =~ /After 1 seconds/, 'verify_timeout ends the job', 'verify_timeout') or diag($r->{err});
$let_in->();
$new->set_row($old, verify_timeout => undef);
bites('start_timeout', qr/did not start in time/, q{, method => 'rewind'}, node_start_command => 'true');

# 3. pgpool. Another test attaches nodes; here no pgpool is there, and the error says
# so.
my $port = free_port($new->address);
spew("$dir/pcppass", "*:*:somebody:secret\n*:*:operator:secret\n", 0600);
$new->set_row($old, node_id => 3, pcp_host => $new->address, pcp_port => $port, pcp_user => 'stranger', pcp_pass_file => "$dir/pcppass",
    verify_timeout => 2);
$r = call(q{, when_down => 'rejoin'});
shows(!$r->{ok} && $r->{err} =~ m{no password for PCP user "stranger" in file "\Q$dir\E/pcppass"}, 'no password for this user in this file', 'pcp_user', 'pcp_pass_file')
    or diag($r->{err});
$new->set_row($old, pcp_user => 'operator');
$r = call(q{, when_down => 'rejoin'});
shows(!$r->{ok} && $r->{err} =~ /pgpool's control port at "\Q@{[ $new->address ]}\E" port $port/, 'no pgpool at this host and port', 'pcp_host', 'pcp_port')
    or diag($r->{err});
shows($new->job('node_id') eq '3', 'which is asked for this node', 'node_id');
$new->set_row($old, map { $_ => undef } qw(node_id pcp_host pcp_port pcp_user pcp_pass_file verify_timeout));
$r = call('');
ok($r->{ok}, 'without all that it follows') or diag($r->{err});

# 4. Every column was tried, and no wrong value can be written.
my @all = grep { !/^(?:host|port)$/ } split /\n/, $new->safe_psql(
    q{SELECT attname FROM pg_attribute WHERE attrelid = 'follow_primary_node'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY 1});
# 168 and 170 try those.
is(join(' ', grep { !$shown{$_} && !/^copy_/ } @all), '', 'every column has shown its effect');

my %refused = (
    host => 'a b', port => 0, node_id => -1, pgdata => 'relative', config_file => 'relative', slot_name => 'Capital', application_name => 'ö',
    keep_old_data => 'perhaps', ssh_host_key_checking => 'perhaps', primary_host => '-x', pcp_host => 'a b',
    replication_options => 'password=secret', copy_max_rate => 31, copy_compression => 'lzma',
    (map { $_ => "\x07" } qw(ssh_user node_start_command node_stop_command node_reload_command restore_command copy_command)),
    (map { $_ => 'relative' } qw(ssh_key_file ssh_known_hosts_file node_bin_dir passfile archive_dir pcp_pass_file)),
    (map { $_ => '' } qw(replication_user rewind_user rewind_database recovery_file pcp_user)),
    (map { $_ => 0 } qw(ssh_port pcp_port connect_timeout stop_timeout start_timeout verify_timeout progress_timeout)));
my @taken = grep { $new->try_sql("UPDATE follow_primary_node SET $_ = " . quote($refused{$_}))->{sqlstate} ne '23514' } sort keys %refused;
is("@taken", '', 'a value that makes no sense is refused when it is written');
is(join(' ', grep { !defined $refused{$_} && $_ ne 'copy_in_place' } @all), '', 'in every column');

done_testing();
