-- How far each ring is stored. The writer moves a cursor by compare-and-set in the transaction that
-- stores the rows, before it copies them: that, and nothing else, is what makes ingest exactly-once.

CREATE TABLE ingest_cursor (
    ring        text NOT NULL,
    epoch       bigint NOT NULL,
    sequence    bigint NOT NULL,
    backend_pid int NOT NULL,
    updated_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (ring, epoch)
) WITH (fillfactor = 20);

COMMENT ON TABLE ingest_cursor IS
    'Few rows, updated with every commit: the low fillfactor keeps those updates in their page';
COMMENT ON COLUMN ingest_cursor.sequence IS 'Sequence of the next record to store';
COMMENT ON COLUMN ingest_cursor.backend_pid IS
    'Session that claimed the cursor; a successor ends it when it hangs on to the row';
