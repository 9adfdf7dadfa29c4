# A server runs on, whatever somebody has written into its configuration files since
# it started; it does not start again, and takes no new settings at a reload.
# A job finds such a line before it stops the server, and within seconds after a reload. Only
# PostgreSQL judges its own files.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 3, extension => 1);
my ($old, $new, $sibling) = $cluster->nodes;

$cluster->part;

my %nodes = (repoint => $sibling, rewind => $old, basebackup => $old);
my $all = 'repoint rewind basebackup';
my @broken = (
    [ 'a syntax error in postgresql.conf', 'postgresql.conf', "this is = not a setting =\n", $all, qr/syntax error.*postgresql\.conf/ ],
    [ 'a setting that this version does not know', 'postgresql.conf', "no_such_setting = 1\n", $all, qr/no_such_setting/ ],
    [ 'an included file that is not there', 'postgresql.conf', "include = 'gone.conf'\n", $all, qr/gone\.conf/ ],
    # What follows does not concern a reload: it takes the other settings.
    [ 'a value out of bounds', 'postgresql.auto.conf', "work_mem = '1kB'\n", 'rewind basebackup', qr/work_mem/ ],
    [ 'a syntax error in pg_hba.conf', 'pg_hba.conf', "local nonsense\n", 'rewind basebackup', qr/pg_hba\.conf, line \d+: / ],
);
for my $case (@broken)
{
    my ($what, $name, $text, $methods, $detail) = @$case;
    for my $method (split ' ', $methods)
    {
        my $node = $nodes{$method};
        my $file = $node->pgdata . "/$name";
        my $before = slurp($file);
        spew($file, $before . $text);
        $new->refuses($node, "$method: $what", arguments => { method => $method },
            sqlstate => 'F0000', message => $method eq 'repoint' ? qr/at step/ : qr/at step try/, detail => $detail,
            hint => qr/correct it on the node \Q@{[ $node->address ]}\E/i);
        spew($file, $before);
    }
}
# What a server has to find when it starts.
my $elsewhere = scratch_dir('elsewhere');
my $key = "$elsewhere/server.key";
spew($key, '', 0644);
chmod 0644, $key;
spew("$elsewhere/server.crt", '');
my @missing = (
    [ 'a library that is gone', "shared_preload_libraries = 'follow_primary, gone_library'\n", qr/shared_preload_libraries has "gone_library", which is not there: install it, or take it out/ ],
    [ 'a library of a folder that is gone', "shared_preload_libraries = '$elsewhere/gone'\n", qr/shared_preload_libraries has "\Q$elsewhere\E\/gone"/ ],
    [ 'a key that others may read', "ssl = on\nssl_cert_file = '$elsewhere/server.crt'\nssl_key_file = '$key'\n", qr/ssl_key_file is "\Q$key\E", whose mode is 644/ ],
    [ 'a certificate that is gone', "ssl = on\nssl_cert_file = 'gone.crt'\n", qr{ssl_cert_file is "/\S+/gone\.crt"} ],
    [ 'a folder for sockets that is gone', "unix_socket_directories = '@{[ $old->host->dir ]}, $elsewhere/gone'\n", qr/unix_socket_directories has "\Q$elsewhere\E\/gone"/ ],
    [ 'a folder for the log that cannot be made', "logging_collector = on\nlog_directory = '/proc/gone'\n", qr{log_directory is "/proc/gone"} ],
    [ 'a pg_hba.conf that is gone', "hba_file = '$elsewhere/gone.conf'\n", qr/hba_file is "\Q$elsewhere\E\/gone\.conf"/ ],
);
for my $case (@missing)
{
    my ($what, $text, $detail) = @$case;
    my $file = $old->pgdata . '/postgresql.conf';
    my $before = slurp($file);
    spew($file, $before . $text);
    $new->refuses($old, "rewind: $what", arguments => { method => 'rewind' },
        sqlstate => 'F0000', message => qr/at step try/, detail => $detail, hint => qr/correct it on the node \Q@{[ $old->address ]}\E/i);
    spew($file, $before);
}
# All of it right, by other spellings.
run_ok([ 'openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-subj', '/CN=node', '-keyout', $key, '-out', "$elsewhere/server.crt" ]);
chmod 0600, $key;
append_text($old->pgdata . '/postgresql.conf', "shared_preload_libraries = ' \"follow_primary\", \$libdir/plpgsql.so'\nlogging_collector = on\n"
    . "log_directory = 'log_of_mine'\nunix_socket_directories = '., @{[ $old->host->dir ]}'\n"
    . "ssl = on\nssl_cert_file = '$elsewhere/server.crt'\nssl_key_file = '$key'\n");
for my $node ($sibling, $old)
{
    my $r = $new->make_follow($node);
    ok($r->{ok}, $node->name . ' follows once they are right') or diag($r->{err});
}
done_testing();
