# The names of data directory, WAL directory and tablespace hold all characters that
# mean something to a shell. Nodes with such names are started, repointed, copied and
# rewound, from a database with such a name. Only whole jobs show it: on its way a
# path meets pg_ctl, pg_rewind, pg_basebackup and pg_verifybackup, and some of them
# paste it into shell commands.

use File::Find ();
use FollowPrimary::Test;

my $canary = scratch_dir('hostile') . '/canary';
# A name cannot have the slashes of the canary's path, so a variable has it.
$ENV{C} = $canary;
# It is short, for a tablespace's path in a backup may have 99 bytes.
my $words = q("a'$(>$C)`>$C`;>$C|&{a,b}*?[!a]~#%p\\=<>) . "\xc3\xb6";
# CREATE TABLESPACE refuses single quotes.
(my $location = "space $words") =~ tr/'//d;

my $cluster = FollowPrimary::Cluster->new(nodes => 2, archive => 1, same_port => 0, sshd_conf => "SetEnv C=$canary\n");
my ($primary, $node) = $cluster->nodes;
my ($host, $dir) = ($node->address, $node->host->dir);

my @hostile = (dbname => 'hostile');
sub sql { my ($text) = @_; return $primary->safe_psql($text, @hostile) }

$primary->safe_psql('CREATE DATABASE hostile');
sql('CREATE EXTENSION follow_primary');
mkdir $_, 0700 or die "$_: $!" for map { $_->host->dir . "/$location" } $primary;
$primary->safe_psql('CREATE TABLESPACE space LOCATION ' . quote($primary->host->dir . "/$location"));
sql('CREATE TABLE t AS SELECT generate_series(1, 1000) AS i; CREATE TABLE spaced TABLESPACE space AS SELECT generate_series(1, 1000) AS i');
# The tests' own psql cannot ask for such a name, so it has a plain one until here.
my $database = "x=y $words";
(my $name = $database) =~ s/"/""/g;
$primary->safe_psql("ALTER DATABASE hostile RENAME TO \"$name\"");
(my $dbname = $database) =~ s/([\\'])/\\$1/g;
{
    no warnings 'redefine';
    my $connstr = \&FollowPrimary::Node::connstr;
    *FollowPrimary::Node::connstr = sub {
        my ($self, $db, $user) = @_;
        return $connstr->($self, defined $db && $db eq 'hostile' ? "'$dbname'" : $db, $user);
    };
}

# The standby has its folders in places with those names.
$node->stop;
File::Path::remove_tree($node->pgdata);
(my $from = $primary->host->dir . "/$location") =~ s/=/\\=/g;
(my $to = "$dir/$location") =~ s/=/\\=/g;
$node->init_standby_from($primary, slot => 1, basebackup => [ '-T', "$from=$to", '--waldir', "$dir/wal $words" ]);
rename $node->pgdata, "$dir/data $words" or die;
$node->{pgdata} = "$dir/data $words";
sql("INSERT INTO follow_primary_node (host, port, pgdata, ssh_port, archive_dir)
    VALUES ('$host', @{[ $node->port ]}, " . quote($node->pgdata) . ", @{[ $node->host->ssh_port ]}, " . quote("$dir/archive $words") . ')');
symlink $cluster->archive_dir, "$dir/archive $words" or die;

sub follows
{
    my ($method, $what, %arguments) = @_;
    my $r = $primary->try_sql($primary->follow_sql($node, %arguments), dbname => 'hostile', timeout => 120);
    ok($r->{ok}, $what) or die $r->{err};
    is($primary->job('method', @hostile), $method, 'by that method');
    sql('INSERT INTO t VALUES (0); INSERT INTO spaced VALUES (0)');
    $primary->wait_for_catchup($node);
    my $rows = 'SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM spaced)';
    is($node->safe_psql($rows, dbname => 'hostile'), sql($rows), 'it has the rows of the primary');
    is($node->safe_psql('SHOW data_directory'), $node->pgdata, 'in its directory');
    is(readlink($node->pgdata . '/pg_wal'), "$dir/wal $words", 'with its WAL directory');
    is(join(' ', map { readlink } grep { -l } glob(quotemeta($node->pgdata) . '/pg_tblspc/*')), "$dir/$location", 'and its tablespace');
    is($primary->safe_psql("SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'space'"),
        $primary->host->dir . "/$location", "the primary's own is where it was");
    return;
}

follows('rewind', 'a backup that was never started is', when_down => 'rejoin');
follows('repoint', 'it is repointed while it runs', method => 'repoint');
follows('basebackup', 'it is copied', method => 'basebackup');

# The node goes on alone, on a timeline that nobody else hears of, and dies. Only the
# archive has the WAL with which a rewind begins.
$node->set(archive_command => 'false');
$node->reload;
$node->promote;
$node->safe_psql('CHECKPOINT');
$node->safe_psql('INSERT INTO t SELECT generate_series(1, 500); DELETE FROM spaced', dbname => 'hostile');
sql('UPDATE t SET i = i + 1');
$node->kill9;
unlink "$dir/wal $words/000000010000000000000006" or die;
follows('rewind', 'it is rewound, by WAL from an archive of such a name', method => 'rewind', when_down => 'rejoin');
is($primary->job('lost_transactions', @hostile), 2, 'what it alone had is counted');
is($node->commits_in($primary->job('lost_wal_dir', @hostile), 2, $primary->job('fork_lsn', @hostile)), 2, 'and saved, though none of it was archived');

# Only the log and what was saved are beside the data.
my @beside;
File::Find::find({ no_chdir => 1, wanted => sub { push @beside, $_ if /follow_primary/ } }, $dir);
is(join("\n", grep { !m{/lost_wal-} } sort @beside), join("\n", map { $node->pgdata . ".follow_primary$_" } '', '.log'),
    'nothing else is left beside the data');
ok(!-e $canary, 'nothing was executed');

done_testing();
