"""What `fts doctor` says of the machine's size: CPUs, memory, disk, open files. `root` stands for
`/`, for tests.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from control.cli.findings import Complaint, Finding, fine
from control.cli.footing import open_files
from control.cli.ground import ServiceOptions, known_kinds, private_bytes
from control.state.memory import memory_bytes
from engine.base.errors import ConfigError, EngineError
from engine.data.layout import Layout
from engine.start import preflight
from engine.start.config import LoadedConfig
from shards.venues import preferred_transport, socket_count

CPUS_NOT_ALLOWED: Final = Complaint("cpus_not_allowed", "the engine does not start")
CPUS_ALL_TAKEN: Final = Complaint(
    "cpus_all_taken", "writer and database wait for shards that are busy, and rows pile up in rings"
)
CPU_QUOTA: Final = Complaint(
    "cpu_quota", "once it is used up, every process stands still for the rest of a period, 100 ms"
)
SHM_SMALL: Final = Complaint(
    "shm_small", "a ring that is full while the writer is busy drops rows, which become gaps"
)
MEMORY_SMALL: Final = Complaint(
    "memory_small", "the kernel kills a process that asks for more than there is"
)
DISK_FULL: Final = Complaint(
    "disk_full", "what the database does not take is kept in memory only, while that has room"
)
OPEN_FILES: Final = Complaint("open_files", "the engine does not start")

_FEW_SEGMENTS: Final = 10
_PROCESS_BYTES: Final = 100 << 20
_PROCESSES: Final = 4
"""Beside the shards: supervisor, control, writer, upkeep."""


def machine(loaded: LoadedConfig, layout: Layout, root: Path = Path("/")) -> Iterator[Finding]:
    """Everything about it."""
    allowed = preflight.allowed_cpus()
    try:
        cpus = preflight.shard_cpus(loaded.config, loaded.source, allowed)
    except EngineError as error:
        yield CPUS_NOT_ALLOWED.problem(
            "cpu", str(error),
            "change shards.cpus, or what this process may use (taskset, CPUAffinity= in systemd,"
            " --cpuset-cpus in Docker)",
        )  # fmt: skip
        cpus = allowed[-1:]
    else:
        yield _cpus(cpus, allowed, cpu_quota(root))
    try:
        plan = preflight.plan_rings(
            loaded.config, loaded.source, len(cpus), *preflight.ring_room(layout),
            streams=known_kinds(layout, loaded.stream_keys(preferred_transport)),
        )  # fmt: skip
    except (EngineError, OSError) as error:
        folder = layout.shm_dir.parent
        yield SHM_SMALL.problem(
            "shared memory", str(error),
            f"make {folder} larger (mount -o remount,size=1G {folder}; --shm-size=1g in Docker) or"
            " the rings smaller",
        )  # fmt: skip
    else:
        yield _rings(plan)
        yield _memory(loaded, layout, plan.bytes_needed, len(cpus))
    yield _disk(loaded, layout.state_dir)
    yield _open_files(loaded, len(cpus))


def _cpus(cpus: list[int], allowed: list[int], quota: float | None) -> Finding:
    text = f"{len(allowed)} allowed of {os.cpu_count()}, shards on {cpus}"
    if len(allowed) > 1 and set(cpus) >= set(allowed):
        return CPUS_ALL_TAKEN.note(
            "cpu", f"{text}: none is left for the writer and the database", "shorten shards.cpus"
        )
    if quota is not None and quota < len(cpus) + 1:
        return CPU_QUOTA.note(
            "cpu", f"{text}, but all together may use no more than {quota:.1f} CPUs",
            f"raise the quota to {len(cpus) + 1} (CPUQuota= in systemd, --cpus in Docker,"
            " limits.cpu in Kubernetes), or remove it",
        )  # fmt: skip
    return fine("cpu", text)


def cpu_quota(root: Path) -> float | None:
    """How many CPUs' time the groups around us may use; None where none is limited."""
    found = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        home = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
        own = home / path.lstrip("/")
        for group in (own, *own.parents):
            if controllers:
                words = [_text(group / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
            else:
                words = _text(group / "cpu.max").split()
            if len(words) == 2 and all(word.isdigit() for word in words):  # "max", -1: no limit
                found.append(int(words[0]) / max(int(words[1]), 1))
            if group == home:
                break
    return min(found, default=None)


def _rings(plan: preflight.RingPlan) -> Finding:
    text = f"{plan.bytes_free / 2**20:,.0f} MB free, rings need {plan.bytes_needed / 2**20:,.0f} MB"
    if plan.note:
        return SHM_SMALL.note(
            "shared memory", f"{text}: {plan.note.partition(': ')[2]}",
            "make it larger (mount -o remount,size=1G /dev/shm; --shm-size=1g in Docker)",
        )  # fmt: skip
    return fine("shared memory", text)


def _memory(loaded: LoadedConfig, layout: Layout, ring_bytes: int, shards: int) -> Finding:
    """Whether what an engine and its own servers come to is there."""
    needed = ring_bytes + _PROCESS_BYTES * (_PROCESSES + shards)
    needed += private_bytes(ServiceOptions(loaded), layout)
    there = memory_bytes()
    text = f"an engine comes to about {needed / 2**20:,.0f} MB"
    if not there or needed <= there:
        return fine("memory needed", f"{text} of {there / 2**20:,.0f} MB" if there else text)
    return MEMORY_SMALL.note(
        "memory needed", f"{text}, and may have {there / 2**20:,.0f} MB",
        "raise the limit (MemoryMax= in systemd, --memory in Docker, limits.memory in Kubernetes),"
        " or choose fewer shards.cpus and smaller shards.ring_records",
    )  # fmt: skip


def _disk(loaded: LoadedConfig, state_dir: Path) -> Finding:
    """Whether journal, log and private servers have room to grow."""
    usage = os.statvfs(state_dir)
    free_mb, segment_mb = usage.f_bavail * usage.f_frsize / 2**20, loaded.config.journal.segment_mb
    text = f"{free_mb:,.0f} MB free for {state_dir}"
    if usage.f_files and not usage.f_favail:
        return DISK_FULL.problem("disk", f"{text}, but no file can be added", "remove some")
    if free_mb < segment_mb:
        return DISK_FULL.problem(
            "disk", f"{text}: not even one file of the journal, {segment_mb:,} MB", "make room"
        )
    if free_mb < _FEW_SEGMENTS * segment_mb:
        return DISK_FULL.note(
            "disk", f"{text}: rows of a long outage of the database would not fit in there",
            "make room, or move the state directory",
        )  # fmt: skip
    return fine("disk", text)


def _open_files(loaded: LoadedConfig, shards: int) -> Finding:
    """As the engine counts them before it starts anything."""
    streams = loaded.stream_keys(preferred_transport)
    try:
        limit, needed = open_files(shards, socket_count(streams, loaded.config.venues))
    except ConfigError as error:
        text, _, advice = str(error).removeprefix("open files: ").partition("; ")
        return OPEN_FILES.problem("open files", text, advice)
    return fine("open files", f"a process may have {limit:,} and needs {needed:,}")


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
