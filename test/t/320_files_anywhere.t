# Files are wherever a DBA may put them: a folder of configuration that names the data
# directory, with pg_hba.conf, pg_ident.conf and an include_dir; a data directory that
# is a symbolic link; WAL elsewhere; one tablespace inside another's folder. A group
# may read the data; WAL segments are small or large; there are checksums or none.
# Only the server and PostgreSQL's tools decide which file counts and who may read it,
# so whole jobs show it.

use File::Path qw(remove_tree);
use FollowPrimary::Test;

my $last;    # where the last job ran
sub real { my ($path) = @_; chomp(my $real = run_ok([ 'readlink', '-f', $path ])); return $real }

sub follows
{
    ($last) = @_;
    return follows_by(@_);
}

# 1. All at once, with segments of 1 MB.
my $cluster = FollowPrimary::Cluster->new(nodes => 2, extension => 1, checksums => 0,
    initdb => [ '-g', '--wal-segsize=1', '-X', scratch_dir('first') . '/wal' ],
    conf   => { 'follow_primary.verify_timeout' => '20s', max_wal_size => '32MB', min_wal_size => '2MB' },
    node   => sub {
        my ($host) = @_;
        my $dir = $host->dir;
        mkdir "$dir/real data", 0750;
        symlink "$dir/real data", "$dir/link" or die;
        return (pgdata => "$dir/link", config_dir => "$dir/the node's conf");
    });
my ($first, $second) = $cluster->nodes;

# The second node has its WAL and its tablespaces in other places.
sub space { my ($node, $name) = @_; return $node->host->dir . ($name eq 'outer' ? '/outer' : '/outer/inner') }
$second->stop;
remove_tree(real($second->pgdata), { keep_root => 1 });
for my $name ('outer', 'inner')
{
    my $dir = space($first, $name);
    mkdir $dir, 0750 or die;
    $first->safe_psql("CREATE TABLESPACE \"$name\" LOCATION '$dir'; CREATE TABLE \"in_$name\" TABLESPACE \"$name\" AS SELECT generate_series(1, 1000) AS i");
}
$first->safe_psql('CREATE TABLE t AS SELECT generate_series(1, 1000) AS i');
$second->init_standby_from($first, slot => 1, basebackup => [ '--waldir', $second->host->dir . '/wal',
    '-T', space($first, 'outer') . '=' . space($second, 'outer'), '-T', space($first, 'inner') . '=' . space($second, 'outer') . '.inner' ]);
# pg_basebackup could make one inside the other only in the right order.
rename space($second, 'outer') . '.inner', space($second, 'inner') or die;
for my $link (grep { readlink($_) =~ /\.inner\z/ } glob($second->pgdata . '/pg_tblspc/*'))
{
    unlink $link;
    symlink space($second, 'inner'), $link or die;
}
chmod 0640, $second->pgdata . "/$_" for $second->standby_files;
for my $node ($first, $second)
{
    mkdir $node->config_dir . '/conf.d';
    spew($node->config_dir . '/conf.d/own.conf', "work_mem = '7MB'\n");
    $node->append_conf("include_dir = 'conf.d'\n");
}
$first->reload;
$second->start;
$first->wait_for_catchup($second);
my %config = map {
    my $node = $_;
    my $text = join '', map { slurp($node->config_dir . "/$_") } qw(pg_hba.conf pg_ident.conf conf.d/own.conf postgresql.conf);
    $text =~ s/^include_if_exists.*\n//mg;
    ($node->name => $text);
} $first, $second;

sub as_it_was
{
    my ($node, $what) = @_;
    my $text = join '', map { slurp($node->config_dir . "/$_") } qw(pg_hba.conf pg_ident.conf conf.d/own.conf postgresql.conf);
    my @includes = $text =~ /^(include_if_exists.*)\n/mg;
    $text =~ s/^include_if_exists.*\n//mg;
    is($text, $config{ $node->name }, "$what: its configuration is what it was");
    is(@includes, 1, "$what: but for one line");
    is(join(' ', sort map { s{.*/}{}r } glob(quotemeta($node->config_dir) . '/*')), 'conf.d pg_hba.conf pg_ident.conf postgresql.conf',
        "$what: nothing is left beside it");
    is($node->safe_psql('SELECT count(*) FROM pg_settings WHERE name IN (\'hba_file\', \'ident_file\', \'config_file\') AND setting LIKE '
        . quote($node->config_dir . '/%')) . $node->safe_psql('SHOW work_mem'), '37MB', "$what: it is in force");
    is(readlink($node->pgdata), $node->host->dir . '/real data', "$what: the data directory is where it was");
    is(join(' ', map { real($_) } glob($node->pgdata . '/pg_tblspc/*')), join(' ', map { space($node, $_) } 'outer', 'inner'),
        "$what: and the tablespaces");
    is($node->safe_psql('SELECT (SELECT sum(i) FROM in_outer), (SELECT sum(i) FROM in_inner)'), '500500|500500', "$what: with their rows");
    is(run_ok([ 'find', '-H', $node->pgdata, map({ space($node, $_) } 'outer', 'inner'), '!', '-type', 'l', '!', '-perm', '-g=r' ]),
        '', "$what: the group may read all of it");
    is(join(' ', grep { !m{/lost_wal-} } glob(quotemeta(real($node->pgdata)) . '.follow_primary/*')), '', "$what: nothing is left beside it");
    return;
}

