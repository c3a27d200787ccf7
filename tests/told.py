"""What a writer says, as a test wants it."""

from typing import Any, TypeVar

import msgspec

from engine.messages.status import WriterReport
from engine.messages.writer import WriterStatus

Writer = TypeVar("Writer", WriterReport, WriterStatus)


def telling(writer: Writer, **changes: Any) -> Writer:
    """The same with other words: `database_state`, `redis_error` and the like are the sinks'."""
    of_sinks: dict[str, dict[str, Any]] = {"database": {}, "redis": {}}
    for name in list(changes):
        sink, _, field = name.partition("_")
        if sink in of_sinks:
            of_sinks[sink][field] = changes.pop(name)
    sinks = [msgspec.structs.replace(writer.sink(name), **of_sinks[name]) for name in of_sinks]
    return msgspec.structs.replace(writer, sinks=sinks, **changes)
