# A node gets a new copy because its data directory is empty, or because the caller
# asks for one while it runs as a standby or as a former primary. The node's own
# configuration and the WAL that only it had survive, and its service goes on
# meanwhile. Only real servers read that configuration and answer queries.

use File::Path qw(remove_tree);
use FollowPrimary::Test;

# A port for each: what is the node's own can then be told from the primary's.
my $cluster = FollowPrimary::Cluster->new(nodes => 3, extension => 1, same_port => 0,
    conf => { archive_mode => 'on', archive_command => 'true' });
my ($old, $new, $sibling) = $cluster->nodes;
my $major = pg_major();

sub follows_now
{
    my ($node, $primary, $what) = @_;
    has_rows_of($primary, $node, $what);
    streams_from($primary, $node, $what);
    return;
}

sub temporary_folders { my ($node) = @_; return join ' ', glob($node->pgdata . '.follow_primary/*') }

# The node's own settings and authentication, with a word of the test in each.
my %marked;
sub mark_configuration
{
    my ($node) = @_;
    $node->set(work_mem => '12345kB', archive_command => 'test -n ' . $node->name);
    $node->reload;
    append_text($node->pgdata . '/pg_hba.conf', "# of @{[ $node->name ]}\n");
    append_text($node->pgdata . '/pg_ident.conf', "# of @{[ $node->name ]}\n");
    spew($node->pgdata . '/server.key', 'key of ' . $node->name, 0600);
    for my $file (qw(postgresql.conf pg_hba.conf pg_ident.conf server.key))
    {
        $marked{ $node->name }{$file} = slurp($node->pgdata . "/$file");
        $marked{ $node->name }{$file} =~ s/^include_if_exists = .*\n//mg;
    }
    $marked{ $node->name }{hba_file} = $node->safe_psql('SHOW hba_file');
    return;
}

sub keeps_configuration
{
    my ($node, $what) = @_;
    for my $file (qw(postgresql.conf pg_hba.conf pg_ident.conf server.key))
    {
        my $now = slurp($node->pgdata . "/$file");
        is(() = $now =~ /^include_if_exists = .*\n/mg, $major >= 12 ? 1 : 0, "$what: one include line") if $file eq 'postgresql.conf';
        $now =~ s/^include_if_exists = .*\n//mg;
        is($now, $marked{ $node->name }{$file}, "$what: its own $file");
    }
    is($node->safe_psql('SHOW work_mem'), '12345kB', "$what: and it is in force");
    is($node->safe_psql('SHOW archive_command'), 'test -n ' . $node->name, "$what: its own archive_command");
    is($node->safe_psql('SHOW hba_file'), $marked{ $node->name }{hba_file}, "$what: its own hba_file");
    is($node->safe_psql("SELECT setting FROM pg_settings WHERE name = 'port'"), $node->port, "$what: its own port");
    return;
}

$old->safe_psql('CREATE TABLE t AS SELECT generate_series(1, 100000) AS i');
$old->wait_for_catchup($_) for $new, $sibling;
$old->kill9;
$new->promote;

# 1. Somebody emptied the data directory of the killed primary, configuration and all:
# the copy brings the primary's, and with it the primary's port.
remove_tree($old->pgdata, { keep_root => 1 });
my $r = makes_follow($new, $old, 'a node with an empty data directory follows after one call', node_pgdata => $old->pgdata, when_down => 'rejoin');
is($new->job('state, requested_method, method'), 'succeeded|auto|basebackup', 'by a copy, without being asked');
like($new->job('reason'), qr/is empty/, "the reason is in the job's row");
is($new->job('bytes_done > 20000000, bytes_done = bytes_total'), 't|t', 'and so is how much was copied');
# Before 13 there is no manifest by which a copy could be verified.
like($new->step('copy'), $major >= 13 ? qr/^\d+ MB, verified$/ : qr/^\d+ MB, not verified$/, 'the copy was verified');
follows_now($old, $new, 'the new copy');
is($old->safe_psql("SELECT setting FROM pg_settings WHERE name = 'port'"), $old->port, 'it has its own port');
ok((grep { $_ eq $old->address } split /,/, $old->safe_psql('SHOW listen_addresses')), 'and listens on its own address');
is(temporary_folders($old), '', 'nothing is left beside the data');

