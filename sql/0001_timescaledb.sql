-- TimescaleDB, where the server has it loaded. Everything works without it: 0003_ticks.sql looks
-- whether the extension is there and makes partitioned tables otherwise.

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb') THEN
        RETURN;
    END IF;
    IF EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb')
        AND current_setting('shared_preload_libraries') LIKE '%timescaledb%'
    THEN
        CREATE EXTENSION timescaledb;
    END IF;
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE NOTICE 'TimescaleDB is there, but this user may not create it: using partitions';
END
$$;
