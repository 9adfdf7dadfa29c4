# The account that SSH leads to may say anything before, and may have set anything
# for its programs: banners, start-up files that print, an environment that changes
# how programs speak, settings of psql's own, aliases and options of tools. None of
# it reaches the answers. Only a real login shell behind a real sshd reads them all.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 3, extension => 1, conf => { 'follow_primary.verify_timeout' => '10s' },
    sshd_conf => "Banner @{[ scratch_dir() ]}/banner\nPrintMotd yes\n");
my ($old, $new, $sibling) = $cluster->nodes;

# What its own shell, when it is bash, reads for a command by SSH, and what others do.
my $talk = <<'END';
echo "sql.in_recovery=false"; echo "pgdata_state=missing"; echo 'failed=no_programs' >&2
echo 'begin'; printf 'no newline at the end'; printf 'nor here' >&2
for i in 1 2 3 4 5 6 7 8 9; do printf '%s end 0\n' follow_primary; done
export LANG=de_DE.UTF-8 LC_ALL=de_DE.UTF-8 LANGUAGE=de
export PG_COLOR=always PG_COLORS='error=01;31' PGCLIENTENCODING=EUC_JP PGDATESTYLE='SQL, DMY' PGTZ=Asia/Kathmandu PGGEQO=off
export PGOPTIONS='-c client_min_messages=debug5' PGSERVICE=none PGHOST=nowhere PGPORT=1 PGUSER=nobody PGDATABASE=none PGAPPNAME=other
export PSQLRC="$HOME/other.psqlrc" PSQL_PAGER=false PAGER=false PSQL_EDITOR=false PGTARGETSESSIONATTRS=read-write
export BLOCKSIZE=1M BLOCK_SIZE=1M DF_BLOCK_SIZE=1M DU_BLOCK_SIZE=1M QUOTING_STYLE=shell-always TIME_STYLE=long-iso LS_BLOCK_SIZE=1M
export TZ=Asia/Kathmandu POSIXLY_CORRECT=1 GREP_OPTIONS=--color=always GREP_COLORS=mt=31 COLUMNS=20 CDPATH=/ TMOUT=1
export XZ_OPT=-v GZIP=-v TAR_OPTIONS=-v
END
for my $node ($old, $sibling)
{
    my $home = scratch_dir($node->name . '-home');
    spew("$home/$_", $talk) for '.bashrc', '.profile', '.bash_profile', '.bash_login', '.cshrc', '.zshenv';
    spew("$home/$_", "\\pset format aligned\n\\pset null null\n\\set ON_ERROR_STOP off\n\\echo sql.in_recovery=false\n\\timing\n\\set ECHO all\n\\x\n") for '.psqlrc', 'other.psqlrc';
    spew("$home/.ssh-rc", '');
    plan(skip_all => 'libnss-wrapper is not here') if !defined $node->host->login_shell('/bin/bash', $home);
}
spew(scratch_dir() . '/banner', "pgdata_state=missing\nfailed=locked\n");

$old->safe_psql('CREATE TABLE t AS SELECT 1 AS i');
$old->wait_for_catchup($_) for $new, $sibling;
$sibling->set_standby(primary_conninfo => 'host=127.0.0.1 port=1 user=repl');
$sibling->poll_query_until('SELECT count(*) FROM pg_stat_wal_receiver', '0');
$new->promote;
$old->safe_psql('INSERT INTO t VALUES (1000)');
$old->kill9;
$new->safe_psql('INSERT INTO t VALUES (2); CHECKPOINT');

sub follows
{
    my ($node, $method, %arguments) = @_;
    my $r = makes_follow($new, $node, "by a $method: it follows", when_down => 'rejoin', %arguments);
    is($new->job('method'), $method, 'so the job says');
    eval { $new->wait_for_catchup($node) };
    is($node->safe_psql('SELECT sum(i) FROM t'), 3, "it has the primary's rows, and no other");
    return $r;
}
follows($sibling, 'repoint');
follows($sibling, 'none');
my $r = follows($old, 'rewind');
unlike($r->{err}, qr/\e\[/, 'no colours come with what is said');
is($new->safe_psql('SELECT lost_transactions FROM follow_primary_job ORDER BY id DESC LIMIT 1'), 1, 'what is lost is counted');
follows($old, 'basebackup', method => 'basebackup');

# What it says of the room is in bytes, whatever blocks the account counts in.
my $detail = $new->safe_psql("SELECT detail FROM follow_primary_step WHERE step = 'copy' ORDER BY job_id DESC LIMIT 1");
like($detail, qr/^[1-9]\d MB\b/, 'the size of the copy') or diag($detail);

# An error has no colours, and no German.
$sibling->stop;
$sibling->append_conf("shared_buffers = 'none'\n");
$r = $new->make_follow($sibling, when_down => 'rejoin');
ok(!$r->{ok}, 'a server that does not start');
unlike($r->{err}, qr/\e\[/, 'no colours come with an error');

done_testing();
