"""What of Deribit is in no frame: how it is greeted, and what words mean at their time."""

import json
from pathlib import Path

import pytest

from engine.data.instrument import InstrumentState
from engine.messages.settings import VenueSettings
from shards.venues import VENUES

DERIBIT = VENUES["deribit"]
GREET = DERIBIT.groups["ws"].greet


def test_heartbeats_are_asked_for_first() -> None:
    assert GREET is not None
    assert [json.loads(frame) for frame in GREET(VenueSettings())] == [
        {"jsonrpc": "2.0", "id": 0, "method": "public/set_heartbeat", "params": {"interval": 10}}
    ]


def test_who_has_credentials_logs_in_and_that_ends_the_greeting(tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    file.write_text("name:se:cret\n", encoding="utf-8")
    assert GREET is not None
    heartbeats, login = map(json.loads, GREET(VenueSettings(credentials_file=str(file))))
    assert heartbeats["method"] == "public/set_heartbeat"
    assert heartbeats["id"] != 0
    assert (login["id"], login["method"]) == (0, "public/auth")
    assert login["params"] == {
        "grant_type": "client_credentials", "client_id": "name", "client_secret": "se:cret",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("word", "expires_ms", "said_us", "state"),
    [
        ("open", 2000, 1_000_000, InstrumentState.TRADING),
        ("started", 2000, 1_000_000, InstrumentState.TRADING),
        ("created", 2000, 1_000_000, InstrumentState.ANNOUNCED),
        ("settlement", 2000, 1_000_000, InstrumentState.SETTLING),
        ("locked", 2000, 1_000_000, InstrumentState.HALTED),
        ("archivized", 2000, 3_000_000, InstrumentState.EXPIRED),
        ("terminated", 2000, 1_000_000, InstrumentState.DELISTED),
        ("surprised", 2000, 1_000_000, InstrumentState.UNKNOWN),
    ],
)
def test_states_of_both_vocabularies(
    word: str, expires_ms: int, said_us: int, state: InstrumentState
) -> None:
    row = {
        "instrument_name": "BTC-1JAN70", "kind": "future", "base_currency": "BTC",
        "quote_currency": "USD", "tick_size": 0.5, "contract_size": 10, "min_trade_amount": 10,
        "is_active": True, "settlement_period": "month", "state": word,
        "expiration_timestamp": expires_ms,
    }  # fmt: skip
    body = json.dumps({"result": [row], "usOut": said_us}).encode()
    assert DERIBIT.listing.parse(body).known["BTC-1JAN70"].state is state
