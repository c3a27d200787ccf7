"""The simulator as a process: one line when it listens, and a clean end."""

import json
import os
import signal
import ssl
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from shards.simulator.core.ledger import BOOK, TRADE, read_ledger
from shards.simulator.main import main
from shards.simulator.venues import ENCODERS

pytestmark = pytest.mark.whole

ROOT = Path(__file__).parents[3]


def start(*options: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "shards.simulator", "--symbols", "2", *options]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, env=dict(os.environ))


def test_it_says_where_it_listens_and_ends_cleanly_on_sigterm(tmp_path: Path) -> None:
    used = tmp_path / "used.json"
    options = "--venues", "all", "--ledger", str(tmp_path / "ledger"), "--limits-used", str(used)
    with start(*options, "--json") as process:
        assert process.stdout is not None
        line = json.loads(process.stdout.readline())
        port = line["port"]
        assert line["event"] == "listening"
        for venue in (make().name for make in ENCODERS):
            assert line[venue] == {
                "rest_url": f"http://127.0.0.1:{port}/{venue}",
                "ws_url": f"ws://127.0.0.1:{port}/{venue}",
            }
        address = f"http://127.0.0.1:{port}/binance_linear/fapi/v1/depth?symbol=BTCUSDT&limit=5"
        with urllib.request.urlopen(address, timeout=10) as response:
            assert len(json.load(response)["bids"]) == 5
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=10)
        assert (process.returncode, rest) == (0, b"")
    assert read_ledger(tmp_path / "ledger").snapshot.size == 10
    limits = {each["limit"]: each["used_max"] for each in json.loads(used.read_text())["deribit"]}
    assert limits == dict.fromkeys(limits, 0)
    weight = {each["limit"]: each for each in json.loads(used.read_text())["binance_linear"]}
    assert (weight["weight"]["used_max"], weight["weight"]["most"]) == (2, 2400)


def test_it_ends_with_its_standard_input_when_told_so() -> None:
    with start("--exit-with-stdin") as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["event"] == "listening"
        process.communicate(timeout=10)
        assert process.returncode == 0


@pytest.mark.fault("N31")
def test_it_says_nothing_when_who_started_it_has_gone() -> None:
    """Ctrl-C at the demo while its simulator starts."""
    ours, theirs = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "shards.simulator", "--exit-with-stdin"],
        cwd=ROOT, stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.PIPE,
    )  # fmt: skip
    os.close(ours)
    os.close(theirs)
    assert process.communicate(timeout=20)[1] == b""
    assert process.returncode == 0


@pytest.mark.parametrize(
    "options", [["--rate", "quick"], ["--symbols", "0"], ["--speed", "-1"], ["--venues", "nobody"]]
)
def test_wrong_options_are_refused(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(options)
    assert stopped.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_the_row_layout_is_packed() -> None:
    assert (TRADE.itemsize, BOOK.itemsize) == (40, 49)


def test_it_shares_no_code_with_the_decoders_it_tests() -> None:
    sources = sorted((ROOT / "shards" / "simulator").glob("*.py"))
    imports = [
        line
        for path in sources
        for line in path.read_text("utf-8").splitlines()
        if line.startswith(("from shards", "import shards"))
    ]
    assert imports
    assert [line for line in imports if "shards.simulator" not in line] == []


def test_venues_speak_tls_on_a_port_of_their_own(tmp_path: Path) -> None:
    certificate = tmp_path / "certificate.pem"
    make = [
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
        "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1", "-addext",
        "subjectAltName=IP:127.0.0.1", "-keyout", str(certificate), "-out", str(tmp_path / "crt"),
    ]  # fmt: skip
    subprocess.run(make, check=True, capture_output=True)
    with pytest.raises(SystemExit):  # the key alone
        main(["--certificate", str(certificate)])
    certificate.write_bytes(certificate.read_bytes() + (tmp_path / "crt").read_bytes())
    with start("--certificate", str(certificate)) as process:
        assert process.stdout is not None
        line = json.loads(process.stdout.readline())
        at = line["binance_linear"]["rest_url"].removeprefix("https://")
        assert line["binance_linear"]["ws_url"] == f"wss://{at}"
        assert f":{line['port']}/" not in at
        trusting = ssl.create_default_context(cafile=str(certificate))
        address = f"https://{at}/fapi/v1/depth?symbol=BTCUSDT&limit=5"
        with urllib.request.urlopen(address, timeout=30, context=trusting) as response:
            assert len(json.load(response)["bids"]) == 5
        status = f"http://127.0.0.1:{line['port']}/simulator/status"
        with urllib.request.urlopen(status, timeout=30) as response:
            assert json.load(response)["paused"] is False
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
        assert process.returncode == 0
