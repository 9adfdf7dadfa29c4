# Two standbys that are promoted separately at the same point are on the same
# timeline. Their history files are equal, and each accepts the other's WAL: pg_rewind
# sees nothing to do, replication "streams", and the data silently differs. The job
# must see the fork from the WAL itself, whether the other node runs as a primary,
# streams as a standby, or is down. Only a real WAL sender is deceived like that.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 6, extension => 1,
    conf => { 'follow_primary.verify_timeout' => '20s' });
my ($old, $new, $twin, $crashed, $early, $follower) = $cluster->nodes;

$old->safe_psql('CREATE TABLE t AS SELECT 1 AS i');
$old->wait_for_catchup($_) for $new, $twin, $crashed, $early, $follower;
$early->promote;    # the same timeline, but it begins elsewhere
$early->create_slot($follower->slot_name);
$follower->follow($early, slot => 1);
$follower->restart;
$follower->wait_for_streaming($early);
$early->safe_psql('INSERT INTO t SELECT 3000');
$early->wait_for_catchup($follower);
$old->safe_psql('INSERT INTO t SELECT 1');
$old->wait_for_catchup($_) for $new, $twin, $crashed;
$old->stop;    # all have the same WAL now, to the byte
$_->poll_query_until('SELECT count(*) FROM pg_stat_wal_receiver', '0') for $new, $twin, $crashed;
$_->promote for $new, $twin, $crashed;
sub history { return slurp($_[0]->pgdata . '/pg_wal/00000002.history') }
is(history($twin), history($new), 'both have the same history');
my $fork = (split ' ', history($new))[1];

$twin->safe_psql(q{INSERT INTO t SELECT generate_series(1000, 3000); INSERT INTO t SELECT 1001});
$crashed->safe_psql('INSERT INTO t SELECT 2000');
$crashed->kill9;
$new->safe_psql('INSERT INTO t SELECT 2');

sub follows
{
    my ($node, $what, $lost, $from) = @_;
    $from //= $fork;
    my $r = makes_follow($new, $node, "$what: it is made to follow", when_down => 'rejoin');
    is($new->safe_psql('SELECT method, fork_lsn, lost_transactions >= ' . $lost . ', lost_wal_bytes > 0 FROM follow_primary_job ORDER BY id DESC LIMIT 1'),
        "basebackup|$from|t|t", "$what: by a copy; what is lost is counted from the fork on");
    my $dir = $new->job('lost_wal_dir');
    cmp_ok($node->commits_in($dir, 2, $from), '>=', $lost, "$what: and saved");
    has_rows_of($new, $node, $what);
    return;
}

# The twin runs as a primary.
like($new->plan_for($twin), qr/^basebackup\|.*promoted separately/, 'a primary: the plan says what it is');
my $r = $new->make_follow($twin, method => 'rewind');
is($r->{sqlstate}, '55000', 'a primary: a rewind is refused, even when it is asked for');
like($r->{message}, qr/promoted separately to the same timeline/, 'a primary: with the reason');

# Somebody made the twin a standby of the primary as it is.
$twin->stop;
$new->create_slot($twin->slot_name);
$twin->follow($new, slot => 1);
$twin->start;
$twin->poll_query_until('SELECT status, received_tli FROM pg_stat_wal_receiver', 'streaming|2')
    or BAIL_OUT('PostgreSQL has become cleverer: the fork does not stream');
is($new->safe_psql(q{SELECT state FROM pg_stat_replication}), 'streaming', 'a standby: pg_stat_replication shows nothing wrong');
like($new->plan_for($twin), qr/^basebackup\|/, 'a standby: but the plan is neither none nor a repoint');
$r = $new->make_follow($twin, method => 'repoint');
is($r->{sqlstate}, '55000', 'a standby: a repoint is refused');
follows($twin, 'a standby', 2);

# A crashed one, whose control file still has timeline 1.
like($new->plan_for($crashed, when_down => 'rejoin'), qr/^basebackup\|/, 'down: the plan is a copy');
follows($crashed, 'down', 1);

# A standby of the server that was promoted earlier. That server's timeline has the
# same number, and the histories show the fork. The standby has less WAL of it than
# this server.
my $begin = (split ' ', history($early))[1];
$new->safe_psql('CREATE TABLE more AS SELECT generate_series(1, 20000) AS i');
is($new->safe_psql("SELECT pg_current_wal_flush_lsn() > '" . $follower->safe_psql('SELECT pg_last_wal_receive_lsn()') . "'"), 't',
    'a standby of one promoted earlier: its WAL is not longer');
like($new->plan_for($follower), qr/^basebackup\|.*began elsewhere/, 'a standby of one promoted earlier: the plan is a copy, too');
$r = $new->make_follow($follower, method => 'rewind');
is($r->{sqlstate}, '55000', 'a standby of one promoted earlier: a rewind is refused') or diag($r->{err});
# It is killed before its control file knows of that timeline.
$follower->kill9;
follows($follower, 'a standby of one promoted earlier', 1, $begin);

# The server that was promoted earlier.
isnt($begin, $fork, 'promoted earlier: its timeline 2 begins elsewhere');
like($new->plan_for($early), qr/^basebackup\|/, 'promoted earlier: pg_rewind looks at the number alone, so the plan is a copy');
follows($early, 'promoted earlier', 1, $begin);

is($new->plan_for($_) =~ /^none/, 1, $_->name . ' follows now') for $twin, $crashed, $follower, $early;

done_testing();
