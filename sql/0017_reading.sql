-- Reading by symbol, without a scan: where a stream has rows, functions with bounds, and numbers as
-- double precision.
--
-- The newest day has an index on time and none on stream_id, for that costs the COPY a quarter. What
-- the writer notes instead, in the transaction that stores the rows, is small: a stream has rows in
-- these spans of time, and in no others. A span is claimed for a second and longer the busier the
-- stream is (engine/writer/sinks/postgres/spans.py), so a busy stream is noted once a minute, and a rare one
-- with each of its rows. Late rows get spans of their own; spans may overlap.

CREATE TABLE row_span (
    kind      text NOT NULL,
    stream_id int4 NOT NULL,
    from_time timestamptz NOT NULL,
    to_time   timestamptz NOT NULL
);

CREATE INDEX row_span_stream ON row_span (kind, stream_id, from_time);

COMMENT ON TABLE row_span IS
    'Times in which a stream has rows: none are outside. As precise as the stream is rare';
COMMENT ON COLUMN row_span.kind IS
    'The table of the rows; book_snapshot: those of table book that are snapshots';
COMMENT ON COLUMN row_span.from_time IS 'Time of a row';
COMMENT ON COLUMN row_span.to_time IS 'Later than the last row of the span, and 64 s later than from_time at most';

CREATE TABLE row_span_begin (
    kind        text PRIMARY KEY,
    spans_from  timestamptz NOT NULL,
    newest_from timestamptz NOT NULL
);

COMMENT ON TABLE row_span_begin IS
    'Since when row_span is complete; a kind that is not here has none (an earlier version wrote it)';
COMMENT ON COLUMN row_span_begin.spans_from IS 'Every row of this time and later is in a span';
COMMENT ON COLUMN row_span_begin.newest_from IS
    'The newest row of a stream is in its newest span, or before this time';

CREATE FUNCTION begin_row_spans() RETURNS void LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    of_kind text;
    of_table text;
    last_time timestamptz;
BEGIN
    FOREACH of_kind IN ARRAY ARRAY[
        'trade', 'book', 'book_snapshot', 'quote', 'funding', 'open_interest', 'liquidation']
    LOOP
        of_table := CASE of_kind WHEN 'book_snapshot' THEN 'book' ELSE of_kind END;
        CONTINUE WHEN EXISTS (SELECT FROM row_span_begin AS b WHERE b.kind = of_kind)
            OR to_regclass(quote_ident(of_table)) IS NULL;
        EXECUTE format('SELECT max(time) + interval ''1 microsecond'' FROM %I', of_table)
            INTO last_time;
        last_time := coalesce(last_time, '-infinity');
        INSERT INTO row_span_begin VALUES (of_kind, last_time, last_time) ON CONFLICT DO NOTHING;
    END LOOP;
END
$$;

COMMENT ON FUNCTION begin_row_spans IS
    'The writer calls it before it stores its first row: what is there already has no spans';

CREATE FUNCTION note_row_spans(of_kind text, since timestamptz, until timestamptz)
RETURNS bigint LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    noted bigint;
BEGIN
    EXECUTE format(
        'INSERT INTO row_span SELECT %L, stream_id, min(time), max(time) + interval ''1 microsecond'' '
        'FROM %I WHERE time >= $1 AND time < $2 %s '
        'GROUP BY stream_id, floor(extract(epoch FROM time) / 64)',
        of_kind, CASE of_kind WHEN 'book_snapshot' THEN 'book' ELSE of_kind END,
        CASE of_kind WHEN 'book_snapshot' THEN 'AND flags & 1 <> 0' ELSE '' END)
        USING since, until;
    GET DIAGNOSTICS noted = ROW_COUNT;
    RETURN noted;
END
$$;

COMMENT ON FUNCTION note_row_spans IS
    'For whoever stores rows past the writer: the spans of all rows of a time, by one scan of it';

CREATE FUNCTION forget_row_spans(of_kind text, before timestamptz, but_newest boolean DEFAULT true)
RETURNS bigint LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    forgotten bigint;
BEGIN
    UPDATE row_span_begin AS b
    SET spans_from = greatest(b.spans_from, before),
        newest_from = CASE WHEN but_newest THEN b.newest_from
                           ELSE greatest(b.newest_from, before) END
    WHERE b.kind = of_kind;
    DELETE FROM row_span AS s  -- each by a look into the index: no plan can make it worse
    WHERE s.kind = of_kind AND s.to_time <= before
      AND s.from_time < (SELECT max(n.from_time) FROM row_span AS n
                         WHERE n.kind = of_kind AND n.stream_id = s.stream_id);
    GET DIAGNOSTICS forgotten = ROW_COUNT;
    RETURN forgotten;
