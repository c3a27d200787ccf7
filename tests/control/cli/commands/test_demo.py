"""What the demo says of itself: no advice that was followed already, nothing ignored unsaid."""

from pathlib import Path

import pytest

from control.cli.commands.demo import _rates_text, short_text, streams_note
from control.cli.ending import Ending
from control.cli.options import example_streams
from control.cli.terminal.summary import engine_summary
from engine.messages.status import ChildReport, EngineStatus, WriterReport
from engine.start.config import load


def test_a_demo_does_not_advise_what_was_done() -> None:
    child = ChildReport("writer", "up")
    status = EngineStatus("green", "", "stopped", "x", 3.0, [], WriterReport(child), child, [])
    ending = Ending.of(status, delivered=True)
    summary = engine_summary(status, ending) | {"sent": 0}
    without_database = short_text(summary, ending)
    assert "--for" not in without_database
    assert "that takes a database" in without_database


def test_a_demo_says_that_it_does_not_collect_the_configured_streams(tmp_path: Path) -> None:
    config = tmp_path / "fts.toml"
    config.write_text("[log]\nlevel = 'INFO'\n")
    defaults = example_streams()
    assert streams_note(load(config, {}, default_streams=defaults)) == ""
    config.write_text("[[streams]]\nvenue = 'binance_linear'\nsymbols = ['SOLUSDT']\n")
    note = streams_note(load(config, {}, default_streams=defaults))
    assert note.startswith(f"{config}: [[streams]] is for `fts up`")


@pytest.mark.fault("N28")
def test_a_demo_that_stored_nothing_has_no_rate() -> None:
    rates = {"seconds": None, "trades_per_s": None, "levels_per_s": None}
    assert _rates_text(rates) == "stored nothing"
