# Whatever is set for the role or the database that a job asks the node as: dates,
# numbers and strings in other forms, limits of a moment, messages, a trigger that
# talks at each login. The node is asked, and proves to follow, all the same. Only
# a real server says, and in which place, what such a setting makes it say.

use FollowPrimary::Test;

my $major   = FollowPrimary::Node::pg_major();
my $cluster = FollowPrimary::Cluster->new(nodes => 2, extension => 1, conf => {
    'follow_primary.verify_timeout' => '5s', 'follow_primary.rewind_user' => 'asks' });
my ($primary, $node) = $cluster->nodes;
$primary->safe_psql("CREATE ROLE asks SUPERUSER LOGIN");

sub asked
{
    my ($what) = @_;
    $primary->wait_for_catchup($node);
    my $r = $primary->make_follow($node);
    ok($r->{ok}, $what) or diag($r->{err});
    is($primary->safe_psql('SELECT method FROM follow_primary_job ORDER BY id DESC LIMIT 1'), 'none', "$what: it is known to follow");
    return;
}
asked('as it is');

my @settings = (
    [ client_min_messages => 'debug5' ],
    [ log_statement => 'all', client_min_messages => 'log' ],
    [ datestyle => 'SQL, DMY', intervalstyle => 'sql_standard', timezone => 'Asia/Kathmandu', bytea_output => 'escape',
        extra_float_digits => -15, lc_numeric => 'de_DE.UTF-8', lc_monetary => 'de_DE.UTF-8', lc_time => 'de_DE.UTF-8', lc_messages => 'de_DE.UTF-8' ],
    # From 19 on strings conform to the standard always.
    [ $major < 19 ? (standard_conforming_strings => 'off', escape_string_warning => 'on') : (), backslash_quote => 'off', quote_all_identifiers => 'on' ],
    [ client_encoding => 'EUC_JP' ],
    [ search_path => 'nowhere', row_security => 'off', default_transaction_read_only => 'on', default_transaction_isolation => 'serializable',
        default_transaction_deferrable => 'on' ],
    [ statement_timeout => 1, lock_timeout => 1, idle_in_transaction_session_timeout => 1 ],
    $major >= 14 ? [ idle_session_timeout => 1 ] : (),
    $major >= 17 ? [ transaction_timeout => 1 ] : (),
    [ session_preload_libraries => 'auto_explain', 'auto_explain.log_min_duration' => 0, 'auto_explain.log_level' => 'notice' ]);

for my $settings (@settings)
{
    my @pairs = @$settings;
    while (my ($name, $value) = splice @pairs, 0, 2)
    {
        $primary->safe_psql("ALTER ROLE asks SET $name = '$value'");
        $primary->safe_psql("ALTER DATABASE postgres SET $name = '$value'") if $name =~ /^(datestyle|standard_conforming_strings|client_encoding)$/;
    }
    asked(join ' ', map { $_ % 2 ? () : $settings->[$_] } 0 .. $#$settings);
    $primary->safe_psql('ALTER ROLE asks RESET ALL; ALTER DATABASE postgres RESET ALL');
}

# An upgrade of the operating system, and a trigger that talks.
SKIP:
{
    skip 'databases have a collation version from 15 on', 2 if $major < 15;
    $primary->safe_psql("UPDATE pg_database SET datcollversion = '1'");
    asked('another collation version');
}
SKIP:
{
    skip 'triggers at login are there from 17 on', 2 if $major < 17;
    $primary->safe_psql(q{CREATE FUNCTION talks() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE WARNING E'sql.in_recovery=false\nf|streaming'; END $$;
        CREATE EVENT TRIGGER talks ON login EXECUTE FUNCTION talks(); ALTER EVENT TRIGGER talks ENABLE ALWAYS});
    asked('a trigger that talks at each login');
}

done_testing();
