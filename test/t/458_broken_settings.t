# A server runs on, whatever somebody has written into its configuration files since
# it started; it does not start again, and takes no new settings at a reload.
# That is known before a job stops it, and within seconds where it is only reloaded. Only
# PostgreSQL judges its own files.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 3, extension => 1);
my ($old, $new, $sibling) = $cluster->nodes;

$old->safe_psql('CREATE TABLE t AS SELECT 1 AS i');
$old->wait_for_catchup($_) for $new, $sibling;
$old->refuse_standbys;
$new->promote;
$old->safe_psql('INSERT INTO t SELECT 1000');
$new->safe_psql('INSERT INTO t SELECT 2');

my %nodes = (repoint => $sibling, rewind => $old, basebackup => $old);
my $all = 'repoint rewind basebackup';
my @broken = (
    [ 'a syntax error in postgresql.conf', 'postgresql.conf', "this is = not a setting =\n", $all, qr/syntax error.*postgresql\.conf/ ],
    [ 'a setting that this version does not know', 'postgresql.conf', "no_such_setting = 1\n", $all, qr/no_such_setting/ ],
    [ 'an included file that is not there', 'postgresql.conf', "include = 'gone.conf'\n", $all, qr/gone\.conf/ ],
    # What follows does not concern a reload: it takes the other settings.
    [ 'a value out of bounds', 'postgresql.auto.conf', "work_mem = '1kB'\n", 'rewind basebackup', qr/work_mem/ ],
    [ 'a syntax error in pg_hba.conf', 'pg_hba.conf', "local nonsense\n", 'rewind basebackup', qr/pg_hba\.conf, line \d+: / ],
);
for my $case (@broken)
{
    my ($what, $name, $text, $methods, $detail) = @$case;
    for my $method (split ' ', $methods)
    {
        my $node = $nodes{$method};
        my $file = $node->pgdata . "/$name";
        my $before = slurp($file);
        spew($file, $before . $text);
        $new->refuses($node, "$method: $what", arguments => { method => $method },
            sqlstate => 'F0000', message => $method eq 'repoint' ? qr/at step/ : qr/at step try/, detail => $detail,
            hint => qr/correct it on the node \Q@{[ $node->address ]}\E/i);
        spew($file, $before);
    }
}
for my $node ($sibling, $old)
{
    my $r = $new->make_follow($node);
    ok($r->{ok}, $node->name . ' follows once they are right') or diag($r->{err});
}
done_testing();
