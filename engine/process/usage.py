"""What a process uses right now, as the kernel counts it."""

import os
from pathlib import Path
from typing import Final

_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


def resident_bytes(pid: int | None = None) -> int:
    """Memory of a process (ours by default) that is in RAM, shared pages included; 0 when it is
    gone, and where there is no /proc.
    """
    try:
        text = Path(f"/proc/{pid or 'self'}/statm").read_text(encoding="ascii")
    except OSError:
        return 0
    return int(text.split()[1]) * _PAGE_BYTES
