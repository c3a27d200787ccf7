"""What the dashboards of `deploy/grafana` ask, as Grafana does once their variables are chosen."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from deploy.grafana.__main__ import BOARDS
from deploy.grafana.panels import Sql


def queries(kind: type[Any]) -> Iterator[tuple[str, Any]]:
    """Title and query of each panel and variable that asks this source."""
    for board in BOARDS:
        for variable in board.variables:
            if isinstance(variable.query, kind):
                yield variable.name, variable.query
        for panel in board.panels:
            for query in panel.queries:
                if isinstance(query, kind):
                    yield panel.title, query


def sql_queries() -> Iterator[tuple[str, str]]:
    """Title and text of each in SQL: trades of a symbol, the last five minutes."""
    until = datetime.now(UTC)
    values = {
        "$__timeFrom()": f"'{(until - timedelta(minutes=5)).isoformat()}'",
        "$__timeTo()": f"'{until.isoformat()}'",
        "$__interval": "10s",
        "${venue:sqlstring}": "'binance_linear'",
        "${symbol:sqlstring}": "'BTCUSDT'",
        "${kind:sqlstring}": "'Trades'",
        "${width:sqlstring}": "'1 second'",
    }
    for title, query in queries(Sql):
        text: str = query.text
        for name, value in values.items():
            text = text.replace(name, value)
        yield title, text