END
$$;

COMMENT ON FUNCTION forget_row_spans IS
    'Spans before a time, but not the newest of each stream: rows of days that have an index on '
    'stream_id, or are compressed, are found without (book_snapshot: only when the rows are gone). '
    'With but_newest => false: rows were stored before this time without spans';

CREATE FUNCTION stream_ids(of_venue text, of_symbol text) RETURNS int4[]
LANGUAGE sql STABLE PARALLEL SAFE BEGIN ATOMIC
    SELECT array_agg(s.stream_id)
    FROM stream s JOIN instrument i USING (instrument_id)
    WHERE i.venue = of_venue AND i.symbol = of_symbol;
END;

COMMENT ON FUNCTION stream_ids IS 'Of every kind, transport and version of an instrument';

CREATE FUNCTION rare_spans(
    of_kind text, ids int4[], since timestamptz, until timestamptz
) RETURNS tstzmultirange LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path FROM CURRENT AS $$
DECLARE
    span_count_max CONSTANT int := 1000;
    found tstzmultirange;
    number bigint;
BEGIN
    SELECT range_agg(tstzrange(f.from_time, f.to_time)), count(*) INTO found, number
    FROM (SELECT s.from_time, s.to_time FROM row_span AS s
          WHERE s.kind = of_kind AND s.stream_id = ANY (ids)
            AND s.from_time > since - interval '65 seconds' AND s.from_time < until
          LIMIT span_count_max) AS f;
    found := coalesce(found, '{}') * tstzmultirange(tstzrange(since, until));
    IF number = span_count_max
        OR 8 * (SELECT coalesce(sum(upper(p) - lower(p)), '0') FROM unnest(found) AS p) > until - since
    THEN
        RETURN NULL;
    END IF;
    RETURN found;
END
$$;

COMMENT ON FUNCTION rare_spans IS
    'Where a stream has rows between two times; NULL where that is nearly everywhere';

CREATE FUNCTION rare_from(
    of_kind text, ids int4[], since timestamptz, until timestamptz
) RETURNS timestamptz LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path FROM CURRENT AS $$
DECLARE
    from_here timestamptz := (
        SELECT greatest(since, b.spans_from) FROM row_span_begin AS b WHERE b.kind = of_kind);
BEGIN
    IF since IS NULL OR (from_here < until) IS NOT TRUE
        OR rare_spans(of_kind, ids, from_here, until) IS NULL
    THEN
        RETURN NULL;
    END IF;
    RETURN from_here;
END
$$;

COMMENT ON FUNCTION rare_from IS
    'From where on a time is read span by span; NULL where it is all read in one piece';

-- Numbers as double precision: the double that is nearest to the exact number, for division rounds
-- so, and both mantissa (up to 2^53) and power of ten (below 10^22) are exact. Larger mantissas take
-- the long way.

ALTER TABLE instrument
    ADD COLUMN price_scale float8 NOT NULL
        GENERATED ALWAYS AS (power(10::float8, price_decimals::float8)) STORED,
    ADD COLUMN qty_scale float8 NOT NULL
        GENERATED ALWAYS AS (power(10::float8, qty_decimals::float8)) STORED;

COMMENT ON COLUMN instrument.price_scale IS '10 ^ price_decimals: what a mantissa is divided by';
COMMENT ON COLUMN instrument.qty_scale IS '10 ^ qty_decimals: what a mantissa is divided by';

CREATE FUNCTION nearest(mantissa int8, scale float8, unit numeric) RETURNS float8
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN mantissa BETWEEN -9007199254740992 AND 9007199254740992 THEN mantissa / scale
            ELSE (mantissa * unit)::float8 END;

COMMENT ON FUNCTION nearest IS 'The double nearest to mantissa * unit; scale is 1 / unit';

