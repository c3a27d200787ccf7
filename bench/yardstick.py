"""A fixed piece of work, measured beside each benchmark: it tells a slower program from a slower
machine. Half of it is the interpreter's, half numpy's, as the work of the engine is. What it costs
is in `extra_info["yardstick_us"]` of each result; change it, and no older one can be compared.
"""

from time import process_time
from typing import Final

import numpy as np

_ROUNDS: Final = 7
_STEPS: Final = 4_000
_NUMBERS: Final = np.arange(40_000, dtype=np.float64)


def work() -> float:
    """About a millisecond."""
    counts: dict[int, int] = {}
    for number in range(_STEPS):
        place = number * 7919 & 1023
        counts[place] = counts.get(place, 0) + len(b"%d" % number)
    order = np.argsort(_NUMBERS[::-1] % 997, kind="stable")
    return float(_NUMBERS[order].cumsum()[-1]) + len(counts)


def cost_s() -> float:
    """CPU time of the piece of work: the least of some rounds, as whatever disturbs one adds."""
    costs = []
    for _ in range(_ROUNDS):
        began_s = process_time()
        work()
        costs.append(process_time() - began_s)
    return min(costs)
