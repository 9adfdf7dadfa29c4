# Settings that somebody has written since the server started, and that nobody has
# read yet: the next start, which is a job's, reads them. With some of them there is
# no server then, or it serves other data, or listens elsewhere. A job finds that
# before it stops the server, and before it starts one that is down. Only a server's
# own program judges settings together, its certificates and its libraries.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 4, extension => 1);
my ($old, $new, $sibling, $down) = $cluster->nodes;
my %nodes = (rewind => $old, basebackup => $old, repoint => $sibling, rejoin => $down);

$cluster->part(stop => [$down]);
# a repoint that needs a restart
$sibling->set_standby(recovery_target_timeline => 'current');

my $elsewhere = scratch_dir('elsewhere');
run_ok([ 'openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-subj', '/CN=node',
    '-keyout', "$elsewhere/$_.key", '-out', "$elsewhere/$_.crt" ]) for 'one', 'other';
run_ok([ 'openssl', 'rsa', '-aes128', '-passout', 'pass:x', '-in', "$elsewhere/one.key", '-out', "$elsewhere/locked.key" ]);
spew("$elsewhere/$_", "nonsense\n") for 'nonsense', 'nonsense.so';
chmod 0600, glob("$elsewhere/*");
mkdir "$elsewhere/log";
spew("$elsewhere/log/server.log", '');
chmod 0400, "$elsewhere/log/server.log";

my $ssl = sub { my ($key, @more) = @_; join "\n", 'ssl = on', "ssl_cert_file = '$elsewhere/one.crt'", "ssl_key_file = '$elsewhere/$key'", @more, '' };
my $all = 'rewind basebackup repoint rejoin';
my $by_program = pg_major() >= 15;
my @cases = (
    [ 'less than the primary has', "max_connections = 20\n", $all, qr/max_connections is 20, lower than the primary's 50/ ],
    [ 'less, by the default', "max_worker_processes = 8\nmax_connections = 100\nmax_locks_per_transaction = 10\n", 'rewind', qr/max_locks_per_transaction is 10, lower than the primary's (?:64|128)/ ],
    [ 'another port', "port = 1\n", 'rewind rejoin', qr/port is 1: after a start it would not listen on port @{[ $old->port ]}/ ],
    [ 'other data', "data_directory = '$elsewhere'\n", 'rewind rejoin', qr/data_directory is "\Q$elsewhere\E"/ ],
    [ 'an access file that is a folder', "hba_file = '$elsewhere'\n", 'rewind', qr/hba_file is "\Q$elsewhere\E"/ ],
    [ 'a log file of somebody else', "log_directory = '$elsewhere/log'\nlog_filename = 'server.log'\n", 'rewind', qr/log file "\Q$elsewhere\E\/log\/server\.log"/ ],
    $by_program ? (
    [ 'settings that contradict each other', "superuser_reserved_connections = 60\n", 'basebackup', qr/superuser_reserved_connections"? \(60\)/ ],
    [ 'another such pair', "wal_level = minimal\n", 'rewind', qr/requires "?wal_level/ ],
    [ 'more memory than there is', "shared_buffers = '900GB'\n", 'rejoin', qr/shared memory needs \d+ MB/ ],
    [ 'huge pages that are not there', "huge_pages = on\nshared_buffers = '64MB'\n", 'rewind', qr/huge_pages is on/ ],
    [ 'a library that is none', "shared_preload_libraries = 'follow_primary, $elsewhere/nonsense'\n", 'rewind', qr/could not load library "\Q$elsewhere\E/ ],
    [ 'the key of another certificate', $ssl->('other.key'), 'repoint', qr/could not load private key file .*mismatch/ ],
    [ 'a key with a password that nobody gives', $ssl->('locked.key'), 'rewind', qr/could not load private key file/ ],
    [ 'a list of revoked certificates that is gone', $ssl->('one.key', "ssl_ca_file = '$elsewhere/one.crt'", "ssl_crl_file = 'gone.crl'"), 'rewind', qr/gone\.crl/ ],
    [ 'parameters for keys that are gone', $ssl->('one.key', "ssl_dh_params_file = 'gone.pem'"), 'rewind', qr/gone\.pem/ ],
    [ 'a certificate of its clients that is none', $ssl->('one.key', "ssl_ca_file = '$elsewhere/nonsense'"), 'rewind', qr/nonsense/ ],
    [ 'no cipher', $ssl->('one.key', "ssl_ciphers = 'NONE'"), 'rewind', qr/cipher/ ]) : ());

for my $case (@cases)
{
    my ($what, $text, $methods, $detail) = @$case;
    for my $method (split ' ', $methods)
    {
        my $node = $nodes{$method};
        my $file = $node->pgdata . '/postgresql.conf';
        my $before = slurp($file);
        spew($file, $before . $text);
        $new->refuses($node, "$method: $what", sqlstate => 'F0000', message => qr/at step try/, detail => $detail,
            hint => qr/correct it on the node \Q@{[ $node->address ]}\E/i,
            arguments => $method eq 'rejoin' ? { when_down => 'rejoin' } : { method => $method });
        spew($file, $before);
    }
}
my $file = $old->pgdata . '/postgresql.conf';
my $before = slurp($file);
append_text($file, "port = 1\n");
like($new->safe_psql("SELECT status, message FROM follow_primary_check('@{[ $old->address ]}', @{[ $old->port ]}) WHERE item = 'files'"),
    qr/^error\|.*port is 1/, 'the check tells it before the failover');
spew($file, $before);

# A command that starts the server may give what its files have otherwise. Relative
# names, and files of the node's own that only a start reads.
spew($sibling->pgdata . "/$_", slurp("$elsewhere/one." . s/.*\.//r)) for 'server.key', 'server.crt';
chmod 0600, $sibling->pgdata . '/server.key';
append_text($sibling->pgdata . '/postgresql.conf', "ssl = on\nmax_connections = 20\nport = 1\nsuperuser_reserved_connections = 3\nunix_socket_directories = '.,@{[ $sibling->host->dir ]}'\n");
my $script = spew($sibling->host->dir . '/start', "#!/bin/sh\nexec '@{[ $sibling->bin('pg_ctl') ]}' -w -D '@{[ $sibling->pgdata ]}'"
    . " -l '@{[ $sibling->host->dir ]}/command.log' -o '-p @{[ $sibling->port ]} --max-connections=60' start\n", 0755);
$sibling->stop;
run_ok([$script]);
$new->set_row($sibling, node_start_command => $script);
my $pid = $sibling->pid;
makes_follow($new, $sibling, 'settings that its start command gives');
isnt($sibling->pid, $pid, 'by a restart');
has_rows_of($new, $sibling, 'settings that its start command gives');
for my $node ($old, $down)
{
    makes_follow($new, $node, $node->name . ', corrected', when_down => 'rejoin');
    has_rows_of($new, $node, $node->name . ', corrected');
}

done_testing();