CREATE VIEW trades_f AS
SELECT
    t.time,
    timestamptz 'epoch' + (t.ts_recv / 1000) * interval '1 microsecond' AS recv_time,
    i.venue,
    i.symbol,
    CASE t.side WHEN 'B' THEN 'buy' WHEN 'S' THEN 'sell' END AS side,
    nearest(t.price, i.price_scale, i.price_unit) AS price,
    nearest(t.qty, i.qty_scale, i.qty_unit) AS quantity,
    CASE WHEN t.trade_id_hi = 0 THEN t.trade_id END AS trade_id,
    CASE
        WHEN t.trade_id_hi <> 0
        THEN (lpad(to_hex(t.trade_id_hi), 16, '0') || lpad(to_hex(t.trade_id), 16, '0'))::uuid
    END AS trade_uuid,
    t.flags & 8 <> 0 AS after_gap,
    t.flags & 16 <> 0 AS backfilled,
    t.flags & 32 <> 0 AS inexact,
    t.time_sub_us AS time_ns_part,
    s.transport,
    t.stream_id
FROM trade t
LEFT JOIN stream s USING (stream_id)
LEFT JOIN instrument i USING (instrument_id);

COMMENT ON VIEW trades_f IS
    'View trades in double precision, each number the nearest to the exact one';

CREATE VIEW book_levels_f AS
SELECT
    b.time,
    timestamptz 'epoch' + (b.ts_recv / 1000) * interval '1 microsecond' AS recv_time,
    i.venue,
    i.symbol,
    CASE b.side WHEN 'b' THEN 'bid' WHEN 'a' THEN 'ask' END AS side,
    CASE WHEN b.side <> '-' THEN nearest(b.price, i.price_scale, i.price_unit) END AS price,
    CASE WHEN b.side <> '-' THEN nearest(b.qty, i.qty_scale, i.qty_unit) END AS quantity,
    b.seq,
    b.prev_seq,
    b.flags & 1 <> 0 AS is_snapshot,
    b.flags & 2 <> 0 AS first_in_event,
    b.flags & 4 <> 0 AS last_in_event,
    b.flags & 8 <> 0 AS after_gap,
    b.flags & 32 <> 0 AS inexact,
    b.time_sub_us AS time_ns_part,
    s.transport,
    b.stream_id
FROM book b
LEFT JOIN stream s USING (stream_id)
LEFT JOIN instrument i USING (instrument_id);

COMMENT ON VIEW book_levels_f IS
    'View book_levels in double precision, each number the nearest to the exact one';

CREATE VIEW quotes_f AS
SELECT
    q.time,
    timestamptz 'epoch' + (q.ts_recv / 1000) * interval '1 microsecond' AS recv_time,
    i.venue,
    i.symbol,
    CASE WHEN q.bid <> 0 THEN nearest(q.bid, i.price_scale, i.price_unit) END AS bid,
    CASE WHEN q.bid <> 0 THEN nearest(q.bid_qty, i.qty_scale, i.qty_unit) END AS bid_quantity,
    CASE WHEN q.ask <> 0 THEN nearest(q.ask, i.price_scale, i.price_unit) END AS ask,
    CASE WHEN q.ask <> 0 THEN nearest(q.ask_qty, i.qty_scale, i.qty_unit) END AS ask_quantity,
    q.seq,
    q.flags & 8 <> 0 AS after_gap,
    q.flags & 32 <> 0 AS inexact,
    q.time_sub_us AS time_ns_part,
    s.transport,
    q.stream_id
FROM quote q
LEFT JOIN stream s USING (stream_id)
LEFT JOIN instrument i USING (instrument_id);

COMMENT ON VIEW quotes_f IS
    'View quotes in double precision, each number the nearest to the exact one';

CREATE VIEW funding_rates_f AS
SELECT
    f.time,
    timestamptz 'epoch' + (f.ts_recv / 1000) * interval '1 microsecond' AS recv_time,
    i.venue,
    i.symbol,
    CASE WHEN f.flags & 64 = 0 THEN nearest(f.rate, 1e12, 1e-12) END AS rate,
    nearest(nullif(f.mark, 0), 1e8, 1e-8) AS mark_price,
    nearest(nullif(f.index, 0), 1e8, 1e-8) AS index_price,
    timestamptz 'epoch' + (nullif(f.next_ts, 0) / 1000) * interval '1 microsecond'
        AS next_funding_time,
    nullif(f.interval_s, 0) * interval '1 second' AS funding_interval,
    f.flags & 8 <> 0 AS after_gap,
    f.flags & 32 <> 0 AS inexact,
    f.time_sub_us AS time_ns_part,
    s.transport,
    f.stream_id
