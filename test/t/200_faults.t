# The most telling faults of `make test-faults`. A job is held at a step, and its
# worker, its primary, its SSH connection or its node is harmed. Then the job's row
# tells the truth, the node's data is old, new or marked, and the same call once more
# brings all in order. Only killed processes leave on disk, in a slot and in a table
# what they leave.

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
