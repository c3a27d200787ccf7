"""One engine a state directory: the lock, and the note that tells others where the engine is.

`engine.json` is for `fts doctor` and for people: process, control address, how to reach the
database by hand. It holds no password. A file without a holder of the lock is a leftover.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from engine.clock import monotonic_s
from engine.durable import UNREADABLE
from engine.errors import InstanceBusyError
from engine.layout import Layout, usable

_NOTE = "engine.json"
_LOOK_S_MAX = 0.3
_LOCK_RETRY_S = 0.02


class EngineNote(msgspec.Struct, frozen=True):
    """What `engine.json` holds. Addresses are masked."""

    pid: int
    control_url: str
    database: str = ""
    psql: str = ""
    redis: str = ""
    redis_cli: str = ""
    started_ns: int = 0


@contextlib.contextmanager
def hold(layout: Layout) -> Iterator[None]:
    """Own the state directory, or raise InstanceBusyError.

    The lock dies with the process, however it ends. The file stays: removing it would let two
    processes lock two different files of the same name.
    """
    with usable(layout.state_dir):
        fd = os.open(layout.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            _lock(fd)
        except BlockingIOError as error:
            holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise InstanceBusyError(
                f"another engine (pid {holder}) runs on {layout.state_dir};"
                " stop it or choose another --state-dir"
            ) from error
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        try:
            yield
        finally:
            remove_note(layout)
            os.ftruncate(fd, 0)
    finally:
        os.close(fd)


def _lock(fd: int) -> None:
    """Raises BlockingIOError when an engine has it; who only looks (`is_held`) is gone at once."""
    ends_s = monotonic_s() + _LOOK_S_MAX
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if monotonic_s() > ends_s:
                raise
            time.sleep(_LOCK_RETRY_S)
        else:
            return


def is_held(layout: Layout) -> bool:
    """Whether an engine runs on this state directory."""
    try:
        fd = os.open(layout.lock_file, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def write_note(layout: Layout, note: EngineNote) -> None:
    """Publish the note in one step: a reader sees all of it or none."""
    path = layout.state_dir / _NOTE
    half = path.with_suffix(".json.tmp")
    half.write_bytes(msgspec.json.encode(note) + b"\n")
    half.chmod(0o600)
    half.replace(path)


def read_note(layout: Layout) -> EngineNote | None:
    """The note of a running engine, or None."""
    if not is_held(layout):
        return None
    try:
        return msgspec.json.decode((layout.state_dir / _NOTE).read_bytes(), type=EngineNote)
    except (FileNotFoundError, *UNREADABLE):
        return None


def remove_note(layout: Layout) -> None:
    """Take the note away at the end."""
    (layout.state_dir / _NOTE).unlink(missing_ok=True)


def leftover_rings(layout: Layout) -> list[Path]:
    """Ring files that a crash left in shared memory; the next writer drains and removes them."""
    if not layout.shm_dir.is_dir():
        return []
    return sorted(layout.shm_dir.glob("*.ring"))
