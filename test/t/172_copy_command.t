# A copy that comes from elsewhere: copy_command fills the directory of the copy. What it leaves
# may be anything. Whatever is no backup of this primary's history from which the node can
# go on is recognised, with an error of its own, and the node's data is where it was.
# Only real backups, of a real fork, show what each of them is.

use File::Find ();
use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 2, extension => 1, archive => 1);
my ($old, $new) = $cluster->nodes;
my $dir = scratch_dir('backups');
my $archive = $cluster->archive_dir;

sub back_up
{
    my ($node, $name, @options) = @_;
    run_ok([ $node->bin('pg_basebackup'), '-d', $node->connstr(undef, $node->superuser), '-w', '-c', 'fast', '-D', "$dir/$name", '-X', 'none', @options ],
        env => { PGPASSFILE => $cluster->passfile });
    return "$dir/$name";
}

$old->safe_psql('CREATE TABLE t AS SELECT generate_series(1, 1000) AS i; CREATE UNLOGGED TABLE u (i int)');
$old->safe_psql('CREATE DATABASE other');
# Of the last 8192 OIDs it cannot be told whether they are older than a backup.
$old->safe_psql('SELECT count(lo_create(0)) FROM generate_series(1, 8300)');
$old->wait_for_catchup($new);
my $before = back_up($old, 'before');
my $file = $old->safe_psql("SELECT pg_relation_filepath('t')");

# One that begins before the fork and ends after it, by hand.
my ($begin, $end) = pg_major() >= 15 ? ("pg_backup_start('x', true)", 'pg_backup_stop()') : ("pg_start_backup('x', true, false)", 'pg_stop_backup(false)');
my $across = $old->psql_start(<<"END");
SELECT $begin;
\\! cp -a @{[ $old->pgdata ]} $dir/across && rm -f $dir/across/postmaster.pid $dir/across/standby.signal; touch $dir/begun; while [ ! -e $dir/forked ]; do sleep 0.1; done
\\o $dir/across/backup_label
SELECT labelfile FROM $end;
END
wait_until('the backup has begun', sub { -e "$dir/begun" }, 60);
$old->wait_for_catchup($new);
$new->promote;
$old->safe_psql('INSERT INTO t SELECT generate_series(2001, 3000)');
# As a snapshot has it: its last checkpoint is older than the fork, its WAL goes on behind it.
run_ok([ 'sh', '-c', 'cp -a "$1" "$2" && rm -f "$2/postmaster.pid" "$2/standby.signal"', 'sh', $old->pgdata, "$dir/snapshot" ]);
spew("$dir/forked", '');
is($across->wait(120), 0, 'a backup goes across the fork') or diag($across->err);
my $passed = back_up($old, 'passed');
my $fresh = back_up($new, 'fresh');
# Such a copy needs WAL that was archived.
$_->safe_psql('SELECT pg_switch_wal()') for $old, $new;
$old->stop;
$new->safe_psql('INSERT INTO t VALUES (7777)');
run_ok([ $old->bin('initdb'), '--no-sync', '-A', 'trust', "$dir/foreign" ]);

# Every file of the node's data, and beside it, but a server's log.
sub listing
{
    my @lines;
    File::Find::find({ no_chdir => 1, wanted => sub {
        my @s = lstat or return;
        push @lines, sprintf '%s %o %d %s', $_, $s[2], -d _ ? 0 : $s[7], -d _ ? '' : $s[9];
    } }, grep { !/\.log\z/ } glob($old->pgdata . '*'));
    return join "\n", sort @lines;
}

sub call
{
    my ($command, %settings) = @_;
    my %all = (copy_command => $command, %settings);
    return $new->try_sql(join(' ', map { "SET follow_primary.$_ = " . quote($all{$_}) . ';' } sort keys %all)
        . ' ' . $new->follow_sql($old, method => 'basebackup', when_down => 'rejoin'), timeout => 300);
}

