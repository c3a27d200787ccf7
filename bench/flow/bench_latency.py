"""How late is a row at each stage: at rest, at work, and close to the most?"""

from collections.abc import Callable
from operator import itemgetter
from typing import Final

from pytest_benchmark.fixture import BenchmarkFixture

from bench.flow.latency import latency
from bench.flow.rig import Rig
from bench.flow.wording import latency_lines

SHARES: Final = {"1%": 0.01, "10%": 0.1, "50%": 0.5, "90%": 0.9}
"""Of the rate that is held."""
FIXED: Final = 20_000.0
"""Rows a second that any machine holds: what differs there is how late they are."""


def test_latency(
    benchmark: BenchmarkFixture, figure: Callable[[float], None], rig: Rig, quick: bool
) -> None:
    held = rig.search[-1].rows_per_s
    rates = {name: share * held for name, share in SHARES.items()}
    if held > FIXED:
        rates["fixed"] = FIXED
    by_share = {
        name: latency(rig, rate, 5.0 if quick else 6.0)
        for name, rate in sorted(rates.items(), key=itemgetter(1))
    }
    half = by_share["50%"]["stages"]
    stage = next((name for name in half if name.startswith("committed")), "tap")
    figure(half[stage]["p99"] / 1e3)
    benchmark.extra_info.update(
        latency_ms=by_share,
        lines=[f"{rig.setup.name}:", *(f"  {line}" for line in latency_lines(by_share))],
    )
