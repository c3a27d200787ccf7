"""Where an engine keeps its files: one state directory and one shared-memory directory."""

import contextlib
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from engine.base.durable import sync_directory, write_whole
from engine.base.errors import ConfigError, EngineError


class SourceKey(NamedTuple):
    """Names the rows of one ring for ever, in cursors of shared databases, too."""

    ring: str
    """`<instance>/<ring>`."""
    epoch: int
    """Nanoseconds since 1970 at which the ring was made."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths of one instance. `instance` names it in shared memory and in the database."""

    state_dir: Path
    instance: str
    shm_dir: Path

    @property
    def slots(self) -> Path:
        """The stream table (`engine.data.slots`)."""
        return self.state_dir / "streams.jsonl"

    @property
    def wanted(self) -> Path:
        """Which streams are wanted, with their knobs (`engine.streams.wanted`)."""
        return self.state_dir / "registry.jsonl"

    @property
    def limits(self) -> Path:
        """What was spent of the venues' budgets (`engine.limits.lease_desk`)."""
        return self.state_dir / "limits.json"

    @property
    def journal_dir(self) -> Path:
        """Root of the journal; one folder a ring."""
        return self.state_dir / "journal"

    @property
    def positions_dir(self) -> Path:
        """Last row of every stream, by record kind (`engine.data.positions`)."""
        return self.state_dir / "positions"

    @property
    def quarantine_dir(self) -> Path:
        """Rows the database refuses for good, each with its error."""
        return self.state_dir / "quarantine"

    def quarantine_of(self, sink: str) -> Path:
        """Those of one database: the default's own, and a folder in it for each of the others."""
        _, _, name = sink.partition(".")
        return self.quarantine_dir / name

    @property
    def routes(self) -> Path:
        """Which database has which rows of rings and journal (`engine.writer.rows.routing`)."""
        return self.state_dir / "routes.json"

    @property
    def metrics_dir(self) -> Path:
        """What the processes count, for `/metrics` (`engine.process.metric_files`). In memory:
        writing to a mapped page must never wait for a disk.
        """
        return self.shm_dir / "metrics"

    @property
    def log_file(self) -> Path:
        """Where every process of the instance logs."""
        return self.state_dir / "fts.log"

    @property
    def lock_file(self) -> Path:
        """Held while an engine runs on this state directory."""
        return self.state_dir / "lock"

    def ring_path(self, ring: str) -> Path:
        """File of a ring, e.g. `shard-0.trade`."""
        return self.shm_dir / f"{ring}.ring"


def shard_name(shard: int, *, is_second: bool = False) -> str:
    """What the process of a shard is called, its rings and its metrics: `shard-0`; the one beside
    it that takes its streams over is `shard-0b`, and the next one `shard-0` again.
    """
    return f"shard-{shard}b" if is_second else f"shard-{shard}"


def ring_name(shard: str, kind: str) -> str:
    """Name of a shard's ring of one record kind: `shard-0.trade`."""
    return f"{shard}.{kind}"


def open_layout(state_dir: Path, shm_root: Path = Path("/dev/shm")) -> Layout:  # noqa: S108
    """Create the state directory at first use (mode 0700) and return its layout.

    Raises ConfigError when it cannot be made or written.
    """
    state_dir = state_dir.absolute()
    with usable(state_dir):
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        identity = state_dir / "instance"
        if not identity.exists():
            _write_identity(identity)
        instance = _read_identity(identity)
    return Layout(state_dir=state_dir, instance=instance, shm_dir=shm_root / f"fts-{instance}")


@contextlib.contextmanager
def usable(state_dir: Path) -> Iterator[None]:
    """Say what to do when the state directory cannot be made, read or written: a ConfigError."""
    must_be_text(state_dir, "state directory")
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"state directory {state_dir}: {error.strerror}; choose another with --state-dir,"
            " FTS_STATE_DIR or state_dir"
        ) from error


def must_be_text(path: Path, what: str) -> None:
    """Raise ConfigError for a name with bytes that are no UTF-8: paths travel in JSON messages."""
    raw = os.fsencode(path)
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        shown = raw.decode("utf-8", "backslashreplace")
        raise ConfigError(
            f"{what} {shown}: byte {error.start + 1} of that name is no UTF-8; choose another name"
        ) from None


def _write_identity(path: Path) -> None:
    """Whole or not at all; whoever else opens this directory at the same time gets the same one.
    Without a lock: the directory itself may be locked by whoever starts us (`flock DIR fts up`).
    """
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    write_whole(fresh, f"{secrets.token_hex(6)}\n".encode())
    try:
        os.link(fresh, path)  # unlike a rename it replaces nobody's
    except FileExistsError:
        pass
    except OSError:
        fresh.replace(path)  # a file system without hard links
    finally:
        fresh.unlink(missing_ok=True)
    sync_directory(path.parent)


def _read_identity(path: Path) -> str:
    """The name of the instance. An empty one would be shared by every engine it happened to."""
    text = path.read_bytes().strip()
    if not re.fullmatch(rb"[0-9a-f]{12}", text):
        raise EngineError(
            f"{path} is damaged: it must hold the 12 hexadecimal digits that name this engine's"
            " rings (/dev/shm/fts-<digits>). Put them back, or remove the file if no rows are left"
            " there to be delivered"
        )
    return text.decode("ascii")
