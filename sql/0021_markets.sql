-- What is traded, in one meaning for all venues, and sizes in units of the base currency.
--
-- Venues count in units of their own: coins, or contracts that are `contract_size` of the base or of
-- the quote currency. Rows keep the venue's number (`quantity`); `base_quantity` is the one that can
-- be compared between venues.

ALTER TABLE instrument
    ADD COLUMN instrument_kind text NOT NULL DEFAULT '',
    ADD COLUMN venue_kind text NOT NULL DEFAULT '',
    ADD COLUMN instrument_state text NOT NULL DEFAULT '',
    ADD COLUMN settle text NOT NULL DEFAULT '',
    ADD COLUMN contract_unit text NOT NULL DEFAULT ''
        CHECK (contract_unit IN ('', 'base', 'quote')),
    ADD COLUMN listed_at timestamptz,
    ADD COLUMN delivery_at timestamptz;

UPDATE instrument SET instrument_state = 'delisted' WHERE status = 'DELISTED';  -- our word, when a symbol is gone

COMMENT ON COLUMN instrument.instrument_kind IS 'perpetual, future, option or spot; empty: not known';
COMMENT ON COLUMN instrument.venue_kind IS 'The venue''s own word for kind';
COMMENT ON COLUMN instrument.instrument_state IS
    'announced, trading, halted, settling, expired or delisted; empty: not known';
COMMENT ON COLUMN instrument.status IS 'The venue''s own word for state';
COMMENT ON COLUMN instrument.settle IS 'The currency that gains and losses are paid in';
COMMENT ON COLUMN instrument.contract_size IS 'What a quantity of 1 is, in contract_unit';
COMMENT ON COLUMN instrument.contract_unit IS
    'base, or quote: a contract is worth that much at whatever price; empty: not known';
COMMENT ON COLUMN instrument.listed_at IS 'NULL where the venue does not say it';
COMMENT ON COLUMN instrument.delivery_at IS 'NULL for what has no end, or where it is not known';

-- A version's facts never change, but for those that nobody knew when it was stored: they are filled
-- in. It runs as its owner, so that a writer who may change no row can do this and no more.
CREATE FUNCTION fill_unknown_facts(
    of_instrument int, its_kind text, its_venue_kind text, its_state text, its_settle text,
    its_contract_unit text, its_listed_at timestamptz, its_delivery_at timestamptz
) RETURNS void LANGUAGE sql SECURITY DEFINER BEGIN ATOMIC
    UPDATE instrument AS i SET
        instrument_kind = coalesce(nullif(i.instrument_kind, ''), its_kind),
        venue_kind = coalesce(nullif(i.venue_kind, ''), its_venue_kind),
        instrument_state = coalesce(nullif(i.instrument_state, ''), its_state),
        settle = coalesce(nullif(i.settle, ''), its_settle),
        contract_unit = coalesce(nullif(i.contract_unit, ''), its_contract_unit),
        listed_at = coalesce(i.listed_at, its_listed_at),
        delivery_at = coalesce(i.delivery_at, its_delivery_at)
    WHERE i.instrument_id = of_instrument;
END;

COMMENT ON FUNCTION fill_unknown_facts IS
    'What an instrument''s version does not say; what it says stays';

REVOKE ALL ON FUNCTION fill_unknown_facts FROM PUBLIC;

-- Contracts of a fixed value in the quote currency: their number times that value is divided by the
-- price. A division has the decimals of its dividend at least, and 16 significant digits at least;
-- its last digit is rounded half away from zero. Nothing else is rounded.
CREATE FUNCTION base_quantity(
    quantity numeric, contract_size numeric, contract_unit text, price numeric
) RETURNS numeric LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE contract_unit
    WHEN 'base' THEN quantity * contract_size
    WHEN 'quote' THEN CASE
        WHEN price > 0 THEN (quantity * contract_size + 0.000000000000000000000000) / price
    END
END;

