"""The lights: runtime, database, live sinks. A light worsens at once and improves only after it has
been better for a while, so that it does not flicker with the load.

What single streams do is not part of a light: a stale stream is no reason to refuse another one.
The verdict on the whole engine takes in everything: the lights, the streams, and rows that are lost
or set aside.
"""

import os
from collections import deque
from collections.abc import Mapping
from pathlib import Path

import msgspec

from control.state.memory import memory_free_fraction
from engine.base.clock import monotonic_s
from engine.messages.judgement import GREEN, RANK, above, judge_database, worst
from engine.messages.settings import LIGHTS, Admission, HealthSettings
from engine.messages.status import ChildReport, EngineStatus, Judgement, Light
from engine.messages.writer import LIVE, SinkStatus
from engine.process.metrics import HealthMetrics
from engine.process.usage import resident_bytes

SILENT_AFTER_S = 5.0
_PROBE_EVERY_S = 2.0
_LOOKS_A_SECOND = 2.0
"""So often the supervisor says how late a shard's loop is."""


class HealthLight(msgspec.Struct, frozen=True):
    """A light and the reason for it."""

    status: Light
    reason: str = ""


class ProcessReport(msgspec.Struct):
    """A process of the engine, as the kernel sees it."""

    name: str
    pid: int
    state: str
    restart_count: int
    rss_bytes: int = 0
    open_files: int = 0
    open_files_max: int = 0
    cpu_percent: float = 0.0
    loop_lag_ms: float = 0.0


class HeldLight:
    """A light with hold-down."""

    def __init__(self, hold_s: float) -> None:
        self.hold_s = hold_s
        self._shown: Judgement = ("yellow", "starting")
        self._better_since_s: float | None = None
        self._is_new = True

    @property
    def shown(self) -> HealthLight:
        """The light now."""
        return HealthLight(*self._shown)

    def update(self, judged: Judgement, now_s: float) -> None:
        """Take in what is true now."""
        if self._is_new or RANK[judged[0]] >= RANK[self._shown[0]]:
            self._is_new, self._better_since_s, self._shown = False, None, judged
            return
        if self._better_since_s is None:
            self._better_since_s = now_s
        if now_s - self._better_since_s >= self.hold_s:
            self._better_since_s, self._shown = None, judged

    def reset(self, judged: Judgement) -> None:
        """A start is no trouble: what follows it counts at once."""
        self._is_new, self._better_since_s, self._shown = True, None, judged


