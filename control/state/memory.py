"""How much memory can still be had: on the machine, and within what a container or a service may
use. The kernel kills at whichever ends first.
"""

from collections.abc import Iterator
from pathlib import Path

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")


def memory_free_fraction(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> float:
    """The smallest free part of all memory that bounds us; 1.0 where the kernel does not tell."""
    return min([_of_machine(proc), *_of_groups(proc, cgroups)])


def memory_bytes(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> int:
    """The memory of the machine, or what of it we may use; 0 where the kernel does not tell."""
    total = _numbers(proc / "meminfo").get("MemTotal", 0) << 10  # in kB
    limits = [limit for limit, _ in _groups(proc, cgroups) if limit]
    return min([total, *limits]) if total else min(limits, default=0)


def _of_machine(proc: Path) -> float:
    sizes = _numbers(proc / "meminfo")
    return sizes.get("MemAvailable", 1) / max(sizes.get("MemTotal", 1), 1)


def _of_groups(proc: Path, cgroups: Path) -> Iterator[float]:
    for limit, used in _groups(proc, cgroups):
        yield max(0.0, 1.0 - used / max(limit, 1))


def _groups(proc: Path, cgroups: Path) -> Iterator[tuple[int, int]]:
    """Limit and usage of every group around ours that has a limit: it is ours, too."""
    for line in _text(proc / "self" / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:  # version 2
            root, names = cgroups, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            root = cgroups / "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        own = root / path.lstrip("/")
        for group in (own, *own.parents):
            yield from _of_group(group, *names)
            if group == root:
                break


def _of_group(
    group: Path, limit_file: str, usage_file: str, cache_name: str
) -> Iterator[tuple[int, int]]:
    limit, usage = _text(group / limit_file).strip(), _text(group / usage_file).strip()
    if limit.isdigit() and usage.isdigit():  # "max": no limit
        cache = _numbers(group / "memory.stat").get(cache_name, 0)  # given up before anything dies
        yield int(limit), int(usage) - cache


def _numbers(file: Path) -> dict[str, int]:
    """`name number` or `name: number unit`, one a line."""
    found = {}
    for line in _text(file).splitlines():
        name, number, *_ = line.replace(":", " ").split()
        found[name] = int(number)
    return found


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
