"""What the toy among the venues needs."""

import pytest

from engine.data.kinds import KINDS
from tests.toys.kind import SETTLEMENT


@pytest.fixture(autouse=True)
def _toy_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kind that only the toy venue has."""
    monkeypatch.setitem(KINDS, SETTLEMENT.name, SETTLEMENT)
