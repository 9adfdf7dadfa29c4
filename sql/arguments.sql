-- Every argument and setting that cannot be meant is refused before anything
-- happens, each with an error of its own.
SET client_min_messages = warning;
\set VERBOSITY terse
SET client_encoding = 'UTF8';
CREATE EXTENSION follow_primary;

-- SQLSTATE, message, detail and hint of the error that a statement ends in.
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

-- node_host
SELECT pg_temp.refusal($$SELECT follow_primary(NULL)$$);
SELECT pg_temp.refusal($$SELECT follow_primary('')$$);
SELECT pg_temp.refusal($$SELECT follow_primary('-oProxyCommand=reboot')$$);
SELECT pg_temp.refusal($$SELECT follow_primary('.db3')$$);
SELECT pg_temp.refusal($$SELECT follow_primary('%h')$$);
SELECT pg_temp.refusal($$SELECT follow_primary('postgres@db3')$$);
SELECT pg_temp.refusal($$SELECT follow_primary('db3 db4')$$);
SELECT pg_temp.refusal($$SELECT follow_primary('db3;reboot')$$);
SELECT pg_temp.refusal($$SELECT follow_primary('$(reboot)')$$);
SELECT pg_temp.refusal($$SELECT follow_primary(E'db3\n')$$);
SELECT pg_temp.refusal($$SELECT follow_primary(E'db\x7f')$$);
SELECT pg_temp.refusal($$SELECT follow_primary('dbé')$$);
SELECT pg_temp.refusal($$SELECT follow_primary(repeat('d', 256))$$);

-- node_port
SELECT pg_temp.refusal($$SELECT follow_primary('db3', NULL)$$);
SELECT pg_temp.refusal($$SELECT follow_primary('db3', 0)$$);
SELECT pg_temp.refusal($$SELECT follow_primary('db3', -5432)$$);
SELECT pg_temp.refusal($$SELECT follow_primary('db3', 65536)$$);

-- node_pgdata
SELECT pg_temp.refusal($$SELECT follow_primary('db3', node_pgdata => '')$$);
SELECT pg_temp.refusal($$SELECT follow_primary('db3', node_pgdata => 'data')$$);
SELECT pg_temp.refusal($$SELECT follow_primary('db3', node_pgdata => '~/data')$$);
SELECT pg_temp.refusal($$SELECT follow_primary('db3', node_pgdata => '/')$$);
SELECT pg_temp.refusal($$SELECT follow_primary('db3', node_pgdata => '/..//')$$);
SELECT pg_temp.refusal($$SELECT follow_primary('db3', node_pgdata => E'/data\n/etc')$$);
SELECT pg_temp.refusal($$SELECT follow_primary('db3', node_pgdata => '/' || repeat('d', 1023))$$);

-- node_id
SELECT pg_temp.refusal($$SELECT follow_primary('db3', node_id => -1)$$);
SELECT pg_temp.refusal($$SELECT follow_primary('db3', node_id => 128)$$);

-- primary_host, primary_port
SELECT pg_temp.refusal($$SELECT follow_primary('db3', primary_host => '')$$);
SELECT pg_temp.refusal($$SELECT follow_primary('db3', primary_host => 'db2/')$$);
SELECT pg_temp.refusal($$SELECT follow_primary('db3', primary_host => '-db2')$$);
SELECT pg_temp.refusal($$SELECT follow_primary('db3', primary_port => 0)$$);
SELECT pg_temp.refusal($$SELECT follow_primary('db3', primary_port => 70000)$$);
SELECT pg_temp.refusal($$SELECT follow_primary('DB3', 5433, primary_host => 'db3', primary_port => 5433)$$);

-- method, when_down, wait
SELECT pg_temp.refusal($$SELECT follow_primary('db3', method => NULL)$$);
SELECT pg_temp.refusal($$SELECT follow_primary('db3', method => '')$$);
SELECT pg_temp.refusal($$SELECT follow_primary('db3', method => 'Rewind')$$);
SELECT pg_temp.refusal($$SELECT follow_primary('db3', method => 'none')$$);
SELECT pg_temp.refusal($$SELECT follow_primary('db3', when_down => NULL)$$);
SELECT pg_temp.refusal($$SELECT follow_primary('db3', when_down => 'start')$$);
SELECT pg_temp.refusal($$SELECT follow_primary('db3', wait => NULL)$$);

-- slot_name
SELECT pg_temp.refusal($$SELECT follow_primary('db3', slot_name => '')$$);
SELECT pg_temp.refusal($$SELECT follow_primary('db3', slot_name => 'db-3')$$);
SELECT pg_temp.refusal($$SELECT follow_primary('db3', slot_name => 'Db3')$$);
SELECT pg_temp.refusal($$SELECT follow_primary('db3', slot_name => repeat('d', 64))$$);
SELECT pg_temp.refusal($$SELECT follow_primary('db3', slot_name => E'db3\t')$$);

