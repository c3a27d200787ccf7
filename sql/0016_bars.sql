-- Bars of a second and of a minute, where `database.bars` is on (docs/bars.md). They are kept up to
-- date by the upkeep (engine/upkeep/tasks/bars): from marks that the writer leaves in the transaction of
-- the rows, or, where TimescaleDB can, as continuous aggregates in place of the two tables.
--
-- Numbers are mantissas as in trade; sums are numeric, for they need not fit 64 bits. A partition a
-- day, made by the upkeep when a bar needs it.

CREATE TABLE bar_1s (
    time         timestamptz NOT NULL,
    open         int8 NOT NULL,
    high         int8 NOT NULL,
    low          int8 NOT NULL,
    close        int8 NOT NULL,
    trade_count  int8 NOT NULL,
    stream_id    int4 NOT NULL,
    volume       numeric NOT NULL,
    quote_volume numeric NOT NULL,
    buy_volume   numeric NOT NULL,
    PRIMARY KEY (stream_id, time)
) PARTITION BY RANGE (time);

CREATE TABLE bar_1m (LIKE bar_1s, PRIMARY KEY (stream_id, time)) PARTITION BY RANGE (time);

-- For all symbols of some seconds: the key begins with the stream.
CREATE INDEX bar_1s_time ON bar_1s USING brin (time)
    WITH (pages_per_range = 32, autosummarize = on);
CREATE INDEX bar_1m_time ON bar_1m USING brin (time)
    WITH (pages_per_range = 32, autosummarize = on);

COMMENT ON TABLE bar_1s IS 'Bars of a second, mantissas as in trade (view bars_1s)';
COMMENT ON TABLE bar_1m IS 'Bars of a minute, mantissas as in trade (view bars_1m)';

-- One mark a minute and commit, never updated: two writers do not wait for each other.
CREATE TABLE bar_todo (minute timestamptz NOT NULL);

COMMENT ON TABLE bar_todo IS
    'Minutes with trades that are not in the bars yet, marked in the transaction of the trades';

CREATE TABLE bar_fill (hour timestamptz PRIMARY KEY);

COMMENT ON TABLE bar_fill IS 'Hours with trades from before bars were on, that are not in them yet';

CREATE TABLE bar_state (
    is_only   boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    is_marked boolean NOT NULL DEFAULT false,
    is_listed boolean NOT NULL DEFAULT false,
    dropped   timestamptz NOT NULL DEFAULT '-infinity',
    seconds_dropped timestamptz NOT NULL DEFAULT '-infinity'
);

INSERT INTO bar_state DEFAULT VALUES;

COMMENT ON COLUMN bar_state.is_marked IS 'Whether every transaction with trades leaves its marks';
COMMENT ON COLUMN bar_state.is_listed IS 'Whether bar_fill has got all hours from before that';
COMMENT ON COLUMN bar_state.dropped IS
    'Up to when trades may have been dropped: an aggregate that is refreshed there loses its bars';
COMMENT ON COLUMN bar_state.seconds_dropped IS 'The same of bars of a second';

-- How the bars of this database are kept: 'aggregates' of TimescaleDB, or 'marks'. Bars that were
-- begun with marks go on so.
CREATE FUNCTION bars_by() RETURNS text LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
DECLARE
    is_hypertable bool;
BEGIN
    IF (SELECT relkind = 'v' FROM pg_class WHERE oid = to_regclass('bar_1s')) THEN
        RETURN 'aggregates';
    END IF;
    IF EXISTS (SELECT FROM pg_inherits WHERE inhparent = to_regclass('bar_1s'))
        OR current_setting('timescaledb.license', true) IS DISTINCT FROM 'timescale'
        OR NOT EXISTS (
            SELECT FROM pg_extension
            WHERE extname = 'timescaledb'
                AND string_to_array(split_part(extversion, '-', 1), '.')::int[] >= '{2,21}')
    THEN
        RETURN 'marks';
    END IF;
    EXECUTE 'SELECT EXISTS (SELECT FROM timescaledb_information.hypertables AS h '
        'WHERE format(''%I.%I'', h.hypertable_schema, h.hypertable_name)::regclass '
        '= to_regclass(''trade''))' INTO is_hypertable;
    RETURN CASE WHEN is_hypertable THEN 'aggregates' ELSE 'marks' END;
END
$$;

-- What a writer says when it has its cursors, so that none before it can still commit rows; the
-- answer is whether it has to leave marks. Whoever leaves none makes all bars doubtful: when they
-- are on again, every hour is looked at again.
CREATE FUNCTION mark_bars(wanted bool) RETURNS bool LANGUAGE plpgsql SET search_path FROM CURRENT
AS $$
BEGIN
    wanted := wanted AND bars_by() = 'marks';
    UPDATE bar_state SET is_marked = wanted, is_listed = false WHERE is_marked <> wanted;
    RETURN wanted;
END
$$;

