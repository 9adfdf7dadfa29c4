/* sql/follow_primary--1.0.sql */

\echo Use "CREATE EXTENSION follow_primary" to load this file. \quit

/*
 * Jobs and their steps: written by the workers alone, readable by pg_monitor
 * on every node of the cluster.
 */
CREATE TABLE @extschema@.follow_primary_job (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    node_host text NOT NULL,
    node_port integer NOT NULL,
    node_pgdata text,
    node_id integer,
    primary_host text,
    primary_port integer,
    slot_name text,
    requested_method text NOT NULL,
    method text,
    reason text,
    state text NOT NULL
        CHECK (state IN ('running', 'succeeded', 'skipped', 'failed', 'cancelled', 'interrupted')),
    step text,
    started_at timestamptz NOT NULL,
    finished_at timestamptz,
    error_code text,
    error text,
    hint text,
    timeline bigint,
    fork_lsn pg_lsn,
    lost_wal_bytes bigint,
    lost_transactions bigint,
    lost_wal_dir text,
    bytes_done bigint,
    bytes_total bigint,
    worker_pid integer
);
CREATE INDEX ON @extschema@.follow_primary_job (node_host, node_port, id);

COMMENT ON TABLE @extschema@.follow_primary_job IS 'one row per call of follow_primary(): what was asked, decided, done and lost';
COMMENT ON COLUMN @extschema@.follow_primary_job.id IS 'the number that follow_primary() returned';
COMMENT ON COLUMN @extschema@.follow_primary_job.node_host IS 'host of the node that is to follow, as given';
COMMENT ON COLUMN @extschema@.follow_primary_job.node_port IS 'port of PostgreSQL on the node';
COMMENT ON COLUMN @extschema@.follow_primary_job.node_pgdata IS 'data directory of the node';
COMMENT ON COLUMN @extschema@.follow_primary_job.node_id IS 'pgpool''s id of the node; null: nothing to attach';
COMMENT ON COLUMN @extschema@.follow_primary_job.primary_host IS 'the name under which the node reaches this primary';
COMMENT ON COLUMN @extschema@.follow_primary_job.primary_port IS 'the port under which the node reaches this primary';
COMMENT ON COLUMN @extschema@.follow_primary_job.slot_name IS 'the physical replication slot of the node on this primary';
COMMENT ON COLUMN @extschema@.follow_primary_job.requested_method IS 'the method argument of the call: auto, repoint, rewind or basebackup';
COMMENT ON COLUMN @extschema@.follow_primary_job.method IS 'the method that was taken: none, repoint, rewind, basebackup, skip or refuse';
COMMENT ON COLUMN @extschema@.follow_primary_job.reason IS 'why that method';
COMMENT ON COLUMN @extschema@.follow_primary_job.state IS 'running, succeeded, skipped, failed, cancelled or interrupted; a row that says running while no worker has it is shown as interrupted by follow_primary_progress';
COMMENT ON COLUMN @extschema@.follow_primary_job.step IS 'the step that runs, or the last one that ran';
COMMENT ON COLUMN @extschema@.follow_primary_job.started_at IS 'when the worker began';
COMMENT ON COLUMN @extschema@.follow_primary_job.finished_at IS 'when the job ended';
COMMENT ON COLUMN @extschema@.follow_primary_job.error_code IS 'SQLSTATE of the error that ended the job';
COMMENT ON COLUMN @extschema@.follow_primary_job.error IS 'the error, with its detail';
COMMENT ON COLUMN @extschema@.follow_primary_job.hint IS 'what to do about the error; of a job that has succeeded: how to remove the replaced data that it kept';
COMMENT ON COLUMN @extschema@.follow_primary_job.timeline IS 'the timeline of the primary that the node was to follow';
COMMENT ON COLUMN @extschema@.follow_primary_job.fork_lsn IS 'where the node''s history parted from the primary''s, when it did';
COMMENT ON COLUMN @extschema@.follow_primary_job.lost_wal_bytes IS 'bytes of WAL after the fork that only the node had';
COMMENT ON COLUMN @extschema@.follow_primary_job.lost_transactions IS 'transactions committed in that WAL; null where not all of it was there to be counted';
COMMENT ON COLUMN @extschema@.follow_primary_job.lost_wal_dir IS 'the directory on the node where that WAL is kept';
COMMENT ON COLUMN @extschema@.follow_primary_job.bytes_done IS 'bytes copied so far by a rewind or a base backup';
COMMENT ON COLUMN @extschema@.follow_primary_job.bytes_total IS 'bytes to copy, as estimated by the tool that copies';
COMMENT ON COLUMN @extschema@.follow_primary_job.worker_pid IS 'process id of the job''s background worker on the primary';

