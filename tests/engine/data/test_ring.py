"""The ring against a ten-line model, and what happens when processes die or memory runs out."""

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path
from struct import Struct

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from engine.base.errors import RingBusyError, RingLayoutError, SegmentError
from engine.data.kinds import BOOK, TRADE
from engine.data.ring import (
    HEADER_BYTES,
    RingProducer,
    RingReader,
    RingTap,
    format_ring,
    ring_bytes,
)
from engine.data.segment import attach_segment, create_segment

_PACK = Struct("=IHBBqqqqdd").pack_into


def new_memory(capacity: int, epoch: int = 7) -> memoryview:
    memory = memoryview(bytearray(ring_bytes(TRADE, capacity)))
    format_ring(memory, TRADE, capacity, epoch)
    return memory


def put(producer: RingProducer, trade_id: int) -> bool:
    seq = producer.reserve()
    if seq < 0:
        return False
    _PACK(producer.buffer, producer.offset_of(seq), 1, 0, 66, 0, 0, 0, 0, trade_id, 1.0, 1.0)
    return True


class RingMachine(RuleBasedStateMachine):
    """Random puts, blocks, publishes, polls, releases and restarts of either side."""

    @initialize(power=st.integers(1, 6))
    def start(self, power: int) -> None:
        self.capacity = 2**power
        self.memory = new_memory(self.capacity)
        self.producer = RingProducer(self.memory, TRADE)
        self.reader = RingReader(self.memory, TRADE)
        self.written: list[int] = []
        self.published = 0
        self.read = 0
        self.released = 0
        self.dropped = 0

    @rule(count=st.integers(1, 9))
    def put_rows(self, count: int) -> None:
        for _ in range(count):
            fits = len(self.written) - self.released < self.capacity
            assert put(self.producer, len(self.written)) == fits
            if fits:
                self.written.append(len(self.written))
            else:
                self.dropped += 1

    @rule(count=st.integers(1, 9))
    def put_block(self, count: int) -> None:
        first = len(self.written)
        fits = first + count - self.released <= self.capacity
        seq = self.producer.reserve(count)
        assert seq == (first if fits else -1)
        if not fits:
            self.dropped += count
            return
        ids = iter(range(first, first + count))
        for view in self.producer.views(seq, count):
            view["trade_id"] = [next(ids) for _ in range(len(view))]
        self.written += range(first, first + count)

    @rule()
    def publish(self) -> None:
        self.producer.publish()
        self.published = len(self.written)

    @rule()
    def poll(self) -> None:
        batch = self.reader.poll(self.read)
        expected = self.written[self.read : self.read + len(batch)]
        assert batch["trade_id"].tolist() == expected
        assert len(batch) > 0 or self.read == self.published
        self.read += len(batch)

    @rule()
    def release(self) -> None:
        self.reader.release(self.read)
        self.released = self.read

    @rule()
    def producer_dies(self) -> None:
        """What was not published never existed; the successor goes on at the head."""
        self.producer = RingProducer(self.memory, TRADE)
        del self.written[self.published :]

    @rule()
    def reader_dies(self) -> None:
        """A new reader starts again at what was released."""
        self.reader = RingReader(self.memory, TRADE)
        self.read = self.released

    @invariant()
    def counters_agree(self) -> None:
        if hasattr(self, "reader"):
            assert self.reader.head == self.published
            assert self.reader.dropped_count == self.dropped


TestRingAgainstModel = RingMachine.TestCase
TestRingAgainstModel.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)


def test_sequence_numbers_go_on_near_the_end_of_u64() -> None:
    memory = new_memory(8)
    words = memory[:HEADER_BYTES].cast("Q")
    start = 2**63 - 4
    words[16], words[24] = start, start
    producer, reader = RingProducer(memory, TRADE), RingReader(memory, TRADE)
    for trade_id in range(8):
        assert put(producer, trade_id)
    producer.publish()
    first = reader.poll(start)
    rest = reader.poll(start + len(first))
    assert [*first["trade_id"], *rest["trade_id"]] == list(range(8))


def test_tap_that_is_lapped_says_how_many_it_missed_and_shows_no_torn_row() -> None:
    memory = new_memory(16)
    producer, reader = RingProducer(memory, TRADE), RingReader(memory, TRADE)
    tap = RingTap(memory, TRADE)
    seen: list[int] = []
    for trade_id in range(100):
        assert put(producer, trade_id)
        producer.publish()
        reader.release(reader.head)
        if trade_id % 33 == 32:
            while len(batch := tap.poll(1000)):
                seen += batch["trade_id"].tolist()
    assert tap.lapped_count > 0
    assert len(seen) + tap.lapped_count == 99
    assert seen == sorted(set(seen))
    # The newest three quarters of the ring are always to be had.
    assert seen[-12:] == list(range(87, 99))


