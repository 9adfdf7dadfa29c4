-- Which method follows from which facts: the truth table of plan_choose().
-- Facts that a row leaves out are of a healthy cluster after a failover: the
-- primary was promoted from timeline 1 to 2 at 0/13000000, the node is a standby
-- that has received and replayed up to there (unit.c has them all).
SET client_min_messages = warning;
\set VERBOSITY terse
CREATE FUNCTION pg_temp.plan(facts text) RETURNS text
    LANGUAGE c STRICT AS '$libdir/follow_primary', 'follow_primary_unit_plan';
\pset format unaligned
\pset tuples_only on
\pset fieldsep '\n    '
\pset recordsep '\n'

-- Refusals: the wrong server, or one that must not be touched. None of them
-- depends on the method that is asked for.
SELECT what, facts, pg_temp.plan(facts) FROM (VALUES
    (1, 'called on a standby', 'p.standby=yes'),
    (2, 'the node is this server', 'self=yes'),
    (3, 'PGDATA of another server than the one on the port', 'other_owner=yes'),
    (4, 'the server of PGDATA listens elsewhere', 'other_port=5433'),
    (5, 'PGDATA is missing', 'pgdata=missing'),
    (6, 'PGDATA is missing, and the node down', 'pgdata=missing state=down rejoin=yes'),
    (7, 'PGDATA is something else', 'pgdata=foreign'),
    (8, 'PGDATA is something else, a copy asked for', 'pgdata=foreign state=down rejoin=yes asked=basebackup'),
    (9, 'PGDATA is unreadable', 'pgdata=unreadable'),
    (10, 'another cluster', 'sysid=2'),
    (11, 'another cluster, down, a copy asked for', 'sysid=2 state=down rejoin=yes asked=basebackup'),
    (12, 'no control file to tell the cluster by', 'sysid=0 state=down rejoin=yes'),
    (13, 'the same, a copy asked for', 'sysid=0 state=down rejoin=yes asked=basebackup'),
    (14, 'the same, a rewind asked for', 'sysid=0 state=down rejoin=yes asked=rewind'),
    (15, 'data of another version', 'version=14'),
    (16, 'programs of another version', 'bin=16'),
    (17, 'programs of another version for an empty PGDATA', 'bin=16 pgdata=empty state=down rejoin=yes'),
    (18, 'a primary on a higher timeline', 'state=primary tli=3 lsn=0/15000000 history=1@0/13000000,2@0/14000000'),
    (19, 'the same, a copy asked for', 'state=primary tli=3 lsn=0/15000000 history=1@0/13000000,2@0/14000000 asked=basebackup'),
    (20, 'a standby on a higher timeline', 'tli=3 lsn=0/15000000 history=1@0/13000000,2@0/14000000'),
    (21, 'the same, a copy asked for', 'tli=3 lsn=0/15000000 history=1@0/13000000,2@0/14000000 asked=basebackup'),
    (22, 'down on a higher timeline', 'state=down rejoin=yes tli=3 lsn=0/15000000 history=1@0/13000000,2@0/14000000'),
    (23, 'the slot is a logical one', 'p.slot=yes p.slot_logical=yes'),
    (24, 'the slot is of another node', 'p.slot=yes p.slot_active=yes p.slot_user=yes'),
    (50, 'the node itself streams through it, whose port was another', 'p.slot=yes p.slot_active=yes p.slot_user=yes uses_slot=yes'),
    (25, 'somebody else streams through the slot', 'p.slot=yes p.slot_active=yes'),
    (41, 'the node''s own dead WAL sender has the slot', 'p.slot=yes p.slot_active=yes p.slot_of_node=yes'),
    (26, 'no slot is free', 'p.free_slots=0'),
    (27, 'none is free, the node has one', 'p.free_slots=0 p.slot=yes'),
    (28, 'no WAL sender is free', 'p.free_senders=0'),
    (29, 'one is free, for a repoint', 'p.free_senders=1'),
    (30, 'one is free, for a copy', 'p.free_senders=1 asked=basebackup'),
    (31, 'two are free, for a copy', 'p.free_senders=2 asked=basebackup'),
    (32, 'none is free, the node follows already',
         'p.free_senders=0 p.free_slots=0 p.slot=yes p.slot_active=yes uses_slot=yes streaming=yes receiver_tli=2 tli=2 lsn=0/14000000 history=1@0/13000000'),
    (33, 'none is free, the node is to be left alone', 'state=down p.free_senders=0 p.free_slots=0'),
    (34, 'no postgresql.conf', 'state=down rejoin=yes no_config=yes'),
    (35, 'the same, but an interrupted job may have put it aside', 'state=down rejoin=yes no_config=yes mark=half'),
    (36, 'the settings file is another''s', 'file_taken=yes'),
    (37, 'the same, and it follows already', 'file_taken=yes streaming=yes receiver_tli=2 p.slot=yes p.slot_active=yes uses_slot=yes tli=2 lsn=0/14000000 history=1@0/13000000'),
    (38, 'its start command sets what a job writes', 'started_with=yes'),
    (39, 'the same, and it follows already', 'started_with=yes streaming=yes receiver_tli=2 p.slot=yes p.slot_active=yes uses_slot=yes tli=2 lsn=0/14000000 history=1@0/13000000'),
    (42, 'its server refuses our login', 'sql=no refused=yes'),
    (43, 'the same, a copy asked for', 'sql=no refused=yes asked=basebackup'),
    (44, 'the role may not connect once more', 'p.free_logins=0'),
    (45, 'only once more, for a copy', 'p.free_logins=1 asked=basebackup'),
    (46, 'twice, for a copy', 'p.free_logins=2 asked=basebackup'),
    (47, 'its server was not found, but somebody has its port', 'state=down not_down=yes'),
    (48, 'the same, and it is to be started, by a copy', 'state=down not_down=yes rejoin=yes asked=basebackup'),
    (49, 'down, its PGDATA not known, another server on its host', 'state=down pgdata=unknown other_servers=yes')
) t(n, what, facts) ORDER BY n;

