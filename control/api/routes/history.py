"""`/history`: how the engine did, for charts."""

from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from control.api.routes import Operation, Services
from control.http import requests
from control.http.errors import json_response
from control.state.history import Samples
from engine.base.clock import wall_ns
from engine.messages.judgement import RANK
from engine.messages.status import Light

Figures = list[float | None]

_SPANS = {"15m": (900, 1), "1h": (3600, 1), "24h": (86_400, 60)}
"""How long each is, and the width of a sample, in seconds."""
_LIGHTS = list(RANK)


class HistoryQuery(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`GET /history`: how far back, and only what began after a time that one has seen already."""

    span: Literal["15m", "1h", "24h"] = "1h"
    after_ms: Annotated[int, Meta(ge=0, le=2**53)] = 0


class HistoryBody(msgspec.Struct):
    """Samples, oldest first, as a column for each figure; all are as long as `time_ms`. null is not
    known. Seconds and minutes in which nobody looked, or that are not over, are left out.
    """

    step_s: int
    """What a sample is of: a second up to an hour back, else a minute."""
    time_ms: list[int]
    """When it began, since 1970."""
    received_rows_per_s: Figures
    stored_rows_per_s: Figures
    published_rows_per_s: Figures
    latency_ms_p50: Figures
    """From reception to the committed row, of the rows of the minute before; of a minute, the mean
    of its seconds."""
    latency_ms_p99: Figures
    """The same; of a minute, the worst of its seconds."""
    backlog_rows: Figures
    """Rows that wait for the database that is furthest behind; of a minute, the most."""
    gap_count: list[int]
    """Gaps that were found in that time."""
    health: list[Light]
    """The verdict on the whole engine, the worst in that time."""


async def get_history(request: Request, services: Services) -> Response:
    """How the engine did for the last quarter of an hour, hour or day: rows, latencies, backlog,
    gaps and health. It is kept in memory, and begins anew when the control process does.
    """
    wanted = requests.query(request, HistoryQuery)
    span_s, step_s = _SPANS[wanted.span]
    begin_s = wall_ns() / 1e9 - span_s
    since_s = max(begin_s, wanted.after_ms / 1e3 + 1e-3)
    return json_response(_body(services.backend.history.samples(step_s, since_s), step_s))


def _body(samples: Samples, step_s: int) -> HistoryBody:
    def figures(name: str, per: float = 1.0) -> Figures:
        rounded: Figures = np.round(samples[name] / per, 2).tolist()
        return rounded  # JSON has no NaN: it becomes null

    return HistoryBody(
        step_s=step_s,
        time_ms=(samples["at_s"] * 1000).tolist(),
        received_rows_per_s=figures("received"),
        stored_rows_per_s=figures("stored"),
        published_rows_per_s=figures("published"),
        latency_ms_p50=figures("latency_p50", 1e3),
        latency_ms_p99=figures("latency_p99", 1e3),
        backlog_rows=figures("backlog"),
        gap_count=samples["gaps"].astype(int).tolist(),
        health=[_LIGHTS[rank] for rank in samples["health"].tolist()],
    )


OPERATIONS = [
    Operation(
        "GET", "/history", get_history, "How the engine did, up to a day back",
        {200: (HistoryBody,)}, query=HistoryQuery,
    ),
]  # fmt: skip
