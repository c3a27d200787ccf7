"""Rigs for tests, cleaned up whatever happens."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.flow.rig import Rig


@pytest.fixture
def make_rig(database_url: str) -> Iterator[Callable[..., Rig]]:
    """Makes rigs on a fresh database."""
    rigs: list[Rig] = []
    directories: list[Path] = []

    def make(**options: Any) -> Rig:
        directories.append(Path(tempfile.mkdtemp(prefix="fts-rig-")))
        rigs.append(Rig(directories[-1], database_url, **options))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.close()
    for directory in directories:
        shutil.rmtree(directory)
