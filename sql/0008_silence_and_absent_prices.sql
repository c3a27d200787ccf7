-- One more reason for gaps, and views that do not show a price where the venue has none.
--
-- A venue writes 0 for a price that does not exist: an order of which nothing was filled has no
-- average, a settled contract no index. Shown as 0 it would enter somebody's mean.

INSERT INTO gap_reason VALUES (9, 'silence');

CREATE OR REPLACE VIEW funding_rates AS
SELECT
    f.time,
    timestamptz 'epoch' + (f.ts_recv / 1000) * interval '1 microsecond' AS recv_time,
    i.venue,
    i.symbol,
    CASE WHEN f.flags & 64 = 0 THEN f.rate * 0.000000000001 END AS rate,
    nullif(f.mark, 0) * 0.00000001 AS mark_price,
    nullif(f.index, 0) * 0.00000001 AS index_price,
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

COMMENT ON COLUMN funding_rates.mark_price IS 'NULL where the venue has none';
COMMENT ON COLUMN funding_rates.index_price IS 'NULL where the venue has none';
COMMENT ON COLUMN funding_rates.funding_interval IS
    'As the venue said when it was asked last, a minute before at most; NULL where it did not';

CREATE OR REPLACE VIEW liquidations AS
SELECT
    l.time,
    timestamptz 'epoch' + (l.ts_recv / 1000) * interval '1 microsecond' AS recv_time,
    i.venue,
    i.symbol,
    CASE l.side WHEN 'B' THEN 'buy' WHEN 'S' THEN 'sell' END AS side,
    l.price * i.price_unit AS price,
    nullif(l.avg_price, 0) * 0.00000001 AS average_price,
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

COMMENT ON COLUMN liquidations.average_price IS 'NULL while nothing of the order has been filled';
