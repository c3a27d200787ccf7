"""What each process of a run uses: CPU time and memory, by what it is."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Final

import psutil

_SERVERS: Final = {"postgres": "postgres", "valkey-server": "valkey"}


def by_role(engine: int, others: Mapping[str, Iterable[int]]) -> dict[str, list[psutil.Process]]:
    """The engine's processes by role, all shards together, and others by what they are called."""
    supervisor = psutil.Process(engine)
    found = {"supervisor": [supervisor]}
    for child in supervisor.children(recursive=True):
        found.setdefault(_role(child), []).append(child)
    for role, pids in others.items():
        found[role] = [psutil.Process(pid) for pid in pids]
    return found


def _role(process: psutil.Process) -> str:
    with suppress(psutil.Error):  # it may end while it is looked at
        if role := _SERVERS.get(process.name()):
            return role
        line = " ".join(process.cmdline()).split()  # that of a copy is one text
        if "engine.process.birth" in line:
            name = str(line[line.index("engine.process.birth") + 1])
            return name.partition("-")[0]  # of a shard: all of them are one line
        if "engine.process.forks" in line:
            return "forks"
    return "other"


def cpu_s(roles: Mapping[str, Iterable[psutil.Process]]) -> dict[str, float]:
    """CPU time so far. A server's processes that have ended count: their parent has waited."""
    found: Counter[str] = Counter()
    for role, process in _each(roles):
        with suppress(psutil.Error):  # it may end while it is looked at
            times = process.cpu_times()
            found[role] += times.user + times.system
            if role in _SERVERS.values():
                found[role] += times.children_user + times.children_system
    return dict(found)


def pss_mb(roles: Mapping[str, Iterable[psutil.Process]]) -> dict[str, float]:
    """Memory, shared pages divided among those who share them."""
    found: Counter[str] = Counter()
    for role, process in _each(roles):
        with suppress(psutil.Error):  # it may end while it is looked at
            found[role] += process.memory_full_info().pss
    return {role: round(size / 1e6, 1) for role, size in found.items()}


def _each(
    roles: Mapping[str, Iterable[psutil.Process]],
) -> Iterator[tuple[str, psutil.Process]]:
    for role, processes in roles.items():
        for process in processes:
            yield role, process
