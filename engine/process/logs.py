"""One line per event, the same in every process: `time level process message`.

All processes of an instance append to one file. A line is one `write` on an O_APPEND descriptor,
so lines of different processes never mix; control characters are escaped, so what a venue sends
cannot forge a line or drive a terminal. Whoever finds the file large puts it aside, under a lock;
the others notice that their file has moved and go on in the new one.
"""

import contextlib
import fcntl
import itertools
import logging
import os
import re
from datetime import UTC, datetime
from pathlib import Path

from engine.messages.settings import LogSettings

_ROTATE_BYTES = 64 << 20
_KEPT_COUNT = 5
"""Old logs, `fts.log.1` the youngest."""
_STDERR = 2
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class LineFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.123Z INFO writer message`, always one line."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """Render; a traceback is folded into the line, so that one event stays one line."""
        text = record.getMessage()
        if record.exc_info:
            text = f"{text} | {self.formatException(record.exc_info)}"
        at = datetime.fromtimestamp(record.created, UTC)
        stamp = f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z"
        return f"{stamp} {record.levelname} {self._process} {escaped(text)}"


class _DescriptorHandler(logging.Handler):
    """Writes whole lines to a descriptor; a full disk must not stop the market data."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record).encode("utf-8", "backslashreplace") + b"\n"
        with contextlib.suppress(OSError):
            os.write(self._fd, line)


class _FileHandler(_DescriptorHandler):
    """Writes to the log of the instance, and keeps it from growing for ever."""

    def __init__(self, path: Path) -> None:
        super().__init__(_open(path))
        self._path = path

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError):  # then the line goes where the last one went
            self._follow()
        super().emit(record)

    def _follow(self) -> None:
        """Be in the file that has the name, and let that not be a large one."""
        if os.fstat(self._fd).st_size >= _ROTATE_BYTES:
            # A lock of its own: one on the log itself could be held by whoever reads it.
            lock = _open(Path(f"{self._path}.lock"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if self._has_the_name():  # nobody else was faster
                    self._put_aside()
            finally:
                os.close(lock)
        if not self._has_the_name():
            fd = _open(self._path)
            os.close(self._fd)
            self._fd = fd

    def _has_the_name(self) -> bool:
        try:
            return os.path.samestat(self._path.stat(), os.fstat(self._fd))
        except FileNotFoundError:
            return False

    def _put_aside(self) -> None:
        names = [self._path, *(Path(f"{self._path}.{age + 1}") for age in range(_KEPT_COUNT))]
        for younger, older in reversed(list(itertools.pairwise(names))):
            if younger.exists():
                younger.replace(older)


def escaped(text: str) -> str:
    """`text` with every control character written out."""
    return _CONTROL.sub(_escape, text)


def set_up(settings: LogSettings, process: str) -> None:
    """Make the root logger write for `process`. Called once, first thing in every process."""
    handlers: list[logging.Handler] = []
    problem = ""
    try:
        handlers.append(_FileHandler(Path(settings.file)))
    except OSError as error:
        problem = f"{settings.file}: {error.strerror}: logging to standard error alone"
    if settings.to_stderr or problem:
        handlers.append(_DescriptorHandler(_STDERR))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    for handler in handlers:
        handler.setFormatter(LineFormatter(process))
        root.addHandler(handler)
    root.setLevel(settings.level)
    for talkative in ("picows", "uvicorn"):
        # They report every connection; what matters of those we say ourselves.
        logging.getLogger(talkative).setLevel(max(root.level, logging.WARNING))
    logging.captureWarnings(True)
    if problem:
        root.warning(problem)


def last_lines(file: Path, count: int) -> list[str]:
    """The newest lines of the log, oldest first."""
    try:
        with file.open("rb") as source:
            source.seek(0, os.SEEK_END)
            source.seek(max(0, source.tell() - 16_384))
            text = source.read()
    except FileNotFoundError:
        return []
    return text.decode("utf-8", "replace").splitlines()[-count:]


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _escape(match: re.Match[str]) -> str:
    char = match.group()
    return "\\n" if char == "\n" else f"\\x{ord(char):02x}"