-- A node that is down
SELECT what, facts, pg_temp.plan(facts) FROM (VALUES
    (1, 'left alone by default', 'state=down'),
    (2, 'whatever is asked for', 'state=down asked=basebackup'),
    (3, 'even if nothing is known of it', 'state=down pgdata=unknown'),
    (4, 'but it cannot rejoin then', 'state=down pgdata=unknown rejoin=yes'),
    (5, 'a crashed former primary', 'state=down rejoin=yes was_primary=yes lsn=0/12800000'),
    (6, 'a former primary that was shut down exactly at the fork', 'state=down rejoin=yes was_primary=yes lsn=0/13000000'),
    (7, 'a few records before it', 'state=down rejoin=yes was_primary=yes lsn=0/12FFFF00'),
    (8, 'after it', 'state=down rejoin=yes was_primary=yes lsn=0/13000100'),
    (9, 'a stopped standby', 'state=down rejoin=yes'),
    (10, 'cannot be repointed', 'state=down rejoin=yes asked=repoint'),
    (11, 'no checksums, no wal_log_hints', 'state=down rejoin=yes was_primary=yes hints=no'),
    (12, 'checksums alone', 'state=down rejoin=yes was_primary=yes hints=no checksums=yes'),
    (13, 'full_page_writes is off here', 'state=down rejoin=yes was_primary=yes p.fpw=no'),
    (14, 'an empty data directory', 'state=down rejoin=yes pgdata=empty tli=0'),
    (15, 'an empty data directory, a rewind asked for', 'state=down rejoin=yes pgdata=empty tli=0 asked=rewind'),
    (16, 'the WAL since the fork is gone here', 'state=down rejoin=yes lsn=0/12000000 p.oldest=0/13800000'),
    (17, 'shut down, with no WAL that is not here', 'state=down rejoin=yes ended_here=yes lsn=0/12FFFFA0'),
    (18, 'the same, and no rewind is possible', 'state=down rejoin=yes ended_here=yes lsn=0/12FFFFA0 hints=no p.fpw=no'),
    (19, 'the same, left alone by default', 'state=down ended_here=yes lsn=0/12FFFFA0'),
    (20, 'the same, a repoint asked for', 'state=down rejoin=yes ended_here=yes lsn=0/12FFFFA0 asked=repoint'),
    (21, 'the same, a rewind asked for', 'state=down rejoin=yes ended_here=yes lsn=0/12FFFFA0 asked=rewind'),
    (22, 'the same, and the WAL after it is gone here', 'state=down rejoin=yes ended_here=yes lsn=0/12FFFFA0 p.oldest=0/13800000'),
    (23, 'the same, which this server''s timeline left before', 'state=down rejoin=yes ended_here=yes lsn=0/13000018'),
    (24, 'the same, half changed by a job', 'state=down rejoin=yes ended_here=yes lsn=0/12FFFFA0 mark=half')
) t(n, what, facts) ORDER BY n;

