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
# free_address, slurp, spew, append_text, our_processes, process_tree, libssh2,
# make_ssh_key.

use strict;
use warnings;

use Exporter ();
use FollowPrimary::Scratch ();
use FollowPrimary::Host qw(libssh2 make_ssh_key);
use FollowPrimary::Node;
use FollowPrimary::Cluster;
use FollowPrimary::Pgpool;
use Test::More;

my @helpers = qw(scratch_dir run_command run_ok wait_until free_address free_port
    slurp spew append_text our_processes process_tree process_alive);
our @ISA = qw(Exporter);
our @EXPORT = (@helpers, qw(libssh2 make_ssh_key), @Test::More::EXPORT);
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
