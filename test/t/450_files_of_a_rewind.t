# pg_rewind dies half-way on a file or a folder of the node that it may not write,
# and on one of the primary that the server may not read or that is no file at all.
# All of that is seen before the node is stopped; what can be moved out of
# pg_rewind's way is no obstacle. Permissions and special files are the kernel's
# affair, so there are real ones.

use FollowPrimary::Test;
use IO::Socket::UNIX;
use POSIX qw(mkfifo);

my $cluster = FollowPrimary::Cluster->new(nodes => 2, extension => 1);
my ($old, $new) = $cluster->nodes;

$old->safe_psql('CREATE TABLE t AS SELECT 1 AS i');
$old->wait_for_catchup($new);
$new->promote;
$old->safe_psql('INSERT INTO t SELECT 1000');
$new->safe_psql('INSERT INTO t SELECT 2');

my ($theirs, $ours) = map { $_->pgdata } $old, $new;
my $node = $old->address;

# refused_while(what, make, unmake, expected): while the obstacle is there.
sub refused_while
{
    my ($what, $make, $unmake, %expect) = @_;
    $make->();
    $new->refuses($old, $what, %expect);
    $unmake->();
    return;
}

# folder(path, mode): with a file in it.
sub folder
{
    my ($path, $mode) = @_;
    return (
        sub { mkdir $path or die "mkdir $path: $!"; spew("$path/file", "content\n"); chmod $mode, $path or die },
        sub { chmod 0700, $path; unlink "$path/file"; rmdir $path or die "rmdir $path: $!" });
}

# 1. Folders of the node.
for my $mode (0555, 0000)
{
    my $path = "$theirs/kept_by_somebody";
    refused_while(sprintf('a folder of mode %04o on the node', $mode), folder($path, $mode),
        sqlstate => '42501', detail => qr/\Q$path\E/, hint => qr/on the node \Q$node\E.*chmod u\+rwx '\Q$path\E'/si);
}
refused_while('a folder in a folder of the node that is not to be written', folder("$theirs/base/kept", 0555),
    sqlstate => '42501', detail => qr{\Q$theirs\E/base/kept}, hint => qr/on the node \Q$node\E/i);
refused_while('the same for a copy, which has to remove the old data', folder("$theirs/kept_by_somebody", 0555),
    arguments => { method => 'basebackup' },
    sqlstate => '42501', detail => qr/kept_by_somebody/, hint => qr/on the node \Q$node\E/i);

# 2. What the primary's own server may not read.
refused_while('a file of mode 0000 in the data directory of the primary',
    sub { spew("$ours/secret of root", "content\n", 0000) }, sub { unlink "$ours/secret of root" },
    sqlstate => '42501', detail => qr/\Q$ours\E\/secret of root/, hint => qr/on this server/i);
refused_while('the same for a copy, before anything is copied',
    sub { spew("$ours/secret of root", "content\n", 0000) }, sub { unlink "$ours/secret of root" },
    arguments => { method => 'basebackup' },
    sqlstate => '42501', message => qr/at step (?!copy)/, detail => qr/\Q$ours\E\/secret of root/, hint => qr/on this server/i);
refused_while('a folder of mode 0000 there', folder("$ours/secret", 0000),
    sqlstate => '42501', detail => qr/\Q$ours\E\/secret/, hint => qr/on this server/i);

# 3. What is no file there.
my $socket;
refused_while('a socket in the data directory of the primary',
    sub { $socket = IO::Socket::UNIX->new(Local => "$ours/app.sock", Listen => 1) or die "socket: $!" },
    sub { undef $socket; unlink "$ours/app.sock" },
    sqlstate => '55000', detail => qr/\Q$ours\E\/app\.sock/, hint => qr/on this server.*basebackup/is);
refused_while('a named pipe there, which pg_rewind would wait for',
    sub { mkdir "$ours/pipes"; mkfifo("$ours/pipes/in", 0600) or die "mkfifo: $!" },
    sub { unlink "$ours/pipes/in"; rmdir "$ours/pipes" },
    sqlstate => '55000', detail => qr/\Q$ours\E\/pipes\/in/, hint => qr/on this server/i);
refused_while('a folder there that is linked into itself',
    sub { symlink '.', "$ours/loop" or die }, sub { unlink "$ours/loop" },
    sqlstate => '55000', detail => qr/\Q$ours\E\/loop/, hint => qr/on this server/i);

# 4. What is no obstacle: where pg_rewind does not look, and what leads nowhere.
spew("$ours/pg_stat_tmp/unreadable", '', 0000);
symlink '/nowhere/at/all', "$ours/dangling";
# On the node: files that it has and may not write, also one of the primary's;
# and what is left of a crashed server whose socket was there.
spew("$_/server.key", "key of $_\n", $_ eq $theirs ? 0400 : 0600) for $theirs, $ours;
spew("$_/notes.txt", "notes of $_\n", $_ eq $theirs ? 0444 : 0600) for $theirs, $ours;
mkdir "$theirs/run";
{ my $stale = IO::Socket::UNIX->new(Local => "$theirs/run/.s.PGSQL.5432", Listen => 1) or die "socket: $!"; }
ok(-S "$theirs/run/.s.PGSQL.5432", 'a socket that nobody listens to is left on the node');
mkfifo("$theirs/run/log.pipe", 0600);

my $r = $new->make_follow($old);
ok($r->{ok}, 'then the node follows') or diag($r->{err});
is($new->job('method, state'), 'rewind|succeeded', 'by a rewind');
$new->safe_psql('INSERT INTO t SELECT 3');
$new->wait_for_catchup($old);
is($old->safe_psql('SELECT sum(i) FROM t'), '6', 'it has the rows of the primary');
is(slurp("$theirs/server.key"), "key of $theirs\n", 'and its own key');
is(sprintf('%04o', (stat "$theirs/server.key")[2] & 07777), '0400', 'with the mode that it had');
is((join ' ', grep { !/lost_wal-/ } glob("$theirs.follow_primary/*")), '', 'nothing is left beside its data');

done_testing();
