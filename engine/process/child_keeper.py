"""Keeps one child process alive: spawn, listen, notice its end, spawn again by budget.

A member is one task whose loop is its whole life. It knows nothing of what its child does; the
supervisor hands it a way to spawn, a way to handle messages and what must happen before a rebirth.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import msgspec

from engine.base.clock import monotonic_s
from engine.base.errors import ChildStartError, EngineError
from engine.base.tasks import cancel, first_of
from engine.messages.pipes import Drain, FromChild, Ready, ToChild
from engine.messages.status import ChildReport
from engine.process.child import Child, ChildEstate, describe_exit
from engine.process.restart_budget import RestartBudget

_log = logging.getLogger(__name__)

_LOOK_S = 0.02
_EXIT_AFTER_EOF_S = 2.0
"""A child that closed its pipe is on its way out; this long, then SIGKILL."""


async def _nothing() -> None:
    return


class KeeperEstate(msgspec.Struct):
    """What another program of this process must know to keep a child alive that is ready."""

    child: ChildEstate
    report: ChildReport
    ready_timeout_s: float | None


@dataclass(slots=True)
class ChildKeeper:
    """One child and its successors."""

    name: str
    spawn: Callable[[], Awaitable[Child]]
    on_message: Callable[[FromChild], None]
    on_death: Callable[[str], None] = lambda _: None
    before_rebirth: Callable[[], Awaitable[None]] = _nothing
    budget: RestartBudget = field(default_factory=RestartBudget)
    on_fault: Callable[[str, BaseException], None] = lambda *_: None
    """Told when this member itself has failed: nobody keeps the child alive any more."""
    hung_after_s: float | None = None
    """Silence after which the child counts as hung; None: never."""
    report: ChildReport = field(init=False)
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    exit_code: int | None = None
    _child: Child | None = None
    _heard_s: float = 0.0
    _was_ready: bool = False
    _ready_timeout_s: float | None = None
    _leaving: asyncio.Event = field(default_factory=asyncio.Event)
    _renewing: bool = False
    is_renewed: bool = False
    """Whether its child makes way for the next one: that it is away is no fault."""
    _task: "asyncio.Task[None] | None" = None

    def __post_init__(self) -> None:
        self.report = ChildReport(self.name)

    async def start(self, ready_timeout_s: float) -> None:
        """Spawn the first child and wait until it is ready, or raise ChildStartError."""
        self._ready_timeout_s = ready_timeout_s
        self._task = asyncio.create_task(self._live(), name=self.name)
        self._task.add_done_callback(self._ended)
        waited = self.ready.wait(), self._leaving.wait()
        await first_of(self._task, *waited, timeout_s=ready_timeout_s)
        if self._task.done():
            await self._task  # raises what ended it
        elif not (self._was_ready or self._leaving.is_set()):  # it may have died again already
            self.kill()
            raise ChildStartError(f"{self.name} was not ready within {ready_timeout_s:g} s")

    def estate(self) -> KeeperEstate:
        """What `adopt` takes. Raises EngineError while its child is none to be handed over: one
        that is not ready, or does not read what it is told.
        """
        child = self._child
        if child is None or not self.ready.is_set() or self._leaving.is_set():
            raise EngineError(f"{self.name} is {self.report.state}")
        if child.pipe.unsent_bytes:
            raise EngineError(f"{self.name} does not read what it is told")
        return KeeperEstate(child.estate(), self.report, self._ready_timeout_s)

    async def adopt(self, estate: KeeperEstate) -> None:
        """Go on with a child that another program of this process has started, without `start`.
        Nothing that it says is taken before `listen`.
        """
        self._child = await Child.adopt(estate.child)
        for name in estate.report.__struct_fields__:
            setattr(self.report, name, getattr(estate.report, name))
        self._ready_timeout_s = estate.ready_timeout_s
        self._was_ready = True
        self.ready.set()

    def listen(self) -> None:
        """Begin to look after the child that was adopted."""
        assert self._child is not None
        self._heard_s = monotonic_s()
        self._child.pipe.listen()
        self._task = asyncio.create_task(self._live(), name=self.name)
        self._task.add_done_callback(self._ended)

    def send(self, message: ToChild) -> None:
        """Hand a message to the child, if there is one."""
        if self._child is not None:
            self._child.pipe.send(message)

    @property
    def unsent_bytes(self) -> int:
        """What the child has not read yet, beyond what the kernel holds for it."""
        return self._child.pipe.unsent_bytes if self._child is not None else 0

    async def leave(self, drain_s: float, grace_s: float) -> int | None:
        """Drain the child and end this member; return the exit code of its last child.

        `drain_s` is what the child is told; `grace_s` more and it is killed. None: no child ran.
        """
        self._leaving.set()
        if self._task is None:
            return None
        had_child = self._child is not None
        self.send(Drain(drain_s))
        done, _ = await asyncio.wait({self._task}, timeout=drain_s + grace_s)
        if not done:
            _log.warning(f"{self.name} did not leave within {drain_s + grace_s:g} s: killed")
            self.kill()
            await asyncio.wait({self._task})
        return self.exit_code if had_child else None

    async def renew(self, farewell: ToChild, within_s: float, ready_timeout_s: float) -> None:
        """Have the child make way for its next life: it is told so, and killed after `within_s`.
        Raises ChildStartError when the next one is not ready in time; that is tried on.
        """
        child, self.is_renewed = self._child, True
        self._renewing = child is not None
        try:
            if child is not None:
                child.pipe.send(farewell)
                await child.end(within_s)
            async with asyncio.timeout(ready_timeout_s):
                while self._child is child or not self.ready.is_set():
                    await asyncio.sleep(_LOOK_S)
        except TimeoutError:
            raise ChildStartError(
                f"{self.name} was not ready again within {ready_timeout_s:g} s"
            ) from None
        finally:
            self.is_renewed = False

    def kill(self) -> None:
        """SIGKILL the child now."""
        self._leaving.set()
        if self._child is not None:
            self._child.kill()

    def check_hung(self, now_s: float) -> None:
        """Kill a child that has said nothing for too long, or is born again and never ready."""
        limit_s = self.hung_after_s if self.ready.is_set() else self._ready_timeout_s
        if limit_s is None or self._child is None or not self._was_ready:
            return
        silence_s = now_s - self._heard_s
        if silence_s > limit_s:
            _log.error(
                f"{self.name} (pid {self._child.pid}) is silent for {silence_s:.1f} s: killed",
                extra={"fields": {"child": self.name, "pid": self._child.pid}},
            )
            self._heard_s = now_s
            self._child.kill()

    def excuse(self, now_s: float) -> None:
        """Forget the silence so far: the supervisor itself was not there to listen."""
        self._heard_s = now_s

    async def _live(self) -> None:
        while not self._leaving.is_set():
            reason = await self._one_life()
            if self._leaving.is_set():
                return
            if not self._was_ready:
                self.report.state, self.report.reason = "ended", reason
                raise ChildStartError(f"{self.name} did not start: {reason}")
            is_death, self._renewing = not self._renewing, False
            delay_s = self.budget.died(monotonic_s()) if is_death else 0.0
            if not is_death:
                reason = "it makes way for its next life"
            self.report.state, self.report.reason = "restarting", reason
            if is_death:
                _log.error(
                    f"{self.name} ended: {reason}; starts again in {delay_s:g} s",
                    extra={"fields": {"child": self.name, "reason": reason, "delay_s": delay_s}},
                )
            else:
                _log.info(f"{self.name}: {reason}")
            self.on_death(reason)
            await self._unless_leaving(self.before_rebirth())
            await self._unless_leaving(asyncio.sleep(delay_s))
            self.report.restart_count += is_death

    async def _one_life(self) -> str:
        """Spawn, listen to the end, reap; return how it ended."""
        try:
            child = self._child or await self.spawn()
        except OSError as error:  # no process or descriptor to be had: try again by budget
            return f"cannot be started: {error.strerror}"
        self._child = child
        self._heard_s = monotonic_s()
        self.report.pid = child.pid
        if self._leaving.is_set():
            child.kill()
        try:
            while (message := await child.pipe.receive()) is not None:
                self._take(message)
        except EngineError as error:
            _log.error(f"{self.name} (pid {child.pid}): {error}: killed")
            child.kill()
        except Exception:  # noqa: BLE001 - whatever it is, a child nobody listens to must go
            _log.exception(f"{self.name} (pid {child.pid}) said what cannot be handled: killed")
            child.kill()
        self.exit_code = await child.end(_EXIT_AFTER_EOF_S)
        self._child = None
        self.ready.clear()
        self.report.pid = 0
        how = describe_exit(self.exit_code)
        if self._leaving.is_set():
            self.report.state, self.report.reason = "ended", how if self.exit_code else ""
        return how

    def _take(self, message: FromChild) -> None:
        self._heard_s = monotonic_s()
        if isinstance(message, Ready):
            _log.info(
                f"{self.name} is ready (pid {self.report.pid})",
                extra={"fields": {"child": self.name, "pid": self.report.pid}},
            )
            self.report.state, self.report.reason = "up", ""
            self.report.release = message.release
            self._was_ready = True
            self.ready.set()
        self.on_message(message)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        """A start that failed is for `start` to say; everything else must not pass unseen."""
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, ChildStartError):
            self.report.state, self.report.reason = "ended", f"its keeper failed: {error!r}"
            self.on_fault(self.name, error)

    async def _unless_leaving(self, work: Awaitable[None]) -> None:
        """Wait for `work`, but not beyond the order to leave."""
        task = asyncio.ensure_future(work)
        try:
            await first_of(task, self._leaving.wait())
            if task.done():
                task.result()
        finally:
            await cancel(task)
