"""What the flush knobs may be, from the very types that check them when they are set."""

import msgspec
from msgspec.inspect import IntType, StructType, UnionType, type_info

from control.api.schemas import KnobsPatch
from engine.messages.streams import Knobs


class KnobRange(msgspec.Struct):
    """The smallest and the largest value of a knob, and what it is when nobody has set it."""

    min: int
    max: int
    default: int | None


def knob_ranges(configured: Knobs) -> dict[str, KnobRange]:
    """By name. `configured`: the values that null stands for."""
    patch = type_info(KnobsPatch)
    assert isinstance(patch, StructType)
    ranges = {}
    for field in patch.fields:
        choices = field.type.types if isinstance(field.type, UnionType) else (field.type,)
        for choice in choices:
            if isinstance(choice, IntType):
                assert choice.ge is not None
                assert choice.le is not None
                default = getattr(configured, field.name)
                ranges[field.name] = KnobRange(choice.ge, choice.le, default)
    return ranges
