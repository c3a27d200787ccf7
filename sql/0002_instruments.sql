-- What a row's stream_id means. Ticks hold integer mantissas; an instrument version says what one
-- unit of them is. More decimals than a version has make a new version with streams of its own, so
-- a stored row never changes its meaning.

CREATE TABLE instrument (
    instrument_id  serial PRIMARY KEY,
    venue          text NOT NULL,
    symbol         text NOT NULL,
    version        int NOT NULL,
    base           text NOT NULL,
    quote          text NOT NULL,
    price_decimals smallint NOT NULL CHECK (price_decimals BETWEEN 0 AND 15),
    qty_decimals   smallint NOT NULL CHECK (qty_decimals BETWEEN 0 AND 15),
    price_unit     numeric NOT NULL,
    qty_unit       numeric NOT NULL,
    tick_size      numeric,
    lot_size       numeric,
    contract_size  numeric,
    status         text NOT NULL,
    valid_from     timestamptz NOT NULL DEFAULT now(),
    UNIQUE (venue, symbol, version)
);

COMMENT ON COLUMN instrument.price_unit IS
    'Worth of one unit of trade.price and book.price: 10 ^ -price_decimals, with that scale';
COMMENT ON COLUMN instrument.qty_unit IS
    'Worth of one unit of trade.qty and book.qty: 10 ^ -qty_decimals, with that scale';

CREATE TABLE stream (
    stream_id     serial PRIMARY KEY,
    instrument_id int NOT NULL REFERENCES instrument,
    kind          text NOT NULL,
    transport     text NOT NULL,
    UNIQUE (instrument_id, kind, transport)
);
