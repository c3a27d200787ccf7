"""The pipe between the supervisor and a child whose other end may be gone at any moment."""

import asyncio
import socket

import uvloop

from engine.messages.commands import Ready
from engine.process.pipe import child_channel


def test_a_child_whose_supervisor_is_gone_leaves_without_a_fault() -> None:
    async def main() -> None:
        theirs, ours = socket.socketpair()
        channel = await child_channel(ours)
        theirs.close()
        for _ in range(3):  # before and after the loss is noticed
            channel.send(Ready())
            await channel.flush()
            await asyncio.sleep(0)
        assert await channel.receive() is None
        await channel.flush()
        await channel.close()

    uvloop.run(main())
