# writer.pl - a client that writes a row, and the next as soon as that is acknowledged, to
# whichever of some servers is the primary; for FollowPrimary::Writer.
#
# usage: perl writer.pl PSQL CONNINFO TABLE PAUSE [FIRST]
#
# CONNINFO names all servers, with target_session_attrs=read-write. FIRST (1) is the first
# row's number. Prints a line for each
# acknowledged row: its number, and when the answer came. It connects again when the
# connection is lost, and writes a new row then: whether the last one was committed is not
# known.

use strict;
use warnings;

use IO::Handle;
use IPC::Open2 qw(open2);
use Time::HiRes qw(sleep time);

my ($psql, $conninfo, $table, $pause, $first) = @ARGV;
my $i = ($first // 1) - 1;
$SIG{PIPE} = 'IGNORE';
STDOUT->autoflush(1);

while (1)
{
    my $pid = open2(my $from, my $to, 'sh', '-c', 'exec "$@" 2>/dev/null', 'sh', $psql, '-XAtqw', '-v', 'ON_ERROR_STOP=1', '-d', $conninfo);
    $to->autoflush(1);
    while (1)
    {
        $i++;
        print $to "INSERT INTO $table VALUES ($i) RETURNING i;\n" or last;
        my $answer = readline $from;
        last if !defined $answer || $answer ne "$i\n";
        printf "%d %.4f\n", $i, time;
        sleep $pause;
    }
    close $to;
    close $from;
    waitpid $pid, 0;
    sleep 0.005;
}
