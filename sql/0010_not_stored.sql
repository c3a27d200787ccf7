-- Rows that somebody kept out of the database (knob db_writes_enabled) are missing all the same.

INSERT INTO gap_reason VALUES (11, 'not_stored');
