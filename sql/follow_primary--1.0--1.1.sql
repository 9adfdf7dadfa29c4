/* sql/follow_primary--1.0--1.1.sql */

\echo Use "ALTER EXTENSION follow_primary UPDATE TO '1.1'" to load this file. \quit

ALTER TABLE @extschema@.follow_primary_job
    ADD COLUMN token uuid,
    ADD COLUMN slot_made boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN @extschema@.follow_primary_job.token IS 'what only this job has: its mark on the node carries it';
COMMENT ON COLUMN @extschema@.follow_primary_job.slot_made IS 'the job made the node''s replication slot, which was not there before';

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
FROM (SELECT DISTINCT ON (pg_catalog.lower(node_host), node_port) *
      FROM @extschema@.follow_primary_job
      ORDER BY pg_catalog.lower(node_host), node_port, (state = 'running') DESC, id DESC) j
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
    PRIMARY KEY (node_host, node_port)
);
COMMENT ON TABLE @extschema@.follow_primary_slot IS 'from where on the standbys keep WAL for each node; written by the primary';
COMMENT ON COLUMN @extschema@.follow_primary_slot.slot_name IS 'the node''s replication slot, on every server but the node';
COMMENT ON COLUMN @extschema@.follow_primary_slot.node_host IS 'host of the node, as in follow_primary_node';
COMMENT ON COLUMN @extschema@.follow_primary_slot.node_port IS 'port of the node';
COMMENT ON COLUMN @extschema@.follow_primary_slot.restart_lsn IS 'the node may need WAL from here on';
COMMENT ON COLUMN @extschema@.follow_primary_slot.timeline IS 'timeline of the primary that wrote the row';
COMMENT ON COLUMN @extschema@.follow_primary_slot.written_at IS 'when it was written: after each segment of WAL that the node has taken';

REVOKE ALL ON FUNCTION
    @extschema@.follow_primary_check(text, integer, boolean),
    @extschema@.follow_primary_self() FROM PUBLIC;
REVOKE ALL ON TABLE @extschema@.follow_primary_readiness, @extschema@.follow_primary_slot FROM PUBLIC;
GRANT SELECT ON @extschema@.follow_primary_readiness, @extschema@.follow_primary_slot TO pg_monitor;
GRANT EXECUTE ON FUNCTION @extschema@.follow_primary_self() TO pg_monitor;
