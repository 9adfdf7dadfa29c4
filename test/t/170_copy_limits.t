# A copy is as slow as it is told to be, and as small on the wire. The first is seen by
# the clock: it cannot be faster than its bytes by its rate allow. The second is
# in the primary's log, which has the command that its WAL sender was given, and in
# the bytes that came to the node over the loopback interface. Only real servers send.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 2, extension => 1, conf => { log_replication_commands => 'on' });
my ($old, $new) = $cluster->nodes;
my $compresses = pg_major() >= 15;
$old->safe_psql("CREATE TABLE t AS SELECT i, repeat('x', 1000) AS filler FROM generate_series(1, 20000) i");
$old->wait_for_catchup($new);
$new->promote;
$old->stop;

# Copies the node; returns the call's result, and the base backup's command in the log.
sub copy
{
    my ($what, %settings) = @_;
    my $from = $new->log_size;
    my $r = $new->try_sql(join(' ', map { "SET follow_primary.$_ = " . quote($settings{$_}) . ';' } sort keys %settings)
        . ' ' . $new->follow_sql($old, method => 'basebackup', when_down => 'rejoin'), timeout => 300);
    ok($r->{ok}, $what) or diag($r->{err});
    my ($command) = $new->log_content($from) =~ /(BASE_BACKUP .*)/;
    streams_from($new, $old, $what);
    return ($r, $command // '');
}

my $took = q{extract(epoch FROM finished_at - started_at) - 0.5};

# 1. The rate of the setting, and that of the node's row, which wins.
my ($r, $command) = copy('a copy at full speed');
unlike($command, qr/MAX_RATE|COMPRESSION/, 'it is told no limit');
my $bytes = $new->job('bytes_done');
cmp_ok($bytes, '>', 40_000_000, 'it is so large that a limit is felt');

# The WAL beside the data is not counted.
($r, $command) = copy('a copy by the rate of the setting', copy_max_rate => '10MB');
like($command, qr/MAX_RATE '?10240\b/, 'the primary is told so');
my $data = $new->safe_psql("SELECT sum(pg_tablespace_size(oid)) FROM pg_tablespace");
cmp_ok($new->step('copy', $took), '>', $data / 10_485_760 - 1, "it takes as long as $data bytes do at 10 MB a second");
like($r->{err}, qr/NOTICE:  00000: copy: \d+% of \d+ MB, \d+\.\d MB\/s, \d+ s left\n/, 'how far it is, how fast, and how long it will take is told');
# The last notice is of the finished copy, with the WAL that came beside the data at full speed.
my @rates = $r->{err} =~ /NOTICE:  00000: copy: (?!100%)\d+% of \d+ MB, (\d+\.\d) MB/g;
cmp_ok(scalar @rates, '>', 0, 'it is told while the copy is made');
is(scalar(grep { $_ > 12 } @rates), 0, "the rates are those of the limit: @rates");

$new->set_row($old, copy_max_rate => 20480);
($r, $command) = copy("the row's rate wins over the setting's", copy_max_rate => '1MB');
like($command, qr/MAX_RATE '?20480\b/, 'the primary is told that');
$new->set_row($old, copy_max_rate => 0);
($r, $command) = copy('none of the row wins, too', copy_max_rate => '1MB');
unlike($command, qr/MAX_RATE/, 'the primary is told none');
$new->set_row($old, copy_max_rate => undef);

# 2. Compression.
if ($compresses)
{
    my @methods = ('gzip:level=1', grep { run_ok([ bindir() . '/pg_config', '--configure' ]) =~ /with-(?:lz4|zstd)/ } 'lz4', 'zstd:3');
    for my $method (@methods)
    {
        $new->set_row($old, copy_compression => $method) if $method ne 'lz4';
        ($r, $command) = copy("a copy by $method", $method eq 'lz4' ? (copy_compression => 'lz4') : ());
        my ($name, $detail) = split /:/, $method;
        like($command, qr/COMPRESSION '$name'/, "$method: the primary is told so");
        like($command, qr/COMPRESSION_DETAIL '$detail'/, "$method: in detail") if $detail;
        $new->set_row($old, copy_compression => undef);
    }
}

# 3. What is no rate and no compression is refused before anything is done.
my $jobs = $new->safe_psql('SELECT count(*) FROM follow_primary_job');
for ([ copy_max_rate => '31kB', qr/must be 0, or between 32 and 1048576/ ], [ copy_max_rate => '2GB', qr/outside the valid range/ ],
    [ copy_max_rate => -1, qr/outside the valid range/ ],
    [ copy_compression => 'lzma', $compresses ? qr/no compression "lzma": it must be gzip, lz4 or zstd/ : qr/from PostgreSQL 15 on/ ],
    [ copy_compression => 'none', $compresses ? qr/no compression "none"/ : qr/from PostgreSQL 15 on/ ],
    [ copy_compression => 'gzip:99', $compresses ? qr/expects a compression level between 1 and 9/ : qr/from PostgreSQL 15 on/ ],
    [ copy_compression => 'gzip:workers=2', $compresses ? qr/does not accept a worker count/ : qr/from PostgreSQL 15 on/ ])
{
    my ($name, $value, $why) = @$_;
    my $refused = $new->try_sql("LOAD 'follow_primary'; SET follow_primary.$name = " . quote($value) . '; ' . $new->follow_sql($old, method => 'basebackup'));
    is($refused->{sqlstate}, '22023', "$name = $value is refused");
    like($refused->{err}, $why, 'the reason is told');
}
# The row knows the names; which levels there are the call tells.
is($new->try_sql("UPDATE follow_primary_node SET $_->[0] = " . quote($_->[1]))->{sqlstate}, '23514', "$_->[0] = $_->[1] is refused in a row")
    for [ copy_max_rate => 31 ], [ copy_max_rate => 1048577 ], [ copy_compression => 'lzma' ], [ copy_compression => 'gzip:9;x' ];
$new->set_row($old, copy_compression => 'gzip:99');
$r = $new->make_follow($old, method => 'basebackup');
is($r->{sqlstate}, '22023', 'a level that there is not is refused in the call');
like($r->{err}, qr/column "copy_compression" of follow_primary_node/, 'with the column');
is($new->safe_psql('SELECT count(*) FROM follow_primary_job'), $jobs, 'none of these calls began a job');

done_testing();
