"""A simulated venue: its market, its ids and who gets what, but not one byte of its protocol.

`SimVenue` lets trades happen, moves books, quotes and contracts, and puts what somebody got into
the ledger. Messages, topics and how clients ask for them are an `Encoder`'s. Books change every
100 ms and, where their changes are numbered, at the touch half way between.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from types import MappingProxyType

from engine.base.clock import monotonic_ns, wall_ns
from shards.simulator.core.contracts import HOUR_MS, Contract, ContractBoard, Liquidation, Rarity
from shards.simulator.core.encoder import AskedFor, BookMessage, Encoder
from shards.simulator.core.frames import Trades, render
from shards.simulator.core.ledger import Ledger
from shards.simulator.core.limits import RestGate, now_ms
from shards.simulator.core.market import Grid, Scene, Step
from shards.simulator.core.pace import BOOK_SLOTS
from shards.simulator.core.sessions import Hub, Session, Topic, write_all
from shards.simulator.core.spoiling import push_spoiled_trade
from shards.simulator.core.symbol import Chain, Levels, Quote, SymbolState

__all__ = ["SimVenue", "now_ms"]

_HISTORY_TOTAL_ROWS = 1 << 22
"""Trades remembered over all symbols, 100 MB."""

_STALE_IDS = 5_000_000
_NOTHING: Mapping[str, int] = MappingProxyType({})


class SimVenue:
    """All symbols of one venue."""

    def __init__(
        self, encoder: Encoder, number: int, scene: Scene, ledger: Ledger, gate: RestGate
    ) -> None:
        """Open the venue that the ledger knows under `number`."""
        self.encoder = encoder
        self.gate = gate
        self.grids = list(encoder.grids(scene.symbols))
        self.statuses = [encoder.statuses[0]] * len(self.grids)
        self._indexes = {grid.symbol: index for index, grid in enumerate(self.grids)}
        self.hub = Hub(encoder.name, [*self._indexes], encoder.own_kinds, encoder.spoiled)
        self.ledger = ledger
        self.contracts = ContractBoard(self._open_contract, self.middle, encoder.terms)
        self._number, self._scene = number, scene
        even_share = 1 << (_HISTORY_TOTAL_ROWS // scene.symbols).bit_length() - 1
        self._history_rows = min(encoder.history_rows, even_share)
        self._states: dict[int, SymbolState] = {}
        self._slots: list[list[SymbolState]] = [[] for _ in range(BOOK_SLOTS)]
        self._due_ns = dict.fromkeys(encoder.book_clocks, 0)
        self._said_h: dict[int, int] = {}
        self._rarity = Rarity(scene.liquidations_per_minute)

    # Who is there

    @property
    def weights(self) -> list[float]:
        """Each symbol's share of trades, before normalisation."""
        return [grid.weight for grid in self.grids]

    @property
    def trading(self) -> list[int]:
        """List the symbols that trade."""
        return [index for index in range(len(self.grids)) if not self.halted(index)]

    def index_of(self, symbol: object) -> int | None:
        """Give a symbol's place in the list."""
        return self._indexes.get(symbol) if isinstance(symbol, str) else None

    def state(self, symbol: object) -> SymbolState | None:
        """Give a symbol's state."""
        index = self.index_of(symbol)
        return None if index is None else self.state_at(index)

    def state_at(self, index: int) -> SymbolState:
        """Give the state of the symbol at this place."""
        state = self._states.get(index)
        if state is None:
            state = SymbolState(
                self._place(index), self.grids[index], self._seeds(index), self.encoder,
                self._history_rows,
            )  # fmt: skip
            state.halted = self.halted(index)
            if self.encoder.numbered_books:  # a quote follows a change, and nothing has changed
                state.quoted = state.quote()
            self._states[index] = state
            self._slots[index % BOOK_SLOTS].append(state)
        return state

    def contract(self, symbol: object) -> Contract | None:
        """Give a symbol's funding and open interest."""
        index = self.index_of(symbol)
        return None if index is None else self.contract_at(index)

    def contract_at(self, index: int) -> Contract:
        """Give the funding and open interest of the symbol at this place."""
        return self.contracts.at(index, now_ms())

    def _place(self, index: int) -> tuple[int, int, int]:
        number = self.ledger.number(self.hub.name, self.grids[index].symbol)
        return self._number, index, number

    def _seeds(self, index: int) -> tuple[int, int]:
        """No two symbols of a simulator draw from the same stream."""
        pair, side = divmod(self._number, 2)
        return self._scene.seed, 2 * index + side + (pair << 32)

    def _open_contract(self, index: int) -> Contract:
        place, terms = self._place(index), self.encoder.terms
        grid, pays = self.grids[index], self.encoder.pays_funding
        contract = Contract(place, grid, self._seeds(index), terms, pays=pays(grid.symbol))
        contract.interval_ms = self.contracts.interval_h(index) * HOUR_MS
        if terms.says_interval and not terms.intervals_h:
            self.ledger.interval((self._number, place[2], 0, terms.interval_ms // 1000))
        return contract

    def middle(self, index: int) -> float:
        """Give the middle of a book in ticks; a book nobody asked for stands where it began."""
        if (state := self._states.get(index)) is None:
            return self.grids[index].start_ticks + 0.5
        return (state.market.best_bid + state.market.best_ask) / 2

    def quote(self, index: int) -> Quote:
        """Give best bid and offer; a book nobody asked for stands where it began."""
        if (state := self._states.get(index)) is not None:
            return state.quote()
        start = self.grids[index].start_ticks
        return (None, None) if self.halted(index) else ((start, 1), (start + 1, 1))

    def halted(self, index: int) -> bool:
        """Tell whether a symbol does not trade."""
        return self.statuses[index] != self.encoder.statuses[0]

    def subscribe(self, session: Session, names: Iterable[str]) -> None:
        """Subscribe; names that lead nowhere are kept but stay silent."""
        for name in names:
            if name in session.names:
                continue
            session.names[name] = None
            wanted = self.encoder.wants(name, session.group)
            if wanted is not None and (not wanted.symbol or self._open(wanted)):
                self.hub.subscribe(session, name)

    def _open(self, wanted: AskedFor) -> bool:
        """Open what a stream is made of; tell whether its symbol is listed."""
        index = self.index_of(wanted.symbol)
        if index is None:
            return False
        if wanted.kind in ("funding", "liquidation", *self.encoder.own_kinds):
            self.contract_at(index)
        elif wanted.book and self.encoder.numbered_books:
            self.state_at(index).chain(wanted.book)
        else:
            self.state_at(index)
        return True

    def unsubscribe(self, session: Session, names: Iterable[str]) -> None:
        """Forget subscriptions."""
        for name in names:
            session.names.pop(name, None)
            self.hub.unsubscribe(session, name)

    def list_symbol(self, grid: Grid) -> None:
        """List one more symbol, or let a halted one trade again."""
        index = self._indexes.get(grid.symbol)
        if index is None:
            index = self._indexes[grid.symbol] = len(self.grids)
            self.grids.append(grid)
            self.statuses.append(self.encoder.statuses[0])
            self.hub.list_symbol(grid.symbol)
        self.set_status(index, self.encoder.statuses[0])

    def set_status(self, index: int, status: str) -> None:
        """Change whether a symbol trades, and under which word the venue says so."""
        self.statuses[index] = status
        if index in self._states:
            self._states[index].halted = self.halted(index)
        self.hub.version += 1

    def change_grid(self, index: int, grid: Grid) -> None:
        """Let a symbol trade on another grid; streams of changes say what becomes of the levels."""
        self.grids[index] = grid
        if (contract := self.contracts.known(index)) is not None:
            contract.change_grid(grid)
        if (state := self._states.get(index)) is None:
            return
        market, at_ms = state.market, now_ms()
        gone = Step(dict.fromkeys(market.bids, 0), dict.fromkeys(market.asks, 0))
        self._change_book(state, gone, at_ms)
        state.change_grid(grid)
        self._change_book(state, Step({**state.market.bids}, {**state.market.asks}), at_ms)
        if self.encoder.numbered_books:
            self._push_quote(state, at_ms)

    # Trades

    def trade_topic(self, index: int) -> Topic | None:
        """Give who listens to the trades of a symbol, if anyone does and it trades."""
        if self.halted(index):
            return None
        name = self.encoder.topic("trade", self.grids[index].symbol)
        return None if name is None else self.hub.topic(name)

    def emit_trades(self, index: int, count: int, now_ms: int) -> None:
        """Let trades happen and push them to whoever listens."""
        topic = self.trade_topic(index)
        if topic is None:
            return
        state = self.state_at(index)
        if self.hub.spoiler.is_due("trade", state.grid.symbol):
            push_spoiled_trade(self, topic, state, now_ms)
        trades = state.trade(count, now_ms)
        sent = False
        if topic.raw:
            sent = write_all(topic.raw, render(state.trade_rows, trades, (b"", b"")))
        if topic.combined:
            name = self.encoder.topic("trade", state.grid.symbol)
            wrap = f'{{"stream":"{name}","data":'.encode(), b"}"
            sent |= write_all(topic.combined, render(state.trade_rows, trades, wrap))
        self.record_trades(state, [trades], sent=sent)

    def record_trades(self, state: SymbolState, parts: Sequence[Trades], *, sent: bool) -> None:
        """Put trades into the ledger, if somebody got them."""
        for trades in parts:
            if not sent:
                state.unsent(trades)
                continue
            self.hub.trade_counts[state.index] += len(trades.ids)
            if self.ledger.enabled:
                self.ledger.trades(state.ledger_trades(trades))

    # Books and quotes

    def step_books(self, slot: int, now_ms: int) -> None:
        """Let 5 ms pass: some books advance, others change at the touch, some contracts tick."""
        for state in self._slots[slot]:
            if not state.halted and self.encoder.moves(state):
                self.step_book(state, now_ms)
            else:  # a side may have become empty
                self._push_quote(state, now_ms)
        if self.encoder.numbered_books:
            for state in self._slots[slot - BOOK_SLOTS // 2]:
                if not state.halted:
                    self._change_book(state, state.market.nudge(), now_ms, steps=None)
                    self._push_quote(state, now_ms)
        self._step_contracts(now_ms)
        self._push_clocked(now_ms)
        self.encoder.beat(self, now_ms)

    def _push_clocked(self, now_ms: int) -> None:
        """Push whole books on the streams whose clock says so."""
        now_ns = monotonic_ns()
        for stream, due_ns in self._due_ns.items():
            if now_ns >= due_ns:
                period_s = self.encoder.book_clocks[stream] or self._scene.slow_book_s
                self._due_ns[stream] = max(due_ns + int(period_s * 1e9), now_ns)
                for state in chain.from_iterable(self._slots):
                    self._push_whole(state, stream, now_ms)

    def step_book(self, state: SymbolState, now_ms: int, *, withheld: bool = False) -> None:
        """Advance a book by 100 ms. Its ids go on whether or not anyone listens."""
        state.steps += 1
        self._change_book(state, state.market.step(), now_ms, withheld=withheld, steps=state.steps)
        self._push_quote(state, now_ms)

    def _change_book(
        self, state: SymbolState, change: Step, now_ms: int, *, withheld: bool = False,
        steps: int | None = 0,
    ) -> None:  # fmt: skip
        """Give a change its ids and say it on all streams that are due; at step 0 all are."""
        state.advance(change, now_ms)
        for stream, link in state.chains.items():
            if steps == 0 or self.encoder.due(stream, steps):
                if not withheld:
                    self._push_change(state, stream, link, now_ms)
                link.restart(state.last_update)

    def _push_change(self, state: SymbolState, stream: str, link: Chain, now_ms: int) -> None:
        topic = self.hub.topic(link.topic)
        if topic is None:
            return
        if link.top:
            bids, asks = state.top(link.top)
        else:
            bids, asks = link.changes()
        ids = link.first, link.next_id(state.last_update), link.last
        event = BookMessage(stream, now_ms, *ids, bids, asks)
        for message in self.encoder.messages(event):
            self._push_book((link.topic, topic), state, message, whole=link.top > 0)

    def say_changes(self, state: SymbolState, stream: str, now_ms: int) -> None:
        """Say now what has changed on a book stream: a snapshot that is sent next follows it."""
        link = state.chain(stream)
        if link.first:
            self._push_change(state, stream, link, now_ms)
            link.restart(state.last_update)

    def _push_whole(self, state: SymbolState, stream: str, now_ms: int) -> None:
        name = self.encoder.book_topic(state.grid.symbol, stream)
        previous, topic = state.said_ms.get(stream, 0), self.hub.topic(name)
        if now_ms > previous and topic is not None:
            sides = state.top(self.encoder.top(stream))
            event = BookMessage(stream, now_ms, 0, now_ms, previous, *sides)
            if self._push_book((name, topic), state, event, whole=True):
                state.said_ms[stream] = now_ms

    def _push_book(
        self, to: tuple[str, Topic], state: SymbolState, event: BookMessage, *, whole: bool
    ) -> bool:
        bids, asks = event.bids, event.asks
        payload, rows = self.encoder.book(state, event), len(bids) + len(asks) or 1
        if not self._push("book", state, (to,), payload, (event.ts_ms, event.last), rows):
            return False
        self.record_book(state, event, whole=whole)
        return True

    def record_book(self, state: SymbolState, event: BookMessage, *, whole: bool) -> None:
        """Put an event of a book that somebody got into the ledger."""
        sides = event.bids, event.asks
        self.hub.book_event_count += 1
        self.hub.book_counts[state.index] += max(1, sum(map(len, sides)))
        if self.ledger.enabled:
            ids = event.last, event.previous
            self.ledger.book(state.ledger_book(event.ts_ns, ids, sides, whole=whole))

    def _push_quote(self, state: SymbolState, now_ms: int) -> None:
        """Push the best bid and offer if it changed, once a number."""
        quote, seq = state.quote(), self.encoder.quote_number(state, now_ms)
        if quote == state.quoted or seq <= state.quote_seq:
            return
        state.quoted = quote
        name = state.quote_topic
        topic = None if name is None else self.hub.topic(name)
        if name is None or topic is None:
            return
        state.quote_seq = seq
        payload = self.encoder.quote(state, quote, now_ms)
        if self._push("quote", state, ((name, topic),), payload, (now_ms, seq), 1):
            self.hub.counts["quote"][state.index] += 1
            self.ledger.quote(state.ledger_quote(now_ms, seq, quote, rest=0))

    def _push(
        self, kind: str, of: SymbolState | Contract, topics: Iterable[tuple[str, Topic]],
        payload: bytes, times: tuple[int, int], rows: int, also: Mapping[str, int] = _NOTHING,
    ) -> bool:  # fmt: skip
        """Push one message, spoiled if that is due; tell whether somebody got one to be stored. It
        is `also` a row of other kinds, with these numbers.
        """
        spoiled = self.hub.spoiler.frame(kind, self.grids[of.index].symbol, payload)
        sent = False
        for name, topic in topics:
            sent |= topic.push(name, spoiled or payload)
        if sent and spoiled is not None:
            self.unreadable(kind, of, times, rows)
            for other, number in also.items():
                self.unreadable(other, of, (times[0], number), 1)
        return sent and spoiled is None

    def unreadable(
        self, kind: str, of: SymbolState | Contract, times: tuple[int, int], rows: int,
        *, rest: int = 0,
    ) -> None:  # fmt: skip
        """Put an element nobody can read into the ledger; `times` in ms, and its number."""
        self.ledger.unreadable(self._number, of.number, kind, times, rows, rest=rest)

    # Funding, open interest, liquidations

    def _step_contracts(self, now_ms: int) -> None:
        for contract in self.contracts.next_turn():
            if not self.halted(contract.index):
                middle = self.middle(contract.index)
                if contract.tick(now_ms, middle):
                    self._push_own(contract)
                    self._push_funding(contract)
                    self._push_liquidation(contract, middle)

    def _push_funding(self, contract: Contract) -> None:
        topics = self._listened_topics(self.encoder.funding_topics(contract))
        if not topics:
            return
        payload = self.encoder.funding(self, contract)
        ts_ms, terms = contract.ts_ms, self.encoder.terms
        rows, also = 1 + terms.with_interest, {"quote": ts_ms} if terms.with_quote else _NOTHING
        if not self._push("funding", contract, topics, payload, (ts_ms, 0), rows, also):
            return
        contract.first_served("pushed")
        self._record("funding", contract, rest=0)
        if terms.with_quote:
            state = self.state_at(contract.index)
            self.hub.counts["quote"][state.index] += 1
            self.ledger.quote(state.ledger_quote(ts_ms, ts_ms, state.quote(), rest=0))

    def greet(self, session: Session, contract: Contract, payload: bytes) -> None:
        """Send a new subscriber a contract's values of this moment; they are in the ledger once."""
        if session.send_text(payload) and contract.first_served("pushed"):
            self._record("funding", contract, rest=0)

    def _listened_topics(self, names: Iterable[str | None]) -> list[tuple[str, Topic]]:
        return [(name, topic) for name in names if name and (topic := self.hub.topic(name))]

    def _record(self, kind: str, contract: Contract, *, rest: int) -> None:
        """Put a contract's values into the ledger."""
        if rest:
            self.hub.served_counts[kind] += 1
        else:
            self.hub.counts[kind][contract.index] += 1
        if kind == "funding":
            self.ledger.funding(contract.ledger_funding(rest=rest))
            if self.encoder.terms.with_interest:
                self._record("open_interest", contract, rest=rest)
        else:
            self.ledger.open_interest(contract.ledger_open_interest(rest=rest))

    def _push_liquidation(self, contract: Contract, middle: float) -> None:
        probability = self._rarity.chance(self.hub.version, self._listened_count)
        order = contract.liquidate(probability, middle) if probability else None
        name = self.encoder.topic("liquidation", contract.instrument.symbol)
        topics = self._listened_topics([name])
        if order is None or not topics:
            return
        if self.encoder.forced_trades:
            order, is_sent = self._push_forced(contract, topics)
        else:
            payload = self.encoder.liquidation(contract, order)
            is_sent = self._push("liquidation", contract, topics, payload, (order.ts_ms, 0), 1)
        if is_sent:
            self.hub.counts["liquidation"][contract.index] += 1
            self.ledger.liquidation(contract.ledger_liquidation(order))

    def _push_forced(
        self, contract: Contract, topics: Sequence[tuple[str, Topic]]
    ) -> tuple[Liquidation, bool]:
        """Let the next trade be a forced order; tell whether somebody got it."""
        state = self.state_at(contract.index)
        (one,) = (trades := state.trade(1, contract.ts_ms)).each()
        payload, also = self.encoder.forced(state, one), {"trade": one.id}
        sent = self._push("liquidation", contract, topics, payload, (one.ts_ms, 0), 1, also)
        self.record_trades(state, [trades], sent=sent)
        qty = int(state.market.sizes[one.size])
        return Liquidation(one.ts_ms, not one.buy, one.tick, one.tick, qty, qty), sent

    def _push_own(self, contract: Contract) -> None:
        for own in self.encoder.own_rows(contract):
            topics = self._listened_topics([own.topic])
            sent = self._push(own.kind, contract, topics, own.payload, (contract.ts_ms, 0), 1)
            if sent and own.row is not None:
                self.hub.counts[own.kind][contract.index] += 1
                self.ledger.own(own.kind, own.row)

    def _listened_count(self) -> int:
        names = [self.encoder.topic("liquidation", grid.symbol) for grid in self.grids]
        return len(self._listened_topics(names))

    def serve_book(self, state: SymbolState, count: int, at_ms: int) -> tuple[int, Levels, Levels]:
        """Give a snapshot: its id and levels; the id of a stale one lies far behind all events."""
        bids, asks = state.top(count)
        last = at_ms
        if self.encoder.numbered_books:
            last = state.last_update - _STALE_IDS * self.gate.take_stale()
        if self.ledger.enabled:
            rows = state.ledger_book(at_ms * 1_000_000, (last, 0), (bids, asks), whole=True)
            self.ledger.snapshot(rows)
        return last, bids, asks

    def serve_quote(self, state: SymbolState, at_ms: int) -> Quote:
        """Give the best bid and offer; it is in the ledger once per update id."""
        quote = state.quote()
        if state.served_update < state.last_update:
            state.served_update = state.last_update
            self.hub.served_counts["quote"] += 1
            self.ledger.quote(state.ledger_quote(at_ms, state.last_update, quote, rest=1))
        return quote

    def serve_contract(
        self, kind: str, contract: Contract, answer: dict[str, object], spoiled_ms: int
    ) -> dict[str, object]:
        """Serve funding or open interest, spoiled if due; each moment is in the ledger once."""
        both = kind == "funding" and self.encoder.terms.with_interest
        if self.hub.spoiler.answer(kind, contract.instrument.symbol, answer):
            self.unreadable(kind, contract, (spoiled_ms, 0), 1 + both, rest=1)
        elif contract.first_served(kind):
            self._record(kind, contract, rest=1)
        return answer

    def say_intervals(self) -> list[tuple[str, int]]:
        """Give each payer's hours between payments."""
        said, pays = [], self.encoder.pays_funding
        for index in [i for i, grid in enumerate(self.grids) if pays(grid.symbol)]:
            hours = self.contracts.interval_h(index)
            if self._said_h.get(index) != hours:
                self._said_h[index] = hours
                row = (self._number, self._place(index)[2], wall_ns(), hours * 3600)
                self.ledger.interval(row)
            said.append((self.grids[index].symbol, hours))
        return said
