"""Who has a stream while it passes from one process to the next, whoever dies in between."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import pytest

from engine.data.names import StreamKey, StreamKind
from engine.messages.pipes import ToChild
from engine.messages.streams import (
    DropStreams,
    ExpectStreams,
    InheritStream,
    ReleaseStreams,
    StreamInherited,
    StreamReleased,
    StreamsJoined,
    StreamSpec,
    StreamStatus,
    TakeBackStreams,
)
from engine.supervisor.succession import Succession
from tests.waiting import until

SLOTS = (1, 2, 3)
SPECS = {
    slot: StreamSpec(slot, StreamKey("acme", f"S{slot}", StreamKind.TRADES), life=1)
    for slot in SLOTS
}


class Processes:
    """Two shards that do as they are told, where the test lets them."""

    def __init__(self, **options: Any) -> None:
        self.old_has, self.new_has = set(SLOTS), set[int]()
        self.let_go: set[int] = set()
        self.expected: set[int] = set()
        self.passed: list[int] = []
        self.log: list[str] = []
        self.deaf: set[type] = set()
        """Messages that are not heard."""
        self.refuses: set[int] = set()
        self.not_running: set[int] = set()
        self.succession = Succession(self.to_old, self.to_new, self.sync, self.on_passed, **options)

    def on_passed(self, heir: StreamSpec, last: StreamStatus | None) -> bool:
        self.passed.append(heir.slot)
        return True

    async def sync(self, of_new: bool) -> None:
        self.log.append("sync new" if of_new else "sync old")
        await asyncio.sleep(0)

    def to_old(self, message: ToChild) -> None:
        if type(message) in self.deaf:
            return
        match message:
            case ReleaseStreams():
                for slot in message.slots:
                    if slot in self.not_running and not message.is_cold:
                        continue
                    said = None if slot in self.not_running else "{}"
                    self.let_go.add(slot)
                    if said is None:
                        self.old_has.discard(slot)
                    self.answer(StreamReleased(slot, None, said))
            case DropStreams():
                self.let_go -= set(message.slots)
                self.old_has -= set(message.slots)
            case TakeBackStreams():
                self.let_go -= set(message.slots)

    def to_new(self, message: ToChild) -> None:
        if type(message) in self.deaf:
            return
        match message:
            case ExpectStreams():
                self.expected = {spec.slot for spec in message.streams}
            case InheritStream():
                is_taken = message.slot not in self.refuses or message.said is None
                if is_taken:
                    self.new_has.add(message.slot)
                self.log.append(f"inherit {message.slot}")
                self.answer(StreamInherited(message.slot, is_taken))

    def answer(self, message: StreamReleased | StreamInherited) -> None:
        asyncio.get_running_loop().call_soon(self.succession.take, message)

    def join(self, slots: Iterable[int] = SLOTS) -> None:
        self.succession.take(StreamsJoined(list(slots)))

    @property
    def stored_by(self) -> dict[int, int]:
        """How many processes store each stream."""
        storing = {slot: slot in self.old_has - self.let_go for slot in SLOTS}
        return {slot: storing[slot] + (slot in self.new_has) for slot in SLOTS}


def run(scenario: Callable[[Processes], Awaitable[None]], **options: Any) -> Processes:
    async def main() -> Processes:
        processes = Processes(**options)
        processes.succession.begin(SPECS)
        await scenario(processes)
        return processes

    return asyncio.run(main())


def test_every_stream_passes_once_it_has_joined_and_its_rows_are_journalled() -> None:
    async def scenario(processes: Processes) -> None:
        processes.join([1, 2])
        running = asyncio.create_task(processes.succession.run())
        await until(lambda: processes.succession.over == 2)
        assert processes.stored_by == {1: 1, 2: 1, 3: 1}
        assert processes.old_has == {3}
        processes.join([3])
        await running

    processes = run(scenario)
    assert processes.new_has == set(SLOTS)
    assert processes.old_has == set()
    assert sorted(processes.passed) == list(SLOTS)
    assert processes.log.index("sync old") < processes.log.index("inherit 1")


def test_what_does_not_join_goes_back_and_is_asked_for_again() -> None:
    async def scenario(processes: Processes) -> None:
        processes.refuses = {2}
        processes.join()
        running = asyncio.create_task(processes.succession.run())
        await until(lambda: "inherit 2" in processes.log and not processes.let_go)
        assert processes.stored_by[2] == 1
        assert 2 in processes.old_has
        processes.refuses = set()
        processes.join([2])
        await running

    assert run(scenario).new_has == set(SLOTS)


def test_what_does_not_run_passes_without_a_word_after_a_while() -> None:
    async def scenario(processes: Processes) -> None:
        processes.not_running = {1}
        processes.join()
        await processes.succession.run()

    assert run(scenario, cold_after_s=0.1).new_has == set(SLOTS)


def test_what_has_failed_is_not_waited_for() -> None:
    async def scenario(processes: Processes) -> None:
        processes.join([1, 2])
        await processes.succession.run()

    assert run(scenario, has_failed=lambda slot: slot == 3).new_has == set(SLOTS)


@pytest.mark.parametrize("heard", [StreamReleased, StreamInherited])
def test_when_the_present_process_dies_the_next_one_has_everything(heard: type) -> None:
    async def scenario(processes: Processes) -> None:
        if heard is StreamReleased:  # dies before it has answered
            processes.deaf = {ReleaseStreams}
        processes.join([1, 2])
        running = asyncio.create_task(processes.succession.run())
        await until(lambda: heard is StreamReleased or processes.succession.over == 2)
        await asyncio.sleep(0)
        processes.old_has = set()
        processes.succession.old_died()
        await running

    processes = run(scenario)
    assert processes.new_has == set(SLOTS)
    assert processes.stored_by == dict.fromkeys(SLOTS, 1)


@pytest.mark.parametrize("deaf", [ReleaseStreams, InheritStream, DropStreams])
def test_when_the_next_process_dies_the_present_one_has_everything(deaf: type) -> None:
    """Before anything was released, after an offer nobody answered, after one that was taken."""

    async def scenario(processes: Processes) -> None:
        processes.deaf = {deaf}
        processes.join([1, 2])
        running = asyncio.create_task(processes.succession.run())
        if deaf is InheritStream:
            await until(lambda: processes.let_go == {1, 2} and "sync old" in processes.log)
        elif deaf is DropStreams:
            await until(lambda: processes.succession.over == 2)
        await asyncio.sleep(0.01)
        processes.new_has = set()
        processes.succession.died("killed")
        await running
        processes.deaf = set()
        lost = {heir.slot for heir in await processes.succession.give_back()}
        assert lost == (set() if deaf is ReleaseStreams else {1, 2})
        assert processes.let_go == set()
        assert processes.old_has == set(SLOTS) - lost, "the others begin anew from positions"

    assert "sync new" in run(scenario).log


def test_a_stream_that_is_removed_meanwhile_passes_nowhere() -> None:
    async def scenario(processes: Processes) -> None:
        processes.join([1, 2])
        processes.succession.forget(3)
        await processes.succession.run()

    assert run(scenario).new_has == {1, 2}
