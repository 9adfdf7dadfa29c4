# follow_primary_check(): each item is broken once, on real servers, on a standby
# that is the candidate; exactly its row changes, to the status and hint that the
# manual says; mended, all rows are ok again. Nothing smaller would show that an
# item is tried, and not read from a setting that says what it should.

use FollowPrimary::Test;

my $path = scratch_dir('path');
for my $program (map { glob "$_/*" } '/usr/bin', '/bin', '/usr/sbin', '/sbin')
{
    my ($name) = $program =~ m{([^/]+)$};
    symlink $program, "$path/$name" if !-l "$path/$name" && $name ne 'sudo';
}
my $cluster = FollowPrimary::Cluster->new(nodes => 3, extension => 1, checksums => 0,
    sshd_conf => "SetEnv PATH=$path",
    conf => { shared_preload_libraries => 'follow_primary', max_worker_processes => 12, 'follow_primary.connect_timeout' => '5s', 'follow_primary.sibling_slots' => 'off',
        wal_level => 'logical', max_wal_size => '64MB', wal_keep_size => '64MB', checkpoint_timeout => '1h' });
my ($primary, $candidate, $sibling) = $cluster->nodes;
my %name = ('' => '', map { ($_->address . ':' . $_->port => $_->name) } $cluster->nodes);

