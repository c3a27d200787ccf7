-- completeness() asks for the gaps of one stream. Measured with 1,200,000 gaps: 230 ms a stream without
-- this index, 7 ms with it; a day of 500 streams, with 491,000 pieces, in 4 s instead of 2 minutes.

CREATE INDEX gap_stream ON gap (stream_id);