-- Bars of trades, of any width below a month; weeks begin on Monday, as TimescaleDB's. Of trades of
-- one time the ids tell which was first. Inlined, so that bounds reach the index.
CREATE FUNCTION bars_of_trades(since timestamptz, until timestamptz, width interval)
RETURNS TABLE (
    "time" timestamptz, stream_id int4, open int8, high int8, low int8, close int8, volume numeric,
    quote_volume numeric, buy_volume numeric, trade_count int8
) LANGUAGE sql STABLE BEGIN ATOMIC
    SELECT
        date_bin(width, t.time, '2000-01-03 00:00:00+00'),
        t.stream_id,
        (min(ARRAY[(date_part('epoch', t.time - timestamptz 'epoch') * 1000000)::int8,
                   t.time_sub_us, t.trade_id_hi, t.trade_id, t.price]))[5],
        max(t.price),
        min(t.price),
        (max(ARRAY[(date_part('epoch', t.time - timestamptz 'epoch') * 1000000)::int8,
                   t.time_sub_us, t.trade_id_hi, t.trade_id, t.price]))[5],
        sum(t.qty),
        sum(t.price::numeric * t.qty),
        coalesce(sum(t.qty) FILTER (WHERE t.side = 'B'), 0),
        count(*)
    FROM trade t
    WHERE t.time >= since AND t.time < until
    GROUP BY 1, 2;
END;

CREATE FUNCTION hours_with_trades(since timestamptz, until timestamptz)
RETURNS TABLE (hour timestamptz) LANGUAGE sql STABLE BEGIN ATOMIC
    WITH RECURSIVE found AS (
        SELECT date_trunc('hour', min(t.time), 'UTC') AS hour FROM trade t
        WHERE t.time >= since AND t.time < until
        UNION ALL
        SELECT date_trunc('hour', (
            SELECT min(t.time) FROM trade t
            WHERE t.time >= f.hour + interval '1 hour' AND t.time < until), 'UTC')
        FROM found f WHERE f.hour IS NOT NULL
    )
    SELECT f.hour FROM found f WHERE f.hour IS NOT NULL;
END;

-- The bars of all that is stored, late or new, at any moment: those of minutes that wait are made
-- from the trades. TimescaleDB's aggregates do that by themselves; then these only hand them on. An
-- array, for an anti-join would have every bar of the time read for those of one stream.
CREATE VIEW bar_1s_now AS
SELECT
    b.time, b.stream_id, b.open, b.high, b.low, b.close, b.volume, b.quote_volume, b.buy_volume,
    b.trade_count
FROM bar_1s b
WHERE date_bin('1 minute', b.time, '2000-01-03 00:00:00+00')
    <> ALL (ARRAY(SELECT DISTINCT minute FROM bar_todo))
UNION ALL
SELECT b.*
FROM (SELECT DISTINCT minute FROM bar_todo) d
CROSS JOIN LATERAL bars_of_trades(d.minute, d.minute + interval '1 minute', '1 second') b;

CREATE VIEW bar_1m_now AS
SELECT
    b.time, b.stream_id, b.open, b.high, b.low, b.close, b.volume, b.quote_volume, b.buy_volume,
    b.trade_count
FROM bar_1m b
WHERE b.time <> ALL (ARRAY(SELECT DISTINCT minute FROM bar_todo))
UNION ALL
SELECT b.*
FROM (SELECT DISTINCT minute FROM bar_todo) d
CROSS JOIN LATERAL bars_of_trades(d.minute, d.minute + interval '1 minute', '1 minute') b;

CREATE VIEW bars_1s AS
SELECT
    b.time,
    i.venue,
    i.symbol,
    b.open * i.price_unit AS open,
    b.high * i.price_unit AS high,
    b.low * i.price_unit AS low,
    b.close * i.price_unit AS close,
    b.volume * i.qty_unit AS volume,
    b.quote_volume * i.price_unit * i.qty_unit AS quote_volume,
    b.buy_volume * i.qty_unit AS buy_volume,
    b.trade_count,
    s.transport,
    b.stream_id
FROM bar_1s_now b
LEFT JOIN stream s USING (stream_id)
LEFT JOIN instrument i USING (instrument_id);

CREATE VIEW bars_1m AS
SELECT
    b.time,
    i.venue,
    i.symbol,
    b.open * i.price_unit AS open,
    b.high * i.price_unit AS high,
    b.low * i.price_unit AS low,
    b.close * i.price_unit AS close,
    b.volume * i.qty_unit AS volume,
    b.quote_volume * i.price_unit * i.qty_unit AS quote_volume,
    b.buy_volume * i.qty_unit AS buy_volume,
    b.trade_count,
    s.transport,
    b.stream_id
FROM bar_1m_now b
LEFT JOIN stream s USING (stream_id)
LEFT JOIN instrument i USING (instrument_id);

DO $$
DECLARE
    bars text;
