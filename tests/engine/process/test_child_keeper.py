"""One child and its keeper: what the keeper cannot handle ends the child, never the watch."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from engine.messages.pipes import FromChild, Ready
from engine.messages.settings import ControlSettings, LogSettings
from engine.process.child import Child
from engine.process.child_keeper import ChildKeeper
from tests.engine.supervisor.test_supervisor import FAKES
from tests.waiting import until


def keep(
    tmp_path: Path,
    scenario: Callable[[ChildKeeper], Awaitable[None]],
    on_message: Callable[[FromChild], None] = lambda _: None,
    on_death: Callable[[str], None] = lambda _: None,
    on_fault: Callable[[str, BaseException], None] = lambda *_: None,
) -> None:
    settings = ControlSettings("127.0.0.1", 0, LogSettings(str(tmp_path / "log"), to_stderr=False))
    keeper = ChildKeeper(
        name="control",
        spawn=lambda: Child.spawn("control", f"{FAKES}:control", settings),
        on_message=on_message,
        on_death=on_death,
        on_fault=on_fault,
    )

    async def main() -> None:
        try:
            await scenario(keeper)
        finally:
            keeper.kill()
            await keeper.leave(1.0, 1.0)

    asyncio.run(main())


@pytest.mark.fault("S13")
@pytest.mark.whole
def test_child_that_says_what_nobody_can_handle_is_killed_and_replaced(tmp_path: Path) -> None:
    lives = 0

    def handle(message: FromChild) -> None:
        nonlocal lives
        lives += isinstance(message, Ready)
        if lives == 2:
            raise OSError(28, "No space left on device")

    async def scenario(keeper: ChildKeeper) -> None:
        await keeper.start(20)
        assert keeper._child is not None
        keeper._child.kill()
        await until(lambda: lives == 3 and keeper.report.state == "up")
        assert keeper.report.restart_count == 2

    keep(tmp_path, scenario, on_message=handle)


@pytest.mark.whole
def test_child_that_dies_as_soon_as_it_is_ready_did_start(tmp_path: Path) -> None:
    """What ended it is noticed before whoever waits for the start has its turn."""
    keepers: list[ChildKeeper] = []

    def die(message: FromChild) -> None:
        if isinstance(message, Ready) and not keepers[0].report.restart_count:
            assert keepers[0]._child is not None
            keepers[0]._child.kill()
            keepers[0].ready.clear()

    async def scenario(keeper: ChildKeeper) -> None:
        keepers.append(keeper)
        await keeper.start(60)
        await until(lambda: keeper.report.restart_count == 1 and keeper.report.state == "up")

    keep(tmp_path, scenario, on_message=die)


@pytest.mark.whole
def test_keeper_that_fails_says_so_and_still_leaves_in_order(tmp_path: Path) -> None:
    faults: list[str] = []

    def stumble(reason: str) -> None:
        raise ValueError(reason)

    async def scenario(keeper: ChildKeeper) -> None:
        await keeper.start(20)
        assert keeper._child is not None
        keeper._child.kill()
        await until(lambda: faults)
        assert faults == ["control: killed by SIGKILL"]
        assert keeper.report.state == "ended"
        await keeper.leave(1.0, 1.0)

    keep(
        tmp_path, scenario, on_death=stumble,
        on_fault=lambda name, error: faults.append(f"{name}: {error}"),
    )  # fmt: skip
