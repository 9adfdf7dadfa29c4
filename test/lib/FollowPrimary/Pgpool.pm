package FollowPrimary::Pgpool;

# A real pgpool-II (4.1 to 4.7) in front of a cluster.
#
#   my $pgpool = FollowPrimary::Pgpool->new(cluster => $cluster, follow => 1);
#   $pgpool->start;
#   $cluster->node(0)->kill9;
#   $pgpool->wait_for_primary(1, 30);
#   $pgpool->wait_for_status(2 => 'up', 60);
#   $_->{status} for $pgpool->pool_nodes;       # node_id hostname port status role …
#   is($pgpool->nodes, '0:standby:down 1:primary:up 2:standby:up', 'pgpool shows');
#   is($pgpool->untruths($cluster->node(1), $cluster->node(0)), '', 'and so it is');
#   my ($code, $out, $err) = $pgpool->pcp('pcp_node_count');

use strict;
use warnings;

use Cwd qw(realpath);
use Digest::MD5 qw(md5_hex);
use FollowPrimary::Node;
use FollowPrimary::Scratch qw(scratch_dir run_command wait_until free_port slurp spew kill_tree);

my ($top) = realpath(__FILE__) =~ m{^(.*)/test/lib/FollowPrimary/};
my $count = 0;
my $version;

# The program's version as a number: 4.1 … 4.7.
sub version
{
    if (!defined $version)
    {
        my (undef, $out, $err) = run_command([ _program('pgpool'), '--version' ]);
        ($version) = "$out$err" =~ /(\d+\.\d+)/ or die "no pgpool\n$err";
    }
    return $version;
}

sub _program
{
    my ($name) = @_;
    my ($path) = grep { -x } map { "$_/$name" } '/usr/sbin', '/usr/bin', split /:/, $ENV{PATH};
    return $path // $name;
}

