"""The journal against a model disk: appends, crashes, damage, trimming."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from engine.base.errors import JournalError
from engine.data.kind import RecordArray
from engine.data.kinds import TRADE
from engine.writer.sources.journal import Journal


def rows(first_seq: int, count: int) -> RecordArray:
    records = np.zeros(count, TRADE.dtype)
    records["trade_id"] = np.arange(first_seq, first_seq + count)
    return records


def read_all(journal: Journal, from_seq: int = 0) -> list[int]:
    ids: list[int] = []
    while True:
        first, records = journal.read(from_seq, 7)
        if not len(records):
            return ids
        assert records["trade_id"][0] == first
        ids += records["trade_id"].tolist()
        from_seq = first + len(records)


class JournalMachine(RuleBasedStateMachine):
    """Appends, reads from anywhere, trims, and reopens, against a plain list."""

    @initialize(segment_bytes=st.integers(100, 3000))
    def start(self, segment_bytes: int) -> None:
        self.directory = TemporaryDirectory()
        self.segment_bytes = segment_bytes
        self.journal = self.open()
        self.next_seq = 0
        self.durable = 0

    def open(self) -> Journal:
        return Journal(Path(self.directory.name) / "j", TRADE, 5, self.segment_bytes)

    def teardown(self) -> None:
        if hasattr(self, "journal"):
            self.journal.close()
            self.directory.cleanup()

    @rule(count=st.integers(1, 20))
    def append(self, count: int) -> None:
        self.journal.append(self.next_seq, rows(self.next_seq, count))
        self.next_seq += count

    @rule(fraction=st.floats(0, 1), count=st.integers(1, 50))
    def read(self, fraction: float, count: int) -> None:
        oldest = self.journal.first_seq
        from_seq = oldest + int((self.next_seq - oldest) * fraction)
        first, records = self.journal.read(from_seq, count)
        if from_seq == self.next_seq:
            assert len(records) == 0
        else:
            assert first == from_seq
            expected = list(range(from_seq, from_seq + len(records)))
            assert records["trade_id"].tolist() == expected
            assert 0 < len(records) <= count

    @rule(fraction=st.floats(0, 1))
    def trim(self, fraction: float) -> None:
        self.durable = max(self.durable, int(self.next_seq * fraction))
        self.journal.trim(self.durable)
        assert self.journal.first_seq <= self.durable

    @rule()
    def crash_and_reopen(self) -> None:
        self.journal.close()
        self.journal = self.open()
        if self.next_seq:
            assert self.journal.next_seq == self.next_seq
        assert read_all(self.journal, self.durable) == list(range(self.durable, self.next_seq))


TestJournalAgainstModel = JournalMachine.TestCase
TestJournalAgainstModel.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)


@pytest.mark.fault("D02")
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_truncated_or_flipped_tail_gives_the_good_prefix_and_never_a_crash(
    data: st.DataObject,
) -> None:
    with TemporaryDirectory() as directory:
        path = Path(directory) / "j"
        journal = Journal(path, TRADE, 5, 1 << 20)
        ends = []
        for block in range(4):
            journal.append(block * 5, rows(block * 5, 5))
            ends.append(next(path.glob("*.seg")).stat().st_size)
        journal.close()
        segment = next(path.glob("*.seg"))
        content = bytearray(segment.read_bytes())
        position = data.draw(st.integers(0, len(content) - 1), label="byte")
        if data.draw(st.booleans(), label="truncate"):
            content = content[:position]
        else:
            content[position] ^= 1 << data.draw(st.integers(0, 7), label="bit")
        segment.write_bytes(content)
        reopened = Journal(path, TRADE, 5, 1 << 20)
        kept = read_all(reopened)
        whole_blocks = sum(end <= position for end in ends)
        if position < 48:  # magic, version, fingerprint, epoch or first sequence of the segment
            assert kept in ([], list(range(20)))
        elif position < 64:
            assert kept == ([] if len(content) < 64 else list(range(20)))
        else:
            # Spare header bytes of a block are outside its CRC and may flip unnoticed.
            assert kept in (list(range(whole_blocks * 5)), list(range(20)))
        reopened.close()


def test_damage_in_the_middle_skips_to_the_next_segment_and_says_where(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", TRADE, 5, 64)
    for block in range(3):
        journal.append(block * 10, rows(block * 10, 10))
    journal.close()
    segments = sorted((tmp_path / "j").glob("*.seg"))
    assert len(segments) == 3
    content = bytearray(segments[1].read_bytes())
    content[200] ^= 0xFF
    segments[1].write_bytes(content)
    reopened = Journal(tmp_path / "j", TRADE, 5, 64)
    assert reopened.read(0, 100)[1]["trade_id"].tolist() == list(range(10))
    first, records = reopened.read(10, 100)
    assert first == 20
    assert records["trade_id"].tolist() == list(range(20, 30))
    reopened.close()


def test_foreign_file_in_the_journal_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "j").mkdir()
    (tmp_path / "j" / f"{0:020d}.seg").write_bytes(b"garbage" * 100)
    journal = Journal(tmp_path / "j", TRADE, 5, 1 << 20)
    assert journal.next_seq == 0
    assert (tmp_path / "j" / f"{0:020d}.damaged").exists()
    journal.append(0, rows(0, 3))
    assert read_all(journal) == [0, 1, 2]
    journal.close()


@pytest.mark.fault("D02")
def test_a_segment_without_its_header_holds_nothing_and_is_in_nobodys_way(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", TRADE, 5, 1 << 20)
    journal.append(0, rows(0, 3))
    journal.close()
    (tmp_path / "j" / f"{3:020d}.seg").write_bytes(b"")  # killed right after it was made
    reopened = Journal(tmp_path / "j", TRADE, 5, 1 << 20)
    assert (reopened.next_seq, read_all(reopened)) == (3, [0, 1, 2])
    reopened.remove()
    assert not (tmp_path / "j").exists()


@pytest.mark.fault("D01")
@pytest.mark.whole
def test_full_disk_leaves_no_half_block_and_the_journal_goes_on_later(tmp_path: Path) -> None:
    """RLIMIT_FSIZE plays the full disk: the kernel then writes short, or refuses."""
    script = Path(__file__).with_name("journal_on_full_disk.py")
    outcome = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "j")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert outcome.returncode == 0, outcome.stderr
    refused_at = int(outcome.stdout)
    journal = Journal(tmp_path / "j", TRADE, 5, 1 << 20)
    # Everything before the refusal is there, and everything from the later attempt on.
    ids = read_all(journal)
    assert ids == [*range(refused_at), *range(refused_at + 50, refused_at + 60)]
    journal.close()


def test_removed_journal_leaves_no_directory(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", TRADE, 5, 64)
    journal.append(0, rows(0, 5))
    journal.remove()
    assert not (tmp_path / "j").exists()


def test_segment_is_private(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", TRADE, 5, 64)
    journal.append(0, rows(0, 5))
    journal.close()
    segment = next((tmp_path / "j").glob("*.seg"))
    assert segment.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "j").stat().st_mode & 0o777 == 0o700


def test_append_refused_by_the_system_is_a_journal_error(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", TRADE, 5, 64)
    (tmp_path / "j").rmdir()
    with pytest.raises(JournalError, match="cannot create"):
        journal.append(0, rows(0, 5))
    journal.close()


class Syncs:
    """Notes what is made safe from a power cut, in order: sizes of files, and directories."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[int | str] = []
        self.refused = False
        monkeypatch.setattr(os, "fdatasync", self._file)
        monkeypatch.setattr("engine.writer.sources.journal.sync_directory", self._directory)

    def _file(self, fd: int) -> None:
        if self.refused:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self.seen.append(os.fstat(fd).st_size)

    def _directory(self, path: Path) -> None:
        self.seen.append(path.name)


