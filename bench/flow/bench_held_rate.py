"""How many rows a second go from a socket to a committed row, and what does each cost?"""

from collections.abc import Callable
from dataclasses import asdict

from pytest_benchmark.fixture import BenchmarkFixture

from bench.flow.rig import Rig
from bench.flow.wording import cpu_line, equation_line


def test_held_rate(benchmark: BenchmarkFixture, figure: Callable[[float], None], rig: Rig) -> None:
    held, usage = rig.search[-1], rig.usage
    memory = rig.pss_mb()
    found = rig.equation()
    assert found.is_equal, equation_line(found)
    assert found.sent, "nothing was sent"
    messages_per_s = held.rows_per_s / rig.rows_per_message()
    per_row_us = usage.per_row_us()
    figure(1 / held.rows_per_s)
    benchmark.extra_info.update(
        search=[asdict(probe) for probe in rig.search],
        rows_per_s=round(held.rows_per_s, 1),
        messages_per_s=round(messages_per_s, 1),
        seconds=held.seconds,
        simulators=rig.setup.simulators,
        simulators_could_send_per_s=round(
            rig.setup.simulators * 1e6 / max(per_row_us["simulator"], 1e-3)
        ),
        cpu_us_per_row=per_row_us,
        pss_mb=memory,
        row_bytes=rig.row_bytes(),
        equation=asdict(found),
        lines=[
            f"{rig.setup.name}: {held.rows_per_s:,.0f} rows/s in {messages_per_s:,.0f} messages/s"
            f" held for {held.seconds:.0f} s",
            f"  {equation_line(found)}",
            f"  {cpu_line(per_row_us)}",
            f"  memory MB: {', '.join(f'{role} {mb:,.0f}' for role, mb in memory.items())}",
        ],
    )
