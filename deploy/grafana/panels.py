"""Dashboards of Grafana as data: what a panel asks, in which unit, where yellow and red begin.

A `Board` becomes JSON by `as_json`. The fields are those of Grafana's classic dashboard model
(`schemaVersion` 39, Grafana 10 and newer), as its package `@grafana/schema` declares them.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

Look = Literal["stat", "timeseries", "table", "bargauge", "candlestick", "state-timeline"]
_COLUMNS: Final = 24
"""Of Grafana's grid."""
_SOURCES: Final = {
    "prometheus": {"type": "prometheus", "uid": "${metrics}"},
    "postgres": {"type": "postgres", "uid": "${ticks}"},
}
"""Variables, so that a dashboard works with sources that are there already; at first they are
those of `provisioning/datasources`.
"""


@dataclass(frozen=True)
class PromQl:
    """A question to Prometheus; `legend` names a series by its labels."""

    text: str
    legend: str = ""
    instant: bool = False
    """Of now alone, as tables and bars want it."""

    source = "prometheus"

    def target(self) -> dict[str, Any]:
        """As Grafana keeps it."""
        return {
            "expr": self.text,
            "legendFormat": self.legend,
            "instant": self.instant,
            "range": not self.instant,
            "format": "time_series",
        }


@dataclass(frozen=True)
class Sql:
    """A question to the database. A series has columns `time`, `metric` and one with its value."""

    text: str
    shape: Literal["table", "time_series"] = "table"

    source = "postgres"

    def target(self) -> dict[str, Any]:
        """As Grafana keeps it."""
        return {
            "rawSql": self.text,
            "rawQuery": True,
            "editorMode": "code",
            "format": self.shape,
        }


@dataclass(frozen=True)
class Panel:
    """One picture. All its queries have the same source."""

    title: str
    queries: Sequence[PromQl | Sql]
    says: str
    """What it means, for who asks; shown behind the title."""
    unit: str = "short"
    """A unit of Grafana's: `s`, `bytes`, `percentunit`, `ops`, …"""
    look: Look = "timeseries"
    limits: tuple[float, float] | None = None
    """Where yellow and red begin; the first is larger where little is bad."""
    words: Sequence[tuple[int, str, str]] = ()
    """Numbers that stand for words: number, word, colour."""
    width: int = 12
    height: int = 8

    @property
    def source(self) -> str:
        """Whom it asks."""
        return self.queries[0].source


@dataclass(frozen=True)
class Variable:
    """What the reader chooses: from the answers to a query, or from a list."""

    name: str
    label: str
    query: PromQl | Sql | Sequence[str]
    is_many: bool = False
    """Several at once, and all."""


@dataclass(frozen=True)
class Board:
    """A dashboard. Its panels fill rows from the left, in their order."""

    uid: str
    title: str
    says: str
    variables: Sequence[Variable]
    panels: Sequence[Panel]


def as_json(board: Board) -> str:
    """The file that Grafana reads."""
    sources = {panel.source for panel in board.panels}
    sources |= {
        each.query.source for each in board.variables if isinstance(each.query, PromQl | Sql)
    }
    variables = [_source_variable(source) for source in sorted(sources)]
    variables += [_variable(each) for each in board.variables]
    document = {
        "uid": board.uid,
        "title": board.title,
        "description": board.says,
        "tags": ["fintickstreams"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,  # the same moment in all panels
        "timezone": "utc",
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "links": [
            {"title": "fintickstreams", "type": "dashboards", "tags": ["fintickstreams"],
             "asDropdown": False, "icon": "dashboard", "includeVars": True, "keepTime": True,
             "targetBlank": False, "tooltip": ""},
        ],
        "templating": {"list": variables},
        "panels": list(_placed(board.panels)),
    }  # fmt: skip
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _placed(panels: Sequence[Panel]) -> Iterator[dict[str, Any]]:
    """Each where the row has room for it, else at the beginning of the next one."""
    x = y = tallest = 0
    for number, panel in enumerate(panels, 1):
        if x + panel.width > _COLUMNS:
            x, y, tallest = 0, y + tallest, 0
        place = {"x": x, "y": y, "w": panel.width, "h": panel.height}
        yield {"id": number, "gridPos": place, **_panel(panel)}
        x, tallest = x + panel.width, max(tallest, panel.height)


def _panel(panel: Panel) -> dict[str, Any]:
    source = _SOURCES[panel.source]
    return {
        "type": panel.look,
        "title": panel.title,
        "description": panel.says,
        "datasource": source,
        "targets": [
            {"refId": letter, "datasource": source, **query.target()}
            for letter, query in zip("ABCDEF", panel.queries, strict=False)
        ],
        "fieldConfig": {"defaults": _field(panel), "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True}}
        if panel.look in ("timeseries", "state-timeline")
        else {},
    }


def _field(panel: Panel) -> dict[str, Any]:
    field: dict[str, Any] = {
        "unit": panel.unit,
        "thresholds": {"mode": "absolute", "steps": _steps(panel.limits)},
        "mappings": [],
    }
    if panel.words:
        options = {
            str(number): {"index": number, "text": word, "color": colour}
            for number, word, colour in panel.words
        }
        field["mappings"] = [{"type": "value", "options": options}]
    if panel.look == "timeseries":
        mode = "off" if panel.limits is None else "dashed"
        field["custom"] = {"fillOpacity": 10, "thresholdsStyle": {"mode": mode}}
    return field


def _steps(limits: tuple[float, float] | None) -> list[dict[str, Any]]:
    """Colours from a value on; the first one has none."""
    if limits is None:
        return [{"value": None, "color": "green"}]
    yellow, red = limits
    if yellow <= red:
        colours = [(None, "green"), (yellow, "yellow"), (red, "red")]
    else:
        colours = [(None, "red"), (red, "yellow"), (yellow, "green")]
    return [{"value": value, "color": colour} for value, colour in colours]


def _source_variable(source: str) -> dict[str, Any]:
    name = _SOURCES[source]["uid"].strip("${}")
    ours = {"text": f"fintickstreams {name}", "value": f"fintickstreams-{name}"}
    return {"type": "datasource", "name": name, "label": name, "query": source, "current": ours}


def _variable(variable: Variable) -> dict[str, Any]:
    query = variable.query
    found: dict[str, Any] = {
        "name": variable.name,
        "label": variable.label,
        "multi": variable.is_many,
        "includeAll": variable.is_many,
    }
    if variable.is_many:
        found |= {"allValue": ".*", "current": {"text": "All", "value": "$__all"}}
    if isinstance(query, PromQl | Sql):
        # Anew with the time range: what streams there are changes.
        return found | {"type": "query", "datasource": _SOURCES[query.source], "refresh": 2,
                        "query": query.text, "sort": 1}  # fmt: skip
    first = query[0]
    options = [{"text": text, "value": text, "selected": text == first} for text in query]
    return found | {"type": "custom", "query": ",".join(query), "options": options,
                    "current": {"text": first, "value": first}}  # fmt: skip
