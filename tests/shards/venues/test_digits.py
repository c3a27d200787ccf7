"""Numbers a venue computes: a digit that is lost is told, to whoever reads the row."""

import itertools
from decimal import Decimal

import hypothesis.strategies as st
import msgspec
import numpy as np
import psycopg
import pytest
from hypothesis import given

from engine.data.flags import Flag
from engine.data.kind import RecordArray
from engine.data.kinds import OPEN_INTEREST
from engine.writer.rows.copy import COPY_HEADER, COPY_TRAILER, CopyEncoder, StreamLookup
from engine.writer.rows.exact import raised_decimals
from shards.venues.digits import (
    Computed,
    ComputedOrEmpty,
    ComputedRate,
    read_decimal,
    read_number,
)
from tests.shards.venues.mutants import TIME_MS, Market

digits = st.text("0123456789", min_size=1, max_size=20)
texts = st.builds(
    lambda whole, fraction: (whole.lstrip("0") or "0") + (f".{fraction}" if fraction else ""),
    digits, st.one_of(st.just(""), digits),
)  # fmt: skip
"""Decimals of up to 40 digits."""
TICKS = itertools.count(1)


@pytest.mark.fault("N07")
@given(texts)
def test_a_number_is_exact_or_the_nearest_of_fifteen_digits(text: str) -> None:
    value, is_exact = read_decimal(text)
    stored = Decimal(repr(value))
    assert is_exact == (stored == Decimal(text))
    assert len(stored.normalize().as_tuple().digits) <= 15
    if Decimal(text):
        assert abs(stored - Decimal(text)) <= max(
            Decimal(text) * Decimal("1e-14"), Decimal("1e-15")
        )


@pytest.mark.fault("N07")
@given(texts)
def test_what_has_fifteen_digits_is_exact(text: str) -> None:
    if len(text.replace(".", "").strip("0")) <= 15 and len(text.partition(".")[2]) <= 15:
        assert read_decimal(text)[1]


@pytest.mark.fault("N07")
@pytest.mark.parametrize(
    "text",
    ["", "NaN", "inf", "1_0", " 1", "1 ", "+1", "0x1", "1e9999", "١", ".5", "1.", "1e"],  # noqa: RUF001
)
def test_what_is_no_plain_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="plain decimal"):
        read_decimal(text)


@pytest.mark.parametrize(("kind", "value"), [(ComputedRate, None), (ComputedOrEmpty, 0.0)])
def test_an_empty_text_is_no_number_only_where_it_may_be(
    kind: type[Computed], value: float | None
) -> None:
    found = read_number(kind, "")
    assert (found.rate if kind is ComputedRate else found.value) == value
    assert found.is_exact
    with pytest.raises(ValueError, match="plain decimal"):
        read_number(Computed, "")


class Pushed:
    """A venue's contexts, pushed one after the other; what became of the open interest."""

    def __init__(self) -> None:
        self.market = Market("hyperliquid_perp", capacity=1 << 14)
        (self.offer,) = (
            offer for offer in self.market.offers
            if offer.kind == "FundingOpenInterest" and offer.transport == "Ws"
        )  # fmt: skip

    def push(self, said: object) -> None:
        example = self.market.next_element(self.offer, "S0")
        example["ctx"]["openInterest"] = said
        self.market.push(self.market.frame(self.offer.shape, [msgspec.json.encode(example)]))

    def rows(self) -> RecordArray:
        return self.market.double.rows(OPEN_INTEREST.name)


@pytest.mark.fault("N07")
def test_sql_and_redis_say_the_same_digits_and_when_they_are_not_the_venues(
    database_url: str,
) -> None:
    """The same rows, as Redis shows them and as the table holds them, for decimals of all lengths;
    whoever is not told that a number is inexact has the venue's very digits.
    """
    said: list[str] = []
    random = np.random.default_rng(11)
    for whole, places in itertools.product((1, 2, 5, 8, 12, 15), (0, 1, 5, 9, 12, 15, 25)):
        tail = "".join(map(str, random.integers(0, 10, places)))
        head = str(random.integers(10 ** (whole - 1), 10**whole))
        said.append(f"{head}.{tail}" if tail else head)
    said += ["12345.678900000001", "12345.6789000000001", "8.000000000000002", "0", "0.10"]
    pushed = Pushed()
    for text in said:
        pushed.push(text)
    assert pushed.market.streams[pushed.offer.kind, pushed.offer.transport, "S0"].refused_count == 0
    rows = pushed.rows()
    assert len(rows) == len(said)
    with psycopg.connect(database_url) as connection:
        stored = [store(connection, rows[n : n + 1], n) for n in range(len(rows))]
    shown = OPEN_INTEREST.events(rows)
    for text, (quantity, is_inexact), event in zip(said, stored, shown, strict=True):
        redis = Decimal(repr(event["qty"]))
        assert ("inexact" in event) == (redis != Decimal(text)), text
        assert is_inexact == (quantity != Decimal(text)), text
        if not is_inexact:
            assert "inexact" not in event
        if redis < 10**10:
            assert redis == quantity, text


def store(connection: "psycopg.Connection[tuple[Decimal, bool]]", row: RecordArray, number: int
          ) -> tuple[Decimal, bool]:  # fmt: skip
    """One row through COPY with the decimals it needs, as `engine.writer.rows.screened` would have
    it."""
    decimals = raised_decimals(row["qty"].astype(np.float64), 2)
    lookup = StreamLookup()
    lookup.set(int(row["stream"][0]), 1, 2, decimals)
    encoder = CopyEncoder(OPEN_INTEREST, 1)
    payload = encoder.encode(row, lookup)
    names = ", ".join(column.name for column in OPEN_INTEREST.columns)
    table = f"stored_{number}"
    connection.execute(f"CREATE TEMP TABLE {table} (LIKE open_interest)")
    with connection.cursor().copy(f"COPY {table} ({names}) FROM STDIN (FORMAT binary)") as copy:
        copy.write(COPY_HEADER + bytes(payload) + COPY_TRAILER)
    query = f"SELECT qty::numeric, flags & {int(Flag.INEXACT)} <> 0 FROM {table}"
    found = connection.execute(query).fetchone()
    assert found is not None
    assert encoder.inexact_count == found[1], "what a shard has rounded is counted, too"
    return found[0].scaleb(-decimals), found[1]


@pytest.mark.fault("N07")
def test_a_number_that_is_no_text_is_looked_at_as_well() -> None:
    pushed = Pushed()
    pushed.push(31000.12345)
    pushed.push(12)
    pushed.push(10**14 + 1)
    frame = pushed.market.frame(
        pushed.offer.shape,
        [msgspec.json.encode(pushed.market.next_element(pushed.offer, "S0")).replace(
            b'"openInterest":"10.5"', b'"openInterest":12345.678900000001')],
    )  # fmt: skip
    pushed.market.push(frame)
    flags = pushed.rows()["flags"] & int(Flag.INEXACT)
    assert flags.tolist() == [0, 0, 0, int(Flag.INEXACT)]
    assert pushed.rows()["qty"].tolist() == [31000.12345, 12.0, 10.0**14 + 1, 12345.6789]
    assert TIME_MS
