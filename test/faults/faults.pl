# Stops a job at every step, with every fault; see Faults.pm.
#
# usage: perl -I test/lib -I test/faults test/faults/faults.pl
#            [method=REGEX] [step=REGEX] [point=REGEX] [fault=REGEX]
#            [sample=N] [part=N/M] [minutes=N]
#
# A filter has to match the whole name. sample=400 runs that many of the cases,
# spread evenly over methods, steps and faults. part=1/3 runs every third case,
# so that three processes share the work. Exits 1 when a case failed or, after
# that many minutes (240), when some were left out.

use strict;
use warnings;

use Faults;

my %want = map { /\A(method|step|point|fault|sample|part|minutes)=(.+)\z/ ? ($1 => $2) : die "not understood: $_\n" } @ARGV;
my ($part, $parts) = split m{/}, delete $want{part} // '1/1';
my $sample = delete $want{sample};
my $end = time + 60 * (delete $want{minutes} // 240);
die "PostgreSQL does not run as root\n" if $> == 0;
Faults::enter_namespace();
$| = 1;

my $faults = Faults->new;
my @cases  = $faults->cases(%want);
@cases = $faults->sample($sample, @cases) if defined $sample;
@cases = @cases[ grep { $_ % $parts == $part - 1 } 0 .. $#cases ];
my @done;
for my $case (@cases)
{
    last if time > $end;
    $case->{result} = $faults->run($case);
    push @done, $case;
    printf "%4d/%d %-11s %-12s %-7s %-10s %5.1f s  %s\n", scalar @done, scalar @cases,
        @{$case}{qw(method step point fault seconds)}, $case->{result} // 'passed';
}
print "\n", Faults::table(@done);
print @cases - @done, " cases left out: the time is over\n" if @done < @cases;
exit(@done < @cases || grep({ defined $_->{result} && $_->{result} !~ /^skip/ } @done) ? 1 : 0);
