# follow_primary_setup prepares three servers that replicate already, for everything
# that a failover needs; a failover shows that nothing is lacking. Every server has a
# home of its own, by nss_wrapper, with things in it that somebody else put there. Only
# real files, servers and SSH tell whether the program is right about what is missing,
# and whether it leaves alone what is not its own.

use FollowPrimary::Test;
use IPC::Open2;

my ($wrapper) = grep { -e } glob '/usr/lib/*/libnss_wrapper.so';
plan(skip_all => 'nss_wrapper is not installed (package libnss-wrapper)') if !$wrapper;

# The README calls it with the hosts alone.
my $top = $INC{'FollowPrimary/Test.pm'} =~ s{/?test/lib/.*}{}r || '.';
like(slurp("$top/README.md"), qr{^/usr/lib/postgresql/15/bin/follow_primary_setup --unit postgresql\@15-main db1 db2 db3$}m, "the README's command is this one");

my $os_user = getpwuid $<;
my %secret  = (repl => q{it's: a \\ secret}, rewind => 'rewind:secret');

# The test itself connects as the superuser, whose password is in a file of its own.
my $own_passfile = spew(scratch_dir('own') . '/pgpass', "*:*:*:postgres:superuser password\n", 0600);
my @addresses = map { free_address() } 1 .. 3;
my ($ssh_port, $port) = (free_port(@addresses), free_port(@addresses));
my @hosts = map { FollowPrimary::Host->new(name => "db$_", address => $addresses[ $_ - 1 ], ssh_port => $ssh_port) } 1 .. 3;
for my $host (@hosts)
{
    my $home = $host->dir . '/home';
    mkdir $home, 0700 or die;
    my $conf = $host->dir . '/sshd_config';
    spew($conf, slurp($conf) =~ s/^AuthorizedKeysFile .*$/AuthorizedKeysFile .ssh\/authorized_keys/mr);
    $host->login_shell('/bin/sh', $home);
    $host->ssh_start;
}
my @nodes = map { FollowPrimary::Node->new(host => $_, port => $port, passfile => $own_passfile) } @hosts;
my ($primary, $standby, $sibling) = @nodes;

# Runs something in the place of the server: with its home.
sub at
{
    my ($node) = @_;
    my $dir = $node->host->dir;
    return (LD_PRELOAD => $wrapper, NSS_WRAPPER_PASSWD => "$dir/passwd", NSS_WRAPPER_GROUP => "$dir/group", HOME => "$dir/home");
}

sub restart
{
    my ($node) = @_;
    local %ENV = (%ENV, at($node));
    $node->stop;
    $node->start;
    return;
}

# Replication that somebody has set up before, as another role.
my $hba = "# by hand\nlocal all postgres trust\nhost all postgres 127.0.0.0/8 scram-sha-256\nhost replication postgres 127.0.0.0/8 scram-sha-256\n"
    . "host all all 0.0.0.0/0 reject\n";
$primary->init(auth => 'scram-sha-256', checksums => 0, hba => $hba, conf => { shared_preload_libraries => 'libpqwalreceiver', log_statement => 'all', log_min_duration_statement => 0 });
my $conf = $primary->pgdata . '/postgresql.conf';
spew($conf, slurp($conf) =~ s/^wal_log_hints.*\n//mr);
restart($primary);
$primary->safe_psql('CREATE TABLE t AS SELECT generate_series(1, 1000) AS i');
for my $node ($standby, $sibling)
{
    $node->init_standby_from($primary, slot => 1, user => 'postgres');
    restart($node);
}
$_->wait_for_streaming($primary) for $standby, $sibling;

# A copy of the program stands beside a psql that writes down with which arguments and
# environment it is called.
my $bin = bindir_with(scratch_dir('bin'), 'psql', qq(tr '\\0' '\\n' </proc/\$\$/environ >>@{[ scratch_dir('seen') ]}/psql
printf '%s\\n' "\$\@" >>@{[ scratch_dir() ]}/seen/psql
exec @{[ bindir() ]}/psql "\$\@"
));
unlink "$bin/follow_primary_setup";
spew("$bin/follow_primary_setup", slurp(bindir() . '/follow_primary_setup'), 0755);
my $given = spew(scratch_dir('given') . '/passwords', join('', map { "*:*:*:$_:" . $secret{$_} =~ s/([\\:])/\\$1/gr . "\n" } sort keys %secret), 0600);

my $said = '';

sub command
{
    my ($node, @arguments) = @_;
    return [ "$bin/follow_primary_setup", '-h', $node->host->dir, '-p', $port, '-U', 'postgres', @arguments ];
}

# All of them are on this machine, which connects as 127.0.0.1.
sub names
{
    my ($node) = @_;
    return ('--name', $node->address, '--ssh-port', $ssh_port, '--network', '127.0.0.0/8', map { $_->address . '=' . $_->pgdata } @nodes);
}

# Returns the exit code and all that it printed.
sub setup
{
    my ($node, @arguments) = @_;
    my ($code, $out, $err) = run_command(command($node, @arguments), env => { at($node) }, timeout => 120);
    $said .= $out . $err;
    return ($code, $out . $err);
}

# All files that the program could touch, with their permissions, and the roles.
sub state_of
{
    my ($node) = @_;
    my $home = $node->host->dir . '/home';
    return join '', run_ok([ 'sh', '-c', 'find "$0" ! -type d -printf "%p %m %i %l\n" -exec sh -c "cat {}" \; ; find "$0" -type d -printf "%p %m\n"', $home ]),
        (map { slurp($node->pgdata . "/$_") } qw(postgresql.conf pg_hba.conf postgresql.auto.conf)),
        $node->safe_psql('SELECT oid, rolname, rolpassword, rolsuper FROM pg_authid ORDER BY 1'),
        $node->safe_psql('SELECT extname, extversion FROM pg_extension ORDER BY 1');
}

# What it refuses, before anything has changed.
my $before = state_of($primary);
for my $wrong (
    [ 'no terminal, and no --yes', qr/no terminal to ask at/, names($primary) ],
    [ 'another OS user', qr/this is not OS user nobody/, '--yes', '--os-user', 'nobody', names($primary) ],
    [ 'a name that is none of the hosts', qr/none of the names is this server's/, '--yes', '--name', 'db9', @addresses ],
    [ 'a role that is no superuser', qr/cannot be asked|no superuser/, '--yes', '-U', 'pg_monitor', names($primary) ],
    [ 'no server', qr/cannot be asked/, '--yes', '-p', 1, names($primary) ],
    [ 'something that is no key', qr/no public key: nonsense/, '--yes', '--authorize', 'nonsense', names($primary) ],
    [ 'a key that would run a command', qr/no public key: command=/, '--yes', '--authorize', 'command="true" ' . slurp($hosts[0]->dir . '/host_key.pub') =~ s/\n//r ],
    [ 'an unknown option', qr/unknown option --frobnicate/, '--frobnicate', 'yes', names($primary) ])
{
    my ($what, $expected, @arguments) = @$wrong;
    my ($code, $out) = setup($primary, @arguments);
    is($code, 2, "$what: refused");
    like($out, $expected, "$what: is said");
}
is(state_of($primary), $before, 'nothing has changed by that');

# --dry-run shows all of it, and changes nothing.
my ($code, $out) = setup($primary, '--dry-run', '--unit', 'postgresql@15-main', '--pcp-host', 'pool', '--name', $addresses[0], '--ssh-port', $ssh_port, @addresses);
is($code, 1, 'a dry run says that something is missing');
like($out, qr/$_/, "it shows $_") for 'ssh-keygen -q -t', 'SHA256:', 'pgpass: the password of role repl', 'local +"postgres" +"rewind"',
    'host +replication +"repl" +' . quotemeta($addresses[1]) . '/32', qr/shared_preload_libraries = 'libpqwalreceiver,follow_primary'/, 'wal_log_hints = \'on\'',
    'node_stop_command = \'sudo systemctl stop postgresql@15-main\'', 'pcp_host = \'pool\'', 'include_if_exists', 'CREATE ROLE "repl" LOGIN REPLICATION';
like($out, qr/^- restart this server, .*: as root, systemctl restart postgresql\@15-main$/m, 'and the command that restarts the unit');
is(state_of($primary), $before, 'a dry run changes nothing');

# Where an older version is, which has no such function yet.
$primary->safe_psql('CREATE DATABASE older');
$primary->safe_psql(q{CREATE SCHEMA "Its schema"; CREATE EXTENSION follow_primary VERSION '1.0' SCHEMA "Its schema"}, dbname => 'older');
($code, $out) = setup($primary, '--dry-run', '-d', 'older', names($primary));
like($out, qr/ALTER EXTENSION follow_primary UPDATE;\n.*"Its schema"\.follow_primary_check TO rewind;\n(?: +INSERT INTO "Its schema"\.follow_primary_node .*\n){3}/s,
    'it shows what comes after an upgrade') or diag($out);
unlike($out, qr/does not exist/, 'and no error');
$primary->safe_psql('DROP DATABASE older');

# What others have put there.
my %home = map { $_ => $_->host->dir . '/home' } @nodes;
spew("$home{$primary}/.pgpass", "# mine\nelsewhere:*:*:*:x", 0644);
mkdir "$home{$standby}/.ssh", 0777 or die;
chmod 0777, "$home{$standby}/.ssh";
spew("$home{$standby}/.ssh/authorized_keys", 'ssh-ed25519 AAAA somebody', 0600);
mkdir "$home{$sibling}/.ssh", 0700 or die;
symlink '/etc/hostname', "$home{$sibling}/.ssh/authorized_keys" or die;
$_->set(max_worker_processes => 17) for @nodes;

# The changes that it names, with their lines.
sub changes { my ($text) = @_; return join '', grep { !/^follow_primary_check/ } $text =~ /^(\S.*\n(?: {4}.*\n)+)/mg }

# On each server, as it says what is to be done on the others, and in what order.
my %others;
for my $node (@nodes)
{
    my ($would_code, $would) = setup($node, '--dry-run', names($node));
    ($code, $out) = setup($node, '--yes', '--passfile', $given, names($node));
    is($code, 1, $node->name . ': something is left to do') or diag($out);
    is(changes($would), changes($out), 'a dry run shows exactly what is done then');
    is_deeply([ map { /^- (restart .*)$/m } $would ], [ map { /^- (restart .*)$/m } $out ], 'and the restart');
    like(changes($out), qr/^ +GRANT EXECUTE ON FUNCTION public\.follow_primary_check TO rewind;$/m, 'with the statements') if $node == $primary;
    like($out, qr/^- restart this server, the standbys before the primary, for .*shared_preload_libraries/m, 'a restart is');
    push @{ $others{$1} }, $2 while $out =~ /^- on (\S+): \S+follow_primary_setup --authorize '(.*)'$/mg;
}
is(join(' ', map { scalar @{ $others{ $_->address } // [] } } @nodes), '2 2 2', 'each key has to be let in by the two others');
for my $node (@nodes)
{
    ($code, $out) = setup($node, map { ('--authorize', $_) } @{ $others{ $node->address } });
    is($code, $node == $sibling ? 1 : 0, $node->name . ': keys are let in');
}
like($out, qr{authorized_keys belongs to another account than \Q$os_user\E}, 'but not into a file that is not its own') or diag($out);
unlink "$home{$sibling}/.ssh/authorized_keys";
setup($sibling, '--yes', map { ('--authorize', $_) } @{ $others{ $sibling->address } });

is(substr(slurp("$home{$primary}/.pgpass"), 0, 30), "# mine\nelsewhere:*:*:*:x\n*:*:*", 'lines of others stay, and end as lines');
is(sprintf('%o', (stat "$home{$primary}/.pgpass")[2] & 07777), '600', 'passwords are for the account alone');
is(sprintf('%o', (stat "$home{$standby}/.ssh")[2] & 022), '0', 'nobody else may write keys');
like(slurp("$home{$standby}/.ssh/authorized_keys"), qr/\Assh-ed25519 AAAA somebody\n\S+ \S+ .*\n\S+ \S+ .*\n\z/, 'a key of somebody else stays');
like(slurp($primary->pgdata . '/pg_hba.conf'), qr/\A# by hand\nlocal  "postgres"  "rewind".*\Q@{[ $hba =~ s{^# by hand\n}{}r ]}\E\z/s, 'lines of pg_hba.conf come above the others');

# After the restart it is content, and changes nothing more.
restart($_) for $standby, $sibling, $primary;
$_->wait_for_streaming($primary) for $standby, $sibling;
is($sibling->safe_psql('SHOW max_worker_processes'), 17, 'a setting of somebody else stays');
for my $node (@nodes)
{
    my $state = state_of($node);
    ($code, $out) = setup($node, '--yes', names($node));
    is($code, 0, $node->name . ': all is in place') or diag($out);
    like($out, qr/^All is in place\.$/m, 'it is said');
    is($state, state_of($node), 'a second run changes nothing');
}
($code, $out) = setup($primary, '--dry-run', '--pcp-host', 'pool', names($primary));
is($code, 1, 'a pgpool that comes later is something to do');
my ($numbering) = $out =~ /^- on the primary, if pgpool\.conf has these numbers, else with those that it has: (UPDATE .*)$/m;
is($primary->safe_psql("BEGIN; $numbering SELECT string_agg(host || ' ' || node_id, ', ' ORDER BY node_id) FROM follow_primary_node; ROLLBACK"),
    "$addresses[0] 0, $addresses[1] 1, $addresses[2] 2", 'the rows need its numbers, by the statements that it has');
is($primary->safe_psql('SELECT count(*) FROM follow_primary_check(everywhere => true) WHERE status = \'error\''), 0, 'the check finds no error anywhere');
is($primary->safe_psql(q{SELECT string_agg(r.rolname, ' ' ORDER BY r.rolname) FROM pg_roles r WHERE r.rolname IN ('pg_monitor', 'pg_checkpoint') AND pg_has_role('rewind', r.oid, 'MEMBER')}),
    pg_major() < 15 ? 'pg_monitor' : 'pg_checkpoint pg_monitor', 'the rewind role may make the checkpoint of a switchover, where there is such a right');
unlike($said, qr/\.\. /, 'what the check says ends in one full stop');

# Something goes: it is found, and mended. By a person this time, who says no first.
spew("$home{$standby}/.pgpass", '', 0600);
sub at_terminal
{
    my ($answer) = @_;
    local %ENV = (%ENV, at($standby));
    my $line = join ' ', map { quotemeta } @{ command($standby, names($standby)) };
    my $pid = open2(my $from, my $to, 'script', '-qec', $line, '/dev/null');
    my $text = '';
    while (sysread $from, my $part, 4096)
    {
        $text .= $part;
        syswrite $to, "$answer\n" if $text =~ /Do it\? \[y\/N\] \z/;
        syswrite $to, "$secret{$1}\n" if $text =~ /Password of role (\w+): \z/;
    }
    waitpid $pid, 0;
    $said .= $text;
    return ($? >> 8, $text);
}
my $state = state_of($standby);
($code, $out) = at_terminal('n');
is($code, 1, 'who says no has something left to do');
is(state_of($standby), $state, 'and nothing has changed');
($code, $out) = at_terminal('y');
is($code, 0, 'who says yes has not') or diag($out);
is(slurp("$home{$standby}/.pgpass"), slurp($given), 'the passwords are asked for');

# A password that was mistyped here, which the check on this server does not use.
spew("$home{$standby}/.pgpass", slurp($given) =~ s/rewind:/rewind:not /r, 0600);
($code, $out) = setup($standby, '--yes', names($standby));
is($code, 1, 'a wrong password of the rewind role is found');
like($out, qr/^- the role rewind cannot log in here: .*password authentication failed/m, 'it is said');
spew("$home{$standby}/.pgpass", slurp($given), 0600);

# The proof: a failover, with what the program has made.
$primary->kill9;
$standby->promote;
$standby->safe_psql('INSERT INTO t VALUES (7777)');
my $r = $standby->try_sql(q{SELECT node_host, state, method FROM follow_primary_all(when_down => 'rejoin') ORDER BY node_host}, timeout => 300);
is($r->{out}, join("\n", "$addresses[0]|succeeded|rewind", "$addresses[2]|succeeded|repoint"), 'the others follow the new primary') or diag($r->{err});
has_rows_of($standby, $_, $_->name) for $primary, $sibling;
is($standby->safe_psql('SELECT string_agg(DISTINCT usename, \' \') FROM pg_stat_replication'), 'postgres repl', 'by a role that was made');

# Where have the passwords been seen?
my $seen = slurp(scratch_dir() . '/seen/psql');
like($seen, qr/ON_ERROR_STOP/, 'psql was seen');
my %text = ('what it prints' => $said, "psql's arguments and environment" => $seen, map { ('the log of ' . $_->name => $_->log_content) } @nodes);
for my $where (sort keys %text)
{
    unlike($text{$where}, qr/\Q$_\E/, "no password is in $where") for values(%secret), map { s/'/''/gr } values %secret;
}

done_testing();
