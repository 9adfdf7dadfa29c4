# recovery_file names a file that each job writes anew. One that holds anything
# else must not be taken for it: the node would lose what ALTER SYSTEM has set, its
# access rules, or a folder's settings. Some names tell, and are refused where they
# are set; the rest only the node knows, and no job and no plan goes on then. What a
# standby's file may hold besides is kept. A real server decides whose file it is.

use FollowPrimary::Test;

plan(skip_all => 'before PostgreSQL 12 the file is recovery.conf, whatever the setting says') if FollowPrimary::Node::pg_major() < 12;

my $cluster = FollowPrimary::Cluster->new(nodes => 2, extension => 1);
my ($primary, $node) = $cluster->nodes;
$primary->safe_psql('CREATE TABLE t AS SELECT 1 AS i');
my $data = $node->pgdata;
my $row = "host = '@{[ $node->address ]}'";

# 1. By the name.
for my $file (qw(postgresql.auto.conf postgresql.conf ./postgresql.auto.conf sub/../postgresql.auto.conf /data/postgresql.auto.conf
    /etc/postgresql/postgresql.conf pg_hba.conf pg_ident.conf standby.signal recovery.signal recovery.conf backup_label
    tablespace_map PG_VERSION postmaster.pid postmaster.opts current_logfiles global/own.conf ./base/own.conf pg_wal/own.conf
    folder/ . .. sub/. ../own.conf))
{
    my $r = $primary->try_sql("LOAD 'follow_primary'; SET follow_primary.recovery_file = '$file'");
    is($r->{sqlstate}, '22023', "the setting does not take $file") or diag($r->{err}, $r->{out});
    like($r->{detail}, qr/\w/, 'and says why');
    $r = $primary->try_sql("UPDATE follow_primary_node SET recovery_file = '$file' WHERE $row");
    is($r->{sqlstate}, '23514', 'nor does the node table');
}
for my $file (qw(myrecovery.conf conf.d/own.conf /etc/postgresql/own.conf postgresql.conf.d/standby.conf pg_standby.conf my.postgresql.conf))
{
    my $r = $primary->try_sql("LOAD 'follow_primary'; SET follow_primary.recovery_file = '$file'; UPDATE follow_primary_node SET recovery_file = '$file' WHERE $row");
    ok($r->{ok}, "both take $file") or diag($r->{err});
}

# A value that came into the table when nobody looked.
$primary->safe_psql('UPDATE follow_primary_node SET recovery_file = NULL');

# 2. By what is there.
mkdir "$data/conf.d" or die;
mkdir "$data/own" or die;
spew("$data/conf.d/own.conf", "work_mem = '7MB'\n");
spew("$data/access.conf", slurp("$data/pg_hba.conf"));
symlink 'postgresql.auto.conf', "$data/auto.conf" or die;
link "$data/postgresql.conf", "$data/linked.conf" or die;
symlink "$data/access.conf", "$data/own/access.conf" or die;
spew("$data/notes.conf", "Call Ann before you touch this server.\n");
spew("$data/more.conf", "primary_slot_name = 'x'\ninclude 'conf.d/own.conf'\n");
$node->append_conf("include_dir = 'conf.d'\nhba_file = '$data/access.conf'\n");
$node->safe_psql(q{ALTER SYSTEM SET maintenance_work_mem = '33MB'});
$node->restart;
my $conf = slurp("$data/postgresql.conf");
unlink "$data/linked.conf";
link "$data/postgresql.conf", "$data/linked.conf" or die;

for my $file (qw(auto.conf linked.conf own/access.conf access.conf conf.d/own.conf notes.conf more.conf conf.d), "$data/auto.conf", "$data/conf.d/own.conf")
{
    my $before = -f "$data/$file" ? slurp("$data/$file") : '';
    my $plan = $primary->try_sql("SET follow_primary.recovery_file = '$file'; "
        . $primary->follow_sql($node, slot_name => 'another', function => 'follow_primary_plan'));
    like($plan->{out}, qr/^refuse\|follow_primary\.recovery_file/, "$file: the plan refuses it") or diag($plan->{err});
    for my $method ('auto', 'rewind', 'basebackup')
    {
        my $r = $primary->try_sql("SET follow_primary.recovery_file = '$file'; " . $primary->follow_sql($node, slot_name => 'another', method => $method));
        is($r->{sqlstate}, 'F0000', "$file: $method is refused") or diag($r->{err});
        like($r->{message}, qr/at step plan: .*recovery_file/, 'before anything is done');
        like($r->{hint}, qr/recovery_file/, 'with what to do');
    }
    is(-f "$data/$file" ? slurp("$data/$file") : '', $before, "$file: it is as it was");
    is(slurp("$data/postgresql.conf"), $conf, "$file: so is postgresql.conf");
}
is($primary->safe_psql("SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'another'"), 0, 'no slot is left');

# 3. What else a standby's file may hold stays, in every method.
my $file = "$data/myrecovery.conf";
append_text($file, "# from the runbook\nrecovery_min_apply_delay = 10\narchive_cleanup_command = 'true'\nhot_standby_feedback = on\n");
$node->restart;
my $slot = 'one';
for my $method ('auto', 'rewind', 'basebackup')
{
    my $r = $primary->make_follow($node, slot_name => $slot++, method => $method);
    ok($r->{ok}, "$method: it follows") or diag($r->{err});
    is($node->safe_psql('SHOW recovery_min_apply_delay') . ' ' . $node->safe_psql('SHOW archive_cleanup_command')
        . ' ' . $node->safe_psql('SHOW hot_standby_feedback') . ' ' . $node->safe_psql('SHOW maintenance_work_mem'), '10ms true on 33MB', "$method: a standby's other settings are in force");
    my $text = slurp($file);
    is(() = $text =~ /^primary_conninfo/mg, 1, "$method: with one primary_conninfo");
    like($text, qr/^# from the runbook$/m, "$method: and the comment");
    my %seen;
    is(join("\n", grep { $seen{$_}++ } $text =~ /^(.+)$/mg), '', "$method: nothing is there twice");
}

done_testing();
