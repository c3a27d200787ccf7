"""What `fts doctor` says of the kernel: its clock, its memory, its network.

`root` stands for `/`, for tests.
"""

import ctypes
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from control.cli.findings import Complaint, Finding, fine
from engine.data.layout import Layout
from engine.process import instance

CLOCK_UNSYNCHRONISED: Final = Complaint(
    "clock_unsynchronised",
    "times of receipt and latencies are this clock's, and rows wait while it is a day behind",
)
CLOCK_JUMPED: Final = Complaint(
    "clock_jumped", "rows of before and after it are out of order by their times of receipt"
)
SWAP_USED: Final = Complaint(
    "swap_used",
    "a shard that waits for its memory to come back from disk reads no socket meanwhile",
)
OVERCOMMIT_STRICT: Final = Complaint(
    "overcommit_strict",
    "rings and servers reserve more memory than they use, and may be refused it",
)
HUGE_PAGES: Final = Complaint(
    "huge_pages", "the kernel moves memory together while a process waits, for milliseconds"
)
TCP_BUFFERS: Final = Complaint(
    "tcp_buffers", "a burst that a venue sends while we are busy fills them, and the venue hangs up"
)
PORTS_FEW: Final = Complaint(
    "ports_few", "each connection to a venue takes one, and keeps it for a minute after its end"
)

_TIME_ERROR: Final = 5
"""Of adjtimex(2): nothing keeps the clock right."""
_TIMEX_BYTES: Final = 512
"""More than `struct timex` has anywhere."""
_MAX_ERROR: Final = struct.Struct("@l")
_MAX_ERROR_AT: Final = 3 * _MAX_ERROR.size
_STARTS_WITHIN_S: Final = 120.0
"""So long after its process begins an engine may write its note: private servers start before."""
_CLOCK_STEP_S: Final = 2.0
"""The kernel tells both times in whole seconds."""
_SWAP_USED_SHARE: Final = 0.5
_BUFFER_BYTES: Final = 4 << 20
"""What the kernel lets a socket grow to by default is 6 MB."""
_PORTS_LEAST: Final = 4096


def clock_state() -> tuple[int, int] | None:
    """State of the kernel's clock, and by how many microseconds it may be wrong; None where the
    kernel does not tell. Nothing is set.
    """
    told = ctypes.create_string_buffer(_TIMEX_BYTES)  # its first word says what to set: nothing
    try:
        state = int(ctypes.CDLL(None).adjtimex(told))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else (state, *_MAX_ERROR.unpack_from(told, _MAX_ERROR_AT))


def kernel(
    layout: Layout,
    root: Path = Path("/"),
    state: Callable[[], tuple[int, int] | None] = clock_state,
) -> Iterator[Finding]:
    """Everything about it. What it does not tell is left out."""
    yield _clock(state())
    yield from _jump(layout, root)
    yield from list(_memory(root)) or [fine("memory", "as the kernel's defaults are")]
    yield from list(_network(root)) or [fine("network", "as the kernel's defaults are, or larger")]


def _clock(told: tuple[int, int] | None) -> Finding:
    if told is None:
        return fine("clock", "whether something keeps it right is not told here")
    state, error_us = told
    if state == _TIME_ERROR:
        return CLOCK_UNSYNCHRONISED.note(
            "clock", "nothing keeps it right, as far as the kernel knows",
            "run chrony (with rtcsync) or systemd-timesyncd: timedatectl set-ntp true",
        )  # fmt: skip
    return fine("clock", f"kept right, within {error_us / 1000:,.0f} ms")


def _jump(layout: Layout, root: Path) -> Iterator[Finding]:
    """Of an engine that runs: when it began by the wall clock of then, and by that of now."""
    note = instance.read_note(layout)
    if note is None or not note.started_ns:
        return
    with suppress(OSError, ValueError, StopIteration):
        stat = (root / "proc/stat").read_text(encoding="ascii")
        booted_s = next(int(x.split()[1]) for x in stat.splitlines() if x.startswith("btime "))
        fields = (root / f"proc/{note.pid}/stat").read_text(errors="replace").rpartition(")")[2]
        began_s = booted_s + int(fields.split()[19]) / os.sysconf("SC_CLK_TCK")
        ahead_s = began_s - note.started_ns / 1e9
        if not -_STARTS_WITHIN_S <= ahead_s <= _CLOCK_STEP_S:
            way = "forward" if ahead_s > 0 else "back"
            yield CLOCK_JUMPED.note(
                "clock", f"set {way} by about {abs(ahead_s):,.0f} s since the engine started",
                "have it slewed, not set: chrony's makestep with a limit; then start again",
            )  # fmt: skip


def _memory(root: Path) -> Iterator[Finding]:
    sizes = _sizes(root)
    total, free = sizes.get("SwapTotal", 0), sizes.get("SwapFree", 0)
    used = (total - free) / total if total else 0.0
    if used > _SWAP_USED_SHARE:
        yield SWAP_USED.note(
            "memory", f"{used:.0%} of the swap is used",
            "free memory, or swap less: sysctl vm.swappiness=1 (MemorySwapMax=0 in systemd)",
        )  # fmt: skip
    if _text(root, "proc/sys/vm/overcommit_memory") == "2":
        yield OVERCOMMIT_STRICT.note(
            "memory", "vm.overcommit_memory = 2: memory is refused before it is used up",
            "sysctl vm.overcommit_memory=0, or raise vm.overcommit_ratio",
        )  # fmt: skip
    pages = root / "sys/kernel/mm/transparent_hugepage"
    if _chosen(_text(pages, "enabled")) == _chosen(_text(pages, "defrag")) == "always":
        yield HUGE_PAGES.note(
            "memory", "huge pages are made for everybody, at once (enabled and defrag: always)",
            "echo madvise > /sys/kernel/mm/transparent_hugepage/defrag",
        )  # fmt: skip


def _network(root: Path) -> Iterator[Finding]:
    settings = root / "proc/sys/net/ipv4"
    words = _text(settings, "tcp_rmem").split()
    most = int(words[2]) if len(words) == 3 else _BUFFER_BYTES
    if most < _BUFFER_BYTES:
        yield TCP_BUFFERS.note(
            "network", f"a socket's receive buffer grows to {most / 2**20:.1f} MB at most",
            "sysctl net.ipv4.tcp_rmem='4096 131072 6291456'",
        )  # fmt: skip
    elif _text(settings, "tcp_moderate_rcvbuf") == "0":
        yield TCP_BUFFERS.note(
            "network", "a socket's receive buffer does not grow",
            "sysctl net.ipv4.tcp_moderate_rcvbuf=1",
        )  # fmt: skip
    ports = _text(settings, "ip_local_port_range").split()
    count = int(ports[1]) - int(ports[0]) + 1 if len(ports) == 2 else _PORTS_LEAST
    if count < _PORTS_LEAST:
        yield PORTS_FEW.note(
            "network", f"{count:,} ports for outgoing connections",
            "sysctl net.ipv4.ip_local_port_range='32768 60999'",
        )  # fmt: skip


def _sizes(root: Path) -> dict[str, int]:
    """`/proc/meminfo`, in kB."""
    lines = (line.split() for line in _text(root, "proc/meminfo").splitlines())
    return {words[0].rstrip(":"): int(words[1]) for words in lines if len(words) > 1}


def _chosen(text: str) -> str:
    """The word in brackets."""
    return text.partition("[")[2].partition("]")[0]


def _text(root: Path, file: str) -> str:
    try:
        return (root / file).read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
