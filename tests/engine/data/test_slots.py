"""The stream table: slots are given once, survive a torn line, and are seen by other processes."""

import re
from pathlib import Path

import pytest

from engine.base.errors import EngineError
from engine.data.instrument import Instrument
from engine.data.names import SYMBOL_PATTERN, StreamKey, StreamKind, is_symbol
from engine.data.slots import Slots
from tests.engine.full_disk import full_at

BTC = StreamKey("binance_linear", "BTCUSDT", StreamKind.TRADES)
ETH = StreamKey("binance_linear", "ETHUSDT", StreamKind.TRADES)
SOL = StreamKey("binance_linear", "SOLUSDT", StreamKind.TRADES)
FACTS = Instrument("binance_linear", "BTCUSDT", price_decimals=1, qty_decimals=3)


def test_slots_are_given_once_and_survive_a_restart(tmp_path: Path) -> None:
    slots = Slots(tmp_path / "streams.jsonl")
    assert [slots.assign(key).slot for key in (BTC, ETH, BTC)] == [0, 1, 0]
    slots.describe(0, FACTS)
    again = Slots(tmp_path / "streams.jsonl")
    assert again.assign(ETH).slot == 1
    entry = again.get(0)
    assert entry is not None
    assert entry.instrument == FACTS


def test_another_process_sees_new_lines_after_refresh(tmp_path: Path) -> None:
    supervisor = Slots(tmp_path / "streams.jsonl")
    writer = Slots(tmp_path / "streams.jsonl")
    supervisor.assign(BTC)
    assert writer.get(0) is None
    writer.refresh()
    entry = writer.get(0)
    assert entry is not None
    assert entry.key == BTC


def test_half_a_line_is_cut_off_and_never_glued_to_the_next(tmp_path: Path) -> None:
    path = tmp_path / "streams.jsonl"
    Slots(path).assign(BTC)
    with path.open("ab") as file:
        file.write(b'{"slot":1,"key":{"ven')
    slots = Slots(path)
    assert len(slots) == 1
    slots.assign(ETH)
    assert [entry.key for entry in Slots(path)] == [BTC, ETH]


def test_a_slot_that_a_full_disk_half_gave_away_names_one_stream_for_ever(tmp_path: Path) -> None:
    """The writer may have read a line before the supervisor learned that the rest did not fit."""
    path = tmp_path / "streams.jsonl"
    supervisor = Slots(path)
    supervisor.assign(BTC)
    with full_at(int(path.stat().st_size * 2.5)), pytest.raises(OSError):
        supervisor.assign_all([ETH, SOL])
    writer = Slots(path)
    assert [entry.key for entry in writer] == [BTC, ETH]
    assert supervisor.assign(SOL).slot == 2
    writer.refresh()
    assert [entry.key for entry in writer] == [BTC, ETH, SOL]
    assert supervisor.assign(ETH).slot == 1
    assert [entry.key for entry in Slots(path)] == [BTC, ETH, SOL]
    assert path.read_bytes().count(b"ETHUSDT") == 2, "written once more: was the first one synced?"


def test_damage_inside_the_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "streams.jsonl"
    Slots(path).assign(BTC)
    body = path.read_bytes()
    for damage in (b"garbage\n", body.replace(b"BTC", b"\xff\xfe"), b"[" * 100_000 + b"\n"):
        path.write_bytes(damage + body)
        with pytest.raises(EngineError, match=r"streams\.jsonl is damaged"):
            Slots(path)


def test_describing_with_the_same_facts_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "streams.jsonl"
    slots = Slots(path)
    slots.assign(BTC)
    slots.describe(0, FACTS)
    size = path.stat().st_size
    slots.describe(0, FACTS)
    assert path.stat().st_size == size


@pytest.mark.parametrize(
    "symbol",
    ["BTCUSDT", "kPEPE", "xyz:TSLA", "PURR/USDC", "A@1", "@107", "币安人生USDT", "БТЦ", "비트"],
)
def test_a_symbol_is_a_name_in_any_script(symbol: str) -> None:
    assert is_symbol(symbol)
    assert re.search(SYMBOL_PATTERN, symbol)


@pytest.mark.fault("A06")
@pytest.mark.parametrize(
    "text",
    [
        "", "A B", "A\n", "A\x00", "A\x1b[2J", "A'", 'A"', "A`", "A\\", "A;--", "A%", "A{b=",
        "A\u00a0", "A\u2019", "A\u201d", "A\uff07", "A\u202eB", "A\u200b", "A\u3000", "A\u061c",
        "A\ud800", "A\ufeff", "A" * 33, "币" * 33, "-A", "@\x1b", "/etc/passwd", "A<b>",
    ],
)  # fmt: skip
def test_what_is_no_symbol(text: str) -> None:
    assert not is_symbol(text)
