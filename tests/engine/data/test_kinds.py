"""What is on disk and in shared memory: an engine reads what the version before has written.

These literals are today's. Whoever changes one makes every ring, journal and position of the
version before unreadable, and raises LAYOUT_VERSION.
"""

from pathlib import Path

import pytest

from engine.data.kinds import KINDS, NOT_MARKET_DATA
from engine.data.names import CARRIES, StreamKind
from shards.feeds import book_rows, contracts, quotes, trades
from shards.feeds.declared import coverage, gaps

TIME = (
    "time=timestamptz:ts_event:time_us time_sub_us=int2:ts_event:sub_us ts_recv=int8:ts_recv:copy"
)
START = f"{TIME} stream_id=int4:stream:stream"
FLAGS = "flags=int2:flags:flags"
LEVEL = "side=char:side:copy price=int8:price:price qty=int8:qty:qty"
FINGERPRINTS = {
    "trade": ("baf9b5a02057a79475e0f771087cf47f", 56, "trade_id"),
    "book": ("d0562ea2e3ee5493e3e5cabdef23bd6b", 56, "seq"),
    "quote": ("f5f5b8f6638ba8a99edfa8e4888bd94c", 64, "seq"),
    "funding": ("3f46528f5e0cd7180251bb3b1b5451cc", 64, "ts_event"),
    "open_interest": ("218c314021b85cc6c35882ff009abc43", 32, "ts_event"),
    "liquidation": ("b3f094fadb77747fd1902a275a4d9723", 56, "ts_event"),
    "gap": ("dc462dabf82b0da5575e3570c217b179", 64, "to_seq"),
    "coverage": ("b989ca033bb34ad709fd247b9874f98b", 48, "carrier"),
}
COLUMNS = {
    "trade": f"{START} {FLAGS} {LEVEL}"
    " trade_id_hi=int8:trade_id_hi:copy trade_id=int8:trade_id:copy",
    "book": f"{START} {FLAGS} {LEVEL} seq=int8:seq:copy prev_seq=int8:prev_seq:copy",
    "quote": f"{START} {FLAGS} seq=int8:seq:copy bid=int8:bid:price bid_qty=int8:bid_qty:qty"
    " ask=int8:ask:price ask_qty=int8:ask_qty:qty",
    "funding": f"{START} {FLAGS} rate=int8:rate:fixed12 mark=int8:mark:fixed8"
    " index=int8:index:fixed8 next_ts=int8:next_ts:copy interval_s=int4:interval_s:copy",
    "open_interest": f"{START} {FLAGS} qty=int8:qty:qty",
    "liquidation": f"{START} {FLAGS} side=char:side:copy price=int8:price:price"
    " avg_price=int8:avg_price:fixed8 qty=int8:qty:qty filled_qty=int8:filled_qty:qty",
    "gap": f"{START} reason=int2:reason:copy state=int2:state:copy from_seq=int8:from_seq:copy"
    " to_seq=int8:to_seq:copy from_ts=int8:from_ts:copy to_ts=int8:to_ts:copy"
    " missing=int8:missing:copy",
    "coverage": "",
}
FORMATS = {
    trades._PACK_TRADE: "=IHBxqq8xqdd",
    book_rows._PACK_LEVEL: "=IHBxqqqqdd",
    quotes._PACK_QUOTE: "=IH2xqqqdddd",
    contracts._PACK_FUNDING: "=IH2xqqdddqI4x",
    contracts._PACK_OPEN_INTEREST: "=IH2xqqd",
    contracts._PACK_LIQUIDATION: "=IHBxqqdddd",
    gaps._PACK_GAP: "=IHBBqqqqqqq",
    coverage._PACK: "=IHBBqqqqq",
}
DOCS = Path(__file__).parents[3] / "docs"


def test_readers_are_told_of_every_kind() -> None:
    settings, redis, sql = (
        (DOCS / f"{name}.md").read_text(encoding="utf-8")
        for name in ("configuration", "redis", "sql")
    )
    for kind in KINDS.values():
        assert f"| `shards.ring_records.{kind.name}` | `{kind.ring_records_min}`" in settings
        assert f"`{kind.view or kind.name}`" in sql or not kind.columns
        assert f"| `fts:{kind.word}:<venue>:<symbol>` |" in redis or not kind.word


def test_a_stream_brings_kinds_that_there_are() -> None:
    assert set(CARRIES) == set(StreamKind)
    brought = {name for names in CARRIES.values() for name in names}
    assert brought == KINDS.keys() - NOT_MARKET_DATA


def test_every_kind_has_its_literals() -> None:
    assert list(KINDS) == list(FINGERPRINTS) == list(COLUMNS)


@pytest.mark.parametrize("name", FINGERPRINTS)
def test_what_is_written_to_rings_and_journals_stays_readable(name: str) -> None:
    spec = KINDS[name]
    assert (spec.fingerprint.hex(), spec.dtype.itemsize, spec.id_field) == FINGERPRINTS[name]


@pytest.mark.parametrize("name", COLUMNS)
def test_what_is_copied_into_the_tables_stays(name: str) -> None:
    columns = KINDS[name].columns
    said = (f"{c.name}={c.pg_type}:{c.source}:{c.transform}{c.decimals or ''}" for c in columns)
    assert " ".join(said) == COLUMNS[name]


@pytest.mark.parametrize("pack", FORMATS, ids=FORMATS.values())
def test_feeds_write_rows_as_the_rings_hold_them(pack: object) -> None:
    packer = pack.__self__  # type: ignore[attr-defined]
    assert packer.format == FORMATS[pack]  # type: ignore[index]
