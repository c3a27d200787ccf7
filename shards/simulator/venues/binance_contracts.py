"""Mark price, funding, open interest and liquidations of the simulated Binance venue.

`markPrice@1s` says what `premiumIndex` serves: both give the contract's values of the same second
under the same time. Open interest has no stream.
"""

from collections.abc import Callable, Sequence

from engine.base.clock import wall_ns
from shards.simulator.core.contracts import Contract, ContractBoard, Liquidation, Terms
from shards.simulator.core.instruments import (
    BINANCE_LINEAR,
    Grid,
    decimal_text,
    signed_text,
)
from shards.simulator.core.ledger import Ledger
from shards.simulator.core.sessions import Hub

__all__ = ["BINANCE_TERMS", "BinanceContracts"]

_HOUR_MS = 3_600_000
_USUAL_INTERVAL_H = 8
_INTERVALS_H = (8, 4, 1)
"""Of the symbols in turn, until a request changes one."""

BINANCE_TERMS = Terms(
    rate_decimals=8,
    usual_rate=10_000,
    rate_limit=375_000,
    interval_ms=_USUAL_INTERVAL_H * _HOUR_MS,
    mark_decimals=8,
)
_SLOW_MARK_TICKS = 3
"""`markPrice` without a speed is pushed every 3 s."""

_INTEREST_RATE = "0.00010000"


class BinanceContracts:
    """The contracts of all symbols."""

    def __init__(
        self,
        hub: Hub,
        ledger: Ledger,
        board: ContractBoard,
        liquidations_per_minute: float,
    ) -> None:
        """Liquidations are spread over the symbols somebody listens to."""
        self._hub = hub
        self._ledger = ledger
        self.board = board
        self.liquidations_per_minute = liquidations_per_minute
        self._version = -1
        self._listened = 0
        self._changed_h: dict[int, int] = {}
        self._said_h: dict[int, int] = {}

    def step(self, now_ms: int, halted: Callable[[int], bool]) -> None:
        """Let a slot of 5 ms pass."""
        for contract in self.board.next_turn():
            if not halted(contract.index):
                middle = self.board.middle(contract.index)
                if contract.tick(now_ms, middle):
                    self._push_mark(contract)
                    self._push_liquidation(contract, middle)

    def _push_mark(self, contract: Contract) -> None:
        symbol = contract.instrument.symbol.lower()
        names = [f"{symbol}@markPrice@1s"]
        if contract.ticks % _SLOW_MARK_TICKS == 0:
            names.append(f"{symbol}@markPrice")
        payload = b""
        spoiled = None
        delivered = 0
        for name in names:
            topic = self._hub.topic(name)
            if topic is not None:
                if not payload:
                    payload = _mark_payload(contract)
                    spoiled = self._hub.spoiler.frame("funding", symbol.upper(), payload)
                delivered += topic.push(name, spoiled or payload)
        if delivered and spoiled is not None:
            self._ledger.unreadable(
                BINANCE_LINEAR, contract.number, "funding", (contract.ts_ms, 0), 1
            )
        elif delivered:
            self._hub.counts["funding"][contract.index] += 1
            self._ledger.funding(_funding_row(contract, rest=0))

    def _push_liquidation(self, contract: Contract, middle: float) -> None:
        probability = self._probability()
        order = contract.liquidate(probability, middle) if probability else None
        if order is None:
            return
        name = f"{contract.instrument.symbol.lower()}@forceOrder"
        topic = self._hub.topic(name)
        payload = _order_payload(contract.instrument, order)
        symbol = contract.instrument.symbol
        spoiled = self._hub.spoiler.frame("liquidation", symbol, payload) if topic else None
        if topic is None or not topic.push(name, spoiled or payload):
            return
        if spoiled is not None:
            times = order.ts_ms, 0
            self._ledger.unreadable(BINANCE_LINEAR, contract.number, "liquidation", times, 1)
        else:
            self._hub.counts["liquidation"][contract.index] += 1
            self._ledger.liquidation(_order_row(contract, order))

    def _probability(self) -> float:
        """Give the chance that a listened symbol has a liquidation in its second."""
        if self._version != self._hub.version:
            self._version = self._hub.version
            topics = self._hub.topics.items()
            self._listened = sum(1 for name, t in topics if name.endswith("@forceOrder") and t)
        per_s = self.liquidations_per_minute / 60.0
        return min(1.0, per_s / self._listened) if self._listened else 0.0

    def interval_h(self, index: int) -> int:
        """Give the hours between two payments of funding."""
        return self._changed_h.get(index, _INTERVALS_H[index % len(_INTERVALS_H)])

    def change_interval(self, index: int, hours: int) -> None:
        """Let funding be paid at another interval from now on."""
        self._changed_h[index] = hours
        contract = self.board.known(index)
        if contract is not None:
            contract.interval_ms = hours * _HOUR_MS

    def funding_info(self, instruments: Sequence[Grid]) -> list[dict[str, object]]:
        """Answer `GET /fundingInfo`: only what is not as usual. What is left out is said, too."""
        intervals = {index: self.interval_h(index) for index in range(len(instruments))}
        for index, hours in intervals.items():
            if self._said_h.get(index) != hours:
                self._said_h[index] = hours
                number = self._ledger.number(self._hub.name, instruments[index].symbol)
                self._ledger.interval((BINANCE_LINEAR, number, wall_ns(), hours * 3600))
        return [
            {
                "symbol": instruments[index].symbol,
                "adjustedFundingRateCap": "0.02000000",
                "adjustedFundingRateFloor": "-0.02000000",
                "fundingIntervalHours": hours,
                "disclaimer": False,
            }
            for index, hours in intervals.items()
            if hours != _USUAL_INTERVAL_H
        ]

    def premium_index(self, contract: Contract) -> dict[str, object]:
        """Answer `GET /premiumIndex` for one symbol."""
        decimals = contract.mark_decimals
        answer: dict[str, object] = {
            "symbol": contract.instrument.symbol,
            "markPrice": decimal_text(contract.mark, decimals),
            "indexPrice": decimal_text(contract.index_price, decimals),
            "estimatedSettlePrice": decimal_text(contract.settle, decimals),
            "lastFundingRate": signed_text(contract.rate, contract.terms.rate_decimals),
            "interestRate": _INTEREST_RATE,
            "nextFundingTime": contract.next_funding_ms,
            "time": contract.ts_ms,
        }
        if not self._spoil("funding", contract, answer) and contract.first_served("funding"):
            self._hub.served_counts["funding"] += 1
            self._ledger.funding(_funding_row(contract, rest=1))
        return answer

    def _spoil(self, kind: str, contract: Contract, answer: dict[str, object]) -> bool:
        spoiled = self._hub.spoiler.answer(kind, contract.instrument.symbol, answer)
        if spoiled:
            times = contract.ts_ms, 0
            self._ledger.unreadable(BINANCE_LINEAR, contract.number, kind, times, 1, rest=1)
        return spoiled

    def open_interest(self, contract: Contract) -> dict[str, object]:
        """Answer `GET /openInterest`."""
        instrument = contract.instrument
        answer: dict[str, object] = {
            "openInterest": decimal_text(contract.open_interest, instrument.qty_decimals),
            "symbol": instrument.symbol,
            "time": contract.ts_ms,
        }
        spoiled = self._spoil("open_interest", contract, answer)
        if not spoiled and contract.first_served("open_interest"):
            self._hub.served_counts["open_interest"] += 1
            self._ledger.open_interest(
                (
                    BINANCE_LINEAR, contract.number, contract.ts_ms * 1_000_000,
                    contract.open_interest, instrument.qty_decimals, 1,
                )
            )  # fmt: skip
        return answer

    @staticmethod
    def funding_history(
        contract: Contract, start_ms: int | None, end_ms: int | None, limit: int
    ) -> list[dict[str, object]]:
        """Answer `GET /fundingRate`: ascending; the newest where no start is given."""
        rows = [
            {
                "symbol": contract.instrument.symbol,
                "fundingTime": paid.ts_ms,
                "fundingRate": signed_text(paid.rate, contract.terms.rate_decimals),
                "markPrice": decimal_text(paid.mark, contract.mark_decimals),
                "rateType": "Regular",
            }
            for paid in contract.settlements
            if (start_ms or 0) <= paid.ts_ms and (end_ms is None or paid.ts_ms <= end_ms)
        ]
        return rows[-limit:] if start_ms is None else rows[:limit]


