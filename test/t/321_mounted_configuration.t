# A postgresql.conf that is a file mounted by itself, as into a container: it can be
# written, but no other file can take its place. The line that a standby needs gets
# into it, by each method, and an undo takes it out. Where it is mounted for reading
# only, the job ends before the server is stopped. Only the kernel has mount points.

use FollowPrimary::Test;
use FollowPrimary::Mounts;

my $dir = FollowPrimary::Mounts::enter(<<'END');
mkdir at0 at1 at2 at3
for i in 0 1 2 3; do
    : >file$i
    : >at$i/postgresql.conf
    mount --bind file$i at$i/postgresql.conf
done
END
plan(skip_all => FollowPrimary::Mounts::NONE) if !$dir;

my $n = 0;
my $cluster = FollowPrimary::Cluster->new(nodes => 4, extension => 1,
    node => sub { return (config_dir => "$dir/at" . $n++) });
my ($old, $new, $standby, $last) = $cluster->nodes;
my $line = qr/^include_if_exists = '.*myrecovery\.conf'$/m;

$cluster->part;
$new->set_row($_, config_file => $_->config_dir . '/postgresql.conf') for $cluster->nodes;

sub conf { my ($node) = @_; return slurp($node->config_dir . '/postgresql.conf') }

# The settings of a standby are elsewhere, so that the line has to be written.
sub without_line
{
    my ($node) = @_;
    my $file = $node->config_dir . '/postgresql.conf';
    spew($file, conf($node) =~ s/$line\n//gr);
    my $own = $node->pgdata . '/postgresql.auto.conf';
    append_text($own, slurp($node->recovery_file)) if $node->in_recovery;
    unlink $node->recovery_file;
    $node->reload;
    return;
}

follows_by($new, $old, 'rewind', 'a former primary');
like(conf($old), $line, 'the line is in its file');
without_line($old);
follows_by($new, $old, 'basebackup', 'a copy', method => 'basebackup');
like(conf($old), $line, 'the line is in its file again');

without_line($standby);
my $before = conf($standby);
$new->fail_steps('verify');
ok(!$new->make_follow($standby)->{ok}, 'a repoint that fails');
is(conf($standby), $before, 'its undo puts the file back');
$new->fail_steps;
follows_by($new, $standby, 'repoint', 'a standby');
like(conf($standby), $line, 'the line is in its file');

# For reading only.
without_line($last);
$last->set_standby(recovery_target_timeline => 'current');
chmod 0444, $last->config_dir . '/postgresql.conf';
for my $method ('repoint', 'rewind', 'basebackup')
{
    $new->refuses($last, "$method: a file that can be neither written nor replaced", sqlstate => 'F0000', message => qr/at step connect/,
        detail => qr{/at3/postgresql\.conf is not the SSH user's to write}, hint => qr/Let the SSH user write the file/, arguments => { method => $method });
}
chmod 0644, $last->config_dir . '/postgresql.conf';
follows_by($new, $last, 'repoint', 'when it can be written');

done_testing();
