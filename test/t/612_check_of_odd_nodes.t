# follow_primary_check() of nodes that a job has left, that lead back to this server, that
# have lost their data, or that keep a setting to themselves. Each is broken once, on real
# servers, with a standby as the candidate: exactly its row changes, and is ok again when it
# is mended.

use FollowPrimary::Test;

my $cluster = FollowPrimary::Cluster->new(nodes => 3, extension => 1, checksums => 0, conf => {
    shared_preload_libraries => 'follow_primary', max_worker_processes => 12, 'follow_primary.sibling_slots' => 'off',
    wal_level => 'logical', wal_keep_size => '64MB', wal_log_hints => 'on', 'follow_primary.connect_timeout' => '10s' });
my ($primary, $candidate, $sibling) = $cluster->nodes;
my $me = $sibling->address . ':' . $sibling->port;

sub settle { $primary->wait_for_catchup($_) for grep { $_->running } $candidate, $sibling; return }
sub row_sql { my ($sql) = @_; $primary->safe_psql("UPDATE follow_primary_node SET $sql WHERE host = '@{[ $sibling->address ]}'"); settle(); return }

# Of the sibling: item => [ status, message, hint ].
sub rows
{
    my $out = $candidate->safe_psql("SELECT item, status, coalesce(message, ''), coalesce(hint, '') FROM follow_primary_check() WHERE node = '$me'");
    return { map { my ($item, @rest) = split /\|/, $_, 4; ($item => \@rest) } split /\n/, $out };
}
my $good = rows();
is(join(' ', grep { $good->{$_}[0] ne 'ok' } sort keys %$good), '', 'all is well in the beginning') or diag(explain($good));

my $job = $sibling->pgdata . '.follow_primary/job';
my $away = $sibling->pgdata . '.away';
my @cases = (
    {   what => 'a mark', item => 'data_directory', status => 'warning', says => qr/interrupted job left its mark/, hint => qr/follow_primary\(\)/i,
        break => sub { system('mkdir', '-p', $job) == 0 or die; spew("$job/mark", "job=1\ntoken=00000000-0000-0000-0000-000000000001\nphase=stopped\nmethod=rewind\n") },
        mend => sub { unlink "$job/mark" or die; rmdir $job or die } },
    {   what => 'a role that may not see all settings', item => 'preload', status => 'unknown', says => qr/may not see shared_preload_libraries/, hint => qr/GRANT pg_read_all_settings TO fewer/,
        break => sub {
            $primary->safe_psql('CREATE ROLE fewer LOGIN; GRANT pg_read_all_stats TO fewer; GRANT USAGE ON SCHEMA public TO fewer; GRANT SELECT ON follow_primary_step TO fewer;
                GRANT EXECUTE ON FUNCTION pg_ls_dir(text, boolean, boolean), pg_stat_file(text, boolean), pg_read_binary_file(text), pg_read_binary_file(text, bigint, bigint, boolean) TO fewer');
            row_sql(q{rewind_user = 'fewer'});
        },
        mend => sub { row_sql('rewind_user = NULL') } },
    {   what => 'a row that leads back here', item => 'name', status => 'error', says => qr/is this server itself, which does not know it/, hint => qr/follow_primary\.primary_host/, alone => 1,
        break => sub { row_sql("pgdata = '@{[ $candidate->pgdata ]}'") }, mend => sub { row_sql("pgdata = '@{[ $sibling->pgdata ]}'") } },
    {   what => 'no data', item => 'data_directory', status => 'warning', says => qr/is empty/, hint => qr/on the primary, to have a copy made/, alone => 1,
        break => sub { $sibling->stop; rename $sibling->pgdata, $away or die; mkdir $sibling->pgdata, 0700 or die },
        mend => sub { rmdir $sibling->pgdata or die; rename $away, $sibling->pgdata or die; $sibling->start; $sibling->wait_for_streaming($primary); settle() } });

for my $case (@cases)
{
    $case->{break}->();
    my $now = rows();
    $case->{mend}->();
    my $mended = rows();
    subtest $case->{what} => sub {
        is(join(' ', grep { !$good->{$_} || $now->{$_}[0] ne 'ok' } sort keys %$now), $case->{item}, 'exactly that row is not ok');
        is($now->{ $case->{item} }[0], $case->{status}, 'its status');
        like($now->{ $case->{item} }[1], $case->{says}, 'its message');
        like($now->{ $case->{item} }[2], $case->{hint}, 'its hint');
        is(join(' ', grep { !$now->{$_} } sort keys %$good), '', 'no row is left out') if !$case->{alone};
        is(join(' ', grep { !$mended->{$_} || $mended->{$_}[0] ne 'ok' } sort keys %$good), '', 'mended, all is well');
    } or diag(explain([ $now, $mended ]));
}

done_testing();
