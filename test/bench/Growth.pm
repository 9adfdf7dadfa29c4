package Growth;

# Shows cost against size, as bench.pl measures it: as a table in Markdown, and as a plot in SVG.
# A result's growth is what grows, how big it is, and what is done.

use strict;
use warnings;

use List::Util qw(max);

use Report;

# What a busy machine may add between two sizes, in seconds.
my $slack = 0.1;

# Lists of the results of one thing that grows and one thing that is done, by size, in the order
# in which they were measured.
sub _series
{
    my ($results) = @_;
    my (@order, %series);
    for my $result (@$results)
    {
        my ($of, undef, $done) = @{ $result->{growth} };
        push @order, "$of, $done" if !$series{"$of, $done"};
        push @{ $series{"$of, $done"} }, $result;
    }
    return map { $series{$_} } @order;
}

sub _survey
{
    my ($result) = @_;
    my ($survey) = map { $_->[1] } grep { $_->[0] eq 'survey' } @{ $result->{steps} // [] };
    return $survey;
}

sub _thousands { my ($n) = @_; 1 while $n =~ s/^(\d+)(\d{3})/$1,$2/; return $n }

# Against the size before: has the time grown by no more than the size has?
sub _growth
{
    my ($before, $result) = @_;
    return '' if !$before;
    my ($small, $size) = map { $_->{growth}[1] } $before, $result;
    my $times = $result->{ours} / $before->{ours};
    return sprintf '%.2f', $times if $small == 0;
    my $kept = $result->{ours} <= $before->{ours} * $size / $small + $slack;
    return sprintf '%.2f for %.1f times the size: %s', $times, $size / $small, $kept ? 'yes' : '**no**';
}

sub markdown
{
    my ($results, $facts) = @_;
    my @ours = @{ $results->[0]{runs}{ours} };
    my $text = <<"END";
# Cost against size

Written by `make bench`: $facts->{postgres}, $facts->{cores} cores, all servers, sshds and clients on this one
machine. Medians of @{[ scalar @ours ]} runs of each way, in turn, from the call to the proof; what is compared, and how, is in
[results.md](results.md). The machine's load average was up to $facts->{load}, that of the measurements included:
much more than a few says that others used it, too, and that only the ratios tell something. *Survey* is the step that looks at both servers. *Linear* asks whether the time
has grown by no more than the size, and a tenth of a second, since the line above.

![Cost against size](growth.svg)

| what grows | size | what is done | follow_primary | its runs | by hand | times as long | survey | times the size before; linear? |
|---|---|---|---|---|---|---|---|---|
END
    for my $series (_series($results))
    {
        my $before;
        for my $result (@$series)
        {
            my ($of, $size, $done) = @{ $result->{growth} };
            my $survey = _survey($result);
            my @runs = sort { $a <=> $b } @{ $result->{runs}{ours} };
            $text .= '| ' . join(' | ', $of, _thousands($size), $done, sprintf('%.3f s', $result->{ours}),
                sprintf('%.3f to %.3f', $runs[0], $runs[-1]),
                defined $result->{hand} ? (sprintf('%.3f s', $result->{hand}), sprintf('%.2f', $result->{ours} / $result->{hand})) : ('', ''),
                defined $survey ? sprintf('%.0f ms', $survey) : '',
                _growth($before, $result)) . " |\n";
            $before = $result;
        }
    }
    $text .= <<'END';

- *Data* and *relations*: a former primary that has WAL of its own goes back to the fork, or gets a new copy, which
  `follow_primary()` verifies before the old data goes. By hand the old data is removed first, and nothing is verified.
- *Lost WAL*: the same, with an almost empty database; the WAL that is lost is saved, and counted after the proof.
- *Timelines*: that many history files are on all servers, as so many promotions leave them; a sibling is repointed.
- *Nodes at once*: repoints of as many siblings, started in one psql call; by hand one after the other.
- *Rows of history*: a repoint while `follow_primary_job` has so many rows, and `follow_primary_step` five times as many;
  *both views* is a look at `follow_primary_progress` and at `follow_primary_cluster`.
END
    return $text;
}

my %colour = (rewind => '#f28e2b', copy => '#4e79a7', repoint => '#59a14f', 'both views' => '#b07aa1');

# A panel for each thing that grows. Both axes are linear and begin at 0: what grows in proportion
# is a straight line.
sub svg
{
    my ($results) = @_;
    my (@order, %panels);
    for my $series (_series($results))
    {
        my $of = $series->[0]{growth}[0];
        push @order, $of if !$panels{$of};
        push @{ $panels{$of} }, $series;
    }
    my ($width, $height, $columns) = (300, 210, 3);
    my $rows = int((@order + $columns - 1) / $columns);
    my $total_width  = $columns * $width;
    my $total_height = 50 + $rows * $height;
    my $body = Report::text(20, 24, 'Cost against size: seconds from the call to the proof', 'font-size' => 16, 'font-weight' => 'bold');

    my $x = 20;
    for my $done ('rewind', 'copy', 'repoint', 'both views')
    {
        $body .= sprintf qq(<line x1="%d" y1="38" x2="%d" y2="38" stroke="%s" stroke-width="2.5"/>\n), $x, $x + 22, $colour{$done};
        $body .= Report::text($x + 27, 42, $done);
        $x += 50 + 7 * length $done;
    }
    $body .= sprintf qq(<line x1="%d" y1="38" x2="%d" y2="38" stroke="#555" stroke-width="1.5" stroke-dasharray="4 3"/>\n), $x, $x + 22;
    $body .= Report::text($x + 27, 42, 'the same by hand');
    for my $i (0 .. $#order)
    {
        $body .= _panel($i % $columns * $width, 50 + int($i / $columns) * $height, $width, $height, $order[$i], $panels{ $order[$i] });
    }
    return <<"END" . $body . "</svg>\n";
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 $total_width $total_height" font-family="sans-serif" font-size="12">
<rect width="$total_width" height="$total_height" fill="#fff"/>
END
}

sub _panel
{
    my ($left, $top, $width, $height, $of, $all) = @_;
    my ($x0, $y0, $x1, $y1) = ($left + 48, $top + $height - 34, $left + $width - 34, $top + 30);
    my @results = map { @$_ } @$all;
    my $most_x  = max(map { $_->{growth}[1] } @results) || 1;
    my $most_y  = max(map { grep { defined } @$_{qw(ours hand)} } @results);
    my $x = sub { return $x0 + ($x1 - $x0) * $_[0] / $most_x };
    my $y = sub { return $y0 - ($y0 - $y1) * $_[0] / $most_y };
    my %small = ('font-size' => 10, fill => '#555');

    my $body = Report::text($x0, $top + 18, $of, 'font-weight' => 'bold');
    $body .= sprintf qq(<path d="M%.1f %.1f V%.1f H%.1f" fill="none" stroke="#999"/>\n), $x0, $y1, $y0, $x1;
    $body .= Report::text($x0 - 4, $y0, '0', %small, 'text-anchor' => 'end');
    $body .= Report::text($x0 - 4, $y1 + 4, sprintf('%.*f s', $most_y < 10 ? 2 : 0, $most_y), %small, 'text-anchor' => 'end');
    my $last;
    for my $size (sort { $b <=> $a } keys %{ { map { $_->{growth}[1] => 1 } @results } })
    {
        next if defined $last && $last - $x->($size) < 7 * length _thousands($size);
        $last = $x->($size);
        $body .= Report::text($last, $y0 + 13, _thousands($size), %small, 'text-anchor' => 'middle');
    }
    for my $series (@$all)
    {
        my $colour = $colour{ $series->[0]{growth}[2] };
        for my $way (qw(hand ours))
        {
            my @points = map { defined $_->{$way} ? [ $x->($_->{growth}[1]), $y->($_->{$way}), $_->{$way} ] : () } @$series;
            next if !@points;
            $body .= sprintf qq(<polyline points="%s" fill="none" stroke="%s" %s/>\n), join(' ', map { sprintf '%.1f,%.1f', @$_[ 0, 1 ] } @points),
                $colour, $way eq 'ours' ? 'stroke-width="2.5"' : 'stroke-width="1.5" stroke-dasharray="4 3"';
            next if $way ne 'ours';
            $body .= sprintf qq(<circle cx="%.1f" cy="%.1f" r="3" fill="%s"><title>%.3f s</title></circle>\n), $_->[0], $_->[1], $colour, $_->[2] for @points;
        }
    }
    return $body;
}

1;
