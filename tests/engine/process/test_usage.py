"""Memory in use: what there is now, not what there once was."""

import mmap
import os
import subprocess
import sys

import pytest

from engine.process.usage import resident_bytes

_SIZE = 64 << 20


def test_memory_that_was_given_back_is_not_counted() -> None:
    before = resident_bytes()
    block = mmap.mmap(-1, _SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE)
    most = resident_bytes()
    block.close()
    assert most > before + _SIZE // 2
    assert resident_bytes() < most - _SIZE // 2


@pytest.mark.whole
def test_any_process_can_be_asked_and_one_that_is_gone_uses_nothing() -> None:
    assert resident_bytes(os.getpid()) > 0
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE
    ) as child:
        assert resident_bytes(child.pid) > 0
    assert resident_bytes(child.pid) == 0
