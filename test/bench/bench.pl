# bench.pl - how long it takes until a node follows, three ways.
#
# usage: perl -I test/lib test/bench/bench.pl OUT_DIR [CASE ...]
# (test/bench/run calls it; not as root)
#
# Each case starts from the same state and ends with the same proof, which is not
# the extension's own: the node's WAL receiver streams the new primary's
# timeline, and a row that was inserted after it began to is visible on the node.
# The program looks for both every 5 ms from the start on, over connections that
# stay open, whether or not the call has returned. The ways to be measured:
#   hand   PostgreSQL's own commands, local to the node: the floor
#   ssh    the same commands, over SSH from the new primary's host
#   peer   peer.sh, the procedure that this extension replaces
#   ours   psql -c "SELECT follow_primary(...)"
# A round runs each way once, in turn, so that all ways meet the same
# disturbances. Before a run, a node's files are made what they were in the
# snapshot, which rsync tells by size and time. Servers and tools run with their defaults where durability is
# concerned: fsync is on, and everything is flushed before the clock starts.

use strict;
use warnings;

use Cwd qw(realpath);
use File::Basename qw(dirname);
use FollowPrimary::Cluster;
use FollowPrimary::Host;
use FollowPrimary::Node;
use FollowPrimary::Scratch qw(run_ok wait_until slurp spew append_text);
use FollowPrimary::Writer;
use IPC::Open3 qw(open3);
use Time::HiRes qw(sleep time);

use lib dirname(__FILE__);
use Growth;
use Report;

