"""What `deploy/prometheus` offers: valid, alarming when it should, and about metrics that exist."""

import argparse
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from control.cli.main import parser

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "deploy" / "prometheus"
RULES = (FOLDER / "rules.yml").read_text(encoding="utf-8")
RUNBOOK = (ROOT / "deploy" / "RUNBOOK.md").read_text(encoding="utf-8")
PROMTOOL = shutil.which("promtool")


def test_rules_ask_for_metrics_that_exist() -> None:
    """tests/control/state/test_exposition.py holds the tables of docs/metrics.md against the real
    thing."""
    metrics = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    wanted = set(re.findall(r"fts_[a-z_]+", RULES))
    assert wanted
    assert {name for name in wanted if f"`{name}`" not in metrics} == set()


def test_the_page_lists_every_alert() -> None:
    page = (ROOT / "docs" / "prometheus.md").read_text(encoding="utf-8")
    assert re.findall(r"`(Fintickstreams\w+)`", page) == re.findall(r"- alert: (\w+)", RULES)


def test_every_alert_has_its_section_in_the_runbook_and_no_other_has() -> None:
    alerts = re.findall(r"- alert: (\w+)", RULES)
    assert alerts == re.findall(r"^## (\w+)$", RUNBOOK, re.MULTILINE), "in the order of the rules"
    assert re.findall(r"runbook_url: (.+)", RULES) == [
        f"deploy/RUNBOOK.md#{alert.lower()}" for alert in alerts
    ]
    for alert, section in zip(alerts, re.split(r"^## \w+$", RUNBOOK, flags=re.M)[1:], strict=True):
        assert "\nfts " in section, f"{alert}: a command to begin with"
    assert set(re.findall(r"Fintickstreams\w+", RUNBOOK)) == set(alerts)


def test_commands_of_the_runbook_are_understood() -> None:
    blocks = re.findall(r"```sh\n(.*?)```", RUNBOOK, re.DOTALL)
    commands = [shlex.split(line, comments=True) for line in "".join(blocks).splitlines()]
    assert len(commands) > 20
    for program, *arguments in commands:
        assert program == "fts"
        options = argparse.Namespace()
        parser().parse_args(arguments, options)
        assert options.run is not None, arguments


@pytest.mark.whole
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
