# follow_primary_check() from one server for all of them, for those who may; with
# a server that hangs, with nothing configured, with wrong arguments. Proves that
# every server answers for itself, that no time limit is waited for twice, and that
# nobody waits with a snapshot.

use FollowPrimary::Test;
use Time::HiRes 'time';

my $cluster = FollowPrimary::Cluster->new(nodes => 3, extension => 1,
    conf => { shared_preload_libraries => 'follow_primary', max_worker_processes => 12, 'follow_primary.connect_timeout' => '4s' });
my ($primary, $standby, $sibling) = $cluster->nodes;
my @names = map { $_->address . ':' . $_->port } $cluster->nodes;

sub matrix
{
    my ($node, $arguments, %opt) = @_;
    my $from = time;
    my $r    = $node->try_sql("SELECT candidate || ' ' || coalesce(node, '-') || ' ' || item || ' ' || status || ' ' || coalesce(hint, '')
        FROM follow_primary_check($arguments)", %opt);
    return { %$r, took => time - $from, rows => [ split /\n/, $r->{out} ] };
}

# Everybody is asked, and each has tried every other one.
my @pairs = sort map { my $c = $_; map { "$c $_" } grep { $_ ne $c } '-', @names } @names;
for my $node ($primary, $standby)
{
    my $r = matrix($node, 'everywhere => true');
    ok($r->{ok}, $node->name . ': everywhere') or diag($r->{err});
    my %seen = map { /^(\S+ \S+)/ ? ($1 => 1) : () } @{ $r->{rows} };
    is(join(', ', sort keys %seen), join(', ', @pairs), 'the whole matrix');
    is(join("\n", grep { !/ ok / } @{ $r->{rows} }), '', 'all is well');
    cmp_ok($r->{took}, '<', 10, 'soon');
    diag(sprintf '%s: %d rows in %.2f s', $node->name, scalar @{ $r->{rows} }, $r->{took});
}

# One node alone.
my $r = matrix($standby, "'@{[ $sibling->address ]}', @{[ $sibling->port ]}");
my %seen = map { /^\S+ (\S+)/ ? ($1 => 1) : () } @{ $r->{rows} };
is(join(' ', sort keys %seen), "- $names[2]", 'one node that is named');

# Something that only one server can see.
spew($sibling->config_dir . '/pg_hba.conf', "host replication repl all reject\n" . slurp($sibling->config_dir . '/pg_hba.conf'));
$sibling->restart;
$r = matrix($primary, 'everywhere => true');
is(join(', ', sort map { /^(\S+ \S+ \S+ \S+)/ } grep { !/ ok / } @{ $r->{rows} }),
    join(', ', sort map { "$names[2] $_ replication error" } @names[0, 1]), "the sibling's pg_hba.conf is its own affair");
spew($sibling->config_dir . '/pg_hba.conf', slurp($sibling->config_dir . '/pg_hba.conf') =~ s/^host replication repl all reject\n//r);
$sibling->restart;

# A server that hangs costs its time limit once, and is one row.
$sibling->host->ssh_freeze;
$r = matrix($primary, 'everywhere => true');
$sibling->host->ssh_thaw;
cmp_ok($r->{took}, '<', 4 + 3, 'a node that hangs costs its connect_timeout once') or diag("$r->{took} s");
is(join(', ', sort map { /^(\S+ \S+ \S+ \S+)/ } grep { !/ ok / } @{ $r->{rows} }),
    join(', ', sort("$names[0] $names[2] ssh error", "$names[1] $names[2] ssh error", "$names[2] - check unknown")),
    'those who look at it say so, and its own check is unknown');

# It holds no snapshot meanwhile.
$sibling->host->ssh_freeze;
my $waiting = $primary->psql_start('SELECT * FROM follow_primary_check()');
my $seen = $primary->poll_query_until(q{SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%FROM follow_primary_check()' AND state = 'active'
    AND backend_xmin IS NULL AND pid <> pg_backend_pid()}, 1, 4);
ok($seen, 'no snapshot is held while it waits');
ok($primary->poll_query_until(q{SELECT count(*) FILTER (WHERE backend_xmin IS NOT NULL) FROM pg_stat_activity WHERE backend_type LIKE 'follow_primary check%' HAVING count(*) > 0}, 0, 3),
    'nor by a worker, but for a moment');
$primary->safe_psql(q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE '%FROM follow_primary_check()' AND pid <> pg_backend_pid()});
$waiting->wait(10);
like($waiting->err, qr/canceling statement/, 'it can be cancelled');
ok($primary->poll_query_until(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'follow_primary check%'}, 0, 3), 'with all its workers');
$sibling->host->ssh_thaw;

