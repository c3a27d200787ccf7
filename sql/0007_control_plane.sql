-- The wanted streams and their knobs: a mirror of the engine's own file (engine/registry.py), from
-- which an engine that has lost its state directory resumes.
CREATE TABLE stream_registry (
    registry  text NOT NULL,
    venue     text NOT NULL,
    symbol    text NOT NULL,
    kind      text NOT NULL,
    transport text NOT NULL,
    knobs     jsonb NOT NULL DEFAULT '{}',
    origin    text NOT NULL CHECK (origin IN ('config', 'command')),
    added_at  timestamptz NOT NULL,
    added_ns  bigint NOT NULL,
    removed   boolean NOT NULL DEFAULT false,
    PRIMARY KEY (registry, venue, symbol, kind, transport)
);

COMMENT ON COLUMN stream_registry.registry IS
    'Whose streams: database.registry_name, or the id of the instance';
COMMENT ON COLUMN stream_registry.removed IS
    'Removed by command although the configuration file names it';

-- Listings, delistings and changed facts, as the venues were seen to announce them.
CREATE TABLE instrument_event (
    time   timestamptz NOT NULL,
    venue  text NOT NULL,
    symbol text NOT NULL,
    event  text NOT NULL,
    detail text NOT NULL DEFAULT '',
    loaded bigint NOT NULL
);

COMMENT ON COLUMN instrument_event.loaded IS
    'Names the listing (ns since 1970) that showed it: storing a listing twice adds nothing';

CREATE INDEX instrument_event_time ON instrument_event (time);
CREATE INDEX instrument_event_loaded ON instrument_event (venue, loaded);
