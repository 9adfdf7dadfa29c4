# Any text in a call, in a row of follow_primary_node or in a setting is taken
# literally or refused before anything has changed. Nobody ever executes a part of it,
# on either side. Real shells, psql, libpq and settings files stand between a value
# and its use, each with its own quotes; each value would make a file if one of them
# read it as code. The test takes arguments, columns and settings from the catalog, so
# it tries new ones, too.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 2, extension => 1, conf => { 'follow_primary.connect_timeout' => 4 });
my ($primary, $node) = $cluster->nodes;
my $scratch = scratch_dir('hostile');
my $canary  = "$scratch/canary";

my %value = (
    'single quotes'  => "a'; touch $canary; '",
    'double quotes'  => qq(a"; touch $canary; "),
    'substitutions'  => "\$(touch $canary)`touch $canary`\${HOME}\$\$",
    'operators'      => "a b|touch $canary&touch $canary;(touch $canary) *?[a]~#!<>{a,b}\\",
    'a newline'      => "a\ntouch $canary\n",
    'percent signs'  => "%p%D%f%%s%n a=b host=127.0.0.1",
    'leading dashes' => "--help -oProxyCommand=touch $canary",
    'non-ASCII'      => "gr\xc3\xb6\xc3\x9fe \xe2\x9c\x93",
    '10 kB'          => 'x' x 10240);

# All that a call could have changed.
sub state_of_all { return $node->fingerprint . $primary->slots }

#
# 1. Each value alone: as an argument, as a column, as a setting.
#
my @arguments = split /\n/, $primary->safe_psql("SELECT a FROM (SELECT unnest(proargnames[1:10]) a, unnest(proargtypes::oid[]) t
    FROM pg_proc WHERE proname = 'follow_primary_plan') x WHERE t = 'text'::regtype");
