"""Whether two versions understand each other: what their processes say, and what is in the rings.

A process of one version may run beside others that another one has started. Both must mean the same
by every message, and by every record.
"""

import hashlib

import msgspec

from engine.data.kinds import KINDS
from engine.messages.pipes import FromChild, ToChild
from engine.messages.settings import ControlSettings, ShardSettings, WriterSettings
from engine.messages.status import EngineStatus
from engine.messages.upkeep import UpkeepSettings

_SAID = (
    ToChild, FromChild, EngineStatus,
    ControlSettings, ShardSettings, WriterSettings, UpkeepSettings,
)  # fmt: skip


def fingerprint() -> str:
    """The same for versions whose processes can run together."""
    _, said = msgspec.json.schema_components(_SAID)
    for each in said.values():
        each.pop("description", None)  # words change no meaning
    records = {kind: str(spec.dtype.descr) for kind, spec in KINDS.items()}
    text = msgspec.json.encode([said, records], order="deterministic")
    return hashlib.sha256(text).hexdigest()[:16]
