"""Log lines: one event one line, whatever is in it."""

import errno
import fcntl
import json
import logging
import os
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.names import StreamKey, StreamKind, Transport
from engine.messages.settings import LogSettings
from engine.process import logs
from engine.process.lines import outlets
from engine.process.lines.forms import FORMS, LoggedEvent, fitted
from engine.process.lines.repeats import Repeats
from tests.waiting import wait_for

KEY = StreamKey("binance_linear", "BTCUSDT", StreamKind.TRADES, Transport.WS)
HOSTILE = "\r\n\x1b[31m2026 ERROR forged\x9b2J\u2028\x7f\ud800"


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
        "from engine.process.lines import outlets\n"
        "outlets.ROTATE_BYTES, outlets.KEPT_COUNT = 10_000, 1_000\n"
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
    monkeypatch.setattr(outlets, "ROTATE_BYTES", 1_000)
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
    monkeypatch.setattr(outlets, "ROTATE_BYTES", 100)
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


def objects(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_json_lines_name_event_stream_and_fields(tmp_path: Path) -> None:
    file = tmp_path / "log"
    logs.set_up(LogSettings(str(file), to_stderr=False, format="json"), "shard-0")
    log = logging.getLogger("shards.feeds.life")
    log.error("%s: %s", KEY, "refused", extra={"event": "stream_failed"})
    log.info("so many", extra={"fields": {"rows": 41, "rate": float("nan"), "level": "forged"}})
    first, second = objects(file)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", first.pop("time"))
    assert first == {
        "level": "ERROR", "process": "shard-0", "event": "stream_failed", "stream": str(KEY),
        "message": f"{KEY}: refused",
    }  # fmt: skip
    assert (second["event"], second["rows"], second["rate"]) == ("life", 41, "nan")
    assert second["level"] == "INFO"


@pytest.mark.fault("A07")
@pytest.mark.parametrize("form", FORMS)
def test_what_a_venue_says_forges_no_line_and_fills_no_disk(form: str, tmp_path: Path) -> None:
    file = tmp_path / "log"
    logs.set_up(LogSettings(str(file), to_stderr=False, format=form), "shard-0")  # type: ignore[arg-type]
    log = logging.getLogger("x")
    log.warning("%s", HOSTILE, extra={"fields": {"payload": HOSTILE}})
    log.warning(
        "%s", "head" + HOSTILE * 50_000 + "tail", extra={"fields": {"payload": "y" * 10**6}}
    )
    first, second = file.read_bytes().splitlines()
    assert not re.search(rb"[\x00-\x1f\x7f]|\xc2[\x80-\x9f]|\xe2\x80\xa8", first + second)
    assert len(second) <= 64 << 10
    assert b"head" in second
    assert b"tail" in second
    assert b"characters" in second
    if form == "json":
        assert objects(file)[0]["message"] == HOSTILE.replace("\ud800", "\ud800")


@pytest.mark.parametrize("form", FORMS)
def test_secrets_are_masked(form: str) -> None:
    text = (
        "postgresql://fts:hunter2hunter2@db/ticks password='hunter2 hunter2' api_key=hunter2hunter2"
        ' Authorization: Bearer hunter2hunter2 {"token": "hunter2hunter2"}'
    )
    said = LoggedEvent(0, "INFO", "x", text, fields={"url": text})
    line = fitted(said, FORMS[form], "writer", 4096).decode()
    assert "hunter2" not in line
    assert "db/ticks" in line, "what is no secret stays"
    assert (
        fitted(LoggedEvent(0, "INFO", "x", "a new token is in force"), FORMS[form], "w", 4096)
        .decode()
        .count("a new token is in force")
    ), "words are no secrets"


def test_the_same_event_is_said_once_and_then_counted() -> None:
    now_s = 100.0
    repeats = Repeats(60.0, lambda: now_s)
    said = [LoggedEvent(n, "WARNING", "x", "again") for n in range(42)]
    other = LoggedEvent(0, "WARNING", "x", "again", stream="b")
    assert [repeats.is_new(each) for each in said] == [True] + [False] * 41
    assert repeats.is_new(other), "of another stream it is another event"
    assert repeats.due_s == 60.0
    assert list(repeats.ended()) == []
    now_s = 160.0
    (told,) = repeats.ended()
    assert told.text == "again … 41 times more in 60 s"
    assert (told.at_ns, told.fields["repeats"]) == (41, 41)
    assert repeats.is_new(said[0]), "a minute later it is news"
    assert repeats.due_s is None


def test_many_different_events_are_all_said_and_all_counted() -> None:
    repeats, told = Repeats(60.0, lambda: 0.0), []
    for number in range(2_000):
        said = LoggedEvent(0, "INFO", "x", f"event {number}")
        told += list(repeats.ended())
        assert repeats.is_new(said)
        assert not repeats.is_new(said)
    told += list(repeats.ended(all_of_them=True))
    assert [each.text for each in told] == [
        f"event {number} … once more in 0 s" for number in range(2_000)
    ]


def test_a_count_is_said_although_nothing_else_is(tmp_path: Path) -> None:
    file = tmp_path / "log"
    logs.set_up(LogSettings(str(file), to_stderr=False, fold_s=0.05), "writer")
    for _ in range(3):
        logging.getLogger("x").info("again")
    wait_for(lambda: "2 times more" in file.read_text(), "the count")


def test_who_wants_every_line_has_every_line(tmp_path: Path) -> None:
    file = tmp_path / "log"
    logs.set_up(LogSettings(str(file), to_stderr=False, fold_s=0), "writer")
    for _ in range(3):
        logging.getLogger("x").info("again")
    assert file.read_text().count("INFO writer again\n") == 3


def test_level_and_form_change_while_it_runs(tmp_path: Path) -> None:
    file = tmp_path / "log"
    settings = LogSettings(str(file), "WARNING", to_stderr=False)
    logs.set_up(settings, "writer")
    logging.getLogger("x").info("unheard")
    logs.change(LogSettings(str(file), "INFO", to_stderr=False, format="json"))
    logging.getLogger("x").info("heard")
    assert [each["message"] for each in objects(file)] == ["heard"]


def test_a_line_that_cannot_be_made_ends_nobody(tmp_path: Path) -> None:
    file = tmp_path / "log"
    logs.set_up(LogSettings(str(file), to_stderr=False), "writer")
    logging.getLogger("x").error("%d rows", "many")
    assert "%d rows" in file.read_text()


def test_a_full_disk_costs_lines_that_are_counted_and_tears_none(tmp_path: Path) -> None:
    file = tmp_path / "log"
    room = [10, 0, 0, 10_000, 10_000]

    class Disk(outlets.LogFile):
        def _write(self, data: bytes) -> int:
            if not (size := room.pop(0)):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super()._write(data[:size])

    disk = Disk(file)
    handler = logs._LineHandler("writer", "text", [disk])
    for number in range(4):
        handler.handle(logging.LogRecord("x", 20, "", 0, f"line {number}", (), None))
    lines = file.read_text().splitlines()
    assert len(lines[0]) == 10, "the first was cut"
    assert lines[1].endswith("INFO writer line 3")
    assert "3 lines before this one are missing here: No space left on device" in lines[2]


@pytest.mark.whole
@pytest.mark.parametrize("how", ["dead", "unread"])
def test_who_does_not_read_standard_error_holds_up_nobody(how: str, tmp_path: Path) -> None:
    script = (
        "import logging, sys\n"
        "from engine.process import logs\n"
        "from engine.messages.settings import LogSettings\n"
        "logs.set_up(LogSettings(sys.argv[1]), 'writer')\n"
        "for number in range(300):\n"
        "    logging.info(f'{number} ' + 'x' * 1_000)\n"
    )
    file = tmp_path / "log"
    reading, writing = os.pipe()
    if how == "dead":
        os.close(reading)
    process = subprocess.Popen([sys.executable, "-c", script, str(file)], stderr=writing)
    os.close(writing)
    try:
        assert process.wait(60) == 0
    finally:
        process.kill()
        if how != "dead":
            os.close(reading)
    assert len(file.read_text().splitlines()) == 300


def test_the_view_shows_lines_of_either_form_for_eyes(tmp_path: Path) -> None:
    file = tmp_path / "log"
    logs.set_up(LogSettings(str(file), to_stderr=False, format="json"), "writer")
    logging.getLogger("x").info("hello\x1b[2J")
    (line,) = logs.last_lines(file, 3)
    assert line.endswith(r"INFO writer hello\x1b[2J")
