-- Three roles in place of one: an owner, who changes the schema; a writer, for engines; a reader, for
-- everybody else. No numbered migration: run it as a superuser, with psql, when the tables are there,
-- and again when a new version has changed them; what it finds done it leaves.
--
--     psql DATABASE -v schema=ticks -v owner=fts_owner -v writer=fts_writer -v reader=fts_reader \
--         -f roles.sql
--
-- The values above are the defaults, but for the schema: public. The roles get no password here.

\set ON_ERROR_STOP on
\if :{?schema} \else \set schema public \endif
\if :{?owner} \else \set owner fts_owner \endif
\if :{?writer} \else \set writer fts_writer \endif
\if :{?reader} \else \set reader fts_reader \endif

BEGIN;
SET LOCAL client_min_messages = warning;
SELECT set_config('fts.schema', :'schema', true), set_config('fts.owner', :'owner', true) \g /dev/null

SELECT format('CREATE ROLE %I LOGIN', r.name)
FROM unnest(ARRAY[:'owner', :'writer', :'reader']) AS r (name)
WHERE NOT EXISTS (SELECT FROM pg_roles AS p WHERE p.rolname = r.name) \gexec

-- The owner: migrations, the upkeep. He may make what is not there yet.
SELECT format('GRANT CREATE, TEMPORARY ON DATABASE %I TO %I', current_database(), :'owner') \gexec
CREATE SCHEMA IF NOT EXISTS :"schema" AUTHORIZATION :"owner";
GRANT USAGE, CREATE ON SCHEMA :"schema" TO :"owner";

-- What migrations have made so far is his: their tables, what belongs to these, and what reads them.
DO $$
DECLARE
    home oid := quote_ident(current_setting('fts.schema'))::regnamespace;
    heir text := current_setting('fts.owner');
    maker oid := (SELECT c.relowner FROM pg_class AS c
                  WHERE c.relnamespace = home AND c.relname = 'schema_version');
    made text[] := ARRAY[
        'schema_version', 'instrument', 'instrument_event', 'stream', 'stream_registry', 'trade',
        'book', 'quote', 'funding', 'open_interest', 'liquidation', 'gap', 'gap_reason',
        'gap_state', 'ring_loss', 'ingest_cursor', 'coverage', 'coverage_carrier', 'coverage_end',
        'quarantined_row', 'bar_1s', 'bar_1m', 'bar_todo', 'bar_fill', 'bar_state', 'ns_time',
        'row_span', 'row_span_begin', 'make_day', 'bars_by', 'mark_bars', 'bars_of_trades',
        'hours_with_trades', 'bars', 'begin_row_spans', 'note_row_spans', 'forget_row_spans',
        'stream_ids', 'rare_spans', 'rare_from', 'bars_raw', 'spread', 'gaps_in', 'complete',
        'book_snapshot_before', 'book_at', 'nearest', 'base_quantity', 'nearest_base_quantity',
        'fill_unknown_facts', 'newest_trade_times', 'newest_book_times',
        'newest_quote_times', 'newest_funding_times', 'newest_open_interest_times',
        'newest_liquidation_times'];
    each record;
BEGIN
    FOR each IN
        WITH RECURSIVE ours (class, oid) AS (
            SELECT c.tableoid, c.oid FROM pg_class AS c
            WHERE c.relnamespace = home AND c.relname = ANY (made)
            UNION
            SELECT p.tableoid, p.oid FROM pg_proc AS p
            WHERE p.pronamespace = home AND p.proname = ANY (made)
            UNION
            SELECT coalesce(r.class, d.classid), coalesce(r.oid, d.objid)
            FROM ours AS o
            JOIN pg_depend AS d ON (d.refclassid, d.refobjid) = (o.class, o.oid)
            LEFT JOIN (SELECT 'pg_rewrite'::regclass, r.oid, 'pg_class'::regclass::oid, r.ev_class
                       FROM pg_rewrite AS r) AS r (rule_class, rule, class, oid)
                ON (r.rule_class, r.rule) = (d.classid, d.objid)
        )
        SELECT 0 AS place, o.class, o.oid,
            CASE c.relkind WHEN 'v' THEN 'VIEW ' ELSE 'TABLE ' END || c.oid::regclass AS what
        FROM ours AS o JOIN pg_class AS c ON (c.tableoid, c.oid) = (o.class, o.oid)
        WHERE c.relkind IN ('r', 'p', 'v')
        UNION ALL
        SELECT 1, o.class, o.oid, 'ROUTINE ' || p.oid::regprocedure
        FROM ours AS o JOIN pg_proc AS p ON (p.tableoid, p.oid) = (o.class, o.oid)
        ORDER BY place, oid
    LOOP
        -- Looked at one by one: chunks have followed their hypertable.
        IF EXISTS (SELECT FROM pg_class AS c WHERE (c.tableoid, c.oid) = (each.class, each.oid)
                   AND c.relowner = maker)
            OR EXISTS (SELECT FROM pg_proc AS p WHERE (p.tableoid, p.oid) = (each.class, each.oid)
                       AND p.proowner = maker)
        THEN
            EXECUTE format('ALTER %s OWNER TO %I', each.what, heir);
        END IF;
    END LOOP;
END
$$;

-- The writer: stores rows, moves cursors, has partitions made; he can change no row of a market and
-- delete none. `fts doctor` names what he lacks.
SELECT format('GRANT CONNECT, TEMPORARY ON DATABASE %I TO %I', current_database(), :'writer') \gexec
GRANT USAGE ON SCHEMA :"schema" TO :"writer";
GRANT SELECT ON ALL TABLES IN SCHEMA :"schema" TO :"writer";
SELECT format('GRANT %s ON %I.%I TO %I', w.privileges, :'schema', c.relname, :'writer')
FROM (VALUES
    ('INSERT', ARRAY['instrument', 'instrument_event', 'stream', 'trade', 'book', 'quote', 'funding',
                     'open_interest', 'liquidation', 'bar_todo',
                     'row_span']),
    ('UPDATE', ARRAY['bar_state']),
    ('INSERT, UPDATE', ARRAY['gap', 'ring_loss', 'coverage', 'quarantined_row']),
    ('INSERT, UPDATE, DELETE', ARRAY['ingest_cursor', 'coverage_carrier', 'stream_registry'])
) AS w (privileges, tables)
JOIN pg_class AS c ON c.relname = ANY (w.tables)
WHERE c.relnamespace = quote_ident(:'schema')::regnamespace \gexec
GRANT USAGE ON ALL SEQUENCES IN SCHEMA :"schema" TO :"writer";
SELECT format('GRANT EXECUTE ON FUNCTION %s TO %I', p.oid::regprocedure, :'writer')
FROM pg_proc AS p
WHERE p.pronamespace = quote_ident(:'schema')::regnamespace AND p.proname IN ('make_day', 'begin_row_spans', 'fill_unknown_facts') \gexec

-- The reader: every table and view, and functions that read.
SELECT format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), :'reader') \gexec
GRANT USAGE ON SCHEMA :"schema" TO :"reader";
GRANT SELECT ON ALL TABLES IN SCHEMA :"schema" TO :"reader";

-- What the owner makes later is seen by both.
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA :"schema"
    GRANT SELECT ON TABLES TO :"writer", :"reader";
COMMIT;
