package FollowPrimary::LostWal;

# WAL that only one server has, and whether what is saved of it stays as it is.  The
# segments have 1 MB.
#
# FOLLOW_PRIMARY_WAL_MB is how much WAL live_on() writes.

use strict;
use warnings;

use Digest::MD5;
use Exporter qw(import);
use FollowPrimary::Scratch qw(slurp);

our @EXPORT = qw(lost_wal_options sums inodes staged second_names diverge live_on);

my $wal_mb = $ENV{FOLLOW_PRIMARY_WAL_MB} // 120;

# For FollowPrimary::Cluster: a server keeps and reuses few segments, and commits nothing by itself.
sub lost_wal_options
{
    return (extension => 1, hold => 1, initdb => ['--wal-segsize=1'],
        conf => { wal_keep_size => '64MB', min_wal_size => '4MB', max_wal_size => '64MB', checkpoint_timeout => '1h', autovacuum => 'off' });
}

sub segments { my ($folder) = @_; return glob "$folder/" . '?' x 24 }

# name => contents and number of names, of the segments in a folder.
sub sums
{
    my ($folder) = @_;
    return map { my $file = $_; $file =~ s{.*/}{}r => Digest::MD5::md5_hex(slurp($file)) . ' ' . (stat $file)[3] } segments($folder);
}

# name => the file itself: a link or a renamed file has the same.
sub inodes
{
    my ($folder) = @_;
    return map { s{.*/}{}r => join ':', (stat $_)[ 0, 1 ] } segments($folder);
}

# What is saved or to be saved.
sub staged { my ($node) = @_; return join ' ', glob($node->pgdata . '.follow_primary/job/lost*'), glob($node->pgdata . '.follow_primary/lost_wal-*') }

# The node's segments that have more than one name.
sub second_names { my ($node) = @_; return join ' ', grep { -f && (stat _)[3] > 1 } glob $node->pgdata . q{/pg_wal/*} }

# Five segments with a commit each that only $from has, and part of a sixth: returns the number of
# that.
sub diverge
{
    my ($from, $to) = @_;
    $from->wait_for_catchup($to);
    $to->promote;
    $to->safe_psql('INSERT INTO t VALUES (2); CHECKPOINT');
    $from->safe_psql("INSERT INTO t VALUES (1000); SELECT pg_switch_wal()") for 1 .. 5;
    $from->safe_psql('INSERT INTO t VALUES (1000)');
    return hex substr $from->safe_psql('SELECT pg_walfile_name(pg_current_wal_lsn())'), -8;
}

# A server goes on with the data: it writes more than it keeps, with checkpoints and restartpoints,
# and reuses segments.
sub live_on
{
    my ($primary, $node) = @_;
    for (1 .. $wal_mb / 30)
    {
        $primary->safe_psql("SELECT count(pg_logical_emit_message(true, 'test', repeat('x', 1000000))) FROM generate_series(1, 30)");
        $primary->safe_psql('INSERT INTO t VALUES (0); SELECT pg_switch_wal(); CHECKPOINT');
        $primary->wait_for_catchup($node) if $node;
        $node->safe_psql('CHECKPOINT') if $node;
    }
    return;
}

1;
