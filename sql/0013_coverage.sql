-- What was listened to, so that whoever has only the database can tell complete, missing and not
-- collected. Times are the venue's, in ns since 1970, as in table gap: an interval claims nothing
-- that is nearer to a loss than the venue's pushes are late.

CREATE TABLE coverage_end (
    "end" smallint PRIMARY KEY,
    name  text NOT NULL UNIQUE
);

INSERT INTO coverage_end VALUES
    (1, 'stopped'),
    (2, 'reconnect'),
    (3, 'handover'),
    (4, 'silence'),
    (5, 'failed'),
    (6, 'resync'),
    (7, 'crash');

CREATE TABLE coverage (
    stream_id int4 NOT NULL,
    slot      bigint NOT NULL,
    ring      text NOT NULL,
    epoch     bigint NOT NULL,
    carrier   bigint NOT NULL,
    started   bigint NOT NULL,
    ended     bigint,
    "end"     smallint,
    since     bigint
);

CREATE INDEX coverage_stream ON coverage (stream_id, started);
CREATE INDEX coverage_carried ON coverage (ring, epoch, slot, carrier);
CREATE INDEX coverage_open ON coverage (slot) WHERE "end" IS NULL;

COMMENT ON TABLE coverage IS 'Intervals in which a stream was listened to (view coverage_intervals)';
COMMENT ON COLUMN coverage.carrier IS
    'The socket or poller it came through: when that was opened, ns since 1970';
COMMENT ON COLUMN coverage.since IS
    'When it was heard before: what was missed from then to the start is named by gaps';

CREATE TABLE coverage_carrier (
    ring    text NOT NULL,
    epoch   bigint NOT NULL,
    carrier bigint NOT NULL,
    heard   bigint NOT NULL,
    PRIMARY KEY (ring, epoch, carrier)
) WITH (fillfactor = 20);

COMMENT ON TABLE coverage_carrier IS
    'Up to when (venue time, ns) all that a socket or poller brought is stored or declared';

CREATE FUNCTION ns_time(ns bigint) RETURNS timestamptz LANGUAGE sql IMMUTABLE
    RETURN timestamptz 'epoch' + (ns / 1000) * interval '1 microsecond';

CREATE VIEW coverage_intervals AS
SELECT
    i.venue,
    i.symbol,
    s.kind,
    s.transport,
    ns_time(c.started) AS started,
    ns_time(coalesce(c.ended, greatest(c.started, k.heard))) AS ended,
    coalesce(e.name, 'listening') AS how_ended,
    ns_time(least(c.started, c.since)) AS known_since,
    c.carrier AS connection,
    c.stream_id
FROM coverage c
LEFT JOIN coverage_carrier k USING (ring, epoch, carrier)
LEFT JOIN coverage_end e USING ("end")
LEFT JOIN stream s USING (stream_id)
LEFT JOIN instrument i USING (instrument_id);

COMMENT ON VIEW coverage_intervals IS
    'Each interval, in the venue''s time, in which we listened to a stream';
COMMENT ON COLUMN coverage_intervals.ended IS
    'Up to when that is sure: of an interval that nobody has ended, when its connection was last '
    'heard as far as the database knows';
COMMENT ON COLUMN coverage_intervals.how_ended IS
    'stopped, reconnect, handover, silence, failed, resync, crash; listening: not ended, or the '
    'engine has died and none has come after it';
COMMENT ON COLUMN coverage_intervals.known_since IS
    'When it was heard before: from then on to the start all is complete but for the gaps on record';
COMMENT ON COLUMN coverage_intervals.connection IS 'Names the socket or poller';

-- Numbers that nobody knows are NULL, and states say what is true today: this version repairs
-- nothing, so what an earlier one left "open" will stay missing.
CREATE OR REPLACE VIEW gaps AS
SELECT
    g.time AS detected,
    i.venue,
    i.symbol,
    s.kind,
    CASE WHEN g.from_seq <> 0 OR g.to_seq <> 0 THEN g.from_seq END AS from_seq,
    CASE WHEN g.from_seq <> 0 OR g.to_seq <> 0 THEN g.to_seq END AS to_seq,
    CASE WHEN g.missing >= 0 THEN g.missing END AS missing,
    r.name AS reason,
    CASE
        WHEN g.state <> 1 OR g.reason = 13 THEN st.name  -- what is quarantined may yet be stored
        WHEN g.missing >= 0 THEN 'unrecoverable'
        ELSE 'unprovable'
    END AS state,
    timestamptz 'epoch' + (nullif(g.from_ts, 0) / 1000) * interval '1 microsecond' AS from_time,
    timestamptz 'epoch' + (nullif(g.to_ts, 0) / 1000) * interval '1 microsecond' AS to_time,
    s.transport,
    g.stream_id
FROM gap g
LEFT JOIN stream s USING (stream_id)
LEFT JOIN instrument i USING (instrument_id)
LEFT JOIN gap_reason r USING (reason)
LEFT JOIN gap_state st USING (state);

COMMENT ON COLUMN gaps.from_seq IS 'NULL where the venue gives no ids, or they name nothing here';
COMMENT ON COLUMN gaps.missing IS 'NULL where nobody can know';
COMMENT ON COLUMN gaps.state IS
    'unrecoverable: rows are missing, and nothing will fill them in; unprovable: rows may be '
    'missing, and nobody can know; open: the rows are in quarantine; repaired: they were stored '
    'since';