# The rows by node and item: status, message, hint.
sub check
{
    my %row;
    my $out = $candidate->safe_psql(q{SELECT coalesce(node, ''), item, status, coalesce(message, ''), coalesce(hint, '') FROM follow_primary_check()});
    for my $line (split /\n/, $out)
    {
        my ($node, $item, @rest) = split /\|/, $line, 5;
        $row{"$name{$node} $item" =~ s/^ //r} = \@rest;
    }
    return %row;
}

my %good = check();
my @items = sort keys %good;
is(join(' ', grep { $good{$_}[0] ne 'ok' } @items), '', 'all is well in the beginning') or diag(explain(\%good));
cmp_ok(scalar @items, '>=', 11 + 2 * 19, 'many things are tried');

# Breaks one thing, and mends it. The rows that change: item => [ status, hint ].
sub broken
{
    my ($what, %opt) = @_;
    my %expected = %{ $opt{rows} };
    $opt{break}->();
    my %now = check();
    my @changed = sort grep { !$now{$_} || $now{$_}[0] ne $good{$_}[0] } @items;
    my @added   = grep { !$good{$_} && $_ ne ($opt{added} // '') } sort keys %now;
    my @gone    = grep { !$now{$_} } @changed;
    is(join(', ', grep { $now{$_} } @changed), join(', ', sort keys %expected), "$what: exactly that row changes")
        or diag(explain({ map { $_ => $now{$_} } grep { ($now{$_}[0] // '') ne 'ok' } keys %now }));
    is(join(', ', @added), '', "$what: no row is new");
    like(join(', ', @gone), $opt{gone} // qr/^$/, "$what: rows are only left out if they need it");
    for my $item (sort keys %expected)
    {
        my ($status, $hint, $message) = @{ $expected{$item} };
        is($now{$item}[0], $status, "$what: $item: $status");
        like($now{$item}[2] // '', $hint, "$what: $item: the hint");
        like($now{$item}[1] // '', $message, "$what: $item: the message") if $message;
    }
    $opt{mend}->();
    %now = check();
    is(join(' ', grep { !$now{$_} || $now{$_}[0] ne 'ok' } @items), '', "$what: mended, all is well")
        or diag(explain({ map { $_ => $now{$_} } grep { ($now{$_}[0] // '') ne 'ok' } @items }));
    return;
}

# A setting of a server.
sub setting
{
    my ($node, %settings) = @_;
    my $conf = $node->config_dir . '/postgresql.conf';
    my $before;
    my $restart = delete $settings{restart};
    return (
        break => sub { $before = slurp($conf); $node->set(%settings); $restart ? $node->restart : $node->reload_for_all },
        mend  => sub { spew($conf, $before); $restart ? $node->restart : $node->reload_for_all; settle() });
}

sub settle
{
    my @standbys = grep { $_->running } $candidate, $sibling;
    $_->wait_for_streaming($primary) for @standbys;
    $primary->wait_for_catchup($_) for @standbys;
    return;
}

# A column of the sibling's row.
sub column
{
    my (%value) = @_;
    my %was = map { $_ => $primary->safe_psql("SELECT $_ FROM follow_primary_node WHERE host = '@{[ $sibling->address ]}'") } keys %value;
    my $set = sub {
        my (%to) = @_;
        $primary->safe_psql("UPDATE follow_primary_node SET $_ = " . FollowPrimary::Node::quote($to{$_}) . " WHERE host = '@{[ $sibling->address ]}'") for keys %to;
        settle();
    };
    return (break => sub { $set->(%value) }, mend => sub { $set->(map { $_ => $was{$_} eq '' ? undef : $was{$_} } keys %was) });
}

sub hba
{
    my ($node, $line) = @_;
    my $file = $node->config_dir . '/pg_hba.conf';
    my $before = slurp($file);
    return (
        break => sub { spew($file, "$line\n$before"); $node->reload_for_all },
        mend  => sub { spew($file, $before); $node->reload_for_all });
}

my $me = $sibling->name;
my $rest = qr/^node2 configuration.*node2 wal$/;

#
# This server
#
my $row;
broken('no row for this server', rows => { name => [ 'warning', qr/insert a row for this server/ ] },
    break => sub { $primary->safe_psql("DELETE FROM follow_primary_node WHERE host = '@{[ $candidate->address ]}'"); settle() },
    mend  => sub {
        $primary->safe_psql(sprintf q{INSERT INTO follow_primary_node (host, port, pgdata, ssh_port) VALUES ('%s', %d, '%s', %d)},
            $candidate->address, $candidate->port, $candidate->pgdata, $candidate->host->ssh_port);
        settle();
    });
broken('objects of another version', rows => { extension => [ 'error', qr/ALTER EXTENSION follow_primary UPDATE/ ] },
    break => sub { $primary->safe_psql("UPDATE pg_extension SET extversion = '1.0' WHERE extname = 'follow_primary'"); settle() },
    mend  => sub { $primary->safe_psql("UPDATE pg_extension SET extversion = '1.1' WHERE extname = 'follow_primary'"); settle() });
broken('library not preloaded', rows => { preload => [ 'warning', qr/shared_preload_libraries/ ] },
    setting($candidate, shared_preload_libraries => '', restart => 1));
broken('wal_log_hints off here', rows => { wal_log_hints => [ 'warning', qr/wal_log_hints = on/ ] },
    setting($candidate, wal_log_hints => 'off', restart => 1));
broken('full_page_writes off', rows => { full_page_writes => [ 'warning', qr/full_page_writes = on/ ] },
    setting($candidate, full_page_writes => 'off'));
broken('replication slots used up', rows => { replication_slots => [ 'error', qr/max_replication_slots/ ] },
    break => sub { $candidate->safe_psql(q{SELECT pg_create_physical_replication_slot('other_' || i)
        FROM generate_series(1, current_setting('max_replication_slots')::int - 1) i}) },
    mend => sub { $candidate->safe_psql(q{SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name LIKE 'other%'}) });
broken('nobody can commit', rows => { synchronous_standby_names => [ 'error', qr/names that the other nodes have/ ] },
    setting($candidate, synchronous_standby_names => 'nobody, candidate'));
if (FollowPrimary::Node::pg_major() >= 13)
{
    my %limit = setting($candidate, max_slot_wal_keep_size => '16MB', wal_keep_size => '16MB', max_wal_size => '32MB', min_wal_size => '32MB');
    broken('a slot has lost its WAL', rows => { kept_wal => [ 'warning', qr/max_slot_wal_keep_size/ ] },
        break => sub {
            $candidate->safe_psql(q{SELECT pg_create_physical_replication_slot('lost', true)});
            $limit{break}->();
            $primary->safe_psql('CREATE TABLE filler AS SELECT 1');
            for (1 .. 6) { $primary->safe_psql('INSERT INTO filler SELECT 1; SELECT pg_switch_wal()') }
            $primary->safe_psql('CHECKPOINT');
            settle();
            $candidate->safe_psql('CHECKPOINT');
        },
        mend => sub { $candidate->safe_psql(q{SELECT pg_drop_replication_slot('lost')}); $limit{mend}->() });
}

#
# The sibling
#
my $must_let_in = qr/^Add this line to pg_hba\.conf of this server \(\S+\), .*: host \S+ \S+ 127\.\S+\/32 (?:scram-sha-256|md5)\./;
broken('SSH port closed', rows => { "$me ssh" => [ 'error', qr/sshd|ssh_port/ ] }, gone => $rest,
    break => sub { $sibling->host->ssh_stop }, mend => sub { $sibling->host->ssh_start });
broken('SSH host key unknown', rows => { "$me ssh" => [ 'error', qr/ssh-keyscan|known_hosts/ ] }, gone => $rest,
    break => sub { spew($cluster->known_hosts, join '', map { $_->host->known_hosts_line } $primary, $candidate) },
    mend => sub { $cluster->write_known_hosts });
broken('SSH login refused', rows => { "$me ssh" => [ 'error', qr/authorized_keys/ ] }, gone => $rest, column(ssh_user => 'nobody_there'));
broken('no flock', rows => { map { ("$_ tools" => [ 'error', qr/Install it there/, qr/flock/ ]) } 'node0', $me },
    break => sub { $row = readlink "$path/flock"; unlink "$path/flock" }, mend => sub { symlink $row, "$path/flock" });
my $bin = scratch_dir('bin');
FollowPrimary::Node::bindir_with($bin, 'pg_rewind', 'exit 1');
unlink "$bin/pg_rewind";
broken('no pg_rewind', rows => { "$me programs" => [ 'error', qr/node_bin_dir/, qr/pg_rewind/ ] }, gone => qr/^node2 files$/, column(node_bin_dir => $bin));
broken('no programs', rows => { "$me programs" => [ 'error', qr/node_bin_dir/ ] }, gone => qr/^node2 configuration/, column(node_bin_dir => '/nowhere'));
my $older = FollowPrimary::Node::bindir_with(scratch_dir('older'), 'pg_controldata', <<"END");
[ "\$1" != -V ] || { echo 'pg_controldata (PostgreSQL) @{[ FollowPrimary::Node::pg_major() ]}.0'; exit 0; }
exec '@{[ $sibling->bin('pg_controldata') ]}' "\$@"
END
broken('another minor version', rows => { "$me programs" => [ 'warning', qr/same minor version/ ] }, column(node_bin_dir => $older));
my $elsewhere = scratch_dir('elsewhere');
my $without = FollowPrimary::Node::bindir_with(scratch_dir('without'), 'pg_config', "echo '$elsewhere'\n");
broken('no library', rows => { "$me library" => [ 'error', qr/Install follow_primary 1\.1/ ] }, column(node_bin_dir => $without));
spew("$elsewhere/follow_primary.so", "\0follow_primary library version 0.9\0");
broken('another library', rows => { "$me library" => [ 'error', qr/Install follow_primary 1\.1/, qr/version 0\.9/ ] }, column(node_bin_dir => $without));
broken('a start command that is not there', rows => { "$me service_commands" => [ 'error', qr/node_start_command/ ] },
    column(node_start_command => 'nothing_like_it start %D'));
# The programs and their arguments stand in the line as sudoers has them.
my %sudo = column(node_start_command => 'sudo env A=1 true', node_stop_command => 'sudo -n -u nobody true', node_reload_command => 'sudo -unobody ls a,b');
my $line = join ', ', map { my ($spec, $program, @rest) = @$_; "$spec" . run_ok([ 'sh', '-c', 'printf %s "$(which "$1")"', 'sh', $program ], env => { PATH => $path }) . join '', map { " $_" } @rest }
    [ '(root) NOPASSWD: ', 'env', 'A\\=1', 'true' ], [ '(nobody) NOPASSWD: ', 'true' ], [ '', 'ls', 'a\\,b' ];
my $machine  = 'On the machine ' . $sibling->address . ', as root,';
my $add_line = "\Q$machine run: visudo -f /etc/sudoers.d/follow_primary and add this line: @{[ scalar getpwuid $< ]} ALL=$line\E\$";
broken('no sudo', rows => { "$me service_commands" => [ 'error', qr/^\Q$machine\E install the package sudo\. $add_line/, qr/node_start_command .*no program sudo .*node_reload_command/ ] }, %sudo);
broken('sudo that wants a password', rows => { "$me service_commands" => [ 'error', qr/^$add_line/, qr/node_start_command .*"env A=1 true" .*a password is required; node_stop_command/ ] },
    break => sub { spew("$path/sudo", qq{#!/bin/sh\ncase "\$*" in *' -l -- '*) echo 'a password is required' >&2 ;; esac\nexit 1\n}, 0755); $sudo{break}->() },
    mend => sub { unlink "$path/sudo"; $sudo{mend}->() });
broken('data directory not there', rows => { "$me data_directory" => [ 'error', qr/node_pgdata/ ] }, gone => qr/^node2 configuration/,
    column(pgdata => '/nowhere/data'));
broken('no SQL', rows => { "$me sql" => [ 'error', qr/^Add this line to pg_hba\.conf of the node .*: local / ] }, gone => qr/^node2 files, node2 preload, node2 recovery_target, node2 settings$/,
    hba($sibling, 'local all all reject'));
broken('a lower setting', rows => { "$me settings" => [ 'error', qr/Raise it there/ ], 'node0 settings' => [ 'error', qr/Raise it there/ ] }, gone => qr/^node0 files, node2 files$/,
    setting($candidate, max_connections => 60, restart => 1));
broken('a left-over recovery target', rows => { "$me recovery_target" => [ 'warning', qr/Remove it/, qr/recovery_target_name/ ] },
    setting($sibling, recovery_target_name => 'never', restart => 1)) if FollowPrimary::Node::pg_major() >= 12;
broken('library not preloaded there', rows => { "$me preload" => [ 'warning', qr/shared_preload_libraries/ ] },
    setting($sibling, shared_preload_libraries => '', restart => 1));
broken('a configuration that cannot be written', rows => { "$me configuration" => [ 'error', qr/Let the SSH user write/ ] }, gone => qr/^node2 files$/,
    break => sub { chmod 0400, $sibling->recovery_file; chmod 0500, $sibling->pgdata },
    mend => sub { chmod 0700, $sibling->pgdata; chmod 0600, $sibling->recovery_file });
my $beyond = $sibling->pgdata . '/beyond';
broken('a folder that nobody can empty', rows => { "$me files" => [ 'error', qr/chmod u\+rwx/ ] },
    break => sub { mkdir $beyond, 0500 }, mend => sub { rmdir $beyond });
my $unread = $candidate->pgdata . '/unread';
broken('a file that cannot be read here', rows => { map { ("$_ files" => [ 'error', qr/Run on this server, as root: chown/ ]) } 'node0', $me },
    break => sub { spew($unread, '', 0000) }, mend => sub { unlink $unread });
my $held = $sibling->pgdata . '/.follow_primary_old';
broken('replaced data that a rewind would remove', rows => { "$me files" => [ 'warning', qr/what is in the way/ ] },
    break => sub { mkdir $held }, mend => sub { rmdir $held });
broken('a pg_hba.conf that no server would start with', rows => { "$me files" => [ 'error', qr/Correct it on the node/, qr/pg_hba\.conf/ ] },
    break => sub { append_text($sibling->config_dir . '/pg_hba.conf', "nonsense\n") },
    mend => sub { my $file = $sibling->config_dir . '/pg_hba.conf'; spew($file, slurp($file) =~ s/^nonsense\n//mr) });
broken('no room', rows => { "$me room" => [ 'warning', qr/Make room/ ] },
    break => sub {
        $row = readlink "$path/df";
        unlink "$path/df";
        spew("$path/df", qq{#!/bin/sh\ncase "\$*" in *$me*) '$row' "\$@" | awk 'NR > 1 { \$4 = 10 } { print }' ;; *) exec '$row' "\$@" ;; esac\n}, 0755);
    },
    mend => sub { unlink "$path/df"; symlink $row, "$path/df" });
broken('no replication', rows => { "$me replication" => [ 'error', $must_let_in ], 'node0 replication' => [ 'error', $must_let_in ] },
    hba($candidate, 'host replication repl all reject'));
my %rewinder = column(rewind_user => 'rewinder');
my %no_rewinder = hba($candidate, 'host all rewinder all reject');
$primary->safe_psql('CREATE ROLE rewinder LOGIN; GRANT pg_monitor TO rewinder');
broken('a rewind role that pg_rewind is not enough for', rows => { "$me rewind_role" => [ 'error', qr/GRANT EXECUTE ON FUNCTION pg_ls_dir/ ] }, %rewinder);
$primary->safe_psql('REVOKE pg_monitor FROM rewinder; GRANT pg_read_all_settings TO rewinder');
broken('a rewind role that cannot see the proof', rows => { "$me rewind_role" => [ 'error', qr/GRANT (?:USAGE|pg_monitor)/ ] }, %rewinder);
$primary->safe_psql('ALTER ROLE rewinder SUPERUSER');
broken('a rewind role that is rejected', rows => { "$me rewind_role" => [ 'error', $must_let_in ] },
    break => sub { $no_rewinder{break}->(); $rewinder{break}->() }, mend => sub { $no_rewinder{mend}->(); $rewinder{mend}->() });
broken('a name that leads elsewhere', rows => { map { ("$me $_" => [ 'error', qr/primary_host/, qr/leads to another server/ ]) } qw(replication rewind_role) },
    column(primary_host => $primary->address));
if (pg_major() >= 17)
{
    my $wrong = [ 'error', qr/names the other nodes' slots alone/ ];
    broken('a slot that no node has', rows => { synchronized_standby_slots => $wrong }, setting($candidate, synchronized_standby_slots => 'nobody'));
    broken('the slot of this server itself', rows => { synchronized_standby_slots => $wrong },
        setting($candidate, synchronized_standby_slots => join ', ', map { $_->slot_name } $cluster->nodes));
}
broken('slots that are invalidated', rows => { idle_replication_slot_timeout => [ 'warning', qr/idle_replication_slot_timeout = 0/ ] },
    setting($candidate, idle_replication_slot_timeout => '1d')) if pg_major() >= 18;
if (pg_major() >= 16)
{
    broken('a logical slot of that name', rows => { "$me wal" => [ 'error', qr/another slot_name/, qr/logical/ ] },
        break => sub {
            my $made = $candidate->psql_start(sprintf q{SELECT pg_create_logical_replication_slot('%s', 'pgoutput')}, $sibling->slot_name);
            wait_until('the slot is made', sub { $primary->safe_psql('SELECT pg_log_standby_snapshot()'); !$made->running });
        },
        mend => sub { $candidate->safe_psql(sprintf q{SELECT pg_drop_replication_slot('%s')}, $sibling->slot_name) });
}
broken('nothing keeps WAL', rows => { map { ("$_ wal" => [ 'warning', qr/sibling_slots/ ]) } 'node0', $me },
    setting($candidate, wal_keep_size => 0));
broken('wal_log_hints off on the primary', rows => { 'node0 rewind' => [ 'warning', qr/wal_log_hints = on/ ] },
    setting($primary, wal_log_hints => 'off', restart => 1));

# What all nodes need together, and can only be lowered everywhere.
sub lowered
{
    my ($setting, $value) = @_;
    my %before;
    my $restart = sub { for my $node (@_) { $node->restart; settle() } };
    return (
        break => sub { $before{$_->name} = slurp($_->config_dir . '/postgresql.conf') for $primary, $candidate; $_->set($setting => $value) for $primary, $candidate; $restart->($primary, $candidate) },
        mend => sub { spew($_->config_dir . '/postgresql.conf', $before{$_->name}) for $primary, $candidate; $restart->($candidate, $primary) });
}
$primary->poll_query_until('SELECT count(*) FROM pg_stat_replication', 2);
broken('too few WAL senders', rows => { wal_senders => [ 'error', qr/Raise max_wal_senders/ ] }, lowered(max_wal_senders => 2));
broken('too few workers', rows => { workers => [ 'error', qr/Raise max_worker_processes/ ] }, lowered(max_worker_processes => 5));

# A sibling that is down: another cluster's data in its place.
my $other = FollowPrimary::Node->new(host => $sibling->host, name => 'other');
$other->init;
$sibling->stop;
%good = check();
my $down = delete $good{"$me sql"};
is($down->[0], 'error', 'a node that is down is an error');
like($down->[2], qr/Start it/, 'with a hint');
@items = sort keys %good;
broken('another cluster', rows => { "$me system_identifier" => [ 'error', qr/Correct node_host, node_port or node_pgdata/ ] },
    added => "$me sql", gone => qr/^node2 configuration, node2 files, node2 replication, node2 rewind, node2 rewind_role, node2 room, node2 wal$/, column(pgdata => $other->pgdata));

# While it is away, the WAL that it needs next goes.
my %thrift = setting($candidate, wal_keep_size => 0, max_wal_size => '32MB', min_wal_size => '32MB');
broken('the WAL is gone', rows => { "$me wal" => [ 'error', qr/data would be copied/, qr/is gone from this server/ ], 'node0 wal' => [ 'warning', qr/sibling_slots/ ] },
    added => "$me sql",
    break => sub {
        $thrift{break}->();
        $primary->safe_psql('CREATE TABLE IF NOT EXISTS filler AS SELECT 1');
        for (1 .. 6) { $primary->safe_psql('INSERT INTO filler SELECT 1; SELECT pg_switch_wal()') }
        $primary->safe_psql('CHECKPOINT');
        settle();
        $candidate->safe_psql('CHECKPOINT');
    },
    mend => sub { $thrift{mend}->(); $sibling->start; settle(); $sibling->stop });

# A primary that nobody could follow.
$candidate->stop;
$primary->poll_query_until('SELECT count(*) FROM pg_stat_replication', 0);
$primary->safe_psql('SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots');
$primary->set(wal_level => 'minimal', max_wal_senders => 0);
$primary->restart;
is($primary->safe_psql(q{SELECT status || ': ' || hint FROM follow_primary_check() WHERE item = 'wal_level'}),
    'error: Set wal_level = replica and restart this server.', 'a primary that nobody could follow');

done_testing();
