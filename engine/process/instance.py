"""One engine a state directory: the lock, and the note that tells others where the engine is.

`engine.json` is for `fts doctor` and for people: process, control address, how to reach the
database by hand. It holds no password. A file without a holder of the lock is a leftover.

While no engine runs, `engine.servers.host` may hold the lock to keep the private database open for
who reads it; `database.json` is its note. It makes way for an engine: collecting comes first.
"""

import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from engine.base.clock import monotonic_s
from engine.base.durable import UNREADABLE, write_whole
from engine.base.errors import InstanceBusyError, SegmentError
from engine.data.layout import Layout, usable

_NOTE = "engine.json"
_HOST_NOTE = "database.json"
_BUSY_S = 0.2
"""So long a lock may be held by who only looks whether it is."""
_MAKES_WAY_S = 20.0
"""So long a private database may take to stop."""
_POLL_S = 0.01

_Note = TypeVar("_Note", bound=msgspec.Struct)


class EngineNote(msgspec.Struct, frozen=True):
    """What `engine.json` holds. Addresses are masked."""

    pid: int
    control_url: str
    database: str = ""
    psql: str = ""
    redis: str = ""
    redis_cli: str = ""
    started_ns: int = 0
    databases: dict[str, str] = {}
    """Those beside the default, by their sink."""
    metrics_url: str = ""
    """Empty where they have no port of their own."""

    @property
    def clients(self) -> list[str]:
        """Commands that reach the servers by hand."""
        return [each for each in (self.psql, self.redis_cli) if each]

    def address(self, sink: str) -> str:
        """Where a sink's server is; `off` where it has none."""
        named = {"database": self.database, "redis": self.redis}
        return named.get(sink) or self.databases.get(sink, "off")


class HostNote(msgspec.Struct, frozen=True):
    """What `database.json` holds: who keeps the private database open, and where it answers."""

    pid: int
    url: str = ""
    """Empty until it does."""


class Locks(NamedTuple):
    """Descriptors of the locks of an engine: whoever has them open holds them."""

    state: int
    rings: int


@contextlib.contextmanager
def hold(layout: Layout, *, evicts: bool = True, fd: int = -1) -> Iterator[int]:
    """Own the state directory, or raise InstanceBusyError. Who only keeps the private database open
    has to leave it to us, if this `evicts`. A `fd` that is open holds the lock already; the
    descriptor that does is given.

    The lock dies with the process, however it ends. The file stays: removing it would let two
    processes lock two different files of the same name.
    """
    is_ours = fd >= 0
    if not is_ours:
        with usable(layout.state_dir):
            fd = os.open(layout.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not is_ours:
            _lock(fd, layout, evicts)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        try:
            yield fd
        finally:
            remove_note(layout)
            os.ftruncate(fd, 0)
    finally:
        os.close(fd)


@contextlib.contextmanager
def hold_rings(layout: Layout, fd: int = -1) -> Iterator[int]:
    """Own the rings as well, or raise InstanceBusyError: whoever copies a state directory has an
    engine of the same name, whose writer would take and remove the rows of the one that runs.
    A `fd` that is open holds the lock already; the descriptor that does is given.
    """
    path = layout.shm_dir.with_name(f"{layout.shm_dir.name}.lock")
    while fd < 0:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SegmentError(f"cannot open {path}: {error.strerror}") from error
        if not _try_lock(fd):
            os.close(fd)
            raise InstanceBusyError(
                f"another engine uses {layout.shm_dir}: its state directory is a copy of"
                f" {layout.state_dir}, or this one of that; stop it or choose another --state-dir"
            )
        if not os.fstat(fd).st_nlink:  # its holder has just removed it
            os.close(fd)
            fd = -1
    try:
        yield fd
    finally:
        path.unlink(missing_ok=True)
        os.close(fd)


def _lock(fd: int, layout: Layout, evicts: bool) -> None:
    ends_s = monotonic_s() + _BUSY_S
    while not _try_lock(fd):
        if evicts and (host := read_host_note(layout)) is not None:
            evicts = False
            with contextlib.suppress(OSError):
                os.kill(host.pid, signal.SIGTERM)
                ends_s = monotonic_s() + _MAKES_WAY_S
        if monotonic_s() > ends_s:
            raise InstanceBusyError(
                f"another engine (pid {_holder(fd) or 'unknown'}) runs on {layout.state_dir};"
                " stop it or choose another --state-dir"
            )
        time.sleep(_POLL_S)


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(fd: int) -> str:
    return os.pread(fd, 32, 0).decode("ascii", "replace").strip()


def is_held(layout: Layout) -> bool:
    """Whether an engine runs on this state directory, or its private database is kept open."""
    try:
        return is_locked(layout.lock_file)
    except FileNotFoundError:
        return False


def is_locked(path: Path) -> bool:
    """Whether another process has this lock file, which stays as it is. Raises OSError where it
    cannot be opened; a link is none: anybody may put one into `/dev/shm`.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def write_note(layout: Layout, note: EngineNote) -> None:
    """Publish the note in one step: a reader sees all of it or none."""
    write_whole(layout.state_dir / _NOTE, _line(note), synced=False)


def write_host_note(layout: Layout, note: HostNote) -> None:
    """The same for who keeps the private database open."""
    write_whole(layout.state_dir / _HOST_NOTE, _line(note), synced=False)


def _line(note: msgspec.Struct) -> bytes:
    return msgspec.json.encode(note) + b"\n"


def read_note(layout: Layout) -> EngineNote | None:
    """The note of a running engine, or None."""
    return _read(layout.state_dir / _NOTE, EngineNote) if is_held(layout) else None


def read_host_note(layout: Layout) -> HostNote | None:
    """The note of who keeps the private database open and holds the lock for it, or None."""
    note = _read(layout.state_dir / _HOST_NOTE, HostNote)
    if note is None or not is_held(layout):
        return None
    holder = layout.lock_file.read_bytes().decode("ascii", "replace").strip()
    return note if holder == str(note.pid) else None


def _read(path: Path, kind: type[_Note]) -> _Note | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (FileNotFoundError, *UNREADABLE):
        return None


def remove_note(layout: Layout) -> None:
    """Take the notes away at the end."""
    for name in (_NOTE, _HOST_NOTE):
        (layout.state_dir / name).unlink(missing_ok=True)


def leftover_rings(layout: Layout) -> list[Path]:
    """Ring files that a crash left in shared memory; the next writer drains and removes them."""
    if not layout.shm_dir.is_dir():
        return []
    return sorted(layout.shm_dir.glob("*.ring"))
