# Nobody sees a password: not in a process list or environment while jobs run, and
# afterwards not in a log, a message, a table or any file of any host, except the
# files that are made for passwords, which nobody else can read. Passwords get lost
# where nobody looks, so this test looks at every process all the time, and into every
# file, data and WAL included.

use File::Find ();
use FollowPrimary::Test;

my %secret = map { $_ => "secret-$_-" . join '', map { ('a' .. 'z', 0 .. 9)[ rand 36 ] } 1 .. 16 } qw(repl rewind wrong pcpwrong);
my $cluster = FollowPrimary::Cluster->new(nodes => 3, extension => 1, auth => 'scram-sha-256');
my ($old, $new, $sibling) = $cluster->nodes;
my $dir = scratch_dir('passwords');

for my $role (qw(repl rewind))
{
    append_text($cluster->passfile, "*:*:*:secret_$role:$secret{$role}\n");
    $old->safe_psql("SET password_encryption = 'scram-sha-256'; CREATE ROLE secret_$role LOGIN SUPERUSER REPLICATION PASSWORD '$secret{$role}'");
}
$old->wait_for_catchup($_) for $new, $sibling;
$cluster->set('follow_primary.replication_user' => 'secret_repl', 'follow_primary.rewind_user' => 'secret_rewind');

# The password is in the standby's settings, as in many clusters.
my $conninfo = "host=@{[ $old->address ]} port=@{[ $old->port ]} user=secret_repl password=$secret{repl} application_name=node2";
spew($sibling->recovery_file, slurp($sibling->recovery_file) =~ s/^primary_conninfo = '.*'$/primary_conninfo = '$conninfo'/mr);
$sibling->restart;
$sibling->wait_for_streaming($old);

my $pgpool = FollowPrimary::Pgpool->new(cluster => $cluster);
$secret{pcp} = $pgpool->pcp_password;
$pgpool->start;
$old->kill9;
$pgpool->wait_for_primary(1, 60);
$new->safe_psql('CREATE TABLE t AS SELECT generate_series(1, 100000) AS i');

# The sampler looks at every process of this account, again and again.
my $seen = "$dir/seen";
spew($seen, '');
my $pattern = join '|', map { quotemeta } values %secret;
my $sampler = fork // die;
if ($sampler == 0)
{
    $SIG{$_} = 'DEFAULT' for qw(HUP INT TERM);
    my ($rounds, %known) = (0);
    local $SIG{TERM} = sub { append_text($seen, "rounds $rounds, processes " . keys(%known) . "\n"); POSIX::_exit(0) };
    my %stale;
    while (1)
    {
        $rounds++;
        opendir my $proc, '/proc' or die;
        for my $pid (grep { /^\d+$/ } readdir $proc)
        {
            for my $what (qw(cmdline environ))
            {
                open my $fh, '<', "/proc/$pid/$what" or next;
                local $/;
                my $text = <$fh> // next;
                $known{$pid} = 1;
                append_text($seen, "$what of $pid: $text\n") if $text =~ /$pattern/o;
            }
        }
    }
}

my $said = '';
my $n = 0;
sub follow
{
    my ($what, $node, $sqlstate, $row, %arguments) = @_;
    $new->set_row($node, %$row) if %$row;
    my $r = $new->make_follow($node, %arguments);
    $said .= "$r->{out}\n$r->{err}\n";
    is($r->{sqlstate}, $sqlstate, $what) or diag($r->{err});
    $new->set_row($node, map { $_ => undef } keys %$row) if %$row;
    return;
}

follow('a repoint and an attachment', $sibling, '', {}, node_id => 2);
is($sibling->standby_setting("primary_conninfo") =~ /password=\Q$secret{repl}\E/ ? 1 : 0, 1, 'a password in primary_conninfo is kept');
follow('a rewind and an attachment', $old, '', {}, node_id => 0, when_down => 'rejoin');
follow('a copy', $sibling, '', {}, method => 'basebackup');
spew("$dir/wrong", "*:*:*:*:$secret{wrong}\n", 0600);
follow('a wrong password for the primary', $old, '08006', { passfile => "$dir/wrong" }, method => 'basebackup');
spew("$dir/pcpwrong", "*:*:*:$secret{pcpwrong}\n", 0600);
follow('a wrong password for pgpool', $old, '28P01', { pcp_pass_file => "$dir/pcpwrong" }, node_id => 0);
spew("$dir/pcpwrong", "$secret{pcpwrong}:*:x\n", 0644);
follow('a password file that others can read', $old, '28P01', { pcp_pass_file => "$dir/pcpwrong" }, node_id => 0);
{
    my $file = $sibling->recovery_file;
    my $was  = slurp($file);
    spew($file, $was =~ s/^(primary_conninfo = ').*'$/$1host=h application_name password=$secret{repl}'/mr);
    reloads('primary_conninfo') ? $sibling->reload : $sibling->restart;
    wait_until('it is read', sub { $sibling->standby_setting('primary_conninfo') =~ /^host=h/ });
    follow('a conninfo that cannot be parsed', $sibling, '22023', {}, method => 'repoint');
    my $job = $new->safe_psql($new->follow_sql($sibling, wait => 'false', when_down => 'rejoin', method => 'basebackup'));
    $new->safe_psql("SELECT follow_primary_wait($job)");
    $said .= $new->safe_psql("SELECT j FROM follow_primary_job j WHERE id = $job");
}
kill 'TERM', $sampler;
waitpid $sampler, 0;

my $sampled = slurp($seen);
like($sampled, qr/^rounds (\d{3,}), processes (\d{3,})\n\z/, 'no process had one in its arguments or its environment');
note($sampled);
unlike($said, qr/$pattern/, 'nor any message');
my $tables = join "\n", map { $new->safe_psql("SELECT t FROM follow_primary_$_ t") } qw(job step node);
unlike($tables, qr/$pattern/, 'nor any table');

# The test's own files and the nodes' settings may hold passwords.
$_->stop for $cluster->nodes;
my (@told, @open);
File::Find::find({ no_chdir => 1, wanted => sub {
    my $file = $_;
    return if !-f $file || -l $file || $file =~ m{/run/\d+\.in\z} || $file eq $seen;
    my $text = slurp($file);
    # PostgreSQL itself logs this at a reload, as the README says.
    $text =~ s/^.*parameter "primary_conninfo" changed to.*\n//mg if $file =~ m{/node2\.log\z};
    return if $text !~ /$pattern/o;
    push @open, $file if (stat $file)[2] & 077 && $file ne "$dir/pcpwrong";
    push @told, $file if $file !~ m{/(?:pgpass|pcppass|wrong|pcpwrong|(?:my)?recovery\.conf)\z};
} }, scratch_dir());
is("@told", '', 'nor any file but those that are to hold it');
is("@open", '', 'which nobody else can read');

done_testing();