CREATE TABLE @extschema@.follow_primary_step (
    job_id bigint NOT NULL REFERENCES @extschema@.follow_primary_job ON DELETE CASCADE,
    seq integer NOT NULL,
    step text NOT NULL,
    state text NOT NULL
        CHECK (state IN ('running', 'succeeded', 'failed', 'cancelled', 'interrupted')),
    started_at timestamptz NOT NULL,
    finished_at timestamptz,
    detail text,
    PRIMARY KEY (job_id, seq)
);

COMMENT ON TABLE @extschema@.follow_primary_step IS 'the steps of each job, in order';
COMMENT ON COLUMN @extschema@.follow_primary_step.job_id IS 'the job';
COMMENT ON COLUMN @extschema@.follow_primary_step.seq IS 'the step''s place in the job, from 1';
COMMENT ON COLUMN @extschema@.follow_primary_step.step IS 'the step''s name';
COMMENT ON COLUMN @extschema@.follow_primary_step.state IS 'running, succeeded, failed, cancelled or interrupted';
COMMENT ON COLUMN @extschema@.follow_primary_step.started_at IS 'when the step began';
COMMENT ON COLUMN @extschema@.follow_primary_step.finished_at IS 'when the step ended';
COMMENT ON COLUMN @extschema@.follow_primary_step.detail IS 'what the step found or did';

/*
 * The nodes: what differs from node to node. A column named as a setting
 * (follow_primary.NAME) overrides that setting for the node; null leaves it.
 */