-- application_name
SELECT pg_temp.refusal($$SELECT follow_primary('db3', application_name => '')$$);
SELECT pg_temp.refusal($$SELECT follow_primary('db3', application_name => 'dbé')$$);
SELECT pg_temp.refusal($$SELECT follow_primary('db3', application_name => E'db\r3')$$);
SELECT pg_temp.refusal($$SELECT follow_primary('db3', application_name => repeat('d', 64))$$);

-- The plan judges them alike.
SELECT pg_temp.refusal($$SELECT follow_primary_plan(NULL)$$);
SELECT pg_temp.refusal($$SELECT follow_primary_plan('db3', 0)$$);
SELECT pg_temp.refusal($$SELECT follow_primary_plan('db3', method => 'x')$$);

-- In a read-only transaction only the plan is to be had.
SET follow_primary.ssh_port = 1;
BEGIN READ ONLY;
SELECT pg_temp.refusal($$SELECT follow_primary('db3')$$);
SELECT method FROM follow_primary_plan('127.0.0.1', 1);
COMMIT;

-- Jobs that are not there.
SELECT pg_temp.refusal($$SELECT follow_primary_wait(4711)$$);
SELECT pg_temp.refusal($$SELECT follow_primary_cancel(4711)$$);
SELECT pg_temp.refusal($$SELECT follow_primary_cancel(-1)$$);
SELECT follow_primary_wait(NULL) IS NULL, follow_primary_cancel(NULL) IS NULL;

-- None of all that was a job.
SELECT count(*) FROM follow_primary_job;

-- The settings, their units and bounds.
\pset tuples_only off
SELECT substr(name, 16) AS name, boot_val, unit, min_val, max_val, enumvals
FROM pg_settings WHERE name LIKE 'follow\_primary.%' ORDER BY name COLLATE "C";
SELECT DISTINCT context FROM pg_settings WHERE name LIKE 'follow\_primary.%';
\pset tuples_only on
SELECT pg_temp.refusal($$SET follow_primary.ssh_host_key_checking = 'no'$$);
SELECT pg_temp.refusal($$SET follow_primary.ssh_user = E'a\nb'$$);
SELECT pg_temp.refusal($$SET follow_primary.replication_user = ''$$);
SELECT pg_temp.refusal($$SET follow_primary.node_bin_dir = 'bin'$$);
SELECT pg_temp.refusal($$SET follow_primary.passfile = '.pgpass'$$);
SELECT pg_temp.refusal($$SET follow_primary.primary_host = '-h'$$);
SELECT pg_temp.refusal($$SET follow_primary.recovery_file = 'postgresql.auto.conf'$$);
SELECT pg_temp.refusal($$SET follow_primary.recovery_file = 'conf.d/../postgresql.conf'$$);
SELECT pg_temp.refusal($$SET follow_primary.recovery_file = 'sub/../own.conf'$$);
SELECT pg_temp.refusal($$SET follow_primary.recovery_file = 'global/own.conf'$$);
SELECT pg_temp.refusal($$SET follow_primary.replication_options = 'sslmode'$$);
SELECT pg_temp.refusal($$SET follow_primary.replication_options = 'postgresql://db1/?sslmode=require'$$);
SELECT pg_temp.refusal($$SET follow_primary.replication_options = 'sslmode=require password=secret'$$);
SET follow_primary.replication_options = 'sslmode=verify-full sslrootcert=''/my certs/ca''';

-- The node table takes a value where the setting of that name takes it, tried
-- with every bound and with texts of every kind. Only which keys libpq knows is
-- left to the call.
\pset tuples_only off
CREATE FUNCTION pg_temp.taken(statement text) RETURNS boolean LANGUAGE plpgsql AS
$$BEGIN EXECUTE statement; RETURN true; EXCEPTION WHEN OTHERS THEN RETURN false; END$$;
INSERT INTO follow_primary_node (host) VALUES ('db3');
SELECT s.name, v.value, in_setting, in_table
FROM (SELECT substr(name, 16) AS name, vartype, min_val, max_val
      FROM pg_settings WHERE name LIKE 'follow\_primary.%' AND name <> 'follow_primary.max_archive_backlog') s,
