"""Log lines: one event one line, whatever is in it."""

import fcntl
import logging
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.messages.settings import LogSettings
from engine.process import logs


@pytest.fixture(autouse=True)
def root_logger_restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


def test_lines_name_time_level_and_process(tmp_path: Path) -> None:
    file = tmp_path / "log"
    logs.set_up(LogSettings(str(file), to_stderr=False), "writer")
    logging.getLogger("x").info("ready\r\n\x1b[31m2026 ERROR forged")
    try:
        raise ValueError("boom")
    except ValueError:
        logging.getLogger("x").exception("failed")
    first, second = file.read_text().splitlines()
    assert first.endswith(r" INFO writer ready\x0d\n\x1b[31m2026 ERROR forged")
    assert "ValueError: boom" in second
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.fault("A07")
@given(st.text())
def test_no_text_breaks_out_of_its_line(text: str) -> None:
    assert len(logs.escaped(text).splitlines()) <= 1


@pytest.mark.whole
def test_processes_that_rotate_one_log_lose_no_line(tmp_path: Path) -> None:
    script = (
        "import logging, sys\n"
        "from engine.process import logs\n"
        "from engine.messages.settings import LogSettings\n"
        "logs._ROTATE_BYTES, logs._KEPT_COUNT = 10_000, 1_000\n"
        "logs.set_up(LogSettings(sys.argv[1], to_stderr=False), sys.argv[2])\n"
        "for number in range(1_000):\n"
        "    logging.info(f'line {number}')\n"
    )
    log = tmp_path / "fts.log"
    processes = [
        subprocess.Popen([sys.executable, "-c", script, str(log), f"writer-{number}"])
        for number in range(4)
    ]
    assert [process.wait() for process in processes] == [0] * 4
    files = list(tmp_path.iterdir())
    found = Counter(
        (words[2], int(words[4]))
        for file in files
        for words in map(str.split, file.read_text().splitlines())
    )
    assert found == Counter((f"writer-{name}", line) for name in range(4) for line in range(1_000))
    assert len(files) > 10
    assert max(file.stat().st_size for file in files) < 20_000


def test_only_so_many_old_logs_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_ROTATE_BYTES", 1_000)
    log = tmp_path / "fts.log"
    logs.set_up(LogSettings(str(log), to_stderr=False), "writer")
    for number in range(500):
        logging.getLogger("x").info(f"line {number}")
    names = ["fts.log", *(f"fts.log.{age}" for age in range(1, 6)), "fts.log.lock"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    newest = [number for name in reversed(names) for number in numbers(tmp_path / name)]
    assert newest == list(range(newest[0], 500)), "the oldest lines are gone, in order"
    log.unlink()
    logging.getLogger("x").info("line 500")
    assert numbers(log) == [500]


def numbers(file: Path) -> list[int]:
    return [int(line.rpartition(" ")[2]) for line in file.read_text().splitlines()]


def test_last_lines_of_a_log_that_is_not_there(tmp_path: Path) -> None:
    assert logs.last_lines(tmp_path / "none", 3) == []
    (tmp_path / "log").write_text("".join(f"{n}\n" for n in range(9000)))
    assert logs.last_lines(tmp_path / "log", 2) == ["8998", "8999"]


@pytest.mark.fault("N48")
def test_a_reader_with_a_lock_on_the_log_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_ROTATE_BYTES", 100)
    file = tmp_path / "log"
    logs.set_up(LogSettings(str(file), to_stderr=False), "writer")
    with file.open("rb") as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)
        writing = threading.Thread(target=_log_lines, args=(10,), daemon=True)
        writing.start()
        writing.join(10)
        is_done = not writing.is_alive()
    writing.join()
    assert is_done
    assert len(file.read_text().splitlines()) < 10, "it was put aside meanwhile"


def _log_lines(count: int) -> None:
    for number in range(count):
        logging.getLogger("x").info(f"a line of some length, number {number}")
