# The old data goes before the copy is made, and the node's own files must not: the
# copy itself needs the client's key, which is in the data directory, for the primary
# lets nobody in without a certificate. They survive a job that ends between the
# removal and the copy, too. Only a server that asks for a certificate, and a disk
# that is full, show it.

use FollowPrimary::Test;
use FollowPrimary::Mounts;
use FollowPrimary::OwnFiles;

plan(skip_all => 'openssl is not installed') if !grep { -x "$_/openssl" } split /:/, $ENV{PATH};
my $disk = FollowPrimary::Mounts::enter('mkdir disk && mount -t tmpfs -o mode=0700,size=900m tmpfs disk');
plan(skip_all => FollowPrimary::Mounts::NONE) if !$disk;
$disk .= '/disk';

# Two authorities: each server has a certificate for repl that only the other takes.
my $tls = scratch_dir('tls');
for my $name ('node0', 'node1')
{
    run_ok([ 'sh', '-c', <<"END", 'sh', $name ]);
cd '$tls' && exec 2>&1 &&
openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=authority-\$1 -keyout ca-\$1.key -out ca-\$1.crt -days 30 &&
openssl req -newkey rsa:2048 -nodes -subj /CN=repl -keyout client-\$1.key -out client-\$1.csr &&
openssl x509 -req -in client-\$1.csr -CA ca-\$1.crt -CAkey ca-\$1.key -CAcreateserial -out client-\$1.crt -days 30 &&
openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=server-\$1 -keyout server-\$1.key -out server-\$1.crt -days 30 &&
chmod 600 *.key
END
}

my $cluster = FollowPrimary::Cluster->new(nodes => 2, extension => 1, same_port => 0);
my ($old, $new) = $cluster->nodes;
$old->safe_psql('CREATE TABLE t AS SELECT generate_series(1, 1000) AS i');
$old->wait_for_catchup($new);
$old->stop;
run_ok([ 'mv', $old->pgdata, "$disk/data" ]);
$old->{pgdata} = "$disk/data";
my %own = map { $_->name => FollowPrimary::OwnFiles->new($_) } $old, $new;
$new->promote;
for my $node ($old, $new)
{
    my ($mine, $other) = $node == $old ? ('node0', 'node1') : ('node1', 'node0');
    my $data = $node->pgdata;
    spew("$data/server.$_", slurp("$tls/server-$mine.$_"), 0600) for 'key', 'crt';
    spew("$data/clients-ca.crt", slurp("$tls/ca-$other.crt"));
    spew("$data/certs/client.$_", slurp("$tls/client-$mine.$_"), 0600) for 'key', 'crt';
    $node->set(ssl => 'on', ssl_ca_file => 'clients-ca.crt', ssl_crl_file => '', ssl_dh_params_file => '');
    (my $hba = slurp("$data/pg_hba.conf")) =~ s/^host replication .*/hostssl replication all 127.0.0.0\/8 cert/m;
    spew("$data/pg_hba.conf", $hba);
    $node->restart;
}
$new->set('follow_primary.replication_options' => "sslmode=require sslkey=$disk/data/certs/client.key sslcert=$disk/data/hba/../certs/client.crt",
    'follow_primary.passfile' => $own{ $old->name }->passfile);
$new->reload;
$old->safe_psql('INSERT INTO t VALUES (7777)');
my $own = $own{ $old->name };
$own->{also} = [ 'server.key', 'server.crt', 'clients-ca.crt' ];
$own->remember;
$new->safe_psql("UPDATE follow_primary_node SET copy_in_place = true, pgdata = '$disk/data' WHERE port = " . $old->port);

sub leave_free
{
    my ($mb) = @_;
    unlink "$disk/ballast";
    my $free = (split ' ', (split /\n/, run_ok([ 'df', '-Pm', $disk ]))[1])[3];
    run_ok([ 'fallocate', '-l', ($free - $mb) . 'M', "$disk/ballast" ]) if $free > $mb;
    return;
}

sub follows
{
    my ($what) = @_;
    is($new->job('method, state'), 'basebackup|succeeded', "$what: basebackup");
    has_rows_of($new, $old, $what);
    $own->unchanged($what);
    is(join(' ', grep { !m{/lost_wal-} } glob("$disk/data.follow_primary/*")), '', "$what: nothing is left beside the data");
    return;
}

# 1.
leave_free(20);
my $r = $new->make_follow($old, method => 'basebackup');
ok($r->{ok}, 'the node gets a copy in place') or diag($r->{err});
is($new->safe_psql("SELECT count(*) FROM follow_primary_step WHERE step = 'clear'"), 1, 'the old data went first');
follows('in place');

# 2. Ended between the removal and the copy.
leave_free(20);
$new->safe_psql(<<'END');
CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'the test ends the job here'; END $$;
CREATE TRIGGER fail BEFORE INSERT ON follow_primary_step FOR EACH ROW WHEN (NEW.step = 'copy') EXECUTE FUNCTION fail();
END
$r = $new->make_follow($old, method => 'basebackup');
ok(!$r->{ok}, 'a job ends before the copy is made');
ok(!-e "$disk/data/base", 'the old data is gone');
$own->unchanged('after the removal');
$new->safe_psql('DROP TRIGGER fail ON follow_primary_step');
$r = $new->make_follow($old);
ok($r->{ok}, 'the next call makes the copy') or diag($r->{err});
follows('after the removal');

done_testing();
