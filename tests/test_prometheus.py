"""What `deploy/prometheus` offers: valid, alarming when it should, and about metrics that exist."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "deploy" / "prometheus"
PROMTOOL = shutil.which("promtool")


def test_rules_ask_for_metrics_that_exist() -> None:
    """tests/control/state/test_exposition.py holds the tables of docs/metrics.md against the real
    thing."""
    metrics = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    wanted = set(re.findall(r"fts_[a-z_]+", (FOLDER / "rules.yml").read_text(encoding="utf-8")))
    assert wanted
    assert {name for name in wanted if f"`{name}`" not in metrics} == set()


@pytest.mark.skipif(PROMTOOL is None, reason="no promtool (Debian: apt-get install prometheus)")
@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "scrape.yml"),
        ("check", "rules", "rules.yml"),
        ("test", "rules", "rules_test.yml"),
    ],
    ids=" ".join,
)
def test_promtool_accepts_and_tries_the_files(arguments: tuple[str, ...]) -> None:
    assert PROMTOOL is not None
    tried = subprocess.run(
        [PROMTOOL, *arguments], cwd=FOLDER, capture_output=True, text=True, timeout=60, check=False
    )
    assert tried.returncode == 0, tried.stdout + tried.stderr
