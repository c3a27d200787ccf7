"""What `fts bench compare` says of two runs, and its exit code."""

from pathlib import Path

import pytest

from bench import suite
from tests.bench.made_up import Passes, entry, written

CALM: Passes = [(1.00e-3, 500.0), (1.02e-3, 505.0), *[(1.01e-3, 500.0)] * 3]
SLOW: Passes = [(1.30e-3, 500.0), (1.33e-3, 505.0), *[(1.31e-3, 500.0)] * 3]


def compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], was: Passes, now: Passes, *options: str
) -> tuple[int, str]:
    """Exit code and the line about the benchmark."""
    files = [
        str(written(tmp_path / f"{name}.json", entry("decode", passes)))
        for name, passes in (("was", was), ("now", now))
    ]
    code = suite.main(["compare", *files, *options])
    (line,) = [each for each in capsys.readouterr().out.splitlines() if each.startswith("decode")]
    return code, line


def test_thirty_percent_more_is_slower(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, line = compared(tmp_path, capsys, CALM, SLOW)
    assert code == 1
    assert "1.000 ms -> 1.300 ms" in " ".join(line.split())
    assert "+29.7%  SLOWER" in line


def test_what_is_slower_is_for_the_caller_to_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compared(tmp_path, capsys, CALM, SLOW, "--fail-above", "40%")[0] == 0
    assert compared(tmp_path, capsys, CALM, SLOW, "--fail-above", "0.25")[0] == 1


def test_fewer_passes_are_less_sure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of two it takes 32 %, of one 45 %."""
    code, line = compared(tmp_path, capsys, CALM[:2], SLOW[:2])
    assert code == 0
    assert line.endswith("+30.0%  same as far as can be told: only from +32% on")
    assert compared(tmp_path, capsys, CALM[:2], SLOW[:2], "--fail-above", "15%")[0] == 1
    assert compared(tmp_path, capsys, CALM, [(1.44e-3, 500.0)])[0] == 0
    assert compared(tmp_path, capsys, CALM, [(1.50e-3, 500.0)])[0] == 1


def test_where_the_yardstick_is_not_steady_more_must_change(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It varied by a half: 20 % and a quarter."""
    moods = (500.0, 750.0, 760.0, 750.0, 740.0)
    unsteady: Passes = [(y * 2.4e-6, y) for y in moods]
    worse: Passes = [(y * 3.2e-6, y) for y in moods]
    assert compared(tmp_path, capsys, CALM, unsteady)[0] == 0
    assert compared(tmp_path, capsys, CALM, worse)[0] == 1


def test_thirty_percent_less_is_faster(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, line = compared(tmp_path, capsys, SLOW, CALM)
    assert (code, line.rpartition(" ")[2]) == (0, "faster")


@pytest.mark.parametrize(
    "disturbed",
    [
        pytest.param([(1.5 * s, 1.5 * y) for s, y in CALM], id="slower-machine"),
        pytest.param([*CALM[:1], *[(1.9e-3, 500.0)] * 4], id="four-passes"),
        pytest.param([*CALM[:4], (2.4e-3, 500.0)], id="one-pass"),
    ],
)
def test_the_mood_of_the_machine_is_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], disturbed: Passes
) -> None:
    code, line = compared(tmp_path, capsys, CALM, disturbed)
    assert (code, line.rpartition(" ")[2]) == (0, "same")


def test_a_yardstick_that_was_disturbed_hides_nothing_and_accuses_nobody(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd: Passes = [(1.00e-3, 900.0), (1.02e-3, 505.0), *[(1.01e-3, 500.0)] * 3]
    assert compared(tmp_path, capsys, odd, CALM)[0] == 0
    slow_and_odd: Passes = [(1.30e-3, 900.0), *SLOW[1:]]
    assert compared(tmp_path, capsys, CALM, slow_and_odd)[0] == 1


def test_what_is_in_one_run_alone_is_named_and_no_reason_to_fail(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    was = written(tmp_path / "was.json", entry("decode", CALM), entry("copy", CALM))
    now = written(tmp_path / "now.json", entry("decode", CALM), entry("poll", CALM))
    assert suite.main(["compare", str(was), str(now)]) == 0
    words = {line.split()[0]: line.split()[-1] for line in capsys.readouterr().out.splitlines()[1:]}
    assert words == {"decode": "same", "copy": "GONE", "poll": "new"}


def test_costs_of_an_item_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Twice the items in twice the time is no change."""
    twice: Passes = [(2 * seconds, yardstick) for seconds, yardstick in CALM]
    was = written(tmp_path / "was.json", entry("decode", CALM, items=100))
    now = written(tmp_path / "now.json", entry("decode", twice, items=200))
    assert suite.main(["compare", str(was), str(now)]) == 0
    assert "10.000 us ->    10.000 us" in capsys.readouterr().out


def test_the_newest_two_whole_runs_of_each_suite(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = ["--state-dir", str(tmp_path)]
    assert suite.main(["compare", *state]) == 2, "nothing is there"
    micro = tmp_path / "bench" / "micro"
    for name, passes in (("1", SLOW), ("2", CALM), ("3", SLOW), ("4-part", CALM)):
        written(micro / f"{name}.json", entry("decode", passes))
    assert suite.main(["compare", *state]) == 1
    assert f"{micro / '2.json'} -> {micro / '3.json'}" in capsys.readouterr().out
    assert suite.main(["compare", str(micro / "1.json"), *state]) == 0


def test_a_file_that_has_no_results_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    assert suite.main(["compare", str(tmp_path / "a.json"), str(tmp_path / "b.json")]) == 2
