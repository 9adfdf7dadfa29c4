# A node that has been away for a day, while its slot holds WAL for it, is named in the
# primary's log, once; also where the primary was restarted meanwhile, or another one
# than when the node went away. What is measured is the column that says since when:
# it is set back by 25 hours, for nobody waits so long. Only servers that run and stop
# show that it is set and cleared at the right time.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 3, extension => 1, conf => { shared_preload_libraries => 'follow_primary', max_worker_processes => 16 });
my ($primary, $standby, $sibling) = $cluster->nodes;
my $row = "FROM follow_primary_slot WHERE node_host = '@{[ $sibling->address ]}'";
my $named = qr/node \Q@{[ $sibling->address . ':' . $sibling->port ]}\E has been away for more than a day, and replication slot "@{[ $sibling->slot_name ]}" holds \d+ \w+ of WAL for it/;
my $message = qr/has been away for more than a day/;

sub times_told { my ($node) = @_; return scalar(() = $node->log_content =~ /WARNING: .*$message/g) }
sub set_back { my ($node) = @_; $node->safe_psql("UPDATE follow_primary_slot SET away_since = away_since - interval '25 hours' WHERE away_since IS NOT NULL"); return }

# The keeper has looked at least twice since.
sub looked
{
    my ($node) = @_;
    my $rounds = 0;
    my $seen = '';
    wait_until('the keeper of ' . $node->name . ' looks', sub {
        my $now = $node->safe_psql(q{SELECT string_agg(state_change::text, ' ') FROM pg_stat_activity WHERE backend_type = 'follow_primary keeper' AND datname IS NOT NULL});
        $rounds++ if $now ne $seen;
        $seen = $now;
        return $rounds > 5;
    }, 60);
    return;
}

$primary->poll_query_until('SELECT count(*) FROM follow_primary_slot', 3) or die "no rows\n";
looked($primary);
is($primary->safe_psql('SELECT count(*) FROM follow_primary_slot WHERE away_since IS NOT NULL'), 0, 'nobody is away');

$sibling->stop;
ok($primary->poll_query_until("SELECT away_since > now() - interval '1 minute' AND NOT away_told $row"), 'a node that is stopped is away from then on');
is($primary->safe_psql('SELECT count(*) FROM follow_primary_slot WHERE away_since IS NOT NULL'), 1, 'and no other');
looked($primary);
is(times_told($primary), 0, 'nothing is said before the day is over');
my $written = $primary->safe_psql('SELECT away_since ' . $row);
$primary->restart;
looked($primary);
is($primary->safe_psql('SELECT away_since ' . $row), $written, 'a restart does not begin the day anew');

set_back($primary);
ok($primary->poll_query_until("SELECT away_told $row"), 'a day later');
looked($primary);
like($primary->log_content, $named, 'the log names node and slot');
is(times_told($primary), 1, 'once');
$primary->restart;
looked($primary);
is(times_told($primary), 1, 'also after a restart');

# On the next primary the former one is away, and the sibling for longer than that.
$primary->wait_for_catchup($standby);
$primary->kill9;
$standby->promote;
ok($standby->poll_query_until('SELECT count(*) FROM follow_primary_slot WHERE away_since IS NOT NULL', 2), 'after a failover the former primary is away, too');
looked($standby);
is(times_told($standby), 0, 'the new primary does not repeat what was said');
set_back($standby);
ok($standby->poll_query_until('SELECT count(*) FROM follow_primary_slot WHERE away_told', 2), 'a day later');
like($standby->log_content, qr/WARNING: .*node \Q@{[ $primary->address ]}\E:\d+ has been away/, 'it names the former primary');
is(times_told($standby), 1, 'and only that');

# Back again.
$sibling->start;
makes_follow($standby, $sibling, 'the sibling follows again');
ok($standby->poll_query_until("SELECT away_since IS NULL AND NOT away_told $row"), 'then it is not away any more');
$sibling->stop;
ok($standby->poll_query_until("SELECT away_since IS NOT NULL $row"), 'the next time');
set_back($standby);
ok($standby->poll_query_until("SELECT away_told $row"), 'a day later');
like($standby->log_content, $named, 'it is named again');

done_testing();
