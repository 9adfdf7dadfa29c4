# A machine that crashed leaves postmaster.pid behind, and after its boot any program
# of the same user may have that pid. A server refuses to start then. A node comes back
# all the same, by each method; the program lives on. Only a real server tells what it
# refuses.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 3, extension => 1);
my ($old, $new, $standby) = $cluster->nodes;

$old->safe_psql('CREATE TABLE t AS SELECT generate_series(1, 1000) AS i; CHECKPOINT');
$old->wait_for_catchup($_) for $new, $standby;
$standby->kill9;
$old->kill9;
$new->promote;

my $other = FollowPrimary::Process->start([ 'sleep', '987655' ]);

# The lock file is what it was, but for the pid.
sub taken
{
    my ($node) = @_;
    my $file = $node->pgdata . '/postmaster.pid';
    my $text = -e $file ? slurp($file) : "1\n" . $node->pgdata . "\n1\n" . $node->port . "\n\n\n\n";
    spew($file, $text =~ s/^\d+/$other->pid/er);
    unlink glob($node->host->dir . '/.s.PGSQL.*');
    return;
}

for my $case ([ 'a killed primary', $old, 'rewind' ], [ 'a killed standby', $standby, 'rewind' ], [ 'a copy', $standby, 'basebackup' ])
{
    my ($what, $node, $method) = @$case;
    $node->kill9 if $node->running;
    taken($node);
    ok(!$node->start(fail_ok => 1), "$what: it does not start as it is");
    taken($node);
    makes_follow($new, $node, "$what: it follows", when_down => 'rejoin', method => $method);
    has_rows_of($new, $node, $what);
    ok(kill(0, $other->pid), "$what: the program that has the pid lives");
}
$other->stop;

done_testing();
