package FollowPrimary::Writer;

# A client that writes all the time, wherever the primary is, and counts what was
# acknowledged.
#
#   my $writer = FollowPrimary::Writer->start($cluster, pause => 0.01);   # its table is "written"
#   ... a switchover ...
#   $writer->wait_for_rows(10);         # more than there were
#   $writer->stop;
#   $writer->longest_gap($began);       # seconds without an acknowledged row since then
#   $writer->lost($primary);            # how many of the acknowledged rows it lacks
#
# Options: pause, in seconds; node, the only server that it writes to, by the Unix socket,
# while that is a primary; first, the number of its first row.

use strict;
use warnings;

use Cwd qw(realpath);
use File::Basename qw(dirname);
use FollowPrimary::Scratch qw(wait_until);

my $script = dirname(realpath(__FILE__)) . '/../writer.pl';

sub start
{
    my ($class, $cluster, %opt) = @_;
    my @nodes = $cluster->nodes;
    $cluster->primary->safe_psql('CREATE TABLE IF NOT EXISTS written (i bigint PRIMARY KEY)');
    my $conninfo = $opt{node} ?
        sprintf('host=%s port=%d user=%s dbname=postgres target_session_attrs=read-write connect_timeout=2',
            $opt{node}->host->dir, $opt{node}->port, $opt{node}->superuser) :
        sprintf 'host=%s port=%s user=%s dbname=postgres target_session_attrs=read-write connect_timeout=2',
        join(',', map { $_->address } @nodes), join(',', map { $_->port } @nodes), $nodes[0]->superuser;
    my $self = bless { process => FollowPrimary::Process->start([ $^X, $script, $nodes[0]->bin('psql'), $conninfo, 'written', $opt{pause} // 0.01, $opt{first} // 1 ]) }, $class;
    $self->wait_for_rows(5) if !$opt{node};
    return $self;
}

# [number, when], in order.
sub rows
{
    my ($self) = @_;
    return map { [ split / / ] } $self->{process}->out =~ /^(\d+ [\d.]+)$/mg;
}

sub wait_for_rows
{
    my ($self, $n) = @_;
    my $have = () = $self->rows;
    wait_until("$n more rows are written", sub { my $now = () = $self->rows; $now >= $have + $n }, 60)
        or die "the client that writes cannot\n" . $self->{process}->err;
    return;
}

sub stop { my ($self) = @_; $self->{process}->stop(signal => 'KILL'); return }

sub longest_gap
{
    my ($self, $since) = @_;
    my ($longest, $last) = (0);
    for my $when (map { $_->[1] } $self->rows)
    {
        $longest = $when - $last if defined $last && $when >= $since && $when - $last > $longest;
        $last = $when;
    }
    return $longest;
}

sub lost
{
    my ($self, $primary) = @_;
    my $rows = join ',', map { "($_->[0])" } $self->rows;
    return $primary->safe_psql("SELECT count(*) FROM (VALUES $rows) a (i) WHERE NOT EXISTS (SELECT FROM written w WHERE w.i = a.i)");
}

1;
