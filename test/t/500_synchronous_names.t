# The name by which a primary knows its standby stays: what primary_conninfo says,
# else the server's cluster_name. Where synchronous_standby_names has that name, a
# commit would wait for ever for another one. What a WAL receiver calls itself is
# its server's affair, so there must be servers, and commits that wait.

use FollowPrimary::Test;

my $major   = FollowPrimary::Node::pg_major();
my $cluster = FollowPrimary::Cluster->new(nodes => 3, extension => 1, conf => { 'follow_primary.verify_timeout' => '20s' });
my ($old, $new, $sibling) = $cluster->nodes;
my $by_cluster_name = $major >= 12;    # before, a WAL receiver is "walreceiver"

# Both have it from cluster_name alone, as where nobody ever wrote an application_name.
sub without_name
{
    my ($node, $primary) = @_;
    $node->set_standby(primary_conninfo => "host=@{[ $primary->address ]} port=@{[ $primary->port ]} user=repl passfile=@{[ $cluster->passfile ]}");
    $node->wait_for_streaming($primary);
    return;
}
sub known_as
{
    my ($node, $primary) = @_;
    return $primary->safe_psql("SELECT application_name FROM pg_stat_replication r JOIN pg_replication_slots ON active_pid = r.pid WHERE slot_name = '@{[ $node->slot_name ]}'");
}
sub commits
{
    my ($primary, $what) = @_;
    my ($code, $out, $err) = $primary->psql("SET statement_timeout = '10s'; INSERT INTO t VALUES (1)");
    is("$code$err", '0', $what);
    return;
}
sub last_detail
{
    my ($primary, $step) = @_;
    return $primary->safe_psql("SELECT detail FROM follow_primary_step WHERE step = '$step' ORDER BY job_id DESC LIMIT 1");
}

$old->safe_psql('CREATE TABLE t AS SELECT 1 AS i');
$old->wait_for_catchup($_) for $new, $sibling;
without_name($sibling, $old);
my $own_name = $by_cluster_name ? $sibling->name : 'walreceiver';
is(known_as($sibling, $old), $own_name, 'a standby without an application_name has its cluster_name');

# Repoint: every commit waits for the sibling, by that name.
$cluster->set(synchronous_standby_names => $own_name);
$old->wait_for_catchup($_) for $new, $sibling;
is($new->safe_psql("SELECT status FROM follow_primary_check() WHERE item = 'synchronous_standby_names'"), 'ok',
    'before the failover the check of the candidate knows that name');
$old->kill9;
$new->promote;
my $r = $new->make_follow($sibling);
ok($r->{ok}, 'it follows the new primary') or diag($r->{err});
is(known_as($sibling, $new), $own_name, 'under the name that it had');
commits($new, 'and commits on the primary do not hang');
unlike($r->{err}, qr/synchronous/, 'nothing is said of it');

# The former primary, which has had no WAL receiver: rewound, then copied.
my $old_name = $by_cluster_name ? $old->name : $old->address;
$cluster->set(synchronous_standby_names => "FIRST 2 (\"$own_name\", \"$old_name\")");
for my $method ('rewind', 'basebackup')
{
    $r = $new->make_follow($old, when_down => 'rejoin', method => $method);
    ok($r->{ok}, "by a $method: the former primary follows") or diag($r->{err});
    is(known_as($old, $new), $old_name, 'it is known as its cluster_name says');
    commits($new, 'and commits on the primary do not hang');
}

# It is again the name that is there when the node is down.
$sibling->stop;
$r = $new->make_follow($sibling, when_down => 'rejoin', method => 'rewind');
ok($r->{ok}, 'a stopped standby follows') or diag($r->{err});
is(known_as($sibling, $new), $own_name, 'under the name that it had');

# Of a cluster_name with blanks, quotes and capital letters; names are matched whatever their case.
SKIP:
{
    skip 'cluster_name is not the name before 12', 3 if !$by_cluster_name;
    $sibling->set(cluster_name => q{It's "db 3"\\});
    $sibling->restart;
    $cluster->set(synchronous_standby_names => 'ANY 1 ("IT\'S ""db 3""\\")');
    $sibling->stop;
    $r = $new->make_follow($sibling, when_down => 'rejoin', method => 'basebackup');
    ok($r->{ok}, 'a standby with an odd cluster_name follows') or diag($r->{err});
    is(known_as($sibling, $new), q{It's "db 3"\\}, 'under that name');
    commits($new, 'and commits on the primary do not hang');
}

# Told to take another name, by which it is no candidate any more: that is said.
$cluster->set(synchronous_standby_names => '');
$new->poll_query_until("SELECT setting FROM pg_settings WHERE name = 'synchronous_standby_names'", '');
$cluster->set(synchronous_standby_names => "ANY 1 (\"$own_name\", s1)");
$sibling->set(cluster_name => $sibling->name);
$sibling->restart;
$sibling->wait_for_streaming($new);
$r = $new->make_follow($sibling, application_name => 'other');
ok($r->{ok}, 'a standby that gets another name follows') or diag($r->{err});
my $said = qr/"\Q$own_name\E".*"other".*synchronous_standby_names/s;
like($r->{err}, qr/NOTICE:.*$said/, 'a NOTICE says that it is no candidate for synchronous replication any more');
like(last_detail($new, 'verify'), $said, 'and so does the step');
$r = $new->make_follow($sibling, application_name => 'S1');
ok($r->{ok}, 'one that gets a name of the list follows') or diag($r->{err});
unlike($r->{err}, qr/synchronous/, 'nothing is said of it');

# A list on the former primary alone: it is read there.
$_->set(synchronous_standby_names => '') for $old, $new, $sibling;
$_->reload for $old, $new, $sibling;
$sibling->set(synchronous_standby_names => 'S1');
$sibling->reload;
$r = $new->make_follow($sibling, application_name => 'other');
ok($r->{ok}, 'it follows under another name') or diag($r->{err});
like($r->{err}, qr/NOTICE:.*"S1".*"other".*synchronous_standby_names/s, "that it is none by the node's own list is said, too");

done_testing();