FROM funding f
LEFT JOIN stream s USING (stream_id)
LEFT JOIN instrument i USING (instrument_id);

COMMENT ON VIEW funding_rates_f IS
    'View funding_rates in double precision, each number the nearest to the exact one';

CREATE VIEW open_interest_points_f AS
SELECT
    o.time,
    timestamptz 'epoch' + (o.ts_recv / 1000) * interval '1 microsecond' AS recv_time,
    i.venue,
    i.symbol,
    nearest(o.qty, i.qty_scale, i.qty_unit) AS quantity,
    o.flags & 8 <> 0 AS after_gap,
    o.flags & 32 <> 0 AS inexact,
    o.time_sub_us AS time_ns_part,
    s.transport,
    o.stream_id
FROM open_interest o
LEFT JOIN stream s USING (stream_id)
LEFT JOIN instrument i USING (instrument_id);

COMMENT ON VIEW open_interest_points_f IS
    'View open_interest_points in double precision, each number the nearest to the exact one';

CREATE VIEW liquidations_f AS
SELECT
    l.time,
    timestamptz 'epoch' + (l.ts_recv / 1000) * interval '1 microsecond' AS recv_time,
    i.venue,
    i.symbol,
    CASE l.side WHEN 'B' THEN 'buy' WHEN 'S' THEN 'sell' END AS side,
    nearest(l.price, i.price_scale, i.price_unit) AS price,
    nearest(nullif(l.avg_price, 0), 1e8, 1e-8) AS average_price,
    nearest(l.qty, i.qty_scale, i.qty_unit) AS quantity,
    nearest(l.filled_qty, i.qty_scale, i.qty_unit) AS filled_quantity,
    l.flags & 8 <> 0 AS after_gap,
    l.flags & 32 <> 0 AS inexact,
    l.time_sub_us AS time_ns_part,
    s.transport,
    l.stream_id
FROM liquidation l
LEFT JOIN stream s USING (stream_id)
LEFT JOIN instrument i USING (instrument_id);

COMMENT ON VIEW liquidations_f IS
    'View liquidations in double precision, each number the nearest to the exact one';

CREATE VIEW gaps_f AS SELECT * FROM gaps;

COMMENT ON VIEW gaps_f IS 'View gaps: it has no prices, and this name only goes with the others';

-- What follows is made once for each of the views. Functions whose body is SQL are inlined into the
-- query that calls them, so that the planner sees bounds and partitions; they know views alone, for
-- a table may be made anew.

DO $make$
DECLARE
    made record;
BEGIN
    FOR made IN SELECT v.of_kind, v.of_view || f.suffix AS of_view
        FROM (VALUES
            ('trade', 'trades'), ('book', 'book_levels'), ('quote', 'quotes'),
            ('funding', 'funding_rates'), ('open_interest', 'open_interest_points'),
            ('liquidation', 'liquidations')
        ) AS v (of_kind, of_view), (VALUES (''), ('_f')) AS f (suffix)
    LOOP
        EXECUTE format($sql$
            CREATE FUNCTION rare_%1$s(
                of_venue text, of_symbol text, since timestamptz, until timestamptz
            ) RETURNS SETOF %1$I LANGUAGE plpgsql STABLE PARALLEL SAFE
            SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan AS $body$
            DECLARE
                ids int4[] := stream_ids(of_venue, of_symbol);
                from_here timestamptz := rare_from(%2$L, ids, since, until);
            BEGIN
                IF from_here IS NULL THEN
                    RETURN;
                END IF;
                IF from_here > since THEN  -- planned with these very bounds
                    RETURN QUERY EXECUTE
                        'SELECT * FROM %1$I WHERE stream_id = ANY ($1) AND time >= $2 AND time < $3'
                        USING ids, since, from_here;
                END IF;
                RETURN QUERY SELECT v.*
                    FROM unnest(rare_spans(%2$L, ids, from_here, until)) AS span
                    CROSS JOIN LATERAL (
                        SELECT * FROM %1$I AS r
                        WHERE r.stream_id = ANY (ids)
                          AND r.time >= lower(span) AND r.time < upper(span)
                        OFFSET 0  -- not to be joined in another order
                    ) AS v;
            END
            $body$
        $sql$, made.of_view, made.of_kind);
        EXECUTE format($sql$
            CREATE FUNCTION %1$I(
                of_venue text, of_symbol text, since timestamptz, until timestamptz
            ) RETURNS SETOF %1$I LANGUAGE sql STABLE PARALLEL SAFE BEGIN ATOMIC
                SELECT v.* FROM %1$I AS v
                WHERE v.stream_id = ANY ((SELECT stream_ids(of_venue, of_symbol))::int4[])
                  AND v.time >= since AND v.time < until
                  AND (SELECT rare_from(%2$L, stream_ids(of_venue, of_symbol), since, until)) IS NULL
                UNION ALL
                SELECT r.* FROM rare_%1$s(of_venue, of_symbol, since, until) AS r;
            END
        $sql$, made.of_view, made.of_kind);
        EXECUTE format(
            'COMMENT ON FUNCTION %I IS ''Rows of one symbol, from one time up to but not at another, '
            'in no order''', made.of_view);
    END LOOP;
