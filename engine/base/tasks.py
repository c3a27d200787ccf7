"""Work beside the task that runs: its end, the first of several, blocking work in a thread."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

Result = TypeVar("Result")


async def cancel(*tasks: "asyncio.Future[Any] | None") -> None:
    """Cancel these, and return when they have ended, however they did."""
    begun = [task for task in tasks if task is not None]
    for task in begun:
        task.cancel()
    await asyncio.gather(*begun, return_exceptions=True)


async def first_of(*waited: Awaitable[Any], timeout_s: float | None = None) -> None:
    """Return when one of these is done, or after `timeout_s`. Tasks among them go on; what was only
    waited for is cancelled.
    """
    tasks = [asyncio.ensure_future(each) for each in waited]
    try:
        await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await cancel(*(task for task, each in zip(tasks, waited, strict=True) if task is not each))


async def in_thread(work: Callable[[], Result], name: str) -> Result:
    """Run in a daemon thread: a server that accepts and never answers must not delay an exit."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def settle(result: list[Result], error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result[0])

    def run() -> None:
        result: list[Result] = []
        failure: BaseException | None = None
        try:
            result.append(work())
        except BaseException as error:  # noqa: BLE001 - handed over to whoever waits
            failure = error
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await future