LATERAL (
    SELECT unnest(ARRAY[min_val::int - 1, min_val::int, max_val::int, max_val::int + 1]::text[]) WHERE vartype = 'integer'
    UNION ALL
    SELECT unnest(ARRAY['strict', 'accept-new', 'off', 'until_proven', 'always', 'no', '']) WHERE vartype = 'enum'
    UNION ALL
    SELECT unnest(ARRAY['', 'plain', 'two words', '/abs', '~/home', '~user/home', '-dash', '.dot', '%percent', '_under',
                        '::1', 'fe80::1%eth0', 'host.example', 'a@b', 'a/b', E'a\nb', E'a\x7fb', '''', '$(reboot)',
                        repeat('x', 255), repeat('x', 256),
                        'sslmode=require', '  sslmode = require  ', 'sslmode=', 'sslmode= ', 'sslmode=require sslrootcert', '=x', 'a b=c',
                        $$sslrootcert='/my certs/host=db1' keepalives=1$$, $$sslrootcert='a'sslmode=require$$, $$sslrootcert='$$,
                        $$sslrootcert=' a$$, $$sslrootcert='it\'s'$$, $$sslrootcert='it\'$$, $$sslrootcert='it''s'$$, $$sslrootcert=it's$$,
                        $$sslrootcert=a\ host=b$$, $$sslrootcert=\'a sslmode=c$$, 'options=-cwork_mem=1', 'SSLMODE=require', 'sslmode=require,verify=1',
                        'host=db1', 'sslmode=require host=db1', 'sslmode=require  port  = 1', 'hostaddr=::1', 'user=x', 'dbname=x', 'replication=1',
                        'password=x', 'sslpassword=x', $$sslrootcert='a'password=x$$, $$sslrootcert=\ password=x$$,
                        'postgresql.conf', 'postgresql.auto.conf', '/data/postgresql.auto.conf', './/postgresql.conf', 'my.postgresql.conf', 'pg_hba.conf',
                        'pg_ident.conf', 'a/standby.signal', 'recovery.signal', 'recovery.conf', 'backup_label', 'tablespace_map', 'backup_manifest',
                        'PG_VERSION', 'postmaster.pid', 'postmaster.opts', 'current_logfiles', 'folder/', '.', '..', 'a/.', 'a/..', '../own.conf',
                        'a/../own.conf', '/a/../own.conf', 'a../own.conf', '..a/own.conf', 'global/own.conf', './/base/own.conf', '././pg_wal/own.conf',
                        '/global/own.conf', 'a/global/own.conf', 'pg_own.conf', './pg_own.conf', 'globals/own.conf', 'pg_/x',
                        'passfile=/a', 'postgresql:///?sslmode=require', 'postgres://db1'])
    WHERE vartype = 'string') v(value),
pg_temp.taken(format('SET follow_primary.%I = %L', name, value)) in_setting,
pg_temp.taken(format('UPDATE follow_primary_node SET %I = %L', name, value)) in_table
WHERE in_setting <> in_table
ORDER BY 1, 2;

-- Its other columns judge as the arguments of their names do.
\pset tuples_only on
SELECT left(v, 20), pg_temp.taken(format('INSERT INTO follow_primary_node (host) VALUES (%L)', v))
FROM unnest(ARRAY['-db', '.db', '%db', 'a@b', 'a b', '', 'DB3', 'db5', 'fe80::1%eth0']) v;
SELECT left(v, 20), pg_temp.taken(format('UPDATE follow_primary_node SET pgdata = %L WHERE host = ''db3''', v))
FROM unnest(ARRAY['', 'data', '~/data', '/', '/..//', '/.', E'/a\nb', '/' || repeat('d', 1023), '/data', '//data', '/.pg', '/' || repeat('é', 512)]) v;
SELECT left(v, 20), pg_temp.taken(format('UPDATE follow_primary_node SET slot_name = %L WHERE host = ''db3''', v))
FROM unnest(ARRAY['', 'db-3', 'Db3', repeat('d', 64), 'db3', repeat('d', 63)]) v;
SELECT left(v, 20), pg_temp.taken(format('UPDATE follow_primary_node SET application_name = %L WHERE host = ''db3''', v))
FROM unnest(ARRAY['', 'dbé', E'a\tb', repeat('d', 64), 'db 3', repeat('d', 63)]) v;
SELECT pg_temp.taken('UPDATE follow_primary_node SET node_id = -1'),
       pg_temp.taken('UPDATE follow_primary_node SET node_id = 128'),
       pg_temp.taken('UPDATE follow_primary_node SET port = 0'),
       pg_temp.taken('UPDATE follow_primary_node SET replication_options = ''sslmode=require Password = x''');
SELECT pg_temp.refusal($$INSERT INTO follow_primary_node (host) VALUES ('DB3')$$);
UPDATE follow_primary_node SET replication_options = 'nonsense=1' WHERE host = 'db3';
SELECT pg_temp.refusal($$SELECT follow_primary('db3')$$);

DROP EXTENSION follow_primary;
