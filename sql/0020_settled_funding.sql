-- Funding that was paid is a row of funding with flag 128: the views show which rows those are.
--
-- A function of a view's name has the view's columns written out, and is made anew with it.

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
    f.stream_id,
    f.flags & 128 <> 0 AS settled
FROM funding f
LEFT JOIN stream s USING (stream_id)
LEFT JOIN instrument i USING (instrument_id);

CREATE OR REPLACE VIEW funding_rates_f AS
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
    f.stream_id,
    f.flags & 128 <> 0 AS settled
FROM funding f
LEFT JOIN stream s USING (stream_id)
LEFT JOIN instrument i USING (instrument_id);

COMMENT ON COLUMN funding_rates.settled IS
    'True of what was paid, at the time of the row and that mark price; else the state of that time';

DO $make$
DECLARE
    made record;
BEGIN
    FOR made IN SELECT 'funding_rates' || f.suffix AS of_view FROM (VALUES (''), ('_f')) AS f (suffix)
    LOOP
        EXECUTE format($sql$
            CREATE OR REPLACE FUNCTION %1$I(
                of_venue text, of_symbol text, since timestamptz, until timestamptz
            ) RETURNS SETOF %1$I LANGUAGE sql STABLE PARALLEL RESTRICTED BEGIN ATOMIC
                SELECT v.* FROM %1$I AS v
                WHERE v.stream_id = ANY ((SELECT stream_ids(of_venue, of_symbol))::int4[])
                  AND v.time >= since AND v.time < until
                  AND rare_from('funding', stream_ids(of_venue, of_symbol), since, until) IS NULL
                UNION ALL
                SELECT r.* FROM rare_%1$s(of_venue, of_symbol, since, until) AS r;
            END
        $sql$, made.of_view);
    END LOOP;
END
$make$;