# Options
#   cluster
#   follow   1: the extension, by the README's follow_primary_command, as a
#            superuser; a text: that command; 0: none
#   conf     more settings for pgpool.conf, a hash
#   address, port, pcp_port   where it listens (127.0.0.1, free ports)
sub new
{
    my ($class, %opt) = @_;
    my $cluster = $opt{cluster} // die "pgpool needs a cluster";
    my $name    = $count++ ? "pgpool$count" : 'pgpool';
    my $self    = bless {
        cluster  => $cluster,
        dir      => scratch_dir($name),
        address  => $opt{address} // '127.0.0.1',
        port     => $opt{port} // free_port(),
        pcp_port => $opt{pcp_port} // free_port(),
        user     => 'pgpool',
        password => 'pcp:pass\\word',
    }, $class;
    my $dir = $self->{dir};

    spew("$dir/pcp.conf", "$self->{user}:" . md5_hex($self->{password}) . "\n");
    spew("$dir/pool_hba.conf", '');
    (my $escaped = $self->{password}) =~ s/([:\\])/\\$1/g;
    spew($self->pcp_pass_file, "*:*:$self->{user}:$escaped\n", 0600);

    my $bindir = FollowPrimary::Node::bindir();
    my $promote = FollowPrimary::Node::pg_major() >= 12
        ? qq{psql -XAtw -h "\$4" -p "\$5" -U postgres -d postgres -c 'SELECT pg_promote()'}
        : q{pg_ctl -D "$6" promote};
    spew("$dir/failover.sh", <<"END", 0700);
#!/bin/sh
# failed node, old primary, new main: id host port pgdata
echo "failover: \$*"
test "\$1" = "\$2" || exit 0
test "\$3" -ge 0 || exit 0
exec $bindir/$promote
END

    my $follow = $opt{follow} // 0;
    $self->{conf} = {
        %{ $self->_settings },
        (version() >= 4.2 ? 'follow_primary_command' : 'follow_master_command') =>
              $follow eq '0' ? ''
            : $follow eq '1' ? follow_command()
            :                  $follow,
        %{ $opt{conf} // {} } };
    $self->write_conf;
    $cluster->set(
        'follow_primary.pcp_port'      => $self->{pcp_port},
        'follow_primary.pcp_user'      => $self->{user},
        'follow_primary.pcp_pass_file' => $self->pcp_pass_file);
    return $self;
}

# One that somebody else has set up.  Options: cluster, dir (with a file pcppass),
# address, port, pcp_port, user (of PCP).
sub of_others
{
    my ($class, %opt) = @_;
    return bless {%opt}, $class;
}

# The line of the README for pgpool.conf, with this PostgreSQL's psql, and a superuser
# in the place of its role, who needs no rows; or with another user.
sub follow_command
{
    my ($self, $user) = @_;
    my @lines = slurp("$top/README.md") =~ m{^follow_primary_command = '(.*)'$}mg;
    die "README.md has @{[ scalar @lines ]} lines for follow_primary_command\n" if @lines != 1;
    my $psql = FollowPrimary::Node::bindir() . '/psql';
    $lines[0] =~ s{^/\S+/psql }{$psql } or die "README.md's follow_primary_command does not run psql\n";
    $lines[0] =~ s{ -U \K\w+}{$user // 'postgres'}e or die "README.md's follow_primary_command names no user\n";
    return $lines[0];
}

sub _settings
{
    my ($self) = @_;
    my $cluster  = $self->{cluster};
    my $dir      = $self->{dir};
    my $v        = version();
    my $password = $cluster->{password}{postgres};
    my %conf     = (
        listen_addresses     => $self->{address},
        port                 => $self->{port},
        pcp_listen_addresses => $self->{address},
        pcp_port             => $self->{pcp_port},
        pcp_socket_dir       => $dir,
        ($v >= 4.4 ? 'unix_socket_directories' : 'socket_dir') => $dir,
        ($v >= 4.7 ? 'work_dir' : 'logdir') => $dir,
        pid_file_name => "$dir/pgpool.pid",
        pool_passwd   => '',
        $v >= 4.2
        ? (backend_clustering_mode => 'streaming_replication')
        : (master_slave_mode => 'on', master_slave_sub_mode => 'stream'),
        load_balance_mode              => 'off',
        enable_pool_hba                => 'off',
        allow_clear_text_frontend_auth => 'on',
        num_init_children              => 8,
        max_pool                       => 1,
        connection_cache               => 'off',
        log_line_prefix                => '%t: %p: ',
        log_hostname                   => 'off',
        connect_timeout                => 2000,
        sr_check_period                => 1,
        sr_check_user                  => 'postgres',
        sr_check_password              => $password,
        sr_check_database              => 'postgres',
        health_check_period            => 1,
        health_check_timeout           => 5,
        health_check_max_retries       => 0,
        health_check_user              => 'postgres',
        health_check_password          => $password,
        health_check_database          => 'postgres',
        failover_on_backend_error      => 'on',
        auto_failback                  => 'off',
        detach_false_primary           => 'off',
        search_primary_node_timeout    => 30,
        failover_command               => "$dir/failover.sh %d %P %m %H %r %R",
        use_watchdog                   => 'off',
        memory_cache_enabled           => 'off');

    for my $node ($cluster->nodes)
    {
        my $i = $node->id;
        $conf{"backend_hostname$i"}         = $node->address;
        $conf{"backend_port$i"}             = $node->port;
        $conf{"backend_weight$i"}           = 1;
        $conf{"backend_data_directory$i"}   = $node->pgdata;
        $conf{"backend_flag$i"}             = 'ALLOW_TO_FAILOVER';
        $conf{"backend_application_name$i"} = $node->name;
    }
    return \%conf;
}

# Makes several pgpools one watchdog cluster, before they start; the first is to
# be the leader.  $delegate is an address of none of them, at which the leader's
# control port answers: a forwarder that the leader starts stands in for an
# address that moves.
sub join_watchdog
{
    my ($delegate, @pgpools) = @_;
    my %port = map { $_->{dir} => [ free_port($_->{address}), free_port($_->{address}) ] } @pgpools;
    my $delegation = scratch_dir('delegate');
    spew("$delegation/forward", <<'END');
use IO::Socket::INET;
use IO::Select;
my ($listen, $port, $to) = @ARGV;
$SIG{CHLD} = 'IGNORE';
my $socket = IO::Socket::INET->new(LocalAddr => $listen, LocalPort => $port, Listen => 20, ReuseAddr => 1) or die $@;
while (1)
{
    my $client = $socket->accept or next;
    next if fork;
    my $server = IO::Socket::INET->new(PeerAddr => $to, PeerPort => $port) or exit;
    my $select = IO::Select->new($client, $server);
    while (my @ready = $select->can_read)
    {
        for my $from (@ready)
        {
            sysread($from, my $bytes, 65536) or exit;
            syswrite($from == $client ? $server : $client, $bytes);
        }
    }
}
END
    for my $i (0 .. $#pgpools)
    {
        my $self = $pgpools[$i];
        my $dir  = $self->{dir};
        my ($wd_port, $heartbeat_port) = @{ $port{$dir} };
        my %conf = (
            use_watchdog                     => 'on',
            wd_priority                      => @pgpools - $i,
            wd_interval                      => 1,
            wd_heartbeat_keepalive           => 1,
            wd_heartbeat_deadtime            => 5,
            wd_ipc_socket_dir                => $dir,
            enable_consensus_with_half_votes => 'on',
            wd_escalation_command            => "$dir/escalate",
            wd_de_escalation_command         => "$dir/deescalate");
        spew("$dir/escalate", "#!/bin/sh\nsetsid $^X $delegation/forward $delegate $self->{pcp_port} $self->{address} "
            . "</dev/null >/dev/null 2>>$dir/forward.log &\necho \$! >$dir/forward.pid\n", 0700);
        spew("$dir/deescalate", "#!/bin/sh\nkill \$(cat $dir/forward.pid)\n", 0700);
        spew("$dir/pgpool_node_id", "$i\n");

        my $n = 0;
        for my $j (0 .. $#pgpools)
        {
            my $other = $pgpools[$j];
            my ($other_wd_port, $other_heartbeat_port) = @{ $port{ $other->{dir} } };
            if (version() >= 4.2)
            {
                %conf = (%conf,
                    "hostname$j"           => $other->{address},
                    "wd_port$j"            => $other_wd_port,
                    "pgpool_port$j"        => $other->{port},
                    "heartbeat_hostname$j" => $other->{address},
                    "heartbeat_port$j"     => $other_heartbeat_port);
            }
            elsif ($j == $i)
            {
                %conf = (%conf, wd_hostname => $self->{address}, wd_port => $wd_port, wd_heartbeat_port => $heartbeat_port);
            }
            else
            {
                %conf = (%conf,
                    "heartbeat_destination$n"      => $other->{address},
                    "heartbeat_destination_port$n" => $other_heartbeat_port,
                    "other_pgpool_hostname$n"      => $other->{address},
                    "other_pgpool_port$n"          => $other->{port},
                    "other_wd_port$n"              => $other_wd_port);
                $n++;
            }
        }
        $self->set(%conf);
    }
    return;
}

# LEADER, STANDBY, …; '' when it does not say.
sub watchdog_state
{
    my ($self) = @_;
    my (undef, $out) = $self->pcp('pcp_watchdog_info', '-v');
    my ($state) = $out =~ /^Host Name\s*: \Q$self->{address}\E\n(?:.+\n)*?Status Name\s*: (\w+)/m;
    return !defined $state ? '' : $state eq 'MASTER' ? 'LEADER' : $state;
}

# As if its machine lost its power.
sub lose_machine
{
    my ($self) = @_;
    $self->kill9;
    unlink glob "$self->{dir}/.s.*";
    my $file = "$self->{dir}/forward.pid";
    kill_tree($1) if -e $file && slurp($file) =~ /^(\d+)$/;
    return;
}

sub write_conf
{
    my ($self) = @_;
    my $conf = $self->{conf};
    spew("$self->{dir}/pgpool.conf", join '', map { "$_ = '$conf->{$_}'\n" } sort keys %$conf);
    return;
}

# Changes pgpool.conf; a running pgpool reads it again.
sub set
{
    my ($self, %settings) = @_;
    %{ $self->{conf} } = (%{ $self->{conf} }, %settings);
    $self->write_conf;
    $self->{process}->signal('HUP') if $self->running;
    return;
}

sub dir           { $_[0]{dir} }
sub address       { $_[0]{address} }
sub port          { $_[0]{port} }
sub pcp_port      { $_[0]{pcp_port} }
sub pcp_user      { $_[0]{user} }
sub pcp_password  { $_[0]{password} }
sub pcp_pass_file { "$_[0]{dir}/pcppass" }
sub log_file      { "$_[0]{dir}/pgpool.log" }
sub log_content   { my ($self, $offset) = @_; return substr(-e $self->log_file ? slurp($self->log_file) : '', $offset // 0) }
sub running       { return $_[0]{process} && $_[0]{process}->running }
sub pid           { return $_[0]{process}->pid }

# Returns when it answers and knows every node, with wait => 0 at once.  It
# remembers from its last life which nodes were down, but with
# discard_status => 1.
sub start
{
    my ($self, %opt) = @_;
    my $dir = $self->{dir};

    $self->{process} = FollowPrimary::Process->start(
        [ _program('pgpool'), '-n', $opt{discard_status} ? '-D' : (),
            '-f', "$dir/pgpool.conf", '-F', "$dir/pcp.conf", '-a', "$dir/pool_hba.conf" ],
        out => $self->log_file,
        cwd => $dir,
        env => { PGPASSFILE => $self->{cluster}->passfile, PCPPASSFILE => $self->pcp_pass_file });
    $self->wait_ready if $opt{wait} // 1;
    return;
}

sub wait_ready
{
    my ($self) = @_;
    if (!eval { wait_until('pgpool answers', sub {
        die "pgpool has ended\n" if !$self->running;
        my ($code) = $self->pcp('pcp_node_count');
        my @shown = $self->pool_nodes;
        return defined $code && $code == 0 && @shown == $self->{cluster}->nodes
            && grep { $_->{role} eq 'primary' } @shown;
    }, 30) })
    {
        my @log = split /^/, $self->log_content;
        splice @log, 0, @log - 20 if @log > 20;
        die "$@@log";
    }
    return;
}

# Modes of pgpool's own: fast, immediate, smart (waits for clients).
sub stop
{
    my ($self, $mode) = @_;
    my %signal = (smart => 'TERM', fast => 'INT', immediate => 'QUIT');
    return if !$self->running;
    $self->{process}->stop(signal => $signal{ $mode // 'fast' }, timeout => 30);
    return;
}

sub kill9
{
    my ($self) = @_;
    return if !$self->running;
    kill_tree($self->pid);
    return;
}

# psql through pgpool itself.
sub psql
{
    my ($self, $sql, %opt) = @_;
    return run_command(
        [ FollowPrimary::Node::bindir() . '/psql', '-XAqw', '-v', 'ON_ERROR_STOP=1',
            $opt{header} ? () : '-t', '-P', 'footer=off',
            '-d', "host=$self->{address} port=$self->{port} user=postgres dbname=" . ($opt{dbname} // 'postgres'),
            '-f', '-' ],
        in      => "$sql\n",
        timeout => $opt{timeout} // 30,
        env     => { PGPASSFILE => $self->{cluster}->passfile });
}

# SHOW pool_nodes: a hash per node, in order of node_id; empty when pgpool does
# not serve queries, as in the middle of a failover.
sub pool_nodes
{
    my ($self) = @_;
    my ($code, $out) = $self->psql('SHOW pool_nodes', header => 1);
    return if $code != 0;
    my ($head, @lines) = split /\n/, $out;
    my @names = split /\|/, $head;
    return map { my %row; @row{@names} = split /\|/, $_, -1; \%row } @lines;
}

sub pool_node
{
    my ($self, $id) = @_;
    my ($node) = grep { $_->{node_id} == $id } $self->pool_nodes;
    return $node // {};
}

# What it shows, when it answers, as "0:standby:down 1:primary:up".
sub nodes
{
    my ($self) = @_;
    my @nodes;
    wait_until('pgpool answers', sub { return @nodes = $self->pool_nodes }, 60);
    return join ' ', map { "$_->{node_id}:$_->{role}:$_->{status}" } @nodes;
}

# What pgpool shows wrongly, and which node does not follow $primary: a line each, ''
# if there is none within a minute. Every node but those that are named as dead must
# be up in pgpool, and stream the primary's timeline through its own active slot; no
# job runs any more.
sub untruths
{
    my ($self, $primary, @dead) = @_;
    my @wrong = ('pgpool is not asked');
    eval { wait_until('pgpool shows the truth', sub { return !(@wrong = $self->_untruths($primary, @dead)) }, 60) };
    return join "\n", @wrong;
}

sub _untruths
{
    my ($self, $primary, @dead) = @_;
    my %shown = map { $_->{node_id} => "$_->{role} $_->{status}" } $self->pool_nodes;
    my @wrong;

    for my $node ($self->{cluster}->nodes)
    {
        my $id = $node->id;
        my $is = (grep { $_ == $node } @dead) ? 'standby down' : $node == $primary ? 'primary up' : 'standby up';
        my $shown = $shown{$id} // 'not at all';
        push @wrong, "node $id is shown $shown, not $is" if $shown ne $is;
        next if $is ne 'standby up';

        my (undef, $received) = $node->psql(q{SELECT concat_ws(' ', status, sender_host, sender_port, received_tli, slot_name)
            FROM pg_stat_wal_receiver}, timeout => 10);
        chomp $received;
        my $slot = $node->slot_name;
        my $wanted = join ' ', 'streaming', $primary->address, $primary->port, $primary->timeline, $slot;
        push @wrong, "node $id receives \"$received\", not \"$wanted\"" if $received ne $wanted;
        push @wrong, "node $id: its slot is not in use"
            if $primary->safe_psql(qq{SELECT count(*) FROM pg_replication_slots s JOIN pg_stat_replication r ON r.pid = s.active_pid
                WHERE s.slot_name = '$slot' AND s.active AND r.state = 'streaming'}, timeout => 10) ne '1';
    }
    push @wrong, map { "job $_" } split /\n/,
        $primary->safe_psql(q{SELECT concat_ws(' ', id, node_host, step, state) FROM follow_primary_job WHERE state = 'running'});
    return @wrong;
}

# A pcp_* command; -h, -p, -U and -w are given.  The password comes from the
# file.  Returns (exit code, stdout, stderr).
sub pcp
{
    my ($self, $tool, @arguments) = @_;
    return run_command(
        [ _program($tool), '-h', $self->{address}, '-p', $self->{pcp_port}, '-U', $self->{user}, '-w', @arguments ],
        timeout => 90,
        env     => { PCPPASSFILE => $self->pcp_pass_file });
}

sub wait_for
{
    my ($self, $what, $condition, $timeout) = @_;
    my @last;
    return if eval { wait_until($what, sub {
        my @nodes = $self->pool_nodes or return 0;
        @last = @nodes;
        return $condition->(@nodes);
    }, $timeout // 60) };
    die $@ . join '', map { "$_->{node_id} $_->{hostname} $_->{status} $_->{role}\n" } @last;
}

# Until pgpool shows the node as the only primary, and up.
sub wait_for_primary
{
    my ($self, $id, $timeout) = @_;
    $self->wait_for("pgpool shows node $id as the primary", sub {
        my @primary = grep { $_->{role} =~ /primary|master/ } @_;
        return @primary == 1 && $primary[0]{node_id} == $id && $primary[0]{status} eq 'up';
    }, $timeout);
    return;
}

# wait_for_status(2 => 'up', 60): up, down, waiting, unused, quarantine.
sub wait_for_status
{
    my ($self, $id, $status, $timeout) = @_;
    $self->wait_for("pgpool shows node $id $status", sub {
        return grep { $_->{node_id} == $id && $_->{status} eq $status } @_;
    }, $timeout);
    return;
}

1;
