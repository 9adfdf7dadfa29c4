package Faults;

# Holds a job at every step, and injects there every fault that a real machine
# knows. Then it checks what is left: the job's row tells the truth; the node's data
# is the old, the new, or marked as unusable; one more call with the same arguments
# brings everything in order.
#
#   my $faults = Faults->new;                   # a cluster of its own
#   my @cases = $faults->cases(method => 'rewind', fault => 'kill');
#   $_->{result} = $faults->run($_) for @cases;
#   print Faults::table(@cases);
#
# A case is a method, one of its steps, a point of that step, and a fault. The steps
# are those that follow_primary_plan() names, so a new step is covered at once. The
# extension has no code for these tests: triggers on its step table hold the worker
# at a point by an advisory lock that the test has.
#   begin   the step is about to run: its row is being written
#   end     it has run, and is not recorded yet
#   middle  its remote process is at work (stop, rewind, copy)
#   rename1, rename2 ...  one of the renames of the swap comes next
#   remove1, remove2 ...  one of the folders is cleared next

use strict;
use warnings;

use FollowPrimary::Cluster;
use FollowPrimary::Mounts;
use FollowPrimary::Network;
use FollowPrimary::Pgpool;
use FollowPrimary::Scratch qw(scratch_dir run_command run_ok wait_until slurp spew
    our_processes process_alive process_tree kill_tree);
use IO::Select;
use IPC::Open3;
use POSIX ();
use Time::HiRes qw(sleep time);

# The key of the triggers' advisory locks, which the extension does not use.
use constant LOCK_CLASS => 4711;

use constant {
    DISK_MB   => 1500,
    FILLER_MB => 80,
    CALL_S    => 60,    # more than any single call may take
    CASES     => 25,    # until the primary's WAL is as short as in the beginning
};

my @methods = qw(none repoint restart rewind basebackup asked finish attached mounted in_place);

# Settings for the node that a method's cases use.
my %node_of = (
    none       => 3,
    repoint    => 3,
    restart    => 3,
    rewind     => 0,
    basebackup => 0,
    asked      => 3,
    finish     => 0,
    attached   => 3,
    mounted    => 0,
    in_place   => 0);

my %arguments_of = (
    asked    => { method => 'basebackup' },
    attached => { node_id => 3 });

# A repoint of a node that pgpool has, for the step `attach`.
my %only_step = (attached => 'attach');

my %middle = (
    stop   => { middle => \&_hold_stop },
    rewind => { middle => \&_hold_rewind },
    copy   => { middle => \&_hold_copy },
    # PGDATA, WAL and tablespace, each moved away and each moved into place.
    swap   => { map { my $n = $_; ("rename$n" => sub { $_[0]->_hold_call($n) }) } 1 .. 8 },
    clear  => { map { my $n = $_; ("remove$n" => sub { $_[0]->_hold_call($n) }) } 1 .. 3 });

# The number of renames of a swap. On mount points PG_VERSION has two of its own,
# and for each folder one program moves the content away and one moves it into place.
# Where the old data was removed to make room, nothing is moved away.
my %renames_of = (finish => 0, asked => 4, mounted => 8, in_place => 3);

my @faults = qw(cancel terminate kill immediate cut power freeze network full failover demote);

sub methods { return @methods }
sub faults  { return @faults }

#
# A place where the node's disk can be filled, and its network cut
#

# Runs the program again in namespaces of its own, with a small file system, mount
# points in it, and a network that can lose packets. The mount points are of one
# device; the kernel refuses a rename from one to another all the same. Returns when
# the program runs there, or when the kernel does not let an ordinary account have it.
my $mounts;

sub enter_namespace
{
    $mounts = FollowPrimary::Mounts::enter('mkdir disk && mount -t tmpfs -o mode=0700,size=' . DISK_MB . 'm tmpfs disk && '
        . 'for d in data wal ts; do mkdir -p -m 0700 disk/bound/$d disk/mounts/$d && mount --bind disk/bound/$d disk/mounts/$d; done && '
        . FollowPrimary::Network::FILTER, network => 1);
    return;
}

#
# The cluster
#

