-- An extension that was installed as 1.0 and upgraded is the same as a new one,
-- and keeps its rows and what was granted.
\set VERBOSITY terse
\pset format unaligned
\pset tuples_only on
SET client_min_messages = warning;

-- What an extension consists of, a line each.
CREATE FUNCTION pg_temp.describe() RETURNS SETOF text LANGUAGE sql AS $$
    WITH member AS (
        SELECT classid, objid FROM pg_depend
        WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
          AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'follow_primary'))
    SELECT concat_ws(' | ', 'relation', c.oid::regclass, relkind, relacl::text, obj_description(c.oid, 'pg_class'))
    FROM member JOIN pg_class c ON c.oid = objid AND classid = 'pg_class'::regclass
    UNION ALL
    SELECT concat_ws(' | ', 'column', attrelid::regclass, attname, format_type(atttypid, atttypmod), attnotnull,
                     attidentity, pg_get_expr(adbin, adrelid), col_description(attrelid, attnum))
    FROM member JOIN pg_attribute ON attrelid = objid AND classid = 'pg_class'::regclass AND attnum > 0 AND NOT attisdropped
    LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
    UNION ALL
    SELECT concat_ws(' | ', 'constraint', conrelid::regclass, conname, pg_get_constraintdef(o.oid))
    FROM member JOIN pg_constraint o ON conrelid = objid AND classid = 'pg_class'::regclass
    UNION ALL
    SELECT concat_ws(' | ', 'index', pg_get_indexdef(indexrelid))
    FROM member JOIN pg_index ON indrelid = objid AND classid = 'pg_class'::regclass
    UNION ALL
    SELECT concat_ws(' | ', 'view', c.oid::regclass, pg_get_viewdef(c.oid))
    FROM member JOIN pg_class c ON c.oid = objid AND classid = 'pg_class'::regclass AND relkind = 'v'
    UNION ALL
    SELECT concat_ws(' | ', 'function', p.oid::regprocedure, pg_get_functiondef(p.oid), proacl::text, obj_description(p.oid, 'pg_proc'))
    FROM member JOIN pg_proc p ON p.oid = objid AND classid = 'pg_proc'::regclass
    UNION ALL
    SELECT concat_ws(' | ', 'dumped', unnest(extconfig)::regclass) FROM pg_extension WHERE extname = 'follow_primary'
$$;

CREATE EXTENSION follow_primary;
CREATE TEMP TABLE fresh AS SELECT pg_temp.describe() AS line;
DROP EXTENSION follow_primary;

CREATE EXTENSION follow_primary VERSION '1.0';
INSERT INTO follow_primary_job (node_host, node_port, requested_method, state, started_at)
VALUES ('db3', 5432, 'auto', 'succeeded', '2026-11-01 12:00:00+00');
INSERT INTO follow_primary_step (job_id, seq, step, state, started_at, detail)
VALUES (1, 1, 'verify', 'succeeded', '2026-11-01 12:00:01+00', 'streams');
INSERT INTO follow_primary_node (host, pgdata, stop_timeout) VALUES ('db3', '/data', 7);

-- Until the upgrade the library says what is missing.
SELECT follow_primary('db3');
SELECT follow_primary_plan('db3');

ALTER EXTENSION follow_primary UPDATE;
SELECT extversion FROM pg_extension WHERE extname = 'follow_primary';
SELECT 'only fresh: ' || line FROM (SELECT line FROM fresh EXCEPT SELECT pg_temp.describe()) f;
SELECT 'only upgraded: ' || line FROM (SELECT pg_temp.describe() AS line EXCEPT SELECT line FROM fresh) u;
SELECT count(*) > 100 FROM fresh;
SELECT id, node_host, node_port, state, token, slot_made FROM follow_primary_job;
SELECT job_id, seq, step, state, detail FROM follow_primary_step;
SELECT host, port, pgdata, stop_timeout FROM follow_primary_node;
DROP EXTENSION follow_primary;

-- Who could call the functions can still, and nobody else.
CREATE ROLE regress_fp_caller;
CREATE ROLE "regress fp manager";
CREATE SCHEMA "Follow Me";
CREATE EXTENSION follow_primary VERSION '1.0' SCHEMA "Follow Me";
GRANT EXECUTE ON FUNCTION
    "Follow Me".follow_primary(text, integer, text, integer, text, integer, text, text, text, text, boolean),
    "Follow Me".follow_primary_cancel(bigint) TO regress_fp_caller;
GRANT EXECUTE ON FUNCTION
    "Follow Me".follow_primary_plan(text, integer, text, integer, text, integer, text, text, text, text)
    TO "regress fp manager" WITH GRANT OPTION;
GRANT SELECT ON "Follow Me".follow_primary_progress TO regress_fp_caller;
ALTER EXTENSION follow_primary UPDATE;
SELECT p.proname, a.grantee::regrole, a.privilege_type, a.is_grantable
FROM pg_proc p, aclexplode(p.proacl) a
WHERE p.proname LIKE 'follow\_primary%' AND a.grantee <> p.proowner
ORDER BY p.proname COLLATE "C", a.grantee::regrole::text;
DROP EXTENSION follow_primary;
DROP SCHEMA "Follow Me";
DROP ROLE regress_fp_caller, "regress fp manager";
