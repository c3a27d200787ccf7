"""A suite as `fts bench` runs it: what is printed, what is kept, and who else can read that."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bench import suite
from bench.results import Run, costs, read
from tests.bench.made_up import entry, run_of

ROOT = Path(__file__).parents[2]


def run(*command: str) -> "subprocess.CompletedProcess[str]":
    """As from a shell: pytest-benchmark measures nothing below a test run of many workers."""
    environment = {name: text for name, text in os.environ.items() if "PYTEST" not in name}
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.whole
def test_a_run_is_printed_kept_and_read_by_pytest_benchmark(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = run(
        "control.cli.main", "bench", "scale", "--quick", "-k", "copy and 1000 and not 10000",
        "--state-dir", str(tmp_path / "state"), "--out", str(tmp_path / "kept"), "--json",
        "--report", str(page),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "scale: 1 of 1  copy[1000]" in done.stderr
    (result,) = json.loads(done.stdout)["results"]
    assert result["name"] == "copy[1000]"
    assert result["budget_us"] == 0.2
    assert result["least_us"] > 0
    (kept,) = (tmp_path / "kept").iterdir()
    (cost,) = costs(read(kept)).values()
    assert cost.least * 1e6 == pytest.approx(result["least_us"], abs=1e-4)
    assert cost.yardsticks[0] > 1
    assert "copy[1000]" in page.read_text()
    compared = run("pytest_benchmark", "compare", str(kept), "--columns=min")
    assert compared.returncode == 0, compared.stderr
    assert "test_copy[1000]" in compared.stdout


def test_whole_engines_are_started_in_the_first_pass_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[Sequence[str]] = []

    def one_pass(*told: Any) -> Run:
        passes.append(told[-1])
        return run_of(entry("copy", [(1e-6, 500.0)]))

    monkeypatch.setattr(suite, "_one_pass", one_pass)
    assert suite.main(["run", "scale", "--json", "--state-dir", str(tmp_path)]) == suite.FINE
    first, *others = passes
    assert list(first) == []
    assert len(others) == suite.MANNERS["scale"].passes - 1
    for left_out in others:
        assert left_out == suite.MANNERS["scale"].once
        assert all((ROOT / f"bench/scale/bench_{name}.py").exists() for name in left_out)
