"""The upkeep under the supervisor: behind everything else, told to pause, reborn, never red."""

import os
import signal
from dataclasses import replace
from functools import partial

import msgspec
import pytest

from engine.data.layout import Layout
from engine.start.addresses import Secret
from engine.supervisor.spawning import SupervisorSettings
from tests.engine.supervisor.test_supervisor import Engine, run
from tests.waiting import until

pytestmark = pytest.mark.whole

URLS = {"database": Secret("postgresql:///none")}
GOOD = "all streams deliver"


def test_it_is_begun_last_and_reported(layout: Layout) -> None:
    async def scenario(engine: Engine) -> None:
        await engine.supervisor.start()
        await until(lambda: engine.supervisor.status().upkeep)
        status = engine.supervisor.status()
        assert status.upkeep[0].layout == "partitions"
        assert [child.name for child in status.children][-2:] == ["control", "upkeep"]
        assert engine.order("born")[-1] == "upkeep"
        assert await engine.supervisor.stop()
        assert "upkeep" in engine.order("drain")[:3]  # with the shards, before the writer

    run(layout, scenario, urls=URLS)


def test_where_there_is_no_database_there_is_no_upkeep(layout: Layout) -> None:
    async def scenario(engine: Engine) -> None:
        await engine.supervisor.start()
        status = engine.supervisor.status()
        assert status.upkeep_child is None
        assert engine.events("upkeep", "born") == []

    run(layout, scenario)


def test_its_death_is_yellow_and_it_is_born_again(layout: Layout) -> None:
    async def scenario(engine: Engine) -> None:
        supervisor = engine.supervisor
        await supervisor.start()
        await until(lambda: supervisor.status().upkeep and supervisor.status().status == "green")
        lights: set[tuple[str, str]] = set()

        def look(lives: int) -> bool:
            status = supervisor.status()
            lights.add((status.status, status.reason))
            return len(engine.events("upkeep", "born")) == lives and status.status == "green"

        for lives in (2, 3):  # the second death is the first that is waited after
            child = supervisor.status().upkeep_child
            assert child is not None
            os.kill(child.pid, signal.SIGKILL)
            await until(partial(look, lives))
        assert {light for light, _ in lights} == {"green", "yellow"}
        assert any("upkeep is restarting: killed by SIGKILL" in reason for _, reason in lights)
        assert not supervisor.failed.done()

    run(layout, scenario, urls=URLS)


def test_an_upgrade_gives_it_the_configuration_of_now(layout: Layout) -> None:
    async def keeps_a_week(settings: SupervisorSettings) -> SupervisorSettings:
        database = msgspec.structs.replace(settings.config.database, keep={"trade": "7d"})
        return replace(settings, config=msgspec.structs.replace(settings.config, database=database))

    async def scenario(engine: Engine) -> None:
        supervisor = engine.supervisor
        await supervisor.start()
        await until(lambda: supervisor.status().upkeep and supervisor.status().status == "green")
        assert supervisor.upgrade() == ""
        await until(lambda: len(engine.events("upkeep", "born")) == 2)
        first, second = (each["kept"] for each in engine.events("upkeep", "born"))
        assert (first, second) == (["{}"], ["{'trade': '7d'}"])
        await until(lambda: supervisor.status().upgrades == {"done": 1})

    run(layout, scenario, urls=URLS, renew=keeps_a_week)


def test_a_first_life_that_never_began_ends_no_engine(layout: Layout) -> None:
    async def scenario(engine: Engine) -> None:
        engine.part("stillborn-upkeep")
        await engine.supervisor.start()
        await until(lambda: engine.supervisor.status().upkeep)
        child = engine.supervisor.status().upkeep_child
        assert child is not None
        assert (child.state, child.restart_count) == ("up", 1)
        assert not engine.supervisor.failed.done()

    run(layout, scenario, urls=URLS)


def test_it_is_told_when_the_writer_is_behind_and_when_not(layout: Layout) -> None:
    async def scenario(engine: Engine) -> None:
        supervisor = engine.supervisor
        await supervisor.start()
        await until(lambda: supervisor.status().upkeep)

        def paused() -> list[bool]:
            return [event["paused"] for event in engine.events("upkeep", "pause")]

        await until(lambda: paused() == [False])
        (engine.layout.state_dir / "part.behind").touch()
        await until(lambda: paused() == [False, True])
        (engine.layout.state_dir / "part.behind").unlink()
        await until(lambda: paused() == [False, True, False])

    run(layout, scenario, urls=URLS)