class Health:
    """Judges each status, and what the kernel says of the processes."""

    def __init__(self, hold_s: float = 5.0, limits: HealthSettings | None = None) -> None:
        self._limits = limits = limits or HealthSettings()
        self._held = {name: HeldLight(limits.hold_s.get(name, hold_s)) for name in LIGHTS}
        self._heard_s = monotonic_s()
        self._probed_s = -_PROBE_EVERY_S
        self._cpu: dict[str, deque[tuple[float, int, float]]] = {}
        self._lags: dict[str, deque[float]] = {}
        self._has_judged = False
        self._metrics = HealthMetrics(LIGHTS)
        self.flush_delay_s = 0.0
        self.memory_free_fraction = 1.0
        self.processes: list[ProcessReport] = []
        self.own_loop_lag_ms = 0.0

    def hold(self, hold_s: float) -> None:
        """From now on a light must stay better for so long before it improves."""
        for held in self._held.values():
            held.hold_s = hold_s

    @property
    def silence_s(self) -> float:
        """Since the supervisor was heard last."""
        return monotonic_s() - self._heard_s

    def lights(self) -> Mapping[str, HealthLight]:
        """All of `LIGHTS`."""
        silence_s, lights = self.silence_s, self._lights_held()
        if silence_s > SILENT_AFTER_S:
            text = f"the supervisor is silent for {silence_s:.0f} s"
            lights["runtime"] = HealthLight("red", text)
        return lights

    def _lights_held(self) -> dict[str, HealthLight]:
        return {name: light.shown for name, light in self._held.items()}

    def verdict(self, status: EngineStatus | None) -> HealthLight:
        """The engine as a whole: the worst of what it says of itself and of the lights."""
        found: list[Judgement] = [] if status is None else [(status.status, status.reason)]
        return HealthLight(*worst(found + _weighed(self.lights())))

    def worst_light(self) -> HealthLight:
        """What the supervisor takes into its own verdict; green before there was one to judge."""
        if not self._has_judged:
            return HealthLight(*GREEN)
        return HealthLight(*worst(_weighed(self._lights_held())))

    def refusal(self, admission: Admission) -> str:
        """Why no new stream is accepted now; "" when it is."""
        allowed, lights = {"green": 0, "yellow": 1, "any": 2}[admission], self.lights()
        for (name, light), (weight, _) in zip(lights.items(), _weighed(lights), strict=True):
            if RANK[weight] > allowed:
                return f"{name} is {light.status}: {light.reason}"
        return ""

    def take(self, status: EngineStatus) -> None:
        """Judge a fresh status."""
        before = {name: light.shown.status for name, light in self._held.items()}
        self._judge(status)
        for name, light in self._held.items():
            if light.shown.status != before[name]:
                self._metrics.changed(name, light.shown.status)

    def _judge(self, status: EngineStatus) -> None:
        now_s = self._heard_s = monotonic_s()
        if status.phase == "starting":
            for light in self._held.values():
                light.reset(("yellow", "starting"))
            return
        self._has_judged = True
        if now_s - self._probed_s >= _PROBE_EVERY_S:
            self._probed_s = now_s
            self.memory_free_fraction = memory_free_fraction()
            self.processes = self._processes(status, now_s)
        self._held["runtime"].update(self._judge_runtime(status), now_s)
        self.flush_delay_s = status.writer.flush_delay_s
        self._held["db"].update(judge_database(status.writer), now_s)
        for sink in status.writer.live:
            self._held[sink.name].update(_judge_live(sink), now_s)

    def _judge_runtime(self, status: EngineStatus) -> Judgement:
        if status.phase != "running":
            return "red", f"the engine is {status.phase}"
        found = [_judge_child(child) for child in status.children]
        found += [self._judge_lag(each.child.name, each.loop_lag_ms) for each in status.shards]
        found.append(self._judge_lag("control", self.own_loop_lag_ms))
        free = self.memory_free_fraction
        limits, below = self._limits, self._limits.memory_free_fraction
        if free < below[0]:
            light: Light = "red" if free < below[1] else "yellow"
            found.append((light, f"only {free:.1%} of the memory is free"))
        for process in self.processes:
            if process.open_files_max:
                fraction = process.open_files / process.open_files_max
                text = f"{process.name} has {process.open_files} of {process.open_files_max} files"
                found.append(above(fraction, limits.open_files_fraction, text))
            if limits.process_memory_mb is not None:
                held_mb = process.rss_bytes / 1e6
                text = f"{process.name} holds {held_mb:,.0f} MB of memory"
                found.append(above(held_mb, limits.process_memory_mb, text))
            if process.name.startswith("shard"):
                text = f"{process.name} uses {process.cpu_percent:.0f} % of a CPU"
                found.append(above(process.cpu_percent, limits.cpu_percent, text))
        return worst(found)

    def _judge_lag(self, name: str, lag_ms: float) -> Judgement:
        """A single late tick is noise; the middle one of several is not."""
        looks = max(round(self._limits.loop_lag_window_s * _LOOKS_A_SECOND), 1)
        lags = self._lags.setdefault(name, deque(maxlen=looks))
        lags.append(lag_ms)
        middle = sorted(lags)[(len(lags) - 1) // 2]
        return above(middle, self._limits.loop_lag_ms, f"{name} lags {middle:,.0f} ms")

    def _processes(self, status: EngineStatus, now_s: float) -> list[ProcessReport]:
        lags = {shard.child.name: shard.loop_lag_ms for shard in status.shards}
        lags["control"] = self.own_loop_lag_ms
        reports = []
        for child in status.children:
            report = ProcessReport(child.name, child.pid, child.state, child.restart_count)
            report.loop_lag_ms = round(lags.get(child.name, 0.0), 1)
            pid = os.getpid() if child.name == "control" else child.pid
            report.open_files, report.open_files_max = open_files(pid)
            report.rss_bytes = resident_bytes(pid)
            report.cpu_percent = self._cpu_percent(child.name, pid, cpu_seconds(pid), now_s)
            reports.append(report)
        return reports

    def _cpu_percent(self, name: str, pid: int, cpu_s: float, now_s: float) -> float:
        """Over the last seconds; a new process starts anew."""
        samples = self._cpu.setdefault(name, deque())
        if samples and samples[-1][1] != pid:
            samples.clear()
        samples.append((now_s, pid, cpu_s))
        window_s = self._limits.cpu_window_s
        while now_s - samples[0][0] > window_s:
            samples.popleft()
        first_s, _, first_cpu_s = samples[0]
        if now_s - first_s < window_s / 2:
            return 0.0
        return round(100 * (cpu_s - first_cpu_s) / (now_s - first_s), 1)


def _weighed(lights: Mapping[str, HealthLight]) -> list[Judgement]:
    """Live sinks are best effort: their red lights weigh as yellow."""
    best_effort = {each.name for each in LIVE}
    return [
        ("yellow" if name in best_effort and light.status == "red" else light.status, light.reason)
        for name, light in lights.items()
    ]


def open_files(pid: int) -> tuple[int, int]:
    """Open file handles of a process and its limit; zeros when it is gone."""
    process = Path(f"/proc/{pid}")
    try:
        count = len(os.listdir(process / "fd"))  # noqa: PTH208 - no need of a path for each
        for line in (process / "limits").read_text(encoding="ascii").splitlines():
            if line.startswith("Max open files"):
                soft = line.split()[3]
                return count, int(soft) if soft.isdigit() else 0
    except OSError:
        pass
    return 0, 0


def cpu_seconds(pid: int) -> float:
    """CPU time of a process, user and system; 0 when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0.0
    # The name is in brackets and may hold anything; the numbers begin after the last bracket.
    fields = text.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _judge_child(child: ChildReport) -> Judgement:
    if child.state == "up" or child.name in ("control", "upkeep"):
        return GREEN  # no reason to refuse a stream; what ails the upkeep the engine itself says
    return "red", f"{child.name} is {child.state}: {child.reason or 'not ready yet'}"


def _judge_live(sink: SinkStatus) -> Judgement:
    if sink.state in ("up", "off"):
        return GREEN
    if sink.state == "down":
        return "red", f"{sink.name} is down: {sink.error}"
    return "yellow", f"{sink.name} is {sink.state}"
