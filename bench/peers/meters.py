"""What a piece of work took: by the clock, of our CPU time, and of a server's."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from bench.storing import cpu_s


@dataclass(frozen=True, order=True)
class Took:
    """Seconds; ordered by all the CPU time together."""

    cpu_s: float
    client_s: float
    server_s: float
    wall_s: float

    def told(self, count: int, unit: str) -> dict[str, float]:
        """Of each of `count`, as it goes into a result."""
        return {
            f"{unit}s_per_s": round(count / self.wall_s),
            f"client_us_a_{unit}": round(self.client_s / count * 1e6, 3),
            f"server_us_a_{unit}": round(self.server_s / count * 1e6, 3),
        }


async def metered(work: Callable[[], Awaitable[None]], server_pid: int) -> Took:
    """Do it, and see what it took."""
    server_s, client_s, began_s = cpu_s(server_pid), time.process_time(), time.perf_counter()
    await work()
    wall_s, client_s = time.perf_counter() - began_s, time.process_time() - client_s
    server_s = cpu_s(server_pid) - server_s
    return Took(client_s + server_s, client_s, server_s, wall_s)