END
$make$;

-- The newest row of a stream is in its newest span. Those of busy streams are among the newest rows
-- of the table, which are looked at once for all of them.

DO $make$
DECLARE
    made record;
BEGIN
    FOR made IN SELECT * FROM (VALUES
        ('trade'), ('book'), ('quote'), ('funding'), ('open_interest'), ('liquidation')
    ) AS v (of_kind)
    LOOP
        EXECUTE format($sql$
            CREATE FUNCTION newest_%1$s_times(ids int4[])
            RETURNS TABLE (of_stream int4, newest timestamptz) LANGUAGE plpgsql STABLE
            SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan AS $body$
            DECLARE
                many CONSTANT int := 20;
                unknown_until timestamptz := coalesce(
                    (SELECT b.newest_from FROM row_span_begin AS b WHERE b.kind = %1$L),
                    'infinity');
                streams int4[];
                times timestamptz[];
            BEGIN
                IF cardinality(ids) > many THEN
                    SELECT array_agg(n.stream_id), array_agg(n.time) INTO streams, times
                    FROM (SELECT r.stream_id, max(r.time) AS time
                          FROM (SELECT t.stream_id, t.time FROM %1$I AS t
                                ORDER BY t.time DESC LIMIT 5000) AS r
                          GROUP BY 1) AS n
                    JOIN unnest(ids) AS i (id) ON i.id = n.stream_id;
                    RETURN QUERY SELECT * FROM unnest(streams, times);
                    ids := ARRAY(SELECT unnest(ids) EXCEPT SELECT unnest(streams));
                END IF;
                SELECT array_agg(i.id), array_agg(t.time) INTO streams, times
                FROM unnest(ids) AS i (id)
                LEFT JOIN LATERAL (
                    SELECT s.from_time FROM row_span AS s
                    WHERE s.kind = %1$L AND s.stream_id = i.id
                    ORDER BY s.from_time DESC LIMIT 1
                ) AS b ON true
                LEFT JOIN LATERAL (
                    SELECT max(s.to_time) AS to_time FROM row_span AS s
                    WHERE s.kind = %1$L AND s.stream_id = i.id
                      AND s.from_time > b.from_time - interval '65 seconds'
                ) AS e ON true
                LEFT JOIN LATERAL (
                    SELECT r.time FROM %1$I AS r
                    WHERE r.stream_id = i.id AND r.time >= b.from_time AND r.time < e.to_time
                    ORDER BY r.time DESC LIMIT 1
                ) AS t ON true;
                FOR place IN 1 .. coalesce(cardinality(streams), 0) LOOP
                    of_stream := streams[place];
                    newest := times[place];
                    IF newest IS NULL OR newest < unknown_until THEN
                        newest := coalesce(
                            (SELECT t.time FROM %1$I AS t
                             WHERE t.stream_id = of_stream AND t.time < unknown_until
                               AND t.time > coalesce(newest, '-infinity')
                             ORDER BY t.time DESC LIMIT 1),
                            newest);
                    END IF;
                    IF newest IS NOT NULL THEN
                        RETURN NEXT;
                    END IF;
                END LOOP;
            END
            $body$
        $sql$, made.of_kind);
    END LOOP;
    FOR made IN SELECT v.of_kind, v.of_view || f.suffix AS of_view, v.later, v.brought_by
        FROM (VALUES
            ('trade', 'trades', ', r.trade_id DESC, r.trade_uuid DESC', '{Trades}'),
            ('book', 'book_levels', ', r.seq DESC', '{L2Book}'), ('quote', 'quotes', ', r.seq DESC', '{Ticker}'),
            ('funding', 'funding_rates', '', '{Funding,FundingOpenInterest}'), ('open_interest', 'open_interest_points', '', '{OpenInterest,FundingOpenInterest}'),
            ('liquidation', 'liquidations', '', '{Liquidations}')
        ) AS v (of_kind, of_view, later, brought_by), (VALUES (''), ('_f')) AS f (suffix)
    LOOP
        EXECUTE format($sql$
            CREATE FUNCTION newest_%1$s(of_venue text DEFAULT NULL, of_symbol text DEFAULT NULL)
            RETURNS SETOF %1$I LANGUAGE plpgsql STABLE
            SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan AS $body$
            DECLARE
                ids int4[];
            BEGIN
                IF of_venue IS NOT NULL AND of_symbol IS NOT NULL THEN
                    ids := stream_ids(of_venue, of_symbol);
                ELSE
                    ids := ARRAY(
                        SELECT s.stream_id FROM stream AS s JOIN instrument AS i USING (instrument_id)
                        WHERE (of_venue IS NULL OR i.venue = of_venue)
                          AND (of_symbol IS NULL OR i.symbol = of_symbol)
                          AND s.kind = ANY (%4$L::text[]));
                END IF;
                RETURN QUERY
                SELECT DISTINCT ON (v.venue, v.symbol) v.*
                FROM newest_%2$s_times(ids) AS n
                CROSS JOIN LATERAL (
                    SELECT * FROM %1$I AS r
                    WHERE r.stream_id = n.of_stream AND r.time = n.newest
                    ORDER BY r.time_ns_part DESC %3$s LIMIT 1
                ) AS v
                ORDER BY v.venue, v.symbol, v.time DESC, v.time_ns_part DESC, v.stream_id DESC;
            END
            $body$
        $sql$, made.of_view, made.of_kind, made.later, made.brought_by);
        EXECUTE format(
            'COMMENT ON FUNCTION %I IS ''The newest row of each symbol: of one, of all of a venue, '
            'or of all'' ', 'newest_' || made.of_view);
    END LOOP;
