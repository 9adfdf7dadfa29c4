package Report;

# Shows the measurements of bench.pl: as a table in Markdown, and as a plot in SVG.

use strict;
use warnings;

# The goal for a ratio or a time.
sub _verdict
{
    my ($value, $limit) = @_;
    return '' if !defined $limit;
    my ($relation, $bound) = @$limit;
    my $kept = $relation eq '>=' ? $value >= $bound : $value <= $bound;
    return sprintf ' (%s %s: %s)', $relation eq '>=' ? 'at least' : 'at most', $bound, $kept ? 'yes' : '**no**';
}

sub _seconds { my ($time) = @_; return defined $time ? sprintf('%.3f s', $time) : '' }

sub _range
{
    my ($result) = @_;
    my @sorted = sort { $a <=> $b } @{ $result->{runs}{ours} };
    return sprintf '%.3f to %.3f', $sorted[0], $sorted[-1];
}

# Goals of a switchover, in seconds.
my %goal = (gap => { idle => 0.5, 'pgbench -c 4' => 0.7 }, whole => { idle => 1.5, 'pgbench -c 4' => 1.5 });

sub _switchover
{
    my (@cases) = @_;
    return '' if !@cases;
    my $text = "\n| switchover of three servers, 100 MB | by hand | repmgr | follow_primary | acknowledged rows lost |\n|---|---|---|---|---|\n";
    for my $case (@cases)
    {
        for my $what ([ gap => 'seconds without an accepted write' ], [ whole => 'seconds until whole' ])
        {
            my ($key, $title) = @$what;
            $text .= '| ' . join(' | ', "$title, $case->{load}", (map { _seconds($case->{$key}{$_}) } qw(hand repmgr)),
                _seconds($case->{$key}{ours}) . _verdict($case->{$key}{ours}, [ '<=', $goal{$key}{ $case->{load} } ]),
                $key eq 'gap' ? join(', ', map { "$_ $case->{lost}{$_}" } sort keys %{ $case->{lost} }) : '') . " |\n";
        }
    }
    return $text . "\nA client inserts each 10 ms, wherever the primary is; pgbench makes 200 transactions a second. Whole: both others stream from the new primary and show new rows.\n"
        . "By hand: `pg_ctl -m fast stop`, `pg_ctl promote`, then settings and start, settings and reload, at once; slots are there before. repmgr: `standby switchover --siblings-follow`.\n";
}

