/* sql/follow_primary--1.0--1.1.sql */

\echo Use "ALTER EXTENSION follow_primary UPDATE TO '1.1'" to load this file. \quit

ALTER TABLE @extschema@.follow_primary_job
    ADD COLUMN token uuid,
    ADD COLUMN slot_made boolean NOT NULL DEFAULT false,
    ADD COLUMN lost_counted boolean,
    ADD COLUMN cpu_primary interval,
    ADD COLUMN cpu_node interval;
COMMENT ON COLUMN @extschema@.follow_primary_job.token IS 'what only this job has: its mark on the node carries it';
COMMENT ON COLUMN @extschema@.follow_primary_job.slot_made IS 'the job made the node''s replication slot, which was not there before';
COMMENT ON COLUMN @extschema@.follow_primary_job.lost_counted IS 'are lost_wal_bytes and lost_transactions final? false: what is lost is saved, but not counted yet; null: the job did not come so far';
COMMENT ON COLUMN @extschema@.follow_primary_job.cpu_primary IS 'processor time of the job''s worker on the primary, when it has ended';
COMMENT ON COLUMN @extschema@.follow_primary_job.cpu_node IS 'processor time of what the job ran on the node, but for its sshd and servers; null: it was not connected to, or is not known';

/*
 * Whatever the number of old jobs, a node's running or latest one is found at once,
 * and so are the one that gave it its slot, and those that say that they run.
 */
CREATE INDEX follow_primary_job_of_node ON @extschema@.follow_primary_job
    (pg_catalog.lower(node_host), node_port, (state = 'running'), id);
CREATE INDEX follow_primary_job_with_slot ON @extschema@.follow_primary_job (pg_catalog.lower(node_host), node_port, id)
    WHERE slot_name IS NOT NULL AND state IN ('running', 'succeeded');
CREATE INDEX follow_primary_job_running ON @extschema@.follow_primary_job (id) WHERE state = 'running';

ALTER TABLE @extschema@.follow_primary_step
    DROP CONSTRAINT follow_primary_step_state_check,
    ADD CONSTRAINT follow_primary_step_state_check
        CHECK (state IN ('running', 'streaming', 'succeeded', 'failed', 'cancelled', 'interrupted'));
COMMENT ON COLUMN @extschema@.follow_primary_step.state IS 'running, succeeded, failed, cancelled or interrupted; of the step verify also streaming, which the node has to show as its proof';

/* As the setting judges. A row from before that has such a name stays, and is refused when it is used. */
ALTER TABLE @extschema@.follow_primary_node
    ADD CONSTRAINT follow_primary_node_recovery_file_is_own CHECK (
        recovery_file !~ '(^|/)(\.{0,2}|postgresql(\.auto)?\.conf|pg_(hba|ident)\.conf|(standby|recovery)\.signal|recovery\.conf|backup_label|tablespace_map|backup_manifest|PG_VERSION|postmaster\.(pid|opts)|current_logfiles)$'
        AND recovery_file !~ '(^|/)\.\./'
        AND recovery_file !~ '^(\./+)*(base|global|pg_[^/]*)/') NOT VALID;

/* Which levels and options there are depends on the server: that is left to the call. */
ALTER TABLE @extschema@.follow_primary_node
    ADD COLUMN copy_command text CHECK (copy_command !~ '[[:cntrl:]]'),
    ADD COLUMN copy_max_rate integer CHECK (copy_max_rate = 0 OR copy_max_rate BETWEEN 32 AND 1048576),
    ADD COLUMN copy_compression text CHECK (copy_compression ~ '^((gzip|lz4|zstd)(:[a-z0-9=,-]+)?)?$');
COMMENT ON COLUMN @extschema@.follow_primary_node.copy_command IS 'command that makes a copy on a node; overrides follow_primary.copy_command';
COMMENT ON COLUMN @extschema@.follow_primary_node.copy_max_rate IS 'limits what a copy takes of the network, in kB a second; overrides follow_primary.copy_max_rate';
COMMENT ON COLUMN @extschema@.follow_primary_node.copy_compression IS 'how the primary compresses what it sends for a copy; overrides follow_primary.copy_compression';

/*
 * Both functions get the argument attach. Whoever could run them before can run
 * them after.
 */
