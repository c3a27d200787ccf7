"""The names that knobs have elsewhere, for clients that were written for those."""

from typing import Any, Final

from control.http.errors import ApiError
from engine.messages.streams import KNOB_OF_SINK

OPPOSITES: Final = {
    f"disable_{knob.removesuffix('_enabled')}": knob for knob in KNOB_OF_SINK.values()
}
BOUNDS: Final = ("chunk_rows", "hard_cap_rows")
"""How many rows may be in one statement, and wait in memory: here `max_rows_per_copy` is both, for
what waits longer is in the journal. Of two the smaller one counts."""


def in_our_words(changes: Any) -> Any:
    """A body of knobs with our names alone; what is no such body stays as it is. Raises ApiError
    (400) for a knob that is named twice, and for a value that cannot be turned round.
    """
    if not isinstance(changes, dict):
        return changes
    found = {name: value for name, value in changes.items() if name not in _ALL}
    for name, ours in OPPOSITES.items():
        if name in changes:
            if not isinstance(changes[name], bool):
                raise _wrong(name, f"{name}: Expected `bool`")
            _put(found, ours, not changes[name], name)
    given = [changes[name] for name in BOUNDS if name in changes]
    if given:
        numbers = [value for value in given if isinstance(value, int)]
        strange = [value for value in given if value is not None and value not in numbers]
        bound = strange[0] if strange else min(numbers, default=None)
        _put(found, "max_rows_per_copy", bound, next(name for name in BOUNDS if name in changes))
    return found


_ALL: Final = {*OPPOSITES, *BOUNDS}


def _put(found: dict[str, Any], ours: str, value: Any, name: str) -> None:
    if ours in found:
        raise _wrong(name, f"{name} and {ours} are the same knob: name one of them")
    found[ours] = value


def _wrong(name: str, text: str) -> ApiError:
    return ApiError("invalid_argument", text, field=name)
