"""What an engine of another version left is not taken for damage, and damage not for that."""

from collections.abc import Callable
from pathlib import Path

import pytest

from control.cli.commands.doctor_state import state
from engine.base.errors import ConfigError
from engine.data.kinds import TRADE
from engine.data.layout import Layout
from engine.data.ring import format_ring, ring_bytes
from engine.start.preflight import demand_own_format, demand_own_rows, rows_of_others
from engine.writer.sources import journal_format as fmt

RING = "shard-0.trade"


def segment(layout: Layout, ring: str = RING) -> Path:
    path = layout.journal_dir / ring / "17" / f"{0:020d}.seg"
    path.parent.mkdir(parents=True)
    path.write_bytes(fmt.segment_header(TRADE, 17, 0) + b"rows")
    return path


def ring_file(layout: Layout) -> Path:
    memory = bytearray(ring_bytes(TRADE, 64))
    format_ring(memoryview(memory), TRADE, 64, 17)
    layout.shm_dir.mkdir()
    layout.ring_path(RING).write_bytes(memory)
    return layout.ring_path(RING)


def patch(path: Path, at: int, text: bytes) -> None:
    content = bytearray(path.read_bytes())
    content[at : at + len(text)] = text
    path.write_bytes(content)


@pytest.mark.parametrize("make", [segment, ring_file])
@pytest.mark.parametrize(
    ("at", "text"), [(8, b"\x02"), (16, bytes(range(100, 116)))], ids=["format", "layout"]
)
def test_rows_of_another_version_stop_the_start(
    layout: Layout, make: Callable[[Layout], Path], at: int, text: bytes
) -> None:
    path = make(layout)
    demand_own_rows(layout)
    patch(path, at, text)
    with pytest.raises(ConfigError, match=r"another version.*start that one once more"):
        demand_own_rows(layout)
    assert "state_newer" in [each.id for each in state(layout)]
    assert path.exists(), "it is left as it is"


def test_a_kind_that_nobody_knows_here(layout: Layout) -> None:
    path = segment(layout, "shard-0.of_next_year")
    assert rows_of_others(layout) == [path]


@pytest.mark.parametrize("at", range(0, 32, 3))
def test_a_flipped_bit_is_damage(layout: Layout, at: int) -> None:
    path = segment(layout)
    patch(path, at, bytes([path.read_bytes()[at] ^ 0x80]))
    assert rows_of_others(layout) == []


@pytest.mark.parametrize("content", [b"", b"FTSJRNL1", bytes(64)])
def test_a_file_that_was_never_written_is_damage(layout: Layout, content: bytes) -> None:
    segment(layout).write_bytes(content)
    assert rows_of_others(layout) == []


def test_a_directory_that_a_newer_version_has_used_is_left_to_it(layout: Layout) -> None:
    mark = layout.state_dir / "format"
    demand_own_format(layout)
    assert mark.read_text() == "1\n", "0.1.0 left none"
    demand_own_format(layout)
    assert [each for each in state(layout) if each.id == "state_newer"] == []
    mark.write_text("2\n")
    with pytest.raises(
        ConfigError, match=r"has format 2, and this version knows 1.*start that one"
    ):
        demand_own_format(layout)
    assert "state_newer" in [each.id for each in state(layout)]
    assert mark.read_text() == "2\n"


@pytest.mark.parametrize("content", [b"", b"\xff", b"one", b"9" * 5000])
def test_a_damaged_mark_stops_nobody(layout: Layout, content: bytes) -> None:
    (layout.state_dir / "format").write_bytes(content)
    demand_own_format(layout)
    assert (layout.state_dir / "format").read_bytes() == b"1\n"
