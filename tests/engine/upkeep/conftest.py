"""Databases as the upkeep finds them."""

import pytest

from tests.conftest import Databases
from tests.engine.upkeep.hyper_rig import HyperRig, needs_timescale


@pytest.fixture
def hyper(timescale: Databases | None, request: pytest.FixtureRequest) -> HyperRig:
    """Hypertables, migrated and empty."""
    needs_timescale(timescale)
    return HyperRig(request.getfixturevalue("database_url"))
