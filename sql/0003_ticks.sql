-- The tick tables. Columns are those of engine/records.py, in that order; a test compares them.
--
-- No UNIQUE constraint: duplicates are removed before the ring, exactly-once comes from
-- ingest_cursor, and a constraint would forbid TimescaleDB's direct compression.
--
-- One index, on time. Measured on PostgreSQL 18 (2 cores, 500 streams, 1,000,000 trades in COPYs
-- of 50,000, committed rows a second):
--     none                2.0 - 2.4 M/s    94 MB
--     brin (time)         2.3 M/s          94 MB    cannot serve ORDER BY time DESC LIMIT 5
--     btree (time)        1.3 M/s         116 MB    chosen: serves that, and any time window
--     (stream_id, time)   0.8 M/s         135 MB    one hot leaf page a stream; no global order
--     both                0.6 M/s         157 MB

CREATE TABLE gap_reason (
    reason smallint PRIMARY KEY,
    name   text NOT NULL UNIQUE
);

INSERT INTO gap_reason VALUES
    (1, 'sequence'),
    (2, 'reconnect'),
    (3, 'restart'),
    (4, 'ring_full'),
    (5, 'resync'),
    (6, 'history_short'),
    (7, 'renumbered');

CREATE TABLE gap_state (
    state smallint PRIMARY KEY,
    name  text NOT NULL UNIQUE
);

INSERT INTO gap_state VALUES
    (1, 'open'),
    (2, 'repaired'),
    (3, 'unrecoverable'),
    (4, 'unprovable');

CREATE TABLE trade_shape (
    time        timestamptz NOT NULL,
    time_sub_us int2 NOT NULL,
    ts_recv     int8 NOT NULL,
    stream_id   int4 NOT NULL,
    flags       int2 NOT NULL,
    side        "char" NOT NULL,
    price       int8 NOT NULL,
    qty         int8 NOT NULL,
    trade_id_hi int8 NOT NULL,
    trade_id    int8 NOT NULL
);

CREATE TABLE book_shape (
    time        timestamptz NOT NULL,
    time_sub_us int2 NOT NULL,
    ts_recv     int8 NOT NULL,
    stream_id   int4 NOT NULL,
    flags       int2 NOT NULL,
    side        "char" NOT NULL,
    price       int8 NOT NULL,
    qty         int8 NOT NULL,
    seq         int8 NOT NULL,
    prev_seq    int8 NOT NULL
);

-- Hypertables with TimescaleDB; else daily range partitions, which the writer makes ahead
-- (engine/writer/partitions.py). The same columns either way.
DO $$
DECLARE
    tick text;
    hyper bool := EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb');
BEGIN
    FOREACH tick IN ARRAY ARRAY['trade', 'book'] LOOP
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

-- The ledger of what is missing: few rows, kept longer than the ticks, so a plain table.
CREATE TABLE gap (
    time        timestamptz NOT NULL,
    time_sub_us int2 NOT NULL,
    ts_recv     int8 NOT NULL,
    stream_id   int4 NOT NULL,
    reason      int2 NOT NULL,
    state       int2 NOT NULL,
    from_seq    int8 NOT NULL,
    to_seq      int8 NOT NULL,
    from_ts     int8 NOT NULL,
    to_ts       int8 NOT NULL,
    missing     int8 NOT NULL
);

CREATE INDEX gap_time ON gap (time);
