-- Whatever reached a socket of ours and is not stored has one reason. These three were missing.

INSERT INTO gap_reason VALUES
    (12, 'unreadable'),
    (13, 'quarantined'),
    (14, 'stopped');