follows($first, $second, 'repoint', 'repoint', slot_name => 'another');
as_it_was($second, 'repoint');
follows($first, $second, 'basebackup', 'copy', method => 'basebackup');
as_it_was($second, 'copy');
is(real($second->pgdata . '/pg_wal'), $second->host->dir . '/wal', 'copy: the WAL is in its place');

$first->kill9;
$second->promote;
follows($second, $first, 'rewind', 'rewind', when_down => 'rejoin');
as_it_was($first, 'rewind');
is(real($first->pgdata . '/pg_wal'), scratch_dir() . '/first/wal', 'rewind: the WAL is in its place');

# When a server is down, only its row tells where its configuration is.
$first->stop;
unlink $first->pgdata . '/postmaster.opts';
my $r = $second->make_follow($first, when_down => 'rejoin');
is($r->{sqlstate}, 'F0000', 'a configuration that is nowhere is an error') or diag($r->{err});
like($r->{message}, qr/at step plan: the node's postgresql\.conf is not known/, 'before anything is done');
like($r->{hint}, qr/config_file in the node's row/, 'and the hint says what to do');
$second->set_row($first, config_file => $second->config_dir . '/postgresql.conf');
my $theirs = slurp($second->config_dir . '/postgresql.conf');
$r = $second->make_follow($first, when_down => 'rejoin');
is($r->{sqlstate}, 'F0000', "another server's configuration is refused") or diag($r->{err});
like($r->{message}, qr/at step survey: node \S+ has another configuration file/, 'before anything is done');
is(slurp($second->config_dir . '/postgresql.conf'), $theirs, 'and is as it was');
$second->set_row($first, config_file => $first->config_dir . '/postgresql.conf');
follows($second, $first, 'rewind', 'config_file', method => 'rewind', when_down => 'rejoin');
as_it_was($first, 'config_file');

# postgresql.conf cannot be written; it is enough if it ends in the line.
my $conf = $first->config_dir . '/postgresql.conf';
append_text($conf, "# the end\n");
chmod 0400, $conf;
chmod 0500, $first->config_dir;
my $pid = $first->pid;
$r = $second->make_follow($first, method => 'rewind');
is($r->{sqlstate}, 'F0000', 'a configuration that cannot be written is an error') or diag($r->{err});
like($r->{message}, qr/at step connect/, 'before anything is done');
is($first->pid, $pid, 'the node runs on');
my ($line) = $r->{hint} =~ /(include_if_exists = '.*')\. Nothing/ or diag($r->{hint});
(my $text = slurp($conf)) =~ s/^include_if_exists.*\n//mg;
chmod 0600, $conf;
spew($conf, "$text$line\n", 0400);
follows($second, $first, 'rewind', 'by the line of the hint', method => 'rewind');

# 2. Segments of 64 MB, and checksums.
$_->stop('immediate') for $first, $second;
$cluster = FollowPrimary::Cluster->new(nodes => 2, extension => 1, checksums => 1, initdb => ['--wal-segsize=64'],
    conf => { wal_log_hints => 'off' });
my ($old, $new) = $cluster->nodes;
$old->safe_psql('CREATE TABLE t AS SELECT generate_series(1, 1000) AS i');
$old->wait_for_catchup($new);
$new->promote;
$old->safe_psql('INSERT INTO t VALUES (7777)');
follows($new, $old, 'rewind', '64 MB segments');
is($last->job('lost_transactions'), '1', 'the lost transaction is counted');
is($old->safe_psql('SHOW wal_segment_size') . $old->safe_psql('SHOW data_checksums'), '64MBon', 'the segments are that large, and there are checksums');
follows($new, $old, 'basebackup', '64 MB segments, copy', method => 'basebackup');

done_testing();