my @columns = split /\n/, $primary->safe_psql("SELECT attname FROM pg_attribute
    WHERE attrelid = 'follow_primary_node'::regclass AND attnum > 0 AND atttypid = 'text'::regtype AND attname <> 'host'");
my @settings = split /\n/, $primary->safe_psql("LOAD 'follow_primary'; SELECT name FROM pg_settings WHERE name LIKE 'follow\\_primary.%' AND context = 'superuser'");    # the others are no session's to set
is(scalar(@arguments), 7, 'the text arguments') or diag("@arguments");
cmp_ok(@columns,  '>=', 25, 'the text columns');
cmp_ok(@settings, '>=', 25, 'the settings');

# These take only a path.
my %path = map { $_ => 1 } qw(node_pgdata pgdata config_file ssh_key_file ssh_known_hosts_file node_bin_dir passfile archive_dir
    pcp_pass_file recovery_file);
my %column = map { $_ => 1 } split /\n/, $primary->safe_psql("SELECT attname FROM pg_attribute
    WHERE attrelid = 'follow_primary_node'::regclass AND attnum > 0");
my $host = $node->address;
my @case;
for my $kind (sort keys %value)
{
    for my $target ((map { "argument $_" } @arguments), (map { "column $_" } @columns), (map { "setting $_" } @settings))
    {
        my ($what, $name) = $target =~ /(\S+) (?:follow_primary\.)?(.+)/;
        for my $text ($value{$kind}, $path{$name} ? "$scratch/$value{$kind}" : ())
        {
            my $value = quote($text);
            my $plan  = 'PERFORM follow_primary_plan(' . ($name eq 'node_host' ? '' : "node_host => '$host', ") . 'node_port => ' . $node->port;
            push @case, [ "$target, $kind", $what eq 'argument' ? "$plan, $name => $value)"
                : $what eq 'column'
                ? "UPDATE follow_primary_node SET $name = $value WHERE host = '$host'; $plan)"
                # A setting with a column of that name is used in the same place.
                : "PERFORM set_config('follow_primary.$name', $value, true)" . ($column{$name} ? '' : "; $plan)") ];
        }
    }
}

# One session tries them all, each in a subtransaction that is rolled back.
my $sql = "CREATE TEMP TABLE result (n int, sqlstate text, message text);\n"
    . "SET client_min_messages = error;\n";
for my $n (0 .. $#case)
{
    $sql .= <<"END";
DO \$code\$
DECLARE m text;
BEGIN
    BEGIN
        $case[$n][1];
        RAISE EXCEPTION USING ERRCODE = 'ZZ000', MESSAGE = 'it works';
    EXCEPTION WHEN OTHERS THEN
        GET STACKED DIAGNOSTICS m = MESSAGE_TEXT;
        INSERT INTO pg_temp.result VALUES ($n, SQLSTATE, m);
    END;
END \$code\$;
END
}
# The session's open files, but for PostgreSQL's own.
my $fds = "\\! find /proc/\$PID/fd -type l -printf '%l\\n' | grep -Evc '^/(.*/data|dev)/'\n";
$sql = "SELECT pg_backend_pid() AS pid \\gset\n\\setenv PID :pid\n"
    . "SELECT method FROM follow_primary_plan('$host', @{[ $node->port ]});\n$fds$sql$fds"
    . "SELECT n, sqlstate, replace(message, E'\\n', ' ') FROM result ORDER BY n;\n";
my $before = state_of_all();
my ($code, $out, $err) = $primary->psql($sql, timeout => 120);
is($code, 0, 'all of them are tried') or diag($err);
my (undef, $fds_before, $fds_after, @results) = split /\n/, $out;
is(scalar(@results), scalar(@case), scalar(@case) . ' cases');

# These errors say that the input is at fault, or name what it names; there is no
# internal error, and none of a script that has lost its way. A newline is always at
# fault.
my $clear = qr/^(?:ZZ000|22023|22026|23514|42501|28000|08001|58P01|55000|55006|42704|22021|28P01|0A000)$/;
my @unclear;
my %seen;
for my $result (@results)
{
    my ($n, $state, $message) = split /\|/, $result, 3;
    $seen{$state}++;
    push @unclear, "$case[$n][0]: $state: $message" if $state !~ $clear || ($state eq 'ZZ000' && $case[$n][0] =~ /, a newline$/);
}
is(scalar(@unclear), 0, 'each works, or is refused clearly: ' . join ', ', map { "$_ x $seen{$_}" } sort keys %seen)
    or diag(join "\n", @unclear);
ok(!-e $canary, 'nothing of it was executed');
is(state_of_all(), $before, 'nothing is changed');
is($fds_after, $fds_before, 'the session has as many open files as before');

#
# 2. Jobs use all values at once: each value comes to its place to the letter. The
# node is down, for a running standby keeps its user. The canaries have short names
# here: a shell of the node would make them in the account's home.
#
my $home_canary = (getpwuid $<)[7] . '/canary';
ok(!-e $home_canary, "there is no $home_canary yet");
my $shell_word = sub { my ($text) = @_; $text =~ s/'/'\\''/g; return "'$text'" };
my $sqlname = sub { my ($text) = @_; $text =~ s/"/""/g; return qq("$text") };
for my $kind (grep { !/newline|kB/ } sort keys %value)
{
    # Names in PostgreSQL are short.
    (my $text = $value{$kind}) =~ s{\Q$canary\E}{canary}g;
    (my $percent = $text) =~ s/%/%%/g;
    my $archive = "$scratch/archive $text";
    my %row = (
        config_file         => "$scratch/config $text.conf",
        application_name    => $kind eq 'non-ASCII' ? 'x' : $text,
        node_start_command  => "cd / && " . $shell_word->($node->bin('pg_ctl')) . ' -D %D -o "-c config_file="'
            . $shell_word->($shell_word->("$scratch/config $percent.conf")) . ' start # %% %p ' . $percent,
        replication_user    => $text,
        replication_options => 'sslmode=prefer fallback_application_name=' . $shell_word->($text) =~ s/'\\''/\\'/gr,
        passfile            => "$scratch/pass $text",
        rewind_user         => $text,
        rewind_database     => $text,
        recovery_file       => "my $text.conf",
        archive_dir         => $archive);

    # \ escapes in a connection string.
    $row{replication_options} = 'sslmode=prefer' if $kind eq 'operators';
    $primary->safe_psql('CREATE ROLE ' . $sqlname->($text) . ' LOGIN SUPERUSER');
    $primary->safe_psql('CREATE DATABASE ' . $sqlname->($text));
    $primary->wait_for_catchup($node);
    mkdir $archive or die "$archive: $!";
    spew("$archive/one", "archived by $kind");
    spew("$scratch/pass $text", "*:*:*:*:none\n", 0600);
    symlink $node->pgdata . '/postgresql.conf', "$scratch/config $text.conf" or die;
    chdir scratch_dir("cwd $kind") or die;

    $node->stop;
    $primary->set_row($node, %row);
    my $r = makes_follow($primary, $node, "$kind: a job with all of them", when_down => 'rejoin');
    is($primary->safe_psql("SELECT usename, application_name FROM pg_stat_replication"), "$text|$row{application_name}",
        'role and application_name are those');
    my ($conninfo, $restore) = map { $node->standby_setting($_) } qw(primary_conninfo restore_command);
    like($conninfo, qr/passfile='?\Q@{[ "$scratch\/pass $text" =~ s{([\\'])}{\\$1}gr ]}\E'? /, 'primary_conninfo has the password file');
    ok(-f $node->pgdata . "/my $text.conf", 'the settings are in the file of that name') if pg_major() >= 12;

    # What PostgreSQL makes of it, and runs.
    my %for = ('%' => '%', f => 'one', p => "$scratch/restored");
    (my $command = $restore) =~ s/%([%fp])/$for{$1}/g;
    my ($rc, undef, $why) = run_command([ 'sh', '-c', $command ]);
    is(-e "$scratch/restored" ? slurp("$scratch/restored") : $why, "archived by $kind", 'WAL comes from the archive of that name');
    unlink "$scratch/restored";
    $r = $primary->make_follow($node, function => 'follow_primary_plan');
    like($r->{out}, qr/^none\|/, 'a running node is asked as that role, in the database of that name') or diag($r->{out} . $r->{err});

    $primary->set_row($node, map { $_ => undef } keys %row);
}

my $long = ': ' . 'x' x 10240 . "; cp '$scratch/archive %f' %p";
spew("$scratch/archive one", 'archived');
$primary->set_row($node, restore_command => $long);
makes_follow($primary, $node, '10 kB: a job with a restore_command of that length', method => 'repoint');
(my $command = $node->standby_setting('restore_command')) =~ s{%([fp])}{$1 eq 'f' ? 'one' : "$scratch/restored"}ge;
cmp_ok(length $command, '>', 10240, 'which is in force');
run_command([ 'sh', '-c', $command ]);
is(-e "$scratch/restored" ? slurp("$scratch/restored") : '', 'archived', 'and works');

is(join(' ', glob "$canary $scratch/../*/canary $scratch/../*/*/canary $scratch/../*/*/*/canary"), $canary, 'nothing was executed');
ok(!unlink($home_canary), "nor by the node's shell");

done_testing();
