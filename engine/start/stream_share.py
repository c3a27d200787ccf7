"""Which of the configured streams are this engine's, where several have one configuration.

Each gets a part by its number, and together they have every stream once, without asking each other.
All streams of a symbol go together, as they do within an engine: trades and book are then stamped
by one clock. One engine more takes streams from the others, and none of those changes hands between
them (rendezvous hashing, Thaler and Ravishankar 1998).
"""

import hashlib
import re
from dataclasses import dataclass
from typing import Final

from engine.base.errors import ConfigError
from engine.data.names import StreamKey

_SHARE: Final = re.compile(r"([0-9]{1,4})/([1-9][0-9]{0,3})")


@dataclass(frozen=True, slots=True)
class StreamShare:
    """Number `ordinal` of `total`, counted from 0."""

    ordinal: int = 0
    total: int = 1

    @classmethod
    def parse(cls, text: str, origin: str) -> "StreamShare":
        """Read `2/3`. Raises ConfigError that names `origin`."""
        found = _SHARE.fullmatch(text)
        if found is None:
            raise ConfigError(f"{origin}: {text[:40]!a} is none: three engines have 0/3, 1/3, 2/3")
        ordinal, total = int(found[1]), int(found[2])
        if ordinal >= total:
            raise ConfigError(f"{origin}: {text!a}: {total} engines count from 0 to {total - 1}")
        return cls(ordinal, total)

    def has(self, key: StreamKey) -> bool:
        """Whether a stream is of this share: of exactly one of `total`."""
        symbol = f"{key.venue}/{key.symbol}".encode()
        return self.ordinal == max(range(self.total), key=lambda each: _weight(each, symbol))


def _weight(ordinal: int, symbol: bytes) -> bytes:
    """The same on every machine and in every version: else streams would be nobody's meanwhile."""
    return hashlib.sha256(b"%d/%s" % (ordinal, symbol)).digest()
