"""Whether the model predicts a run that was not used to fit it."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Final

from bench.scale.model import Parts, Sample

OFF_MAX: Final = 0.20
LARGE: Final = 0.15
"""A process that takes this part of all is predicted by itself."""
TOGETHER: Final = "together"


def measured_us(samples: Sequence[Sample]) -> dict[str, float]:
    """CPU time a row by process and together: the median of some spans."""
    return _us({role: _median(samples, role) for role in samples[0].cpu})


def predicted_us(parts: Parts, samples: Sequence[Sample]) -> dict[str, float]:
    """The same by the model, at the loads that were measured."""
    found = [Sample(each.load, parts.cpu(each.load)) for each in samples]
    return _us({role: _median(found, role) for role in samples[0].cpu})


def misses(predicted: Mapping[str, float], measured: Mapping[str, float]) -> list[str]:
    """What is off by more than may be: everything together, and each process that is large."""
    least_us = LARGE * measured[TOGETHER]
    return [
        role
        for role, us in measured.items()
        if us >= least_us and abs(predicted[role] / us - 1) > OFF_MAX
    ]


def _us(by_role: dict[str, float]) -> dict[str, float]:
    return {**by_role, TOGETHER: sum(by_role.values())}


def _median(samples: Sequence[Sample], role: str) -> float:
    return median(1e6 * each.cpu.get(role, 0.0) / each.load.rows_per_s for each in samples)
