"""The samples as a picture: a panel a quantity, over the time of the run, faults as thin lines."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Final, NamedTuple

from bench.soak.sampling import Held, Sample

_WIDTH, _PANEL, _LEFT, _TOP, _RIGHT = 1200, 190, 80, 30, 150
_COLOURS: Final = (
    "#1f77b4",
    "#d62728",
    "#2ca02c",
    "#9467bd",
    "#ff7f0e",
    "#8c564b",
    "#17becf",
    "#7f7f7f",
)
Points = list[tuple[float, float]]


class Panel(NamedTuple):
    """A quantity over time (s), by name of its line."""

    title: str
    lines: Mapping[str, Points]


def picture(samples: Sequence[Sample], marks: Sequence[tuple[float, str]]) -> str:
    """The whole run as SVG; `marks` are moments (s) with a word for each."""
    panels = _panels(samples)
    ends_s = max((sample.at_s for sample in samples), default=1.0)
    height = len(panels) * _PANEL + 2 * _TOP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}"'
        ' font-family="sans-serif" font-size="11">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>',
    ]
    for place, panel in enumerate(panels):
        parts += _drawn(panel, _TOP + place * _PANEL, ends_s)
    for at_s, name in marks:
        x = _x(at_s, ends_s)
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{height - _TOP}" stroke="#bbb">'
            f"<title>{escape(name)}</title></line>"
        )
    return "\n".join([*parts, "</svg>\n"])


def _panels(samples: Sequence[Sample]) -> list[Panel]:
    def of_processes(title: str, field: str, unit: float) -> Panel:
        lines: dict[str, Points] = {}
        for sample in samples:
            for held in sample.processes:
                point = (sample.at_s, _value(held, field) / unit)
                lines.setdefault(held.name, []).append(point)
        return Panel(title, lines)

    def of_engine(title: str, unit: float, **fields: str) -> Panel:
        return Panel(title, {
            name: [(s.at_s, found / unit) for s in samples if (found := _of(s, field)) is not None]
            for name, field in fields.items()
        })  # fmt: skip

    mib = float(1 << 20)
    return [
        of_processes("own memory, MiB (RssAnon)", "own", mib),
        of_processes("RSS, MiB", "rss", mib),
        of_processes("open files", "fds", 1),
        of_processes("threads", "threads", 1),
        of_processes("lag of event loops, ms", "lag_ms", 1),
        of_engine("MiB", mib, shm="shm", journal="journal", log="log"),
        of_engine("rows that wait", 1, backlog="backlog"),
        of_engine("million rows", 1e6, received="received", stored="stored"),
    ]


def _value(held: Held, field: str) -> float:
    return float(getattr(held, field))


def _of(sample: Sample, field: str) -> float | None:
    if field in ("shm", "journal", "log"):
        return float(getattr(sample, field))
    return sample.metrics.get(field)


def _x(at_s: float, ends_s: float) -> float:
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * at_s / ends_s


def _drawn(panel: Panel, top: int, ends_s: float) -> list[str]:
    bottom, room = top + _PANEL - 40, _PANEL - 60
    most = max((y for points in panel.lines.values() for _, y in points), default=0.0) or 1.0
    parts = [
        f'<text x="{_LEFT}" y="{top + 8}" font-weight="bold">{escape(panel.title)}</text>',
        f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{bottom}" y2="{bottom}" stroke="#000"/>',
    ]
    for share in (0.0, 0.5, 1.0):
        y = bottom - room * share
        parts.append(_text(_LEFT - 6, y + 4, f"{most * share:,.4g}", "end"))
    for minutes in range(0, int(ends_s // 60) + 1, max(1, int(ends_s // 60) // 12)):
        x = _x(minutes * 60, ends_s)
        parts.append(_text(x, bottom + 14, f"{minutes} min", "middle"))
    for place, (name, points) in enumerate(sorted(panel.lines.items())):
        colour = _COLOURS[place % len(_COLOURS)]
        drawn = " ".join(f"{_x(x, ends_s):.1f},{bottom - room * y / most:.1f}" for x, y in points)
        parts.append(f'<polyline points="{drawn}" fill="none" stroke="{colour}"/>')
        y = top + 20 + 14 * place
        parts.append(_text(_WIDTH - _RIGHT + 10, y, escape(name), "start", colour))
    return parts


def _text(x: float, y: float, text: str, anchor: str, colour: str = "#000") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{text}</text>'
