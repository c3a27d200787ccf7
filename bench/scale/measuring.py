"""Engines at work at some loads: what each process takes, and what the disk can."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Final

import psutil

from bench.flow import processes
from bench.flow.rig import Rig, running
from bench.flow.search import Plan
from bench.flow.setups import Setup
from bench.scale.load import Load
from bench.scale.model import Sample
from bench.scale.points import Series
from bench.storing import one
from engine.base.clock import monotonic_s
from engine.data.layout import open_layout

_WAL_BYTES: Final = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')"
_PUBLISHED: Final = ("fts_writer_batch_rows_count", "redis")
_SERVERS: Final = ("postgres", "valkey")
_CHUNK_BYTES: Final = 1 << 20
_CHUNKS: Final = 48
_ROUNDS: Final = 5


def samples(series: Series, seconds: float, *, quick: bool) -> Iterator[Sample]:
    """Of one engine, rate by rate. It accounts for every row at its end, or fails.

    A rate that is not held is left out: where something is at its end rows come in larger crowds,
    and cost less.
    """
    if not possible(series.setup) or not (rates := series.chosen(quick=quick)):
        return
    with running(series.setup, Plan()) as rig:
        for rate in rates:
            if (found := _sample(rig, rate, seconds)) is not None:
                yield found


def possible(setup: Setup) -> bool:
    """Whether there are CPUs enough for its shards."""
    return setup.shards <= len(os.sched_getaffinity(0))


def _sample(rig: Rig, rows_per_s: float, seconds: float) -> Sample | None:
    memory_bytes = _memory_bytes(rig)
    servers = processes.by_role(rig.engine.pid, {})["postgres"]
    before_s, began, stored = _cpu_s(servers), _wal_bytes(rig), rig.look().stored
    published, at_s = rig.engine.metrics()[_PUBLISHED], monotonic_s()
    if not rig.probe(rows_per_s, seconds).held:
        return None
    publishes_per_s = (rig.engine.metrics()[_PUBLISHED] - published) / (monotonic_s() - at_s)
    session_part = _busiest_part(before_s, _cpu_s(servers))
    wal_bytes_per_row = (_wal_bytes(rig) - began) / max(rig.look().stored - stored, 1)
    usage, setup = rig.usage, rig.setup
    load = Load(
        trades_per_s=(usage.rows - usage.levels) / usage.seconds,
        levels_per_s=usage.levels / usage.seconds,
        levels_per_message=_levels_per_message(rig),
        symbols=setup.symbols,
        venues=setup.simulators,
        shards=setup.shards,
        redis=setup.redis,
    )
    cpu = by_process({role: cpu_s / usage.seconds for role, cpu_s in usage.cpu_s.items()})
    return Sample(
        load, cpu, wal_bytes_per_row * load.rows_per_s, session_part, memory_bytes, publishes_per_s
    )


def by_process(cpu: dict[str, float]) -> dict[str, float]:
    """The processes that the model knows; all that decide and watch are one."""
    named = ("shard", "writer", *_SERVERS)
    others = sum(each for role, each in cpu.items() if role not in (*named, "simulator"))
    return {role: cpu.get(role, 0.0) for role in named} | {"others": others}


def _memory_bytes(rig: Rig) -> float:
    """Of all but the servers, shared pages divided among those who share them; the rings, whose
    size is no question, are left out.
    """
    rings = str(open_layout(rig.engine.state_dir).shm_dir)
    roles = processes.by_role(rig.engine.pid, {})
    found = 0.0
    for process in chain.from_iterable(roles[role] for role in roles if role not in _SERVERS):
        with suppress(psutil.Error):  # it may end while it is looked at
            maps = process.memory_maps()
            found += sum(each.pss for each in maps if not each.path.startswith(rings))
    return found


def _levels_per_message(rig: Rig) -> float:
    """Of the books that the engine has had so far; trades are one a message."""
    metrics, market = rig.engine.metrics(), rig.market.look()
    if not market.sent_levels:
        return 1.0
    trades = market.sent_rows - market.sent_levels
    return market.sent_levels / max(metrics["fts_shards_frames_total", ""] - trades, 1.0)


def _wal_bytes(rig: Rig) -> float:
    return float(one(rig.url, _WAL_BYTES))


def _cpu_s(servers: list[psutil.Process]) -> dict[int, float]:
    return {each.pid: sum(each.cpu_times()[:2]) for each in servers if each.is_running()}


def _busiest_part(before_s: dict[int, float], after_s: dict[int, float]) -> float:
    taken_s = [after_s[pid] - each for pid, each in before_s.items() if pid in after_s]
    return max(taken_s) / max(sum(taken_s), 1e-9)


def disk_bytes_per_s() -> float:
    """What the disk of temporary files takes in order, each part of 48 MB forced out: the best of
    some, as whatever else writes can only take from it.
    """
    chunk, found = os.urandom(_CHUNK_BYTES), []
    with tempfile.TemporaryDirectory(prefix="fts-bench-") as folder:
        for number in range(_ROUNDS):
            with (Path(folder) / str(number)).open("wb", buffering=0) as file:
                began_s = monotonic_s()
                for _ in range(_CHUNKS):
                    file.write(chunk)
                os.fdatasync(file.fileno())
                found.append(_CHUNKS * _CHUNK_BYTES / (monotonic_s() - began_s))
    return max(found)
