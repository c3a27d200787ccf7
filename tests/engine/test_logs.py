"""Log lines: one event one line, whatever is in it."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import logs
from engine.settings import LogSettings


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


def test_last_lines_of_a_log_that_is_not_there(tmp_path: Path) -> None:
    assert logs.last_lines(tmp_path / "none", 3) == []
    (tmp_path / "log").write_text("".join(f"{n}\n" for n in range(9000)))
    assert logs.last_lines(tmp_path / "log", 2) == ["8998", "8999"]
