"""The whole demo in a directory with a name that nobody would choose."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.data.layout import open_layout
from tests.flow.processes import Fts

pytestmark = [pytest.mark.flow, pytest.mark.timeout(180)]


@pytest.fixture
def top() -> Iterator[Path]:
    """Where also the account of root's private PostgreSQL can walk."""
    folder = Path(tempfile.mkdtemp(prefix="fts-flow-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.fault("N23")
@pytest.mark.parametrize("name", ['a "b" $c%d 币,é', f"it's\n{'l' * 120}"], ids=["signs", "long"])
def test_the_demo_proves_the_equation_wherever_it_lives(top: Path, name: str) -> None:
    directory = top / name
    fts = Fts("demo", "--for", "2", "--rate", "500", "--symbols", "1", "--json",
              "--state-dir", str(directory))  # fmt: skip
    try:
        code, output = fts.end()
    finally:
        fts.kill()
    summary = json.loads(output)
    assert code == 0, fts.log
    assert summary["ok"]
    assert summary["stored"] > 0
    assert summary["published"] > 0
    assert not open_layout(directory).shm_dir.exists()
    for far in ("postgres.socket", "valkey.socket"):
        Path((directory / far).read_text().partition("\n")[0]).rmdir()
