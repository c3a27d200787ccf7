"""Open files: how many each process of an engine needs, and how many it may have.

Where there are too few, the process that finds none left says so in the words of whatever it was
doing: "connection is bad: no error details available". So they are counted before anything starts.
"""

import resource
from collections.abc import Mapping
from typing import Final

from engine.base.errors import ConfigError

_HANDLES_MAX: Final = 1 << 20
"""More is asked for by nobody, and some programs look at every number below their limit."""
_OF_ANY_PROCESS: Final = 48
"""Log, pipes, metrics, event loop, libraries; and a few clients."""
_OF_A_RING: Final = 4
"""Mapped memory holds a second handle of its file; and there is the producer's lock."""
_OF_A_SOURCE: Final = 8
"""A ring with its journal, positions and members, and what an earlier run left of it."""
_OF_A_CHILD: Final = 8
_OF_A_SOCKET: Final = 2
"""Its successor is opened before it is closed."""
_OF_A_PRIVATE_SERVER: Final = 96
"""PostgreSQL refuses to start a backend with less than 58 left."""


def raise_limit() -> int:
    """Ask for all that this process may have, for it and its children; return how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _HANDLES_MAX if hard == resource.RLIM_INFINITY else min(hard, _HANDLES_MAX)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return soft if soft != resource.RLIM_INFINITY else _HANDLES_MAX
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def needed(shard_count: int, kinds: int, socket_count: int) -> dict[str, int]:
    """Handles by process, where every shard has a ring of each of `kinds` record kinds.
    `socket_count` is of all venues; one shard may have them all for a while, when another is away.
    """
    return {
        "the supervisor": _OF_ANY_PROCESS + _OF_A_CHILD * (shard_count + 5),
        "the writer": _OF_ANY_PROCESS + _OF_A_SOURCE * kinds * shard_count,
        "a shard": _OF_ANY_PROCESS + _OF_A_RING * kinds + _OF_A_SOCKET * socket_count,
        "the private PostgreSQL": _OF_A_PRIVATE_SERVER,
    }


def demand(counts: Mapping[str, int], limit: int) -> None:
    """Raises ConfigError when a process would need more than `limit`."""
    process, count = max(counts.items(), key=lambda item: item[1])
    if count > limit:
        raise ConfigError(
            f"open files: {process} needs {count:,} and may have {limit:,}; raise the hard limit"
            " (ulimit -Hn as root, LimitNOFILE= in systemd, --ulimit nofile= in Docker)"
        )