# For a role with EXECUTE: nodes of the table alone.
$primary->safe_psql('CREATE ROLE watcher LOGIN; GRANT EXECUTE ON FUNCTION follow_primary_check(text, integer, boolean) TO watcher; CREATE ROLE plain LOGIN');
$primary->wait_for_catchup($standby);
$r = matrix($standby, '', user => 'watcher');
is(join("\n", $r->{err}, grep { !/ ok / } @{ $r->{rows} }), '', 'a role that was granted it sees all rows');
is(matrix($standby, "'127.0.0.1', 1", user => 'watcher')->{sqlstate}, '42501', 'but may name no node that has no row');
is(matrix($standby, '', user => 'plain')->{sqlstate}, '42501', 'another role may not call it');

# The rewind role may be no superuser: it needs the GRANT.
$primary->safe_psql(<<'END');
CREATE ROLE rewinder LOGIN;
GRANT pg_monitor TO rewinder;
GRANT EXECUTE ON FUNCTION pg_ls_dir(text, boolean, boolean), pg_stat_file(text, boolean), pg_read_binary_file(text),
    pg_read_binary_file(text, bigint, bigint, boolean) TO rewinder;
UPDATE follow_primary_node SET rewind_user = 'rewinder';
END
$primary->wait_for_catchup($_) for $standby, $sibling;
$r = matrix($primary, 'everywhere => true');
my @bad = grep { !/ ok / } @{ $r->{rows} };
is(scalar @bad, 2, 'two servers cannot be asked') or diag(join "\n", @bad);
like($_, qr/ - check unknown On the primary: GRANT EXECUTE ON FUNCTION public\.follow_primary_check\(text, integer, boolean\) TO rewinder$/, 'and the hint is the GRANT') for @bad;
my ($grant) = ($bad[0] // '') =~ /(GRANT .*)/;
$primary->safe_psql($grant);
$primary->wait_for_catchup($_) for $standby, $sibling;
$r = matrix($primary, 'everywhere => true');
is(join("\n", grep { !/ ok / } @{ $r->{rows} }), '', 'which is enough');

# Wrong arguments are errors, and wrong rows are rows.
is(matrix($standby, q{'a b'})->{sqlstate}, '22023', 'no host');
is(matrix($standby, q{'db9', 0})->{sqlstate}, '22023', 'no port');
is(matrix($standby, q{node_port => 5432})->{sqlstate}, '22023', 'a port without a host');
is(matrix($standby, q{everywhere => NULL})->{sqlstate}, '22004', 'null');
is(matrix($standby, "'@{[ $standby->address ]}', @{[ $standby->port ]}")->{sqlstate}, '22023', 'this server itself');
$r = matrix($standby, q{'no.such.host.invalid', 5432});
is(join(', ', map { /^\S+ (\S+ \S+ \S+)/ } grep { !/ ok / } @{ $r->{rows} }), 'no.such.host.invalid:5432 ssh error', 'a node without a row that is not there');
$primary->safe_psql("INSERT INTO follow_primary_node (host, port, replication_options) VALUES ('db9', 1, 'nonsense=1')");
$primary->wait_for_catchup($standby);
$r = matrix($standby, '');
is(join(', ', map { /^\S+ (\S+ \S+ \S+)/ } grep { !/ ok / } @{ $r->{rows} }), 'db9:1 row error', 'a row that makes no sense is an error of its own');
$primary->safe_psql("DELETE FROM follow_primary_node");
$primary->wait_for_catchup($standby);
$r = matrix($standby, '');
is(join(', ', map { /^\S+ (\S+ \S+ \S+)/ } grep { !/ ok / } @{ $r->{rows} }), '- name warning', 'no nodes at all is a warning');

done_testing();
