"""When a feed of the dashboard ends, and what its viewers may cost."""

import msgspec

from engine.messages.status import EngineStatus


def is_ending(status: EngineStatus | None) -> bool:
    """Whether the engine goes down. Feeds end then by themselves: the server would wait for them
    and then break them off, with an error in the log for each.
    """
    return status is not None and status.phase in ("draining", "stopped")


class DashboardLimits(msgspec.Struct, frozen=True):
    """What viewers may cost. A page takes two viewers: the status and a tape."""

    viewers_max: int = 24
    viewer_buffer_bytes: int = 1 << 20
    """A viewer that lets more than this pile up is not reading, and is dropped."""
    status_interval_s: float = 0.25
    trades_interval_s: float = 0.1
    book_interval_s: float = 0.2
    levels: int = 15
    keep_alive_s: float = 10.0