@pytest.fixture
def syncs(monkeypatch: pytest.MonkeyPatch) -> Syncs:
    return Syncs(monkeypatch)


def sync(journal: Journal) -> None:
    unsynced = journal.take_unsynced()
    if unsynced is not None:
        unsynced.sync()


@pytest.mark.fault("D03")
def test_a_new_segment_is_safe_with_its_name(tmp_path: Path, syncs: Syncs) -> None:
    journal = Journal(tmp_path / "journal" / "ring" / "5", TRADE, 5, 1 << 20)
    sync(journal)
    assert syncs.seen == []
    journal.append(0, rows(0, 5))
    sync(journal)
    block = 24 + 5 * TRADE.dtype.itemsize
    assert syncs.seen == [64 + block, "5", "ring", "journal"]
    sync(journal)
    journal.append(5, rows(5, 5))
    sync(journal)
    assert syncs.seen[4:] == [64 + 2 * block], "only what is new, and no name twice"
    journal.close()


@pytest.mark.fault("D03")
def test_a_segment_that_filled_up_between_two_syncs_is_synced(tmp_path: Path, syncs: Syncs) -> None:
    journal = Journal(tmp_path / "j" / "ring" / "5", TRADE, 5, 64)
    fds = sum(1 for _ in Path("/proc/self/fd").iterdir())
    for block in range(3):
        journal.append(block * 5, rows(block * 5, 5))
    sync(journal)
    size = 64 + 24 + 5 * TRADE.dtype.itemsize
    assert syncs.seen == [size, size, size, "5", "ring", "j"]
    journal.append(15, rows(15, 5))
    journal.close()
    assert sum(1 for _ in Path("/proc/self/fd").iterdir()) == fds


