# A repoint, with a restart and without, touches none of the node's own files, and
# starts the server with them: its settings, its logs and its links are where they
# were, also when it is undone. Only a server that is restarted shows it.

use FollowPrimary::Test;
use FollowPrimary::OwnFiles;

my $cluster = FollowPrimary::Cluster->new(nodes => 2, extension => 1);
my ($primary, $node) = $cluster->nodes;
my $own = FollowPrimary::OwnFiles->new($node);
$primary->safe_psql('CREATE TABLE t AS SELECT generate_series(1, 1000) AS i');
$node->follow($primary, $cluster->standby_options, conninfo => $own->conninfo);
$node->restart;
$node->wait_for_streaming($primary);
$own->remember;
my $slot = 'one';

sub follows
{
    my ($what) = @_;
    has_rows_of($primary, $node, $what);
    $own->unchanged($what);
    like($node->standby_setting('primary_conninfo'), qr/certs\/linked\.key.*leads-back/, "$what: its connection string names them still");
    is(join(' ', glob($node->pgdata . '.follow_primary/*')), '', "$what: nothing is left beside the data");
    return;
}

my $r = $primary->make_follow($node, slot_name => $slot++);
ok($r->{ok}, 'repoint') or diag($r->{err});
follows('repoint');

my $pid = $node->pid;
$node->set_standby(recovery_target_timeline => 'current');
$r = $primary->make_follow($node, slot_name => $slot++);
ok($r->{ok}, 'repoint with a restart') or diag($r->{err});
isnt($node->pid, $pid, 'it was restarted');
is($primary->safe_psql('SELECT string_agg(method, \' \' ORDER BY id) FROM follow_primary_job'), 'repoint repoint', 'both were repoints');
follows('repoint with a restart');

# Undone: no proof comes.
$node->set_standby(recovery_target_timeline => 'current');
$primary->safe_psql('ALTER ROLE repl NOLOGIN');
$r = $primary->try_sql("SET follow_primary.verify_timeout = '3s'; " . $primary->follow_sql($node, slot_name => $slot++));
ok(!$r->{ok}, 'a repoint with a restart fails');
ok($node->running, 'and is undone');
$own->unchanged('undone');
$primary->safe_psql('ALTER ROLE repl LOGIN');

done_testing();
