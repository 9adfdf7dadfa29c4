package FollowPrimary::Node;

# A PostgreSQL server on a host.  PG_CONFIG (default: the one on PATH) says
# which version.
#
#   my $node = FollowPrimary::Node->new(host => $host);
#   $node->init(conf => { shared_buffers => '16MB' });
#   $node->start;
#   my $standby = FollowPrimary::Node->new(host => $other_host);
#   $standby->init_standby_from($node, slot => 1);
#   $standby->start;
#   $node->wait_for_catchup($standby);
#   my $rows = $node->safe_psql('SELECT count(*) FROM t');
#   my ($code, $out, $err) = $node->psql('SELECT 1/0');
#   my $r = $node->try_sql('SELECT 1/0');       # $r->{sqlstate} eq '22012'
#   $node->poll_query_until('SELECT pg_is_in_recovery()', 'f');
#   $node->kill9;                               # a crash

use strict;
use warnings;

use Exporter qw(import);
use File::Path qw(remove_tree);
use FollowPrimary::Scratch qw(run_command run_ok wait_until free_port slurp spew
    process_alive kill_tree);
use Test::More ();
use Time::HiRes ();

our @EXPORT_OK = qw(pg_major reloads quote bindir bindir_with);

my $bindir;

sub bindir
{
    if (!defined $bindir)
    {
        $bindir = run_ok([ $ENV{PG_CONFIG} // 'pg_config', '--bindir' ]);
        chomp $bindir;
    }
    return $bindir;
}

# Fills the folder $dir with PostgreSQL's programs, but makes $tool this script.
sub bindir_with
{
    my ($dir, $tool, $script) = @_;
    for my $program (glob bindir() . '/*')
    {
        my ($name) = $program =~ m{([^/]+)$};
        next if $name eq $tool;
        symlink $program, "$dir/$name" or die "symlink $dir/$name: $!";
    }
    spew("$dir/$tool", "#!/bin/sh\n$script", 0755);
    return $dir;
}

# The major version of the servers: 11 … 18.
my $major;

sub pg_major
{
    if (!defined $major)
    {
        my $text = run_ok([ bindir() . '/postgres', '--version' ]);
        ($major) = $text =~ /(\d+)/ or die "no version in $text";
    }
    return $major;
}

# Options: host; name (host's), port, id (pgpool's node id), pgdata, passfile,
# superuser ("postgres"), password (the superuser's), config_dir (where its
# postgresql.conf, pg_hba.conf and pg_ident.conf are: pgdata), debian (1: made
# by pg_createcluster), slot_name (if not the one that is made of the host).
sub new
{
    my ($class, %opt) = @_;
    my $host = $opt{host} // die "a node needs a host";
    my $self = bless {
        host     => $host,
        name     => $opt{name} // $host->name,
        id       => $opt{id},
        port     => $opt{port} // free_port($host->address),
        passfile => $opt{passfile},
        superuser => $opt{superuser} // 'postgres',
        password  => $opt{password} // 'superuser password',
        debian    => $opt{debian},
        slot_name => $opt{slot_name},
    }, $class;
    $self->{pgdata} = $opt{pgdata} // $host->dir . '/' . ($self->{name} eq $host->name ? 'data' : "$self->{name}-data");
    $self->{log} = $host->dir . "/$self->{name}.log";
    $self->{config_dir} = $opt{config_dir}
        // ($opt{debian} ? "$ENV{PG_CLUSTER_CONF_ROOT}/" . pg_major() . "/$self->{name}" : undef);
    return $self;
}

sub host     { $_[0]{host} }
sub address  { $_[0]{host}->address }
sub name     { $_[0]{name} }
sub id       { $_[0]{id} }
sub port     { $_[0]{port} }
sub pgdata   { $_[0]{pgdata} }
sub config_dir { $_[0]{config_dir} // $_[0]{pgdata} }
sub superuser { $_[0]{superuser} }
sub log_file { $_[0]{log} }
sub bin      { my ($self, $tool) = @_; return bindir() . "/$tool" }

# The slot that follow_primary makes for it by default.
sub slot_name
{
    my ($self) = @_;
    return $self->{slot_name} if defined $self->{slot_name};
    my $slot = lc $self->address;
    $slot =~ s/[^a-z0-9]/_/g;
    return $slot;
}

sub connstr
{
    my ($self, $dbname, $user) = @_;
    $dbname //= 'postgres';
    $user   //= $self->{superuser};
    return "host=@{[ $self->address ]} port=$self->{port} user=$user dbname=$dbname";
}

#
# Making one
#

# Options: checksums (0 | 1, default: the version's), initdb (more arguments,
# as an array), auth (pg_hba's method for connections from other nodes), hba
# (all of pg_hba.conf, as text), conf.
sub init
{
    my ($self, %opt) = @_;
    my $auth = $opt{auth} // 'trust';
    my @checksums =
          !defined $opt{checksums} ? ()
        : $opt{checksums}          ? ('-k')
        : pg_major() >= 18         ? ('--no-data-checksums')
        :                            ();
    my $pwfile = spew($self->host->dir . '/pwfile', "$self->{password}\n");

    my @initdb = ('--no-sync', '-A', $auth, '-U', $self->{superuser}, '-E', 'UTF8',
        '--no-locale', '--pwfile', $pwfile, @checksums, @{ $opt{initdb} // [] });
    if ($self->{debian})
    {
        $self->debian_create(@initdb);
    }
    else
    {
        run_ok([ $self->bin('initdb'), @initdb, '-D', $self->pgdata ], env => $self->_env);
    }
    unlink $pwfile;
    $self->_place_config($self->pgdata) if !$self->{debian};

    spew($self->config_dir . '/pg_hba.conf', $opt{hba} // <<"END");
local all all trust
host all all 127.0.0.0/8 $auth
host replication all 127.0.0.0/8 $auth
END
    $self->append_conf(_settings(
        fsync                 => 'off',
        wal_level             => 'replica',
        max_wal_senders       => 10,
        max_replication_slots => 10,
        hot_standby           => 'on',
        wal_log_hints         => 'on',
        restart_after_crash   => 'on',
        max_connections       => 50,
        shared_buffers        => '16MB',
        wal_keep_size         => '64MB',
        # A killed server leaves no file in /dev/shm then that nobody can find.
        pg_major() >= 14 ? (min_dynamic_shared_memory => '8MB') : (),
        log_min_messages         => 'info',
        log_line_prefix          => '%m [%p] %q%a ',
        log_replication_commands => 'on',
        logging_collector        => 'on',
        log_rotation_age         => 0,
        log_rotation_size        => 0,
        $self->_own_settings));
    $self->set(%{ $opt{conf} }) if $opt{conf};
    return;
}

# A copy of the running $primary that streams from it.  Options: slot (1: its
# slot_name, made when missing; or a name), conninfo (more keys, as text),
# restore_command, user (repl), basebackup (more arguments, as an array).
sub init_standby_from
{
    my ($self, $primary, %opt) = @_;
    my $copy = $self->start_copy_from($primary, %opt);
    my $code = $copy->wait(300);

    die "pg_basebackup of $self->{name} failed\n" . $copy->err if !defined $code || $code != 0;
    $copy->forget;
    $self->finish_copy_from($primary, %opt);
    return;
}

# Its two halves, so that a cluster can copy to all its nodes at once.
sub start_copy_from
{
    my ($self, $primary, %opt) = @_;
    my $user = $opt{user} // 'repl';
    my $slot = $self->_slot_option(%opt);

    if ($self->{debian})
    {
        $self->debian_create('--no-sync', '-A', 'trust');
        remove_tree($self->pgdata);
    }
    $primary->create_slot($slot) if defined $slot;
    return FollowPrimary::Process->start(
        [ $self->bin('pg_basebackup'), '-d', $primary->connstr(undef, $user), '-w',
            '-c', 'fast', '-X', 'stream', '--no-sync', '-D', $self->pgdata,
            @{ $opt{basebackup} // [] } ],
        env => $self->_env);
}

sub finish_copy_from
{
    my ($self, $primary, %opt) = @_;
    $self->_place_config($primary->config_dir);
    $self->set($self->_own_settings);
    $self->follow($primary, %opt);
    return;
}

# Copies the configuration files of a folder into the node's own, if that is not the
# data directory.
sub _place_config
{
    my ($self, $from) = @_;
    my $to = $self->config_dir;
    return if $to eq $self->pgdata;

    mkdir $to;
    for my $file (qw(postgresql.conf pg_hba.conf pg_ident.conf))
    {
        spew("$to/$file", slurp("$from/$file"));
        unlink $self->pgdata . "/$file";
    }
    return;
}

# Lets pg_createcluster make it: configuration below PG_CLUSTER_CONF_ROOT, which
# stands for /etc/postgresql, data elsewhere.
sub debian_create
{
    my ($self, @initdb) = @_;
    run_ok([ 'pg_createcluster', pg_major(), $self->{name}, '-d', $self->pgdata, '-p', $self->{port},
        '--socketdir', $self->host->dir, '-l', $self->host->dir . "/$self->{name}.ctl.log",
        '--', @initdb ]);
    return;
}

# Makes it a standby of $primary as pgpool's procedure does: by myrecovery.conf, which
# postgresql.conf includes in its last line; before 12 by recovery.conf.
sub follow
{
    my ($self, $primary, %opt) = @_;
    my $conninfo = "host=@{[ $primary->address ]} port=@{[ $primary->port ]}"
        . ' user=' . ($opt{user} // 'repl')
        . " application_name=$self->{name}"
        . (defined $self->{passfile} ? " passfile=$self->{passfile}" : '')
        . (defined $opt{conninfo} ? " $opt{conninfo}" : '');
    my $slot = $self->_slot_option(%opt);

    my $old = pg_major() < 12;
    spew($self->recovery_file, _settings(
        $old ? (standby_mode => 'on') : (),
        primary_conninfo         => $conninfo,
        recovery_target_timeline => 'latest',
        defined $opt{restore_command} ? (restore_command => $opt{restore_command}) : (),
        defined $slot ? (primary_slot_name => $slot) : ()));
    return if $old;
    $self->append_conf('');
    spew($self->pgdata . '/standby.signal', '');
    return;
}

# The file that has a standby's settings, and the names of all files that make one.
sub recovery_file { my ($self) = @_; return $self->pgdata . '/' . ($self->standby_files)[0] }
sub standby_files { return pg_major() < 12 ? ('recovery.conf') : ('myrecovery.conf', 'standby.signal') }

# The version since which a reload is enough for a setting of a standby.
my %reloads_since = (recovery_min_apply_delay => 13, primary_conninfo => 13, primary_slot_name => 13, restore_command => 14);

sub reloads { my ($setting) = @_; return pg_major() >= ($reloads_since{$setting} // 99) }

# Writes settings of a standby, by ALTER SYSTEM, before 12 into recovery.conf; undef
# resets. set_standby also puts them in force, by a reload or, where the version needs
# it, a restart.
sub write_standby
{
    my ($self, %settings) = @_;
    for my $name (sort keys %settings)
    {
        my $value = $settings{$name};
        if (pg_major() < 12)
        {
            $value = undef if ($value // '') eq 'current';    # its default
            (my $text = slurp($self->recovery_file)) =~ s/^$name = .*\n//mg;
            spew($self->recovery_file, $text . (defined $value ? _settings($name => $value) : ''));
        }
        else
        {
            $self->safe_psql("ALTER SYSTEM SET $name = " . (defined $value ? "'" . $value =~ s/'/''/gr . "'" : 'DEFAULT'));
        }
    }
    return;
}

sub set_standby
{
    my ($self, %settings) = @_;
    $self->write_standby(%settings);
    return (grep { !reloads($_) } keys %settings) ? $self->restart : $self->reload;
}

# Such a setting as it is in force.
sub standby_setting
{
    my ($self, $name) = @_;
    return $self->safe_psql("SHOW $name") if pg_major() >= 12;
    my ($value) = (-e $self->recovery_file ? slurp($self->recovery_file) : '') =~ /^$name = '(.*)'$/m;
    my %default = (recovery_target_action => 'pause', recovery_target_timeline => 'current', recovery_min_apply_delay => 0);
    return defined $value ? $value =~ s/(['\\])\1/$1/gr : $default{$name} // '';
}

sub _slot_option
{
    my ($self, %opt) = @_;
    return !$opt{slot} ? undef : $opt{slot} eq '1' ? $self->slot_name : $opt{slot};
}

# The settings that differ from node to node.
sub _own_settings
{
    my ($self) = @_;
    return (
        listen_addresses        => $self->address,
        port                    => $self->{port},
        unix_socket_directories => $self->host->dir,
        log_directory           => $self->host->dir,
        log_filename            => "$self->{name}.log",
        cluster_name            => $self->{name},
        $self->config_dir eq $self->pgdata ? () : (
            external_pid_file => $self->host->dir . "/$self->{name}.pid",
            data_directory => $self->pgdata,
            hba_file       => $self->config_dir . '/pg_hba.conf',
            ident_file     => $self->config_dir . '/pg_ident.conf'));
}

sub _settings
{
    my (@pairs) = @_;
    my $text = '';
    while (my ($name, $value) = splice @pairs, 0, 2)
    {
        if ($name eq 'wal_keep_size' && pg_major() < 13)
        {
            ($name, $value) = ('wal_keep_segments', $value =~ /^(\d+)MB$/ ? $1 / 16 : $value);
        }
        $value =~ s/(['\\])/$1$1/g;
        $text .= "$name = '$value'\n";
    }
    return $text;
}

# Appends to postgresql.conf; the include line stays the last one.
sub append_conf
{
    my ($self, $text) = @_;
    my $file    = $self->config_dir . '/postgresql.conf';
    my $include = _settings(include_if_exists =>
        ($self->config_dir eq $self->pgdata ? '' : $self->pgdata . '/') . 'myrecovery.conf');
    my $conf    = slurp($file);

    $text .= "\n" if $text ne '' && $text !~ /\n\z/;
    $conf =~ s/^\Q$include\E//mg;
    spew($file, $conf . $text . (-e $self->pgdata . '/myrecovery.conf' ? $include : ''));
    return;
}

# Sets parameters in postgresql.conf; reload or restart is the caller's.
sub set
{
    my ($self, %settings) = @_;
    $self->append_conf(_settings(map { $_ => $settings{$_} } sort keys %settings));
    return;
}

# Lets the role make no new replication connection, until the sub that it returns is
# called.
sub shut_out
{
    my ($self, $role) = @_;
    my $file = $self->config_dir . '/pg_hba.conf';
    my $hba  = slurp($file);
    spew($file, "host replication $role all reject\n$hba");
    $self->reload;
    return sub { spew($file, $hba); $self->reload };
}

sub create_slot
{
    my ($self, $slot) = @_;
    $self->safe_psql("SELECT pg_create_physical_replication_slot('$slot', true)
        WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = '$slot')");
    return;
}

#
# Running it
#

sub _env
{
    my ($self) = @_;
    return { defined $self->{passfile} ? (PGPASSFILE => $self->{passfile}) : () };
}

sub _pg_ctl
{
    my ($self, @arguments) = @_;
    my $dir = $self->pgdata;

    # pg_ctl pastes the name into a shell command.
    my $plain = $dir !~ /["\$`\\]/;
    if ($self->config_dir ne $dir && $arguments[-1] eq 'start')
    {
        # As Debian does it, or by the folder whose settings name data_directory.
        if ($self->{debian}) { unshift @arguments, '-o', "-c config_file='@{[ $self->config_dir ]}/postgresql.conf'" }
        else { $dir = $self->config_dir }
    }
    return run_command([ $self->bin('pg_ctl'), '-w', '-t', 60, '-D', $plain ? $dir : '.', @arguments ],
        timeout => 90, $plain ? () : (cwd => $dir));
}

# With fail_ok => 1 returns false when it does not start, else it dies then.
sub start
{
    my ($self, %opt) = @_;
    return $self->_start_in_valgrind if $ENV{FOLLOW_PRIMARY_VALGRIND};
    my ($code, $out, $err) = $self->_pg_ctl('-l', $self->host->dir . "/$self->{name}.start.log", 'start');
    return 1 if $code == 0;
    return 0 if $opt{fail_ok};
    die "$self->{name} does not start\n$out$err" . $self->log_tail(20);
}

# For test/memory/run: valgrind writes what it finds in each process into a file in
# the folder that FOLLOW_PRIMARY_VALGRIND names.
sub _start_in_valgrind
{
    my ($self) = @_;
    FollowPrimary::Process->start(
        [ 'valgrind', '--quiet', '--leak-check=full', '--show-leak-kinds=definite', '--num-callers=30',
            '--run-libc-freeres=no',
            "--log-file=$ENV{FOLLOW_PRIMARY_VALGRIND}/%p.log", $self->bin('postgres'), '-D', $self->pgdata ],
        out => $self->host->dir . "/$self->{name}.start.log");
    wait_until("$self->{name} answers", sub { ($self->psql('SELECT 1'))[0] == 0 }, 120);
    return 1;
}

# Modes: fast, smart, immediate.
sub stop
{
    my ($self, $mode, %opt) = @_;
    return 1 if !defined $self->pid;
    my ($code, $out, $err) = $self->_pg_ctl('-m', $mode // 'fast', 'stop');
    return 1 if $code == 0;
    return 0 if $opt{fail_ok};
    die "$self->{name} does not stop\n$out$err" . $self->log_tail(20);
}

sub restart { my ($self, %opt) = @_; $self->stop('fast'); return $self->start(%opt) }

sub reload
{
    my ($self) = @_;
    my ($code, $out, $err) = $self->_pg_ctl('reload');
    die "$self->{name} does not reload\n$out$err" if $code != 0;
    return;
}

# The same, and waits until sessions that begin from now on have the new settings.
sub reload_for_all
{
    my ($self) = @_;
    my $when = $self->safe_psql('SELECT pg_conf_load_time()');
    $self->reload;
    $self->poll_query_until("SELECT pg_conf_load_time() > '$when'") or die "no reload\n";
    return;
}

# From now on nobody streams from it: it can live on apart while another one is
# promoted, and its standbys have nothing of what it writes then.
sub refuse_standbys
{
    my ($self) = @_;
    my $hba = $self->config_dir . '/pg_hba.conf';
    spew($hba, "host replication all all reject\n" . slurp($hba));
    $self->reload;
    $self->poll_query_until('SELECT count(pg_terminate_backend(pid)) = 0 FROM pg_stat_replication');
    return;
}

# Returns when the server takes writes, which is before its checkpoint has ended.
sub promote
{
    my ($self) = @_;
    my ($code, $out, $err) = $self->_pg_ctl('promote');
    die "$self->{name} is not promoted\n$out$err" . $self->log_tail(20) if $code != 0;
    return;
}

# A crash: the postmaster and all its children are killed at one moment.
# Returns when they are gone.
sub kill9
{
    my ($self) = @_;
    my $pid = $self->pid // return;
    kill_tree($pid);
    # Another process may get that pid, and PostgreSQL would take it for a server.
    unlink $self->host->dir . '/.s.PGSQL.' . $self->port . '.lock';
    return;
}

# The postmaster's pid while it runs, whoever started it.
sub pid
{
    my ($self) = @_;
    my $text = eval { slurp($self->pgdata . '/postmaster.pid') } // return;
    my ($pid) = $text =~ /\A(\d+)\n/ or return;
    my $cwd = readlink("/proc/$pid/cwd") // return;
    my ($here) = map { (stat $_)[1] // 0 } $self->pgdata;
    my ($there) = map { (stat $_)[1] // -1 } $cwd;
    return process_alive($pid) && $here == $there ? $pid : undef;
}

sub running { return defined $_[0]->pid }

#
# Asking it
#

# Returns (exit code, stdout, stderr).  Code 3: the SQL failed, 2: no
# connection.  Options: dbname, user, timeout (180 s), host, port, variables
# (psql's, a hash), keep_going (past an error).
sub psql
{
    my ($self, $sql, %opt) = @_;
    return run_command($self->_psql_command(%opt),
        in => "$sql\n", timeout => $opt{timeout} // 180, env => $self->_env);
}

# The same beside the test: a FollowPrimary::Process.
sub psql_start
{
    my ($self, $sql, %opt) = @_;
    return FollowPrimary::Process->start($self->_psql_command(%opt), in => "$sql\n", env => $self->_env);
}

sub _psql_command
{
    my ($self, %opt) = @_;
    my %variable = (ON_ERROR_STOP => $opt{keep_going} ? 0 : 1, %{ $opt{variables} // {} });
    return [ $self->bin('psql'), '-XAtqw',
        (map { ('-v', "$_=$variable{$_}") } sort keys %variable),
        '-d', $self->connstr($opt{dbname}, $opt{user}), '-f', '-' ];
}

# Returns stdout without its last newline; dies when the SQL fails.
sub safe_psql
{
    my ($self, $sql, %opt) = @_;
    my ($code, $out, $err) = $self->psql($sql, %opt);
    die "psql exit code $code on $self->{name}: $sql\n$err" if $code != 0;
    chomp $out;
    return $out;
}

# Returns a hash: ok, code, out, err, and of the error its sqlstate, message,
# detail and hint ('' when there is none).
sub try_sql
{
    my ($self, $sql, %opt) = @_;
    $opt{variables}{VERBOSITY} = 'verbose';
    my ($code, $out, $err) = $self->psql($sql, %opt);
    return result($code, $out, $err);
}

sub result
{
    my ($code, $out, $err) = @_;
    chomp $out;
    my %r = (ok => $code == 0 ? 1 : 0, code => $code, out => $out, err => $err,
        sqlstate => '', message => '', detail => '', hint => '');
    if ($err =~ /^(?:psql:[^\n]*?: )?(?:ERROR|FEHLER|FATAL|PANIC):  (\w{5}): (.*)/ms)
    {
        $r{sqlstate} = $1;
        my $rest = $2;
        my $label = qr/^(?:DETAIL|HINT|TIPP|CONTEXT|LOCATION|LINE \d+|STATEMENT|QUERY|WARNING|NOTICE|psql:)/m;
        ($r{message}) = $rest =~ /\A(.*?)(?=\n$label|\n*\z)/s;
        ($r{detail}) = $rest =~ /^DETAIL:  (.*?)(?=\n$label|\n*\z)/ms ? $1 : '';
        ($r{hint})   = $rest =~ /^(?:HINT|TIPP):  (.*?)(?=\n$label|\n*\z)/ms   ? $1 : '';
    }
    return \%r;
}

# SELECT follow_primary(...) for $node on this server, as try_sql.  Arguments
# are named ones of the function, text or number or undef (NULL); node_host and
# node_port are filled in.  function => 'follow_primary_plan' asks for the plan.
sub follow_sql
{
    my ($self, $node, %arguments) = @_;
    my $function = delete $arguments{function} // 'follow_primary';
    my %all = (node_host => $node->address, node_port => $node->port, %arguments);
    return ($function eq 'follow_primary' ? 'SELECT ' : 'SELECT * FROM ') . "$function("
        . join(', ', map { "$_ => " . quote($all{$_}) } sort keys %all) . ')';
}

sub make_follow
{
    my ($self, $node, %arguments) = @_;
    return $self->try_sql($self->follow_sql($node, %arguments), timeout => 300);
}

# What follow_primary_plan says, as psql prints it; arguments as for follow_sql.
sub plan_for
{
    my ($self, $node, %arguments) = @_;
    return $self->safe_psql($self->follow_sql($node, function => 'follow_primary_plan', %arguments));
}

# Sets columns of the node's row in follow_primary_node; undef is NULL.
sub set_row
{
    my ($self, $node, %column) = @_;
    $self->safe_psql('UPDATE follow_primary_node SET ' . join(', ', map { "$_ = " . quote($column{$_}) } sort keys %column)
        . " WHERE (host, port) = ('@{[ $node->address ]}', @{[ $node->port ]})");
    return;
}

#
# What its jobs did
#

# Columns of the newest job's row, as psql prints them.  Options: id (that job's),
# node (that of the node's newest job), and psql's.
sub job
{
    my ($self, $columns, %opt) = @_;
    my ($id, $node) = delete @opt{qw(id node)};
    my $which =
          defined $id ? "id = $id"
        : $node       ? "(node_host, node_port) = ('@{[ $node->address ]}', @{[ $node->port ]})"
        :               'true';
    return $self->safe_psql("SELECT $columns FROM follow_primary_job WHERE $which ORDER BY id DESC LIMIT 1", %opt);
}

# Columns (default: detail) of that step of the newest job, or of job => its id.
sub step
{
    my ($self, $step, $columns, %opt) = @_;
    $columns //= 'detail';
    my $job = $opt{job} // '(SELECT max(id) FROM follow_primary_job)';
    return $self->safe_psql("SELECT $columns FROM follow_primary_step WHERE job_id = $job AND step = '$step' ORDER BY seq DESC LIMIT 1");
}

# The names of all its steps, in order; also with job => id.
sub steps
{
    my ($self, %opt) = @_;
    my $job = $opt{job} // '(SELECT max(id) FROM follow_primary_job)';
    return $self->safe_psql("SELECT string_agg(step, ' ' ORDER BY seq) FROM follow_primary_step WHERE job_id = $job");
}

# The names of this server's slots, in order.
sub slots { return $_[0]->safe_psql(q{SELECT string_agg(slot_name, ' ' ORDER BY slot_name) FROM pg_replication_slots}) }

# How many commits there are in a folder of WAL that a job saved.
sub commits_in
{
    my ($self, $dir, $timeline, $start) = @_;
    my (undef, $dump) = run_command([ $self->bin('pg_waldump'), '-p', $dir, '-t', $timeline, '-s', $start ]);
    return scalar(() = $dump =~ /^rmgr: Transaction .* desc: COMMIT/mg);
}

# What a refusal must not have changed: the server's process, its settings and
# the time of its last checkpoint; what is beside its data, and the slots of the
# server that refuses.
sub _untouched_by
{
    my ($self, $primary) = @_;
    my @files = glob($self->config_dir . '/*.conf');
    return {
        process  => scalar $self->pid,
        settings => join('', map { my $file = $_; "$file\n" . (eval { slurp($file) } // 'unreadable') } sort @files),
        control  => join(' ', @{ { $self->controldata } }{ 'Database cluster state', 'Latest checkpoint location' }),
        beside   => join(' ', sort glob($self->pgdata . '.follow_primary*')),
        slots    => $primary->slots,
    };
}

# Asserts that the node is refused within $opt{within} seconds (10) with the
# expected sqlstate, and message, detail, says (message or detail) and hint that match, and
# that nothing has changed. The message names the node. arguments are follow_primary's.
sub refuses
{
    my ($self, $node, $what, %opt) = @_;
    my $before = $node->_untouched_by($self);
    my $start  = Time::HiRes::time();
    my $r      = $self->make_follow($node, %{ $opt{arguments} // {} });
    my $took   = Time::HiRes::time() - $start;
    my $name   = $node->address . ':' . $node->port;

    $r->{says} = "$r->{message}\n$r->{detail}";
    return Test::More::subtest($what => sub {
        Test::More::like($r->{sqlstate}, qr/^(?:$opt{sqlstate})\z/, 'the SQLSTATE');
        Test::More::like($r->{message}, qr/\Q$name\E/, 'the message names the node');
        Test::More::like($r->{$_}, $opt{$_}, "the $_ tells") for grep { $opt{$_} } qw(message detail says hint);
        Test::More::cmp_ok($took, '<', $opt{within} // 10, 'it is said soon');
        Test::More::is_deeply($node->_untouched_by($self), $before, 'nothing has changed, and nothing is left');
    }) || Test::More::diag($r->{err});
}

#
# Holding its jobs
#

# Holds every job of this server before it begins the step, until release_step;
# also on a standby, for the time after its promotion.  The cluster is made with
# hold => 1.
sub hold_key { return "4712, pg_catalog.hashtext($_[0])" }

sub hold_step
{
    my ($self, $step) = @_;
    my $key = hold_key("'$step'");
    $self->{hold} = $self->psql_start("SELECT pg_advisory_lock($key); SELECT pg_sleep(600)");
    $self->poll_query_until("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 4712 AND granted", 1)
        or die "$self->{name} does not hold the step $step\n";
    return;
}

# Until so many jobs are held.
sub wait_held
{
    my ($self, $jobs, $timeout) = @_;
    $self->poll_query_until("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 4712 AND NOT granted",
        $jobs, $timeout // 30)
        or die "$self->{name} does not hold $jobs jobs\n" . $self->safe_psql('TABLE follow_primary_job') . "\n";
    return;
}

sub release_step
{
    my ($self) = @_;
    my $hold = delete $self->{hold} // return;
    $self->safe_psql("SELECT pg_terminate_backend(pid) FROM pg_locks
        WHERE locktype = 'advisory' AND classid = 4712 AND mode = 'ExclusiveLock' AND granted");
    $hold->wait(10);
    return;
}

# make_follow, with the job held before the step while the sub runs.
sub make_follow_held
{
    my ($self, $node, $step, $meanwhile, %arguments) = @_;
    $self->hold_step($step);
    my $call = $self->psql_start($self->follow_sql($node, %arguments), variables => { VERBOSITY => 'verbose' });
    $self->wait_held(1, 60);
    $meanwhile->();
    $self->release_step;
    return result($call->wait(180) // die("the call does not end\n"), $call->out, $call->err);
}

# The next jobs of this server fail when they begin one of the steps; none: no more.
sub fail_steps
{
    my ($self, @steps) = @_;
    $self->safe_psql('DROP TRIGGER IF EXISTS fail_step ON follow_primary_step');
    $self->safe_psql(<<"END") if @steps;
CREATE OR REPLACE FUNCTION fail_step() RETURNS trigger LANGUAGE plpgsql AS \$\$ BEGIN RAISE 'the test fails step %', NEW.step; END \$\$;
CREATE TRIGGER fail_step BEFORE INSERT ON follow_primary_step FOR EACH ROW
    WHEN (NEW.step IN (@{[ join ', ', map { quote($_) } @steps ]})) EXECUTE FUNCTION fail_step();
END
    return;
}

# A value as SQL.
sub quote
{
    my ($value) = @_;
    return 'NULL' if !defined $value;
    return $value if $value =~ /\A-?\d+\z|\A(?:true|false)\z/;
    $value =~ s/'/''/g;
    return $value =~ s/\\/\\\\/g ? "E'$value'" : "'$value'";
}

# The node's files, its process, and the settings in force by which it follows, as
# text: a call that is refused must not change them.
sub fingerprint
{
    my ($self) = @_;
    my $dir    = $self->pgdata;
    my @files  = map { "$dir/$_" } qw(postgresql.conf postgresql.auto.conf pg_hba.conf PG_VERSION postmaster.pid), $self->standby_files;
    return join "\n", (map { -e $_ ? join ' ', $_, (stat _)[ 1, 7, 9 ] : "$_ is not there" } @files),
        sort(grep { !/\.log$/ } map { glob "$_/*" } $self->host->dir, $dir),
        'pid ' . ($self->pid // 'none'),
        $self->running ? join '|', $self->in_recovery, map { $self->standby_setting($_) } qw(primary_conninfo primary_slot_name) : ();
}

# Until the query prints $expected ('t'); false after the time is over.
sub poll_query_until
{
    my ($self, $sql, $expected, $timeout) = @_;
    $expected //= 't';
    return eval {
        wait_until("\"$sql\" prints \"$expected\"", sub {
            my ($code, $out) = $self->psql($sql, timeout => 20);
            chomp $out;
            return $code == 0 && $out eq $expected;
        }, $timeout // 60);
    } ? 1 : 0;
}

# Kinds: insert, write, flush (of a primary), receive, replay (of a standby).
sub lsn
{
    my ($self, $kind) = @_;
    my %function = (
        insert  => 'pg_current_wal_insert_lsn',
        write   => 'pg_current_wal_lsn',
        flush   => 'pg_current_wal_flush_lsn',
        receive => 'pg_last_wal_receive_lsn',
        replay  => 'pg_last_wal_replay_lsn');
    return $self->safe_psql('SELECT ' . ($function{$kind} // die "no LSN $kind") . '()');
}

# A history file for each timeline up to $n, as so many promotions leave them.
sub write_histories
{
    my ($self, $n) = @_;
    my $history = '';
    for my $tli (1 .. $n - 1)
    {
        $history .= sprintf "%d\t0/%X\tno recovery target specified\n\n", $tli, 0x1000100 + 256 * $tli;
        spew(sprintf('%s/pg_wal/%08X.history', $self->pgdata, $tli + 1), $history);
    }
    return;
}

sub in_recovery { return $_[0]->safe_psql('SELECT pg_is_in_recovery()') eq 't' }

# The timeline that a primary writes, or that a standby receives.
sub timeline
{
    my ($self) = @_;
    return $self->safe_psql(<<'END');
SELECT CASE WHEN pg_is_in_recovery()
    THEN (SELECT received_tli FROM pg_stat_wal_receiver)
    ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int END
END
}

# Until $standby has replayed what this server has written (or $lsn).
sub wait_for_catchup
{
    my ($self, $standby, $lsn, $timeout) = @_;
    $lsn //= $self->in_recovery ? $self->lsn('replay') : $self->lsn('flush');
    $timeout //= 60;
    $standby->poll_query_until("SELECT pg_last_wal_replay_lsn() >= '$lsn'", 't', $timeout)
        or die "$standby->{name} has not replayed $lsn within $timeout s\n" . $standby->log_tail(15);
    return;
}

# Waits until it writes no WAL by itself any more: the background writer logs the
# running transactions every 15 seconds, but not twice without another record in
# between. Needs autovacuum = off, and a long checkpoint_timeout.
sub wait_until_quiet
{
    my ($self) = @_;
    # After a VACUUM no reader logs a page for a hint bit. The message's commit flushes
    # what was written without a transaction id.
    my $timeline = $self->timeline;
    $self->safe_psql('VACUUM');
    my $begin = $self->lsn('flush');
    $self->safe_psql(q{SELECT pg_logical_emit_message(true, 'test', '')});
    wait_until("$self->{name} writes no more WAL", sub {
        my (undef, $dump) = run_command([ $self->bin('pg_waldump'), '-p', $self->pgdata . '/pg_wal', '-t', $timeline, '-s', $begin ]);
        return $dump =~ /RUNNING_XACTS[^\n]*\n\z/;
    }, 60);
    return;
}

# Until its WAL receiver streams from $primary.
sub wait_for_streaming
{
    my ($self, $primary, $timeout) = @_;
    my ($host, $port) = ($primary->address, $primary->port);
    $self->poll_query_until("SELECT count(*) FROM pg_stat_wal_receiver
        WHERE status = 'streaming' AND sender_host = '$host' AND sender_port = $port",
        '1', $timeout)
        or die "$self->{name} does not stream from $primary->{name}\n" . $self->log_tail(15);
    return;
}

# All of pg_controldata as a hash, or one field of it.
sub controldata
{
    my ($self, $field) = @_;
    my $text = run_ok([ $self->bin('pg_controldata'), $self->pgdata ]);
    my %value = map { /^(.+?):\s*(.*)$/ ? ($1 => $2) : () } split /\n/, $text;
    return %value if !defined $field;
    return $value{$field} // die "pg_controldata has no \"$field\"";
}

# Dies when a page of the stopped server has a wrong checksum.
sub check_pages
{
    my ($self) = @_;
    run_ok([ pg_major() < 12 ? $self->bin('pg_verify_checksums') : ($self->bin('pg_checksums'), '--check'),
        '-D', $self->pgdata ], timeout => 120);
    return;
}

# The server's log from $offset on; log_size gives the offset of its end.
sub log_size { return -s $_[0]{log} // 0 }

sub log_content
{
    my ($self, $offset) = @_;
    my $text = -e $self->{log} ? slurp($self->{log}) : '';
    return substr($text, $offset // 0);
}

sub log_tail
{
    my ($self, $lines) = @_;
    my @lines = map { -e $_ ? split /^/, slurp($_) : () }
        $self->host->dir . "/$self->{name}.start.log", $self->{log};
    splice @lines, 0, @lines - $lines if @lines > $lines;
    return "--- log of $self->{name}:\n" . join('', @lines);
}

sub wait_for_log
{
    my ($self, $regex, $offset, $timeout) = @_;
    wait_until("$self->{name}'s log matches $regex", sub {
        return $self->log_content($offset) =~ $regex;
    }, $timeout // 60);
    return;
}

1;
