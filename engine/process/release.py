"""Which code a process runs: where it is, and what it is called."""

import os
import sys
import zlib
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Final

import msgspec

import engine

_ROOT: Final = Path(engine.__file__).parents[1]
_ROOMS: Final = ("engine", "shards", "control")


class Code(msgspec.Struct, frozen=True):
    """An interpreter, and the folder that has our packages."""

    python: str
    root: str

    def environment(self) -> dict[str, str]:
        """Ours, with this code first: one release in all processes that are started with it."""
        before = os.environ.get("PYTHONPATH")
        path = f"{self.root}{os.pathsep}{before}" if before else self.root
        return {**os.environ, "PYTHONPATH": path}


OURS: Final = Code(sys.executable, str(_ROOT))
"""What runs this."""


@cache
def release() -> str:
    """What this code is called: its version, and a checksum of its modules, which differs where a
    checkout was changed under the same version.
    """
    checksum = 0
    for path in sorted(each for room in _ROOMS for each in (_ROOT / room).rglob("*.py")):
        checksum = zlib.crc32(path.read_bytes(), checksum)
    return f"{version()}-{checksum:08x}"


def version() -> str:
    """The installed version, or a note that this is a bare checkout."""
    try:
        return metadata.version("fintickstreams")
    except metadata.PackageNotFoundError:
        return "0 (not installed)"
