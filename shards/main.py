"""Entry of a shard process: `shards.main:run`."""

import gc

from engine.messages.pipes import ToChild
from engine.messages.settings import ShardSettings
from engine.process.birth import ready
from engine.process.pipe import Pipe
from shards.shard import Shard


async def run(settings: ShardSettings, pipe: Pipe[ToChild]) -> int:
    """Attach the rings, say so, and serve. What exists now lives for ever: keep the garbage
    collector from walking it again and again.
    """
    shard = Shard(settings, pipe)
    gc.collect()
    gc.freeze()
    pipe.send(ready())
    return await shard.run()
