"""What is kept of a run, and what a page shows of it."""

import json
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from bench import report, suite
from bench.comparing import compare
from bench.results import KEPT, costs, figures, keep, kept, merged, read
from tests.bench.made_up import entry, run_of

LATENCY = {"p50": 1.25, "p90": 2.5, "p99": 7.125, "p99.9": 31.5}
FLOW = {
    "search": [
        {"rows_per_s": 20_000.0, "seconds": 3.0, "held": True, "why": "", "lag_s": 0.11},
        {"rows_per_s": 40_000.0, "seconds": 3.0, "held": False, "why": "lag <grows>", "lag_s": 2.4},
    ],
    "cpu_us_per_row": {"shard": 1.618, "writer": 0.577},
    "latency_ms": {"10%": {"rows_per_s": 2_000.0, "stages": {"ring": LATENCY, "tap": LATENCY}}},
    "measured_us": {"shard": 1.5, "together": 2.5},
    "predicted_us": {"shard": 1.375, "together": 2.25},
    "equation": {"sent": 1_234_567, "stored": 1_234_560, "declared_missing": 7},
    "lines": ["sent 1,234,567 = stored 1,234,560 + declared missing 7"],
}


def made_up() -> dict[str, Any]:
    """A run with a budget kept, one that is not, and the figures of a whole engine."""
    return run_of(
        entry("within", [(1.5e-6, 500.0)], budget_us=2.0),
        entry("above", [(2.5e-6, 500.0)], budget_us=2.0),
        entry("flow", [(25e-6, 500.0)], **FLOW),
    )


def test_the_page_has_every_figure_and_needs_nothing_else() -> None:
    run = made_up()
    page = report.page(run)
    cells = set(unescape(page).replace("</td>", "<td>").split("<td>"))
    of_all = {**run["machine_info"], "benchmarks": [
        {key: each[key] for key in ("stats", "extra_info")} for each in run["benchmarks"]
    ]}  # fmt: skip
    assert [name for name, value in figures(of_all) if str(value) not in cells] == []
    assert "2.500 us of 2.000 us: ABOVE" in page
    assert "1.500 us of 2.000 us: within" in page
    assert page.count("<svg") == 5, "budgets, search, CPU time, as predicted, one rate's latencies"
    assert "1.500 us, predicted 1.375" in page
    assert "http" not in page.replace("http-equiv", "")
    assert "Toy 9000 &lt;&amp;&gt;" in page
    assert "lag &lt;grows&gt;" in page


def test_others_are_held_against_ours_of_the_same_question(
    capsys: pytest.CaptureFixture[str],
) -> None:
    answers = [("trades[json]", "json", 3e-6), ("trades[ours]", "ours", 2e-6)]
    entries = [entry(name, [(least, 500.0)]) for name, _, least in answers]
    for each, (_, way, _) in zip(entries, answers, strict=True):
        each |= {"group": "decode a trade", "params": {"name": way}}
    run = run_of(*entries, entry("alone", [(1e-6, 500.0)]))
    assert "3.000 us, 1.50 x ours" in report.page(run)
    suite.show(run)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "decode a trade", "trades[json] 3.000 us 1.50 x ours",
        "trades[ours] 2.000 us 1.00 x ours", "alone 1.000 us",
    ]  # fmt: skip


def test_a_busy_machine_is_said_at_the_top() -> None:
    run = made_up()
    assert "busy" not in report.page(run)
    run["machine_info"]["load_1m_at_start"] = 7.5
    assert "the machine is busy: load 7.5 on 4 CPUs" in report.page(run)


def test_passes_become_one_run_of_the_least_disturbed() -> None:
    passes = []
    for seconds, yardstick in ((1.2, 510.0), (1.0, 500.0), (1.4, 700.0)):
        each = entry("decode", [(seconds, yardstick)], yardstick_us=yardstick)
        del each["extra_info"]["passes"]
        passes.append(run_of(each))
    run = merged(passes)
    (found,) = costs(run).values()
    assert run["benchmarks"][0]["stats"]["min"] == 1.0
    assert found.seconds == (1.2, 1.0, 1.4)
    assert found.yardsticks == (510.0, 500.0, 700.0)
    assert [change.word for change in compare(costs(run), costs(run))] == ["same"]


def test_answers_of_one_name_to_two_questions_are_told_apart() -> None:
    both = [entry("poll", [(1.0, 1.0)]), entry("poll", [(2.0, 1.0)])]
    both[1]["fullname"] = "bench/toy/bench_taps.py::test_poll"
    assert {name: cost.least for name, cost in costs(run_of(*both)).items()} == {
        "toy poll": 1.0, "taps poll": 2.0,
    }  # fmt: skip


def test_the_newest_runs_are_kept(tmp_path: Path) -> None:
    paths = [keep(made_up(), tmp_path) for _ in range(KEPT + 2)]
    part = keep(made_up(), tmp_path, whole=False)
    assert kept(tmp_path) == paths[3:], "what was asked with -k takes a place, and is no base"
    assert len(list(tmp_path.iterdir())) == KEPT
    assert read(part) == json.loads(json.dumps(made_up()))


def test_what_is_no_result_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "other.json"
    file.write_text('{"benchmarks": [{"name": "x"}]}')
    with pytest.raises(ValueError, match=r"other\.json has no results"):
        read(file)
