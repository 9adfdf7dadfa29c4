-- What CREATE EXTENSION makes, where, and for whom.
\set VERBOSITY terse
SET client_min_messages = warning;

-- In the default schema.
CREATE EXTENSION follow_primary;
SELECT extversion, nspname, extrelocatable
FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace
WHERE extname = 'follow_primary';

-- Tables and views bring types, which PostgreSQL 17 counts as members.
CREATE TEMP VIEW member AS
SELECT classid, objid, pg_describe_object(classid, objid, 0) AS name
FROM pg_depend
WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e' AND classid <> 'pg_type'::regclass
  AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'follow_primary');
SELECT name FROM member ORDER BY name COLLATE "C";

-- Every object has a comment, and every column of a table or view.
SELECT name AS without_comment
FROM member
WHERE obj_description(objid, (SELECT relname FROM pg_class c WHERE c.oid = classid)) IS NULL
  -- an identity column brings its sequence
  AND NOT EXISTS (SELECT FROM pg_class s WHERE s.oid = objid AND s.relkind = 'S');
SELECT attrelid::regclass AS relation, attname AS without_comment
FROM member JOIN pg_attribute ON attrelid = objid AND classid = 'pg_class'::regclass
JOIN pg_class c ON c.oid = attrelid AND c.relkind IN ('r', 'v')
WHERE attnum > 0 AND col_description(attrelid, attnum) IS NULL;

-- Nothing is granted to PUBLIC, and only reading to pg_monitor.
SELECT pg_describe_object('pg_proc'::regclass, p.oid, 0) AS function,
       a.grantee::regrole, a.privilege_type
FROM member JOIN pg_proc p ON p.oid = objid AND classid = 'pg_proc'::regclass,
     aclexplode(coalesce(proacl, acldefault('f', proowner))) a
