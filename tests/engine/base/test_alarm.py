"""An alarm loses no ring and keeps no waiter too long."""

import asyncio

from engine.base.alarm import Alarm


def test_ring_before_the_wait_counts_once() -> None:
    async def body() -> None:
        alarm = Alarm()
        alarm.ring()
        alarm.ring()
        assert await alarm.wait(10) is True
        assert await alarm.wait(0.001) is False

    asyncio.run(body())


def test_ring_wakes_the_waiter() -> None:
    async def body() -> None:
        alarm = Alarm()
        waiter = asyncio.create_task(alarm.wait())
        await asyncio.sleep(0)
        alarm.ring()
        assert await asyncio.wait_for(waiter, 5) is True

    asyncio.run(body())


def test_cancelled_wait_leaves_the_alarm_usable() -> None:
    async def body() -> None:
        alarm = Alarm()
        waiter = asyncio.create_task(alarm.wait(60))
        await asyncio.sleep(0)
        waiter.cancel()
        await asyncio.gather(waiter, return_exceptions=True)
        alarm.ring()
        assert await alarm.wait(0) is True

    asyncio.run(body())


async def wait_long_then_shortly(alarm: Alarm) -> None:
    waiter = asyncio.create_task(alarm.wait(3600))
    await asyncio.sleep(0)
    alarm.ring()
    assert await waiter is True
    async with asyncio.timeout(30):
        assert await alarm.wait(0.001) is False


def test_a_short_wait_after_a_long_one_ends_in_time() -> None:
    asyncio.run(wait_long_then_shortly(Alarm()))


def test_the_end_of_a_wait_that_is_over_ends_no_later_one() -> None:
    async def body() -> None:
        alarm, clock = Alarm(), Alarm()
        for seconds in (0.005, 3600):
            waiter = asyncio.create_task(alarm.wait(seconds))
            await asyncio.sleep(0)
            if seconds < 1:
                alarm.ring()
                assert await waiter is True
        assert await clock.wait(0.02) is False, "the first end has passed"
        assert not waiter.done()
        alarm.ring()
        assert await waiter is True

    asyncio.run(body())


def test_an_alarm_outlives_its_loop() -> None:
    alarm = Alarm()
    asyncio.run(wait_long_then_shortly(alarm))
    asyncio.run(wait_long_then_shortly(alarm))