# Four servers: the former primary, which was restarted by mistake and written
# to (node 0), the primary (1), a standby of it that can take over (2), and a
# sibling that still looks for the former primary (3).
sub new
{
    my ($class, %opt) = @_;
    my $self = bless { log => $opt{log} // sub { }, dirty => 0, snapshots => scratch_dir('snapshots') }, $class;
    my $major = FollowPrimary::Node::pg_major();
    my $cluster = $self->{cluster} = FollowPrimary::Cluster->new(
        nodes     => 4,
        extension => 1,
        checksums => 0,
        sshd_conf => 'SetEnv PATH=' . $self->_write_shims . ":/usr/bin:/bin\n",
        conf      => {
            wal_retrieve_retry_interval         => '100ms',
            $major >= 13 ? (wal_keep_size => '3GB') : (wal_keep_segments => 200),
            max_wal_size                        => '4GB',
            'follow_primary.connect_timeout'    => 5,
            'follow_primary.stop_timeout'       => 10,
            'follow_primary.start_timeout'      => 20,
            'follow_primary.verify_timeout'     => 15,
            'follow_primary.progress_timeout'   => 8 });
    my ($old, $new, $third, $sibling) = $cluster->nodes;

    $self->{disk} = $mounts ? "$mounts/disk" : scratch_dir('disk');
    $self->{has_namespace} = $mounts ? 1 : 0;

    # Node 0's data is on the disk that can be filled, with a tablespace.
    $old->stop;
    for my $server ($new, $third, $sibling) { $server->stop }
    for my $server ($old, $sibling) { $self->_move($server) }
    $old->set(archive_cleanup_command => 'true own/script') if $major >= 12;
    _put_own_files($old);
    # The tests tell pgpool when a node is down; it does no failover of its own.
    $self->{pgpool} = FollowPrimary::Pgpool->new(
        cluster => $cluster,
        conf    => { health_check_period => 0, failover_on_backend_error => 'off', failover_command => '' });
    $old->start;
    $old->safe_psql(join ";\n", map {
        sprintf "UPDATE follow_primary_node SET pgdata = '%s' WHERE host = '%s'", $_->pgdata, $_->address
    } $old, $sibling);
    mkdir $self->_home($old) . '/ts' or die;
    $old->safe_psql('CREATE TABLESPACE ts LOCATION ' . FollowPrimary::Node::quote($self->_home($old) . '/ts'));
    $old->safe_psql(<<'END');
CREATE TABLE t (i int);
CREATE TABLE u (i int) TABLESPACE ts;
INSERT INTO t SELECT generate_series(1, 1000);
INSERT INTO u SELECT generate_series(1, 1000);
CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_catalog.pg_advisory_xact_lock_shared(4711,
        pg_catalog.hashtext(NEW.step || CASE TG_OP WHEN 'INSERT' THEN ' begin' ELSE ' end' END));
    RETURN NEW;
END $$;
CREATE TRIGGER begin BEFORE INSERT ON follow_primary_step FOR EACH ROW EXECUTE FUNCTION hold();
CREATE TRIGGER "end" BEFORE UPDATE ON follow_primary_step FOR EACH ROW
    WHEN (NEW.state = 'succeeded' AND OLD.state <> 'succeeded') EXECUTE FUNCTION hold();
END
    for my $node ($new, $third, $sibling)
    {
        run_ok([ 'rm', '-rf', $node->pgdata ]);
        my $ts = $self->_home($node) . '/ts';
        $node->init_standby_from($old, slot => 1, basebackup => [ '-T', $self->_home($old) . "/ts=$ts" ]);
        _put_own_files($node);
        $node->start;
        $node->wait_for_streaming($old);
        $old->wait_for_catchup($node);
    }
    $sibling->stop;
    $self->_save('repoint', $sibling);
    $self->_settings($sibling, qr/^recovery_target_timeline.*$/m => "recovery_target_timeline = 'current'");
    $self->_save('restart', $sibling);

    $old->kill9;
    $new->promote;
    ($self->{fork}) = slurp($new->pgdata . '/pg_wal/00000002.history') =~ /^1\t(\S+)/m or die;
    $new->safe_psql('INSERT INTO t SELECT generate_series(1001, 2000); INSERT INTO u SELECT generate_series(1001, 2000); CHECKPOINT');
    $new->create_slot($third->slot_name);
    $third->follow($new, slot => 1);
    $third->restart;
    $third->wait_for_streaming($new);

    $old->start;
    $old->safe_psql('INSERT INTO t SELECT generate_series(100001, 102000)');
    $old->stop;
    $self->_save('rewind', $old);
    $old->set(wal_log_hints => 'off');
    run_ok([ 'mv', $old->pgdata . '/pg_wal', $self->_home($old) . '/wal' ]);
    symlink $self->_home($old) . '/wal', $old->pgdata . '/pg_wal' or die;
    $old->start;
    $old->stop;
    $self->_save('basebackup', $old);
    run_ok([ 'sh', '-c', 'for name in asked attached; do cp -a "$1/repoint" "$1/$name"; done', 'sh', $self->{snapshots} ]);

    $self->_save_primary;
    $self->_start_primary;
    return $self;
}

# Where a node's data, WAL and tablespace are.
sub _home
{
    my ($self, $node) = @_;
    my ($home) = $node->pgdata =~ m{(.*)/};
    return $home;
}

sub _move
{
    my ($self, $node) = @_;
    my $home = "$self->{disk}/" . $node->name;
    mkdir $home, 0700 or die "mkdir $home: $!";
    run_ok([ 'mv', $node->pgdata, "$home/data" ]);
    $node->{pgdata} = "$home/data";
    $self->{homes}{ $node->name } = 1 if $node->name eq 'node0';
    return;
}

# Changes a line of a standby's settings file.
sub _settings
{
    my ($self, $node, $from, $to) = @_;
    my $file = $node->pgdata . '/myrecovery.conf';
    my $text = slurp($file);
    $text =~ s/$from/$to/ or die "no $from in $file";
    spew($file, $text);
    return;
}

# A folder of the node's own files: a setting names a file in it.
sub _put_own_files
{
    my ($node) = @_;
    my $folder = $node->pgdata . '/own';
    mkdir $folder;
    spew("$folder/$_", $node->name) for 'script', 'beside it';
    return;
}

sub _check_own_files
{
    my ($node) = @_;
    my @own = map { s{.*/}{}r . '=' . slurp($_) } sort glob(quotemeta($node->pgdata) . '/own/*');
    my $want = join ' ', map { "$_=" . $node->name } 'beside it', 'script';
    die "the node's own files are @own\n" if FollowPrimary::Node::pg_major() >= 12 && "@own" ne $want;
    return;
}

sub _save
{
    my ($self, $name, $node) = @_;
    my $to = "$self->{snapshots}/$name";
    run_ok([ 'sh', '-c', 'rm -rf "$2" && mkdir -p "$2" && cd "$1" && cp -a data* wal* ts* "$2/" 2>/dev/null; test -d "$2/data"',
        'sh', $self->_home($node), $to ]);
    return;
}

sub _restore
{
    my ($self, $name, $node) = @_;
    # The server of an earlier case, wherever its data was.
    $node->kill9;
    unlink "$self->{disk}/ballast";
    $node->{pgdata} = $self->_home_of($name) . '/data' if $self->{homes}{ $node->name };
    $node->kill9;
    run_ok([ 'sh', '-ec', <<'END', 'sh', $self->_home($node), "$self->{snapshots}/$name" ]);
cd "$1"
for d in data* wal* ts*; do
    if mountpoint -q "$d"; then find "$d" -mindepth 1 -delete; else rm -rf "$d"; fi
done
for d in "$2"/*; do
    if mountpoint -q "${d##*/}"; then cp -a "$d/." "${d##*/}/"; else cp -a "$d" .; fi
done
END
    return;
}

# Brings node 0 to the state in which the cases of a method begin.
sub _home_of
{
    my ($self, $method) = @_;
    return $self->{disk} . ($method eq 'mounted' ? '/mounts' : '/node0');
}

# Starts the primary and the third with their present data.
sub _save_primary
{
    my ($self) = @_;
    my (undef, $new, $third) = $self->{cluster}->nodes;
    $self->{session} = undef;
    $new->stop;
    $third->stop;
    $self->_save('new', $new);
    $self->_save('third', $third);
    return;
}

sub _start_primary
{
    my ($self) = @_;
    my (undef, $new, $third) = $self->{cluster}->nodes;
    $new->start;
    $third->start;
    $third->wait_for_streaming($new);
    $self->{dirty} = $self->{cases} = 0;
    return;
}

sub _reset_primary
{
    my ($self) = @_;
    my (undef, $new, $third) = $self->{cluster}->nodes;
    $self->{session} = undef;
    for my $server ($new, $third) { $server->kill9 }
    $self->_restore('new', $new);
    $self->_restore('third', $third);
    $self->_start_primary;
    return;
}

# More data: the cases in the middle of a step need a step that lasts.
sub _add_filler
{
    my ($self) = @_;
    return if $self->{filler}++;
    my (undef, $new, $third) = $self->{cluster}->nodes;
    $self->_reset_primary if $self->{dirty};
    $new->safe_psql('CREATE TABLE filler AS SELECT i, repeat(md5(i::text), 30) AS text '
        . 'FROM generate_series(1, ' . FILLER_MB * 1000 . ') i; CHECKPOINT');
    $new->wait_for_catchup($third);
    $self->_save_primary;
    $self->_start_primary;
    return;
}

# Cases of "none" and "finish" begin where another call ended or was interrupted.
sub _make_snapshot
{
    my ($self, $method) = @_;
    return if -d "$self->{snapshots}/$method";
    if ($method eq 'mounted' || $method eq 'in_place')
    {
        run_ok([ 'sh', '-ec', 'cp -a "$1/basebackup" "$1/$2"; cd "$1/$2/data"; ln -sfn "$3/wal" pg_wal; ln -sfn "$3/ts" pg_tblspc/*',
            'sh', $self->{snapshots}, $method, $self->_home_of($method) ]);
        return;
    }
    my (undef, $new) = $self->{cluster}->nodes;
    my $node = $self->{cluster}->node($node_of{$method});
    my $from = $method eq 'none' ? 'repoint' : 'basebackup';
    $self->_reset_primary if $self->{dirty};
    $self->_restore($from, $node);
    $node->start;
    if ($method eq 'none')
    {
        my $r = $new->make_follow($node);
        die "cannot make the state \"none\": $r->{err}" if !$r->{ok};
        $node->stop;
    }
    else
    {
        $self->_hold('configure', 'begin');
        my $call = $new->psql_start($new->follow_sql($node));
        $self->_wait_until_held($call);
        $self->_sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'follow_primary'");
        $call->wait(CALL_S);
        $self->_release;
    }
    $self->_save($method, $node);
    $node->kill9;
    $self->_drop_slot($node);
    # Taken now, for the node has this primary's WAL up to now.
    $self->_save_primary;
    $self->_start_primary;
    return;
}

#
# A session that stays, on the primary
#

sub _sql
{
    my ($self, $sql) = @_;
    my (undef, $new) = $self->{cluster}->nodes;
    my $session = $self->{session};

    if (!$session)
    {
        my $pid = open3(my $in, my $out, undef, $new->bin('psql'), '-XAtqw', '-v', 'ON_ERROR_STOP=0',
            '-d', $new->connstr, '-f', '-');
        $in->autoflush(1);
        $session = $self->{session} = { in => $in, out => $out, pid => $pid, select => IO::Select->new($out) };
    }
    local $SIG{PIPE} = 'IGNORE';
    my $end = 'end-of-' . int(rand 1e9);
    my $text = '';
    print { $session->{in} } "$sql;\n\\echo $end\n";
    my $deadline = time + 20;
    while ($text !~ s/^\Q$end\E\n//m)
    {
        my $n = $session->{select}->can_read($deadline - time)
            ? sysread($session->{out}, $text, 65536, length $text) : 0;
        if (!$n)
        {
            $self->{session} = undef;
            die "the session on the primary ended: $text\n";
        }
    }
    die "$sql: $text" if $text =~ /ERROR:/;
    chomp $text;
    return $text;
}

sub _hold
{
    my ($self, $step, $point) = @_;
    $self->_sql('SELECT pg_advisory_lock(' . LOCK_CLASS . ", hashtext('$step $point'))");
    return;
}

sub _release
{
    my ($self) = @_;
    eval { $self->_sql('SELECT pg_advisory_unlock_all()') };
    return;
}

# Waits until the worker waits for our lock. Dies when the call ends before.
sub _wait_until_held
{
    my ($self, $call) = @_;
    my $deadline = time + CALL_S;
    while (time < $deadline)
    {
        return if $self->_sql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = "
            . LOCK_CLASS . ' AND NOT granted');
        die 'the job ended before it came to the step: ' . $call->err . "\n" if !$call->running;
        sleep 0.005;
    }
    die "the job did not come to the step\n";
}

#
# Cases
#

# Options: method, step, point, fault, each a regular expression that the whole
# name must match.  The cases in the middle of steps come last: they need more
# data.
sub cases
{
    my ($self, %want) = @_;
    my @cases;
    my $wanted = sub { my ($key, $value) = @_; return !defined $want{$key} || $value =~ /\A(?:$want{$key})\z/ };

    # Never fill a disk that is not ours.
    my @possible = grep { $self->{has_namespace} || !/^(?:mounted|in_place)$/ } @methods;
    for my $method (grep { $wanted->(method => $_) } @possible)
    {
        my @steps = grep { $wanted->(step => $_) } $self->steps($method);
        for my $step (@steps)
        {
            my @points = ('begin', sort(keys %{ $middle{$step} // {} }), 'end');
            for my $point (grep { $wanted->(point => $_) } @points)
            {
                push @cases, map { { method => $method, step => $step, point => $point, fault => $_ } }
                    grep { $wanted->(fault => $_) } @faults;
            }
        }
    }
    return sort { _needs_filler($a) <=> _needs_filler($b) } @cases;
}

# Returns that many of the cases, in their order. The points of steps are rows, and
# their faults columns. A round takes one case of every row, the next fault in each
# next row; the last round takes the cases that are still missing, evenly over the rows.
sub sample
{
    my ($self, $n, @cases) = @_;
    my (@rows, %row, %chosen);

    @cases = grep { !defined $self->_impossible($_) } @cases;
    for my $case (@cases)
    {
        my $name = "$case->{method} $case->{step} $case->{point}";
        push @rows, $row{$name} = [] if !$row{$name};
        push @{ $row{$name} }, $case;
    }
    for (my $round = 0; @rows && keys %chosen < $n; $round++)
    {
        my $left = $n - keys %chosen;
        my $take = $left < @rows ? $left : @rows;
        for my $i (0 .. $take - 1)
        {
            my $row = $rows[ int($i * @rows / $take) ];
            $chosen{ splice @$row, ($i + $round) % @$row, 1 } = 1;
        }
        @rows = grep { @$_ } @rows;
    }
    return grep { $chosen{$_} } @cases;
}

# Why a case cannot be run, or undef.
sub _impossible
{
    my ($self, $case) = @_;
    return 'no mount and network namespaces for this account'
        if !$self->{has_namespace} && ($case->{fault} =~ /^(?:full|network)$/ || $case->{method} =~ /^(?:mounted|in_place)$/);
    return 'fewer folders are to be renamed'
        if $case->{point} =~ /^rename(\d)/ && $1 > ($renames_of{ $case->{method} } // 6);
    return;
}

sub _needs_filler
{
    my ($case) = @_;
    return $case->{point} eq 'middle' && $case->{step} ne 'stop' ? 1 : 0;
}

# The call for a case of the method, on that server.
sub _call
{
    my ($self, $server, $node, $method, %more) = @_;
    my %arguments = (%{ $arguments_of{$method} // {} }, $method eq 'mounted' ? (node_pgdata => $node->pgdata) : (), %more);
    return ($method eq 'in_place' ? 'SET follow_primary.copy_in_place = on; ' : '') . $server->follow_sql($node, %arguments);
}

# Room on the node's disk for a copy only if the old data goes.
sub _leave_too_little
{
    my ($self) = @_;
    my $needed = $self->_sql('SELECT sum(pg_tablespace_size(oid))::bigint FROM pg_tablespace') + 12 * 1024 * 1024;
    my (undef, undef, undef, $free) = split ' ', (split /\n/, run_ok([ 'df', '-Pk', $self->{disk} ]))[1];
    my $size = $free * 1024 - $needed;
    run_ok([ 'fallocate', '-l', $size, "$self->{disk}/ballast" ]) if $size > 0;
    return;
}

# The steps of the method after survey and plan, as follow_primary_plan() has them.
sub steps
{
    my ($self, $method) = @_;
    return @{ $self->{steps}{$method} } if $self->{steps}{$method};
    my (undef, $new) = $self->{cluster}->nodes;
    my $node = $self->{cluster}->node($node_of{$method});
    $self->_make_snapshot($method);
    $self->_reset_primary if $self->{dirty};
    $self->_detach($node) if $method eq 'attached';
    $self->_restore($method, $node);
    $new->create_slot($node->slot_name) if $method eq 'none';
    $node->start if $method ne 'finish';
    $node->wait_for_streaming($new) if $method eq 'none';
    $self->_leave_too_little if $method eq 'in_place';
    my $r = $new->try_sql($self->_call($new, $node, $method, function => 'follow_primary_plan'), timeout => CALL_S);
    my ($chosen, $reason, $steps) = split /\|/, $r->{out};
    my %expected = (restart => 'repoint', asked => 'basebackup', finish => 'basebackup', mounted => 'basebackup', in_place => 'basebackup', attached => 'repoint');
    die "the plan for \"$method\" is: $r->{out} $r->{err}" if !$r->{ok} || $chosen ne ($expected{$method} // $method);
    $steps =~ tr/{}"//d;
    $self->{steps}{$method} = [ grep { $_ eq ($only_step{$method} // $_) } 'survey', 'plan', split /,/, $steps ];
    $node->kill9;
    $self->_drop_slot($node);
    return @{ $self->{steps}{$method} };
}

# pgpool runs, and shows the node down.
sub _detach
{
    my ($self, $node) = @_;
    my $pgpool = $self->{pgpool};
    $pgpool->start if !$pgpool->running;
    $pgpool->pcp('pcp_detach_node', $node->id);
    $pgpool->wait_for_status($node->id => 'down', 20);
    return;
}

sub _drop_slot
{
    my ($self, $node) = @_;
    my $slot = $node->slot_name;
    return if $self->_sql("SELECT count(*) FROM pg_replication_slots WHERE slot_name = '$slot'") eq '0';
    wait_until("slot $slot is free", sub {
        $self->_sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '$slot' AND NOT active");
        return $self->_sql("SELECT count(*) FROM pg_replication_slots WHERE slot_name = '$slot'") eq '0';
    }, 10);
    return;
}

# Runs a case. Returns undef when all is well, else what is wrong, or "skip: ...".
sub run
{
    my ($self, $case) = @_;
    $case->{seconds} = 0;
    my $impossible = $self->_impossible($case);
    return "skip: $impossible" if defined $impossible;
    my $begun = time;
    my $problem;

    for my $try (1 .. 3)
    {
        $problem = eval { $self->_run($case); 1 } ? undef : $@;
        $self->{dirty} = 1 if defined $problem;
        $self->_thaw;
        last if !defined $problem || $problem !~ /^missed/;
    }
    $case->{seconds} = time - $begun;
    if (defined $problem)
    {
        $problem =~ s/^(?:LOCATION:.*|)\n//mg;
        $problem = substr($problem, 0, 200) . ' ... ' . substr($problem, -800) if length $problem > 1000;
        $problem =~ s/\s+\z//;
    }
    return $problem;
}

sub _run
{
    my ($self, $case) = @_;
    my ($method, $step, $point, $fault) = @{$case}{qw(method step point fault)};
    my (undef, $new, $third) = $self->{cluster}->nodes;
    my $node = $self->{cluster}->node($node_of{$method});

    # A known state. Before a method's first case its node has old data.
    $self->_make_snapshot($method);
    $self->{dirty} = 1 if ($self->{method} // $method) ne $method;
    $self->{method} = $method;
    $self->_add_filler if _needs_filler($case);
    $self->_reset_primary if $self->{dirty};
    $self->_detach($node) if $method eq 'attached';
    $node->host->ssh_start;
    $self->_restore($method, $node);
    $self->_drop_slot($_) for map { $self->{cluster}->node($_) } 0, 3;
    $new->create_slot($node->slot_name) if $method eq 'none' || $method eq 'finish';
    $node->start if $method ne 'finish';
    $node->wait_for_streaming($new) if $method eq 'none';
    my $old_rows = $method eq 'finish' ? '' : $node->safe_psql('SELECT count(*), sum(i) FROM t');
    my $old_log = $node->log_size;
    $self->_leave_too_little if $method eq 'in_place';

    # Run to the point.
    my $middle = $middle{$step}{$point};
    $self->_hold($step, $middle ? 'begin' : $point);
    my $call = $new->psql_start($self->_call($new, $node, $method));
    $self->_wait_until_held($call);
    my $job = $self->_sql('SELECT max(id) FROM follow_primary_job');
    $self->{node} = $node;
    $self->{held} = undef;
    $self->{held} = $middle->($self, $node) if $middle;

    # The fault.
    my %after = (primary => $new);
    $self->{primary} = $new;
    my $inject = $self->can("_fault_$fault") // die "no fault $fault\n";
    my $lift = $inject->($self, $node, $point, $job);
    my $primary = $self->{primary};
    $self->_release if $primary == $new && $fault !~ /^(?:kill|immediate)$/;
    # A program that is held before a rename or a removal goes on only if the job does.
    $self->_thaw_held if $fault eq 'freeze' ? $point ne 'middle' : $point !~ /^re(?:name|move)/ || $fault eq 'full';
    my $code = $call->wait(CALL_S) // do { $call->stop; die "the call did not end\n" };
    my $said = $call->err;
    $call->forget;

    # What is left.
    my $state = $self->_check_row($primary, $job, $fault, $said);
    $self->_thaw_held;
    $lift->() if $lift;
    # TCP tries again after twice the time each time.
    $self->_check_processes($primary, $fault eq 'network' ? 20 : 6);
    $self->_check_data($node, $fault, $old_rows);
    $self->_check_slot($primary, $node, $job, $fault) if $method !~ /^(?:none|finish)$/;
    $node->host->ssh_start;
    # A job that succeeded in spite of the fault has proven it. A server whose disk is full ends,
    # sooner or later.
    if ($state eq 'succeeded' && $fault !~ /^(?:power|demote)$/)
    {
        my $follows = eval {
            die "the job has succeeded, and the node is no standby; its log ends in\n" . $node->log_tail(8)
                if !$node->running || !$node->in_recovery;
            $primary->wait_for_catchup($node, undef, 20);
            1;
        };
        my $error = $@;
        die $error if !$follows && !($fault eq 'full' && !$node->running && $node->log_tail(50) =~ /No space left on device/);
    }

    # A machine that comes back starts its servers. The next call starts the server
    # that a job stopped.
    if (!$node->running && !-e _mark($node) && $fault =~ /^(?:power|full)$/)
    {
        $node->start;
        $self->_check_rows($node, $node->safe_psql('SELECT count(*), sum(i) FROM t'), $old_rows);
    }

    # pgpool has one process for all these tasks, and it may wait for the node.
    wait_until('pgpool answers', sub { ($self->{pgpool}->pcp('pcp_node_count'))[0] == 0 }, 60)
        if $method eq 'attached' && $fault eq 'network';

    # Call once more.
    my $r = $primary->try_sql($self->_call($primary, $node, $method), timeout => 2 * CALL_S);
    die "the second call fails: $r->{err}\n" if !$r->{ok};
    my $second = $primary->safe_psql('SELECT state FROM follow_primary_job ORDER BY id DESC LIMIT 1');
    die "the second job's state is $second: $r->{err}\n" if $second ne 'succeeded';
    $self->_check_end($primary, $node, $job);
    $self->_check_attached($node) if $method eq 'attached';
    $self->{dirty} = 1 if $primary != $new || ++$self->{cases} >= CASES;
    $node->kill9;
    return;
}

sub _mark { my ($node) = @_; return $node->pgdata . '.follow_primary/job/mark' }

sub _phase
{
    my ($node) = @_;
    my $mark = eval { slurp(_mark($node)) } // return '';
    return $mark =~ /^phase=(.*)$/m ? $1 : 'unknown';
}

#
# In the middle of a step: stops the remote process that is at work by SIGSTOP.
# Returns its pid.
#

sub _poll
{
    my ($what, $sub) = @_;
    my $deadline = time + 20;
    while (time < $deadline)
    {
        my $value = $sub->();
        return $value if $value;
        sleep 0.002;
    }
    die "not seen: $what\n";
}

# The process on the node whose command line matches, not one of its children. The
# pids do not tell: they start anew after the largest.
sub _remote_process
{
    my ($self, $node, $regex) = @_;
    my %command = $node->host->ssh_commands;
    my @matching = grep { $command{$_} =~ $regex } keys %command;
    my %below = map { my $pid = $_; map { $_ => 1 } grep { $_ != $pid } process_tree($pid) } @matching;
    my ($pid) = grep { !$below{$_} } @matching;
    return $pid;
}

sub _hold_stop
{
    my ($self, $node) = @_;
    my $postmaster = $node->pid // die "the node does not run\n";
    kill 'STOP', $postmaster;
    $self->{held} = $postmaster;
    $self->_release;
    # SIGINT, the signal of a fast stop, waits for it.
    _poll('the stop', sub { slurp("/proc/$postmaster/status") =~ /^ShdPnd:\s*[0-9a-f]*[2367abef]$/m });
    return $postmaster;
}

sub _hold_rewind
{
    my ($self, $node) = @_;
    my $log = $node->pgdata . '.follow_primary/job/rewind.log';
    $self->_release;
    my $pid = _poll('pg_rewind', sub { $self->_remote_process($node, qr{^\S*/pg_rewind }) });
    _poll('pg_rewind copies', sub { (eval { slurp($log) } // '') =~ m{[1-9]\d*/\d+ kB \(} || !process_alive($pid) });
    kill 'STOP', $pid;
    die "missed: pg_rewind was faster\n" if !process_alive($pid) || slurp($log) =~ /Done!/;
    return $pid;
}

sub _hold_copy
{
    my ($self, $node) = @_;
    my @new = ($node->pgdata . '.follow_primary/job/new', $node->pgdata . '/.follow_primary_new');
    $self->_release;
    my $pid = _poll('pg_basebackup', sub { $self->_remote_process($node, qr{^\S*/pg_basebackup }) });
    _poll('pg_basebackup copies', sub { !process_alive($pid) || grep { -d "$_/base" } @new });
    kill 'STOP', $pid;
    die "missed: pg_basebackup was faster\n" if !process_alive($pid) || grep { -e "$_/global/pg_control" } @new;
    return $pid;
}

# Programs for the node, first in its PATH: mv and rm stop before the rename or the
# removal whose number is in the file "hold".
sub _write_shims
{
    my ($self) = @_;
    my $dir = $self->{shims} = scratch_dir('shims');
    spew("$dir/$_", <<"END", 0755) for qw(mv rm);
#!/bin/sh
case "\${0##*/} \$1 \$2" in
    'mv -T '* | 'mv -n '* | 'rm -rf --') counted=yes ;;
    *) counted=no ;;
esac
if [ \$counted = yes ] && [ -e $dir/hold ]; then
    n=\$((\$(cat $dir/count) + 1))
    echo \$n >$dir/count
    if [ \$n = "\$(cat $dir/hold)" ]; then
        echo \$\$ >$dir/held.tmp
        PATH=/usr/bin:/bin
        mv $dir/held.tmp $dir/held
        kill -STOP \$\$
    fi
fi
PATH=/usr/bin:/bin
exec "\${0##*/}" "\$@"
END
    return $dir;
}

sub _hold_call
{
    my ($self, $n) = @_;
    my $dir = $self->{shims};
    unlink "$dir/held";
    spew("$dir/count", '0');
    spew("$dir/hold", $n);
    $self->_release;
    chomp(my $pid = _poll("call $n", sub { -e "$dir/held" && slurp("$dir/held") }));
    unlink "$dir/hold";
    wait_until('it is stopped', sub { slurp("/proc/$pid/stat") =~ /\) T / }, 5);
    return $pid;
}

sub _thaw_held
{
    my ($self) = @_;
    my $pid = delete $self->{held} // return;
    kill 'CONT', $pid;
    return;
}

# After a case, however it went.
sub _thaw
{
    my ($self) = @_;
    $self->_thaw_held;
    unlink "$self->{disk}/filler", "$self->{shims}/hold";
    for my $node ($self->{cluster}->nodes)
    {
        $node->host->ssh_thaw if $node->host->ssh_pid;
    }
    eval { $self->_release } if $self->{session};
    return;
}

#
# The faults.  Each returns what lifts it, or undef.
#

sub _worker
{
    my ($self) = @_;
    return $self->_sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'follow_primary'") || die "there is no worker\n";
}

sub _fault_cancel
{
    my ($self, $node, $point, $job) = @_;
    $self->_sql("SELECT follow_primary_cancel($job)") eq 't' or die "the job cannot be cancelled\n";
    return;
}

sub _fault_terminate
{
    my ($self) = @_;
    my $pid = $self->_worker;
    $self->_sql("SELECT pg_terminate_backend($pid)");
    return;
}

sub _await_primary
{
    my ($self, $node) = @_;
    $self->{session} = undef;
    wait_until('the primary takes connections', sub { ($node->psql('SELECT 1', timeout => 10))[0] == 0 }, 20);
    return;
}

sub _fault_kill
{
    my ($self, $node) = @_;
    my $pid = $self->_worker;
    kill 'KILL', $pid;
    wait_until('the worker is gone', sub { !process_alive($pid) }, 10);
    # The postmaster ends all other sessions, too.
    wait_until('the primary restarts', sub { !eval { $self->_sql('SELECT 1'); 1 } }, 10);
    $self->_await_primary($self->{primary});
    return;
}

sub _fault_immediate
{
    my ($self) = @_;
    $self->{primary}->stop('immediate');
    $self->{primary}->start;
    $self->_await_primary($self->{primary});
    return;
}

sub _fault_cut
{
    my ($self, $node) = @_;
    $node->host->ssh_cut;
    return;
}

sub _fault_power
{
    my ($self, $node) = @_;
    kill 'STOP', my @remote = $self->_remote_processes;
    $node->host->ssh_kill;
    $node->kill9;
    kill 'KILL', @remote;
    return sub { $node->host->ssh_start };
}

# For a while. In the middle of a step for longer than the job waits.
sub _fault_freeze
{
    my ($self, $node, $point) = @_;
    $node->host->ssh_freeze;
    return $self->_for_a_while($point, sub { $node->host->ssh_thaw });
}

sub _for_a_while
{
    my ($self, $point, $lift) = @_;
    return $lift if $point eq 'middle';
    $self->_release;
    $self->_thaw_held;
    sleep 1.5;
    $lift->();
    return;
}

# Drops the packets between the node and the primary for as long: those of the SSH
# connection, of the node's SQL port, and of the connections that the node opened.
sub _fault_network
{
    my ($self, $node, $point) = @_;
    my $address = $node->address;
    my $primary = $self->{primary}->address;
    my %pid = map { $_ => 1 } process_tree($node->pid // ()), $self->_remote_processes;
    my @ports;
    for my $connection (split /\n/, run_ok([ 'ss', '-Htnp' ]))
    {
        my ($port) = $connection =~ /:(\d+) +\Q$primary\E:\d+ / or next;
        push @ports, $port if grep { $pid{$_} } $connection =~ /pid=(\d+)/g;
    }
    my $lift = sub {
        FollowPrimary::Network::pass_port($_) for @ports;
        FollowPrimary::Network::pass_address($address);
    };
    FollowPrimary::Network::lose_port($_) for @ports;
    FollowPrimary::Network::lose_address($address);
    $self->_thaw_held if $point eq 'middle';
    return $self->_for_a_while($point, $lift);
}

# Fills the small file system of these tests, and no other.
sub _fault_full
{
    my ($self, $node) = @_;
    my $file = "$self->{disk}/filler";
    my (undef, $kb) = split ' ', (split /\n/, run_ok([ 'df', '-Pk', $self->{disk} ]))[1];
    die "the node's disk has $kb kB, which is not what was mounted\n" if $kb != DISK_MB * 1024;
    run_command([ 'sh', '-c', 'head -c "$1" /dev/zero >"$2"', 'sh', DISK_MB * 1024 * 1024, $file ]);
    return sub { unlink $file };
}

sub _fault_failover
{
    my ($self, $node, $point, $job) = @_;
    my (undef, $new, $third) = $self->{cluster}->nodes;
    $self->_third_knows($third, $job);
    # Before our session lets go of the lock.
    $new->kill9;
    $self->{session} = undef;
    $third->promote;
    $self->{primary} = $third;
    return;
}

# A switchover: the primary is stopped in good order and follows the third.
sub _fault_demote
{
    my ($self, $node, $point, $job) = @_;
    my (undef, $new, $third) = $self->{cluster}->nodes;
    $self->_third_knows($third, $job);
    $new->stop('fast');
    $self->{session} = undef;
    $third->promote;
    $new->follow($third);
    $new->start;
    $self->{primary} = $third;
    return;
}

sub _third_knows
{
    my ($self, $third, $job) = @_;
    $third->poll_query_until("SELECT count(*) FROM follow_primary_job WHERE id = $job", '1', 10)
        or die "the third node has not got the job's row\n";
    return;
}

#
# The checks
#

# What the row and the view say of the job, at once.
sub _check_row
{
    my ($self, $primary, $job, $fault, $said) = @_;
    my ($state, $code, $error, $hint) = split /\|/,
        $primary->safe_psql("SELECT state, error_code, replace(error, E'\\n', ' '), hint FROM follow_primary_job WHERE id = $job"), -1;
    my $shown = $primary->safe_psql("SELECT state FROM follow_primary_progress WHERE id = $job");
    my $expected =
          $fault =~ /^(?:kill|immediate|failover)$/ ? qr/^(?:running|interrupted)$/
        : $fault eq 'cancel'                        ? qr/^cancelled$/
        : $fault eq 'terminate'                     ? qr/^interrupted$/
        : $fault eq 'demote'                        ? qr/^(?:interrupted|succeeded)$/
        : $fault eq 'power'                         ? qr/^(?:failed|succeeded|skipped)$/
        :                                             qr/^(?:failed|succeeded)$/;

    die "the row says $state ($error); the caller was told: $said\n" if $state !~ $expected;
    die "follow_primary_progress shows $shown, the row says $state\n"
        if $shown ne ($state eq 'running' ? 'interrupted' : $state);
    if ($state =~ /^(?:failed|cancelled|interrupted)$/)
    {
        die "the row lacks a part: state $state, error_code $code, error $error, hint $hint\n"
            if grep { $_ eq '' } $code, $error, $hint;
        my $open = $primary->safe_psql("SELECT count(*) FROM follow_primary_step WHERE job_id = $job AND state = 'running'");
        die "$open steps of the ended job still say running\n" if $open;
        die "the caller was not told: $said\n" if $said !~ /ERROR|FATAL|terminat|connection/;
    }
    return $state;
}

# What runs on the nodes for a job: it came by SSH, and is no server of ours.
sub _remote_processes
{
    my ($self) = @_;
    my %server = map { $_ => 1 } map { $_->pid // () } $self->{cluster}->nodes;
    my @remote;
    for my $pid (our_processes())
    {
        my $environ = eval { slurp("/proc/$pid/environ") } // next;
        next if $environ !~ /(?:\A|\0)SSH_CONNECTION=/;
        my $stat = eval { slurp("/proc/$pid/stat") } // next;
        my ($parent) = $stat =~ /.*\) \S (\d+)/s;
        next if $server{$pid} || $server{$parent};
        # pg_ctl's own shell, and servers that come up or go down
        my $exe = readlink("/proc/$pid/exe") // next;
        next if $exe =~ m{/postgres$};
        push @remote, $pid;
    }
    return @remote;
}

sub _check_processes
{
    my ($self, $primary, $seconds) = @_;
    eval { wait_until('no remote process is left', sub { !$self->_remote_processes }, $seconds) } or do
    {
        my @lines = map { my $l = eval { slurp("/proc/$_/cmdline") } // ''; $l =~ tr/\0/ /; "$_: " . substr($l, 0, 120) }
            $self->_remote_processes;
        die "remote processes are left: @lines\n";
    };
    $primary->poll_query_until("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'follow_primary'", '0', 5)
        or die "a worker is left\n";
    my $locks = $primary->safe_psql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid::bigint <> "
        . LOCK_CLASS);
    die "$locks advisory locks are left\n" if $locks;
    return;
}

# A slot that nobody can want yet is gone, whoever had to drop it.
sub _check_slot
{
    my ($self, $primary, $node, $job, $fault) = @_;
    my $known = $fault =~ /^(?:cancel|terminate|cut|freeze|network|full)$/ ? q{'start', 'repoint'}
        : $fault eq 'kill' ? q{'rewind', 'swap', 'configure', 'repoint'} : return;
    $primary->poll_query_until("SELECT EXISTS (SELECT FROM follow_primary_step WHERE job_id = $job AND step IN ($known))
        OR NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = '@{[ $node->slot_name ]}' AND NOT active)", 't', 10)
        or die "the slot that the job made is left\n";
    return;
}

# The node's data is the old, the new, or marked as unusable.
sub _check_data
{
    my ($self, $node, $fault, $old_rows) = @_;
    my $phase = _phase($node);

    if ($node->running)
    {
        die "the node runs, and its mark says $phase\n" if $phase =~ /^(?:rewinding|swapping|clearing|unknown|recovering)$/;
        my ($code, $out, $err) = $node->psql('SELECT count(*), sum(i) FROM t', timeout => 10);
        return if $code != 0 && $err =~ /shutting down|starting up/;
        die "the node cannot be asked: $err\n" if $code != 0;
        $self->_check_rows($node, $out, $old_rows);
        return;
    }
    if ($phase eq '')
    {
        die "the node is down without a mark: it would be taken for one that is down by itself\n"
            if $fault !~ /^(?:power|full)$/;
        return;
    }
    die "what is marked $phase can be started\n"
        if $phase =~ /^(?:rewinding|rewound|swapped)$/ && -e $node->pgdata . '/PG_VERSION' && !((stat $node->pgdata)[2] & 04);
    if ($phase =~ /^(?:stopped|recovering)$/)
    {
        $self->_check_rows($node, $self->_look_into($node), $old_rows);
    }
    return;
}

# The data has the old rows, or the new ones up to some point.
sub _check_rows
{
    my ($self, $node, $rows, $old_rows) = @_;
    chomp $rows;
    return if $rows eq $old_rows;
    my ($count, $sum) = split /\|/, $rows;
    die "the node's rows are $rows, neither old ($old_rows) nor new\n" if $count < 2000 || $sum < 2001000 || $sum > 2001000 + 2000000;
    return;
}

# Starts a copy of the node's data by itself and returns what it shows.
sub _look_into
{
    my ($self, $node) = @_;
    my $home = scratch_dir() . '/probe';
    run_ok([ 'sh', '-c', 'rm -rf "$2" && cp -a "$1" "$2" && cd "$2/data" && rm -f postmaster.pid && '
        . 'if [ -h pg_wal ]; then rm pg_wal && ln -s "$2/wal" pg_wal; fi && '
        . 'for l in pg_tblspc/*; do ln -sfn "$2/ts" "$l"; done', 'sh', $self->_home($node), $home ]);
    my $probe = FollowPrimary::Node->new(host => $node->host, name => 'probe', pgdata => "$home/data", port => $node->port,
        passfile => $node->{passfile});
    # the node's own folders may have been about to be moved away
    run_ok([ 'chmod', 'o-w', "$home/data" ]);
    unlink "$home/data/myrecovery.conf";
    unlink "$home/data/postgresql.auto.conf";
    $probe->append_conf("log_filename = 'probe.log'\ncluster_name = 'probe'\n");
    my $ok = $probe->start(fail_ok => 1);
    my $rows = $ok ? ($probe->psql('SELECT count(*), sum(i) FROM t', timeout => 10))[1] : '';
    $probe->stop('immediate') if $ok;
    run_ok([ 'rm', '-rf', $home ]);
    die "what the mark calls untouched does not start\n" if !$ok;
    return $rows;
}

# Asks by PCP: no client gets through a pgpool that has not noticed its primary's end.
sub _check_attached
{
    my ($self, $node) = @_;
    my ($code, $out, $err) = $self->{pgpool}->pcp('pcp_node_info', $node->id);
    my $status = (split ' ', $out)[2] // 'nothing';
    die "pgpool shows the node's status as $status $err\n" if $status !~ /^[12]$/;
    return;
}

# After the second call nothing is left of the first.
sub _check_end
{
    my ($self, $primary, $node, $job) = @_;
    my (undef, $new) = $self->{cluster}->nodes;

    $primary->safe_psql("INSERT INTO t VALUES ($job + 2000); INSERT INTO u VALUES ($job + 2000)");
    $primary->wait_for_catchup($node, undef, 15);
    my $rows = 'SELECT (SELECT count(*) || \' \' || sum(i) || \' \' || sum(hashtext(i::text)) FROM t), (SELECT count(*) || \' \' || sum(i) FROM u)';
    my ($here, $there) = ($primary->safe_psql($rows), $node->safe_psql($rows));
    die "rows on the primary: $here; on the node: $there\n" if $here ne $there;
    die "the node is not a standby\n" if !$node->in_recovery;
    my $name = $node->safe_psql('SHOW cluster_name');
    die "the node's configuration is another's: $name\n" if $name ne $node->name;
    _check_own_files($node);

    my $slots = $primary->safe_psql('SELECT string_agg(slot_name || CASE WHEN active THEN \'\' ELSE \' (not active)\' END, \', \' ORDER BY slot_name) FROM pg_replication_slots WHERE slot_name <> '
        . FollowPrimary::Node::quote(($self->{cluster}->nodes)[2]->slot_name));
    die "slots on the primary: $slots\n" if $slots ne $node->slot_name;
    my $own = $node->safe_psql('SELECT string_agg(slot_name, \', \') FROM pg_replication_slots');
    die "slots on the node: $own\n" if $own ne '';

    my $running = $primary->safe_psql("SELECT string_agg(id::text, ', ') FROM follow_primary_job WHERE state = 'running'");
    die "jobs still say running: $running\n" if $running ne '';
    my ($state, $code, $error, $hint) = split /\|/,
        $primary->safe_psql("SELECT state, error_code, error, hint FROM follow_primary_job WHERE id = $job"), -1;
    die "the first job's row lacks a part: state $state, error_code $code, error $error, hint $hint\n"
        if $state !~ /^(?:succeeded|skipped)$/ && grep { !defined || $_ eq '' } $code, $error, $hint;
    $self->_check_processes($primary);

    my $home = $self->_home($node);
    my @litter = grep { !m{^(?:data|wal|ts)$} && !m{^data\.follow_primary(?:\.log|/lost_wal-[^/]+)?$} }
        map { s{^\Q$home\E/}{}r } glob("$home/* $home/data.follow_primary/* $home/{data,wal,ts}/.follow_primary_*");
    push @litter, split /\n/, run_ok([ 'find', "$home/data/", '(', '-name', '*fp_tmp*', '-o', '-name', 'backup_label',
        '-o', '-name', 'recovery.signal', ')' ]);
    die "left beside the data: @litter\n" if @litter;
    $self->_check_lost_wal($node) if $node == ($self->{cluster}->nodes)[0];
    return;
}

# The former primary's rows of its own are in the WAL that was saved.
sub _check_lost_wal
{
    my ($self, $node) = @_;
    my @saved = glob $node->pgdata . '.follow_primary/lost_wal-*';
    for my $folder (@saved)
    {
        my ($code, $out) = run_command([ $node->bin('pg_waldump'), '-p', $folder, '-t', 1, '-s', $self->{fork}, '-r', 'Transaction' ]);
        return if $out =~ /desc: COMMIT/;
    }
    die "the WAL that only the node had is not saved: @saved\n";
}

#
# The table
#

sub table
{
    my @cases = @_;
    my %row;
    my @rows;
    my @columns = grep { my $f = $_; grep { $_->{fault} eq $f } @cases } @faults;

    for my $case (@cases)
    {
        my $name = sprintf '%-11s %-12s %-7s', @{$case}{qw(method step point)};
        push @rows, $name if !$row{$name};
        $row{$name}{ $case->{fault} } =
            !defined $case->{result} ? 'passed' : $case->{result} =~ /^skip/ ? 'skipped' : 'FAILED';
    }
    my $text = sprintf("%-11s %-12s %-7s", 'method', 'step', 'point') . join('', map { sprintf ' %-10s', $_ } @columns) . "\n";
    $text .= $_ . join('', map { my $c = $_; $c } map { sprintf ' %-10s', $_ } map { $_ // '' } @{ $row{$_} }{@columns}) . "\n" for @rows;

    my @failed  = grep { defined $_->{result} && $_->{result} !~ /^skip/ } @cases;
    my @skipped = grep { defined $_->{result} && $_->{result} =~ /^skip/ } @cases;
    $text .= join('', map { "FAILED $_->{method} $_->{step} $_->{point} $_->{fault}: $_->{result}\n" } @failed);
    my %why;
    push @{ $why{ $_->{result} =~ s/^skip: //r } }, $_ for @skipped;
    $text .= @{ $why{$_} } . " skipped: $_\n" for sort keys %why;
    $text .= sprintf "%d passed, %d failed\n", @cases - @failed - @skipped, scalar @failed;
    return $text;
}

1;
