"""Every row of a ring counts once for Redis, in whatever order outages and rows come."""

import asyncio
import logging
from collections.abc import Collection, Mapping

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.base.backoff import Backoff
from engine.base.errors import RedisUnavailableError
from engine.data.layout import SourceKey, open_layout
from engine.messages.streams import Knobs
from engine.writer import consumer as delivery_module
from engine.writer.live import Live
from engine.writer.rows.knob_table import KnobTable
from engine.writer.rows.slice import Batch
from engine.writer.sinks.sink import Cursor, Promise, Sink, Taken
from tests.engine.writer.conftest import MakeSettings, MakeTrades
from tests.engine.writer.ring_bench import Bench, assert_counted_once, deliver
from tests.waiting import until

UNPUBLISHED = Knobs(redis_publishes_enabled=False)


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of outages are not to be read by anybody."""
    monkeypatch.setattr(delivery_module, "_log", logging.Logger("quiet", logging.CRITICAL))


class ScriptedSink(Sink):
    """A Redis in a few lines: it can be away, refuse, lose its answer, and lose its memory."""

    name = "redis"
    promise = Promise.LIVE

    def __init__(self) -> None:
        self.does = "works"
        self.cursor_of: dict[SourceKey, int] = {}
        self.ids: list[int] = []
        self._saved: tuple[dict[SourceKey, int], list[int]] = {}, []

    def save(self) -> None:
        self._saved = dict(self.cursor_of), list(self.ids)

    def restore(self) -> None:
        self.cursor_of, self.ids = dict(self._saved[0]), list(self._saved[1])
        self.does = "refuses"  # whoever was connected notices

    def flush(self) -> None:
        self.cursor_of, self.ids = {}, []
        self.does = "refuses"

    async def open(self, drained: Mapping[SourceKey, int]) -> Collection[SourceKey]:
        await asyncio.sleep(0)
        if self.does == "is away":
            raise RedisUnavailableError("connection refused")
        return ()

    async def close(self) -> None:
        pass

    @property
    def refuses(self) -> str:
        return "WRONGTYPE" if self.does == "refuses a key" else ""

    async def cursors(self, starts: Mapping[SourceKey, int]) -> Mapping[SourceKey, Cursor]:
        found = {key: Cursor(self.cursor_of.get(key)) for key in starts}
        self.cursor_of = dict(starts) | self.cursor_of
        return found

    async def take(self, batch: Batch, *, durable: bool) -> Taken:
        await asyncio.sleep(0)
        if self.does in ("refuses", "is away"):
            raise RedisUnavailableError("READONLY")
        taken = Taken()
        for part in batch.slices:
            self.cursor_of[part.source] = part.end_seq
            ids = part.records["trade_id"].tolist()
            if self.does == "refuses a key":
                taken.refused["trade"] += sum(n % 4 == 1 for n in ids)
                ids = [n for n in ids if n % 4 != 1]
            self.ids += ids
        if self.does == "loses its answer":
            self.does = "works"
            raise RedisUnavailableError("connection lost")
        return taken


STEPS = st.one_of(
    st.tuples(st.just("receive"), st.integers(1, 2_000)),
    st.tuples(
        st.sampled_from(
            ["works", "is away", "refuses", "loses its answer", "refuses a key", "flush", "save",
             "restore", "hide", "show"]
        ),
        st.just(0),
    ),
)  # fmt: skip


@pytest.mark.fault("N26")
@pytest.mark.fault("R01")
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=st.lists(STEPS, max_size=20))
@pytest.mark.whole
def test_every_row_counts_once_whatever_happens(
    tmp_path_factory: pytest.TempPathFactory,
    make_settings: MakeSettings,
    trades: MakeTrades,
    steps: list[tuple[str, int]],
) -> None:
    folder = tmp_path_factory.mktemp("equation")
    bench = Bench(open_layout(folder / "state", folder / "shm"))
    knobs, sink = KnobTable(make_settings(flush_rows=500)), ScriptedSink()
    delivery = Live(bench.sources, sink, knobs, Backoff(1e-4, 1e-4))
    received = 0

    def check() -> None:
        delivery.note_missed()
        assert_counted_once(delivery, received)

    async def body() -> None:
        nonlocal received
        for what, count in steps:
            if what == "receive":
                bench.put(trades(count, first_id=received))
                received += count
                delivery.rows_arrived()
            elif what in ("flush", "save", "restore"):
                getattr(sink, what)()
            elif what in ("hide", "show"):
                knobs.set({2: UNPUBLISHED} if what == "hide" else {})
            else:
                sink.does = what
            for _ in range(6):
                await asyncio.sleep(0)
            check()
        sink.does = "works"
        delivery.rows_arrived()
        await until(lambda: delivery.is_idle and delivery.trouble.text != "READONLY")

    try:
        deliver(delivery, body)
        check()
    finally:
        bench.close()
    assert delivery.backlog_rows == 0
    if not {"restore", "flush"} & {what for what, _ in steps}:
        assert len(sink.ids) == len(set(sink.ids)) == delivery.rows["trade"]