WHERE a.grantee <> proowner
ORDER BY 1 COLLATE "C";
SELECT c.oid::regclass AS relation, a.grantee::regrole, a.privilege_type
FROM member JOIN pg_class c ON c.oid = objid AND classid = 'pg_class'::regclass,
     aclexplode(coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", relowner))) a
WHERE a.grantee <> relowner
ORDER BY c.relname COLLATE "C";

-- Every function pins its search_path.
SELECT p.oid::regprocedure AS not_pinned
FROM member JOIN pg_proc p ON p.oid = objid AND classid = 'pg_proc'::regclass
WHERE proconfig IS DISTINCT FROM ARRAY['search_path=pg_catalog, pg_temp'];

-- pg_dump takes the rows of the node table, of no other.
SELECT extconfig::regclass[], extcondition FROM pg_extension WHERE extname = 'follow_primary';

-- A node's row can override every setting, by a column of its name.
LOAD 'follow_primary';
SELECT s.name AS setting, a.attname AS node_column
FROM (SELECT name FROM pg_settings WHERE name LIKE 'follow\_primary.%'
      -- these are for the preloaded workers, not for a node
      AND name NOT IN ('follow_primary.sibling_slots', 'follow_primary.check_interval', 'follow_primary.max_archive_backlog')) s
FULL JOIN (SELECT attname FROM pg_attribute
           WHERE attrelid = 'follow_primary_node'::regclass AND attnum > 0) a
     ON s.name = 'follow_primary.' || a.attname
WHERE s.name IS NULL OR a.attname IS NULL
ORDER BY a.attname COLLATE "C";
-- Its comment begins with the setting's description.
SELECT attname AS undescribed, col_description(attrelid, attnum), short_desc
FROM pg_attribute JOIN pg_settings ON name = 'follow_primary.' || attname
WHERE attrelid = 'follow_primary_node'::regclass
  AND NOT starts_with(lower(col_description(attrelid, attnum)), lower(rtrim(short_desc, '.')));

-- Dropped, nothing is left; and it can be had again.
DROP EXTENSION follow_primary;
SELECT relname FROM pg_class WHERE relname LIKE 'follow\_primary%';
SELECT proname FROM pg_proc WHERE proname LIKE 'follow\_primary%';
CREATE EXTENSION follow_primary;
INSERT INTO follow_primary_node (host) VALUES ('db3');
DROP EXTENSION follow_primary;

-- In a schema of its own, whose name needs quotes. It works there, and finds
-- its tables there, whatever the caller's search_path is.
CREATE SCHEMA "Follow Me";
CREATE EXTENSION follow_primary SCHEMA "Follow Me";
SELECT nspname FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace
WHERE extname = 'follow_primary';
SELECT extconfig::regclass[] FROM pg_extension WHERE extname = 'follow_primary';
SET search_path = pg_catalog;
SELECT "Follow Me".follow_primary_wait(1);
SELECT * FROM "Follow Me".follow_primary_progress;
RESET search_path;
DROP EXTENSION follow_primary;
DROP SCHEMA "Follow Me";

-- Among hostile objects, which anyone could make in public before PostgreSQL
-- 15: whoever creates or uses the extension never runs them. They match the
-- types better than pg_catalog's own, or stand in the way by name.
CREATE SCHEMA hostile;
SET search_path = hostile;
CREATE FUNCTION trap() RETURNS boolean LANGUAGE plpgsql AS
$$BEGIN RAISE EXCEPTION 'trapped'; END$$;
CREATE FUNCTION times(numeric, bigint) RETURNS numeric LANGUAGE sql AS 'SELECT 1.0 WHERE hostile.trap()';
CREATE FUNCTION over(bigint, numeric) RETURNS numeric LANGUAGE sql AS 'SELECT 1.0 WHERE hostile.trap()';
CREATE FUNCTION over(numeric, bigint) RETURNS numeric LANGUAGE sql AS 'SELECT 1.0 WHERE hostile.trap()';
CREATE FUNCTION above(numeric, integer) RETURNS boolean LANGUAGE sql AS 'SELECT hostile.trap()';
CREATE FUNCTION equal(oid, integer) RETURNS boolean LANGUAGE sql AS 'SELECT hostile.trap()';
CREATE FUNCTION equal(smallint, integer) RETURNS boolean LANGUAGE sql AS 'SELECT hostile.trap()';
CREATE FUNCTION equal(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT hostile.trap()';
CREATE OPERATOR * (LEFTARG = numeric, RIGHTARG = bigint, FUNCTION = times);
CREATE OPERATOR / (LEFTARG = bigint, RIGHTARG = numeric, FUNCTION = over);
CREATE OPERATOR / (LEFTARG = numeric, RIGHTARG = bigint, FUNCTION = over);
CREATE OPERATOR > (LEFTARG = numeric, RIGHTARG = integer, FUNCTION = above);
CREATE OPERATOR = (LEFTARG = oid, RIGHTARG = integer, FUNCTION = equal);
CREATE OPERATOR = (LEFTARG = smallint, RIGHTARG = integer, FUNCTION = equal);
CREATE OPERATOR = (LEFTARG = text, RIGHTARG = text, FUNCTION = equal);
CREATE FUNCTION lower(text) RETURNS text IMMUTABLE LANGUAGE sql AS $$SELECT 'x' WHERE hostile.trap()$$;
CREATE FUNCTION length(text) RETURNS integer IMMUTABLE LANGUAGE sql AS 'SELECT 1 WHERE hostile.trap()';
CREATE FUNCTION round(numeric, integer) RETURNS numeric LANGUAGE sql AS 'SELECT 1.0 WHERE hostile.trap()';
SELECT 1.0 * 1::bigint;
SELECT '1'::oid = 1;

CREATE FUNCTION follow_primary_wait(bigint, interval) RETURNS text LANGUAGE sql AS $$SELECT 'x' WHERE hostile.trap()$$;
CREATE EXTENSION follow_primary;
DROP FUNCTION follow_primary_wait;

CREATE EXTENSION follow_primary;
INSERT INTO follow_primary_node (host, pgdata) VALUES ('db3', '/data');
INSERT INTO follow_primary_job (node_host, node_port, requested_method, method, state, started_at, bytes_done, bytes_total)
VALUES ('db3', 5432, 'auto', 'rewind', 'running', '2026-01-01 00:00:00+00', 50000000, 200000000);
INSERT INTO follow_primary_step VALUES (1, 1, 'rewind', 'running', '2026-01-01 00:00:00+00');
-- It has no worker, and nobody else can have the lock of one.
SELECT id, state, percent, rate IS NOT NULL AS rate, eta IS NOT NULL AS eta FROM follow_primary_progress;
SELECT pg_advisory_lock(1718645615, 1);
SELECT id, state, percent, rate IS NOT NULL AS rate, eta IS NOT NULL AS eta FROM follow_primary_progress;
SELECT pg_advisory_unlock(1718645615, 1);
UPDATE follow_primary_job SET state = 'succeeded', finished_at = '2026-01-01 00:00:10+00', bytes_done = 200000000;
UPDATE follow_primary_step SET state = 'succeeded', finished_at = '2026-01-01 00:00:10+00';
SELECT id, state, percent, elapsed, rate, eta FROM follow_primary_progress;
SELECT follow_primary_wait(1), follow_primary_cancel(1);
SET follow_primary.ssh_port = 1;
SELECT method, reason FROM follow_primary_plan('127.0.0.1', 1);
RESET search_path;
DROP EXTENSION follow_primary;
SET client_min_messages = error;
DROP SCHEMA hostile CASCADE;