CREATE TEMPORARY TABLE follow_primary_grant ON COMMIT DROP AS
SELECT p.proname, a.grantor, a.grantee, a.is_grantable
FROM pg_catalog.pg_proc p, pg_catalog.aclexplode(p.proacl) a
WHERE p.oid IN (
    '@extschema@.follow_primary(text, integer, text, integer, text, integer, text, text, text, text, boolean)'::pg_catalog.regprocedure::pg_catalog.oid,
    '@extschema@.follow_primary_plan(text, integer, text, integer, text, integer, text, text, text, text)'::pg_catalog.regprocedure::pg_catalog.oid)
  AND a.grantee <> p.proowner;

DROP FUNCTION @extschema@.follow_primary(text, integer, text, integer, text, integer, text, text, text, text, boolean);
DROP FUNCTION @extschema@.follow_primary_plan(text, integer, text, integer, text, integer, text, text, text, text);

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
    wait boolean DEFAULT true,
    attach boolean DEFAULT true)
RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'follow_primary';
COMMENT ON FUNCTION @extschema@.follow_primary(text, integer, text, integer, text, integer, text, text, text, text, boolean, boolean)
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
    application_name text DEFAULT NULL,
    attach boolean DEFAULT true)
RETURNS TABLE (method text, reason text, steps text[])
LANGUAGE c VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'follow_primary_plan';
COMMENT ON FUNCTION @extschema@.follow_primary_plan(text, integer, text, integer, text, integer, text, text, text, text, boolean)
    IS 'tells what follow_primary() would do and why; changes nothing anywhere';

REVOKE ALL ON FUNCTION
    @extschema@.follow_primary(text, integer, text, integer, text, integer, text, text, text, text, boolean, boolean),
    @extschema@.follow_primary_plan(text, integer, text, integer, text, integer, text, text, text, text, boolean) FROM PUBLIC;

DO $$
DECLARE
    g record;
BEGIN
    FOR g IN SELECT p.oid::pg_catalog.regprocedure AS function, o.*
             FROM pg_temp.follow_primary_grant o
             JOIN pg_catalog.pg_proc p ON p.proname = o.proname
             WHERE p.oid IN (
                 '@extschema@.follow_primary(text, integer, text, integer, text, integer, text, text, text, text, boolean, boolean)'::pg_catalog.regprocedure::pg_catalog.oid,
                 '@extschema@.follow_primary_plan(text, integer, text, integer, text, integer, text, text, text, text, boolean)'::pg_catalog.regprocedure::pg_catalog.oid)
    LOOP
        EXECUTE pg_catalog.format('GRANT EXECUTE ON FUNCTION %s TO %s%s', g.function,
            CASE WHEN g.grantee = 0::oid THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(g.grantee)) END,
            CASE WHEN g.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END);
    END LOOP;
END
$$;
DROP TABLE pg_temp.follow_primary_grant;

CREATE FUNCTION @extschema@.follow_primary_all(
    method text DEFAULT 'auto',
    when_down text DEFAULT 'skip',
    attach boolean DEFAULT true)
RETURNS TABLE (job_id bigint, node_host text, node_port integer, state text, method text, message text, hint text, elapsed interval)
LANGUAGE c VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'follow_primary_all';
COMMENT ON FUNCTION @extschema@.follow_primary_all(text, text, boolean)
    IS 'makes every node of follow_primary_node follow this primary, side by side; returns a row for each';
REVOKE ALL ON FUNCTION @extschema@.follow_primary_all(text, text, boolean) FROM PUBLIC;

/*
 * The view's snapshot is older than its look at the locks, so a job that ends in
 * between has neither a final state nor a worker there. This function looks at the
 * row again.
 */
CREATE FUNCTION @extschema@.follow_primary_interrupted(job_id bigint)
RETURNS boolean
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'follow_primary_interrupted';
COMMENT ON FUNCTION @extschema@.follow_primary_interrupted(bigint)
    IS 'true on the primary if a job''s row says running or interrupted at this moment, and no worker has the job';
REVOKE ALL ON FUNCTION @extschema@.follow_primary_interrupted(bigint) FROM PUBLIC;

/* The worker of a job holds its lock from its first moment to its last: see 1.0. */
CREATE OR REPLACE VIEW @extschema@.follow_primary_progress AS
-- from node to node by the index, past all of a node's jobs in one step
WITH RECURSIVE node AS (
    (SELECT pg_catalog.lower(node_host) AS host, node_port AS port
     FROM @extschema@.follow_primary_job
     ORDER BY pg_catalog.lower(node_host), node_port LIMIT 1)
    UNION ALL
    SELECT next.host, next.port
    FROM node p
    CROSS JOIN LATERAL (
        SELECT pg_catalog.lower(o.node_host) AS host, o.node_port AS port
        FROM @extschema@.follow_primary_job o
        WHERE (pg_catalog.lower(o.node_host), o.node_port) > (p.host, p.port)
        ORDER BY pg_catalog.lower(o.node_host), o.node_port LIMIT 1) next)
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
       END AS eta,
       j.started_at, j.finished_at
