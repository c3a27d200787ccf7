"""What a soak concludes from: its plan, its lines through samples, its picture."""

from xml.etree import ElementTree

import pytest

from bench.soak.drawing import picture
from bench.soak.faults import FAULTS, plan
from bench.soak.sampling import Held, Sample
from bench.soak.trend import trends

MIB = 1 << 20
HOUR_S = 3600.0


def test_a_plan_is_its_seeds_and_has_every_fault_before_one_comes_again() -> None:
    names = list(FAULTS)
    planned = plan(7, len(names), 1000.0, names)
    assert planned == plan(7, len(names), 1000.0, names)
    assert planned != plan(8, len(names), 1000.0, names)
    assert {each.name for each in planned} == set(names)
    moments = [each.at_s for each in planned]
    assert moments == sorted(moments)
    assert (moments[0] >= 100, moments[-1] <= 900) == (True, True), "the ends are quiet"
    assert len(plan(7, 2 * len(names) + 1, 1000.0, names)) == 2 * len(names) + 1


def sample(at_s: float, pid: int, own: float, fds: int) -> Sample:
    """A moment of one process, with so many MiB of its own and 20 shared ones."""
    held = Held(
        "writer & co", pid, int((own + 20) * MIB), int(own * MIB), int(own * MIB), fds, threads=3
    )
    return Sample(at_s, [held], 0, 0, 0, {})


def test_a_leak_is_seen_in_the_life_that_has_it_and_warming_up_is_none() -> None:
    """The first life grows for an hour, the second by 6 MiB and 12 files in each."""
    moments = [60.0 * minute for minute in range(180)]
    first = [sample(at_s, 1, 10 + 90 * min(at_s / HOUR_S, 1), 5) for at_s in moments]
    second = [
        sample(3 * HOUR_S + at_s, 2, 50 + 6 * at_s / HOUR_S, 5 + int(at_s / 300))
        for at_s in moments
    ]
    steady, leaking = trends([*first, *second], HOUR_S)
    assert (steady.pid, leaking.pid) == (1, 2)
    assert steady.own_mib_per_h == pytest.approx(0, abs=1e-6)
    assert (steady.own_peak_mib, steady.rss_peak_mib) == (100, 120)
    assert leaking.own_mib_per_h == pytest.approx(6, abs=0.01)
    assert leaking.own_quiet_mib_per_h == pytest.approx(6, abs=0.01)
    assert leaking.fds_per_h == pytest.approx(12, abs=0.1)
    assert leaking.fds_peak == 40


def test_a_step_at_a_fault_is_no_leak() -> None:
    samples = [sample(60.0 * n, 1, 50 + 10 * (n > 60) + 10 * (n > 120), 5) for n in range(180)]
    (trend,) = trends(samples, 0.0, [120 * 60.0, 60 * 60.0])
    assert trend.own_mib_per_h > 5
    assert trend.own_quiet_mib_per_h == pytest.approx(0, abs=1e-6)


def test_a_life_that_is_too_short_says_nothing() -> None:
    assert list(trends([sample(60.0 * n, 1, 10, 5) for n in range(20)], 600.0)) == []


def test_the_picture_has_every_process_and_every_fault() -> None:
    drawn = picture(
        [sample(10.0 * n, 1, n, n) for n in range(30)], [(50.0, "kill <writer>"), (90.0, "reload")]
    )
    texts = {each.text for each in ElementTree.fromstring(drawn).iter()}  # noqa: S314
    assert {"writer & co", "kill <writer>", "reload"} <= texts


def test_nothing_seen_is_no_picture_of_nothing() -> None:
    ElementTree.fromstring(picture([], []))  # noqa: S314