CREATE TABLE @extschema@.follow_primary_node (
    host text NOT NULL
        CHECK (host ~ '^[A-Za-z0-9_:][A-Za-z0-9_.:%-]*$' AND length(host) <= 255),
    port integer NOT NULL DEFAULT 5432 CHECK (port BETWEEN 1 AND 65535),
    node_id integer CHECK (node_id BETWEEN 0 AND 127),
    pgdata text CHECK (pgdata ~ '^/' AND pgdata ~ '[^/.]' AND octet_length(pgdata) < 1024 AND pgdata !~ '[[:cntrl:]]'),
    config_file text CHECK (config_file ~ '^/' AND config_file !~ '[[:cntrl:]]'),
    slot_name text CHECK (slot_name ~ '^[a-z0-9_]{1,63}$'),
    application_name text CHECK (application_name ~ '^[ -~]{1,63}$'),
    ssh_user text CHECK (ssh_user !~ '[[:cntrl:]]'),
    ssh_port integer CHECK (ssh_port BETWEEN 1 AND 65535),
    ssh_key_file text CHECK (ssh_key_file ~ '^(/|~/|$)' AND ssh_key_file !~ '[[:cntrl:]]'),
    ssh_known_hosts_file text CHECK (ssh_known_hosts_file ~ '^(/|~/)' AND ssh_known_hosts_file !~ '[[:cntrl:]]'),
    ssh_host_key_checking text CHECK (ssh_host_key_checking IN ('strict', 'accept-new', 'off')),
    connect_timeout integer CHECK (connect_timeout BETWEEN 1 AND 3600),
    node_bin_dir text CHECK (node_bin_dir ~ '^(/|$)' AND node_bin_dir !~ '[[:cntrl:]]'),
    node_start_command text CHECK (node_start_command !~ '[[:cntrl:]]'),
    node_stop_command text CHECK (node_stop_command !~ '[[:cntrl:]]'),
    node_reload_command text CHECK (node_reload_command !~ '[[:cntrl:]]'),
    primary_host text CHECK (primary_host ~ '^([A-Za-z0-9_:][A-Za-z0-9_.:%-]*)?$' AND length(primary_host) <= 255),
    replication_user text CHECK (replication_user <> '' AND replication_user !~ '[[:cntrl:]]'),
    -- key=value as libpq reads it; which keys there are is left to the call
    replication_options text CHECK (replication_options !~ '[[:cntrl:]]' AND replication_options ~ (
        '^ *((?!(host|hostaddr|port|user|dbname|replication|password|sslpassword) *=)[a-z0-9_]+ *= *'
        '(''([^''\\]|\\.)*'' *|([^ ''\\]|\\.)([^ \\]|\\.)*( +|$)|$))*$')),
    passfile text CHECK (passfile ~ '^(/|~/|$)' AND passfile !~ '[[:cntrl:]]'),
    rewind_user text CHECK (rewind_user <> '' AND rewind_user !~ '[[:cntrl:]]'),
    rewind_database text CHECK (rewind_database <> '' AND rewind_database !~ '[[:cntrl:]]'),
    recovery_file text CHECK (recovery_file <> '' AND recovery_file !~ '[[:cntrl:]]'),
    restore_command text CHECK (restore_command !~ '[[:cntrl:]]'),
    archive_dir text CHECK (archive_dir ~ '^(/|$)' AND archive_dir !~ '[[:cntrl:]]'),
    keep_old_data text CHECK (keep_old_data IN ('until_proven', 'always')),
    copy_in_place boolean,
    pcp_host text CHECK (pcp_host ~ '^([A-Za-z0-9_:][A-Za-z0-9_.:%-]*)?$' AND length(pcp_host) <= 255),
    pcp_port integer CHECK (pcp_port BETWEEN 1 AND 65535),
    pcp_user text CHECK (pcp_user <> '' AND pcp_user !~ '[[:cntrl:]]'),
    pcp_pass_file text CHECK (pcp_pass_file ~ '^(/|~/)' AND pcp_pass_file !~ '[[:cntrl:]]'),
    stop_timeout integer CHECK (stop_timeout BETWEEN 1 AND 86400),
    start_timeout integer CHECK (start_timeout BETWEEN 1 AND 86400),
    verify_timeout integer CHECK (verify_timeout BETWEEN 1 AND 86400),
    progress_timeout integer CHECK (progress_timeout BETWEEN 1 AND 86400),
    PRIMARY KEY (host, port)
);
CREATE UNIQUE INDEX ON @extschema@.follow_primary_node (lower(host), port);
SELECT pg_catalog.pg_extension_config_dump('@extschema@.follow_primary_node', '');

