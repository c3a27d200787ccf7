"""A sender and who receives from it, in processes of their own."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).resolve().parents[2]
_PATIENCE_S: Final = 120.0
"""On a machine that has much else to do."""


def received(module: str, arguments: Sequence[str], count: int, rate: float) -> bytes:
    """What a program of `bench.peers` prints that is started with these arguments, the URL of a
    sender, and the number of trades that comes from there.
    """
    sending = [*_python("sender"), "--count", str(count), "--rate", str(rate)]
    with subprocess.Popen(sending, stdout=subprocess.PIPE, cwd=_ROOT) as sender:
        try:
            assert sender.stdout is not None
            port = int(sender.stdout.readline())
            command = [*_python(module), *arguments, f"ws://127.0.0.1:{port}/ws", str(count)]
            done = subprocess.run(
                command, stdout=subprocess.PIPE, cwd=_ROOT, check=True, timeout=_PATIENCE_S
            )
        finally:
            sender.kill()
    return done.stdout


def _python(module: str) -> list[str]:
    return [sys.executable, "-m", f"bench.peers.{module}"]
