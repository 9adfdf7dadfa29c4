package FollowPrimary::OwnFiles;

# Files in a data directory that are the node's own, and how its settings name
# them, in every manner that came to mind.
#
#   my $own = FollowPrimary::OwnFiles->new($node);    # before the server starts
#   ... a job ...
#   $own->unchanged('rewind');

use strict;
use warnings;

use File::Find ();
use File::Path qw(make_path);
use FollowPrimary::Node;
use FollowPrimary::Scratch qw(slurp spew append_text run_ok);
use Test::More;

# With sockets => 0 there are no sockets, for pg_rewind ends at one in the primary's data directory.
# Every file has the name of its node in it: with another node's it is not the same.
sub new
{
    my ($class, $node, %opt) = @_;
    my $data = $node->pgdata;
    my $self = bless { node => $node, outside => $node->host->dir . '/outside' }, $class;

    my $lib = run_ok([ $ENV{PG_CONFIG} // 'pg_config', '--pkglibdir' ]);
    chomp $lib;
    make_path("$self->{outside}/spool", "$self->{outside}/private");

    # Its logs, one of them with the reason of the crash.
    $self->put('log/crash.log');
    $self->put('log/' . $node->name . '.log');
    $self->put('log/of 2019/rotated.log');

    # What connection strings name, and what lies beside it.
    $self->put($_, 0600) for 'certs/client.key', 'certs/sub/client.p12', 'my certs/other.key', '.pgpass';
    $self->put('secrets/passwords', 0600, slurp($node->{passfile}));
    $self->put($_) for 'certs/client.crt', 'certs/root.crt', 'certs/not named.crt', 'sub/dir/root.crl';
    spew("$self->{outside}/private/linked.key", 'own of ' . $node->name, 0600);
    $self->put('hidden/target.crt');
    symlink "$data/hidden/target.crt", "$self->{outside}/leads-back.crt" or die;
    symlink "$self->{outside}/private/linked.key", "$data/certs/linked.key" or die;

    # What settings name: relative, absolute, with ./ and .. and other prefixes.
    $self->put('tls/server.crl');
    $self->put('tls/dh.pem');
    $self->put('tls/pass.sh', 0700);
    $self->put('server.key.pass', 0400);
    $self->put('krb/pg.keytab', 0600);
    $self->put('store/basic/kept');
    $self->put('plugins/readme');
    run_ok([ 'cp', "$lib/auto_explain.so", "$data/plugins/own_explain.so" ]);

    # Scripts that commands name, with what they read; the WAL archive.
    $self->put("$_", 0755) for 'scripts/archive.sh', 'my scripts/restore it.sh', 'tools/cleanup', 'end/end.sh', 'by variable/x.sh', 'top-script';
    $self->put($_) for 'scripts/lib/functions.sh', 'my scripts/restore.conf', 'wal archive/000000010000000000000001', 'end/end.conf', 'options.yaml';
    spew("$data/my scripts/restore it.sh", "#!/bin/sh\n# own of " . $node->name . "\nexit 1\n", 0755);
    spew("$data/end/end.sh", "#!/bin/sh\n# own of " . $node->name . "\nexit 0\n", 0755);
    spew("$data/tools/cleanup", "#!/bin/sh\n# own of " . $node->name . "\nexit 0\n", 0755);

    # Configuration in pieces.
    $self->put('hba/users list', undef, "postgres, repl\n");
    $self->put('hba/more', undef, "nobody\n");
    append_text($node->config_dir . '/pg_hba.conf', "local all \@hba/more reject\nlocal all \@\"hba/users list\" trust\n");
    $self->put('conf/extra.conf', undef, "include 'deeper/more.conf'\nwork_mem = '7MB'\n");
    $self->put('conf/deeper/more.conf', undef, "maintenance_work_mem = '17MB'\n");
    $self->put('conf.d/10-own.conf', undef, "temp_buffers = '7MB'\n");

    # Links.
    symlink "$self->{outside}/spool", "$data/spool" or die;
    symlink 'log/crash.log', "$data/last crash" or die;

    mkdir "$data/sockets", 0700;
    $node->set(
        $opt{sockets} // 1 ? (unix_socket_directories => "$data/sockets") : (),
        log_directory             => 'log',
        ssl_crl_file              => './tls/server.crl',
        ssl_dh_params_file        => "$data/conf/../tls/dh.pem",
        ssl_passphrase_command    => "tls/pass.sh <server.key.pass '%p'",
        krb_server_keyfile        => "FILE:$data/krb/pg.keytab",
        external_pid_file         => 'sockets/external.pid',
        'basic_archive.archive_directory' => 'store/basic',
        shared_preload_libraries  => "$data/plugins/own_explain",
        archive_command           => "test ! -f 'wal archive/%f' && ./scripts/archive.sh --config=$data/options.yaml %p \"wal archive/%f\"",
        restore_command           => "\"$data/my scripts/restore it.sh\" %f '%p'",
        archive_cleanup_command   => 'tools/cleanup %r || exec top-script',
        recovery_end_command      => "cd $data/end && DIR=\"\$PGDATA/by variable\" ./end.sh '%r'",
        'my_audit.authority'      => "$self->{outside}/leads-back.crt",
        'my_audit.client'         => "host=audit sslkey='$data/my certs/other.key' sslcrl=sub/dir/root.crl");
    $node->append_conf("include 'conf/extra.conf'\ninclude_dir = 'conf.d'\n");
    return $self;
}

sub passfile { my ($self) = @_; return $self->{node}->pgdata . '/secrets/passwords' }

# For replication_options and for a primary_conninfo.
sub conninfo
{
    my ($self) = @_;
    my $data = $self->{node}->pgdata;
    return "sslmode=prefer sslkey=$data/certs/linked.key sslcert=$data/certs/client.crt sslrootcert=$self->{outside}/leads-back.crt";
}

sub put
{
    my ($self, $name, $mode, $text) = @_;
    my $file = $self->{node}->pgdata . "/$name";
    make_path($file =~ s{/[^/]*\z}{}r);
    spew($file, ($text // '') . '# own of ' . $self->{node}->name . ": $name\n");
    chmod $mode // 0640, $file;
    push @{ $self->{put} }, $name;
    return;
}

my @places = (qw(log certs secrets sub hidden tls server.key.pass krb store plugins scripts tools end conf conf.d hba
    top-script options.yaml spool .pgpass sockets), 'my certs', 'my scripts', 'by variable', 'wal archive', 'last crash');

# What is there, as a hash from name to type, mode and contents.
sub _look
{
    my ($self) = @_;
    my $data = $self->{node}->pgdata;
    my %seen;

    File::Find::find({ no_chdir => 1, wanted => sub {
        my $name = s{^\Q$data\E/}{}r;
        my @stat = lstat;
        $seen{$name} = -l _ ? 'link to ' . readlink
            : -d _ ? sprintf('folder %o', $stat[2] & 07777)
            : -f _ ? sprintf('file %o %s', $stat[2] & 07777, -s _ < 100000 ? slurp($_) : -s _) : 'other';
        # the server goes on with this one
        $seen{$name} =~ s/\n.*//s if $name eq 'log/' . $self->{node}->name . '.log';
    } }, map { "$data/$_" } grep { -e "$data/$_" || -l "$data/$_" } @places, @{ $self->{also} // [] });
    # A server makes and writes these.
    delete @seen{ grep { m{^sockets/|^log/(?:postgresql-|server\.log)} } keys %seen };
    return \%seen;
}

# A snapshot of it all.
sub remember
{
    my ($self) = @_;
    $self->{seen} = $self->_look;
    return;
}

# All is what it was when it was remembered, and nothing has come to it.
sub unchanged
{
    my ($self, $what) = @_;
    my $now = $self->_look;
    my $then = $self->{seen};
    my @lost = grep { !exists $now->{$_} } sort keys %$then;
    my @new = grep { !exists $then->{$_} } sort keys %$now;
    my @other = grep { exists $now->{$_} && $now->{$_} ne $then->{$_} } sort keys %$then;
    ok(!@lost, "$what: nothing of the node's own is lost") or diag("lost: @{[ join ', ', @lost ]}");
    ok(!@other, "$what: all of it is what it was") or diag(join '', map { "$_: $now->{$_}\ninstead of $then->{$_}\n" } @other);
    ok(!@new, "$what: nothing of the primary's is with it") or diag("new: @{[ join ', ', @new ]}");
    return !@lost && !@other && !@new;
}

1;