COMMENT ON TABLE @extschema@.follow_primary_node IS 'what differs from node to node; arguments of follow_primary() win over it, it wins over the settings, and null leaves a setting in force';
COMMENT ON COLUMN @extschema@.follow_primary_node.host IS 'the node''s host, as follow_primary() is called with; upper and lower case are the same';
COMMENT ON COLUMN @extschema@.follow_primary_node.port IS 'the node''s PostgreSQL port';
COMMENT ON COLUMN @extschema@.follow_primary_node.node_id IS 'pgpool''s id of the node; null: nothing is attached';
COMMENT ON COLUMN @extschema@.follow_primary_node.pgdata IS 'the node''s data directory; null: that of the server that runs on the port';
COMMENT ON COLUMN @extschema@.follow_primary_node.config_file IS 'the node''s postgresql.conf; null: it is found, in the data directory, by the last start, or where Debian has it';
COMMENT ON COLUMN @extschema@.follow_primary_node.slot_name IS 'the node''s replication slot; null: the host in lower case, with _ for all but a-z and 0-9';
COMMENT ON COLUMN @extschema@.follow_primary_node.application_name IS 'the node''s application_name in primary_conninfo; null: what the node uses now, else its host';
COMMENT ON COLUMN @extschema@.follow_primary_node.ssh_user IS 'user to log in to nodes as; overrides follow_primary.ssh_user';
COMMENT ON COLUMN @extschema@.follow_primary_node.ssh_port IS 'port of the nodes'' SSH servers; overrides follow_primary.ssh_port';
COMMENT ON COLUMN @extschema@.follow_primary_node.ssh_key_file IS 'private key to log in to nodes with; overrides follow_primary.ssh_key_file';
COMMENT ON COLUMN @extschema@.follow_primary_node.ssh_known_hosts_file IS 'file of the host keys that are trusted; overrides follow_primary.ssh_known_hosts_file';
COMMENT ON COLUMN @extschema@.follow_primary_node.ssh_host_key_checking IS 'what to do about a node''s SSH host key; overrides follow_primary.ssh_host_key_checking';
COMMENT ON COLUMN @extschema@.follow_primary_node.connect_timeout IS 'time limit for connecting to a node by SSH, or to pgpool (seconds); overrides follow_primary.connect_timeout';
COMMENT ON COLUMN @extschema@.follow_primary_node.node_bin_dir IS 'directory of PostgreSQL''s programs on the nodes; overrides follow_primary.node_bin_dir';
COMMENT ON COLUMN @extschema@.follow_primary_node.node_start_command IS 'command that starts PostgreSQL on a node; overrides follow_primary.node_start_command';
COMMENT ON COLUMN @extschema@.follow_primary_node.node_stop_command IS 'command that stops PostgreSQL on a node; overrides follow_primary.node_stop_command';
COMMENT ON COLUMN @extschema@.follow_primary_node.node_reload_command IS 'command that makes PostgreSQL on a node read its settings again; overrides follow_primary.node_reload_command';
COMMENT ON COLUMN @extschema@.follow_primary_node.primary_host IS 'the name under which nodes reach this server; overrides follow_primary.primary_host';
COMMENT ON COLUMN @extschema@.follow_primary_node.replication_user IS 'role that nodes replicate as; overrides follow_primary.replication_user';
COMMENT ON COLUMN @extschema@.follow_primary_node.replication_options IS 'further options for primary_conninfo, such as sslmode=verify-full; overrides follow_primary.replication_options';
COMMENT ON COLUMN @extschema@.follow_primary_node.passfile IS 'password file on the node, for replication and rewind; overrides follow_primary.passfile';
COMMENT ON COLUMN @extschema@.follow_primary_node.rewind_user IS 'role for pg_rewind on the primary, and for asking a node about itself; overrides follow_primary.rewind_user';
COMMENT ON COLUMN @extschema@.follow_primary_node.rewind_database IS 'database that pg_rewind and the questions to a node connect to; overrides follow_primary.rewind_database';
COMMENT ON COLUMN @extschema@.follow_primary_node.recovery_file IS 'file on the node that holds the settings of a standby; overrides follow_primary.recovery_file';
COMMENT ON COLUMN @extschema@.follow_primary_node.restore_command IS 'restore_command to write for nodes; overrides follow_primary.restore_command';
COMMENT ON COLUMN @extschema@.follow_primary_node.archive_dir IS 'directory of the WAL archive as the nodes see it; overrides follow_primary.archive_dir';
COMMENT ON COLUMN @extschema@.follow_primary_node.keep_old_data IS 'how long a data directory stays that was replaced by a copy; overrides follow_primary.keep_old_data';
COMMENT ON COLUMN @extschema@.follow_primary_node.copy_in_place IS 'removes a node''s data before it is copied anew, where there is no room for both; overrides follow_primary.copy_in_place';
COMMENT ON COLUMN @extschema@.follow_primary_node.pcp_host IS 'host of pgpool''s control port; overrides follow_primary.pcp_host';
COMMENT ON COLUMN @extschema@.follow_primary_node.pcp_port IS 'pgpool''s control port; overrides follow_primary.pcp_port';
COMMENT ON COLUMN @extschema@.follow_primary_node.pcp_user IS 'user for pgpool''s control port; overrides follow_primary.pcp_user';
COMMENT ON COLUMN @extschema@.follow_primary_node.pcp_pass_file IS 'file of passwords for pgpool''s control port; overrides follow_primary.pcp_pass_file';
COMMENT ON COLUMN @extschema@.follow_primary_node.stop_timeout IS 'time limit for stopping PostgreSQL on a node (seconds); overrides follow_primary.stop_timeout';
COMMENT ON COLUMN @extschema@.follow_primary_node.start_timeout IS 'time limit for starting PostgreSQL on a node (seconds); overrides follow_primary.start_timeout';
COMMENT ON COLUMN @extschema@.follow_primary_node.verify_timeout IS 'time limit for the proof that a node follows (seconds); overrides follow_primary.verify_timeout';
COMMENT ON COLUMN @extschema@.follow_primary_node.progress_timeout IS 'time without any progress after which a rewind or a copy is ended (seconds); overrides follow_primary.progress_timeout';

