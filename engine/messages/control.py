"""What the control process asks of the supervisor, and hears from it."""

from typing import Literal

import msgspec

from engine.data.names import StreamKey
from engine.messages.streams import KnobChanges, StreamRequest


class Heartbeat(msgspec.Struct, tag=True):
    """Control: its loop turns. The others say so with their status.

    It also judges what only it looks at (memory, open files, CPU, how long rows wait): its worst
    light goes into the engine's own, so that log, view and API say the same.
    """

    light: Literal["green", "yellow", "red"] = "green"
    reason: str = ""
    listings: dict[str, str] | None = None
    """Of every venue why this process has no listing yet, empty where it has sent one."""


class SystemStatus(msgspec.Struct, tag=True):
    """Control: the whole system in one message (`engine.messages.status.EngineStatus`), as JSON."""

    body: msgspec.Raw


class KeyResult(msgspec.Struct):
    """What became of one stream of a command. `error_kind` is machine readable, "" is success:
    `stream_exists`, `stream_not_found`, `not_offered`, `limit`, `unavailable` (the engine drains),
    `contradiction` (then `field` names the knob).
    """

    key: StreamKey
    error_kind: str = ""
    error: str = ""
    field: str = ""


class CommandResult(msgspec.Struct, tag=True):
    """Control: the answer to its command `request_id`."""

    request_id: int
    results: list[KeyResult]
    error: str = ""
    """Why a command that is about no stream was refused."""


class AddStreams(msgspec.Struct, tag=True):
    """Control: begin these streams; answered by `CommandResult` at once, their state tells how
    it goes.
    """

    request_id: int
    streams: list[StreamRequest]


class RemoveStreams(msgspec.Struct, tag=True):
    """Control: end these streams; answered by `CommandResult`."""

    request_id: int
    keys: list[StreamKey]


class SetKnobs(msgspec.Struct, tag=True):
    """Control: change knobs of one stream; answered by `CommandResult`. It carries the changes
    alone, so that two clients who change different knobs at a time both get what they want.
    """

    request_id: int
    key: StreamKey
    changes: KnobChanges


class RenewBook(msgspec.Struct, tag=True):
    """Control: take a fresh snapshot of a book now; answered by `CommandResult` when its shard has
    been told.
    """

    request_id: int
    key: StreamKey


class UpgradeEngine(msgspec.Struct, tag=True):
    """Control: replace the processes by those of the code and configuration on disk; answered by
    `CommandResult` when it has begun, or cannot.
    """

    request_id: int
