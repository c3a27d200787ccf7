"""The pipe between the supervisor and a child whose other end may be gone at any moment."""

import asyncio
import socket

import uvloop

from engine.messages.pipes import Ready
from engine.process.pipe import child_pipe


def test_a_child_whose_supervisor_is_gone_leaves_without_a_fault() -> None:
    async def main() -> None:
        theirs, ours = socket.socketpair()
        pipe = await child_pipe(ours)
        theirs.close()
        for _ in range(3):  # before and after the loss is noticed
            pipe.send(Ready())
            await pipe.flush()
            await asyncio.sleep(0)
        assert await pipe.receive() is None
        await pipe.flush()
        await pipe.close()

    uvloop.run(main())
