"""An upgrade with real processes that play their parts: what is replaced, in which order, and what
is left where one of them does not start.
"""

from collections.abc import Callable

import msgspec
import pytest

from engine.base.errors import ConfigError, EngineError
from engine.data.layout import Layout
from engine.messages.status import UpgradeReport
from engine.supervisor.estate import Estate
from engine.supervisor.spawning import SupervisorSettings
from engine.supervisor.supervisor import Supervisor
from tests.engine.supervisor.test_supervisor import Engine, no_child_survives, run
from tests.waiting import until

__all__ = ["no_child_survives"]

pytestmark = pytest.mark.whole


async def upgraded(supervisor: Supervisor) -> UpgradeReport:
    assert supervisor.upgrade() == ""
    assert supervisor.upgrade() == "the engine is being upgraded"
    with pytest.raises(EngineError, match="is being upgraded"):
        supervisor.reload(supervisor.settings)

    def ended() -> UpgradeReport | None:
        report = supervisor.status().upgrade
        return report if report is not None and report.state != "running" else None

    report = await until(ended)
    assert report is not None
    return report


def pids(supervisor: Supervisor) -> list[int]:
    return [child.pid for child in supervisor.status().children]


def rings(layout: Layout) -> set[str]:
    return {path.name.partition(".")[0] for path in layout.shm_dir.glob("*.ring")}


def test_every_process_is_replaced_and_counts_go_on(layout: Layout) -> None:
    async def scenario(engine: Engine) -> None:
        supervisor = engine.supervisor
        await supervisor.start()
        await until(lambda: supervisor.status().status == "green")
        before = pids(supervisor)
        report = await upgraded(supervisor)
        assert (report.state, report.reason) == ("done", "")
        assert report.passed_count == report.stream_count == 3
        assert not set(before) & set(pids(supervisor))
        status = supervisor.status()
        assert [shard.child.name for shard in status.shards] == ["shard-0b", "shard-1b"]
        assert {stream.process for stream in status.streams} == {"shard-0b", "shard-1b"}
        assert sum(child.restart_count for child in status.children) == 0, "nobody has died"
        assert not status.counts_are_least, "each had a last word"
        await until(lambda: {s.row_count for s in supervisor.status().streams} == {12})
        assert engine.order("makeway") == ["writer"]
        assert len(engine.events("shard-0b", "inherit") + engine.events("shard-1b", "inherit")) == 3
        assert (await upgraded(supervisor)).state == "done"
        assert [s.child.name for s in supervisor.status().shards] == ["shard-0", "shard-1"]
        assert supervisor.status().upgrades == {"done": 2}

    run(layout, scenario)


def test_a_program_that_cannot_be_executed_leaves_the_supervisor_what_it_has(
    layout: Layout,
) -> None:
    left: list[Estate] = []

    async def cannot(settings: SupervisorSettings, estate: Callable[[], Estate]) -> None:
        del settings
        left.append(msgspec.json.decode(msgspec.json.encode(estate()), type=Estate))
        raise EngineError("no such program")

    async def scenario(engine: Engine) -> None:
        supervisor = engine.supervisor
        await supervisor.start()
        await until(lambda: supervisor.status().status == "green")
        report = await upgraded(supervisor)
        assert (report.state, report.step) == ("failed", "supervisor")
        assert report.reason == "no such program"
        (estate,) = left
        keepers = [each.keeper for each in estate.shards] + [estate.writer.keeper, estate.control]
        assert [each.child.pid for each in keepers] == pids(supervisor)
        assert len(estate.streams.streams) == 3
        assert len(set(estate.fds)) == len(estate.fds) == 5
        await until(lambda: supervisor.status().status == "green")
        await until(lambda: {s.row_count for s in supervisor.status().streams} == {12})

    run(layout, scenario, hand_over=cannot)


def test_a_shard_that_does_not_start_leaves_all_as_it_was(layout: Layout) -> None:
    async def scenario(engine: Engine) -> None:
        supervisor = engine.supervisor
        await supervisor.start()
        await until(lambda: supervisor.status().status == "green")
        before, had = pids(supervisor), rings(layout)
        engine.part("refuse")
        report = await upgraded(supervisor)
        assert report.state == "failed"
        assert "did not start" in report.reason
        assert (pids(supervisor), rings(layout)) == (before, had)
        await until(lambda: supervisor.status().status == "green")

    run(layout, scenario)


def test_a_configuration_that_is_refused_touches_nothing(layout: Layout) -> None:
    async def no(settings: SupervisorSettings) -> SupervisorSettings:
        raise ConfigError("fts.toml: nonsense")

    async def scenario(engine: Engine) -> None:
        supervisor = engine.supervisor
        await supervisor.start()
        before = pids(supervisor)
        report = await upgraded(supervisor)
        assert (report.state, report.step) == ("failed", "trial")
        assert report.reason == "fts.toml: nonsense"
        assert pids(supervisor) == before

    run(layout, scenario, renew=no)
