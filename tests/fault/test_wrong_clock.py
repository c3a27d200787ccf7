"""The machine's clock is wrong while it collects, and is put right: nothing is lost for it."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.flow.rig import Rig, assert_equation

LIBRARY = next(
    (
        path
        for folder in ("/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib")
        if (path := Path(folder) / "faketime" / "libfaketime.so.1").exists()
    ),
    None,
)
pytestmark = [
    pytest.mark.flow,
    pytest.mark.timeout(180),
    pytest.mark.skipif(
        LIBRARY is None,
        reason="sets the clock of whole processes with libfaketime (Debian: faketime), which is not"
        " here; test_clock_doubt.py does the same in one process",
    ),
]
MakeRig = Callable[..., Rig]


class Clock:
    """The wall clock of everything that the engine starts; time intervals stay true."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.environment = {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_RESET": "1",
        }

    def set(self, offset: str) -> None:
        half = self._file.with_suffix(".half")
        half.write_text(f"{offset}\n")
        half.replace(self._file)


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path / "clock")


@pytest.mark.fault("N01")
def test_a_year_behind_and_then_right(make_rig: MakeRig, clock: Clock) -> None:
    clock.set("-1y")
    often = "[venues.binance_linear.poll_interval_s]\nSettledFunding = 1\n"
    rig = make_rig(rate="2000", all_kinds=True, settings=often, environment=clock.environment)
    engine = rig.start()
    engine.wait_for("red (this machine's clock is 365 days behind the venues'; rows wait in")
    assert rig.stored() == 0
    clock.set("+0")
    engine.wait_for("green (all streams deliver)")
    verdict = rig.finish()
    assert_equation(verdict)
    assert verdict.declared_missing == 0
    assert not list((rig.directory / "state").glob("quarantine/*"))
    reasons = set(re.findall(r"red \(([^0-9]*)", engine.log))
    assert reasons == {"this machine's clock is "}, "one reason, and no other"
    assert engine.log.count("WARNING writer clock: ") == 1


@pytest.mark.fault("N01")
def test_stepping_back_and_forth_while_it_runs(make_rig: MakeRig, clock: Clock) -> None:
    clock.set("+0")
    rig = make_rig(rate="2000", environment=clock.environment)
    engine = rig.start()
    rig.until_more_rows(500)
    clock.set("+1y")
    rig.until_more_rows(2000)
    clock.set("-1y")
    engine.wait_for("red (this machine's clock is 365 days behind the venues'")
    clock.set("+0")
    rig.until_more_rows(2000)
    verdict = rig.finish()
    assert_equation(verdict)
    assert verdict.declared_missing == 0
    assert not list((rig.directory / "state").glob("quarantine/*"))
