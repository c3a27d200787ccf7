"""Whether two versions understand each other: what their processes say, and what is in the rings.

A process of one version may run beside others that another one has started. Both must mean the same
by every message, and by every record. A field that one of them does not know does no harm: it is
left out, or has its default.
"""

from typing import Any, Final

import msgspec

from engine.data.kind import LAYOUT_VERSION
from engine.data.kinds import KINDS
from engine.data.ring import VERSION
from engine.messages.pipes import FromChild, ToChild
from engine.messages.settings import ControlSettings, ShardSettings, WriterSettings
from engine.messages.status import EngineStatus
from engine.messages.upkeep import UpkeepSettings

_SAID: Final = (
    ToChild, FromChild, EngineStatus,
    ControlSettings, ShardSettings, WriterSettings, UpkeepSettings,
)  # fmt: skip
_MAY_DIFFER: Final = frozenset({"description", "properties", "required"})
"""Of a schema: words, and what is compared field by field."""


PROTOCOL: Final = 1
"""Higher where processes of two versions cannot run together though all that they say looks alike:
what is in a state directory or in shared memory means something else, or they act on each other
in another order.
"""


class Language(msgspec.Struct):
    """Of one version: JSON schemas by the name of their type, the records' fields by kind, and the
    numbers of what has one.
    """

    said: dict[str, dict[str, Any]]
    records: dict[str, str]
    numbers: dict[str, int] = {}


def language(*others: type) -> Language:
    """That of the code which runs this; `others` are said as well."""
    whole, said = msgspec.json.schema_components((*_SAID, *others))
    said |= {f"message {place}": schema for place, schema in enumerate(whole)}
    records = {kind: str(spec.dtype.descr) for kind, spec in KINDS.items()}
    numbers = {"the protocol": PROTOCOL, "rings": VERSION, "kinds of records": LAYOUT_VERSION}
    return Language(said, records, numbers)


def differences(ours: Language, theirs: Language) -> list[str]:
    """What a process of the one would not understand of the other; nothing where they can run
    together.
    """
    found = [f"record {kind}" for kind in ours.records if theirs.records.get(kind) is None]
    common = ours.records.keys() & theirs.records.keys()
    found += [f"record {kind}" for kind in common if ours.records[kind] != theirs.records[kind]]
    found += [f"record {kind}" for kind in theirs.records.keys() - ours.records.keys()]
    found += [
        f"{name} ({theirs.numbers.get(name, 0)}, and {number} runs)"
        for name, number in ours.numbers.items()
        if theirs.numbers.get(name) != number
    ]
    for name, schema in ours.said.items():
        other = theirs.said.get(name)
        if other is None or not _means_the_same(schema, other):
            found.append(name)
    return sorted(found)


def _means_the_same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    if _rest(one) != _rest(other):
        return False
    fields, others = one.get("properties", {}), other.get("properties", {})
    unshared = fields.keys() ^ others.keys()
    needed = {*one.get("required", ()), *other.get("required", ())}
    common = fields.keys() & others.keys()
    return not unshared & needed and all(_plain(fields[n]) == _plain(others[n]) for n in common)


def _rest(schema: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in schema.items() if name not in _MAY_DIFFER}


def _plain(schema: dict[str, Any]) -> dict[str, Any]:
    """Without its default: each version has its own."""
    return {name: value for name, value in schema.items() if name != "default"}
