-- Who may start jobs, and who may see them.
SET client_min_messages = warning;
\set VERBOSITY terse
CREATE EXTENSION follow_primary;
-- Nothing answers there, so that a plan is to leave the node alone.
SET follow_primary.ssh_port = 1;
CREATE ROLE regress_fp_plain;
CREATE ROLE regress_fp_operator;
CREATE ROLE regress_fp_watcher;
GRANT pg_monitor TO regress_fp_watcher;

CREATE FUNCTION pg_temp.refusal(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    message text;
    detail text;
    hint text;
BEGIN
    EXECUTE statement;
    RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    RETURN SQLSTATE || ': ' || message || coalesce(E'\nDETAIL:  ' || nullif(detail, ''), '')
        || coalesce(E'\nHINT:  ' || nullif(hint, ''), '');
END $$;
\pset format unaligned
\pset tuples_only on

INSERT INTO follow_primary_job (node_host, node_port, requested_method, state, started_at)
VALUES ('db3', 5432, 'auto', 'succeeded', '2026-01-01 00:00:00+00');
INSERT INTO follow_primary_step VALUES (1, 1, 'survey', 'succeeded', '2026-01-01 00:00:00+00');

-- A plain role can do nothing.
SET ROLE regress_fp_plain;
SELECT pg_temp.refusal($$SELECT follow_primary('db3')$$);
SELECT pg_temp.refusal($$SELECT follow_primary_plan('db3')$$);
SELECT pg_temp.refusal($$SELECT follow_primary_wait(1)$$);
SELECT pg_temp.refusal($$SELECT follow_primary_cancel(1)$$);
SELECT pg_temp.refusal($$SELECT FROM follow_primary_job$$);
SELECT pg_temp.refusal($$SELECT FROM follow_primary_step$$);
SELECT pg_temp.refusal($$SELECT FROM follow_primary_progress$$);
SELECT pg_temp.refusal($$SELECT FROM follow_primary_node$$);
SELECT pg_temp.refusal($$SELECT follow_primary_interrupted(1)$$);
RESET ROLE;

-- pg_monitor reads what jobs did, not how nodes are reached; and writes nothing.
SET ROLE regress_fp_watcher;
SELECT id, node_host, state FROM follow_primary_job;
SELECT job_id, seq, step FROM follow_primary_step;
SELECT id, node_host, state, started_at, finished_at FROM follow_primary_progress;
SELECT follow_primary_interrupted(1);
SELECT pg_temp.refusal($$SELECT FROM follow_primary_node$$);
SELECT pg_temp.refusal($$INSERT INTO follow_primary_job (node_host, node_port, requested_method, state, started_at)
                         VALUES ('db3', 5432, 'auto', 'running', now())$$);
SELECT pg_temp.refusal($$UPDATE follow_primary_job SET state = 'running'$$);
SELECT pg_temp.refusal($$DELETE FROM follow_primary_step$$);
SELECT pg_temp.refusal($$SELECT follow_primary('db3')$$);
SELECT pg_temp.refusal($$SELECT follow_primary_cancel(1)$$);
RESET ROLE;

-- A role with EXECUTE may name nodes that have a row, and say what it says.
GRANT EXECUTE ON FUNCTION
    follow_primary(text, integer, text, integer, text, integer, text, text, text, text, boolean, boolean),
    follow_primary_plan(text, integer, text, integer, text, integer, text, text, text, text, boolean),
    follow_primary_wait(bigint, interval), follow_primary_cancel(bigint)
TO regress_fp_operator;
INSERT INTO follow_primary_node (host, port, pgdata, slot_name) VALUES ('127.0.0.1', 1, '/data', 'node');
SET ROLE regress_fp_operator;
SELECT follow_primary_wait(1), follow_primary_cancel(1);
SELECT pg_temp.refusal($$SELECT FROM follow_primary_node$$);
SELECT pg_temp.refusal($$SELECT FROM follow_primary_job$$);
SELECT pg_temp.refusal($$UPDATE follow_primary_node SET node_start_command = 'reboot'$$);
SELECT pg_temp.refusal($$INSERT INTO follow_primary_node (host, node_start_command) VALUES ('db3', 'reboot')$$);
SELECT pg_temp.refusal($$SELECT follow_primary('db3')$$);
SELECT pg_temp.refusal($$SELECT follow_primary('127.0.0.1', 2)$$);
SELECT pg_temp.refusal($$SELECT follow_primary_plan('127.0.0.1', 2)$$);
SELECT pg_temp.refusal($$SELECT follow_primary('127.0.0.1', 1, node_pgdata => '/etc')$$);
SELECT pg_temp.refusal($$SELECT follow_primary('127.0.0.1', 1, slot_name => 'other')$$);
SELECT pg_temp.refusal($$SELECT follow_primary('127.0.0.1', 1, node_id => 1)$$);
SELECT pg_temp.refusal($$SELECT follow_primary('127.0.0.1', 1, application_name => 'other')$$);
SELECT pg_temp.refusal($$SELECT follow_primary('127.0.0.1', 1, primary_host => 'evil')$$);
SELECT pg_temp.refusal($$SELECT follow_primary('127.0.0.1', 1, primary_port => 65000)$$);
-- What the row leaves to be asked of the node is not the caller's to say.
RESET ROLE;
UPDATE follow_primary_node SET pgdata = NULL;
SET ROLE regress_fp_operator;
SELECT pg_temp.refusal($$SELECT follow_primary('127.0.0.1', 1, node_pgdata => '/etc')$$);
RESET ROLE;
UPDATE follow_primary_node SET pgdata = '/data', primary_host = 'db2';
SET ROLE regress_fp_operator;
SELECT method, reason FROM follow_primary_plan('127.0.0.1', 1);
SELECT method FROM follow_primary_plan('127.0.0.1', 1, node_pgdata => '/data', slot_name => 'node', primary_host => 'db2');
SELECT pg_temp.refusal($$SELECT follow_primary('127.0.0.1', 1, primary_host => 'db4')$$);
-- A call, denied or not, leaves the role what it was.
SELECT current_user;

-- Nor is it a way to a setting, loaded or not yet.
SELECT pg_temp.refusal($$SET follow_primary.node_start_command = 'reboot'$$);
\c -
SET client_min_messages = warning;
\pset format unaligned
\pset tuples_only on
SET ROLE regress_fp_operator;
SET follow_primary.node_start_command = 'reboot';
SELECT follow_primary_wait(1);
SHOW follow_primary.node_start_command;
RESET ROLE;

-- None of all that was a job.
SELECT count(*) FROM follow_primary_job;

DROP EXTENSION follow_primary;
DROP ROLE regress_fp_plain;
DROP ROLE regress_fp_operator;
DROP ROLE regress_fp_watcher;