-- The times in which nothing is missing: what was listened to, and what lies between two intervals
-- where that is accounted for, without the times of the gaps.
CREATE VIEW usable_intervals AS
WITH known AS (
    SELECT
        venue, symbol, kind, transport,
        range_agg(tstzrange(coalesce(known_since, started), ended)) AS times
    FROM coverage_intervals
    GROUP BY venue, symbol, kind, transport
), missing AS (
    SELECT
        venue, symbol, kind, transport,
        range_agg(tstzrange(
            from_time, greatest(to_time, from_time) + interval '1 microsecond')) AS times
    FROM gaps
    WHERE state <> 'repaired'
    GROUP BY venue, symbol, kind, transport
)
SELECT
    k.venue,
    k.symbol,
    k.kind,
    k.transport,
    lower(u.usable) AS started,
    upper(u.usable) AS ended
FROM known k
LEFT JOIN missing m USING (venue, symbol, kind, transport)
CROSS JOIN LATERAL unnest(k.times - coalesce(m.times, '{}')) AS u (usable)
WHERE NOT isempty(u.usable);

COMMENT ON VIEW usable_intervals IS
    'Times of the venue, from started up to but not at ended, in which no row of a stream is missing';

CREATE FUNCTION completeness(
    of_venue text, of_symbol text, of_kind text, since timestamptz, until timestamptz,
    by_transport text DEFAULT 'Ws'
) RETURNS TABLE (
    answer text, from_time timestamptz, to_time timestamptz, reason text, missing bigint
) LANGUAGE sql STABLE BEGIN ATOMIC
    WITH asked AS (
        SELECT tstzrange(since, until) AS times
    ), usable AS (
        SELECT tstzrange(started, ended) * a.times AS times
        FROM usable_intervals, asked a
        WHERE (venue, symbol, kind, transport) = (of_venue, of_symbol, of_kind, by_transport)
          AND tstzrange(started, ended) && a.times
    ), lost AS (
        SELECT
            tstzrange(g.from_time,
                      greatest(g.to_time, g.from_time) + interval '1 microsecond') * a.times AS times,
            g.reason, g.state, g.missing
        FROM gaps g, asked a
        WHERE (g.venue, g.symbol, g.kind, g.transport)
            = (of_venue, of_symbol, of_kind, by_transport)
          AND tstzrange(g.from_time,
                        greatest(g.to_time, g.from_time) + interval '1 microsecond') && a.times
          AND g.state <> 'repaired'
    ), known AS (
        SELECT range_agg(times) AS times
        FROM (SELECT times FROM usable UNION ALL SELECT times FROM lost) AS k
    )
    SELECT 'complete', lower(times), upper(times), NULL, 0::bigint FROM usable
    UNION ALL
    SELECT
        CASE
            WHEN l.reason = 'stopped' THEN 'not collected'
            WHEN l.state = 'unprovable' THEN 'unprovable'
            ELSE 'missing'
        END,
        lower(l.times), upper(l.times), l.reason, l.missing
    FROM lost l
    UNION ALL
    SELECT 'not collected', lower(n.times), upper(n.times), NULL, NULL
    FROM known k, asked a,
        LATERAL unnest(tstzmultirange(a.times) - coalesce(k.times, '{}')) AS n (times)
    ORDER BY 2, 3;
END;

COMMENT ON FUNCTION completeness IS
    'What is known of a stream between two times of the venue: complete, missing (a gap says what), '
    'unprovable (rows may be missing), not collected';

CREATE FUNCTION book_at(of_venue text, of_symbol text, at timestamptz)
RETURNS TABLE (side text, price numeric, quantity numeric) LANGUAGE sql STABLE BEGIN ATOMIC
    WITH start AS (
        SELECT time, seq
        FROM book_levels
        WHERE venue = of_venue AND symbol = of_symbol AND is_snapshot AND time <= at
        ORDER BY time DESC, seq DESC LIMIT 1
    ), following AS (
        SELECT b.*
        FROM book_levels b, start s
        WHERE b.venue = of_venue AND b.symbol = of_symbol AND b.time BETWEEN s.time AND at
          AND CASE
              WHEN b.is_snapshot THEN (b.time, b.seq) = (s.time, s.seq)
              ELSE (b.time, b.seq) > (s.time, s.seq)
          END
    ), newest AS (
        SELECT DISTINCT ON (f.side, f.price) f.side, f.price, f.quantity
        FROM following f
        WHERE f.side IS NOT NULL
        ORDER BY f.side, f.price, f.time DESC, f.seq DESC
    )
    SELECT n.side, n.price, n.quantity
    FROM newest n
    WHERE n.quantity > 0
      AND NOT EXISTS (SELECT FROM following f WHERE f.after_gap AND NOT f.is_snapshot)
    ORDER BY n.side DESC, CASE n.side WHEN 'bid' THEN -n.price ELSE n.price END;
END;

COMMENT ON FUNCTION book_at IS
    'The book at a time of the venue, from the last snapshot and the changes since, best levels '
    'first; nothing where a gap follows that snapshot';
