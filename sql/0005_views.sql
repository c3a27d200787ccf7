-- The tables under plain names, numbers as exact decimals. The joins are outer so that the planner
-- keeps the order and the row count of the tick table: ORDER BY time DESC LIMIT 5 reads five rows
-- from the newest partition's index. A condition on symbol or venue makes them inner again.

CREATE VIEW trades AS
SELECT
    t.time,
    timestamptz 'epoch' + (t.ts_recv / 1000) * interval '1 microsecond' AS recv_time,
    i.venue,
    i.symbol,
    CASE t.side WHEN 'B' THEN 'buy' WHEN 'S' THEN 'sell' END AS side,
    t.price * i.price_unit AS price,
    t.qty * i.qty_unit AS quantity,
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

COMMENT ON VIEW trades IS 'One row a trade; side is the taker''s';
COMMENT ON COLUMN trades.trade_uuid IS 'The id where the venue''s ids are UUIDs; trade_id is NULL';
COMMENT ON COLUMN trades.time_ns_part IS 'Nanoseconds (0-999) below the microseconds of time';

CREATE VIEW book_levels AS
SELECT
    b.time,
    timestamptz 'epoch' + (b.ts_recv / 1000) * interval '1 microsecond' AS recv_time,
    i.venue,
    i.symbol,
    CASE b.side WHEN 'b' THEN 'bid' WHEN 'a' THEN 'ask' END AS side,
    CASE WHEN b.side <> '-' THEN b.price * i.price_unit END AS price,
    CASE WHEN b.side <> '-' THEN b.qty * i.qty_unit END AS quantity,
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

COMMENT ON VIEW book_levels IS
    'One row a level change (quantity 0 removes it) or snapshot level; a row with side NULL marks '
    'an event without levels';

CREATE VIEW gaps AS
SELECT
    g.time AS detected,
    i.venue,
    i.symbol,
    s.kind,
    g.from_seq,
    g.to_seq,
    g.missing,
    r.name AS reason,
    st.name AS state,
    timestamptz 'epoch' + (nullif(g.from_ts, 0) / 1000) * interval '1 microsecond' AS from_time,
    timestamptz 'epoch' + (nullif(g.to_ts, 0) / 1000) * interval '1 microsecond' AS to_time,
    s.transport,
    g.stream_id
FROM gap g
LEFT JOIN stream s USING (stream_id)
LEFT JOIN instrument i USING (instrument_id)
LEFT JOIN gap_reason r USING (reason)
LEFT JOIN gap_state st USING (state);

COMMENT ON VIEW gaps IS 'What is known to be missing, and why';
