"""The market behind the simulator: consistent, bounded, and the same for the same seed."""

import numpy as np
import pytest

from shards.simulator.core.market import Grid, Market
from shards.simulator.venues.listed import (
    binance_instruments,
    hyperliquid_instruments,
    inverse_instruments,
    spot_instruments,
)

SAMPLE = (*binance_instruments(60)[::9], *hyperliquid_instruments(60)[::9])


@pytest.mark.parametrize("instrument", SAMPLE, ids=lambda instrument: instrument.symbol)
def test_changes_applied_to_the_first_book_give_every_later_book(instrument: Grid) -> None:
    market = Market(instrument, seed=3, stream=1, activity=12)
    bids, asks = dict(market.bids), dict(market.asks)
    for _ in range(300):
        step = market.step()
        for side, changes in ((bids, step.bids), (asks, step.asks)):
            for tick, qty in changes.items():
                side[tick] = qty
                if qty == 0:
                    del side[tick]
        assert (bids, asks) == (market.bids, market.asks)
        assert min(bids) > 0
        assert max(bids) == market.best_bid < market.best_ask == min(asks)
        assert len(bids) >= 200
        assert len(asks) >= 200
        assert instrument.low_ticks <= market.best_bid <= instrument.high_ticks


def test_the_price_moves_and_stays_in_its_band() -> None:
    market = Market(binance_instruments(1)[0], seed=5, stream=0, activity=1)
    touches = []
    for _ in range(2000):
        market.step()
        touches.append(market.best_bid)
    moves = np.abs(np.diff(touches))
    assert len(set(touches)) > 500
    # Volatility clusters: large moves follow large moves.
    assert np.corrcoef(moves[:-1], moves[1:])[0, 1] > 0.1


def test_the_same_seed_gives_the_same_market_whatever_the_block_sizes() -> None:
    instrument = binance_instruments(1)[0]
    one, other = (Market(instrument, seed=9, stream=4, activity=10) for _ in range(2))
    whole = one.take(9000)
    parts = [other.take(count) for count in (1, 7, 4000, 992, 4000)]
    for name in ("buy", "depth", "size", "fills"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        assert np.array_equal(getattr(whole, name), joined)
    assert np.array_equal(one.sizes, other.sizes)
    for _ in range(50):
        assert one.step() == other.step()
    different = Market(instrument, seed=10, stream=4, activity=10)
    assert different.bids != one.bids


def test_names_are_unique_up_to_a_thousand_instruments() -> None:
    for venue in (
        binance_instruments, hyperliquid_instruments, inverse_instruments, spot_instruments,
    ):  # fmt: skip
        listed = venue(1000)
        assert len({instrument.symbol for instrument in listed}) == 1000
        for instrument in listed:
            assert instrument.low_ticks > 1000 or instrument.start_ticks > 1400
            assert instrument.low_ticks < instrument.start_ticks < instrument.high_ticks
    assert binance_instruments(60)[45].symbol.startswith("SIM")
