"""Which kinds of stream an instrument can have by what it is."""

import pytest

from engine.data.instrument import Instrument, InstrumentKind
from engine.data.names import StreamKind

OF_CONTRACTS = {
    StreamKind.OPEN_INTEREST, StreamKind.FUNDING_OPEN_INTEREST, StreamKind.SETTLED_FUNDING,
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "lacking"),
    [
        (InstrumentKind.UNKNOWN, set()),
        (InstrumentKind.PERPETUAL, set()),
        (InstrumentKind.FUTURE, set()),
        (InstrumentKind.OPTION, {StreamKind.SETTLED_FUNDING}),
        (InstrumentKind.SPOT, OF_CONTRACTS),
    ],
)
def test_what_is_no_contract_has_nothing_open_and_is_paid_no_funding(
    kind: InstrumentKind, lacking: set[StreamKind]
) -> None:
    instrument = Instrument("acme", "A-B", 2, 3, kind=kind)
    assert {each for each in StreamKind if instrument.lacks(each)} == lacking


def test_the_reason_names_the_stream_and_the_kind() -> None:
    pair = Instrument("acme", "A-B", 2, 3, kind=InstrumentKind.SPOT)
    assert pair.lacks(StreamKind.OPEN_INTEREST) == (
        "acme can have no OpenInterest of A-B, for its kind is spot"
    )