# 1. What is no copy: the command, the SQLSTATE, and what the error says.
my $untouched = listing();
my $slots = $new->slots;
my @bad = (
    [ 'nothing', 'true', 'XX001', qr/is not whole.*there is nothing/s ],
    [ 'an error', 'echo "no such stanza" >&2; exit 7', '38000', qr/copy_command failed.*no such stanza.*exit code 7/s ],
    [ 'an error after all', "cp -a $fresh/. %D; echo really >&2; exit 1", '38000', qr/copy_command failed.*really.*exit code 1/s ],
    [ 'half of it, and 0', "cp -a $fresh/PG_VERSION $fresh/base %D; false; true", 'XX001', qr/no global\/pg_control/ ],
    [ 'a folder less', "cp -a $fresh/. %D; rm -r %D/pg_xact", 'XX001', qr/there is no pg_xact/ ],
    [ 'a database less', "cp -a $fresh/. %D; rm -r %D/base/1", 'XX001', qr/there is no base\/1/ ],
    [ 'a table less', "cp -a $fresh/. %D; rm %D/$file", 'XX001', qr/1 files of relations are missing.*\Q@{[ substr $file, 5 ]}\E/s ],
    [ 'a table less, of before', "cp -a $before/. %D; rm %D/$file", 'XX001', qr/1 files of relations are missing/ ],
    [ 'a damaged control file', "cp -a $fresh/. %D; printf x | dd of=%D/global/pg_control bs=1 seek=40 conv=notrunc", 'XX001', qr/control file is damaged/ ],
    [ 'another cluster', "cp -a $dir/foreign/. %D", '55000', qr/belongs to another cluster.*system identifier is \d+, the primary's \d+/s ],
    [ 'another version', "cp -a $fresh/. %D; echo 9 >%D/PG_VERSION", '0A000', qr/is of another version.*PostgreSQL 9/s ],
    [ 'what passed the fork', "cp -a $passed/. %D", '55000', qr/is of another history.*on timeline 1, which this server left at/s ],
    [ 'a snapshot that passed it, and has WAL files for later', "cp -a $dir/snapshot/. %D; for i in 0 1 2 3 4 5 6 7 8 9 A B; do truncate -s 16M %D/pg_wal/00000001000000A0000000\${i}0; done",
        '55000', qr/is of another history.*on timeline 1, which this server left at/s ],
    [ 'what went across it', "cp -a $dir/across/. %D", '55000', qr/is of another history.*on timeline 1, which this server left at/s ],
    [ 'a time to come', "cp -a $fresh/. %D; sed -i 's,^START WAL LOCATION: [^ ]*,START WAL LOCATION: F/28,' %D/backup_label", '55000', qr/is of another history.*from F\/0*28|up to F\/0*28/s ],
    [ 'a timeline to come', "cp -a $fresh/. %D; sed -i 's,(file 00000002,(file 00000009,' %D/backup_label", '55000', qr/timeline 9, which is none of this server's/ ],
    [ 'an end that nobody knows', "cp -a $before/. %D; rm %D/backup_manifest", '55000', qr/may be of another history/, restore_command => '' ],
    [ 'WAL that is gone', "cp -a $before/. %D", '55000', qr/needs WAL that is gone.*there is no restore_command/s, restore_command => '' ],
    [ 'WAL that nobody serves', "cp -a $before/. %D; echo \"restore_command = 'false'\" >>%D/postgresql.auto.conf", '55000', qr/the restore_command that copy_command has set does not serve it/ ],
    [ 'a link out of it', "cp -a $fresh/. %D; rm -r %D/pg_wal; ln -s %O/pg_wal %D/pg_wal", '38000', qr/leads out of its directory.*pg_wal is a link/s ],
    [ 'a linked file', "cp -a $fresh/. %D; ln -sf /etc/passwd %D/postgresql.auto.conf", '38000', qr/postgresql\.auto\.conf is a link to \/etc\/passwd/ ],
    [ 'a tablespace of its own', "cp -a $fresh/. %D; ln -s /tmp %D/pg_tblspc/77", '38000', qr/has a tablespace 77, which the primary does not have/ ],
    [ 'no end', 'sleep 1000', '58000', qr/no progress/, progress_timeout => 3 ],
    [ 'the node itself, in place of the copy', "cp -a $fresh/. %D; touch %O/base/evil; rm %O/base/evil", '38000', qr/changed the node's own data.*\/base/s ],
);
# Before 13 the WAL of that time is there all the same.
$new->safe_psql('SELECT pg_switch_wal(); CHECKPOINT') for 1 .. 2;
for (@bad)
{
    my ($what, $command, $sqlstate, $why, %settings) = @$_;
    my $r = call($command, %settings);
    is($r->{sqlstate}, $sqlstate, "a command that leaves $what: the call fails") or diag($r->{err});
    like($r->{err}, $why, "$what: the error says so");
    unlike($r->{detail} // '', qr/^ *\d+\/\d+ kB/m, "$what: not how far it was") if $sqlstate ne '58000';
    like($r->{hint}, qr/The node's data is as it was before the copy\.$/, "$what: and that the data is untouched") if $sqlstate ne '58000' && $command !~ /evil/;
    my $now = listing();
    is($now eq $untouched, 1, "$what: it is, and nothing is left beside it");
    is($new->slots, $slots, "$what: no slot is left");
}

# 2. A cancel ends the command and what it has started, in whatever session.
my $caller = $new->psql_start("SET follow_primary.copy_command = 'setsid sleep 4711 & (trap \"\" TERM; sleep 4711) & sleep 4711'; "
    . $new->follow_sql($old, method => 'basebackup', when_down => 'rejoin'));
my $ours = qr/^sleep 4711/;
wait_until('the command runs', sub { 3 == keys %{ { our_commands($ours) } } }, 60);
is($new->safe_psql("SELECT follow_primary_cancel(@{[ $new->job('id') ]})"), 't', 'the job is told to end');
isnt($caller->wait(60), 0, 'the call ends');
is($new->job('state'), 'cancelled', 'the job was cancelled');
ok(eval { wait_until('they end', sub { !keys %{ { our_commands($ours) } } }, 15) }, 'all that the command had started has ended') or diag(explain({ our_commands($ours) }));

# What it leaves running ends with it, too.
my $r = call('setsid sleep 4712 & false');
is($r->{sqlstate}, '38000', 'a command fails, and leaves a process');
is(join(' ', %{ { our_commands(qr/^sleep 4712/) } }), '', 'which has ended with it');

# While it runs, the view tells how far it is.
$caller = $new->psql_start("SET follow_primary.copy_command = 'cp -a $fresh/base %D; while [ ! -e $dir/told ]; do sleep 0.1; done; exit 5'; "
    . $new->follow_sql($old, method => 'basebackup', when_down => 'rejoin'));
ok($new->poll_query_until("SELECT percent > 0 AND percent < 100 AND rate IS NOT NULL AND eta >= '0' FROM follow_primary_progress WHERE state = 'running' AND step = 'copy'", 't', 60),
    'while a command runs, follow_primary_progress tells how far it is, how fast, and how long it takes') or diag($new->safe_psql('TABLE follow_primary_progress'));
spew("$dir/told", '');
isnt($caller->wait(60), 0, 'it fails, as it was told to');

# 3. A backup of before the fork, by the placeholders, and with a restore_command that
# its WAL comes by. The WAL is not on this server any more.
my $log = $old->log_size;
$r = call("echo %h %p %H %P %j 100%% >$dir/said; cat %m >$dir/map; cp -a $before/. %D; echo \"restore_command = 'cp $archive/%%f %%p'\" >>%D/postgresql.auto.conf",
    restore_command => '');
ok($r->{ok}, 'a backup of before the fork is taken') or diag($r->{err});
is(slurp("$dir/said"), join(' ', $old->address, $old->port, $new->address, $new->port, $new->job('id'), "100%\n"), 'the placeholders are replaced');
is(slurp("$dir/map"), '', 'there is no tablespace to map');
like($r->{err}, qr/NOTICE:  00000: copy: \d+% of \d+ MB, \d+\.\d MB\/s/, 'how far it is, and how fast, was told');
is($new->job('bytes_done > 20000000, bytes_done = bytes_total'), 't|t', 'the row has the bytes');
like($new->step('copy'), qr/^\d+ MB by copy_command, a backup of timeline 1 from /, 'what it was, too');
streams_from($new, $old, 'the node');
is($old->safe_psql('SELECT count(*), max(i) FROM t'), '1001|7777', 'it has the rows of the primary alone');
like($old->log_content($log), qr/restored log file "0000000/, 'it has fetched WAL by the restore_command of the command');
is($old->safe_psql('SHOW restore_command'), '', 'which it does not keep') if reloads('restore_command');
unlike(slurp($old->pgdata . "/$_"), qr/^restore_command/m, "$_ has none") for $old->recovery_file =~ m{([^/]+)\z}, 'postgresql.auto.conf';
is($new->job('lost_transactions >= 1'), 't', 'what only the node had is counted as ever');

# 4. A running standby, with a restore_command of its own, serves until the copy is there.
$old->safe_psql(q{ALTER SYSTEM SET restore_command = 'false # its own'}) if pg_major() >= 12;
$old->restart;
$old->wait_for_streaming($new);
my $started = $old->safe_psql('SELECT pg_postmaster_start_time()');
$r = call("test -n \"\$(@{[ $old->bin('psql') ]} -XAtq -h @{[ $old->address ]} -p %p -U postgres -d postgres -w -c 'SELECT 1')\" && cp -a $fresh/. %D && echo \"restore_command = 'cp $archive/%%f %%p'\" >>%D/postgresql.auto.conf",
    restore_command => '');
ok($r->{ok}, 'a running standby gets a copy') or diag($r->{err});
isnt($old->safe_psql('SELECT pg_postmaster_start_time()'), $started, 'its server is another one now');
is($old->safe_psql('SHOW restore_command'), 'false # its own', 'and has the restore_command of its own again') if reloads('restore_command');
streams_from($new, $old, 'the standby');
is($old->safe_psql('SELECT count(*) FROM t'), '1001', 'it has the rows');

# 5. The row's command wins, pg_basebackup may be one, and what it brings of WAL is used.
$new->set_row($old, copy_command => "@{[ $old->bin('pg_basebackup') ]} -h %H -p %P -U repl -w -c fast -X fetch -D %D");
$r = call('exit 99');
ok($r->{ok}, 'the command of the row wins over that of the setting') or diag($r->{err});
streams_from($new, $old, 'the standby');
is(join(' ', glob($old->pgdata . '.follow_primary/job*')), '', 'nothing is left beside the data');

done_testing();
