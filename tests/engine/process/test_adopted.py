"""Children that another program of this process has started."""

import signal
import subprocess
import sys

import pytest

from engine.process.child import AdoptedProcess

_PATIENCE_S = 30.0


def child() -> "subprocess.Popen[bytes]":
    """One that ends with 7 when its standard input does."""
    script = "import sys; sys.stdin.read(); sys.exit(7)"
    return subprocess.Popen([sys.executable, "-S", "-c", script], stdin=subprocess.PIPE)


def test_it_is_waited_for_and_reaped_once() -> None:
    process = child()
    adopted = AdoptedProcess(process.pid)
    assert adopted.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        adopted.wait(0.0)
    assert process.stdin is not None
    process.stdin.close()
    assert (adopted.wait(_PATIENCE_S), adopted.poll()) == (7, 7)
    adopted.send_signal(signal.SIGKILL)  # nobody has that id any more, or a stranger
    process.returncode = 7


def test_how_it_was_killed_is_known() -> None:
    with child() as process:
        adopted = AdoptedProcess(process.pid)
        adopted.send_signal(signal.SIGTERM)
        assert adopted.wait(_PATIENCE_S) == -signal.SIGTERM
        process.returncode = -signal.SIGTERM


def test_of_whom_somebody_else_has_reaped_nobody_knows_how_he_ended() -> None:
    with child() as process:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(_PATIENCE_S)
        assert AdoptedProcess(process.pid).wait(_PATIENCE_S) == 0