FROM node n
CROSS JOIN LATERAL (
    SELECT *
    FROM @extschema@.follow_primary_job o
    WHERE pg_catalog.lower(o.node_host) = n.host AND o.node_port = n.port
    ORDER BY (o.state = 'running') DESC, o.id DESC LIMIT 1) j
CROSS JOIN LATERAL (
    -- A standby has not the primary's locks; a newer timeline tells that the
    -- server of the job is not the primary any more.
    SELECT CASE WHEN j.state <> 'running' THEN j.state
                WHEN CASE WHEN pg_catalog.pg_is_in_recovery()
                          THEN j.timeline < greatest(
                               (SELECT timeline_id FROM pg_catalog.pg_control_checkpoint())::bigint,
                               (SELECT min_recovery_end_timeline FROM pg_catalog.pg_control_recovery())::bigint,
                               (SELECT received_tli FROM pg_catalog.pg_stat_wal_receiver)::bigint)
                          ELSE @extschema@.follow_primary_interrupted(j.id)
                     END
                THEN 'interrupted' ELSE j.state END AS state) s
CROSS JOIN LATERAL (
    SELECT coalesce(j.finished_at, pg_catalog.clock_timestamp()) - j.started_at AS elapsed) t
LEFT JOIN LATERAL (
    SELECT extract(epoch FROM coalesce(p.finished_at, pg_catalog.clock_timestamp()) - p.started_at)::numeric AS copying
    FROM @extschema@.follow_primary_step p
    WHERE p.job_id = j.id AND p.step IN ('rewind', 'copy')
    ORDER BY p.seq DESC LIMIT 1) c ON true;
COMMENT ON COLUMN @extschema@.follow_primary_progress.started_at IS 'when the job''s worker began';
COMMENT ON COLUMN @extschema@.follow_primary_progress.finished_at IS 'when the job ended';

/* Whoever can read the view needs its function. */
DO $$
DECLARE
    g record;
BEGIN
    FOR g IN SELECT a.grantee, a.is_grantable
             FROM pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) a
             WHERE c.oid = '@extschema@.follow_primary_progress'::pg_catalog.regclass::pg_catalog.oid
               AND a.privilege_type = 'SELECT' AND a.grantee <> c.relowner
    LOOP
        EXECUTE pg_catalog.format('GRANT EXECUTE ON FUNCTION %s TO %s%s',
            '@extschema@.follow_primary_interrupted(bigint)'::pg_catalog.regprocedure,
            CASE WHEN g.grantee = 0::oid THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(g.grantee)) END,
            CASE WHEN g.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END);
    END LOOP;
END
$$;

/*
 * Readiness: could each server, as the primary, make each other node follow it?
 */
CREATE FUNCTION @extschema@.follow_primary_check(
    node_host text DEFAULT NULL,
    node_port integer DEFAULT NULL,
    everywhere boolean DEFAULT false)
RETURNS TABLE (candidate text, node text, item text, status text, message text, hint text)
LANGUAGE c VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'follow_primary_check';
COMMENT ON FUNCTION @extschema@.follow_primary_check(text, integer, boolean)
    IS 'tries whether this server, or each, could make the other nodes follow it if it were the primary; changes nothing anywhere';

CREATE FUNCTION @extschema@.follow_primary_self(OUT host text, OUT port integer)
LANGUAGE c STABLE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'follow_primary_self';
COMMENT ON FUNCTION @extschema@.follow_primary_self()
    IS 'this server''s own name among the nodes: that of its row in follow_primary_node, else a guess';

