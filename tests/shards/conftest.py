"""What holds for every test of the shards."""

from collections.abc import Iterator

import pytest

from shards.feeds.life import UNFORESEEN


@pytest.fixture(autouse=True)
def _nothing_unforeseen() -> Iterator[None]:
    """No stream meets an event that its life does not foresee."""
    UNFORESEEN.clear()
    yield
    assert not UNFORESEEN
