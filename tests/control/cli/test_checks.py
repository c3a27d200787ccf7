"""`./fts test`: what fails is told, wherever it ran."""

import sys

import pytest

from control.cli import checks

pytestmark = pytest.mark.whole

FINE = [sys.executable, "-c", "print('fine')"]
WRONG = [sys.executable, "-c", "print('this is wrong'); raise SystemExit(3)"]


@pytest.mark.parametrize("wrong", ["lint", "types"])
def test_the_one_that_fails_is_named_with_what_it_said(
    wrong: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = [(name, WRONG if name == wrong else FINE) for name in ("lint", "types", "layers")]
    monkeypatch.setattr(checks, "checks", lambda _: wanted)
    assert checks.main([]) == 1
    said = capsys.readouterr().out
    assert said.count("this is wrong") == 1
    assert "fine" not in said
    verdicts = dict(line.split()[1::-1] for line in said.splitlines() if line.endswith(" s"))
    assert verdicts == {name: "FAILED" if name == wrong else "ok" for name, _ in wanted}


def test_types_do_not_wait_for_the_tests_nor_these_for_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    """Each waits for a file that the other makes."""
    meet = (
        "import pathlib, sys, time; ours, theirs = map(pathlib.Path, sys.argv[1:]); ours.touch()\n"
        "for _ in range(6000):\n    if theirs.exists(): sys.exit(0)\n    time.sleep(0.01)\n"
        "sys.exit(1)"
    )
    mine, yours = f"{tmp_path}/types", f"{tmp_path}/tests"
    both = [("types", [sys.executable, "-c", meet, mine, yours]),
            ("tests", [sys.executable, "-c", meet, yours, mine])]  # fmt: skip
    monkeypatch.setattr(checks, "checks", lambda _: both)
    assert checks.main([]) == 0
