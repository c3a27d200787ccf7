"""One database and its tasks, each at its time, in a thread of their own.

A session lives as long as there is something to do, and not longer than to the first error. What a
task could not do is tried again after a growing while; other tasks go on meanwhile.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import psycopg

from engine.base.backoff import Backoff
from engine.base.clock import monotonic_s, wall_ns
from engine.base.errors import DatabaseUnavailableError, EngineError
from engine.base.keep_trying import Trouble
from engine.database import locks
from engine.database.layout import read_layout
from engine.database.session import UPKEEP, DatabaseSession, session
from engine.database.words import unavailable
from engine.messages.upkeep import DatabaseReport, DatabaseUpkeep, TaskReport
from engine.upkeep.task import Place, StoppingError, Task

_log = logging.getLogger(__name__)

_RETRY_S: Final = (2.0, 300.0)
_CONNECT_AGAIN_S: Final = (0.5, 15.0)
_ELSEWHERE_S: Final = 5.0
"""Advisory lock: of all engines on a database, one looks after it at a time; and what a dead one
has left running at the server ends first."""
_CONSEQUENCE: Final = "rows are stored as before, and it is tried again"
_NO_OWNER: Final = (
    "only the tables' owner may: name its address in database.owner.url_file or"
    " FTS_DATABASE_OWNER_URL"
)
"""Of a right that is missing; none that could be granted would do."""
_S: Final = 1_000_000_000


class _Duty:
    """One task in one database."""

    def __init__(self, task: Task, trouble: Trouble) -> None:
        self.task = task
        self.trouble = trouble
        self.due_s = 0.0
        """Monotonic."""
        self.report = TaskReport(task.name)


class Care:
    """`run` belongs to its thread; the rest may be called from any other."""

    def __init__(
        self,
        settings: DatabaseUpkeep,
        tasks: Sequence[Callable[[], Task]],
        now_ns: Callable[[], int] = wall_ns,
    ) -> None:
        self._settings = settings
        self._now_ns = now_ns
        self._duties = [self._take_on(make()) for make in tasks]
        self._trouble = Trouble(
            f"upkeep of {settings.name}", _CONSEQUENCE, Backoff(*_CONNECT_AGAIN_S), _log
        )
        self._not_before_s = 0.0
        self._stopping = threading.Event()
        self._may_work = threading.Event()
        self._may_work.set()
        self.report = DatabaseReport(settings.name)

    def pause(self, paused: bool) -> None:
        """Let what takes long wait, or go on."""
        self.report.is_paused = paused
        if not paused:
            self._may_work.set()
        elif not self._stopping.is_set():
            self._may_work.clear()

    def stop(self) -> None:
        """Have `run` return as soon as it is between two pieces of work."""
        self._stopping.set()
        self._may_work.set()

    def run(self) -> None:
        """Look after the database until told to stop. Raises only what is a bug."""
        try:
            while True:
                due_s = min((duty.due_s for duty in self._duties), default=monotonic_s() + 3600)
                self._sleep(max(due_s, self._not_before_s) - monotonic_s())
                self._work()
        except StoppingError:
            return

    def _take_on(self, task: Task) -> _Duty:
        what = f"upkeep of {self._settings.name}: {task.name}"
        return _Duty(task, Trouble(what, _CONSEQUENCE, Backoff(*_RETRY_S), _log))

    def _sleep(self, seconds: float) -> None:
        if self._stopping.wait(max(seconds, 0.0)):
            raise StoppingError("the engine ends")

    def _wait_while_behind(self) -> None:
        self._may_work.wait()
        if self._stopping.is_set():
            raise StoppingError("the engine ends")

    def _work(self) -> None:
        """What is due, in one session."""
        try:
            with session(self._settings.url, UPKEEP) as opened:
                place = self._look(opened)
                ours = opened.execute("SELECT pg_try_advisory_lock(%s)", (locks.UPKEEP,)).fetchone()
                if not (ours and ours[0]):
                    self._not_before_s = monotonic_s() + _ELSEWHERE_S
                    return
                while (duty := self._due()) is not None and self._do(duty, place):
                    if self._stopping.is_set():
                        raise StoppingError("the engine ends")
        except (DatabaseUnavailableError, psycopg.Error) as error:
            text = str(unavailable(error, self._settings.url))
            self._not_before_s = monotonic_s() + self._trouble.met(text)
            self.report.failing_since_ns = self.report.failing_since_ns or self._now_ns()
            self.report.error = self._trouble.text

    def _look(self, opened: DatabaseSession) -> Place:
        seen = read_layout(opened)
        if seen.layout is None:
            raise DatabaseUnavailableError("its tables are missing: run `fts migrate`")
        self._trouble.over()
        self.report.layout = seen.layout
        self.report.error, self.report.failing_since_ns = "", 0
        return Place(
            opened, seen, self._settings, self.report, self._wait_while_behind, self._now_ns
        )

    def _due(self) -> _Duty | None:
        now_s = monotonic_s()
        return next((duty for duty in self._duties if duty.due_s <= now_s), None)

    def _do(self, duty: _Duty, place: Place) -> bool:
        """Run a task; False when its session is spent."""
        began_s = monotonic_s()
        try:
            did = duty.task.run(place)
        except StoppingError:
            raise
        except (psycopg.Error, EngineError, OSError) as error:
            is_servers = isinstance(error, psycopg.Error)
            no_owner = isinstance(error, psycopg.errors.InsufficientPrivilege)
            why = _NO_OWNER if no_owner else ""
            text = str(unavailable(error, self._settings.url, why) if is_servers else error)
            self._tell(duty, began_s, duty.trouble.met(text), error=duty.trouble.text)
            return False
        duty.trouble.over()
        if did and did != duty.report.did:
            _log.info(f"upkeep of {self._settings.name}: {duty.task.name}: {did}")
        self._tell(duty, began_s, duty.task.every_s, did=did)
        return True

    def _tell(
        self, duty: _Duty, began_s: float, again_in_s: float, *, did: str = "", error: str = ""
    ) -> None:
        """Note how it went, in a new report: the old one may be on its way."""
        now_s, now_ns, before = monotonic_s(), self._now_ns(), duty.report
        duty.due_s = now_s + again_in_s
        duty.report = msgspec.structs.replace(
            before,
            last_ns=now_ns,
            took_s=round(now_s - began_s, 3),
            next_ns=now_ns + int(again_in_s * _S),
            did=did or before.did,
            error=error,
            failing_since_ns=(before.failing_since_ns or now_ns) if error else 0,
            failure_count=before.failure_count + bool(error),
            done_ns=before.done_ns if error else now_ns,
        )
        self.report.tasks = [each.report for each in self._duties]