/*
 * The worker of job N holds the advisory lock (1718645615, N) from its first
 * moment to its last, with an objsubid that pg_advisory_lock() does not have: a
 * job that says "running" and has no holder was interrupted. Advisory locks live
 * on the primary alone, so a standby can only tell by the row.
 *
 * Whoever can create objects in this schema must not get at those who read the
 * view: every operator and function meets exactly the types that it is defined
 * for, so that the one of pg_catalog is the one that is found.
 */
CREATE VIEW @extschema@.follow_primary_progress AS
SELECT j.id, j.node_host, j.node_port, j.method,
       s.state, j.step,
       CASE WHEN s.state = 'succeeded' THEN 100.0
            WHEN j.bytes_total > 0
            THEN pg_catalog.round(100.0 * least(j.bytes_done, j.bytes_total)::numeric / j.bytes_total::numeric, 1)
       END AS percent,
       j.bytes_done, j.bytes_total,
       t.elapsed,
       CASE WHEN c.copying > 0.0 AND j.bytes_done > 0
            THEN pg_catalog.pg_size_pretty((j.bytes_done::numeric / c.copying)::bigint) || '/s' END AS rate,
       CASE WHEN s.state = 'running' AND c.copying > 0.0 AND j.bytes_done > 0 AND j.bytes_total >= j.bytes_done
            THEN pg_catalog.make_interval(secs => pg_catalog.round((j.bytes_total - j.bytes_done)::numeric * c.copying / j.bytes_done::numeric, 0)::double precision)
       END AS eta
FROM (SELECT DISTINCT ON (pg_catalog.lower(node_host), node_port) *
      FROM @extschema@.follow_primary_job
      ORDER BY pg_catalog.lower(node_host), node_port, (state = 'running') DESC, id DESC) j
CROSS JOIN LATERAL (
    -- Its worker holds a lock on the primary; on a standby a newer timeline
    -- tells that that server is not the primary any more.
    SELECT CASE WHEN j.state = 'running' AND
                CASE WHEN pg_catalog.pg_is_in_recovery()
                     THEN j.timeline < greatest(
                          (SELECT timeline_id FROM pg_catalog.pg_control_checkpoint())::bigint,
                          (SELECT min_recovery_end_timeline FROM pg_catalog.pg_control_recovery())::bigint,
                          (SELECT received_tli FROM pg_catalog.pg_stat_wal_receiver)::bigint)
                     ELSE NOT EXISTS (SELECT FROM pg_catalog.pg_locks l
                                 WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 3::smallint
                                   AND l.database = (SELECT oid FROM pg_catalog.pg_database
                                                     WHERE datname = pg_catalog.current_database())
                                   AND l.classid = 1718645615::oid AND l.objid::bigint = j.id % 2147483648)
                END
                THEN 'interrupted' ELSE j.state END AS state) s
CROSS JOIN LATERAL (
    SELECT coalesce(j.finished_at, pg_catalog.clock_timestamp()) - j.started_at AS elapsed) t
LEFT JOIN LATERAL (
    SELECT extract(epoch FROM coalesce(p.finished_at, pg_catalog.clock_timestamp()) - p.started_at)::numeric AS copying
    FROM @extschema@.follow_primary_step p
    WHERE p.job_id = j.id AND p.step IN ('rewind', 'copy')
    ORDER BY p.seq DESC LIMIT 1) c ON true;