-- A standby whose WAL this server has
SELECT what, facts, pg_temp.plan(facts) FROM (VALUES
    (1, 'up to the fork', ''),
    (2, 'less', 'lsn=0/12000000'),
    (3, 'asked for', 'asked=repoint'),
    (4, 'a rewind asked for all the same', 'asked=rewind'),
    (5, 'a copy asked for all the same', 'asked=basebackup'),
    (6, 'a standby of this server, without a slot', 'tli=2 lsn=0/14000000 history=1@0/13000000 streaming=yes receiver_tli=2'),
    (7, 'a standby of this server, through another slot', 'tli=2 lsn=0/14000000 history=1@0/13000000 streaming=yes receiver_tli=2 p.slot=yes'),
    (8, 'follows already', 'tli=2 lsn=0/14000000 history=1@0/13000000 streaming=yes receiver_tli=2 p.slot=yes p.slot_active=yes uses_slot=yes'),
    (9, 'follows already, a repoint asked for', 'asked=repoint tli=2 lsn=0/14000000 history=1@0/13000000 streaming=yes receiver_tli=2 p.slot=yes p.slot_active=yes uses_slot=yes'),
    (10, 'streams the old timeline yet', 'streaming=yes receiver_tli=1 p.slot=yes p.slot_active=yes uses_slot=yes'),
    (11, 'two failovers behind', 'lsn=0/12000000 p.tli=3 p.history=1@0/13000000,2@0/13500000'),
    (12, 'its settings need a restart', 'latest=no'),
    (13, 'its version needs a restart', 'reloadable=no'),
    (14, 'its next WAL is the oldest here', 'lsn=0/12000000 p.oldest=0/12000000'),
    (15, 'its next WAL is gone', 'lsn=0/12000000 p.oldest=0/12800000'),
    (16, 'gone, a repoint asked for', 'lsn=0/12000000 p.oldest=0/12800000 asked=repoint'),
    (17, 'gone, but in the archive', 'lsn=0/12000000 p.oldest=0/12800000 archive=yes'),
    (18, 'in the archive that it does not use yet', 'lsn=0/12000000 p.oldest=0/12800000 archive=yes archive_restart=yes'),
    (19, 'its recovery is paused', 'paused=yes'),
    (20, 'it cannot be asked', 'sql=no'),
    (21, 'it cannot be asked, a repoint asked for', 'sql=no asked=repoint'),
    (22, 'how far it is, is not known', 'tli=0'),
    (23, 'streams from a standby by a slot of that name', 'from_us=no tli=2 lsn=0/14000000 history=1@0/13000000 streaming=yes receiver_tli=2 p.slot=yes p.slot_active=yes uses_slot=yes'),
    (24, 'a setting of it is too low for WAL of this server', 'too_low=yes'),
    (25, 'the same, and it is to be restarted', 'too_low=yes latest=no'),
    (26, 'a recovery target is in force', 'target=yes'),
    (27, 'which it has reached', 'target=yes paused=yes'),
    (28, 'it follows already, and its next start would have a recovery target', 'target=written tli=2 lsn=0/14000000 history=1@0/13000000 streaming=yes receiver_tli=2 p.slot=yes p.slot_active=yes uses_slot=yes')
) t(n, what, facts) ORDER BY n;