COMMENT ON FUNCTION base_quantity IS
    'A quantity in units of the base currency. Exact where a contract is some of that; else rounded '
    'to 24 decimals or more. NULL where the contract''s unit is not known, or the price is needed '
    'and there is none';

-- Where a quantity is one of the base currency already, it is found as `quantity` is.
CREATE FUNCTION nearest_base_quantity(
    qty int8, qty_scale float8, qty_unit numeric, contract_size numeric, contract_unit text,
    price numeric
) RETURNS float8 LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN contract_unit = 'base' AND contract_size = 1 THEN nearest(qty, qty_scale, qty_unit)
    ELSE base_quantity(qty * qty_unit, contract_size, contract_unit, price)::float8
END;

COMMENT ON FUNCTION nearest_base_quantity IS
    'The double nearest to the base_quantity of a mantissa of table trade and the like';

-- The views of 0005, 0006, 0008 and 0017, with one column more at the end of each that has
-- quantities.

CREATE OR REPLACE VIEW trades AS
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
    t.stream_id,
    base_quantity(t.qty * i.qty_unit, i.contract_size, i.contract_unit, t.price * i.price_unit)
        AS base_quantity
FROM trade t
LEFT JOIN stream s USING (stream_id)
LEFT JOIN instrument i USING (instrument_id);

CREATE OR REPLACE VIEW book_levels AS
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
    b.stream_id,
    CASE
        WHEN b.side <> '-'
        THEN base_quantity(b.qty * i.qty_unit, i.contract_size, i.contract_unit, b.price * i.price_unit)
    END AS base_quantity
FROM book b
LEFT JOIN stream s USING (stream_id)
LEFT JOIN instrument i USING (instrument_id);

CREATE OR REPLACE VIEW quotes AS
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
    q.stream_id,
    CASE
        WHEN q.bid <> 0
        THEN base_quantity(
            q.bid_qty * i.qty_unit, i.contract_size, i.contract_unit, q.bid * i.price_unit)
    END AS bid_base_quantity,
    CASE
        WHEN q.ask <> 0
        THEN base_quantity(
            q.ask_qty * i.qty_unit, i.contract_size, i.contract_unit, q.ask * i.price_unit)
    END AS ask_base_quantity
FROM quote q
LEFT JOIN stream s USING (stream_id)
LEFT JOIN instrument i USING (instrument_id);

CREATE OR REPLACE VIEW open_interest_points AS
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
    o.stream_id,
    base_quantity(o.qty * i.qty_unit, i.contract_size, i.contract_unit, NULL) AS base_quantity
FROM open_interest o
LEFT JOIN stream s USING (stream_id)
LEFT JOIN instrument i USING (instrument_id);

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
    l.stream_id,
    base_quantity(l.qty * i.qty_unit, i.contract_size, i.contract_unit, l.price * i.price_unit)
        AS base_quantity
FROM liquidation l
LEFT JOIN stream s USING (stream_id)
LEFT JOIN instrument i USING (instrument_id);

CREATE OR REPLACE VIEW trades_f AS
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
    t.stream_id,
    nearest_base_quantity(
        t.qty, i.qty_scale, i.qty_unit, i.contract_size, i.contract_unit, t.price * i.price_unit)
        AS base_quantity
FROM trade t
LEFT JOIN stream s USING (stream_id)
LEFT JOIN instrument i USING (instrument_id);

CREATE OR REPLACE VIEW book_levels_f AS
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
    b.stream_id,
    CASE
        WHEN b.side <> '-'
        THEN nearest_base_quantity(
            b.qty, i.qty_scale, i.qty_unit, i.contract_size, i.contract_unit, b.price * i.price_unit)
    END AS base_quantity
FROM book b
LEFT JOIN stream s USING (stream_id)
LEFT JOIN instrument i USING (instrument_id);

