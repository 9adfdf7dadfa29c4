# Somebody uses the account on the node: its login shell is bash, dash, a csh or fish;
# sshd and the start-up files are noisy on both outputs, and set variables, a umask
# and a directory that scripts do not expect; its locale and the servers' messages are
# German. Whole jobs work in each: a real sshd starts the real shell, which reads its
# real files. nss_wrapper gives the account the shell, without root.

use FollowPrimary::Test;

# The account's locale, and the servers'.
my $locales = scratch_dir('locales');
my ($code) = eval { run_command([ 'localedef', '-i', 'de_DE', '-f', 'UTF-8', "$locales/de_DE.UTF-8" ]) };
my $german = defined $code && -e "$locales/de_DE.UTF-8/LC_MESSAGES";
note('no German locale: localedef or its sources (package locales) are missing') if !$german;
$ENV{LOCPATH} = $locales if $german;

my $cluster = FollowPrimary::Cluster->new(nodes => 2, extension => 1,
    $german ? (initdb => ['--lc-messages=de_DE.UTF-8']) : ());
my ($primary, $node) = $cluster->nodes;
$primary->safe_psql('CREATE TABLE t AS SELECT generate_series(1, 1000) AS i');

my $home = scratch_dir('home');
plan(skip_all => 'nss_wrapper is not installed (package libnss-wrapper)') if !$node->host->login_shell('/bin/sh', $home);
spew($node->host->dir . '/banner', "*** Welcome! follow_primary:0000 begin ***\nfailed=no_space\n" x 20, 0644);
append_text($node->host->dir . '/sshd_config', 'Banner ' . $node->host->dir . "/banner\n" . ($german ? "SetEnv LOCPATH=$locales\n" : ''));
$node->host->ssh_stop;
$node->host->ssh_start;

# What the start-up files say and set; each makes a file when it is read.
my %set = (
    PGHOST => '192.0.2.1', PGHOSTADDR => '192.0.2.1', PGPORT => 1, PGUSER => 'nobody', PGDATABASE => 'nowhere', PGDATA => '/nowhere',
    PGOPTIONS => '-c nothing=1', PGSERVICE => 'none', PGAPPNAME => 'mine', CDPATH => "$home:/tmp", POSIXLY_CORRECT => 1,
    $german ? (LC_ALL => 'de_DE.UTF-8', LANGUAGE => 'de') : ());
mkdir "$home/.config" or die;
mkdir "$home/.config/fish" or die;
my $noise = join '', map { "echo 'noise: nonce begin $_'\necho 'pgdata=/wrong'\necho 'noise on stderr' 1>&2\n" } 1 .. 50;
my $sh = $noise . join('', map { "export $_='$set{$_}'\n" } sort keys %set) . "umask 000\ncd /\ntouch $home/read\n";
spew("$home/$_", $sh) for qw(.bashrc .profile .bash_profile);
spew("$home/.cshrc", "echo 'noise: nonce begin'\necho 'pgdata=/wrong'\n" . join('', map { "setenv $_ '$set{$_}'\n" } sort keys %set)
    . "alias rm 'rm -i'\numask 000\ncd /\ntouch $home/read\n");
spew("$home/.config/fish/config.fish", "echo 'noise'\necho 'noise on stderr' 1>&2\n" . join('', map { "set -x $_ '$set{$_}'\n" } sort keys %set)
    . "umask 000\ncd /\ntouch $home/read\n");

sub follows
{
    my ($what, %arguments) = @_;
    my $r = $primary->make_follow($node, %arguments);
    ok($r->{ok}, $what) or die $r->{err};
    has_rows_of($primary, $node, $what);
    return;
}

my %reads = (bash => 1, tcsh => 1, fish => 1);
for my $shell (qw(bash dash tcsh fish))
{
    my ($path) = grep { -x } "/bin/$shell", "/usr/bin/$shell";
    if (!defined $path)
    {
        note("$shell is not installed");
        next;
    }
    unlink "$home/read";
    $node->host->login_shell($path, $home);
    $node->kill9;
    follows("$shell: a standby that died is started", when_down => 'rejoin');
    is(-e "$home/read" ? 1 : 0, $reads{$shell} // 0, $reads{$shell} ? 'its start-up file was read' : 'it reads none');
    follows('it is copied', method => 'basebackup');
    follows('and repointed', method => 'repoint');
    my @open = grep { (stat)[2] & 077 } grep { -f } map { glob "$_/*" } $node->pgdata, $node->pgdata . '.follow_primary';
    is("@open", '', 'the umask of the account opens no file to others');
}

# A former primary, whose start fails first, with German messages.
$node->promote;
$node->safe_psql('INSERT INTO t SELECT generate_series(1, 100)');
$node->kill9;
my $conf = slurp($node->pgdata . '/postgresql.conf');
my $long = scratch_dir('sockets') . '/' . 'x' x 110;
mkdir $long or die;
$node->set(unix_socket_directories => $long);
my $r = $primary->make_follow($node, method => 'rewind', when_down => 'rejoin');
is($r->{sqlstate}, '55000', 'a start that fails after a rewind is told') or diag($r->{err});
chomp(my $translations = run_ok([ $ENV{PG_CONFIG} // 'pg_config', '--localedir' ]));
my $translated = $german && -e "$translations/de/LC_MESSAGES/postgres-" . pg_major() . '.mo';
like($r->{detail}, $translated ? qr/konnte keine Unix-Domain-Sockets erzeugen/ : qr/could not create any Unix-domain sockets/,
    $translated ? 'with what the server said, in German' : 'with what the server said');
spew($node->pgdata . '/postgresql.conf', $conf);
follows('a second call goes on', when_down => 'rejoin');
is($primary->safe_psql("SELECT method, lost_transactions > 0 FROM follow_primary_job WHERE lost_transactions IS NOT NULL ORDER BY id DESC LIMIT 1"),
    'rewind|t', 'after a rewind');

done_testing();
