# What programs and servers say is read by position, never by their words: the
# main scenarios, with servers that speak German and warn at each connection, as
# they do after an upgrade of the operating system, a role that is told everything
# there is to tell, and accounts whose programs speak German, too. Only real
# servers and programs have so much to say, and at such places.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 6, extension => 1, loud => 1, slots => 0, conf => {
    wal_keep_size => '512MB', lc_messages => 'de_DE.UTF-8', 'follow_primary.verify_timeout' => '20s' });
my ($old, $new, $sibling, $fork, $ahead, $copied) = $cluster->nodes;
my $german = run_ok([ $ENV{PG_CONFIG} // 'pg_config', '--configure' ]) =~ /--enable-nls/;

sub follows
{
    my ($node, $method, $what) = @_;
    follows_by($new, $node, $method, $what, when_down => 'rejoin', method => $method eq 'basebackup' && $node == $copied ? 'basebackup' : 'auto');
    return;
}

# It is as loud as it is meant to be.
like(($old->psql('SELECT 1', user => 'hears_all'))[2], qr/^DEBUG: /m, 'a connection has much to say');
like(($old->psql('SELECT 1'))[2], qr/1/, 'also to others') if FollowPrimary::Node::pg_major() >= 15;
like(($old->psql('SELECT 1/0'))[2], qr/FEHLER:  Division durch Null/, 'in German') if $german;

$old->safe_psql('CREATE TABLE t AS SELECT 1 AS i; CHECKPOINT');
$old->wait_for_catchup($_) for $new, $sibling, $fork, $ahead, $copied;

# A standby that received more than the new primary did, and crashed, another two that
# did not, and a primary that crashed.
for my $node ($new, $sibling, $copied)
{
    $node->set_standby(primary_conninfo => 'host=127.0.0.1 port=1 user=repl');
    $node->poll_query_until('SELECT count(*) FROM pg_stat_wal_receiver', '0');
}
$old->safe_psql('INSERT INTO t VALUES (1000)');
$old->wait_for_catchup($_) for $ahead, $fork;
$ahead->kill9;
$old->kill9;
$new->promote;
$new->safe_psql('INSERT INTO t VALUES (2); CHECKPOINT');

follows($sibling, 'repoint', 'a healthy standby');
follows($sibling, 'none', 'the same, again');
follows($copied, 'basebackup', 'a copy that was asked for');
follows($ahead, 'rewind', 'a crashed standby that is ahead');
follows($fork, 'rewind', 'a running standby that is ahead');
follows($old, 'rewind', 'a crashed primary');
is($new->job('lost_transactions'), '1', 'what it loses is counted');

# The primary crashes, and its WAL is gone: what single-user mode says of that must not
# matter.
$new->wait_for_catchup($_) for $sibling, $fork;
my $crashed = $new;
$new->kill9;
unlink glob $new->pgdata . '/pg_wal/0*';
$sibling->promote;
$new = $sibling;
$new->safe_psql('INSERT INTO t VALUES (3); CHECKPOINT');
follows($fork, 'repoint', 'a healthy standby, after another failover');
follows($crashed, 'basebackup', 'a crashed primary whose WAL is gone');
like($new->job('reason'), qr/crash recovery failed/, 'for its data cannot be recovered');

# A server that could not start: what it said is told.
$fork->stop;
$fork->append_conf("shared_buffers = '9999TB'\n");
my $r = $new->make_follow($fork, when_down => 'rejoin');
is($r->{sqlstate}, 'F0000', 'a server that cannot read its configuration: the error') or diag($r->{err});
like($r->{detail}, qr/invalid value for parameter "shared_buffers"/, 'has what it said, in English');

# A node that is down is skipped.
$r = $new->make_follow($fork);
ok($r->{ok}, 'a node that is down is skipped') or diag($r->{err});
is($new->job('state'), 'skipped', 'and the job says so');

done_testing();
