"""Entry of a shard process: `shards.main:run`."""

import gc

from engine.messages.commands import Ready, ToChild
from engine.messages.settings import ShardSettings
from engine.process.pipe import Channel
from shards.shard import Shard


async def run(settings: ShardSettings, channel: Channel[ToChild]) -> int:
    """Attach the rings, say so, and serve. What exists now lives for ever: keep the garbage
    collector from walking it again and again.
    """
    shard = Shard(settings, channel)
    gc.collect()
    gc.freeze()
    channel.send(Ready())
    return await shard.run()