@pytest.mark.fault("D01")
def test_a_sync_that_failed_is_not_tried_again(tmp_path: Path, syncs: Syncs) -> None:
    journal = Journal(tmp_path / "j" / "ring" / "5", TRADE, 5, 1 << 20)
    journal.append(0, rows(0, 5))
    syncs.refused = True
    with pytest.raises(OSError, match="Input/output"):
        sync(journal)
    journal.retire_segment()
    syncs.refused = False
    sync(journal)
    assert syncs.seen == []
    journal.append(5, rows(5, 5))
    sync(journal)
    assert syncs.seen[1:] == ["5", "ring", "j"]
    assert len(list(journal.directory.glob("*.seg"))) == 2
    journal.close()


@pytest.mark.fault("D01")
def test_a_half_block_that_cannot_be_cut_off_costs_its_rows_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def short(fd: int, parts: list[bytes]) -> int:
        return os.write(fd, b"".join(bytes(part) for part in parts)[:50])

    journal = Journal(tmp_path / "j", TRADE, 5, 1 << 20)
    journal.append(0, rows(0, 5))
    with monkeypatch.context() as broken:
        broken.setattr(os, "writev", short)
        broken.setattr(os, "ftruncate", refuse)
        with pytest.raises(JournalError, match="cannot append"):
            journal.append(5, rows(5, 5))
    journal.append(5, rows(5, 5))
    assert read_all(journal) == list(range(10))
    journal.close()
    again = Journal(tmp_path / "j", TRADE, 5, 1 << 20)
    assert read_all(again) == list(range(10))
    again.close()


@pytest.mark.fault("D02")
@pytest.mark.parametrize("way", ["cut", "removed"])
def test_a_segment_that_goes_while_it_is_read_costs_its_rows_only(tmp_path: Path, way: str) -> None:
    journal = Journal(tmp_path / "j", TRADE, 5, 200_000)
    for block in range(100):
        journal.append(block * 100, rows(block * 100, 100))
    assert journal.read(0, 10)[0] == 0
    first, second, third = sorted((tmp_path / "j").glob("*.seg"))
    for path in (first, second):
        if way == "cut":
            os.truncate(path, 100)
        else:
            path.unlink()
    reached = read_all(journal, 2000)
    whole = list(range(int(third.stem), 10_000))
    assert reached[-len(whole) :] == whole
    assert not set(reached) & set(range(int(second.stem) + 100, whole[0]))
    assert journal.size_bytes > 0
    journal.close()


@pytest.mark.fault("D01")
def test_what_the_disk_cannot_read_is_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path / "j", TRADE, 5, 64)
    for block in range(4):
        journal.append(block * 10, rows(block * 10, 10))
    bad = (tmp_path / "j" / f"{10:020d}.seg").stat().st_ino

    def pread(fd: int, size: int, offset: int) -> bytes:
        if os.fstat(fd).st_ino == bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(fd, size, offset)

    real = os.pread
    monkeypatch.setattr(os, "pread", pread)
    first, records = journal.read(10, 5)
    assert (first, records["trade_id"].tolist()) == (20, list(range(20, 25)))
    journal.close()
    bad = (tmp_path / "j" / f"{30:020d}.seg").stat().st_ino
    real_read = os.read

    def read(fd: int, size: int) -> bytes:
        if os.fstat(fd).st_ino == bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real_read(fd, size)

    monkeypatch.setattr(os, "read", read)
    again = Journal(tmp_path / "j", TRADE, 5, 64)
    assert again.next_seq == 30
    again.close()


def test_blocks_longer_than_a_window_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.writer.sources.journal._WINDOW_BYTES", 100)
    journal = Journal(tmp_path / "j", TRADE, 5, 20_000)
    seq = 0
    for count in (1, 300, 2, 50, 700, 3):
        journal.append(seq, rows(seq, count))
        seq += count
    assert read_all(journal) == list(range(seq))
    journal.append(seq, rows(seq, 9))
    assert read_all(journal, seq) == list(range(seq, seq + 9))
    journal.close()
