"""Rows travel ring → journal → database whatever stops, fails or restarts on the way."""

from contextlib import AbstractContextManager, nullcontext
from math import inf
from pathlib import Path
from struct import Struct
from tempfile import TemporaryDirectory
from unittest.mock import patch

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine.base.errors import JournalError
from engine.data.kind import RecordArray
from engine.data.kinds import TRADE
from engine.data.layout import Layout, open_layout
from engine.data.positions import read_position
from engine.data.ring import RingProducer
from engine.data.segment import Segment, attach_segment
from engine.messages.settings import RingSettings
from engine.writer.sources.journal import Journal
from engine.writer.sources.source import Readers
from engine.writer.sources.sources import Sources

_PACK = Struct("=IHBxqq8xqdd").pack_into
RING = "shard-0.trade"
BOTH = Readers(("database",), ("redis",))
WANTED = [RingSettings(RING, "trade", 64)]


@pytest.fixture(autouse=True)
def _disk_is_asked_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.writer.sources.source._JOURNAL_RETRY_S", 0.0)


class Shard:
    """The producing side of one ring."""

    def __init__(self, layout: Layout, ring: str = RING) -> None:
        self.segment: Segment = attach_segment(layout.ring_path(ring), writable=True)
        self.segment.lock()
        self.ring = RingProducer(memoryview(self.segment.memory), TRADE)

    def put(self, trade_id: int) -> bool:
        seq = self.ring.reserve()
        if seq < 0:
            return False
        offset = self.ring.offset_of(seq)
        _PACK(self.ring.buffer, offset, 5, 0, 66, trade_id, 1, trade_id, 1.0, 1.0)
        self.ring.publish()
        return True

    def close(self) -> None:
        self.ring.close()
        self.segment.close()


class SourceMachine(RuleBasedStateMachine):
    """The database is a list and a cursor by epoch; every accepted row must end in it once."""

    @initialize()
    def start(self) -> None:
        self.directory = TemporaryDirectory()
        root = Path(self.directory.name)
        self.layout = open_layout(root / "state", shm_root=root / "shm")
        self.accepted: list[int] = []
        self.database: list[int] = []
        self.cursors: dict[int, int] = {}
        self.disk_full = False
        self.next_id = 1
        self.open_writer()
        self.shard = Shard(self.layout)

    def teardown(self) -> None:
        if hasattr(self, "shard"):
            self.shard.close()
            for source in self.sources:
                source.close()
            self.directory.cleanup()

    def open_writer(self) -> None:
        self.sources = Sources(self.layout, 600, BOTH)
        self.sources.open(WANTED)
        for source in self.sources:
            seq = self.cursors.setdefault(source.epoch, source.first_seq)
            source.advance("database", seq, durable=False)

    @rule(count=st.integers(1, 40))
    def trade(self, count: int) -> None:
        for _ in range(count):
            if self.shard.put(self.next_id):
                self.accepted.append(self.next_id)
            self.next_id += 1

    @rule()
    def pump(self) -> None:
        with _disk(full=self.disk_full):
            for source in self.sources:
                source.pump()

    @rule(full=st.booleans())
    def disk_fills_or_frees(self, full: bool) -> None:
        self.disk_full = full

    @rule(most=st.integers(1, 50), durable=st.booleans())
    def commit(self, most: int, durable: bool) -> None:
        for source in list(self.sources):  # what earlier runs left comes first
            seq = source.progress("database").seq
            while most > 0 and seq < source.head_seq:
                first, records = source.read(seq, most)
                assert first == seq, "nothing may be lost on the way"
                assert len(records) > 0
                self.database += records["trade_id"].tolist()
                seq, most = first + len(records), most - len(records)
            self.cursors[source.epoch] = seq
            source.advance("database", seq, durable=durable)
        self.sources.remove_delivered()

    @rule()
    def redis_keeps_up(self) -> None:
        for source in self.sources:
            source.progress("redis").seq = source.head_seq

    @rule()
    def writer_is_killed(self) -> None:
        """What it held in memory is gone; rings, journal and the database's cursors stay."""
        for source in self.sources:
            source.close()
        self.open_writer()

    @precondition(lambda self: not self.disk_full)
    @rule()
    def machine_is_restarted_in_order(self) -> None:
        """Both leave; everything was pumped, not everything was delivered."""
        self.pump()
        self.shard.close()
        self.sources.remove_all()
        assert not self.layout.shm_dir.exists()
        self.open_writer()
        self.shard = Shard(self.layout)

    @invariant()
    def database_is_a_prefix_in_order(self) -> None:
        if not hasattr(self, "database"):
            return
        assert self.database == self.accepted[: len(self.database)]

    @invariant()
    def positions_follow_the_pump(self) -> None:
        if not hasattr(self, "sources"):
            return
        position = read_position(self.layout.positions_dir, TRADE.name, 5)
        assert position is None or position.id in self.accepted


def _refuse(journal: Journal, first_seq: int, records: RecordArray) -> None:
    del journal, first_seq, records
    raise JournalError("no space left")


def _disk(*, full: bool) -> AbstractContextManager[object]:
    return patch.object(Journal, "append", _refuse) if full else nullcontext()


