# Relative names start from where a server works: its password file and its keys in
# primary_conninfo from the data directory, wherever it was started from; an
# hba_file from there. The login that a job tries for the WAL receiver has to find
# what that finds; and what another directory would lead elsewhere is said before
# the stop. Only a server and its WAL receiver tell where they look.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 3, extension => 1, auth => 'scram-sha-256');
my ($old, $new, $node) = $cluster->nodes;
my $data = $node->pgdata;
$old->safe_psql('CREATE TABLE t AS SELECT 1 AS i');
$old->wait_for_catchup($_) for $new, $node;
mkdir "$data/secret";
spew("$data/secret/passwords", slurp($cluster->passfile), 0600);
$node->set_standby(primary_conninfo => "host=@{[ $old->address ]} port=@{[ $old->port ]} user=repl passfile=secret/passwords");
$node->wait_for_streaming($old);
$old->refuse_standbys;
$new->promote;

follows_by($new, $node, 'repoint', 'a password file named from the data directory');
like($node->safe_psql('SHOW primary_conninfo'), qr{ passfile=secret/passwords\b}, 'it is named as before');
follows_by($new, $node, 'basebackup', 'the same, by a copy', method => 'basebackup');
ok(-e "$data/secret/passwords", 'the copy has the file');

mkdir "$data/access";
spew("$data/access/rules", slurp("$data/pg_hba.conf"));
my $conf = slurp("$data/postgresql.conf");
append_text("$data/postgresql.conf", "hba_file = 'access/rules'\n");
$node->stop;
run_ok([ $node->bin('pg_ctl'), '-w', '-D', $data, '-l', $node->host->dir . '/by hand.log', 'start' ], cwd => $data);
is($node->safe_psql('SHOW hba_file'), "$data/access/rules", 'a server that was started in its data directory finds its access rules there');
$new->refuses($node, "one that would not find them is not stopped: $_", sqlstate => 'F0000', message => qr/at step try/,
    detail => qr{hba_file is "/.*/access/rules", which}, hint => qr/correct it on the node/i, arguments => { method => $_ }) for 'rewind', 'basebackup';
spew("$data/postgresql.conf", $conf);
makes_follow($new, $node, 'with an absolute name it follows');

done_testing();