CREATE TABLE @extschema@.follow_primary_readiness (
    candidate text NOT NULL,
    node text,
    item text NOT NULL,
    status text NOT NULL
        CHECK (status IN ('ok', 'warning', 'error', 'unknown')),
    message text,
    hint text,
    checked_at timestamptz NOT NULL
);
CREATE UNIQUE INDEX ON @extschema@.follow_primary_readiness (candidate, coalesce(node, ''::text), item);
COMMENT ON TABLE @extschema@.follow_primary_readiness IS 'what the last check of follow_primary.check_interval found, on every server';
COMMENT ON COLUMN @extschema@.follow_primary_readiness.candidate IS 'the server that would be the primary, as host:port';
COMMENT ON COLUMN @extschema@.follow_primary_readiness.node IS 'the node that would follow it, as host:port; null: the candidate alone is concerned';
COMMENT ON COLUMN @extschema@.follow_primary_readiness.item IS 'what was tried';
COMMENT ON COLUMN @extschema@.follow_primary_readiness.status IS 'ok, warning, error or unknown';
COMMENT ON COLUMN @extschema@.follow_primary_readiness.message IS 'what was found';
COMMENT ON COLUMN @extschema@.follow_primary_readiness.hint IS 'what to do about it';
COMMENT ON COLUMN @extschema@.follow_primary_readiness.checked_at IS 'when it was tried';

CREATE TABLE @extschema@.follow_primary_slot (
    slot_name text NOT NULL,
    node_host text NOT NULL,
    node_port integer NOT NULL,
    restart_lsn pg_lsn NOT NULL,
    timeline bigint NOT NULL,
    written_at timestamptz NOT NULL,
    away_since timestamptz,
    away_told boolean NOT NULL DEFAULT false,
    PRIMARY KEY (node_host, node_port)
);
COMMENT ON TABLE @extschema@.follow_primary_slot IS 'from where on the standbys keep WAL for each node; written by the primary';
COMMENT ON COLUMN @extschema@.follow_primary_slot.slot_name IS 'the node''s replication slot, on every server but the node';
COMMENT ON COLUMN @extschema@.follow_primary_slot.node_host IS 'host of the node, as in follow_primary_node';
COMMENT ON COLUMN @extschema@.follow_primary_slot.node_port IS 'port of the node';
COMMENT ON COLUMN @extschema@.follow_primary_slot.restart_lsn IS 'the node may need WAL from here on';
COMMENT ON COLUMN @extschema@.follow_primary_slot.timeline IS 'timeline of the primary that wrote the row';
COMMENT ON COLUMN @extschema@.follow_primary_slot.written_at IS 'when it was written: after each segment of WAL that the node has taken';
COMMENT ON COLUMN @extschema@.follow_primary_slot.away_since IS 'since when the primary has seen that nobody uses the slot; null: the node streams through it';
COMMENT ON COLUMN @extschema@.follow_primary_slot.away_told IS 'the primary''s log has named the slot: its node has been away for a day';

REVOKE ALL ON FUNCTION
    @extschema@.follow_primary_check(text, integer, boolean),
    @extschema@.follow_primary_self() FROM PUBLIC;
REVOKE ALL ON TABLE @extschema@.follow_primary_readiness, @extschema@.follow_primary_slot FROM PUBLIC;
GRANT SELECT ON @extschema@.follow_primary_readiness, @extschema@.follow_primary_slot TO pg_monitor;
GRANT EXECUTE ON FUNCTION @extschema@.follow_primary_self() TO pg_monitor;

/*
 * The cluster at a glance. The slots are those that jobs use; what streams without
 * one is known by its application_name. As for follow_primary_progress, every
 * operator and function meets exactly the types that it is defined for.
 */
