"""Where an engine keeps its files, and the name that keeps engines apart."""

import fcntl
import os
import threading
from pathlib import Path

import pytest

from engine.base.errors import ConfigError, EngineError, InstanceBusyError
from engine.data.layout import Layout, open_layout
from engine.process import instance
from tests.engine.full_disk import full_at


def test_a_directory_has_one_name_whoever_opens_it_first(tmp_path: Path) -> None:
    found: list[Layout] = []
    start = threading.Barrier(8)

    def open_it() -> None:
        start.wait()
        found.append(open_layout(tmp_path / "state", tmp_path))

    threads = [threading.Thread(target=open_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert set(found) == {open_layout(tmp_path / "state", tmp_path)}
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["instance"]


def test_a_full_disk_leaves_no_empty_name_behind(tmp_path: Path) -> None:
    with full_at(5), pytest.raises(ConfigError, match="File too large"):
        open_layout(tmp_path / "state", tmp_path)
    assert len(open_layout(tmp_path / "state", tmp_path).instance) == 12


@pytest.mark.parametrize("body", [b"", b"\n", b"5f3a9c", b"\xff\xfe", b"../../../etc/a\n"])
def test_a_damaged_name_is_refused_because_engines_would_share_it(
    tmp_path: Path, body: bytes
) -> None:
    open_layout(tmp_path / "state", tmp_path)
    (tmp_path / "state" / "instance").write_bytes(body)
    with pytest.raises(EngineError, match="instance is damaged"):
        open_layout(tmp_path / "state", tmp_path)


@pytest.mark.fault("N24")
def test_a_name_that_is_no_text_is_refused_in_a_line_that_can_be_read(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    byte = len(os.fsencode(tmp_path)) + 5
    with pytest.raises(ConfigError) as refusal:
        open_layout(folder, tmp_path)
    shown = f"{tmp_path}/caf\\xe9"
    said = f"state directory {shown}: byte {byte} of that name is no UTF-8; choose another name"
    assert str(refusal.value) == said
    assert not folder.exists()


@pytest.mark.fault("N48")
def test_whoever_locks_the_directory_holds_nobody_up(tmp_path: Path) -> None:
    """As `flock DIR fts up` does."""
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    opening = threading.Thread(target=open_layout, args=(tmp_path, tmp_path), daemon=True)
    opening.start()
    opening.join(10)
    is_open = not opening.is_alive()
    os.close(fd)
    assert is_open


@pytest.mark.fault("N48")
def test_a_look_at_the_lock_keeps_no_engine_out(tmp_path: Path) -> None:
    layout = open_layout(tmp_path, tmp_path)
    layout.lock_file.touch()
    with layout.lock_file.open("rb") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        threading.Timer(0.05, lambda: fcntl.flock(looking, fcntl.LOCK_UN)).start()
        with instance.hold(layout):
            assert instance.is_held(layout)
            with (
                pytest.raises(InstanceBusyError, match=f"pid {os.getpid()}"),
                instance.hold(layout),
            ):
                pass
    assert not instance.is_held(layout)
