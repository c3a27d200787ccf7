"""How late is a row at each stage: at rest, at work, and close to the most?"""

from collections.abc import Callable
from operator import itemgetter
from typing import Final

from pytest_benchmark.fixture import BenchmarkFixture

from bench.flow.latency import latency
from bench.flow.rig import Rig
from bench.flow.setups import Setup
from bench.flow.wording import latency_lines

SHARES: Final = {"1%": 0.01, "10%": 0.1, "50%": 0.5, "90%": 0.9}
"""Of the rate that is held."""
FIXED: Final = 20_000.0
"""Rows a second that any machine holds: what differs there is how late they are."""


def test_latency(
    benchmark: BenchmarkFixture, figure: Callable[[float], None], rig: Rig, quick: bool
) -> None:
    rates = _rates(rig.search[-1].rows_per_s, rig.setup)
    by_share = {
        name: latency(rig, rate, 5.0 if quick else 6.0)
        for name, rate in sorted(rates.items(), key=itemgetter(1))
    }
    said = by_share.get("50%") or by_share["fixed"]
    stage = next((name for name in said["stages"] if name.startswith("committed")), "tap")
    figure(said["stages"][stage]["p99"] / 1e3)
    benchmark.extra_info.update(
        latency_ms=by_share,
        lines=[f"{rig.setup.name}:", *(f"  {line}" for line in latency_lines(by_share))],
    )


def _rates(held: float, setup: Setup) -> dict[str, float]:
    """Rows a second to look at. TLS is to be compared with none, which takes a rate that both
    have; levels of books have no such rate, for a message has some twenty.
    """
    fixed = {"fixed": FIXED} if setup.trade_part == 1 and held > FIXED else {}
    if setup.tls and fixed:
        return fixed
    return fixed | {name: share * held for name, share in SHARES.items()}