# 2. A running standby that streams through its slot serves reads until the copy is
# there. keep_old_data keeps the replaced data.
makes_follow($new, $sibling, 'a sibling is repointed');
mark_configuration($sibling);
my $reader = $sibling->psql_start('SELECT clock_timestamp(), count(*), pg_sleep(0.02) FROM t;' x 6000);
wait_until('it is read', sub { $reader->out });
my $id = $new->safe_psql("SET follow_primary.keep_old_data = 'always'; "
    . $new->follow_sql($sibling, method => 'basebackup', wait => 'false'));
ok($new->poll_query_until("SELECT state <> 'running' FROM follow_primary_job WHERE id = $id"), 'the job ends');
is($new->job('state, method, reason'), 'succeeded|basebackup|asked for', 'a running standby is copied anew when asked for');
isnt($reader->wait(60), 0, 'its sessions end with its former server');
my @copied = split /\|/, $new->safe_psql("SELECT started_at, finished_at FROM follow_primary_step WHERE job_id = $id AND step = 'copy'");
my @reads = grep { $copied[0] lt $_ && $_ lt $copied[1] } map { (split /\|/)[0] } split /\n/, $reader->out;
cmp_ok(scalar @reads, '>', 0, 'it answered queries while the copy was made: ' . @reads);
follows_now($sibling, $new, 'the copied standby');
keeps_configuration($sibling, 'the copied standby');
is($new->safe_psql("SELECT slot_name FROM pg_replication_slots WHERE slot_name ~ '^follow_primary'"), '',
    'no slot of the job is left');
my $kept = $sibling->pgdata . ".follow_primary/old-$id";
like($new->step('clean'), qr/\Q$kept\E$/, 'the kept folder is named');
like($new->job('hint'), qr/^The replaced data is kept\. When nobody needs it any more, on node \S+: rm -r '\Q$kept\E'$/, "in the job's row, too");
ok(-e "$kept/PG_VERSION", 'and is there');

# 3. A former primary runs on, with rows of its own.
$new->wait_for_catchup($_) for $old, $sibling;
$new->kill9;
$old->promote;
$new->start;
mark_configuration($new);
$new->safe_psql('CREATE TABLE stray (i int)');
$new->safe_psql("INSERT INTO stray VALUES ($_)") for 1 .. 5;
is($new->safe_psql('SELECT pg_is_in_recovery()'), 'f', 'a second primary runs');
makes_follow($old, $new, 'it is replaced by a copy', method => 'basebackup');
follows_now($new, $old, 'the former primary');
keeps_configuration($new, 'the former primary');
is($new->safe_psql("SELECT to_regclass('stray')"), '', 'its stray table is gone');

my ($bytes, $transactions, $dir, $fork) = split /\|/,
    $old->job('lost_wal_bytes, lost_transactions, lost_wal_dir, fork_lsn');
cmp_ok($bytes, '>', 0, 'the WAL that it alone had is counted');
cmp_ok($transactions, '>=', 6, 'and the transactions in it');
my (undef, $dump) = run_command([ $new->bin('pg_waldump'), '-p', $dir, '-t', 2, '-s', $fork ]);
is($new->commits_in($dir, 2, $fork), $transactions, 'pg_waldump reads them all from what was saved');
cmp_ok(scalar(() = $dump =~ /^rmgr: Heap .* desc: INSERT/mg), '>=', 5, 'and the rows');
is(temporary_folders($new), $dir, 'and nothing else is left beside the data');

done_testing();
