"""The pipe between the supervisor and a child whose other end may be gone at any moment."""

import asyncio
import os
import socket
import struct

import uvloop

from engine.messages.pipes import Ready
from engine.process.pipe import child_pipe, supervisor_pipe
from tests.waiting import until


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


def test_an_end_is_handed_on_to_the_byte() -> None:
    """Of what has come, a message was taken, one was not, and of the third there is half."""

    async def main() -> None:
        theirs, ours = socket.socketpair()
        child, pipe = await child_pipe(theirs), await supervisor_pipe(ours)
        for port in (1, 2, 3):
            child.send(Ready(port))
        assert await pipe.receive() == Ready(1)
        (size,) = struct.unpack("<I", pipe.unread[:4])
        whole = 2 * (4 + size)
        await until(lambda: len(pipe.unread) == whole)
        unread, fd = pipe.unread[:-5], os.dup(pipe.fileno())
        rest = pipe.unread[-5:]
        await pipe.close()
        heir = await supervisor_pipe(socket.socket(fileno=fd), unread, listens=False)
        theirs.setblocking(False)
        os.write(theirs.fileno(), rest)
        child.send(Ready(4))
        await child.flush()
        assert await heir.receive() == Ready(2)
        await asyncio.sleep(0)
        assert len(heir.unread) == len(unread) - 4 - size, "nothing is read before it listens"
        heir.listen()
        assert [await heir.receive(), await heir.receive()] == [Ready(3), Ready(4)]
        await child.close()
        assert await heir.receive() is None
        await heir.close()

    asyncio.run(main())


def test_a_flood_waits_in_the_kernel_until_it_is_taken() -> None:
    async def main() -> None:
        theirs, ours = socket.socketpair()
        child, pipe = await child_pipe(theirs), await supervisor_pipe(ours)
        count, release = 200, "x" * (1 << 16)
        for port in range(count):
            child.send(Ready(port, release))
        await until(lambda: len(pipe.unread) > 1 << 20)
        assert child.unsent_bytes > count * len(release) // 2
        assert [await pipe.receive() for _ in range(count)] == [
            Ready(port, release) for port in range(count)
        ]
        await child.close()
        await pipe.close()

    asyncio.run(main())