sub markdown
{
    my ($results, $facts) = @_;
    my $text = <<"END";
# How long it takes until a node follows

Written by `make bench`: $facts->{postgres}, $facts->{cores} cores, all servers, sshds and clients on this one
machine. Medians of $facts->{runs} runs, from the call to the proof: the node's WAL receiver streams the new primary's timeline,
and a row inserted after that is visible on the node. The proof is the benchmark's own, the same for all, and looked for
from the start on; *returns* is when `follow_primary()` has proven it for itself, has removed what it put aside, and says so.

| case | follow_primary | its runs | returns | the script | times faster | by hand | times as long | by hand over SSH | times as long |
|---|---|---|---|---|---|---|---|---|---|
END
    for my $result (@$results)
    {
        my ($ours, $peer, $hand, $ssh) = @$result{qw(ours peer hand ssh)};
        my $floor = $hand // $result->{one};
        $text .= '| ' . join(' | ',
            $result->{title},
            _seconds($ours) . _verdict($ours, $result->{limit}{ours}),
            _range($result),
            _seconds($result->{returned}),
            _seconds($peer),
            defined $peer ? sprintf('%.1f', $peer / $ours) . _verdict($peer / $ours, $result->{limit}{peer}) : '',
            _seconds($floor) . (defined $result->{one} ? ' (one sibling)' : ''),
            defined $floor
                ? sprintf('%.2f', $ours / $floor) . _verdict($ours / $floor, $result->{limit}{ defined $hand ? 'hand' : 'one' })
                : '',
            _seconds($ssh),
            defined $ssh ? sprintf('%.2f', $ours / $ssh) . _verdict($ours / $ssh, $result->{limit}{ssh}) : '') . " |\n";
    }
    if (my $p = $facts->{pgbench})
    {
        $text .= sprintf "\nRead-only pgbench (8 clients) on the node during a repoint: %d transactions in %d runs, %s.\n",
            $p->{transactions}, $p->{runs},
            $p->{failed} ? "**$p->{failed} runs lost connections or queries**" : 'no connection and no query lost';
    }
    $text .= _switchover(@{ $facts->{switchover} // [] });
    $text .= <<"END";

What is compared:

- *The script* is the follow_primary.sh that users of pgpool have today (`test/bench/peer.sh` runs its commands).
  It runs for the siblings one after the other, as pgpool calls it.
- *By hand* is the floor: PostgreSQL's own commands, local to the node, without SSH and without a look before or after.
  Repoint: the settings file and `pg_ctl reload`. Rewind: `pg_ctl stop`, `pg_rewind`, settings, `pg_ctl start`. Copy: `pg_ctl stop`,
  `rm -rf`, `pg_basebackup -c fast`, settings, `pg_ctl start`. The replication slot is there before the clock starts.
- *By hand over SSH* is the same typed on the new primary's host, where `follow_primary()` is called: one `ssh` with the two commands.
- `follow_primary` is called by `psql -c`, as pgpool calls it. Its copy is verified (`pg_verifybackup`) while
  the node's old data is still there; the others' is not. Its rewind saves the WAL that is lost, and counts what is in it after the proof.
- The siblings have @{[ $facts->{wal} // '?' ]} MB of WAL since their last checkpoint. A repoint does not care; the script's restart replays it, and asks the archive for each segment first.
- All start from the same state, restored and flushed before each run. fsync is on, everywhere. For rewind
  and copy checkpoint_timeout is $facts->{checkpoint_timeout} s: the script's pg_basebackup waits for a spread checkpoint, so with PostgreSQL's default of 5 minutes it could take ten times as long.
  The write load is pgbench at $facts->{load_rate} transactions a second.
- What a job does beyond the commands by hand: psql and a worker start, an SSH connection is made (about half of *survey*), both
  servers are looked at, and the node is locked, and after it the job makes a proof of its own. That is a tenth or two of a second of
  processor time, most of it spent in starting processes on the node: it weighs against a repoint, which is a signal, and little
  against a rewind or a copy. Jobs at once share the cores.
END
    if (my @stepped = grep { $_->{steps} } @$results)
    {
        $text .= "\nWhere the time goes, in milliseconds (medians of the rows in `follow_primary_step`;"
            . " *call* is psql, the worker's start and the job's row, *return* the way of the answer):\n\n"
            . "![Where the time goes](results.svg)\n\n";
        for my $result (@stepped)
        {
            $text .= "- $result->{title}: "
                . join(', ', map { sprintf '%s %.0f', @$_ } @{ $result->{steps} }) . "\n";
        }
    }
    return $text;
}

# A colour for each step, the same in every bar.
my %colour = (
    call        => '#9aa5b1',
    survey      => '#4e79a7',
    plan        => '#b6992d',
    checkpoint  => '#86bcb6',
    slot        => '#f1ce63',
    space       => '#d4a6c8',
    stop        => '#e15759',
    save_config => '#ff9d9a',
    save_wal    => '#b07aa1',
    count       => '#c4b5d9',
    rewind      => '#f28e2b',
    copy        => '#f28e2b',
    repoint     => '#f28e2b',
    swap        => '#d37295',
    configure   => '#a0cbe8',
    start       => '#59a14f',
    verify      => '#499894',
    attach      => '#79706e',
    clean       => '#8cd17d',
    return      => '#d7dde3');

sub _escape
{
    my ($text) = @_;
    $text =~ s/&/&amp;/g;
    $text =~ s/</&lt;/g;
    return $text;
}

sub text
{
    my ($x, $y, $text, %attribute) = @_;
    my $more = join '', map { qq( $_="$attribute{$_}") } sort keys %attribute;
    return sprintf qq(<text x="%.1f" y="%.1f"%s>%s</text>\n), $x, $y, $more, _escape($text);
}

# One bar for each case, all of the same length, cut into the shares of the steps.
# A step that has room is named in the bar, the others below it.
sub svg
{
    my ($results, $facts) = @_;
    my @bars = grep { $_->{steps} } @$results;
    my ($left, $width, $row, $bar) = (20, 860, 92, 30);
    my $height = 40 + $row * @bars;
    my $y = 48;
    my $body = text($left, 24, 'Where the time of a job goes: its steps, in milliseconds', 'font-size' => 16, 'font-weight' => 'bold');

    for my $result (@bars)
    {
        my @steps = @{ $result->{steps} };
        my $sum = 0;
        $sum += $_->[1] for @steps;
        my $x = $left;
        my @small;
        my $other = join ', ', map { defined $result->{ $_->[0] } ? sprintf('%s %.3f s', $_->[1], $result->{ $_->[0] }) : () }
            [ hand => 'by hand' ], [ peer => 'the script' ];

        $body .= text($left, $y + 12, sprintf('%s: %.3f s', $result->{title}, $result->{ours}), 'font-weight' => 'bold');
        $body .= text($left + $width, $y + 12, $other, 'text-anchor' => 'end', fill => '#555');
        for my $step (@steps)
        {
            my ($name, $ms) = @$step;
            my $w = $sum > 0 ? $width * $ms / $sum : 0;
            my $label = sprintf '%s %.0f', $name, $ms;
            $body .= sprintf qq(<rect x="%.1f" y="%.1f" width="%.1f" height="%d" fill="%s" stroke="#fff" stroke-width="0.5">)
                . "<title>%s ms</title></rect>\n", $x, $y + 19, $w, $bar, $colour{$name} // '#bab0ac', $label;
            if ($w > 6.5 * length($label) + 6)
            {
                $body .= text($x + $w / 2, $y + 19 + $bar / 2 + 4, $label, 'text-anchor' => 'middle');
            }
            else
            {
                push @small, [ $name, $label ];
            }
            $x += $w;
        }
        my $at = $left;
        for my $one (@small)
        {
            $body .= sprintf qq(<rect x="%.1f" y="%.1f" width="9" height="9" fill="%s"/>\n), $at, $y + 55, $colour{ $one->[0] } // '#bab0ac';
            $body .= text($at + 12, $y + 63.5, $one->[1], 'font-size' => 11);
            $at += 26 + 6.3 * length $one->[1];
        }
        $y += $row;
    }
    my $total = $width + 2 * $left;
    return <<"END" . $body . "</svg>\n";
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 $total $height" font-family="sans-serif" font-size="12">
<rect width="$total" height="$height" fill="#fff"/>
END
}

1;
