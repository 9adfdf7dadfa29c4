# What somebody has left on the node, or changed since its server read it, and that
# ends a rewind or a copy half-way, or keeps the server from starting, or from
# letting in the role that proves: a file that only root can read where the node's
# own are kept, lock files of another account, a pg_hba.conf that waits for a reload,
# an address that has gone. All of that is found before the first stop. Who may read
# a file is the kernel's affair, and what a start makes of the rest a server's.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 3, extension => 1);
my ($old, $new, $sibling) = $cluster->nodes;
my $data = $old->pgdata;
my $node = $old->address;

$cluster->part;
# a repoint that needs a restart
$sibling->set_standby(recovery_target_timeline => 'current');

# 1. A file among the node's own that cannot be read, as root's editor leaves one.
for my $name ('.postgresql.conf.swp', 'old server.key', 'of root.conf')
{
    my $file = spew("$data/$name", "content\n", 0000);
    $new->refuses($old, "$_: $name", sqlstate => '42501', message => qr/at step try/, detail => qr/\Q$file\E/,
        hint => qr/on the node \Q$node\E.*chmod u\+r '\Q$file\E'/i, arguments => { method => $_ }) for 'rewind', 'basebackup';
    chmod 0600, $file;
    unlink $file;
}

# Lists of names are by lines.
symlink $data, "$data/of two\nlines" or die;
$new->refuses($old, "$_: a line break in a name", sqlstate => '55000', message => qr/at step try.*line break/, detail => qr/of two/,
    hint => qr/on the node \Q$node\E:\d+, rename it/i, arguments => { method => $_ }) for 'rewind', 'basebackup';
unlink "$data/of two\nlines";

# 2. A pg_hba.conf that the server has not read yet.
for my $case ([ $old, 'rewind' ], [ $old, 'basebackup' ], [ $sibling, 'repoint' ])
{
    my ($to, $method) = @$case;
    my $file = $to->pgdata . '/pg_hba.conf';
    my $before = slurp($file);
    spew($file, "local all all reject\n$before");
    $new->refuses($to, "$method: access rules that wait for a reload", sqlstate => '28000', message => qr/at step try/,
        detail => qr/pg_hba\.conf.*line 1 rejects it/s, hint => qr/pg_hba\.conf of the node \Q@{[ $to->address ]}\E/, arguments => { method => $method });
    spew($file, $before);
}

if (pg_major() >= 15)
{
    my $ident = "$data/pg_ident.conf";
    my ($rules, $map) = map { slurp($_) } "$data/pg_hba.conf", $ident;
    my $account = getpwuid $<;
    spew("$data/pg_hba.conf", "local all all peer map=m\n$rules");
    spew($ident, "m $account postgres\n");
    $old->reload_for_all;
    spew($ident, "m $account postgres\nm $account\n");
    $new->refuses($old, 'a map of users that a start would not understand', sqlstate => 'F0000', message => qr/at step try/,
        detail => qr/\Q$ident\E, line 2:/, hint => qr/correct it on the node \Q$node\E/i, arguments => { method => 'rewind' });
    spew("$data/pg_hba.conf", $rules);
    spew($ident, $map);
    $old->reload;
}

# 3. Addresses that the machine does not have, all of them; one of several is enough.
my $conf = slurp("$data/postgresql.conf");
append_text("$data/postgresql.conf", "listen_addresses = '192.0.2.7, 198.51.100.9'\n");
$new->refuses($old, 'addresses that have gone', sqlstate => 'F0000', message => qr/at step try/,
    detail => qr/listen_addresses is "192\.0\.2\.7, 198\.51\.100\.9"/, hint => qr/correct it on the node \Q$node\E/i, arguments => { method => 'rewind' });
spew("$data/postgresql.conf", $conf);

# 4. Lock files of another account, of a node that is down.
$old->stop;
my $lock = $old->host->dir . '/.s.PGSQL.' . $old->port . '.lock';
for my $file ($lock, "$data/postmaster.pid")
{
    spew($file, "1\n", 0000);
    $new->refuses($old, "a lock file that cannot be read: $file", sqlstate => 'F0000', message => qr/at step try/,
        detail => qr/\Q$file\E is there/, arguments => { method => 'rewind', when_down => 'rejoin' });
    chmod 0600, $file;
    unlink $file;
}

# One of its own that names a living process is stale all the same.
my $other = FollowPrimary::Process->start([ 'sleep', '987655' ]);
spew($lock, $other->pid . "\n$data\n1\n" . $old->port . "\n" . $old->host->dir . "\n", 0600);
ok(!$old->start(fail_ok => 1), 'a server does not start while a process has the pid in the lock file of its socket');
append_text("$data/postgresql.conf", "listen_addresses = '192.0.2.7, $node'\n");
makes_follow($new, $old, 'the node follows', when_down => 'rejoin');
is($new->job('method, state'), 'rewind|succeeded', 'by a rewind');
has_rows_of($new, $old, 'the node');
ok(kill(0, $other->pid), 'the process that has the pid lives');
$other->stop;
makes_follow($new, $sibling, 'and the standby');
has_rows_of($new, $sibling, 'the standby');

done_testing();
