"""SIGKILL at any instant of a process's counting, from before its files exist."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.data.layout import open_layout
from engine.process import metric_files
from tests.engine.process.metric_rig import scrape
from tests.flow.processes import ROOT
from tests.flow.scraper import assert_buckets_rise, assert_no_step_back

LIVES = 16
COUNTED = 'fts_engine_process_loop_lag_seconds_count{process="shard-0"}'


@pytest.mark.fault("V09")
def test_no_kill_leaves_a_file_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    layout = open_layout(tmp_path / "state", tmp_path)
    metric_files.begin(layout)
    command = [sys.executable, "-m", "tests.engine.process.metric_writer"]
    seen: dict[str, float] = {}
    for life in range(LIVES):
        with subprocess.Popen(
            [*command, str(layout.state_dir), str(tmp_path)], stdout=subprocess.PIPE
        ) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == b"born\n"
                counted = seen.get(COUNTED, 0.0)
                if life % 4:
                    time.sleep(random.choice([0.0, 0.002, 0.005, 0.01, 0.02]))
                else:
                    while seen.get(COUNTED, 0.0) <= counted:
                        seen = judge(seen, scrape(layout))
            finally:
                process.kill()
        assert metric_files.readable(layout)[1] == 0
        seen = judge(seen, scrape(layout))
        metric_files.child_ended(layout, "shard-0")
    assert len(list(layout.metrics_dir.glob("*.db"))) <= 3


def judge(before: dict[str, float], found: dict[str, float]) -> dict[str, float]:
    """Nothing goes back, and histograms are whole."""
    assert_no_step_back(before, found)
    assert_buckets_rise(found)
    return found
