-- What is made of names and values on their way into files and shells: slot
-- names, connection strings, settings files, restore_command, shell words.
SET client_min_messages = warning;
\set VERBOSITY terse
-- Doors to the library's own functions; the extension has none of them.
CREATE FUNCTION pg_temp.slot_name(host text) RETURNS text
    LANGUAGE c STRICT AS '$libdir/follow_primary', 'follow_primary_unit_slot_name';
CREATE FUNCTION pg_temp.quote(value text) RETURNS text
    LANGUAGE c STRICT AS '$libdir/follow_primary', 'follow_primary_unit_quote';
CREATE FUNCTION pg_temp.conninfo(base text, options text, host text, port integer, "user" text, application_name text)
    RETURNS text LANGUAGE c AS '$libdir/follow_primary', 'follow_primary_unit_conninfo';
CREATE FUNCTION pg_temp.completed(conninfo text, version_num integer, database text, seconds integer) RETURNS text
    LANGUAGE c STRICT AS '$libdir/follow_primary', 'follow_primary_unit_conninfo_complete';
CREATE FUNCTION pg_temp.is_candidate(name text, list text) RETURNS boolean
    LANGUAGE c STRICT AS '$libdir/follow_primary', 'follow_primary_unit_is_candidate';
CREATE FUNCTION pg_temp.settings_file(version_num integer, conninfo text, slot text, restore_command text)
    RETURNS text LANGUAGE c AS '$libdir/follow_primary', 'follow_primary_unit_recovery_conf';
CREATE FUNCTION pg_temp.guard(command text) RETURNS text
    LANGUAGE c STRICT AS '$libdir/follow_primary', 'follow_primary_unit_restore_command_guard';
\pset format unaligned
\pset tuples_only on

-- Slot names
SELECT host, pg_temp.slot_name(host)
FROM unnest(ARRAY['db3', 'DB-3.Example.COM', '192.0.2.7', 'fe80::1%eth0', '-', 'db_3', 'ÄÖ']) host;
SELECT length(pg_temp.slot_name(repeat('Host.', 50))), pg_temp.slot_name(repeat('Host.', 50)) = left(repeat('host_', 50), 63);

-- Connection strings: a new one
SELECT pg_temp.conninfo(NULL, NULL, 'db2', 5432, 'repl', 'db3');
SELECT pg_temp.conninfo(NULL, '', 'fe80::1%eth0', 5433, 'repl', 'db3');
SELECT pg_temp.conninfo(NULL, 'sslmode=verify-full sslrootcert=''/my certs/ca.crt'' keepalives_idle=30', 'db2', 5432, 'repl', 'db3');
-- values that need quotes
SELECT pg_temp.conninfo(NULL, NULL, 'db2', 5432, v, 'db3')
FROM unnest(ARRAY['', 'two words', 'O''Brien', 'back\slash', '\''', E'tab\t', 'a=b', '#c', '$(reboot)', 'é']) v;
-- and each of them is read back as it was
SELECT count(*) FROM unnest(ARRAY['two words', 'O''Brien', 'back\slash', '\''', E'tab\t', 'a=b', '#c', '$(reboot)', 'é', '  ', '''', '\\', ' x']) v,
pg_temp.conninfo(NULL, NULL, 'db2', 5432, v, v) built
WHERE pg_temp.conninfo(built, NULL, 'db2', 5432, NULL, NULL) = built;
-- a standby's own: host and port change, hostaddr goes, the rest stays
SELECT pg_temp.conninfo('host=db1 hostaddr=192.0.2.1 port=5433 user=walker sslmode=require passfile=''/home/pg user/.pgpass'' application_name=old',
                        NULL, 'db2', 5432, NULL, 'db3');
SELECT pg_temp.conninfo('postgresql://walker@db1:5433/?sslmode=require', NULL, 'db2', 5432, NULL, 'db3');
SELECT pg_temp.conninfo('user=a user=b', NULL, 'db2', 5432, NULL, NULL);
-- what libpq cannot read is not guessed at, nor shown, for it may hold a password
SELECT pg_temp.conninfo('password=secret host', NULL, 'db2', 5432, NULL, NULL);
SELECT pg_temp.conninfo(NULL, 'sslmode=''open', 'db2', 5432, NULL, NULL);

-- Limits for a host of several addresses, of which a WAL receiver knows the second; a user's own stay
SELECT pg_temp.completed('host=db2 port=5432', 150000, 'app', 10);
SELECT pg_temp.completed('host=db2 port=5432', 110000, 'app', 10);
SELECT pg_temp.completed('host=db2 connect_timeout=0', 150000, 'app', 1);
SELECT pg_temp.completed('host=db2 tcp_user_timeout=500', 150000, 'app', 3600);
SELECT pg_temp.completed('host=db2', 170000, 'O''Brien', 10);
SELECT pg_temp.completed('host=db2 dbname=orders', 170000, 'app', 10);

-- Is a standby of that name one that commits may wait for?
SELECT list, pg_temp.is_candidate('db3', list) FROM unnest(ARRAY['', 'db3', 'DB3', '"db3"', 'db33', 'a, db3', ' a , DB3 ', '*', 'FIRST 2 (a, db3)', 'first 1(db3)',
    'ANY 1 (a,"db3")', '2 (a, b, db3)', '1 (*)', '"FIRST 1 (db3)"', '"a,db3"', '"(", db3', 'ANY 1 ("a)", db3)', 'ANY 1 (db3', '"db3']) list;
SELECT name, list, pg_temp.is_candidate(name, list)
FROM (VALUES ('It''s "db 3"', 'ANY 1 ("It''s ""db 3""")'), ('(', '"("'), ('*', 'db3'), ('first', 'FIRST 1 (a)'), ('a b', 'a b')) v (name, list);

-- The settings file, before PostgreSQL 12 and since
SELECT pg_temp.settings_file(110002, 'host=db2 port=5432', 'db3', NULL);
SELECT pg_temp.settings_file(120000, 'host=db2 port=5432', 'db3', NULL);
SELECT pg_temp.settings_file(180000, 'host=db2 port=5432', 'db3', 'cp /archive/%f "%p"');
SELECT pg_temp.settings_file(150000, 'host=db2', 'db3', '');
SELECT pg_temp.settings_file(150000, 'user=''O\''Brien'' application_name=''a\\b''', 'db3', 'cp ''/the archive/%f'' "%p" \ # $(x)');

-- A restore_command that cannot end recovery by its exit code
SELECT pg_temp.guard('scp archive:/wal/%f %p');
SELECT pg_temp.guard('test -f /wal/%f && cp /wal/%f %p');
SELECT pg_temp.guard('exit 255');
SELECT pg_temp.guard('cp /wal/%f %p # from the archive');

-- Shell words
SELECT pg_temp.quote(v) FROM unnest(ARRAY['', 'plain', 'two words', '''', 'it''s', '"', '\', '$HOME', '`id`', '$(id)', '!!', '*', '-n', '~', 'é', E'line\nbreak', ';#&|<>']) v;
