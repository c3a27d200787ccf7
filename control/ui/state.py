"""What the dashboard asks of the control process, and its limits."""

from collections.abc import Mapping
from typing import Protocol

import msgspec

from engine.data.layout import Layout
from engine.messages.status import EngineStatus, Light
from engine.messages.streams import Knobs


class ShownLight(Protocol):
    """One health light and the reason for it, as `GET /health/...` has them."""

    @property
    def status(self) -> Light: ...

    @property
    def reason(self) -> str: ...


class DashboardState(Protocol):
    """The control process, as far as the dashboard is concerned."""

    @property
    def status(self) -> EngineStatus | None:
        """What the supervisor said last. A new object each time it speaks."""
        ...

    @property
    def layout(self) -> Layout:
        """Where the rings and the stream table are."""
        ...

    @property
    def configured_knobs(self) -> Knobs:
        """What the flush knobs of a stream are when nobody has set them."""
        ...

    @property
    def own_loop_lag_ms(self) -> float:
        """Of the control process."""
        ...

    def lights(self) -> Mapping[str, ShownLight]:
        """`runtime`, `db` and `redis`."""
        ...

    def verdict(self) -> ShownLight:
        """The engine as a whole, streams included."""
        ...


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