TestSourceAgainstModel = SourceMachine.TestCase
TestSourceAgainstModel.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)


@pytest.mark.fault("D01")
def test_without_a_journal_rows_stay_in_the_ring_until_durable(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    layout = open_layout(tmp_path / "state", shm_root=tmp_path / "shm")
    sources = Sources(layout, 1 << 20, BOTH)
    sources.open(WANTED)
    (source,) = sources
    shard = Shard(layout)
    with _disk(full=True):
        for trade_id in range(1, 65):
            assert shard.put(trade_id)
        source.pump()
        assert "no space left" in source.journal_error
        assert caplog.text.count("no space left") == 1
        assert not shard.put(65), "nothing was released"
        source.advance("database", 64, durable=False)
        source.pump()
        assert not shard.put(66), "stored is not yet durable"
        source.advance("database", 64, durable=True)
        source.progress("redis").seq = 64
        source.pump()
        assert shard.put(67)
    source.pump()
    assert "works again" in caplog.text
    assert source.read(64, 10)[1]["trade_id"].tolist() == [67]
    shard.close()
    sources.remove_all()


def test_what_waits_beyond_the_limit_stays_in_the_ring(tmp_path: Path) -> None:
    """Half a ring may wait in the journal; once the database has that for good, the rest may."""
    layout = open_layout(tmp_path / "state", shm_root=tmp_path / "shm")
    sources = Sources(layout, 1 << 20, BOTH, 32 * TRADE.dtype.itemsize)
    sources.open(WANTED)
    (source,) = sources
    shard = Shard(layout)
    for trade_id in range(1, 33):
        assert shard.put(trade_id)
    source.pump()
    sources.note_waiting()
    for trade_id in range(33, 65):
        assert shard.put(trade_id)
    source.pump()
    assert "as much waits for the database as may" in source.journal_error
    for trade_id in range(65, 97):
        assert shard.put(trade_id), "the journal has the first 32"
    source.pump()
    assert not shard.put(97), "nothing more was released"
    assert source.waiting_bytes == 96 * TRADE.dtype.itemsize
    source.progress("redis").seq = 96
    for durable_seq, is_waiting in ((64, True), (65, False)):
        source.advance("database", durable_seq, durable=True)
        sources.note_waiting()
        with patch("engine.writer.sources.source.monotonic_s", lambda: inf):
            source.pump()
        assert bool(source.journal_error) == is_waiting, "32 rows are as much as may wait"
    assert shard.put(98)
    assert source.read(95, 10)[1]["trade_id"].tolist() == [96, 98]
    shard.close()
    sources.remove_all()


def test_ring_of_another_layout_refuses_to_start(tmp_path: Path) -> None:
    layout = open_layout(tmp_path / "state", shm_root=tmp_path / "shm")
    sources = Sources(layout, 1 << 20, BOTH)
    sources.open(WANTED)
    path = layout.ring_path(RING)
    for source in sources:
        source.close()
    with path.open("r+b") as file:
        file.seek(16)
        file.write(b"another layout!!")
    with pytest.raises(Exception, match="other records"):
        Sources(layout, 1 << 20, BOTH).open(WANTED)


def test_a_ring_left_behind_does_not_take_positions_back(tmp_path: Path) -> None:
    layout = open_layout(tmp_path / "state", shm_root=tmp_path / "shm")
    wanted = [RingSettings(ring, "trade", 64) for ring in ("shard-0.trade", "shard-1.trade")]
    sources = Sources(layout, 600, BOTH)
    sources.open(wanted)
    for ring, trade_ids in (("shard-1.trade", range(1, 6)), ("shard-0.trade", range(6, 10))):
        shard = Shard(layout, ring)
        for trade_id in trade_ids:
            shard.put(trade_id)
        for source in sources:
            source.pump()
        shard.close()
    for _ in range(2):  # the writer dies; the database has had nothing, so the rings hold all
        for source in sources:
            source.close()
        sources = Sources(layout, 600, BOTH)
        sources.open(wanted)
        for source in sources:
            source.pump()
        position = read_position(layout.positions_dir, TRADE.name, 5)
        assert position is not None
        assert position.id == 9, "the next shard would take four stored rows for missing"
    for source in sources:
        source.close()


def test_a_ring_that_nobody_writes_to_goes_once_everybody_has_its_rows(tmp_path: Path) -> None:
    layout = open_layout(tmp_path / "state", shm_root=tmp_path / "shm")
    sources = Sources(layout, 1 << 16, BOTH)
    sources.open(WANTED)
    shard = Shard(layout)
    assert shard.put(1)
    shard.close()
    (source,) = sources
    source.pump()
    source.advance("database", 1, durable=True)
    sources.remove_delivered()
    assert layout.ring_path(RING).exists(), "its shard may come back"
    sources.want(["shard-0b.trade"])
    sources.remove_delivered()
    assert layout.ring_path(RING).exists(), "the reader of live rows has not read it"
    source.advance("redis", 1, durable=False)
    sources.remove_delivered()
    assert not layout.ring_path(RING).exists()
    assert list(sources) == []
    assert read_position(layout.positions_dir, "trade", 5) is not None
