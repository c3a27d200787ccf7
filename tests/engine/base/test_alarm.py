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