def _mark_payload(contract: Contract) -> bytes:
    decimals = contract.mark_decimals
    mark, average, index, settle = (
        decimal_text(price, decimals)
        for price in (contract.mark, contract.average, contract.index_price, contract.settle)
    )
    text = (
        f'{{"e":"markPriceUpdate","E":{contract.ts_ms},"s":"{contract.instrument.symbol}",'
        f'"p":"{mark}","ap":"{average}","i":"{index}","P":"{settle}",'
        f'"r":"{signed_text(contract.rate, contract.terms.rate_decimals)}",'
        f'"T":{contract.next_funding_ms},"st":1}}'
    )
    return text.encode()


def _funding_row(contract: Contract, *, rest: int) -> tuple[int, ...]:
    return (
        BINANCE_LINEAR, contract.number, contract.ts_ms * 1_000_000,
        contract.rate, contract.terms.rate_decimals,
        contract.mark, contract.index_price, contract.mark_decimals,
        contract.next_funding_ms * 1_000_000, rest,
    )  # fmt: skip


def _order_payload(instrument: Grid, order: Liquidation) -> bytes:
    symbol, decimals = instrument.symbol, instrument.qty_decimals
    price, average = (
        decimal_text(tick * instrument.tick, instrument.price_decimals)
        for tick in (order.price, order.average)
    )
    qty, filled = decimal_text(order.qty, decimals), decimal_text(order.filled, decimals)
    state = "FILLED" if order.filled == order.qty else "PARTIALLY_FILLED"
    text = (
        f'{{"e":"forceOrder","E":{order.ts_ms + 5},"o":{{"s":"{symbol}",'
        f'"S":"{"SELL" if order.sold else "BUY"}","o":"LIMIT","f":"IOC","q":"{qty}",'
        f'"p":"{price}","ap":"{average}","X":"{state}","l":"{filled}","z":"{filled}",'
        f'"T":{order.ts_ms}}},"ps":"{symbol}","st":1}}'
    )
    return text.encode()


def _order_row(contract: Contract, order: Liquidation) -> tuple[int, ...]:
    grid = contract.instrument
    return (
        BINANCE_LINEAR, contract.number, order.ts_ms * 1_000_000,
        ord("S") if order.sold else ord("B"),
        order.price * grid.tick, order.average * grid.tick, grid.price_decimals,
        order.qty, order.filled, grid.qty_decimals,
    )  # fmt: skip
