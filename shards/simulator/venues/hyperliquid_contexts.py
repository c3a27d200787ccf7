"""Asset contexts of the simulated Hyperliquid venue: funding, open interest, mark and oracle price.

`activeAssetCtx` says what `metaAndAssetCtxs` serves: the contract's values of the same second. The
venue puts no time on either; the ledger has the time at which the values came to be and are pushed.
What depends on a book is null while a side of it is empty.
"""

from collections.abc import Callable, Sequence

from shards.simulator.core.contracts import Contract, ContractBoard, Terms
from shards.simulator.core.frames import compact, text_frame
from shards.simulator.core.instruments import (
    HYPERLIQUID_PERP,
    decimal_text,
    signed_text,
    trimmed_text,
)
from shards.simulator.core.ledger import Ledger
from shards.simulator.core.sessions import Hub, write_all

__all__ = ["HYPERLIQUID_TERMS", "AssetContexts"]

HYPERLIQUID_TERMS = Terms(
    rate_decimals=10,
    usual_rate=125_000,
    rate_limit=400_000_000,
    interval_ms=3_600_000,
    mark_decimals=None,
)
HISTORY_PAGE = 500

_Side = tuple[int, int] | None
Touch = Callable[[int], tuple[_Side, _Side]]


class AssetContexts:
    """The contexts of all coins."""

    def __init__(self, hub: Hub, ledger: Ledger, board: ContractBoard, touch: Touch) -> None:
        self._hub = hub
        self._ledger = ledger
        self.board = board
        self._touch = touch

    def step(self, now_ms: int, delisted: Sequence[bool]) -> None:
        """Let a slot of 5 ms pass."""
        for contract in self.board.next_turn():
            index = contract.index
            if not delisted[index] and contract.tick(now_ms, self.board.middle(index)):
                self._push(contract)

    def _push(self, contract: Contract) -> None:
        symbol = contract.instrument.symbol
        topic = self._hub.topic(f"activeAssetCtx:{symbol}")
        if topic is None:
            return
        content = {"coin": symbol, "ctx": self._context(contract)}
        payload = compact({"channel": "activeAssetCtx", "data": content})
        spoiled = self._hub.spoiler.frame("funding", symbol, payload)
        if not write_all(topic.raw, text_frame(spoiled or payload)):
            return
        if spoiled is not None:
            self._note_unreadable(contract, contract.ts_ms, rest=0)
        else:
            self._hub.counts["funding"][contract.index] += 1
            self._hub.counts["open_interest"][contract.index] += 1
            self._record(contract, rest=0)

    def _note_unreadable(self, contract: Contract, at_ms: int, *, rest: int) -> None:
        self._ledger.unreadable(
            HYPERLIQUID_PERP, contract.number, "funding", (at_ms, 0), 2, rest=rest
        )

    def _record(self, contract: Contract, *, rest: int) -> None:
        self._ledger.funding(_funding_row(contract, rest))
        self._ledger.open_interest(_open_interest_row(contract, rest))

    def _context(self, contract: Contract) -> dict[str, object]:
        instrument, decimals = contract.instrument, contract.mark_decimals
        bid, ask = self._touch(contract.index)
        middle, impact, premium = None, None, None
        if bid is not None and ask is not None:
            middle = trimmed_text(5 * (bid[0] + ask[0]), decimals + 1)
            impact = [trimmed_text(side[0], decimals) for side in (bid, ask)]
            above = (contract.mark - contract.index_price) * 10**10 // contract.index_price
            premium = signed_text(above, 10)
        return {
            "funding": signed_text(contract.rate, contract.terms.rate_decimals),
            "openInterest": decimal_text(contract.open_interest, instrument.qty_decimals),
            "prevDayPx": trimmed_text(instrument.start_ticks, instrument.price_decimals),
            "dayNtlVlm": f"{contract.ticks * 1234 + 2_100_000_000}.5",
            "premium": premium,
            "oraclePx": trimmed_text(contract.index_price, decimals),
            "markPx": trimmed_text(contract.mark, decimals),
            "midPx": middle,
            "impactPxs": impact,
            "dayBaseVlm": f"{contract.ticks + 26_000}.1",
        }

    def contexts(self, count: int, now_ms: int) -> list[object]:
        """Answer the second half of `metaAndAssetCtxs`: one context a coin, by position."""
        answer: list[object] = []
        for index in range(count):
            contract = self.board.at(index, now_ms)
            context = self._context(contract)
            answer.append(context)
            if self._hub.spoiler.answer("funding", contract.instrument.symbol, context):
                self._note_unreadable(contract, now_ms, rest=1)
            elif contract.first_served("funding"):
                for kind in ("funding", "open_interest"):
                    self._hub.served_counts[kind] += 1
                self._record(contract, rest=1)
        return answer

    @staticmethod
    def funding_history(
        contract: Contract, start_ms: int, end_ms: int | None
    ) -> list[dict[str, object]]:
        """Answer `fundingHistory`: ascending, a page at most."""
        rows: list[dict[str, object]] = [
            {
                "coin": contract.instrument.symbol,
                "fundingRate": signed_text(paid.rate, contract.terms.rate_decimals),
                "premium": signed_text(paid.rate * 8, contract.terms.rate_decimals),
                "time": paid.ts_ms,
            }
            for paid in contract.settlements
            if start_ms <= paid.ts_ms and (end_ms is None or paid.ts_ms <= end_ms)
        ]
        return rows[:HISTORY_PAGE]


def _funding_row(contract: Contract, rest: int) -> tuple[int, ...]:
    return (
        HYPERLIQUID_PERP, contract.number, contract.ts_ms * 1_000_000,
        contract.rate, contract.terms.rate_decimals,
        contract.mark, contract.index_price, contract.mark_decimals, 0, rest,
    )  # fmt: skip


def _open_interest_row(contract: Contract, rest: int) -> tuple[int, ...]:
    return (
        HYPERLIQUID_PERP, contract.number, contract.ts_ms * 1_000_000,
        contract.open_interest, contract.instrument.qty_decimals, rest,
    )  # fmt: skip
