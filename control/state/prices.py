"""Prices of the last day by the minute, from the database where that makes bars. Charts begin with
them; what happens now they have from the rings. A database that is away or slow costs a chart its
past, and nothing else.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

from engine.base.clock import monotonic_s, wall_ns
from engine.base.errors import EngineError

BARS_MAX: Final = 1440
_MINUTE_NS: Final = 60_000_000_000
_KEPT_S: Final = 20.0
"""So long an answer is everybody's: many viewers, or a page that reconnects, are one question."""
_SYMBOLS_MAX: Final = 16
"""Answers that are kept: some 3 MB at most."""

Bar = tuple[int, str, str, str, str, float, float]
"""Minute since 1970, open, high, low, close, volume, what takers bought."""
AskBars = Callable[[str, str, int, int], Awaitable[Sequence[Bar]]]
"""As `engine.database.bars.minute_bars`: venue, symbol, from which minute on, before which."""
Answer = tuple[Sequence[Bar], str]


class Prices:
    """Asks a database for one symbol after the other; `ask` is None where none makes bars."""

    def __init__(self, ask: AskBars | None = None) -> None:
        self._ask = ask
        self._answers: dict[tuple[str, str], tuple[float, Answer]] = {}
        self._turn = asyncio.Lock()

    @classmethod
    def of(cls, url: str) -> "Prices":
        """Of this database; of none where `url` is empty."""
        if not url:
            return cls()
        from engine.database.bars import minute_bars  # noqa: PLC0415 - memory that bars are worth

        return cls(partial(minute_bars, url))

    async def last_day(self, venue: str, symbol: str) -> Answer:
        """The bars of minutes that are over, oldest first, and why there are none; none and ""
        where no database makes bars.
        """
        if self._ask is None:
            return [], ""
        async with self._turn:
            answered_s, answer = self._answers.get((venue, symbol), (float("-inf"), ([], "")))
            if monotonic_s() - answered_s < _KEPT_S:
                return answer
            answer = await _answer(self._ask, venue, symbol)
            self._answers.pop((venue, symbol), None)
            self._answers[venue, symbol] = monotonic_s(), answer
            while len(self._answers) > _SYMBOLS_MAX:
                del self._answers[next(iter(self._answers))]
            return answer


async def _answer(ask: AskBars, venue: str, symbol: str) -> Answer:
    now = wall_ns() // _MINUTE_NS
    try:
        return await ask(venue, symbol, now - BARS_MAX, now), ""
    except EngineError as error:
        return [], str(error)