@pytest.mark.whole
def test_second_producer_is_refused_and_death_frees_the_ring(tmp_path: Path) -> None:
    path = tmp_path / "shm" / "a.ring"
    segment = create_segment(path, ring_bytes(TRADE, 16))
    format_ring(memoryview(segment.memory), TRADE, 16, 1)
    script = (
        "import sys; from pathlib import Path; from engine.data.segment import attach_segment\n"
        "s = attach_segment(Path(sys.argv[1]), writable=True); s.lock()\n"
        "print('locked', flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"locked\n"
        with pytest.raises(RingBusyError):
            segment.lock()
        child.send_signal(signal.SIGKILL)
        child.wait()
    segment.lock()
    segment.close()


@pytest.mark.fault("N48")
@pytest.mark.parametrize("operation", [fcntl.LOCK_SH, fcntl.LOCK_EX], ids=["shared", "exclusive"])
def test_who_reads_a_ring_cannot_keep_its_producer_out(tmp_path: Path, operation: int) -> None:
    segment = create_segment(tmp_path / "shm" / "a.ring", ring_bytes(TRADE, 16))
    with segment.path.open("rb") as reader:
        fcntl.flock(reader, operation)
        segment.lock()
        with pytest.raises(RingBusyError):
            attach_segment(segment.path, writable=True).lock()
    segment.unlink()
    segment.close()
    assert list(segment.path.parent.iterdir()) == []


@pytest.mark.fault("S01")
@pytest.mark.whole
def test_kill_inside_a_write_leaves_nothing_torn_below_the_head(tmp_path: Path) -> None:
    """A producer is killed at random instants; every published row proves itself."""
    path = tmp_path / "kill.ring"
    capacity = 1024
    segment = create_segment(path, ring_bytes(TRADE, capacity))
    format_ring(memoryview(segment.memory), TRADE, capacity, 1)
    reader = RingReader(memoryview(segment.memory), TRADE)
    script = Path(__file__).with_name("ring_writer.py")
    checked = 0
    for round_ in range(12):
        child = subprocess.Popen([sys.executable, str(script), str(path)], stdout=subprocess.PIPE)
        with child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"go\n"
            target = reader.head + 300 * (round_ + 1)
            while reader.head < target:
                batch = reader.poll(checked).copy()
                checked += _prove(batch, checked)
                reader.release(checked)
            child.kill()
        while len(batch := reader.poll(checked).copy()):
            checked += _prove(batch, checked)
            reader.release(checked)
    assert checked == reader.head > 12 * 300
    reader.close()
    segment.close()


def _prove(batch: "np.ndarray[tuple[int], np.dtype[np.void]]", first_seq: int) -> int:
    seqs = np.arange(first_seq, first_seq + len(batch))
    for name in ("ts_event", "ts_recv", "trade_id"):
        assert (batch[name] == seqs).all()
    assert (batch["price"] == seqs + 0.5).all()
    return len(batch)


@pytest.mark.whole
def test_full_shared_memory_is_an_error_and_not_a_dead_process(tmp_path: Path) -> None:
    """posix_fallocate fails where a later write would be SIGBUS. /dev/full is no tmpfs, so the
    limit is a file size limit, which the kernel reports the same way: at allocation.
    """
    script = (
        "import resource, signal, sys; from pathlib import Path\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))\n"
        "from engine.base.errors import SegmentError\n"
        "from engine.data.segment import create_segment\n"
        "path = Path(sys.argv[1])\n"
        "try: create_segment(path, 1 << 20)\n"
        "except SegmentError as error: print('refused', path.exists())"
    )
    outcome = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "x" / "big.ring")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert outcome.stdout == "refused False\n"


@pytest.mark.skipif(not os.access("/bin/mount", os.X_OK) or os.geteuid() != 0, reason="needs mount")
@pytest.mark.whole
def test_full_tmpfs_names_the_remedy(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["/bin/mount", "-t", "tmpfs", "-o", "size=1m", "none", str(small)], check=False
    )
    if mounted.returncode:
        pytest.skip("this container may not mount a tmpfs")
    try:
        with pytest.raises(SegmentError, match="ring_records"):
            create_segment(small / "fts" / "big.ring", 8 << 20)
        assert not (small / "fts" / "big.ring").exists()
    finally:
        subprocess.run(["/bin/umount", str(small)], check=True)


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (0, b"NOTARING", "not a ring"),
        (8, (99).to_bytes(8, "little"), "version 99"),
        (16, b"\0" * 16, "other records"),
        (32, (3).to_bytes(8, "little"), "capacity 3"),
        (32, (2**40).to_bytes(8, "little"), "does not fit"),
    ],
)
def test_attach_refuses_a_header_it_cannot_trust(offset: int, value: bytes, message: str) -> None:
    memory = new_memory(16)
    memory[offset : offset + len(value)] = value
    with pytest.raises(RingLayoutError, match=message):
        RingReader(memory, TRADE)


def test_attach_refuses_another_record_layout() -> None:
    with pytest.raises(RingLayoutError, match="other records"):
        RingReader(new_memory(16), BOOK)


def test_planted_symlink_is_refused(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"x" * 4096)
    (tmp_path / "link.ring").symlink_to(tmp_path / "target")
    with pytest.raises(SegmentError):
        attach_segment(tmp_path / "link.ring", writable=True)
    with pytest.raises(SegmentError):
        create_segment(tmp_path / "link.ring", 4096)
    assert (tmp_path / "target").read_bytes() == b"x" * 4096
