"""`/health`, `/limiters`, `/metrics`: how the engine is."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from control.api.routes import Operation, Services, optional_venue
from control.api.schemas import ExchangeChoice, LimiterRow, TopStreams, row_of
from control.http import requests
from control.http.errors import ApiError, json_response
from control.state.exposition import MEDIA_TYPES, Exposition, encode
from control.state.health import HealthLight, ProcessReport
from control.state.stream_metrics import StreamMetrics
from engine.messages.account import Moves
from engine.messages.judgement import judge_one_database
from engine.messages.status import ChildReport, Light, ShardReport, WriterReport
from engine.messages.upkeep import DatabaseReport
from engine.messages.writer import LIVE, SinkStatus


class Admittance(msgspec.Struct):
    """Whether new streams are accepted now."""

    policy: str
    accepts: bool
    reason: str


class DatabaseState(msgspec.Struct):
    """One of the databases; the default, `database`, comes first. Rows are of all kinds, since the
    engine started; `elsewhere_rows` are those that the routes give to another one.
    """

    name: str
    status: Light
    reason: str
    state: str
    error: str
    stored_rows: int
    elsewhere_rows: int
    lost_rows: int
    quarantine_rows: int
    backlog_rows: int
    flush_delay_s: float


class WriterHealth(msgspec.Struct):
    """The writer and its sinks. Rows are by record kind, since the engine started."""

    child: ChildReport
    received_rows: dict[str, int] = {}
    stored_rows: dict[str, int] = {}
    published_rows: dict[str, int] = {}
    overrun_rows: dict[str, int] = {}
    quarantined_rows: dict[str, int] = {}
    quarantine_rows: dict[str, int] = {}
    waits_for: str = ""
    dropped_rows: dict[str, int] = {}
    skipped_rows: dict[str, int] = {}
    unpublished_rows: dict[str, int] = {}
    inexact_rows: int = 0
    lost_rows: int = 0
    lost_by_kind: dict[str, int] = {}
    moves: dict[str, Moves] = {}
    journal_error: str = ""
    database_state: str = "starting"
    database_error: str = ""
    redis_state: str = "starting"
    redis_error: str = ""
    redis_bytes: int = 0
    redis_budget_bytes: int = 0
    backlog_rows: int = 0
    flush_delay_s: float = 0.0
    journal_bytes: int = 0
    rss_bytes: int = 0
    cpu_s: float = 0.0
    latency_us: dict[str, dict[str, float]] = {}
    recent_latency_us: dict[str, dict[str, float]] = {}
    taken_s: float = 0.0
    databases: list[DatabaseState] = []


WriterHealth.__name__ = "WriterReport"
"""Its name in the document, of which others have made code."""


class RuntimeHealth(msgspec.Struct):
    """The processes' light, and the verdict on the engine as a whole (`engine`): it is the worst of
    the three lights, where a red Redis weighs as yellow, the streams, and rows that are lost or set
    aside. Only the lights keep new streams out.
    """

    ok: bool
    status: Light
    reason: str
    engine: HealthLight
    phase: str
    instance: str
    uptime_s: float
    stream_count: int
    memory_free_fraction: float
    admission: Admittance
    processes: list[ProcessReport]
    shards: list[ShardReport]
    writer: WriterHealth | None
    control: ChildReport | None
    upkeep: list[DatabaseReport] = []


class SinkLight(msgspec.Struct):
    """A sink of the writer. Rows are since the engine started, latencies of the last minute."""

    ok: bool
    status: Light
    reason: str
    state: str
    error: str
    delivered_rows: int
    waiting_rows: int
    flush_delay_s: float
    latency_us: dict[str, float]


async def runtime_health(_: Request, services: Services) -> Response:
    """Processes, memory, file handles, event-loop lag."""
    backend = services.backend
    status, light = backend.status, backend.health.lights()["runtime"]
    refusal = backend.health.refusal(services.admissions.policy)
    return _shown(
        RuntimeHealth(
            ok=light.status == "green",
            status=light.status,
            reason=light.reason,
            engine=backend.verdict(),
            phase=status.phase if status else "starting",
            instance=status.instance if status else "",
            uptime_s=status.uptime_s if status else 0.0,
            stream_count=len(backend.streams),
            memory_free_fraction=round(backend.health.memory_free_fraction, 3),
            admission=Admittance(services.admissions.policy, not refusal, refusal),
            processes=backend.health.processes,
            shards=status.shards if status else [],
            writer=_writer(status.writer) if status else None,
            control=status.control if status else None,
            upkeep=status.upkeep if status else [],
        )
    )


def _writer(writer: WriterReport) -> WriterHealth:
    """In the words for two sinks that others know; rows are those of all databases together."""
    database, redis, total = writer.database, writer.sink("redis"), writer.database_rows
    return row_of(
        WriterHealth,
        writer,
        stored_rows=total(),
        published_rows=redis.rows,
        overrun_rows=redis.missed_rows,
        quarantined_rows=total("refused_rows"),
        quarantine_rows=total("set_aside_rows"),
        waits_for=next((e.waits_for for e in writer.databases if e.waits_for), ""),
        skipped_rows=total("withheld_rows"),
        unpublished_rows=redis.withheld_rows,
        inexact_rows=sum(each.inexact_rows for each in writer.databases),
        lost_rows=total("missed_rows").total(),
        lost_by_kind=total("missed_rows"),
        database_state=database.state,
        database_error=database.error,
        redis_state=redis.state,
        redis_error=redis.error,
        redis_bytes=redis.used_bytes,
        redis_budget_bytes=redis.budget_bytes,
        backlog_rows=max(each.backlog_rows for each in writer.databases),
        databases=[_database(writer, each) for each in writer.databases],
    )


def _database(writer: WriterReport, sink: SinkStatus) -> DatabaseState:
    light, reason = judge_one_database(writer, sink)
    return DatabaseState(
        name=sink.name,
        status=light,
        reason=reason,
        state=sink.state,
        error=sink.error,
        stored_rows=sum(sink.rows.values()),
        elsewhere_rows=sum(sink.elsewhere_rows.values()),
        lost_rows=sum(sink.missed_rows.values()),
        quarantine_rows=sum(sink.set_aside_rows.values()),
        backlog_rows=sink.backlog_rows,
        flush_delay_s=round(writer.flush_delays_s.get(sink.name, 0.0), 3),
    )


def _shown(health: RuntimeHealth | SinkLight) -> Response:
    """A light with all that is known; who only looks at the status code sees that it is red."""
    return json_response(health, 503 if health.status == "red" else 200)


def _of_sink(name: str, called: str, summary: str, text: str) -> Operation:
    """The light of a sink, which is called otherwise there than in the status."""

    async def health(_: Request, services: Services) -> Response:
        judge, status = services.backend.health, services.backend.status
        light, is_db = judge.lights()[called], called == "db"
        writer = status.writer if status else WriterReport(ChildReport("writer"))
        sink = writer.sink(name)
        return _shown(
            SinkLight(
                ok=light.status == "green",
                status=light.status,
                reason="not configured" if sink.state == "off" else light.reason,
                state=sink.state,
                error=sink.error,
                delivered_rows=writer.database_rows().total() if is_db else sum(sink.rows.values()),
                waiting_rows=max(e.backlog_rows for e in writer.databases) if is_db else 0,
                flush_delay_s=round(judge.flush_delay_s, 3) if is_db else 0.0,
                latency_us=writer.recent_latency_us.get(name, {}),
            )
        )

    health.__name__, health.__doc__ = f"{name}_health", text
    answers = {200: (SinkLight,), 503: (SinkLight,)}
    return Operation("GET", f"/health/{called}", health, summary, answers)


async def limiters(request: Request, services: Services) -> Response:
    """Budgets of the exchanges and what is left of them."""
    venue = optional_venue(requests.query(request, ExchangeChoice).exchange)
    status = services.backend.status
    return json_response(
        [
            row_of(LimiterRow, each, remaining=max(each.budget - each.used, 0.0))
            for each in (status.limiters if status else [])
            if venue in (None, each.venue)
        ]
    )


async def show_metrics(request: Request, services: Services) -> Response:
    """Prometheus text or OpenMetrics, whichever `Accept` prefers. No process can break it."""
    accept = request.headers.get("accept")
    body, media_type = Exposition(services.backend).encode(accept)
    return Response(body, headers={"content-type": media_type})


async def show_stream_metrics(request: Request, services: Services) -> Response:
    """Of those with the most rows. Symbols are labels here; 404 where `metrics.streams` is off."""
    wanted = requests.query(request, TopStreams)
    if not services.shows_streams:
        raise ApiError("not_found", "metrics of single streams are off: set metrics.streams = true")
    collector = StreamMetrics(services.backend.streams.values(), wanted.top)
    body, media_type = encode(collector, request.headers.get("accept"))
    return Response(body, headers={"content-type": media_type})


OPERATIONS = [
    Operation(
        "GET", "/health/runtime", runtime_health, "The processes",
        {200: (RuntimeHealth,), 503: (RuntimeHealth,)},
    ),
    _of_sink("database", "db", "The database", "The databases: reachable, and not behind."),
    *(_of_sink(name, name, title, f"{title}: reachable.") for name, title, _ in LIVE),
    Operation(
        "GET", "/limiters", limiters, "Budgets of the exchanges", {200: (list[LimiterRow],)},
        query=ExchangeChoice,
    ),
    Operation(
        "GET", "/metrics", show_metrics, "Prometheus metrics", {200: ()},
        media_types=MEDIA_TYPES,
    ),
    Operation(
        "GET", "/metrics/streams", show_stream_metrics, "Prometheus metrics of single streams",
        {200: ()}, query=TopStreams, media_types=MEDIA_TYPES, errors=(404,),
    ),
]  # fmt: skip
