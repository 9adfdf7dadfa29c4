# Symbolic links in a data directory: a log on another disk, configuration files
# that lead elsewhere. pg_rewind refuses where the primary has a file or a folder
# of that name, and removes the link where it has none; a copy has none of them.
# They are the node's own, and survive every method. Only pg_rewind and a file system tell.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 2, extension => 1, auth => 'scram-sha-256', conf => { 'follow_primary.verify_timeout' => '30s' });
my ($old, $new) = $cluster->nodes;
my $disk = scratch_dir('disk');
my $theirs = $old->pgdata;

$old->safe_psql('CREATE TABLE t AS SELECT 1 AS i');
$old->wait_for_catchup($new);

# The primary has the folder, and files in it; of another the node alone has the link.
mkdir $new->pgdata . '/log';
spew($new->pgdata . '/log/primary.log', "of the primary\n");
mkdir "$disk/$_" for qw(log dumps conf.d);
spew("$disk/log/node.log", "of the node\n");
spew("$disk/dumps/yesterday", "a dump\n");
my %links = (
    log => "$disk/log",
    dumps => "$disk/dumps",
    'pg_hba.conf' => "$disk/pg_hba.conf",
    'postgresql.conf' => "$disk/postgresql.conf",
    'postgresql.auto.conf' => "$disk/auto.conf",
    'notes' => '/nowhere/at/all',
    'relative.conf' => 'in/the/data',
);
mkdir "$theirs/in";
mkdir "$theirs/in/the";
spew("$theirs/in/the/data", "# of the node\n");
# pg_rewind connects with a password file of the data directory, to which a link leads.
$cluster->set('follow_primary.passfile' => "$theirs/pgpass");
spew("$disk/pgpass", slurp($cluster->passfile), 0400);
$links{pgpass} = "$disk/pgpass";
$old->stop;
for my $name (sort keys %links)
{
    my $to = $links{$name};
    if ($to =~ m{^\Q$disk\E/(?!log|dumps|pgpass)})
    {
        spew($to, slurp("$theirs/$name"));
        chmod 0600, $to;
        unlink "$theirs/$name";
    }
    symlink $to, "$theirs/$name" or die "symlink $theirs/$name: $!";
}
# a relative link's file keeps its relative includes
append_text("$disk/postgresql.conf", "work_mem = '7MB'\n");
append_text("$disk/auto.conf", "maintenance_work_mem = '17MB'\n");
$old->start;
$new->wait_for_streaming($old) if $new->in_recovery;

sub links_are_as_they_were
{
    my ($what) = @_;
    for my $name (sort keys %links)
    {
        is(readlink "$theirs/$name", $links{$name}, "$what: $name is the link that it was");
    }
    is(slurp("$disk/log/node.log"), "of the node\n", "$what: what it leads to is the node's");
    ok(!-e "$disk/log/primary.log", "$what: and nothing of the primary's");
    is(slurp("$disk/dumps/yesterday"), "a dump\n", "$what: the dump is there");
    is($old->safe_psql('SHOW work_mem'), '7MB', "$what: its settings are in force");
    is($old->safe_psql('SHOW maintenance_work_mem'), '17MB', "$what: those of ALTER SYSTEM, too");
    is(slurp("$theirs/in/the/data"), "# of the node\n", "$what: a link within the data leads to what it led to");
    is((join ' ', grep { !/lost_wal-/ } glob("$theirs.follow_primary/*")), '', "$what: nothing is left beside the data");
    return;
}

sub follows
{
    my ($method) = @_;
    follows_by($new, $old, $method, $method, $method eq 'rewind' ? () : (method => $method));
    links_are_as_they_were($method);
    return;
}

$new->promote;
$old->safe_psql('INSERT INTO t SELECT 1000');
follows('rewind');
follows('basebackup');
done_testing();