-- A node with WAL that this server lacks
SELECT what, facts, pg_temp.plan(facts) FROM (VALUES
    (1, 'a sibling that received more than the promoted one', 'lsn=0/13000100'),
    (2, 'the same, a repoint asked for', 'lsn=0/13000100 asked=repoint'),
    (3, 'the same, it cannot be rewound', 'lsn=0/13000100 hints=no'),
    (4, 'the same, a rewind asked for that cannot be', 'lsn=0/13000100 hints=no asked=rewind'),
    (5, 'the former primary runs', 'state=primary lsn=0/13800000'),
    (6, 'it runs, and wrote nothing after the fork', 'state=primary lsn=0/13000000'),
    (7, 'it runs, a repoint asked for', 'state=primary lsn=0/13000000 asked=repoint'),
    (8, 'two failovers behind, and past the first fork', 'lsn=0/13000100 p.tli=3 p.history=1@0/13000000,2@0/13500000'),
    (9, 'past the second fork', 'tli=2 lsn=0/13600000 history=1@0/13000000 p.tli=3 p.history=1@0/13000000,2@0/13500000'),
    (10, 'promoted elsewhere, to a timeline that this server skipped', 'state=primary tli=2 lsn=0/13600000 history=1@0/12800000 p.tli=3 p.history=1@0/13000000'),
    (11, 'promoted to the same timeline at another place', 'state=primary tli=2 lsn=0/13600000 history=1@0/12800000'),
    (12, 'promoted to the same timeline at the same place', 'state=primary tli=2 lsn=0/13600000 history=1@0/13000000'),
    (13, 'the same, now down', 'state=down rejoin=yes was_primary=yes tli=2 lsn=0/13600000 history=1@0/13000000'),
    (14, 'the same, a rewind asked for', 'state=primary tli=2 lsn=0/13600000 history=1@0/13000000 asked=rewind'),
    (15, 'a standby of such a one', 'forked=yes tli=2 lsn=0/13600000 history=1@0/13000000'),
    (16, 'which even streams from this server', 'forked=yes tli=2 lsn=0/13600000 history=1@0/13000000 streaming=yes receiver_tli=2 p.slot=yes p.slot_active=yes uses_slot=yes'),
    (17, 'no history in common', 'state=primary tli=3 lsn=0/13600000 history=2@0/13000000 p.tli=4 p.history=1@0/13000000'),
    (18, 'the WAL since the fork is gone here', 'lsn=0/13900000 p.oldest=0/13800000'),
    (19, 'gone, but there is an archive', 'lsn=0/13900000 p.oldest=0/13800000 archive=yes'),
    (20, 'a standby ahead of this server on its own timeline', 'tli=2 lsn=0/14000100 history=1@0/13000000'),
    (21, 'which even streams from this server', 'tli=2 lsn=0/14000100 history=1@0/13000000 streaming=yes receiver_tli=2 p.slot=yes p.slot_active=yes uses_slot=yes'),
    (22, 'paused, and past the fork', 'lsn=0/13000100 paused=yes'),
    (23, 'a standby of one that was promoted to the same timeline at another place', 'tli=2 lsn=0/13600000 history=1@0/12800000'),
    (24, 'the same, a rewind asked for', 'tli=2 lsn=0/13600000 history=1@0/12800000 asked=rewind'),
    (25, 'both were promoted twice, and apart from the first time on', 'state=primary forked=yes forked_at=2 tli=3 lsn=0/15600000 history=1@0/13000000,2@0/15000000 p.tli=3 p.history=1@0/13000000,2@0/15000000')
) t(n, what, facts) ORDER BY n;