my ($out_dir, @wanted) = @ARGV;
my $runs     = $ENV{BENCH_RUNS} // 5;
my $growth_runs = $ENV{BENCH_GROWTH_RUNS} // 3;
my $scale    = int(($ENV{BENCH_MB} // 500) / 15 + 0.5) || 1;    # pgbench: 15 MB each
my $siblings = 8;
my $poll     = 0.005;
my $here     = dirname(realpath(__FILE__));

# The spread checkpoint that the procedure's pg_basebackup waits for takes up to
# 0.9 of this; the default is 5 min.
my $checkpoint_timeout = 30;

# The write load: transactions a second, from four clients. Less than what two
# cores can do, or all that would be measured is who gets them.
my $load_rate = 200;

my %settings = (
    checkpoint_timeout    => $checkpoint_timeout,
    max_worker_processes  => 40,
    max_wal_senders       => 40,
    max_replication_slots => 40,
    max_wal_size          => '2GB',
    wal_keep_size         => '2GB',
    shared_buffers        => '128MB');

# scp uses the SFTP protocol since OpenSSH 9.
my $sshd_conf = "Subsystem sftp internal-sftp\n";

my @results;
my %facts;

sub wanted
{
    my (@names) = @_;
    return 1 if !@wanted;
    return scalar grep { my $name = $_; grep { $_ eq $name } @wanted } @names;
}

my $started = time;
sub note { printf STDERR "# %6.1f %s\n", time - $started, join " ", @_; return }

sub median
{
    my @sorted = sort { $a <=> $b } @_;
    return $sorted[ @sorted / 2 ] if @sorted % 2;
    return ($sorted[ @sorted / 2 - 1 ] + $sorted[ @sorted / 2 ]) / 2;
}

#
# Servers
#

# Each host archives to a folder of its own, as separate machines would.
sub archive_dir { my ($node) = @_; return $node->host->dir . '/archive' }

sub make_cluster
{
    my ($nodes) = @_;
    my $cluster = FollowPrimary::Cluster->new(
        nodes     => $nodes,
        extension => 1,
        sshd_conf => $sshd_conf,
        conf      => { %settings, archive_mode => 'on', archive_command => 'true' });
    for my $node ($cluster->nodes)
    {
        mkdir archive_dir($node) or die "mkdir: $!";
        $node->set(archive_command => 'cp %p ' . archive_dir($node) . '/%f');
    }
    $cluster->node(0)->safe_psql('CREATE TABLE bench_proof (id bigint)');
    $_->reload for $cluster->nodes;
    return $cluster;
}

# The settings in which a node differs from the others, as a file beside its data.
sub identity_file
{
    my ($node) = @_;
    my %own = $node->_own_settings;
    $own{archive_command} = 'cp %p ' . archive_dir($node) . '/%f';
    return spew($node->host->dir . '/identity.conf',
        join '', map { "$_ = '$own{$_}'\n" } sort keys %own);
}

# Makes the node's data what it was, and removes all that a run left beside it.
sub restore
{
    my ($node, $snapshot) = @_;
    my $pgdata = $node->pgdata;

    $node->stop('immediate');
    run_ok([ 'sh', '-c', 'rm -rf "$1".follow_primary* && exec rsync -a --delete "$2/" "$1/"', 'sh', $pgdata, $snapshot ],
        timeout => 600);
    $node->start;
    return;
}

sub snapshot
{
    my ($node) = @_;
    my $copy = $node->host->dir . '/snapshot';
    run_ok([ 'cp', '-a', $node->pgdata, $copy ], timeout => 600);
    return $copy;
}

sub free_slot
{
    my ($primary, $node) = @_;
    my $slot = $node->slot_name;
    $primary->poll_query_until("SELECT count(*) FROM pg_replication_slots WHERE slot_name = '$slot' AND active", '0')
        or die "the slot of @{[ $node->name ]} is still in use\n";
    $primary->safe_psql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '$slot'");
    return;
}

# What is done before each run of a way to make $old follow $new again.
sub from_snapshot
{
    my ($new, $old, $snapshot) = @_;
    return sub {
        my ($way) = @_;
        restore($old, $snapshot);
        free_slot($new, $old);
        $new->create_slot($old->slot_name) if $way eq 'hand';
        return;
    };
}

# Flushes all that was written before, so that no run pays for an earlier one.
sub settle
{
    my ($primary, @nodes) = @_;
    $primary->safe_psql('CHECKPOINT');
    run_ok([ $_->bin('initdb'), '--sync-only', '-D', $_->pgdata ], timeout => 300) for @nodes;
    return;
}

#
# The proof
#

my $proof_id = 0;

package Session
{
    use IPC::Open2 qw(open2);

    # A psql session that stays open: a question starts no process.
    sub new
    {
        my ($class, $node) = @_;
        return bless { node => $node }, $class;
    }

    sub ask
    {
        my ($self, $sql) = @_;
        local $SIG{PIPE} = 'IGNORE';
        if (!$self->{pid})
        {
            $self->{pid} = open2($self->{from}, $self->{to}, 'sh', '-c', 'exec "$@" 2>/dev/null', 'sh',
                $self->{node}->bin('psql'), '-XAtqw', '-d', $self->{node}->connstr);
            $self->{to}->autoflush(1);
        }
        my $to = $self->{to};
        print $to "$sql;\n\\echo end\n";
        my $answer = '';
        while (defined(my $line = readline $self->{from}))
        {
            return $answer if $line eq "end\n";
            $answer .= $line;
        }
        $self->close;
        return;
    }

    sub close
    {
        my ($self) = @_;
        return if !$self->{pid};
        close $self->{$_} for qw(to from);
        waitpid $self->{pid}, 0;
        delete $self->{pid};
        return;
    }
}

# Says whether the server takes connections, by the last line of its postmaster.pid:
# to read that file costs nothing while the server stops, is changed, and starts.
sub ready
{
    my ($node) = @_;
    my $lines = eval { slurp($node->pgdata . '/postmaster.pid') } // return 0;
    return $lines =~ /^(?:ready|standby)\s*\z/m;
}

# Waits until each of the nodes is seen to follow. Dies when the call that should
# make them follow has failed.
sub prove
{
    my ($call, $session, $primary, @nodes) = @_;
    my $timeline = $facts{timeline};
    my $deadline = time + 300;
    my $sender   = sprintf "host=%s port=%d", $primary->address, $primary->port;
    my $first    = $proof_id + 1;
    $proof_id += @nodes;

    my %id = map { $nodes[$_]->name => $first + $_ } 0 .. $#nodes;
    my %written;
    my @waiting = @nodes;
    while (@waiting)
    {
        die "no proof of @{[ map { $_->name } @waiting ]}\n" . $waiting[0]->log_tail(20) if time > $deadline;
        $call->check;
        my @still;
        for my $node (@waiting)
        {
            my $id = $id{ $node->name };
            my $answer = !ready($node) ? '' : $session->{ $node->name }->ask(
                'SELECT status, received_tli, format(\'host=%s port=%s\', sender_host, sender_port), '
                . "(SELECT count(*) FROM bench_proof WHERE id = $id) FROM pg_stat_wal_receiver") // '';
            if ($answer =~ /^streaming\|$timeline\|\Q$sender\E\|(\d)/)
            {
                next if $1;
                if (!$written{$id}++)
                {
                    $session->{primary}->ask("INSERT INTO bench_proof VALUES ($id)");
                    redo;    # the row is there by now, if all is well
                }
            }
            push @still, $node;
        }
        @waiting = @still;
        sleep $poll if @waiting;
    }
    return time;
}

#
# The call that is measured, beside the proof
#

package Call
{
    use IO::Select;
    use POSIX ();
    use Time::HiRes qw(time);

    # Runs the code in a process of its own, which reports when it ended.
    sub new
    {
        my ($class, $code) = @_;
        pipe my $from, my $to or die "pipe: $!";
        my $began = time;
        my $pid = fork // die "fork: $!";
        if (!$pid)
        {
            $SIG{$_} = 'DEFAULT' for qw(HUP INT TERM PIPE);
            my $said = eval { $code->(); 1 } ? 'ended ' . time : $@;
            syswrite $to, $said;
            POSIX::_exit(0);
        }
        return bless { pid => $pid, from => $from, select => IO::Select->new($from), began => $began }, $class;
    }

    sub began { my ($self) = @_; return $self->{began} }

    # When it ended, in this process's time.
    sub ended
    {
        my ($self) = @_;
        if (!defined $self->{ended})
        {
            my $said;
            $said = 'it was ended' if !sysread $self->{from}, $said, 65536;
            waitpid $self->{pid}, 0;
            ($self->{ended}) = $said =~ /^ended ([\d.]+)$/ or die "the call failed: $said\n";
        }
        return $self->{ended};
    }

    # Dies if it has failed.
    sub check
    {
        my ($self) = @_;
        $self->ended if !defined $self->{ended} && $self->{select}->can_read(0);
        return;
    }
}

#
# The three ways
#

# Not run_command(), which polls every few milliseconds for the command's end.
sub command
{
    my (@command) = @_;
    open my $null, '<', '/dev/null' or die "/dev/null: $!";
    my $pid = open3('<&' . fileno $null, my $from, undef, @command);
    my $out = do { local $/; readline $from };
    waitpid $pid, 0;
    die "exit code @{[ $? >> 8 ]}: @command\n$out" if $? != 0;
    return $out;
}

sub psql_command
{
    my ($node, $sql) = @_;
    return ($node->bin('psql'), '-XAtqw', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr, '-c', $sql);
}

sub peer
{
    my ($cluster, $primary, $node, %opt) = @_;
    my @assignments = (
        'BIN=' . FollowPrimary::Node::bindir(),
        'SSH_KEY=' . $cluster->ssh_key,
        'KNOWN_HOSTS=' . $cluster->known_hosts,
        'NODE_SSH_PORT=' . $node->host->ssh_port,
        'NEW_SSH_PORT=' . $primary->host->ssh_port,
        'PASSFILE=' . $cluster->passfile,
        'NODE_ARCHIVE=' . archive_dir($node),
        'NEW_ARCHIVE=' . archive_dir($primary),
        "NODE_CONF=$opt{identity}",
        $opt{copy} ? 'COPY=1' : ());
    command('env', @assignments, "$here/peer.sh", $node->id, $node->address, $node->port,
        $node->pgdata, $primary->id, $primary->address, 0, 0, $primary->port, $primary->pgdata);
    return;
}

sub ours
{
    my ($primary, $node, %arguments) = @_;
    command(psql_command($primary, $primary->follow_sql($node, %arguments)));
    return;
}

# The floor: what a person at the node's keyboard would type. The slots are made
# before the clock starts.
sub settings_text
{
    my ($cluster, $primary, $node) = @_;
    return sprintf "primary_conninfo = 'host=%s port=%d user=repl application_name=%s passfile=%s'\n"
        . "recovery_target_timeline = 'latest'\nprimary_slot_name = '%s'\n",
        $primary->address, $primary->port, $node->name, $cluster->passfile, $node->slot_name;
}

sub hand_settings
{
    my ($cluster, $primary, $node) = @_;
    spew($node->pgdata . '/myrecovery.conf', settings_text($cluster, $primary, $node));
    return;
}

sub hand_standby
{
    my ($cluster, $primary, $node, $identity) = @_;
    append_text($node->pgdata . '/postgresql.conf', slurp($identity) . "include_if_exists = 'myrecovery.conf'\n");
    hand_settings($cluster, $primary, $node);
    spew($node->pgdata . '/standby.signal', '');
    return;
}

sub hand_rewind
{
    my ($cluster, $primary, $node, $identity) = @_;
    pg_ctl($node, '-m', 'fast', 'stop');
    command($node->bin('pg_rewind'), '-D', $node->pgdata, '--source-server=' . $primary->connstr);
    hand_standby($cluster, $primary, $node, $identity);
    pg_ctl($node, '-l', '/dev/null', 'start');
    return;
}

sub hand_copy
{
    my ($cluster, $primary, $node, $identity) = @_;
    pg_ctl($node, '-m', 'fast', 'stop');
    command('rm', '-rf', $node->pgdata);
    command($node->bin('pg_basebackup'), '-d', $primary->connstr(undef, 'repl') . ' passfile=' . $cluster->passfile,
        '-w', '-c', 'fast', '-X', 'stream', '-S', $node->slot_name, '-D', $node->pgdata);
    hand_standby($cluster, $primary, $node, $identity);
    pg_ctl($node, '-l', '/dev/null', 'start');
    return;
}

# The same two commands, over one SSH connection from the host where the call is made.
sub ssh_repoint
{
    my ($cluster, $primary, $node) = @_;
    my $remote = sprintf "cat > '%s/myrecovery.conf' && '%s' -D '%s' reload",
        $node->pgdata, $node->bin('pg_ctl'), $node->pgdata;
    command('sh', '-c', 'settings=$1; shift; printf %s "$settings" | ssh "$@"', 'sh', settings_text($cluster, $primary, $node),
        qw(-T -o StrictHostKeyChecking=yes -o LogLevel=ERROR -o), 'UserKnownHostsFile=' . $cluster->known_hosts,
        '-i', $cluster->ssh_key, '-p', $node->host->ssh_port, $node->address, $remote);
    return;
}

sub pg_ctl
{
    my ($node, @arguments) = @_;
    command($node->bin('pg_ctl'), '-D', $node->pgdata, '-w', @arguments);
    return;
}

#
# Measuring
#

# The steps of the last job in milliseconds, and the time before the first and
# after the last.
sub steps
{
    my ($primary, $call) = @_;
    my @rows = map { [ split /\|/ ] } split /\n/, $primary->safe_psql(<<'END');
SELECT step, extract(epoch FROM started_at), extract(epoch FROM finished_at)
FROM follow_primary_step WHERE job_id = (SELECT max(id) FROM follow_primary_job) ORDER BY seq
END
    my @steps;
    my $at = $call->began;
    for my $row (@rows)
    {
        my ($step, $start, $end) = @$row;
        push @steps, [ @steps ? 'between' : 'call', ($start - $at) * 1000 ] if $start > $at;
        push @steps, [ $step, ($end - $start) * 1000 ];
        $at = $end;
    }
    push @steps, [ 'return', ($call->ended - $at) * 1000 ];
    return \@steps;
}

# Medians of each step over the rounds, in order.
sub median_steps
{
    my (@rounds) = @_;
    my (@order, %times);
    for my $round (@rounds)
    {
        my %sum;
        for my $step (@$round)
        {
            push @order, $step->[0] if !exists $times{ $step->[0] } && !exists $sum{ $step->[0] };
            $sum{ $step->[0] } += $step->[1];
        }
        push @{ $times{$_} }, $sum{$_} for keys %sum;
    }
    return [ map { [ $_, median(@{ $times{$_} }) ] } grep { $_ ne 'between' } @order ];
}

# Called after each case, so that a run that is ended early has results.
sub report
{
    my @grown = grep { $_->{growth} } @results;
    if (@grown && wanted('growth'))
    {
        spew("$out_dir/growth.md", Growth::markdown(\@grown, \%facts), 0644);
        spew("$out_dir/growth.svg", Growth::svg(\@grown), 0644);
    }
    return if @wanted;
    my @compared = grep { !$_->{growth} } @results;
    spew("$out_dir/results.md", Report::markdown(\@compared, \%facts), 0644);
    spew("$out_dir/results.svg", Report::svg(\@compared, \%facts), 0644);
    return;
}

# A case: title, ways (name => sub, in order), before (sub, not measured),
# nodes, primary; growth (what grows, how big it is, what is done) of those of cost
# against size.
sub measure
{
    my (%case) = @_;
    my (%times, %returns, @steps);
    my @ways = @{ $case{ways} };

    for my $round (1 .. ($case{growth} ? $growth_runs : $runs))
    {
        for (my $i = 0; $i < @ways; $i += 2)
        {
            my ($way, $code) = @ways[ $i, $i + 1 ];
            my @nodes   = $case{nodes_of} ? $case{nodes_of}->($way) : @{ $case{nodes} };
            my $primary = $case{primary};
            $case{before}->($way, @nodes) if $case{before};
            my %session = (primary => Session->new($primary), map { $_->name => Session->new($_) } @nodes);
            $session{$_}->ask('SELECT 1') for sort keys %session;
            settle($primary, @nodes);

            my $call = Call->new($code);
            my $proved = $case{no_proof} ? $call->ended : prove($call, \%session, $primary, @nodes);
            push @{ $times{$way} }, $proved - $call->began;
            push @{ $returns{$way} }, $call->ended - $call->began;
            push @steps, steps($primary, $call) if $way eq 'ours' && !$case{no_proof} && !$case{no_steps};
            $session{$_}->close for sort keys %session;
            $case{after}->($way) if $case{after};
            note(sprintf '%s %d %s: %.3f s, returned after %.3f s', $case{name}, $round, $way, $times{$way}[-1], $returns{$way}[-1]);
        }
    }
    my %result = (
        name  => $case{name},
        title => $case{title},
        limit => $case{limit},
        growth => $case{growth},
        runs  => \%times,
        map { $_ => median(@{ $times{$_} }) } keys %times);
    if (@steps)
    {
        $result{steps}    = median_steps(@steps);
        $result{returned} = median(@{ $returns{ours} });
    }
    push @results, \%result;
    my ($load) = slurp('/proc/loadavg') =~ /^([\d.]+)/;
    $facts{load} = $load if $load > ($facts{load} // 0);
    report();
    return;
}

#
# The cases of healthy standbys: a primary, the promoted one, and its siblings
#

sub small_cases
{
    my $cluster = make_cluster(2 + $siblings);
    my ($old, $new, @siblings) = $cluster->nodes;
    note("the servers are there");
    my ($node) = @siblings;

    # The last checkpoint is older than most of the WAL, as it is at any moment
    # of a server that is written to: up to max_wal_size.
    $cluster->set(checkpoint_timeout => '1h');
    $old->safe_psql('CHECKPOINT');
    $_->safe_psql('CHECKPOINT') for $new, @siblings;
    run_ok([ $new->bin('pgbench'), '-iq', '-s', $scale, $old->connstr ], timeout => 900);
    run_ok([ $old->bin('pgbench'), qw(-n -c 4 -j 2 -t 500), $old->connstr ], timeout => 120);
    $old->wait_for_catchup($_, undef, 300) for $new, @siblings;
    $cluster->set(fsync => 'on');
    $facts{wal} = $old->safe_psql("SELECT (pg_current_wal_lsn() - redo_lsn)::bigint >> 20 FROM pg_control_checkpoint()");
    $facts{size} = $new->safe_psql('SELECT sum(pg_database_size(oid))::bigint >> 20 FROM pg_database');
    $old->kill9;
    $new->promote;
    $new->safe_psql('CHECKPOINT');
    $facts{timeline} = $new->timeline;
    my (%snapshot, %identity);
    for my $sibling (@siblings)
    {
        $sibling->stop;
        $snapshot{ $sibling->name } = snapshot($sibling);
        $identity{ $sibling->name } = identity_file($sibling);
    }

    note("ready");

    # A standby that received all there was, and whose primary is dead.
    my $before = sub {
        my ($way, @nodes) = @_;
        for my $sibling (@nodes)
        {
            restore($sibling, $snapshot{ $sibling->name });
            free_slot($new, $sibling);
            $new->create_slot($sibling->slot_name) if $way =~ /^(?:hand|ssh)$/;
        }
        $_->poll_query_until('SELECT count(*) FROM pg_stat_wal_receiver', '0') or die "a WAL receiver runs\n" for @nodes;
        return;
    };
    if (wanted('repoint'))
    {
        measure(
            name    => 'repoint',
            title   => "repoint of a healthy standby, $facts{size} MB",
            limit   => { peer => [ '>=', 20 ], hand => [ '<=', 2 ], ssh => [ '<=', 2 ] },
            primary => $new,
            nodes   => [$node],
            before  => $before,
            ways    => [
                hand => sub {
                    hand_settings($cluster, $new, $node);
                    pg_ctl($node, 'reload');
                },
                ssh  => sub { ssh_repoint($cluster, $new, $node) },
                peer => sub { peer($cluster, $new, $node, identity => $identity{ $node->name }) },
                ours => sub { ours($new, $node) } ]);
    }
    pgbench_case($cluster, $new, $node, $before) if wanted('pgbench');
    if (wanted('plan'))
    {
        measure(
            name     => 'plan',
            title    => 'plan only, SSH connection included',
            limit    => { ours => [ '<=', 0.3 ] },
            primary  => $new,
            nodes    => [$node],
            before   => $before,
            no_proof => 1,
            ways     => [ ours => sub { ours($new, $node, function => 'follow_primary_plan') } ]);
    }
    if (wanted('none'))
    {
        measure(
            name     => 'none',
            title    => 'a second call, right after a success: until it returns',
            limit    => { ours => [ '<=', 1 ] },
            primary  => $new,
            nodes    => [$node],
            before   => sub { $before->(@_); ours($new, $node); return },
            no_proof => 1,             # the benchmark's would be there at once
            ways     => [ ours => sub { ours($new, $node) } ]);
    }
    if (wanted('siblings'))
    {
        my $start = sub {
            my (@nodes) = @_;
            return command(psql_command($new,
                join ';', map { $new->follow_sql($_, wait => 'false') } @nodes));
        };
        measure(
            name     => 'siblings',
            title    => "$siblings siblings at once",
            limit    => { peer => [ '>=', 50 ], one => [ '<=', 2.5 ] },
            primary  => $new,
            no_steps => 1,             # of one of eight jobs that share the cores: they tell nothing
            nodes_of => sub { return $_[0] eq 'one' ? $node : @siblings },
            before   => $before,
            ways     => [
                one  => sub { $start->($node) },
                ours => sub { $start->(@siblings) },
                peer => sub {
                    peer($cluster, $new, $_, identity => $identity{ $_->name }) for @siblings;
                } ]);
    }
    all_case($cluster, $new, $old, \@siblings, $before) if wanted('all');
    $_->stop('immediate') for $cluster->nodes;
    $_->host->ssh_stop for $cluster->nodes;
    return;
}

# All nodes of the table by one call, and by as many calls that are started at once. The
# rows of the others go, so this case is the last of these servers.
sub all_case
{
    my ($cluster, $new, $old, $siblings, $before) = @_;
    my @seven = @$siblings[ 0 .. 6 ];
    my @kept = map { $_->address } $new, @seven;
    $new->safe_psql('DELETE FROM follow_primary_node WHERE host NOT IN (' . join(', ', map { "'$_'" } @kept) . ')');
    $new->set('follow_primary.primary_host' => $new->address);
    $new->reload;
    measure(
        name     => 'all',
        title    => 'follow_primary_all() for 7 siblings; by hand: the same calls, started at once',
        limit    => { hand => [ '<=', 1.1 ] },
        primary  => $new,
        nodes    => \@seven,
        before   => sub { my (undef, @nodes) = @_; return $before->('ours', @nodes) },
        no_steps => 1,
        ways     => [
            hand => sub {
                my @calls = map { my $node = $_; Call->new(sub { ours($new, $node) }) } @seven;
                $_->ended for @calls;
            },
            ours => sub { command(psql_command($new, 'SELECT * FROM follow_primary_all()')) } ]);
    return;
}

#
# The cases of a switchover: a cluster for each way, of a primary and two standbys
#

# What is typed: the stop, the promotion, and then the two others at once.
sub hand_switchover
{
    my ($cluster, $from, $to, $sibling) = @_;
    pg_ctl($from, '-m', 'fast', 'stop');
    pg_ctl($to, 'promote');
    my $call = Call->new(sub {
        hand_settings($cluster, $to, $from);
        spew($from->pgdata . '/standby.signal', '');
        pg_ctl($from, '-l', '/dev/null', 'start');
    });
    hand_settings($cluster, $to, $sibling);
    pg_ctl($sibling, 'reload');
    $call->ended;
    return;
}

my $repmgr = FollowPrimary::Node::bindir() . '/repmgr';

# Seconds for one, with what is done before and after: nothing of it takes so long but a fault.
my $switchover_limit = 120;

sub repmgr_conf { my ($node) = @_; return $node->host->dir . '/repmgr.conf' }

# repmgr's own way to make a cluster known to it. It asks SSH for the ports of the hosts.
sub register_with_repmgr
{
    my ($cluster) = @_;
    my ($primary, @standbys) = $cluster->nodes;
    my $ssh = spew($cluster->dir . '/ssh_config', join '', map {
        sprintf "Host %s\n  Port %d\n  IdentityFile %s\n  UserKnownHostsFile %s\n  LogLevel ERROR\n", $_->address, $_->host->ssh_port, $cluster->ssh_key, $cluster->known_hosts
    } $cluster->nodes);
    $primary->safe_psql('CREATE EXTENSION repmgr');
    for my $node ($cluster->nodes)
    {
        spew(repmgr_conf($node), sprintf <<'END', $node->id + 1, $node->name, $node->connstr, $cluster->passfile, $node->pgdata, FollowPrimary::Node::bindir(), FollowPrimary::Node::bindir(), $ssh, $cluster->passfile);
node_id = %d
node_name = '%s'
conninfo = '%s passfile=%s'
data_directory = '%s'
pg_bindir = '%s'
repmgr_bindir = '%s'
ssh_options = '-q -F %s'
passfile = '%s'
replication_user = 'repl'
use_replication_slots = true
log_level = WARNING
END
        $primary->wait_for_catchup($_) for @standbys;
        command($repmgr, '-f', repmgr_conf($node), $node == $primary ? 'primary' : 'standby', 'register', '--force');
    }
    $primary->wait_for_catchup($_) for @standbys;
    return;
}

sub switchover_cases
{
    my @ways = ('hand', -x $repmgr ? 'repmgr' : (), 'ours');
    note('repmgr is not installed: it is left out') if !-x $repmgr;
    my (%cluster, %turn);
    for my $way (@ways)
    {
        my $cluster = $cluster{$way} = make_cluster(3);
        my ($primary) = $cluster->nodes;
        spew($primary->pgdata . '/myrecovery.conf', '') if $way eq 'hand';    # so that it is included
        $_->set('follow_primary.primary_host' => $_->address, $way eq 'repmgr' ? (shared_preload_libraries => 'repmgr') : ()) for $cluster->nodes;
        $_->restart for $cluster->nodes;
        $_->wait_for_streaming($primary) for ($cluster->nodes)[ 1, 2 ];
        run_ok([ $primary->bin('pgbench'), '-iq', '-s', 7, $primary->connstr ], timeout => 300);
        register_with_repmgr($cluster) if $way eq 'repmgr';
        $primary->wait_for_catchup($_, undef, 300) for ($cluster->nodes)[ 1, 2 ];
        $cluster->set(fsync => 'on');
        note("$way: the servers are there");
    }
    local $SIG{ALRM} = sub { die "a switchover has not ended within $switchover_limit s\n" };
    for my $load ('idle', 'pgbench -c 4')
    {
        my (%gap, %whole, %lost);
        for my $round (1 .. $runs)
        {
            for my $way (@ways)
            {
                alarm $switchover_limit;
                my $cluster = $cluster{$way};
                my @nodes = $cluster->nodes;
                my ($from, $to, $sibling) = $turn{$way}++ % 2 ? @nodes[ 1, 0, 2 ] : @nodes;
                if ($way eq 'hand')
                {
                    for my $node ($from, $sibling)
                    {
                        $to->safe_psql("SELECT pg_create_physical_replication_slot('" . $node->slot_name . "', true) WHERE NOT EXISTS
                            (SELECT FROM pg_replication_slots WHERE slot_name = '" . $node->slot_name . "')");
                    }
                }
                my $pgbench = $load eq 'idle' ? undef : FollowPrimary::Process->start([ $from->bin('pgbench'), qw(-n -c 4 -j 1 -T 600 -R), $load_rate, $from->connstr ]);
                settle($from, $to, $sibling);
                my $writer = FollowPrimary::Writer->start($cluster, first => ($turn{$way} + 1) * 1_000_000);
                $facts{timeline} = $from->timeline + 1;
                my %session = (primary => Session->new($to), map { $_->name => Session->new($_) } $from, $sibling);
                $session{$_}->ask('SELECT 1') for sort keys %session;
                my $call = Call->new(
                      $way eq 'hand'   ? sub { hand_switchover($cluster, $from, $to, $sibling) }
                    : $way eq 'repmgr' ? sub { command($repmgr, '-f', repmgr_conf($to), qw(standby switchover --siblings-follow)) }
                    :                    sub { command(psql_command($to, 'SELECT state FROM follow_primary_switchover()')) =~ /(?:^succeeded\n){2}/m or die "not all succeeded\n" });
                push @{ $whole{$way} }, prove($call, \%session, $to, $from, $sibling) - $call->began;
                $call->ended;
                $writer->wait_for_rows(10);
                $writer->stop;
                $session{$_}->close for sort keys %session;
                push @{ $gap{$way} }, $writer->longest_gap($call->began);
                $lost{$way} += $writer->lost($to);
                if ($pgbench) { $pgbench->stop; $pgbench->forget }
                alarm 0;
                note(sprintf 'switchover, %s, %d %s: %.3f s without a write, whole after %.3f s, %d rows lost so far',
                    $load, $round, $way, $gap{$way}[-1], $whole{$way}[-1], $lost{$way});
            }
        }
        push @{ $facts{switchover} }, { load => $load, lost => \%lost,
            gap => { map { $_ => median(@{ $gap{$_} }) } @ways }, whole => { map { $_ => median(@{ $whole{$_} }) } @ways } };
        report();
    }
    for my $cluster (values %cluster)
    {
        $_->stop('immediate') for $cluster->nodes;
        $_->host->ssh_stop for $cluster->nodes;
    }
    return;
}

# A repoint while clients read from the node. They need less than the cores can
# give: the case does not measure who gets the cores.
sub pgbench_case
{
    my ($cluster, $new, $node, $before) = @_;
    my ($failed, $transactions) = (0, 0);

    for my $round (1 .. $runs)
    {
        $before->('ours', $node);
        my $postmaster = $node->pid;
        my $pgbench = FollowPrimary::Process->start([ $node->bin('pgbench'),
            qw(-n -S -c 8 -j 1 -T 5 -P 1 -R 1000), $node->connstr ]);
        wait_until('pgbench reads', sub { $pgbench->err =~ /progress: 1/ }, 10);
        ours($new, $node);
        die "the repoint came after pgbench\n" if !$pgbench->running;
        my $code = $pgbench->wait(30);
        my $text = $pgbench->out . $pgbench->err;
        $failed++ if $code != 0 || $node->pid != $postmaster
            || $text =~ /aborted|FATAL|ERROR|server closed|number of failed transactions: [1-9]/;
        $transactions += $1 if $text =~ /transactions actually processed: (\d+)/;
        $pgbench->forget;
        note("pgbench $round: exit code $code");
    }
    $facts{pgbench} = { runs => $runs, failed => $failed, transactions => $transactions };
    report();
    return;
}

#
# The cases of a diverged primary with its data
#

sub big_cases
{
    my $cluster = make_cluster(2);
    my ($old, $new) = $cluster->nodes;

    run_ok([ $old->bin('pgbench'), '-iq', '-s', $scale, $old->connstr ], timeout => 900);
    $old->wait_for_catchup($new, undef, 300);
    $cluster->set(fsync => 'on');
    $old->safe_psql('CHECKPOINT');
    $new->safe_psql('CHECKPOINT');
    $old->kill9;
    $new->promote;
    $new->safe_psql('CHECKPOINT');
    $facts{timeline} = $new->timeline;
    $facts{size} = $new->safe_psql('SELECT sum(pg_database_size(oid))::bigint >> 20 FROM pg_database');

    # It was restarted by mistake; clients write to it and to the new primary.
    $old->start;
    my @writes = qw(-n -c 4 -j 2 -t 500);
    run_ok([ $_->bin('pgbench'), @writes, $_->connstr ], timeout => 900) for $old, $new;
    $old->safe_psql('CHECKPOINT');
    $old->stop;
    my $snapshot = snapshot($old);
    my $identity = identity_file($old);

    my $load;
    my $before = from_snapshot($new, $old, $snapshot);
    my @copy = (
        primary => $new,
        nodes   => [$old],
        ways    => [
            hand => sub { hand_copy($cluster, $new, $old, $identity) },
            peer => sub { peer($cluster, $new, $old, identity => $identity, copy => 1) },
            ours => sub { ours($new, $old, method => 'basebackup') } ]);

    if (wanted('rewind'))
    {
        measure(
            name    => 'rewind',
            title   => "rewind of a diverged primary, $facts{size} MB",
            limit   => { peer => [ '>=', 1 ], hand => [ '<=', 1.15 ] },
            primary => $new,
            nodes   => [$old],
            before  => $before,
            ways    => [
                hand => sub { hand_rewind($cluster, $new, $old, $identity) },
                peer => sub { peer($cluster, $new, $old, identity => $identity) },
                ours => sub { ours($new, $old) } ]);
    }
    if (wanted('copy'))
    {
        measure(
            name   => 'copy',
            title  => "copy of $facts{size} MB, idle primary",
            limit  => { peer => [ '>=', 1 ], hand => [ '<=', 1.1 ] },
            before => $before,
            @copy);
    }
    if (wanted('copy_load'))
    {
        measure(
            name   => 'copy_load',
            title  => "copy of $facts{size} MB, primary under write load",
            limit  => { peer => [ '>=', 1 ], hand => [ '<=', 1.1 ] },
            before => sub {
                $before->(@_);
                $load = FollowPrimary::Process->start([ $new->bin('pgbench'),
                    qw(-n -c 4 -j 1 -T 600 -P 1 -R), $load_rate, $new->connstr ]);
                wait_until('pgbench writes', sub { $load->err =~ /progress: 2/ }, 20);
            },
            after => sub { $load->stop(signal => 'INT'); $load->forget },
            @copy);
    }
    return;
}

#
# A rewind against the WAL that only the former primary has: what a batch job leaves
#

sub lost_case
{
    my ($size) = @_;
    my $cluster = make_cluster(2);
    my ($old, $new) = $cluster->nodes;

    $cluster->set(wal_keep_size => '2GB', max_wal_size => '8GB', archive_command => 'true');
    $cluster->set(fsync => 'on');
    $_->reload for $cluster->nodes;
    $old->wait_for_catchup($new);
    $old->safe_psql('CHECKPOINT');
    $new->safe_psql('CHECKPOINT');
    $new->promote;
    $new->safe_psql('CHECKPOINT');
    $facts{timeline} = $new->timeline;
    # rows of two kilobytes, in a table that is empty again when the clock starts
    $old->safe_psql("CREATE TABLE lost AS SELECT repeat(md5(i::text), 60) FROM generate_series(1, $size * 1048576 / 2000) AS i",
        timeout => 600);
    $old->safe_psql('TRUNCATE lost; CHECKPOINT');
    $old->stop;
    my $snapshot = snapshot($old);
    my $identity = identity_file($old);
    measure(
        name    => "lost_$size",
        title   => "rewind with $size MB of lost WAL",
        limit   => { hand => [ '<=', 1.1 ] },
        primary => $new,
        nodes   => [$old],
        before  => from_snapshot($new, $old, $snapshot),
        ways => [
            hand => sub { hand_rewind($cluster, $new, $old, $identity) },
            ours => sub { ours($new, $old) } ]);
    $_->stop('immediate') for $cluster->nodes;
    $_->host->ssh_stop for $cluster->nodes;
    return;
}

#
# Cost against size
#

# A former primary that went on alone: %opt has fill, what is done before the fork, lose, what
# only the former primary does behind it, and keep, its wal_keep_size. Returns what before_run()
# and the ways by hand take.
sub diverged
{
    my (%opt) = @_;
    my $cluster = make_cluster(2);
    my ($old, $new) = $cluster->nodes;

    $cluster->set(checkpoint_timeout => '1h', wal_keep_size => $opt{keep} // '64MB', max_wal_size => '8GB', archive_command => 'true');
    $opt{fill}->($old) if $opt{fill};
    $old->wait_for_catchup($new, undef, 900);
    $cluster->set(fsync => 'on');
    $_->safe_psql('CHECKPOINT', timeout => 900) for $old, $new;
    $old->wait_for_catchup($new, undef, 900);
    $new->promote;
    $new->safe_psql('CHECKPOINT', timeout => 900);
    $facts{timeline} = $new->timeline;
    $opt{lose}->($old) if $opt{lose};
    $_->safe_psql("SELECT pg_logical_emit_message(false, 'bench', 'its own'); SELECT pg_switch_wal()") for $old, $new;
    $old->safe_psql('CHECKPOINT', timeout => 900);
    $old->stop;
    return ($cluster, $new, $old, snapshot($old), identity_file($old));
}

# Rows of two kilobytes, which nothing compresses.
sub write_mb
{
    my ($node, $table, $mb) = @_;
    my $rows = int $mb * 1048576 / 2048;
    $node->safe_psql("CREATE TABLE $table AS SELECT repeat(md5(i::text), 60) FROM generate_series(1, $rows) AS i", timeout => 1800);
    return;
}

sub end_cluster
{
    my ($cluster) = @_;
    $_->stop('immediate') for $cluster->nodes;
    $_->host->ssh_stop for $cluster->nodes;
    # several would not find room beside each other
    run_ok([ 'rm', '-rf', $_->pgdata, $_->host->dir . '/snapshot' ], timeout => 600) for $cluster->nodes;
    return;
}

# A rewind and a copy of what diverged() has made.
sub grow_new_data
{
    my ($of, $size, $cluster, $new, $old, $snapshot, $identity) = @_;
    my %case = (
        primary => $new,
        nodes   => [$old],
        before  => from_snapshot($new, $old, $snapshot));

    measure(%case, name => "$of $size rewind", growth => [ $of, $size, 'rewind' ],
        ways => [
            hand => sub { hand_rewind($cluster, $new, $old, $identity) },
            ours => sub { ours($new, $old, method => 'rewind') } ]);
    measure(%case, name => "$of $size copy", growth => [ $of, $size, 'copy' ],
        ways => [
            hand => sub { hand_copy($cluster, $new, $old, $identity) },
            ours => sub { ours($new, $old, method => 'basebackup') } ]);
    end_cluster($cluster);
    return;
}

sub grow_data
{
    for my $mb (500, 2000, 6000)
    {
        grow_new_data('data, MB', $mb, diverged(fill => sub { write_mb($_[0], 'filled', $mb) }));
    }
    return;
}

sub grow_files
{
    for my $relations (2000, 20000, 60000)
    {
        my $fill = sub {
            my ($old) = @_;
            $old->safe_psql(<<"END", timeout => 1800);
CREATE PROCEDURE make_tables(n int) LANGUAGE plpgsql AS \$\$
BEGIN
    FOR i IN 1 .. n LOOP
        EXECUTE 'CREATE TABLE made_' || i || ' (i int)';
        IF i % 500 = 0 THEN
            COMMIT;
        END IF;
    END LOOP;
END \$\$;
CALL make_tables($relations);
END
        };
        grow_new_data('relations', $relations, diverged(fill => $fill));
    }
    return;
}

sub grow_lost
{
    for my $mb (16, 1300, 4000)
    {
        # The table is empty again when the clock starts.
        my $lose = sub { my ($old) = @_; write_mb($old, 'lost', $mb); $old->safe_psql('TRUNCATE lost') };
        grow_new_data('lost WAL, MB', $mb, diverged(lose => $lose, keep => '8GB'));
    }
    return;
}

# Healthy standbys, each of which has what there was when the primary died; then $fill is done on
# the new one.
sub bereaved
{
    my ($nodes, $prepare) = @_;
    my $cluster = make_cluster(2 + $nodes);
    my ($old, $new, @siblings) = $cluster->nodes;

    $prepare->($cluster) if $prepare;
    $old->safe_psql("INSERT INTO bench_proof VALUES (0)");
    $old->wait_for_catchup($_, undef, 300) for $new, @siblings;
    $_->safe_psql('CHECKPOINT') for $new, @siblings;
    $cluster->set(fsync => 'on');
    $old->kill9;
    $new->promote;
    $new->safe_psql('CHECKPOINT');
    $facts{timeline} = $new->timeline;
    $_->stop for @siblings;
    my %snapshot = map { $_->name => snapshot($_) } @siblings;
    return ($cluster, $new, \%snapshot, @siblings);
}

sub grow_repoint
{
    my ($of, $size, $cluster, $new, $snapshot, @siblings) = @_;
    measure(
        name    => "$of $size",
        growth  => [ $of, $size, 'repoint' ],
        no_steps => @siblings > 1,
        primary => $new,
        nodes   => \@siblings,
        before  => sub {
            my ($way) = @_;
            from_snapshot($new, $_, $snapshot->{ $_->name })->($way) for @siblings;
            $_->poll_query_until('SELECT count(*) FROM pg_stat_wal_receiver', '0') or die "a WAL receiver runs\n" for @siblings;
        },
        ways => [
            hand => sub {
                for my $sibling (@siblings)
                {
                    hand_settings($cluster, $new, $sibling);
                    pg_ctl($sibling, 'reload');
                }
            },
            ours => sub {
                return ours($new, $siblings[0]) if @siblings == 1;
                command(psql_command($new, join ';', map { $new->follow_sql($_, wait => 'false') } @siblings));
            } ]);
    return;
}

# The new primary's timeline: it has the history files that as many promotions leave.
sub grow_timelines
{
    for my $timelines (2, 50, 500)
    {
        my $age = sub {
            my ($cluster) = @_;
            my ($old, @standbys) = $cluster->nodes;
            $_->stop for @standbys, $old;
            my $segment = hex(substr $old->controldata("Latest checkpoint's REDO WAL file"), 16) + 3;
            run_ok([ $old->bin('pg_resetwal'), '-l', sprintf('%08X%08X%08X', $timelines - 1, 0, $segment), '-D', $old->pgdata ]);
            $old->write_histories($timelines - 1);
            $old->start;
            for my $standby (@standbys)
            {
                run_ok([ 'rm', '-rf', $standby->pgdata ]);
                $standby->init_standby_from($old, slot => 1);
                $standby->write_histories($timelines - 1);
                $standby->start;
                $standby->wait_for_streaming($old);
            }
        };
        my ($cluster, @more) = bereaved(1, $age);
        grow_repoint('timelines', $timelines, $cluster, @more);
        end_cluster($cluster);
    }
    return;
}

sub grow_nodes
{
    my ($cluster, $new, $snapshot, @siblings) = bereaved($siblings);
    for my $nodes (1, 4, 8)
    {
        grow_repoint('nodes at once', $nodes, $cluster, $new, $snapshot, @siblings[ 0 .. $nodes - 1 ]);
        $_->stop for grep { $_->running } @siblings;
    }
    end_cluster($cluster);
    return;
}

sub grow_rows
{
    for my $rows (0, 10000, 100000)
    {
        my $fill = sub {
            my ($cluster) = @_;
            $cluster->node(0)->safe_psql(<<"END", timeout => 600);
WITH job AS (
    INSERT INTO follow_primary_job (node_host, node_port, requested_method, method, state, started_at, finished_at)
    SELECT 'db' || i % 8, 5432, 'auto', 'rewind', 'succeeded', now() - '1 day'::interval, now() - '23 hours'::interval
    FROM generate_series(1, $rows) AS i RETURNING id)
INSERT INTO follow_primary_step (job_id, seq, step, state, started_at, finished_at)
SELECT id, s, 'rewind', 'succeeded', now() - '1 day'::interval, now() - '23 hours'::interval FROM job, generate_series(1, 5) AS s;
VACUUM ANALYZE follow_primary_job, follow_primary_step;
CHECKPOINT;
END
        };
        my ($cluster, $new, @more) = bereaved(1, $fill);
        grow_repoint('rows of history', $rows, $cluster, $new, @more);
        my (undef, $out) = $new->psql("\\timing on\n" . 'TABLE follow_primary_progress; TABLE follow_primary_cluster;' x 15);
        my @times = $out =~ /^Time: ([\d.]+) ms/mg;
        my @both = map { ($times[ 2 * $_ ] + $times[ 2 * $_ + 1 ]) / 1000 } 0 .. 14;
        push @results, { name => "views $rows", growth => [ 'rows of history', $rows, 'both views' ], ours => median(@both), runs => { ours => \@both } };
        end_cluster($cluster);
    }
    report();
    return;
}

my %grow = (data => \&grow_data, files => \&grow_files, lost => \&grow_lost,
    timelines => \&grow_timelines, nodes => \&grow_nodes, rows => \&grow_rows);

die "usage: bench.pl OUT_DIR [CASE ...]\n" if !defined $out_dir;
die "PostgreSQL does not run as root\n" if $> == 0;

$facts{runs}               = $runs;
$facts{checkpoint_timeout} = $checkpoint_timeout;
$facts{load_rate}          = $load_rate;
$facts{postgres}           = (split /\n/, run_ok([ FollowPrimary::Node::bindir() . '/postgres', '-V' ]))[0];
$facts{cores}              = () = slurp('/proc/cpuinfo') =~ /^processor\s*:/mg;

small_cases() if wanted(qw(repoint pgbench plan none siblings all));
big_cases()   if wanted(qw(rewind copy copy_load));
switchover_cases() if wanted('switchover');

for my $size (split ' ', $ENV{BENCH_LOST_MB} // '1300')
{
    lost_case($size) if wanted('lost');
}

for my $of (qw(rows nodes timelines lost files data))
{
    $grow{$of}->() if wanted('growth', "growth_$of");
}

my @grown = grep { $_->{growth} } @results;
print Growth::markdown(\@grown, \%facts) if @grown;
@results = grep { !$_->{growth} } @results;
print Report::markdown(\@results, \%facts) if @results;
