# The manual's first pgpool, to the letter: its settings, its role with EXECUTE and
# nothing else, its line of pg_hba.conf, its passwords. Only hosts, ports and folders
# are replaced. The primary is killed, and pgpool does the rest with these. The
# queries for a monitor are run, too. The other tests of pgpool have a superuser.

use FollowPrimary::Test;

my $top = $INC{'FollowPrimary/Test.pm'} =~ s{/?test/lib/.*}{}r || '.';
my $manual = slurp("$top/doc/pgpool.md") =~ s/.*^(?=## A first pgpool$)//smr;
my $role = 'pgpool';

# The block of code that begins with the text.
sub block
{
    my ($begin) = @_;
    my ($block) = grep { /\A$begin/ } $manual =~ /^```\w*\n(.*?)^```$/msg or BAIL_OUT("the manual has no block that begins with $begin");
    return $block;
}

plan(skip_all => 'pg_promote() is there from PostgreSQL 12 on') if pg_major() < 12;

# Nobody but the superuser and the replication role may log in before.
my $cluster = FollowPrimary::Cluster->new(nodes => 3, extension => 1,
    hba => "local all all trust\nhost all postgres 127.0.0.0/8 scram-sha-256\nhost replication repl 127.0.0.0/8 scram-sha-256\n");
my ($old, $new, $sibling) = $cluster->nodes;
for my $node ($cluster->nodes)
{
    append_text($node->pgdata . '/pg_hba.conf', block('host   postgres') =~ s{10\.0\.0\.9/32}{127.0.0.0/8}r);
    $node->set('follow_primary.primary_host' => $node->address);
}
$old->set_row($_, node_id => $_->id, pgdata => $_->pgdata) for $cluster->nodes;
$old->safe_psql(block('CREATE ROLE'));
$old->wait_for_catchup($_) for $new, $sibling;

my ($pgpass) = block('\(umask 077; echo .\*:9898') =~ /echo '(.*:\Q$role\E:.*)' >> ~\/\.pgpass/ or BAIL_OUT('the manual has no line for .pgpass');
append_text($cluster->passfile, $pgpass =~ s/5432/$old->port/er . "\n");
my %conf = map { /^(\w+) = '?(.*?)'?$/ ? ($1 => $2) : () } split /\n/, block('listen_addresses');
is(scalar(grep { /^backend_(?:hostname|port|data_directory|application_name)\d$/ } keys %conf), 12, 'the settings are read');
delete @conf{ 'listen_addresses', 'pcp_listen_addresses', grep { /^backend_/ } keys %conf };
my $pgpool = FollowPrimary::Pgpool->new(cluster => $cluster, follow => FollowPrimary::Pgpool->follow_command($role),
    conf => { %conf, map { ("backend_application_name@{[ $_->id ]}" => $_->address) } $cluster->nodes });
$pgpool->start;
$cluster->set('follow_primary.pcp_host' => $pgpool->address);
is($old->try_sql('SELECT * FROM follow_primary_all()', timeout => 120)->{ok}, 1, 'the nodes take their new names');
is($pgpool->nodes, '0:primary:up 1:standby:up 2:standby:up', 'pgpool shows a primary and two standbys');
is($old->safe_psql("SELECT string_agg(message, ' ') FROM follow_primary_check(everywhere => true) WHERE item = 'pgpool' AND status <> 'ok'"), '',
    'each server reaches its control port');
is($old->safe_psql(qq{SELECT string_agg(proname, ' ') FROM pg_proc WHERE proname LIKE 'follow_primary%' AND has_function_privilege('$role', oid, 'execute')
    AND NOT has_function_privilege('pg_monitor', oid, 'execute')}), 'follow_primary', 'the role may execute one function of the extension, beside what a monitor may');

$old->kill9;
$pgpool->wait_for_primary(1, 60);
$pgpool->wait_for_status(2 => 'up', 60);
streams_from($new, $sibling, 'the sibling');
is($new->job('state, method', node => $sibling), 'succeeded|repoint', 'its job succeeded');
ok($new->poll_query_until("SELECT state FROM follow_primary_job WHERE node_host = '@{[ $old->address ]}'", 'skipped', 20),
    'the former primary is down, and skipped');

# The queries for a monitor.
my @queries = slurp("$top/doc/monitoring.md") =~ /^```sql\n(SELECT .*?)^```$/msg;
my %answer = map { ($queries[$_] =~ /(follows|failed|errors)/)[0] => $new->safe_psql($queries[$_]) } 0 .. 2;
is(join(' ', sort map { join ':', (split /\|/)[2, 3] } split /\n/, $answer{follows}), ':0 primary:1 standby:1', 'it sees who follows nobody');
is($answer{failed}, 0, 'it sees no failed job');
like($answer{errors}, qr/^[1-9]\d*\|\d+$/, 'it sees that not every failover would work');
makes_follow($new, $old, 'the former primary', when_down => 'rejoin', attach => 'false');
like($new->safe_psql($queries[0]), qr/^(?:\S+\|(?:primary|standby)\|1\|.*\n?){3}$/, 'all follow then');

done_testing();