CREATE OR REPLACE VIEW quotes_f AS
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
    q.stream_id,
    CASE
        WHEN q.bid <> 0
        THEN nearest_base_quantity(
            q.bid_qty, i.qty_scale, i.qty_unit, i.contract_size, i.contract_unit, q.bid * i.price_unit)
    END AS bid_base_quantity,
    CASE
        WHEN q.ask <> 0
        THEN nearest_base_quantity(
            q.ask_qty, i.qty_scale, i.qty_unit, i.contract_size, i.contract_unit, q.ask * i.price_unit)
    END AS ask_base_quantity
FROM quote q
LEFT JOIN stream s USING (stream_id)
LEFT JOIN instrument i USING (instrument_id);

CREATE OR REPLACE VIEW open_interest_points_f AS
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
    o.stream_id,
    nearest_base_quantity(
        o.qty, i.qty_scale, i.qty_unit, i.contract_size, i.contract_unit, NULL) AS base_quantity
FROM open_interest o
LEFT JOIN stream s USING (stream_id)
LEFT JOIN instrument i USING (instrument_id);

CREATE OR REPLACE VIEW liquidations_f AS
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
    l.stream_id,
    nearest_base_quantity(
        l.qty, i.qty_scale, i.qty_unit, i.contract_size, i.contract_unit, l.price * i.price_unit)
        AS base_quantity
FROM liquidation l
LEFT JOIN stream s USING (stream_id)
LEFT JOIN instrument i USING (instrument_id);

DO $$
DECLARE
    made record;
BEGIN
    FOR made IN SELECT c.oid::regclass AS of_view, a.attname
        FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid
        WHERE a.attname ~ 'base_quantity$' AND c.relkind = 'v' AND c.relnamespace = (
            SELECT v.relnamespace FROM pg_class AS v WHERE v.oid = 'instrument'::regclass)
    LOOP
        EXECUTE format(
            'COMMENT ON COLUMN %s.%I IS ''In units of the base currency (docs/markets.md); NULL '
            'where they cannot be known''', made.of_view, made.attname);
    END LOOP;
END
$$;

COMMENT ON VIEW open_interest_points IS
    'Open interest as the venue counts: contracts where it trades contracts';
COMMENT ON COLUMN open_interest_points.base_quantity IS
    'In units of the base currency; NULL where a contract is worth a fixed amount of the quote '
    'currency, for that takes a price';
COMMENT ON FUNCTION bars_raw IS
    'Bars of one symbol from its trades: exact, aligned to 1970, none where there was no trade; '
    'volumes in the unit of trades.quantity';

-- Functions whose body is SQL return the columns that their view had when they were made: once more
-- what 0019_no_workers_for_rare_symbols.sql says of them.
DO $make$
DECLARE
    made record;
BEGIN
    FOR made IN SELECT v.of_kind, v.of_view || f.suffix AS of_view
        FROM (VALUES
            ('trade', 'trades'), ('book', 'book_levels'), ('quote', 'quotes'),
            ('open_interest', 'open_interest_points'), ('liquidation', 'liquidations')
        ) AS v (of_kind, of_view), (VALUES (''), ('_f')) AS f (suffix)
    LOOP
        EXECUTE format($sql$
            CREATE OR REPLACE FUNCTION %1$I(
                of_venue text, of_symbol text, since timestamptz, until timestamptz
            ) RETURNS SETOF %1$I LANGUAGE sql STABLE PARALLEL RESTRICTED BEGIN ATOMIC
                SELECT v.* FROM %1$I AS v
                WHERE v.stream_id = ANY ((SELECT stream_ids(of_venue, of_symbol))::int4[])
                  AND v.time >= since AND v.time < until
                  AND rare_from(%2$L, stream_ids(of_venue, of_symbol), since, until) IS NULL
                UNION ALL
                SELECT r.* FROM rare_%1$s(of_venue, of_symbol, since, until) AS r;
            END
        $sql$, made.of_view, made.of_kind);
    END LOOP;
END
$make$;
