-- Quotes, funding, open interest and liquidations: tables like trade and book (0003_ticks.sql), and
-- their views (0005_views.sql).
--
-- Rates, mark, index and average prices have fixed exponents of their own (engine/records.py): a
-- rate counts in 10^-12, the prices in 10^-8. The other numbers count in the instrument's units.

INSERT INTO gap_reason VALUES (8, 'poll_missed');

CREATE TABLE quote_shape (
    time        timestamptz NOT NULL,
    time_sub_us int2 NOT NULL,
    ts_recv     int8 NOT NULL,
    stream_id   int4 NOT NULL,
    flags       int2 NOT NULL,
    seq         int8 NOT NULL,
    bid         int8 NOT NULL,
    bid_qty     int8 NOT NULL,
    ask         int8 NOT NULL,
    ask_qty     int8 NOT NULL
);

CREATE TABLE funding_shape (
    time        timestamptz NOT NULL,
    time_sub_us int2 NOT NULL,
    ts_recv     int8 NOT NULL,
    stream_id   int4 NOT NULL,
    flags       int2 NOT NULL,
    rate        int8 NOT NULL,
    mark        int8 NOT NULL,
    index       int8 NOT NULL,
    next_ts     int8 NOT NULL,
    interval_s  int4 NOT NULL
);

CREATE TABLE open_interest_shape (
    time        timestamptz NOT NULL,
    time_sub_us int2 NOT NULL,
    ts_recv     int8 NOT NULL,
    stream_id   int4 NOT NULL,
    flags       int2 NOT NULL,
    qty         int8 NOT NULL
);

CREATE TABLE liquidation_shape (
    time        timestamptz NOT NULL,
    time_sub_us int2 NOT NULL,
    ts_recv     int8 NOT NULL,
    stream_id   int4 NOT NULL,
    flags       int2 NOT NULL,
    side        "char" NOT NULL,
    price       int8 NOT NULL,
    avg_price   int8 NOT NULL,
    qty         int8 NOT NULL,
    filled_qty  int8 NOT NULL
);

DO $$
DECLARE
    tick text;
    hyper bool := EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb');
BEGIN
    FOREACH tick IN ARRAY ARRAY['quote', 'funding', 'open_interest', 'liquidation'] LOOP
        IF hyper THEN
            EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', tick, tick || '_shape');
            EXECUTE format(
                'SELECT create_hypertable(%L::regclass, by_range(''time'', INTERVAL ''1 day''), '
                'create_default_indexes => false)', tick);
        ELSE
            EXECUTE format(
                'CREATE TABLE %I (LIKE %I INCLUDING ALL) PARTITION BY RANGE (time)',
                tick, tick || '_shape');
        END IF;
        EXECUTE format('CREATE INDEX %I ON %I (time)', tick || '_time', tick);
        EXECUTE format('DROP TABLE %I', tick || '_shape');
    END LOOP;
END
$$;

CREATE VIEW quotes AS
SELECT
    q.time,
    timestamptz 'epoch' + (q.ts_recv / 1000) * interval '1 microsecond' AS recv_time,
    i.venue,
    i.symbol,
    CASE WHEN q.bid <> 0 THEN q.bid * i.price_unit END AS bid,
    CASE WHEN q.bid <> 0 THEN q.bid_qty * i.qty_unit END AS bid_quantity,
    CASE WHEN q.ask <> 0 THEN q.ask * i.price_unit END AS ask,
    CASE WHEN q.ask <> 0 THEN q.ask_qty * i.qty_unit END AS ask_quantity,
    q.seq,
    q.flags & 8 <> 0 AS after_gap,
    q.flags & 32 <> 0 AS inexact,
    q.time_sub_us AS time_ns_part,
    s.transport,
    q.stream_id
FROM quote q
LEFT JOIN stream s USING (stream_id)
LEFT JOIN instrument i USING (instrument_id);

COMMENT ON VIEW quotes IS
    'Best bid and offer at every change; NULL on a side of the book that is empty';

CREATE VIEW funding_rates AS
SELECT
    f.time,
    timestamptz 'epoch' + (f.ts_recv / 1000) * interval '1 microsecond' AS recv_time,
    i.venue,
    i.symbol,
    CASE WHEN f.flags & 64 = 0 THEN f.rate * 0.000000000001 END AS rate,
    f.mark * 0.00000001 AS mark_price,
    f.index * 0.00000001 AS index_price,
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

COMMENT ON VIEW funding_rates IS
    'Funding rate an interval (not annualised) with mark and index (or oracle) price';
COMMENT ON COLUMN funding_rates.rate IS 'NULL for contracts without funding';
COMMENT ON COLUMN funding_rates.next_funding_time IS 'NULL where the venue does not say it';
COMMENT ON COLUMN funding_rates.funding_interval IS 'NULL where the venue does not say it';

CREATE VIEW open_interest_points AS
SELECT
    o.time,
    timestamptz 'epoch' + (o.ts_recv / 1000) * interval '1 microsecond' AS recv_time,
    i.venue,
    i.symbol,
    o.qty * i.qty_unit AS quantity,
    o.flags & 8 <> 0 AS after_gap,
    o.flags & 32 <> 0 AS inexact,
    o.time_sub_us AS time_ns_part,
    s.transport,
    o.stream_id
FROM open_interest o
LEFT JOIN stream s USING (stream_id)
LEFT JOIN instrument i USING (instrument_id);

COMMENT ON VIEW open_interest_points IS 'Open interest in base units or coins, as the venue counts';

CREATE VIEW liquidations AS
SELECT
    l.time,
    timestamptz 'epoch' + (l.ts_recv / 1000) * interval '1 microsecond' AS recv_time,
    i.venue,
    i.symbol,
    CASE l.side WHEN 'B' THEN 'buy' WHEN 'S' THEN 'sell' END AS side,
    l.price * i.price_unit AS price,
    l.avg_price * 0.00000001 AS average_price,
    l.qty * i.qty_unit AS quantity,
    l.filled_qty * i.qty_unit AS filled_quantity,
    l.flags & 8 <> 0 AS after_gap,
    l.flags & 32 <> 0 AS inexact,
    l.time_sub_us AS time_ns_part,
    s.transport,
    l.stream_id
FROM liquidation l
LEFT JOIN stream s USING (stream_id)
LEFT JOIN instrument i USING (instrument_id);

COMMENT ON VIEW liquidations IS
    'Liquidation orders; side is the order''s (sell: a long was liquidated). Binance pushes at most '
    'the latest one a second and symbol: a sample, not every one';