END
$make$;

CREATE FUNCTION bars_raw(
    of_venue text, of_symbol text, since timestamptz, until timestamptz,
    width interval DEFAULT '1 minute'
) RETURNS TABLE (
    "time" timestamptz, open numeric, high numeric, low numeric, close numeric, volume numeric,
    quote_volume numeric, buy_volume numeric, trade_count bigint
) LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
SET plan_cache_mode = force_custom_plan SET work_mem = '64MB' SET jit = off AS $$
DECLARE
    ids int4[] := stream_ids(of_venue, of_symbol);
BEGIN
    RETURN QUERY
    WITH counted AS (  -- in mantissas; a product of two below 2^31 needs no numeric
        SELECT
            date_bin(width, t.time, timestamptz 'epoch') AS of_time, t.stream_id,
            min(t.time) AS first_time, max(t.time) AS last_time,
            max(t.price) AS high, min(t.price) AS low, sum(t.qty) AS volume,
            coalesce(sum(t.price * t.qty) FILTER (WHERE t.price | t.qty BETWEEN 0 AND 2147483647), 0)
            + coalesce(sum(t.price::numeric * t.qty)
                FILTER (WHERE t.price | t.qty NOT BETWEEN 0 AND 2147483647), 0) AS quote_volume,
            coalesce(sum(t.qty) FILTER (WHERE t.side = 'B'), 0) AS buy_volume,
            count(*) AS trade_count
        FROM trade AS t
        WHERE t.stream_id = ANY (ids) AND t.time >= since AND t.time < until
        GROUP BY 1, 2
    ), exact AS (
        SELECT
            c.of_time, c.first_time, c.last_time,
            f.price * i.price_unit AS open, c.high * i.price_unit AS high,
            c.low * i.price_unit AS low, l.price * i.price_unit AS close,
            c.volume * i.qty_unit AS volume,
            c.quote_volume * i.price_unit * i.qty_unit AS quote_volume,
            c.buy_volume * i.qty_unit AS buy_volume, c.trade_count
        FROM counted AS c
        CROSS JOIN LATERAL (
            SELECT t.price FROM trade AS t
            WHERE t.stream_id = c.stream_id AND t.time = c.first_time
            ORDER BY t.time_sub_us, t.trade_id_hi, t.trade_id LIMIT 1) AS f
        CROSS JOIN LATERAL (
            SELECT t.price FROM trade AS t
            WHERE t.stream_id = c.stream_id AND t.time = c.last_time
            ORDER BY t.time_sub_us DESC, t.trade_id_hi DESC, t.trade_id DESC LIMIT 1) AS l
        JOIN stream AS s ON s.stream_id = c.stream_id
        JOIN instrument AS i ON i.instrument_id = s.instrument_id
    )
    SELECT  -- a bar in which the instrument got a new version is in two parts
        e.of_time, (array_agg(e.open ORDER BY e.first_time))[1], max(e.high), min(e.low),
        (array_agg(e.close ORDER BY e.last_time DESC))[1], sum(e.volume), sum(e.quote_volume),
        sum(e.buy_volume), sum(e.trade_count)::bigint
    FROM exact AS e
    GROUP BY 1
    ORDER BY 1;
