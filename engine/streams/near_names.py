"""Symbols that somebody may have meant who wrote another one."""

import difflib
import re
from collections.abc import Iterable

_SIMILAR = 0.8
"""A wrong, a missing or a swapped letter in six. A common quote currency is not enough."""
_AS_GOOD = 0.07
"""What is farther behind the best is not what was meant."""
_MULTIPLIER = re.compile("^(10{2,}|k)(?=[A-Z])")


def near_names(symbol: str, known: Iterable[str], count: int = 3) -> list[str]:
    """The best first: the same but for case, signs and a multiplier; else what begins so; else what
    is spelled alike; else the beginning of it.
    """
    wanted = _bare(symbol)
    if not wanted:
        return []
    bare = {name: _bare(name) for name in known}
    same = [name for name, other in bare.items() if other == wanted]
    longer = [name for name, other in bare.items() if other.startswith(wanted)]
    longer.sort(key=lambda name: (len(bare[name]), name))
    shorter = [n for n, other in bare.items() if len(other) > 1 and wanted.startswith(other)]
    longest = [max(shorter, key=lambda name: len(bare[name]))] if shorter else []
    return (same or longer or _alike(wanted, bare, count) or longest)[:count]


def _alike(wanted: str, bare: dict[str, str], count: int) -> list[str]:
    by_bare = {other: name for name, other in bare.items()}
    found = difflib.get_close_matches(wanted, by_bare, n=count, cutoff=_SIMILAR)
    ratios = [difflib.SequenceMatcher(None, other, wanted).ratio() for other in found]
    return [
        by_bare[other]
        for other, ratio in zip(found, ratios, strict=True)
        if ratio >= ratios[0] - _AS_GOOD
    ]


def _bare(symbol: str) -> str:
    """Without what people leave out or add: `1000PEPEUSDT` and `pepe-usdt` are the same."""
    letters = "".join(letter for letter in symbol if letter.isalnum())
    return _MULTIPLIER.sub("", letters).upper()
