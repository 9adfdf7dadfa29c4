package FollowPrimary::Cluster;

# A primary and its standbys, each on a host of its own, with SSH between them
# as a DBA would have it: one key, one known_hosts file.
#
#   my $cluster = FollowPrimary::Cluster->new(nodes => 3, slots => 1);
#   my ($old, $new, $sibling) = $cluster->nodes;
#   $old->kill9;
#   $new->promote;
#   my $r = $new->make_follow($sibling, method => 'auto');
#   ok($r->{ok}) or diag($r->{err});

use strict;
use warnings;

use FollowPrimary::Host qw(make_ssh_key);
use FollowPrimary::Node;
use FollowPrimary::Scratch qw(scratch_dir run_ok slurp spew free_address free_port);

my $count = 0;

# Options
#   nodes      how many, the primary included (3)
#   slots      standbys stream through slots (1)
#   archive    WAL is archived to a folder that all nodes reach (0)
#   extension  CREATE EXTENSION, and a row per node in follow_primary_node (0)
#   hold       jobs can be held before a step: see FollowPrimary::Node::hold_step (0)
#   ssh        sshd on each host (1)
#   same_port  one server port for all nodes, as on real machines (1)
#   addresses  of the hosts, an array; they may be equal
#   superuser  its name ("postgres")
#   conninfo   more keys for the standbys' primary_conninfo, as text
#   node       a sub: from a host to more options of FollowPrimary::Node->new
#   loud       servers that speak German and warn at each connection, a role that
#              hears all they have to say, accounts with German programs (0)
#   checksums, auth, hba, initdb   as FollowPrimary::Node->init
#   conf       more settings for all servers, a hash
#   key_type, sshd_conf       as FollowPrimary::Host->new
sub new
{
    my ($class, %opt) = @_;
    my $nodes  = $opt{nodes} // 3;
    if ($opt{loud})
    {
        $opt{initdb} = [ '--locale=de_DE.UTF-8', @{ $opt{initdb} // [] } ];
        $opt{conf} = { 'follow_primary.rewind_user' => 'hears_all', %{ $opt{conf} // {} } };
        $opt{sshd_conf} = "SetEnv LANG=de_DE.UTF-8 LC_ALL=de_DE.UTF-8 LANGUAGE=de PG_COLOR=always\n" . ($opt{sshd_conf} // '');
    }
    my $prefix = $count++ ? "c$count-" : '';
    my $dir    = scratch_dir("${prefix}cluster");
    my $self   = bless {
        dir      => $dir,
        slots    => $opt{slots} // 1,
        passfile => "$dir/pgpass",
        archive  => $opt{archive} ? scratch_dir("${prefix}archive") : undef,
        conninfo => $opt{conninfo},
        superuser => $opt{superuser} // 'postgres',
        password => { $opt{superuser} // 'postgres' => 'superuser password', repl => 'repl:pass\\word' },
    }, $class;

    chomp(my $public = make_ssh_key($self->ssh_key));
    $self->_write_passfile;

    my @addresses = @{ $opt{addresses} // [ map { free_address() } 1 .. $nodes ] };
    my $port = $opt{same_port} // 1 ? free_port(@addresses) : undef;
    for my $i (0 .. $nodes - 1)
    {
        my $host = FollowPrimary::Host->new(
            name           => "${prefix}node$i",
            address        => $addresses[$i],
            authorized_key => $public,
            map { defined $opt{$_} ? ($_ => $opt{$_}) : () } qw(key_type sshd_conf));
        $host->ssh_start(wait => 0) if $opt{ssh} // 1;
        push @{ $self->{nodes} }, FollowPrimary::Node->new(
            host     => $host,
            id       => $i,
            port     => $port,
            passfile => $self->{passfile},
            superuser => $self->{superuser},
            password => $self->{password}{ $self->{superuser} },
            $opt{node} ? $opt{node}->($host) : ());
    }
    $self->write_known_hosts;

    my ($primary, @standbys) = $self->nodes;
    # The copies begin before their slots are made, and need the WAL until then.
    my %conf   = %{ $opt{conf} // {} };
    my %thrift = map { exists $conf{$_} ? ($_ => delete $conf{$_}) : () } qw(wal_keep_size);
    $primary->init(conf => $self->_settings(%conf),
        map { $_ => $opt{$_} } qw(checksums auth hba initdb));
    $primary->start;
    $primary->safe_psql('SET password_encryption = \'scram-sha-256\'; CREATE ROLE repl LOGIN REPLICATION PASSWORD '
        . FollowPrimary::Node::quote($self->{password}{repl}));
    $self->make_loud if $opt{loud};
    $self->_copy_to(@standbys);
    $self->set(%thrift) if %thrift;

    if ($opt{ssh} // 1)
    {
        $_->host->ssh_wait for $self->nodes;
    }
    $self->create_extension if $opt{extension};
    $self->make_steps_holdable if $opt{hold};
    return $self;
}

# What an upgrade of the operating system does to databases from 15 on, and a role
# that is told everything, in words, numbers and dates that are not ours.
sub make_loud
{
    my ($self) = @_;
    my ($primary) = $self->nodes;
    $primary->safe_psql("UPDATE pg_database SET datcollversion = '1'") if FollowPrimary::Node::pg_major() >= 15;
    $primary->safe_psql(<<'END');
CREATE ROLE hears_all SUPERUSER LOGIN;
ALTER ROLE hears_all SET client_min_messages = debug5;
ALTER ROLE hears_all SET datestyle = 'German';
ALTER ROLE hears_all SET lc_numeric = 'de_DE.UTF-8';
END
    return;
}

# Four copies at a time: each takes two of the primary's ten WAL senders.
sub _copy_to
{
    my ($self, @standbys) = @_;
    my ($primary) = $self->nodes;
    my %how = $self->standby_options;

    while (my @some = splice @standbys, 0, 4)
    {
        my @copies = map { $_->start_copy_from($primary, %how) } @some;
        for my $i (0 .. $#some)
        {
            my $code = $copies[$i]->wait(300);
            die "pg_basebackup of @{[ $some[$i]->name ]} failed\n" . $copies[$i]->err
                if !defined $code || $code != 0;
            $copies[$i]->forget;
            $some[$i]->finish_copy_from($primary, %how);
            $some[$i]->start;
        }
        $_->wait_for_streaming($primary) for @some;
    }
    return;
}

# What init_standby_from and follow take, for a standby of this cluster.
sub standby_options
{
    my ($self) = @_;
    return (
        slot => $self->{slots},
        conninfo => $self->{conninfo},
        defined $self->{archive} ? (restore_command => $self->restore_command) : ());
}

sub _settings
{
    my ($self, %more) = @_;
    return {
        'follow_primary.ssh_user'             => scalar getpwuid($<),
        'follow_primary.ssh_key_file'         => $self->ssh_key,
        'follow_primary.ssh_known_hosts_file' => $self->known_hosts,
        'follow_primary.replication_user'     => 'repl',
        'follow_primary.rewind_user'          => $self->{superuser},
        'follow_primary.passfile'             => $self->{passfile},
        defined $self->{archive} ? (
            archive_mode                     => 'on',
            archive_command                  => "cp %p $self->{archive}/%f.part && mv $self->{archive}/%f.part $self->{archive}/%f",
            'follow_primary.restore_command' => $self->restore_command) : (),
        %more };
}

sub _write_passfile
{
    my ($self) = @_;
    my $text = '';
    for my $user (sort keys %{ $self->{password} })
    {
        (my $password = $self->{password}{$user}) =~ s/([:\\])/\\$1/g;
        $text .= "*:*:*:$user:$password\n";
    }
    spew($self->{passfile}, $text, 0600);
    return;
}

sub nodes       { return @{ $_[0]{nodes} } }
sub node        { return $_[0]{nodes}[ $_[1] ] }
sub dir         { $_[0]{dir} }
sub ssh_key     { "$_[0]{dir}/ssh_key" }
sub known_hosts { "$_[0]{dir}/known_hosts" }
sub passfile    { $_[0]{passfile} }
sub passwords   { return values %{ $_[0]{password} } }
sub archive_dir { $_[0]{archive} }
sub restore_command { return "cp $_[0]{archive}/%f %p" }

# From the hosts' present keys.
sub write_known_hosts
{
    my ($self) = @_;
    spew($self->known_hosts, join '', map { $_->host->known_hosts_line } $self->nodes);
    return;
}

# The only node that answers and takes writes; dies when there is not exactly one.
sub primary
{
    my ($self) = @_;
    my @primaries = grep {
        my ($code, $out) = $_->running ? $_->psql('SELECT pg_is_in_recovery()', timeout => 10) : (1, '');
        $code == 0 && $out =~ /^f/;
    } $self->nodes;
    die 'there are ' . @primaries . " primaries\n" if @primaries != 1;
    return $primaries[0];
}

# Sets parameters on every node that is there, and reloads those that run.
sub set
{
    my ($self, %settings) = @_;
    for my $node (grep { -e $_->config_dir . '/postgresql.conf' } $self->nodes)
    {
        $node->set(%settings);
        $node->reload if $node->running;
    }
    return;
}

# The second node becomes a primary beside the first: table t has a row that all nodes have, and on
# each of the two one more of its own. Option: stop, a list of nodes that are stopped before.
sub part
{
    my ($self, %opt) = @_;
    my ($old, $new, @others) = $self->nodes;
    $old->safe_psql('CREATE TABLE t AS SELECT 1 AS i');
    $old->wait_for_catchup($_) for $new, @others;
    $_->stop for @{ $opt{stop} // [] };
    $old->refuse_standbys;
    $new->promote;
    $old->safe_psql('INSERT INTO t SELECT 1000');
    $new->safe_psql('INSERT INTO t SELECT 2');
    return;
}

# Makes a trigger by which a step does not begin while somebody has its lock.
sub make_steps_holdable
{
    my ($self) = @_;
    my ($primary, @standbys) = $self->nodes;
    my $key = FollowPrimary::Node::hold_key('NEW.step');

    $primary->safe_psql(<<"END");
CREATE FUNCTION hold_step() RETURNS trigger LANGUAGE plpgsql SET lock_timeout = 0 AS \$\$
BEGIN
    PERFORM pg_catalog.pg_advisory_lock_shared($key);
    PERFORM pg_catalog.pg_advisory_unlock_shared($key);
    RETURN NEW;
END \$\$;
CREATE TRIGGER hold_step BEFORE INSERT ON follow_primary_step FOR EACH ROW EXECUTE FUNCTION hold_step();
END
    $primary->wait_for_catchup($_) for @standbys;
    return;
}

sub extension_installed
{
    my $sharedir = run_ok([ $ENV{PG_CONFIG} // 'pg_config', '--sharedir' ]);
    chomp $sharedir;
    return -e "$sharedir/extension/follow_primary.control";
}

# On the first node, with a row for each node; when it returns the standbys have it,
# too.
sub create_extension
{
    my ($self) = @_;
    my ($primary, @standbys) = $self->nodes;
    my $rows = join ",\n", map {
        sprintf "('%s', %d, %s, %d)", $_->address, $_->port, FollowPrimary::Node::quote($_->pgdata), $_->host->ssh_port
    } $self->nodes;

    $primary->safe_psql(<<"END");
CREATE EXTENSION follow_primary;
INSERT INTO follow_primary_node (host, port, pgdata, ssh_port) VALUES
$rows;
END
    $primary->wait_for_catchup($_) for @standbys;
    return;
}

1;
