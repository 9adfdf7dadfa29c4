package FollowPrimary::Test;

# What a scenario uses: the classes, and a few helpers by name.
#
#   use FollowPrimary::Test;
#
#   my $cluster = FollowPrimary::Cluster->new(nodes => 3, extension => 1);
#   my ($old, $new, $sibling) = $cluster->nodes;
#   my $pgpool = FollowPrimary::Pgpool->new(cluster => $cluster, follow => 1);
#   $pgpool->start;
#   $old->kill9;
#   $pgpool->wait_for_status($sibling->id, 'up');
#   is($new->safe_psql("SELECT state FROM follow_primary_job"), 'succeeded');
#   done_testing();
#
# Run as any account but root:  prove -I test/lib test/t
# PG_CONFIG chooses the PostgreSQL, FOLLOW_PRIMARY_KEEP=1 keeps the folder.
# When a test fails, the ends of all logs are printed.
#
# Helpers: wait_until('what', sub { … }, seconds), run_command([…]) returning
# (code, out, err), run_ok([…]) returning out, scratch_dir, free_port,
# free_address, slurp, spew, append_text, our_processes, our_commands,
# process_tree, process_alive, libssh2, make_ssh_key, pg_major, reloads, quote,
# bindir, bindir_with, makes_follow, follows_by, has_rows_of, streams_from;
# remote_script('stop', { pgdata => …, timeout => 10 }, …), the command that runs a
# script of src/remote by hand.

use strict;
use warnings;

use Exporter ();
use FollowPrimary::Scratch ();
use FollowPrimary::Host qw(libssh2 make_ssh_key);
use FollowPrimary::Node qw(pg_major reloads quote bindir bindir_with);
use FollowPrimary::Cluster;
use FollowPrimary::Pgpool;
use Test::More;

my @helpers = qw(scratch_dir run_command run_ok wait_until free_address free_port
    slurp spew append_text remote_script our_processes our_commands process_tree process_alive);
my @of_nodes = qw(pg_major reloads quote bindir bindir_with);
our @ISA = qw(Exporter);
our @EXPORT = (@helpers, @of_nodes, qw(libssh2 make_ssh_key makes_follow follows_by has_rows_of streams_from), @Test::More::EXPORT);
FollowPrimary::Scratch->import(@helpers);

my $owner = $$;

sub import
{
    strict->import;
    warnings->import;
    if ($> == 0)
    {
        plan(skip_all => 'PostgreSQL does not run as root: runuser -u postgres -- prove …');
    }
    __PACKAGE__->export_to_level(1, @_);
    return;
}

# The call on the primary makes the node follow.  Arguments as make_follow's; returns
# what that returns.
sub makes_follow
{
    my ($primary, $node, $what, %arguments) = @_;
    my $r = $primary->make_follow($node, %arguments);
    ok($r->{ok}, $what) or diag($r->{err});
    return $r;
}

# The same, by that method, and with the primary's rows in table t.
sub follows_by
{
    my ($primary, $node, $method, $what, %arguments) = @_;
    my $r = makes_follow($primary, $node, "$what: it follows", %arguments);
    is($primary->job('method, state'), "$method|succeeded", "$what: $method");
    has_rows_of($primary, $node, $what);
    return $r;
}

# A new row of the primary arrives on the node, which then has all its rows and no
# other.  Tables (t) have a column i, a number.
sub has_rows_of
{
    my ($primary, $node, $what, @tables) = @_;
    @tables = ('t') if !@tables;
    $primary->safe_psql("INSERT INTO $_ (i) VALUES (0)") for @tables;
    $primary->wait_for_catchup($node);
    my $rows = 'SELECT ' . join ', ', map { "(SELECT count(*) || ' ' || sum(i) FROM $_)" } @tables;
    is($node->safe_psql($rows), $primary->safe_psql($rows), "$what: it has the primary's rows, new ones too, and no other");
    return;
}

# The node streams the primary's timeline, through its own slot.
sub streams_from
{
    my ($primary, $node, $what) = @_;
    is($node->safe_psql('SELECT slot_name, received_tli FROM pg_stat_wal_receiver'),
        join('|', $node->slot_name, $primary->timeline), "$what: it streams the primary's timeline through its slot");
    return;
}

# Runs before the scratch folder goes.
END
{
    if ($$ == $owner && ($? != 0 || !Test::More->builder->is_passing))
    {
        my $status = $?;
        my $dir    = FollowPrimary::Scratch::scratch_dir();
        for my $file (sort glob "$dir/*/*.log")
        {
            my @lines = split /^/, FollowPrimary::Scratch::slurp($file);
            splice @lines, 0, @lines - 30 if @lines > 30;
            diag("--- end of $file\n", @lines);
        }
        $? = $status;
    }
}

1;
