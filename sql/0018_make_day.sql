-- Makes the partition of a day for whoever may execute it: a writer need not own the tables nor
-- create any. It runs as its owner, so it believes nobody: the table must be partitioned, in the
-- schema of this very function, and belong to who owns this or the other tables there; the day must
-- be one that rows may be of, not far ahead.
--
-- A partition is made aside and attached: that takes a lock which lets readers and writers go on,
-- where `CREATE TABLE ... PARTITION OF` would wait for every query on the table, and make all others
-- wait behind it. The advisory lock lets makers of the same day come one after the other.

CREATE FUNCTION make_day(parent regclass, day date) RETURNS boolean
LANGUAGE plpgsql STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    home text;
    child text;
    heir regrole;
    half_gone boolean;
BEGIN
    SELECT n.nspname, c.relname || to_char(day, '"_p"YYYYMMDD'), c.relowner INTO home, child, heir
    FROM pg_class AS c
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_class AS v ON v.relnamespace = n.oid AND v.relname = 'schema_version'
    JOIN pg_proc AS p ON p.pronamespace = n.oid AND p.proname = 'make_day' AND p.prosecdef
    WHERE c.oid = parent AND p.proowner = quote_ident(current_user)::regrole
        AND c.relowner IN (p.proowner, v.relowner) AND pg_has_role(c.relowner, 'USAGE');
    IF NOT FOUND THEN
        RAISE insufficient_privilege
            USING MESSAGE = format('make_day: %s is no table of an owner beside it', parent);
    END IF;
    IF (SELECT c.relkind FROM pg_class AS c WHERE c.oid = parent) <> 'p' THEN
        RETURN false;  -- a hypertable makes its chunks itself
    END IF;
    IF day NOT BETWEEN date '2009-01-01' AND current_date + 366 THEN
        RAISE datetime_field_overflow
            USING MESSAGE = format('make_day: %s is before 2009 or more than a year ahead', day);
    END IF;
    PERFORM pg_advisory_xact_lock(x'66747302'::int);
    SELECT i.inhdetachpending INTO half_gone
    FROM pg_inherits AS i WHERE i.inhrelid = to_regclass(format('%I.%I', home, child));
    IF half_gone THEN
        RAISE object_in_use USING MESSAGE = format('%s is being dropped: its rows wait', child);
    ELSIF FOUND THEN
        RETURN false;
    END IF;
    EXECUTE format(
        'CREATE TABLE IF NOT EXISTS %I.%I (LIKE %s INCLUDING DEFAULTS INCLUDING CONSTRAINTS '
        'INCLUDING STORAGE INCLUDING COMPRESSION)', home, child, parent);
    IF heir <> quote_ident(current_user)::regrole THEN
        EXECUTE format('ALTER TABLE %I.%I OWNER TO %s', home, child, heir);
    END IF;
    EXECUTE format(
        'ALTER TABLE %s ATTACH PARTITION %I.%I FOR VALUES FROM (%L) TO (%L)',
        parent, home, child,
        to_char(day, 'YYYY-MM-DD "00:00:00+00"'), to_char(day + 1, 'YYYY-MM-DD "00:00:00+00"'));
    RETURN true;
EXCEPTION
    WHEN invalid_object_definition THEN
        RETURN false;  -- somebody's own partition covers this day already
END
$$;

COMMENT ON FUNCTION make_day IS
    'Makes the partition of a day (UTC) where it is missing; false where there was nothing to do';

REVOKE ALL ON FUNCTION make_day FROM PUBLIC;
