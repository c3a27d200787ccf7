"""A running `fts` for tests: its log as it comes, its children by name, its end."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
THIS = (sys.executable, "-P", "-m", "control.cli.main")
_PATIENCE_S = 120.0
"""Only a test that fails waits so long: on a busy machine an engine takes a minute to start."""


def words_of(process: psutil.Process) -> list[str]:
    """Its command line; that of a copy is one text."""
    return " ".join(process.cmdline()).split()


class Fts:
    """The command line in a process of its own."""

    def __init__(self, *arguments: str, program: Sequence[str] = THIS, **environment: str) -> None:
        inherited = {name: text for name, text in os.environ.items() if not name.startswith("FTS_")}
        self._process = subprocess.Popen(
            [*program, *arguments],
            # A test that counts what is said wants each line.
            env={**inherited, "PYTHONPATH": str(ROOT), "FTS_LOG_FOLD_S": "0", **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._grown = threading.Condition()
        self.log = ""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def wait_for(self, text: str, timeout_s: float = _PATIENCE_S) -> None:
        """Until the log says `text`."""
        with self._grown:
            assert self._grown.wait_for(
                lambda: text in self.log or self._process.poll() is not None, timeout_s
            ), self.log
            assert text in self.log, self.log

    def wait_for_count(self, text: str, count: int, timeout_s: float = _PATIENCE_S) -> None:
        """Until the log says `text` for the `count`th time."""
        with self._grown:
            assert self._grown.wait_for(
                lambda: self.log.count(text) >= count or self._process.poll() is not None,
                timeout_s,
            ), self.log
            assert self.log.count(text) >= count, self.log

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the supervisor."""
        self._process.send_signal(number)

    @property
    def itself(self) -> psutil.Process:
        """The supervisor."""
        return psutil.Process(self._process.pid)

    def descendants(self) -> list[psutil.Process]:
        """Every process below the supervisor."""
        found: list[psutil.Process] = self.itself.children(recursive=True)
        return found

    def child(self, target: str) -> psutil.Process:
        """The child that runs `target`, e.g. `shards.main:run`."""
        (found,) = (child for child in self.descendants() if target in words_of(child))
        return found

    def end(self, timeout_s: float = 90.0) -> tuple[int, str]:
        """Exit code and standard output."""
        assert self._process.stdout is not None
        output = self._process.stdout.read()
        code = self._process.wait(timeout_s)
        self._reader.join()
        self._close()
        return code, output

    def kill(self) -> None:
        """SIGKILL to the supervisor, if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join()
        self._close()

    def _close(self) -> None:
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            with self._grown:
                self.log += line
                self._grown.notify_all()
        with self._grown:
            self._grown.notify_all()
