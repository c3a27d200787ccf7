"""The dashboards in `deploy/grafana`: as their generator makes them, and about what there is."""

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from deploy.grafana.__main__ import BOARDS, FOLDER, files
from deploy.grafana.panels import Panel, PromQl

ROOT = Path(__file__).parents[2]
PROVISIONING = ROOT / "deploy" / "grafana" / "provisioning"
PANELS = [panel for board in BOARDS for panel in board.panels]


def test_files_are_what_the_generator_writes() -> None:
    found = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.iterdir()}
    assert found == files(), "python -m deploy.grafana"


def test_queries_ask_for_metrics_that_exist() -> None:
    described = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    wanted = set(re.findall(r"fts_[a-z_]+", "".join(files().values())))
    bare = {re.sub(r"_bucket$", "", name) for name in wanted}
    assert len(bare) > 20
    assert {name for name in bare if f"`{name}`" not in described} == set()


@pytest.mark.parametrize("name", files())
def test_no_panel_lies_on_another_or_beyond_the_edge(name: str) -> None:
    places = [panel["gridPos"] for panel in json.loads(files()[name])["panels"]]
    assert all(each["x"] + each["w"] <= 24 for each in places)
    for one, other in combinations(places, 2):
        assert not (covers(one, other, "x", "w") and covers(one, other, "y", "h")), (one, other)


def covers(one: dict[str, int], other: dict[str, int], at: str, size: str) -> bool:
    """Whether two panels share a part of one axis."""
    return one[at] < other[at] + other[size] and other[at] < one[at] + one[size]


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_every_variable_that_is_asked_for_can_be_chosen(board: Any) -> None:
    texts = [query.text for panel in board.panels for query in panel.queries]
    texts += [each.query.text for each in board.variables if hasattr(each.query, "text")]
    asked = set(re.findall(r"\$\{?(?!__)([a-z]+)", "".join(texts)))
    assert asked <= {variable.name for variable in board.variables}
    assert {"venue", "kind"} <= {variable.name for variable in board.variables}


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.title)
def test_sql_takes_what_is_chosen_as_text_and_nothing_else(panel: Panel) -> None:
    for query in panel.queries:
        if not isinstance(query, PromQl):
            assert set(re.findall(r"\$\{\w+(.*?)\}", query.text)) <= {":sqlstring"}
            assert set(re.findall(r"\$(\w+)", query.text)) <= {
                "__timeFrom",
                "__timeTo",
                "__interval",
            }


def test_addresses_and_secrets_come_from_the_environment() -> None:
    text = (PROVISIONING / "datasources" / "fintickstreams.yml").read_text(encoding="utf-8")
    for key in ("url", "user", "database", "sslmode", "password"):
        (value,) = re.findall(rf"^ +{key}: (.+)$", text.replace("$FTS_PROMETHEUS_URL", ""), re.M)
        assert re.fullmatch(r"\$FTS_[A-Z_]+", value), key
    assert set(re.findall(r"uid: (\S+)", text)) == set(
        re.findall(r'"value": "(fintickstreams-[a-z]+)"', "".join(files().values()))
    )
