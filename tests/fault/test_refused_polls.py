"""Polls that a venue refuses for a while: the samples that were missed are declared."""

from collections.abc import Callable

import pytest

from tests.flow.rig import Rig, assert_equation

pytestmark = [pytest.mark.flow, pytest.mark.timeout(240)]
MakeRig = Callable[..., Rig]
VENUES = ("binance_linear", "hyperliquid_perp")
OFTEN = "\n".join(
    f"[venues.{venue}.poll_interval_s]\nFunding = 1\nOpenInterest = 1\nFundingOpenInterest = 1"
    for venue in VENUES
)


@pytest.mark.fault("H03")
def test_polls_that_are_refused_for_a_while_declare_the_samples_they_missed(
    make_rig: MakeRig,
) -> None:
    rig = make_rig(all_kinds=True, settings=OFTEN, rate="1000", symbols=2)
    rig.start()
    for venue, count in zip(VENUES, (24, 16), strict=True):  # the listings take their part of them
        rig.fault(fault="http_status", venue=venue, status=503, count=count)
    missed = "SELECT count(DISTINCT kind) FROM gaps WHERE reason = 'poll_missed'"
    rig.until(lambda: rig.query(missed) == [(3,)], "declared samples of all polled kinds")
    assert_equation(rig.finish())
