"""Answers that are no answers: what they are is said, with the address and without its secrets."""

from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from engine.base.errors import VenueError
from engine.data.names import StreamKind, Transport
from shards.transport.answers import address_of, no_json
from tests.shards.doubles import spec_of
from tests.shards.fake_venue import Answer, FakeRig, running

PAGE = Answer(b"\n<!DOCTYPE html><html>We will be back</html>", content_type="text/html; charset=x")
INFO = "/fapi/v1/exchangeInfo"


@pytest.mark.fault("N34")
@pytest.mark.parametrize(
    ("content_type", "body", "words"),
    [
        ("text/html", b"<html>", "a web page (text/html): maintenance?"),
        ("TEXT/html; charset=utf-8", b"  <", "a web page (TEXT/html): maintenance?"),
        ("", b"<html>", "a web page (no type): maintenance?"),
        ("application/json", b"<html>", "a web page (application/json): maintenance?"),
        ("text/html", b"", "a web page (text/html): maintenance?"),
        ("text/html", b'{"mislabelled": 1}', ""),
        ("text/plain", b"error code: 1020", "no JSON (text/plain): 'error code: 1020'"),
        ("\x1b[31m", b"\xff\x1b", "no JSON (\\x1b[31m): '\\\\xff\\x1b'"),
        ("application/json", b" \n", "nothing"),
        ("application/json", b"null", ""),
        ("application/json", b" [1]", ""),
    ],
)
def test_what_an_answer_is_instead(content_type: str, body: bytes, words: str) -> None:
    assert no_json(content_type, body) == words


def test_an_address_is_shown_without_its_secrets() -> None:
    url = "https://user:pass@proxy.example:8443/fapi/v1/depth?key=secret#x"
    assert address_of(url) == "https://proxy.example:8443/fapi/v1/depth"


def _start(rig: FakeRig, kind: StreamKind, transport: Transport) -> Callable[[], str]:
    rig.session.start([spec_of(kind=kind, transport=transport)])
    return lambda: rig.session.streams[0].reason


@pytest.mark.fault("N34")
@pytest.mark.parametrize(
    ("path", "kind", "transport", "symbol"),
    [
        ("/fapi/v1/openInterest", StreamKind.OPEN_INTEREST, Transport.HTTP_POLL, " (BTCUSDT)"),
        ("/fapi/v1/premiumIndex", StreamKind.FUNDING, Transport.HTTP_POLL, " (BTCUSDT)"),
    ],
)
def test_a_stream_says_which_address_answered_a_web_page(
    tmp_path: Path, path: str, kind: StreamKind, transport: Transport, symbol: str
) -> None:
    async def body() -> None:
        async with running(tmp_path) as rig:
            rig.fake.answer("/fapi/v1/fundingInfo", b"[]")
            rig.fake.answer(path, PAGE)
            reason = _start(rig, kind, transport)
            await rig.until(lambda: "web page" in reason())
            said = f"GET {rig.fake.url}{path}{symbol} answered a web page (text/html): maintenance?"
            assert said in reason()

    uvloop.run(body())


@pytest.mark.fault("N34")
@pytest.mark.parametrize("path", ["/fapi/v1/fundingInfo", "/fapi/v1/depth"])
def test_the_log_says_which_address_answered_a_web_page(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    async def body() -> None:
        async with running(tmp_path) as rig:
            rig.fake.answer("/fapi/v1/fundingInfo", b"[]")
            rig.fake.answer(path, PAGE)
            is_book = path.endswith("depth")
            rig.session.start([spec_of(kind=StreamKind.L2_BOOK if is_book else StreamKind.FUNDING)])
            if is_book:
                socket = await rig.fake.socket()
                socket.send(
                    {"e": "depthUpdate", "E": 1, "T": 1, "s": "BTCUSDT", "U": 1, "u": 2, "pu": 0,
                     "b": [["1", "1"]], "a": []}
                )  # fmt: skip
            await rig.until(lambda: "web page" in caplog.text)
            assert f"{rig.fake.url}{path}" in caplog.text

    uvloop.run(body())
    assert "symbol=" not in caplog.text, "no queries"


@pytest.mark.fault("N34")
@pytest.mark.parametrize("status", [200, 503, 502])
def test_a_handshake_that_is_answered_with_a_web_page_says_so(tmp_path: Path, status: int) -> None:
    async def body() -> None:
        async with running(tmp_path) as rig:
            rig.fake.handshakes = [Answer(PAGE.body, status, content_type="text/html")]
            reason = _start(rig, StreamKind.TRADES, Transport.WS)
            await rig.until(lambda: "web page" in reason())
            address = f"{rig.fake.ws_url}/market/ws"
            words = f"{address} answered HTTP {status}, a web page (text/html): maintenance?"
            assert reason() == f"cannot connect: {words}"
            await rig.fake.socket()

    uvloop.run(body())


@pytest.mark.fault("N34")
def test_an_error_with_a_web_page_shows_no_markup(tmp_path: Path) -> None:
    async def body() -> None:
        async with running(tmp_path) as rig:
            rig.fake.answer(INFO, Answer(PAGE.body, 503, content_type="text/html"))
            with pytest.raises(VenueError) as found:
                await rig.fetch_listing()
            assert "HTTP 503: a web page (text/html): maintenance?" in str(found.value)
            assert "<" not in str(found.value)
            rig.fake.answer(INFO, PAGE)
            with pytest.raises(VenueError) as found:
                await rig.fetch_listing()
            said = f"GET {rig.fake.url}{INFO} answered a web page (text/html): maintenance?"
            assert said in str(found.value)

    uvloop.run(body())