END
$$;

COMMENT ON FUNCTION bars_raw IS
    'Bars of one symbol from its trades: exact, aligned to 1970, none where there was no trade';

CREATE FUNCTION spread(of_venue text, of_symbol text, since timestamptz, until timestamptz)
RETURNS TABLE (
    "time" timestamptz, bid numeric, ask numeric, spread numeric, mid numeric, spread_bps float8
) LANGUAGE sql STABLE PARALLEL SAFE BEGIN ATOMIC
    SELECT
        q.time, q.bid, q.ask, q.ask - q.bid, (q.bid + q.ask) * 0.5,
        (2e4 * (q.ask - q.bid) / nullif(q.bid + q.ask, 0))::float8
    FROM quotes(of_venue, of_symbol, since, until) AS q
    ORDER BY q.time, q.seq;
END;

COMMENT ON FUNCTION spread IS
    'Best bid and offer of one symbol at every change, what lies between, and that in 1/10000 of '
    'their mean; NULL while a side of the book is empty';

CREATE FUNCTION gaps_in(
    of_venue text, of_symbol text, since timestamptz, until timestamptz, of_kind text DEFAULT NULL
) RETURNS SETOF gaps LANGUAGE sql STABLE PARALLEL SAFE BEGIN ATOMIC
    SELECT g.* FROM gaps AS g
    WHERE g.stream_id = ANY ((SELECT stream_ids(of_venue, of_symbol))::int4[])
      AND (of_kind IS NULL OR g.kind = of_kind)
      AND coalesce(g.from_time, g.detected) < until
      AND coalesce(greatest(g.to_time, g.from_time), g.detected) >= since
    ORDER BY coalesce(g.from_time, g.detected);
END;

COMMENT ON FUNCTION gaps_in IS
    'What is missing of one symbol between two times of the venue, of all kinds of stream or of one';

CREATE FUNCTION complete(
    of_venue text, of_symbol text, of_kind text, since timestamptz, until timestamptz,
    by_transport text DEFAULT 'Ws'
) RETURNS TABLE (
    answer text, from_time timestamptz, to_time timestamptz, reason text, missing bigint
) LANGUAGE sql STABLE BEGIN ATOMIC
    SELECT * FROM completeness(of_venue, of_symbol, of_kind, since, until, by_transport);
END;

COMMENT ON FUNCTION complete IS 'completeness, by a shorter name';

CREATE FUNCTION book_snapshot_before(ids int4[], at timestamptz)
RETURNS timestamptz LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    unknown_until timestamptz := least(at + interval '1 microsecond', coalesce(
        (SELECT b.spans_from FROM row_span_begin AS b WHERE b.kind = 'book_snapshot'),
        'infinity'));
    from_here timestamptz := (
        SELECT max(s.from_time) FROM unnest(ids) AS i (id) CROSS JOIN LATERAL (
            SELECT r.from_time FROM row_span AS r
            WHERE r.kind = 'book_snapshot' AND r.stream_id = i.id AND r.from_time <= at
            ORDER BY r.from_time DESC LIMIT 1) AS s);
    until timestamptz := (
        SELECT max(s.to_time) FROM row_span AS s
        WHERE s.kind = 'book_snapshot' AND s.stream_id = ANY (ids)
          AND s.from_time > from_here - interval '65 seconds' AND s.from_time <= at);
    last_time timestamptz := (
        SELECT b.time FROM book AS b
        WHERE b.stream_id = ANY (ids) AND b.flags & 1 <> 0
          AND b.time >= from_here AND b.time < until AND b.time <= at
        ORDER BY b.time DESC LIMIT 1);
    oldest timestamptz;
    step interval := '1 minute';
    better timestamptz;
