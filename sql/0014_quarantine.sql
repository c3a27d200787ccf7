-- Which rows are in quarantine (files of the state directory hold their content). A row is noted
-- here by the transaction whose cursor passes it, together with its gap (reason quarantined), so
-- that each is counted once and stored once more at most, whatever dies in between.

CREATE TABLE quarantined_row (
    ring         text NOT NULL,
    epoch        bigint NOT NULL,
    sequence     bigint NOT NULL,
    kind         text NOT NULL,
    stream_id    int NOT NULL,
    gap_detected bigint NOT NULL,
    state        smallint NOT NULL DEFAULT 1 REFERENCES gap_state,
    since        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (ring, epoch, sequence, kind)
);

CREATE INDEX quarantined_row_waiting ON quarantined_row (ring, kind) WHERE state = 1;
CREATE INDEX quarantined_row_gap ON quarantined_row (gap_detected);

COMMENT ON TABLE quarantined_row IS
    'Rows that were received and refused; `fts quarantine` lists, stores or drops them';
COMMENT ON COLUMN quarantined_row.kind IS 'The table the row belongs into';
COMMENT ON COLUMN quarantined_row.stream_id IS
    '0 where the row names no known stream, as in its gap';
COMMENT ON COLUMN quarantined_row.gap_detected IS
    'gap.ts_recv of the gap (reason 13, same stream_id) that declares it';
COMMENT ON COLUMN quarantined_row.state IS
    '1: waits in quarantine, 2: stored since (repaired), 3: dropped (unrecoverable)';
