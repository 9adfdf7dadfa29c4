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
    '@extschema@.follow_primary(text, integer, text, integer, text, integer, text, text, text, text, boolean)'::pg_catalog.regprocedure,
    '@extschema@.follow_primary_plan(text, integer, text, integer, text, integer, text, text, text, text)'::pg_catalog.regprocedure)
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
                 '@extschema@.follow_primary(text, integer, text, integer, text, integer, text, text, text, text, boolean, boolean)'::pg_catalog.regprocedure,
                 '@extschema@.follow_primary_plan(text, integer, text, integer, text, integer, text, text, text, text, boolean)'::pg_catalog.regprocedure)
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
