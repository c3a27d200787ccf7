"""One engine for all questions of a setup: what holds it costs more than each of them."""

import shutil
from collections.abc import Iterator

import pytest

from bench.flow.rig import Rig, running
from bench.flow.search import Plan
from bench.flow.setups import SETUPS, as_asked

QUICK = Plan(climb_s=3.0, precision=1.2, bisection_s=6.0, hold_s=8.0, held_part=1.0)
"""Half as close, and 8 s for a minute."""


@pytest.fixture(scope="session", params=list(SETUPS))
def rig(request: pytest.FixtureRequest, quick: bool) -> Iterator[Rig]:
    """An engine at work."""
    setup = as_asked(SETUPS[request.param])
    if setup.tls and shutil.which("openssl") is None:
        pytest.skip("TLS needs a certificate, and there is no openssl to make one")
    with running(setup, QUICK if quick else Plan()) as found:
        yield found
