-- Rows that were received and then lost, because neither ring nor journal held them when the database
-- was ready for them: damage, or a database restored from a backup. Each loss is one range of a
-- ring's sequence here, and a gap for every stream that may have had a row in it.

INSERT INTO gap_reason VALUES (10, 'journal_loss');

CREATE TABLE ring_loss (
    ring          text NOT NULL,
    epoch         bigint NOT NULL,
    from_sequence bigint NOT NULL,
    to_sequence   bigint NOT NULL,
    detected      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (ring, epoch, from_sequence)
);

COMMENT ON TABLE ring_loss IS
    'Ranges of rows that were lost after their receipt; gaps (reason journal_loss) name the streams';
COMMENT ON COLUMN ring_loss.to_sequence IS 'Sequence after the last row of the range';

ALTER TABLE ingest_cursor ADD COLUMN last_recv bigint;

COMMENT ON COLUMN ingest_cursor.last_recv IS
    'ts_recv of the last row below the cursor; what is lost after it was received later';
