# The SSH user may not write in the directory of postgresql.conf, as in
# /etc/postgresql, so configure.sh changes the file in place. On a full disk the file
# must stay whole, as it was. Only a file system that is really full behaves like one.

use FollowPrimary::Test;
use FollowPrimary::Mounts;

my $dir = FollowPrimary::Mounts::enter('mkdir etc && mount -t tmpfs -o mode=0700,size=64k tmpfs etc');
plan(skip_all => FollowPrimary::Mounts::NONE) if !$dir;

my $pgdata = scratch_dir('data');
my $recovery = "$pgdata/myrecovery.conf";
my $conf = "$dir/etc/postgresql.conf";
spew("$pgdata/standby.signal", '');

sub full_of_it { my ($begin) = @_; return $begin . '#' x (4096 - length($begin) - 1) . "\n" }

# Runs it for a running standby, with the disk full or not.
sub configure
{
    my ($text, $full) = @_;
    chmod 0700, "$dir/etc";
    unlink "$dir/etc/filler";
    spew($conf, $text);
    system("cat /dev/zero >'$dir/etc/filler' 2>/dev/null") if $full;
    chmod 0500, "$dir/etc";
    return run_command(remote_script('configure', { pgdata => $pgdata, bin => FollowPrimary::Node::bindir(), config => $conf,
                recovery_file => $recovery, version => 150000, content => "work_mem = '1MB'\n", live => 'yes' }));
}

# Whole blocks: one byte more needs another. A line is added; or one that was in
# the middle, and shorter, comes to the end, by which the rest moves.
my $line = "include_if_exists = '$recovery'\n";
for my $case ([ 'a file that gets longer', full_of_it("port = 1\n") ],
    [ 'a file that is rewritten', full_of_it("port = 1\ninclude_if_exists='$recovery'\nwork_mem = '2MB'\n") ])
{
    my ($what, $text) = @$case;
    my ($code, $out, $err) = configure($text, 1);
    isnt($code, 0, "$what: a full disk is an error");
    like($out, qr/^failed=config_not_writable$/m, "$what: of this kind") or diag($out, $err);
    like($err, qr/\Q$conf\E, which is what it was/, "$what: that says so");
    is(slurp($conf), $text, "$what: and so it is");
    is(join(' ', sort glob("$dir/etc/*")), "$dir/etc/filler $conf", "$what: nothing is beside it");

    ($code, $out, $err) = configure($text, 0);
    is($code, 0, "$what: it is changed where there is room") or diag($out, $err);
    (my $wanted = $text) =~ s/^include_if_exists.*\n//m;
    is(slurp($conf), $wanted . $line, "$what: as it should be");
}

done_testing();
