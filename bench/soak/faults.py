"""What is done to the engine, and when: a plan by seed, so that a run can be repeated.

Each fault is a function of the world that returns when it is over, some after twenty seconds; what
it did is its answer. Servers of ours are started by the main thread, so faults are done there.
"""

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple

import psycopg

from bench.soak.world import World, children_of
from engine.servers.private_server import PrivateServer

Fault = Callable[[World], str]
_AWAY_S: Final = 20.0
_FROZEN_S: Final = 10.0
_VENUES: Final = ("binance_linear", "hyperliquid_perp")
_SLOW_BYTES_PER_S: Final = 20_000
_ROOM_LEFT_BYTES: Final = 64 << 10
_END_SESSIONS: Final = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


class Planned(NamedTuple):
    """A fault and its moment, in seconds since the start."""

    at_s: float
    name: str


def plan(seed: int, count: int, run_s: float, names: Sequence[str]) -> list[Planned]:
    """So many faults, each at a random moment of its own part of the time; every kind comes once
    before one comes again. The first and the last tenth of the run have none.
    """
    chance = random.Random(seed)
    chosen: list[str] = []
    while len(chosen) < count:
        chosen += chance.sample(list(names), len(names))
    each_s = 0.8 * run_s / max(count, 1)
    return [
        Planned(0.1 * run_s + each_s * (place + 0.5 * chance.random()), name)
        for place, name in enumerate(chosen[:count])
    ]


def possible(world: World) -> list[str]:
    """Names of the faults that this machine lets us do."""
    return [each for each in FAULTS if each != "journal disk full" or world.has_journal_disk]


def _kill(name: str, world: World) -> str:
    pid = world.pid_of(name) or world.pid_of(f"{name}b")
    if pid is None:
        return f"{name} does not run"
    os.kill(pid, signal.SIGKILL)
    return f"SIGKILL to {name} ({pid})"


def _freeze(name: str, world: World) -> str:
    pid = world.pid_of(name)
    if pid is None:
        return f"{name} does not run"
    with _stopped([pid]):
        time.sleep(_FROZEN_S)
    return f"SIGSTOP to {name} for {_FROZEN_S:.0f} s"


@contextlib.contextmanager
def _stopped(pids: Sequence[int]) -> Iterator[None]:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def _server(name: str, world: World) -> PrivateServer:
    return world.postgres if name == "postgres" else world.valkey


def _away(name: str, world: World) -> str:
    server = _server(name, world)
    server.stop()
    try:
        time.sleep(_AWAY_S)
    finally:
        server.start()
    return f"{server.title} stopped for {_AWAY_S:.0f} s"


def _crash(name: str, world: World) -> str:
    server = _server(name, world)
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    server.stop()
    server.start()
    return f"SIGKILL to {server.title}, started again"


def _silent_server(name: str, world: World) -> str:
    """Its sessions stay open, and nothing answers."""
    server = _server(name, world)
    assert server.pid is not None
    with _stopped([server.pid, *children_of(server.pid)]):
        time.sleep(_FROZEN_S)
    return f"SIGSTOP to {server.title}, all its processes, for {_FROZEN_S:.0f} s"


def _end_sessions(world: World) -> str:
    with psycopg.connect(world.database_url, autocommit=True) as connection:
        found = connection.execute(_END_SESSIONS).fetchone()
    return f"{found[0] if found else 0} sessions of the database terminated"


def _venue(fault: str, world: World, **body: object) -> str:
    for venue in _VENUES:
        world.tell_simulator("/simulator/faults", fault=fault, venue=venue, **body)
    return " ".join([f"{fault} at {' and '.join(_VENUES)}", *(f"{k}={v}" for k, v in body.items())])


def _silence(world: World) -> str:
    said = _venue("silence", world, seconds=_AWAY_S)
    time.sleep(_AWAY_S)
    return said


def _holes(world: World) -> str:
    body = {"venue": "binance_linear", "symbol": "BTCUSDT"}
    for kind, count in (("trade", 17), ("book", 2)):
        world.tell_simulator("/simulator/faults", fault="gap", kind=kind, count=count, **body)
    return "17 trades and 2 book changes of binance_linear BTCUSDT never sent"


def _rest_refused(status: int, world: World) -> str:
    """A book with a hole asks for a snapshot, which is refused three times."""
    venue = "binance_linear"
    tell = partial(world.tell_simulator, "/simulator/faults", venue=venue)
    tell(fault="http_status", status=status, count=3, retry_after_s=2)
    tell(fault="gap", symbol="BTCUSDT", kind="book", count=1)
    return f"REST of {venue}: {status} three times, while a book needs a snapshot"


def _handshakes_refused(world: World) -> str:
    world.relay.refuses = True
    try:
        cut = world.relay.cut()
        time.sleep(_AWAY_S)
    finally:
        world.relay.refuses = False
    return f"{cut} connections reset, every new one refused with 503 for {_AWAY_S:.0f} s"


def _slow_network(world: World) -> str:
    world.relay.bytes_per_s = _SLOW_BYTES_PER_S
    try:
        time.sleep(_AWAY_S)
    finally:
        world.relay.bytes_per_s = 0
    return f"{_SLOW_BYTES_PER_S:,} bytes/s a connection for {_AWAY_S:.0f} s"


def _cut(world: World) -> str:
    return f"{world.relay.cut()} connections reset on the way"


def _reload(world: World) -> str:
    world.reload()
    return "SIGHUP with another log level and other flush limits"


def _full_journal(world: World) -> str:
    """Less room than a segment takes, and then none."""
    room = os.statvfs(world.layout.journal_dir)
    ballast = world.layout.journal_dir / "ballast"
    size = room.f_bavail * room.f_frsize - _ROOM_LEFT_BYTES
    try:
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
        time.sleep(_AWAY_S)
    finally:
        ballast.unlink()
    return f"disk of the journal full but for {_ROOM_LEFT_BYTES >> 10} KiB for {_AWAY_S:.0f} s"


FAULTS: Final[Mapping[str, Fault]] = {
    "kill shard": partial(_kill, "shard-0"),
    "kill writer": partial(_kill, "writer"),
    "kill control": partial(_kill, "control"),
    "kill upkeep": partial(_kill, "upkeep"),
    "freeze shard": partial(_freeze, "shard-0"),
    "freeze writer": partial(_freeze, "writer"),
    "database away": partial(_away, "postgres"),
    "database killed": partial(_crash, "postgres"),
    "database silent": partial(_silent_server, "postgres"),
    "sessions ended": _end_sessions,
    "valkey away": partial(_away, "valkey"),
    "valkey killed": partial(_crash, "valkey"),
    "sockets cut": _cut,
    "sockets closed": partial(_venue, "close", code=1001),
    "venue silent": _silence,
    "malformed frames": partial(_venue, "malformed", variant="all", count=5),
    "rows never sent": _holes,
    "rest 429": partial(_rest_refused, 429),
    "rest 500": partial(_rest_refused, 500),
    "handshakes refused": _handshakes_refused,
    "slow network": _slow_network,
    "reload": _reload,
    "journal disk full": _full_journal,
}