CREATE VIEW @extschema@.follow_primary_cluster AS
WITH self AS (
    SELECT s.host, s.port, r.standby,
           CASE WHEN r.standby THEN greatest(pg_catalog.pg_last_wal_receive_lsn(), pg_catalog.pg_last_wal_replay_lsn())
                ELSE pg_catalog.pg_current_wal_lsn() END AS lsn
    FROM @extschema@.follow_primary_self() s, (SELECT pg_catalog.pg_is_in_recovery() AS standby) r
), receiver AS (
    SELECT status, sender_host, sender_port FROM pg_catalog.pg_stat_wal_receiver
), slot AS (
    SELECT s.slot_name::text AS name, s.active_pid, s.restart_lsn,
           CASE WHEN coalesce(pg_catalog.to_jsonb(s) ->> 'wal_status', '') = 'lost' THEN 'lost'
                WHEN s.active THEN 'active'
                WHEN s.restart_lsn IS NULL THEN 'unreserved'
                ELSE 'inactive' END AS state
    FROM pg_catalog.pg_replication_slots s
    WHERE s.slot_type = 'physical'
), given AS (
    -- what the last job gave the node
    SELECT l.host, l.port, l.slot_name
    FROM @extschema@.follow_primary_progress p
    CROSS JOIN LATERAL (
        SELECT o.node_host AS host, o.node_port AS port, o.slot_name
        FROM @extschema@.follow_primary_job o
        WHERE pg_catalog.lower(o.node_host) = pg_catalog.lower(p.node_host) AND o.node_port = p.node_port
          AND o.slot_name IS NOT NULL AND o.state IN ('running', 'succeeded')
        ORDER BY o.id DESC LIMIT 1) l
), listed AS (
    SELECT host, port, node_id, slot_name, application_name FROM @extschema@.follow_primary_node
    UNION ALL
    SELECT g.host, g.port, NULL::integer, NULL::text, NULL::text
    FROM given g
    WHERE EXISTS (SELECT FROM slot s WHERE s.name = g.slot_name)
      AND NOT EXISTS (SELECT FROM @extschema@.follow_primary_node n
                      WHERE pg_catalog.lower(n.host) = pg_catalog.lower(g.host) AND n.port = g.port)
), node AS (
    SELECT * FROM listed
    UNION ALL
    SELECT other.host, other.port, NULL::integer, NULL::text, NULL::text
    FROM (SELECT host, port FROM self UNION SELECT sender_host, sender_port FROM receiver) other
    WHERE other.host IS NOT NULL
      AND NOT EXISTS (SELECT FROM listed l WHERE pg_catalog.lower(l.host) = pg_catalog.lower(other.host) AND l.port = other.port)
), described AS (
    SELECT n.host, n.port, n.node_id, n.application_name,
           pg_catalog.lower(n.host) = pg_catalog.lower(self.host) AND n.port = self.port AS is_self,
           coalesce(g.slot_name, n.slot_name,
                    "left"(pg_catalog.regexp_replace(pg_catalog.lower(n.host), '[^a-z0-9]', '_', 'g'), 63)) AS slot_name
    FROM node n
    CROSS JOIN self
    LEFT JOIN given g ON pg_catalog.lower(g.host) = pg_catalog.lower(n.host) AND g.port = n.port
)
SELECT n.host AS node_host, n.port AS node_port, n.node_id,
       CASE WHEN n.is_self THEN CASE WHEN self.standby THEN 'standby' ELSE 'primary' END
            WHEN u.host IS NOT NULL THEN 'upstream'
            WHEN r.pid IS NOT NULL THEN 'standby' END AS role,
       CASE WHEN n.is_self AND self.standby THEN coalesce(w.status, 'not following')
            WHEN n.is_self THEN 'running'
            WHEN NOT self.standby THEN coalesce(r.state, 'not following') END AS state,
       CASE WHEN NOT n.is_self THEN r.sync_state END AS sync_state,
       CASE WHEN NOT n.is_self THEN n.slot_name END AS slot_name,
       CASE WHEN NOT n.is_self THEN coalesce(s.state, CASE WHEN NOT self.standby THEN 'missing' END) END AS slot_state,
       CASE WHEN NOT n.is_self AND s.restart_lsn IS NOT NULL
            THEN greatest(self.lsn - s.restart_lsn, 0::numeric)::bigint END AS wal_kept,
       CASE WHEN n.is_self AND self.standby
            THEN greatest(self.lsn - pg_catalog.pg_last_wal_replay_lsn(), 0::numeric)::bigint
            WHEN r.replay_lsn IS NOT NULL THEN greatest(self.lsn - r.replay_lsn, 0::numeric)::bigint END AS lag_bytes,
       CASE WHEN n.is_self AND self.standby THEN
                CASE WHEN self.lsn = pg_catalog.pg_last_wal_replay_lsn() THEN '0'::interval
                     ELSE pg_catalog.clock_timestamp() - pg_catalog.pg_last_xact_replay_timestamp() END
            WHEN NOT n.is_self THEN r.replay_lag END AS replay_lag,
       j.id AS job_id, j.state AS job_state, j.finished_at AS job_finished_at,
       c.ready, c.checked_at
FROM described n
CROSS JOIN self
LEFT JOIN receiver w ON n.is_self
LEFT JOIN (SELECT sender_host AS host, sender_port AS port FROM receiver) u
    ON NOT n.is_self AND pg_catalog.lower(u.host) = pg_catalog.lower(n.host) AND u.port = n.port
