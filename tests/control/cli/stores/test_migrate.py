"""Which database `fts migrate` means."""

import json
from pathlib import Path

import pytest

from control.cli.addresses import make_note
from control.cli.ground import Ground, ServiceOptions
from control.cli.main import main
from engine.data.layout import open_layout
from engine.process import instance
from engine.start.addresses import Secret
from engine.start.config import load


@pytest.mark.whole
def test_the_private_database_of_an_engine_that_runs_is_migrated_beside_it(
    tmp_path: Path, empty_database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = open_layout(tmp_path / "state")
    urls = {"database": Secret(empty_database_url)}
    ground = Ground(ServiceOptions(load(None, {})), layout, urls)
    with instance.hold(layout):
        arguments = ["migrate", "--json", "--state-dir", str(layout.state_dir)]
        assert main(arguments) == 3, "it does not say yet where its database is"
        instance.write_note(layout, make_note(ground, "127.0.0.1", 1))
        assert main(arguments) == 0
        assert len(json.loads(capsys.readouterr().out)["applied"]) > 15
        assert main([*arguments, "--to", "timescaledb", "--dry-run"]) in (0, 1)