BEGIN
    IF at IS NULL OR last_time >= unknown_until THEN
        RETURN last_time;
    END IF;
    oldest := coalesce(last_time, (SELECT b.time FROM book AS b ORDER BY b.time LIMIT 1));
    until := least(unknown_until, (SELECT b.time FROM book AS b ORDER BY b.time DESC LIMIT 1)
        + interval '1 microsecond');
    WHILE until > oldest LOOP  -- back in time, by longer and longer steps
        SELECT b.time INTO better FROM book AS b
        WHERE b.stream_id = ANY (ids) AND b.flags & 1 <> 0
          AND b.time >= greatest(until - step, oldest) AND b.time < until
        ORDER BY b.time DESC LIMIT 1;
        IF FOUND THEN
            RETURN better;
        END IF;
        until := until - step;
        step := least(step * 4, '1 day');
    END LOOP;
    RETURN last_time;
END
$$;

COMMENT ON FUNCTION book_snapshot_before IS
    'Time of the last snapshot of a book up to a time: from its span, or searched for where spans '
    'do not reach';

CREATE OR REPLACE FUNCTION book_at(of_venue text, of_symbol text, at timestamptz)
RETURNS TABLE (side text, price numeric, quantity numeric) LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT
SET plan_cache_mode = force_custom_plan SET work_mem = '64MB' SET jit = off AS $$
DECLARE
    ids int4[] := stream_ids(of_venue, of_symbol);
    start_time timestamptz := book_snapshot_before(ids, at);
    start_seq int8 := (
        SELECT max(b.seq) FROM book AS b
        WHERE b.stream_id = ANY (ids) AND b.flags & 1 <> 0 AND b.time = start_time);
BEGIN
    RETURN QUERY
    WITH following AS MATERIALIZED (
        SELECT b.stream_id, b.side AS of_side, b.price AS units, b.qty, b.time, b.seq, b.flags
        FROM book AS b
        WHERE b.stream_id = ANY (ids) AND b.time >= start_time AND b.time <= at
          AND CASE WHEN b.flags & 1 <> 0 THEN b.time = start_time AND b.seq = start_seq
                   ELSE b.time > start_time OR b.seq > start_seq END
    ), latest AS (
        SELECT f.of_side, f.units, f.stream_id, max(f.time) AS time
        FROM following AS f
        WHERE f.of_side <> '-'
        GROUP BY f.of_side, f.units, f.stream_id
    ), newest AS (
        SELECT f.* FROM following AS f JOIN latest AS l USING (of_side, units, stream_id, time)
    ), exact AS (  -- versions of an instrument count in units of their own
        SELECT DISTINCT ON (n.of_side, n.units * i.price_unit)
            n.of_side, n.units * i.price_unit AS of_price, n.qty * i.qty_unit AS of_quantity
        FROM newest AS n
        JOIN stream AS s USING (stream_id)
        JOIN instrument AS i USING (instrument_id)
        ORDER BY n.of_side, n.units * i.price_unit, n.time DESC, n.seq DESC
    )
    SELECT CASE e.of_side WHEN 'b' THEN 'bid' ELSE 'ask' END, e.of_price, e.of_quantity
    FROM exact AS e
    WHERE e.of_quantity > 0
      AND NOT EXISTS (SELECT FROM following AS f WHERE f.flags & 8 <> 0 AND f.flags & 1 = 0)
    ORDER BY e.of_side DESC, CASE e.of_side WHEN 'b' THEN -e.of_price ELSE e.of_price END;
END
$$;

COMMENT ON FUNCTION book_at IS
    'The book at a time of the venue, from the last snapshot and the changes since, best levels '
    'first; nothing where a gap follows that snapshot';
