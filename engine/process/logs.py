"""The log of a process: each event once, as one line, the same in every process of an instance.

All of them append to one file, and to standard error unless a live view has the terminal. A line is
one write, so lines of different processes never mix. `engine.process.lines` has what a line looks
like, what is folded, and why nothing that is written to can hold up or end an engine.
"""

import logging
import os
import threading
from collections.abc import Sequence
from pathlib import Path

from engine.base.clock import wall_ns
from engine.data.names import StreamKey
from engine.messages.settings import LogSettings
from engine.process.lines.events import event_of
from engine.process.lines.forms import FORMS, LoggedEvent, escaped, fitted, readable
from engine.process.lines.outlets import LogFile, Outlet, StandardError
from engine.process.lines.repeats import Repeats

__all__ = ["change", "escaped", "last_lines", "set_up"]

_TAIL_BYTES = 16_384


class _LineHandler(logging.Handler):
    """Writes each event to every outlet, and nothing that goes wrong there to whoever logs."""

    def __init__(
        self, process: str, form: str, outlets: Sequence[Outlet], fold_s: float = 60.0
    ) -> None:
        super().__init__()
        self.form = form
        self.repeats = Repeats(fold_s)
        self._process = process
        self._outlets = outlets
        self._timer: threading.Timer | None = None

    def emit(self, record: logging.LogRecord) -> None:
        said = _said(record)
        self._tell_ended()
        if self.repeats.is_new(said):
            self._write(said)
        elif self._timer is None:
            self._tell_later()

    def flush(self) -> None:
        """Also say what was counted and not said yet; at the end of a process nobody else would."""
        self.acquire()
        try:
            for each in self.repeats.ended(all_of_them=True):
                self._write(each)
        finally:
            self.release()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.flush()
        super().close()

    def _tell_ended(self) -> None:
        for each in self.repeats.ended():
            self._write(each)

    def _tell_later(self) -> None:
        """A process that has nothing else to say must not keep a count to itself."""
        due_s = self.repeats.due_s
        if due_s is None:
            return
        self._timer = threading.Timer(due_s, self._when_due)
        self._timer.daemon = True
        try:
            self._timer.start()
        except RuntimeError:  # no thread to be had, or the process ends: then with the next event
            self._timer = None

    def _when_due(self) -> None:
        self.acquire()
        try:
            self._timer = None
            self._tell_ended()
            self._tell_later()
        finally:
            self.release()

    def _write(self, said: LoggedEvent) -> None:
        for outlet in self._outlets:
            if outlet.write(self._line(said, outlet)) and outlet.unwritten:
                self._tell_unwritten(outlet)

    def _tell_unwritten(self, outlet: Outlet) -> None:
        count, outlet.unwritten = outlet.unwritten, 0
        text = f"{count} lines before this one are missing here: {outlet.problem}"
        fields = {"lines": count, "reason": outlet.problem}
        said = LoggedEvent(wall_ns(), "WARNING", "log_incomplete", text, fields=fields)
        if not outlet.write(self._line(said, outlet)):
            outlet.unwritten = count

    def _line(self, said: LoggedEvent, outlet: Outlet) -> bytes:
        return fitted(said, FORMS[self.form], self._process, outlet.line_bytes_max)


def set_up(settings: LogSettings, process: str) -> None:
    """Make the root logger write for `process`. Called once, first thing in every process."""
    outlets: list[Outlet] = []
    problem = ""
    try:
        outlets.append(LogFile(Path(settings.file)))
    except OSError as error:
        problem = f"{settings.file}: {error.strerror}: logging to standard error alone"
    if settings.to_stderr or problem:
        outlets.append(StandardError())
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(_LineHandler(process, settings.format, outlets, settings.fold_s))
    _set_level(settings.level)
    logging.captureWarnings(True)
    if problem:
        root.warning(problem, extra={"event": "log_incomplete"})


def change(settings: LogSettings) -> None:
    """Take over all but where lines go, while the process runs."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _LineHandler):
            handler.form, handler.repeats.fold_s = settings.format, settings.fold_s
    _set_level(settings.level)


def last_lines(file: Path, count: int) -> list[str]:
    """The newest lines of the log for eyes, oldest first."""
    try:
        with file.open("rb") as source:
            source.seek(0, os.SEEK_END)
            source.seek(max(0, source.tell() - _TAIL_BYTES))
            text = source.read()
    except FileNotFoundError:
        return []
    return [readable(line) for line in text.decode("utf-8", "replace").splitlines()[-count:]]


def _set_level(level: str) -> None:
    root = logging.getLogger()
    root.setLevel(level)
    for talkative in ("picows", "uvicorn"):
        # They report every connection; what matters of those we say ourselves.
        logging.getLogger(talkative).setLevel(max(root.level, logging.WARNING))


def _said(record: logging.LogRecord) -> LoggedEvent:
    """A record as an event; one that cannot be put into words is said as it was written."""
    try:
        text = record.getMessage()
        if record.exc_info:
            text = f"{text} | {logging.Formatter().formatException(record.exc_info)}"
    except Exception as error:  # noqa: BLE001 - a bad line must not end who says it
        text = f"{record.msg!r} (cannot be put into words: {error!r})"
    fields = getattr(record, "fields", {})
    arguments = record.args if isinstance(record.args, tuple) else ()
    stream = next((str(each) for each in arguments if isinstance(each, StreamKey)), "")
    return LoggedEvent(wall_ns(), record.levelname, event_of(record), text, stream, fields)