LEFT JOIN slot s ON s.name = n.slot_name
LEFT JOIN LATERAL (
    SELECT pg_catalog.min(a.pid) AS pid
    FROM pg_catalog.pg_stat_replication a
    WHERE a.application_name = coalesce(n.application_name, n.host)
      AND NOT EXISTS (SELECT FROM slot o WHERE o.active_pid = a.pid)
    HAVING pg_catalog.count(*) = 1::bigint) slotless ON s.active_pid IS NULL
LEFT JOIN pg_catalog.pg_stat_replication r
    ON NOT n.is_self AND NOT self.standby AND r.pid = coalesce(s.active_pid, slotless.pid)
LEFT JOIN @extschema@.follow_primary_progress j
    ON pg_catalog.lower(j.node_host) = pg_catalog.lower(n.host) AND j.node_port = n.port
LEFT JOIN LATERAL (
    SELECT CASE WHEN pg_catalog.bool_or(k.status = 'error') THEN false
                WHEN pg_catalog.bool_or(k.status = 'unknown') THEN NULL
                ELSE true END AS ready,
           pg_catalog.max(k.checked_at) AS checked_at
    FROM @extschema@.follow_primary_readiness k
    WHERE pg_catalog.lower(k.candidate) = pg_catalog.lower(n.host || ':' || n.port::text)
    HAVING pg_catalog.count(*) > 0::bigint) c ON true
ORDER BY NOT n.is_self, n.node_id, n.host, n.port;

COMMENT ON VIEW @extschema@.follow_primary_cluster IS 'how the cluster stands now, as far as this server knows: a row for it, its own first, and for each node';
COMMENT ON COLUMN @extschema@.follow_primary_cluster.node_host IS 'host of the node';
COMMENT ON COLUMN @extschema@.follow_primary_cluster.node_port IS 'port of PostgreSQL on the node';
COMMENT ON COLUMN @extschema@.follow_primary_cluster.node_id IS 'pgpool''s id of the node';
COMMENT ON COLUMN @extschema@.follow_primary_cluster.role IS 'primary or standby; upstream: this standby streams from it; null: not known here, or nothing';
COMMENT ON COLUMN @extschema@.follow_primary_cluster.state IS 'of the primary: running; of a node, as its WAL sender has it: streaming, catchup ...; of this standby, as its WAL receiver has it; not following: there is none';
COMMENT ON COLUMN @extschema@.follow_primary_cluster.sync_state IS 'as in pg_stat_replication';
COMMENT ON COLUMN @extschema@.follow_primary_cluster.slot_name IS 'the node''s replication slot, also on the standbys';
COMMENT ON COLUMN @extschema@.follow_primary_cluster.slot_state IS 'of the slot on this server: active, inactive, unreserved (it holds no WAL), lost (its WAL is gone) or missing';
COMMENT ON COLUMN @extschema@.follow_primary_cluster.wal_kept IS 'bytes of WAL that the slot holds on this server';
COMMENT ON COLUMN @extschema@.follow_primary_cluster.lag_bytes IS 'bytes of WAL that the node has not replayed yet';
COMMENT ON COLUMN @extschema@.follow_primary_cluster.replay_lag IS 'the same as time';
COMMENT ON COLUMN @extschema@.follow_primary_cluster.job_id IS 'the running, else the latest job for the node';
COMMENT ON COLUMN @extschema@.follow_primary_cluster.job_state IS 'how that job stands, as in follow_primary_progress';
COMMENT ON COLUMN @extschema@.follow_primary_cluster.job_finished_at IS 'when that job ended';
COMMENT ON COLUMN @extschema@.follow_primary_cluster.ready IS 'by the last check of check_interval: could it be the primary of the others? null: not checked, or not known';
COMMENT ON COLUMN @extschema@.follow_primary_cluster.checked_at IS 'when that was checked';
REVOKE ALL ON TABLE @extschema@.follow_primary_cluster FROM PUBLIC;
GRANT SELECT ON @extschema@.follow_primary_cluster TO pg_monitor;
CREATE FUNCTION @extschema@.follow_primary_switchover(timeout interval DEFAULT '60 s')
RETURNS TABLE (job_id bigint, node_host text, node_port integer, state text, method text, message text, hint text, elapsed interval)
LANGUAGE c VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'follow_primary_switchover';
COMMENT ON FUNCTION @extschema@.follow_primary_switchover(interval)
    IS 'makes this standby the primary in place of the one that it follows, which follows it then, as all other nodes do; returns a row for each';
REVOKE ALL ON FUNCTION @extschema@.follow_primary_switchover(interval) FROM PUBLIC;
