# The most telling of the faults that `make test-faults` runs all of: a job is
# stopped at a step, its worker, its primary, its SSH connection or its node
# harmed there; the row must tell the truth, the node's data be old, new or
# marked, and the same call once more must bring all in order. What a killed
# process leaves on disk, in a slot and in a table cannot be shown by anything
# smaller than the processes themselves.

use FindBin;
use lib "$FindBin::Bin/../faults";
use FollowPrimary::Test;
use Faults;

Faults::enter_namespace();
my $faults = Faults->new;

for my $line (
    'repoint    repoint   end    cut',
    'attached   attach    begin  kill',
    'rewind     stop      middle terminate',
    'rewind     configure end    immediate',
    'basebackup swap      end    kill',
    'mounted    swap      rename6 power',
    'in_place   clear     remove2 kill',
    'rewind     rewind    middle kill',
    'basebackup copy      middle cut',
    'basebackup copy      middle full')
{
    my %case;
    @case{qw(method step point fault)} = split ' ', $line;
    my $problem = $faults->run(\%case);
  SKIP:
    {
        skip $problem, 1 if defined $problem && $problem =~ s/^skip: //;
        is($problem, undef, "$case{fault} at the $case{point} of \"$case{step}\" of a $case{method}");
    }
}

done_testing();