COMMENT ON VIEW @extschema@.follow_primary_progress IS 'the running, else the latest job of each node: step, percent, elapsed, rate, eta';
COMMENT ON COLUMN @extschema@.follow_primary_progress.id IS 'the job, as in follow_primary_job';
COMMENT ON COLUMN @extschema@.follow_primary_progress.node_host IS 'host of the node';
COMMENT ON COLUMN @extschema@.follow_primary_progress.node_port IS 'port of PostgreSQL on the node';
COMMENT ON COLUMN @extschema@.follow_primary_progress.method IS 'the method that is taken';
COMMENT ON COLUMN @extschema@.follow_primary_progress.state IS 'as in follow_primary_job, but interrupted where the row says running and no worker has the job';
COMMENT ON COLUMN @extschema@.follow_primary_progress.step IS 'the step that runs, or the last one that ran';
COMMENT ON COLUMN @extschema@.follow_primary_progress.percent IS 'how much of the copying is done; 100 when the job has succeeded';
COMMENT ON COLUMN @extschema@.follow_primary_progress.bytes_done IS 'bytes copied so far';
COMMENT ON COLUMN @extschema@.follow_primary_progress.bytes_total IS 'bytes to copy';
COMMENT ON COLUMN @extschema@.follow_primary_progress.elapsed IS 'how long the job has run, or ran';
COMMENT ON COLUMN @extschema@.follow_primary_progress.rate IS 'average speed of the copying';
COMMENT ON COLUMN @extschema@.follow_primary_progress.eta IS 'how much longer the copying takes at that speed';

CREATE FUNCTION @extschema@.follow_primary(
    node_host text,
    node_port integer DEFAULT 5432,
    node_pgdata text DEFAULT NULL,
    node_id integer DEFAULT NULL,
    primary_host text DEFAULT NULL,
    primary_port integer DEFAULT NULL,
    method text DEFAULT 'auto',
    when_down text DEFAULT 'skip',
    slot_name text DEFAULT NULL,
    application_name text DEFAULT NULL,
    wait boolean DEFAULT true)
RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'follow_primary';
COMMENT ON FUNCTION @extschema@.follow_primary(text, integer, text, integer, text, integer, text, text, text, text, boolean)
    IS 'makes a node follow this primary; returns the job''s id';

CREATE FUNCTION @extschema@.follow_primary_plan(
    node_host text,
    node_port integer DEFAULT 5432,
    node_pgdata text DEFAULT NULL,
    node_id integer DEFAULT NULL,
    primary_host text DEFAULT NULL,
    primary_port integer DEFAULT NULL,
    method text DEFAULT 'auto',
    when_down text DEFAULT 'skip',
    slot_name text DEFAULT NULL,
    application_name text DEFAULT NULL)
RETURNS TABLE (method text, reason text, steps text[])
LANGUAGE c VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'follow_primary_plan';
COMMENT ON FUNCTION @extschema@.follow_primary_plan(text, integer, text, integer, text, integer, text, text, text, text)
    IS 'tells what follow_primary() would do and why; changes nothing anywhere';

CREATE FUNCTION @extschema@.follow_primary_cancel(job_id bigint)
RETURNS boolean
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'follow_primary_cancel';
COMMENT ON FUNCTION @extschema@.follow_primary_cancel(bigint)
    IS 'asks a running job to end; false when it is not running';

CREATE FUNCTION @extschema@.follow_primary_wait(job_id bigint, timeout interval DEFAULT NULL)
RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'follow_primary_wait';
COMMENT ON FUNCTION @extschema@.follow_primary_wait(bigint, interval)
    IS 'waits until a job has ended or the timeout has passed; returns the job''s state';

/* Nothing for PUBLIC; pg_monitor reads. */
REVOKE ALL ON TABLE @extschema@.follow_primary_job, @extschema@.follow_primary_step,
    @extschema@.follow_primary_node, @extschema@.follow_primary_progress FROM PUBLIC;
REVOKE ALL ON FUNCTION
    @extschema@.follow_primary(text, integer, text, integer, text, integer, text, text, text, text, boolean),
    @extschema@.follow_primary_plan(text, integer, text, integer, text, integer, text, text, text, text),
    @extschema@.follow_primary_cancel(bigint),
    @extschema@.follow_primary_wait(bigint, interval) FROM PUBLIC;
GRANT SELECT ON @extschema@.follow_primary_job, @extschema@.follow_primary_step,
    @extschema@.follow_primary_progress TO pg_monitor;