BEGIN
    FOREACH bars IN ARRAY ARRAY['bars_1s', 'bars_1m'] LOOP
        EXECUTE format('COMMENT ON VIEW %I IS %L', bars,
            'Bars of a ' || CASE bars WHEN 'bars_1s' THEN 'second' ELSE 'minute' END
            || ' with trades; where database.bars is on');
        EXECUTE format('COMMENT ON COLUMN %I.time IS %L', bars, 'When the bar begins');
        EXECUTE format('COMMENT ON COLUMN %I.open IS %L', bars,
            'First price; of trades of one time the lowest id tells');
        EXECUTE format('COMMENT ON COLUMN %I.close IS %L', bars,
            'Last price; of trades of one time the highest id tells');
        EXECUTE format('COMMENT ON COLUMN %I.quote_volume IS %L', bars, 'Sum of price * quantity');
        EXECUTE format('COMMENT ON COLUMN %I.buy_volume IS %L', bars,
            'Of volume, what takers bought');
    END LOOP;
END
$$;

-- Bars of one symbol that begin at `since` or later and before `until`, each whole, of any width
-- below a month: from bars of a minute or a second where these have all of that time, else from
-- trades. An instrument that was described anew meanwhile has one bar all the same.
CREATE FUNCTION bars(
    of_venue text, of_symbol text, since timestamptz, until timestamptz,
    width interval DEFAULT '1 minute', by_transport text DEFAULT 'Ws'
) RETURNS TABLE (
    "time" timestamptz, open numeric, high numeric, low numeric, close numeric, volume numeric,
    quote_volume numeric, buy_volume numeric, trade_count int8
) LANGUAGE plpgsql STABLE SET search_path FROM CURRENT SET jit = off AS $$
#variable_conflict use_column
DECLARE
    origin CONSTANT timestamptz := '2000-01-03 00:00:00+00';
    starts timestamptz := date_bin(width, since, origin);
    ends timestamptz := date_bin(width, until, origin);
    seconds float8 := date_part('epoch', width);
    streams int[];
    source text := 'trade';
    part interval := width;
BEGIN
    starts := CASE WHEN starts < since THEN starts + width ELSE starts END;
    ends := CASE WHEN ends < until THEN ends + width ELSE ends END;
    IF (SELECT relkind = 'v' FROM pg_class WHERE oid = to_regclass('bar_1s'))
        OR EXISTS (SELECT FROM bar_state WHERE is_marked AND is_listed)
        AND NOT EXISTS (
            SELECT FROM bar_fill WHERE hour > starts - interval '1 hour' AND hour < ends)
    THEN
        source := CASE
            WHEN seconds = 60 * floor(seconds / 60) THEN 'bar_1m'
            WHEN seconds = floor(seconds) THEN 'bar_1s'
            ELSE 'trade'
        END;
        part := CASE source WHEN 'bar_1m' THEN '1 minute' WHEN 'bar_1s' THEN '1 second' ELSE width END;
    END IF;
    streams := ARRAY(
        SELECT s.stream_id FROM stream s JOIN instrument i USING (instrument_id)
        WHERE i.venue = of_venue AND i.symbol = of_symbol AND s.kind = 'Trades'
            AND s.transport = by_transport);
    RETURN QUERY
    SELECT
        date_bin(width, b.time, origin),
        (array_agg(b.open * i.price_unit ORDER BY b.time, e.first_time, b.stream_id))[1],
        max(b.high * i.price_unit),
        min(b.low * i.price_unit),
        (array_agg(b.close * i.price_unit ORDER BY b.time, e.last_time, b.stream_id))[count(*)],
        sum(b.volume * i.qty_unit),
        sum(b.quote_volume * i.price_unit * i.qty_unit),
        sum(b.buy_volume * i.qty_unit),
        sum(b.trade_count)::int8
    FROM (
        SELECT p.*, count(*) OVER (PARTITION BY p.time) > 1 AS is_divided
        FROM (
            SELECT m.* FROM bar_1m_now m
            WHERE source = 'bar_1m' AND m.stream_id = ANY (streams)
                AND m.time >= starts AND m.time < ends
            UNION ALL
            SELECT s.* FROM bar_1s_now s
            WHERE source = 'bar_1s' AND s.stream_id = ANY (streams)
                AND s.time >= starts AND s.time < ends
            UNION ALL
            SELECT t.* FROM bars_of_trades(starts, ends, width) t
            WHERE source = 'trade' AND t.stream_id = ANY (streams)
        ) AS p
    ) AS b
    LEFT JOIN LATERAL (  -- of two versions that traded in one part, which was first
        SELECT min(t.time) AS first_time, max(t.time) AS last_time FROM trade t
        WHERE b.is_divided AND t.stream_id = b.stream_id
            AND t.time >= b.time AND t.time < b.time + part
    ) AS e ON true
    JOIN stream s USING (stream_id)
    JOIN instrument i USING (instrument_id)
    GROUP BY 1
    ORDER BY 1;
END
$$;

COMMENT ON FUNCTION bars(text, text, timestamptz, timestamptz, interval, text) IS
    'Bars of a symbol that begin between two times; width from a microsecond to weeks';