-- What an interrupted job left
SELECT what, facts, pg_temp.plan(facts) FROM (VALUES
    (1, 'a standby that it had stopped', 'state=down mark=before'),
    (2, 'that runs again', 'mark=before'),
    (3, 'half rewound', 'state=down mark=half'),
    (4, 'half rewound, no control file', 'state=down mark=half sysid=0'),
    (5, 'half rewound, a rewind asked for', 'state=down mark=half asked=rewind'),
    (6, 'half rewound, and somebody started it', 'mark=half streaming=yes receiver_tli=2 p.slot=yes p.slot_active=yes uses_slot=yes tli=2 lsn=0/14000000 history=1@0/13000000'),
    (7, 'half rewound, on a higher timeline', 'state=down mark=half tli=3 lsn=0/15000000 history=1@0/13000000,2@0/14000000'),
    (8, 'half swapped', 'state=down mark=swapping pgdata=empty tli=0'),
    (9, 'swapped, not yet proven', 'state=down mark=changed'),
    (10, 'swapped, and it follows', 'mark=changed streaming=yes receiver_tli=2 p.slot=yes p.slot_active=yes uses_slot=yes tli=2 lsn=0/14000000 history=1@0/13000000'),
    (11, 'swapped, of another cluster', 'state=down mark=changed sysid=2'),
    (12, 'swapped or rewound, a rewind asked for', 'state=down mark=changed asked=rewind'),
    (13, 'the old data removed to make room', 'state=down mark=cleared pgdata=empty tli=0'),
    (14, 'the same, a rewind asked for', 'state=down mark=cleared pgdata=empty tli=0 asked=rewind'),
    (15, 'the same, a copy asked for', 'state=down mark=cleared pgdata=empty tli=0 asked=basebackup'),
    (16, 'swapped or rewound, then a primary itself, which is down: an old mark', 'state=down mark=changed was_primary=yes lsn=0/13000100'),
    (17, 'the same, to be brought back', 'state=down rejoin=yes mark=changed was_primary=yes lsn=0/13000100'),
    (18, 'the same, on a higher timeline', 'state=down rejoin=yes mark=changed was_primary=yes tli=3 lsn=0/15000000 history=1@0/13000000,2@0/14000000'),
    (19, 'stopped, then started and promoted by somebody, and down', 'state=down mark=before was_primary=yes tli=3 lsn=0/15000000 history=1@0/13000000,2@0/14000000'),
    (20, 'stopped or swapped, then the standby of a newer primary', 'mark=changed tli=3 lsn=0/15000000 history=1@0/13000000,2@0/14000000'),
    (21, 'the same, and it is said that this is the right primary', 'mark=changed tli=3 lsn=0/15000000 history=1@0/13000000,2@0/14000000 asked=rewind'),
    (22, 'swapped by the job of a primary that is lost', 'state=down mark=changed lsn=0/13000100'),
    (23, 'the same, a rewind asked for', 'state=down mark=changed lsn=0/13000100 asked=rewind'),
    (24, 'half swapped, the old data still in place', 'state=down mark=swapping lsn=0/13000100'),
    (25, 'swapped, and then emptied by somebody', 'state=down mark=changed pgdata=empty tli=0')
) t(n, what, facts) ORDER BY n;

-- A copy for which there is no room
SELECT what, facts, pg_temp.plan(facts) FROM (VALUES
    (1, 'nothing is missing', 'asked=basebackup in_place=yes'),
    (2, 'something is', 'asked=basebackup missing=7'),
    (3, 'a copy in place is permitted', 'asked=basebackup missing=7 in_place=yes'),
    (4, 'without being asked', 'lsn=0/13000100 hints=no missing=7 in_place=yes'),
    (5, 'not even in place', 'asked=basebackup missing=7 missing_without_old=3 in_place=yes'),
    (6, 'the old data is to be kept', 'asked=basebackup missing=7 in_place=yes keep=yes'),
    (7, 'there is no old data', 'state=down rejoin=yes pgdata=empty tli=0 missing=7 in_place=yes'),
    (8, 'it is not known what would be lost', 'state=down rejoin=yes sysid=0 tli=0 asked=basebackup missing=7 in_place=yes'),
    (9, 'half rewound, so it was saved before', 'state=down mark=half sysid=0 tli=0 missing=7 in_place=yes'),
    (10, 'the old data is half removed already', 'state=down mark=cleared pgdata=empty tli=0 missing=7'),
    (11, 'no room is needed for a rewind', 'lsn=0/13000100 missing=7'),
    (12, 'nor for what is in place', 'state=down mark=changed missing=7'),
    (13, 'a node that is down is left alone', 'state=down missing=7 in_place=yes'),
    (14, 'another primary began with it', 'state=down mark=half sysid=0 tli=0 missing=7 in_place=yes keep_foreign=yes')
) t(n, what, facts) ORDER BY n;
