# The item pgpool of follow_primary_check(), with a real pgpool: what a job would
# meet when it attaches the node is found before the failover. Proves that PCP is
# asked, and not only configured.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 3, extension => 1, conf => { max_worker_processes => 12, 'follow_primary.connect_timeout' => '3s' });
my ($primary, $candidate, $sibling) = $cluster->nodes;
my $pgpool = FollowPrimary::Pgpool->new(cluster => $cluster);
$pgpool->start;
$primary->safe_psql(sprintf q{UPDATE follow_primary_node SET node_id = %d WHERE host = '%s'}, $_->id, $_->address) for $cluster->nodes;
$primary->wait_for_catchup($candidate);
my %pcp = ('follow_primary.pcp_host' => $pgpool->address, 'follow_primary.pcp_port' => $pgpool->pcp_port,
    'follow_primary.pcp_user' => $pgpool->pcp_user, 'follow_primary.pcp_pass_file' => $pgpool->pcp_pass_file);

# Status and hint of the item for the sibling.
sub item
{
    my (%change) = @_;
    my %set = (%pcp, %change);
    my $sql = join '', map { "SET $_ = '$set{$_}'; " } sort keys %set;
    return $candidate->safe_psql($sql . "SELECT status || ': ' || coalesce(hint, '') FROM follow_primary_check('@{[ $sibling->address ]}', @{[ $sibling->port ]}) WHERE item = 'pgpool'");
}

is(item(), 'ok: ', 'pgpool has the node under its number');
like(item('follow_primary.pcp_host' => ''), qr/^unknown: Set follow_primary\.pcp_host/, 'where pgpool is has to be told');
my $wrong = spew(scratch_dir('wrong') . '/pcppass', '*:*:' . $pgpool->pcp_user . ":wrong\n", 0600);
like(item('follow_primary.pcp_pass_file' => $wrong), qr/^error: ./, 'a wrong password is an error');
like(item('follow_primary.pcp_user' => 'nobody_there'), qr/^error: ./, 'so is a user without one');
$primary->safe_psql(sprintf q{UPDATE follow_primary_node SET node_id = 0 WHERE host = '%s'}, $sibling->address);
$primary->wait_for_catchup($candidate);
like(item(), qr/^error: Correct node_id/, "so is another node's number");
$primary->safe_psql(sprintf q{UPDATE follow_primary_node SET node_id = 7 WHERE host = '%s'}, $sibling->address);
$primary->wait_for_catchup($candidate);
like(item(), qr/^error: Correct node_id/, 'and one that pgpool does not have');
$primary->safe_psql(sprintf q{UPDATE follow_primary_node SET node_id = %d WHERE host = '%s'}, $sibling->id, $sibling->address);
$primary->wait_for_catchup($candidate);
is(item(), 'ok: ', 'mended, it is well again');
$primary->safe_psql(sprintf q{UPDATE follow_primary_node SET application_name = 'other' WHERE host = '%s'}, $sibling->address);
$primary->wait_for_catchup($candidate);
like(item(), qr/^warning: Set backend_application_name@{[ $sibling->id ]} = 'other' in pgpool\.conf, or another application_name in the node's row: /,
    'pgpool would not know the node by the name that a job gives it');
$primary->safe_psql(sprintf q{UPDATE follow_primary_node SET application_name = '%s' WHERE host = '%s'}, $sibling->name, $sibling->address);
$primary->wait_for_catchup($candidate);
is(item(), 'ok: ', 'by that name it does');
is($pgpool->pool_node($sibling->id)->{status}, 'up', 'pgpool was only asked');
$pgpool->stop;
my $began = time;
like(item('follow_primary.connect_timeout' => '12s'), qr/^error: ./, 'a pgpool that is not there is an error');
cmp_ok(time - $began, '<', 7, 'which does not take as long as an unreachable host may');

done_testing();
