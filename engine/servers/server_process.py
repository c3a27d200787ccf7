"""One server as a child process: account, death with its parent, log, orderly stop.

Invariants
- A server dies with the process that started it, even by SIGKILL: the kernel sends it
  `parent_death_signal` (Linux). That signal follows the *thread* that started the server, so
  servers are started by the main thread alone.
- A server is in a session of its own: Ctrl-C in a terminal reaches the engine, which stops its
  servers last, and not the servers themselves.
"""

import contextlib
import os
import pwd
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.base import signals
from engine.base.clock import monotonic_s
from engine.base.errors import ServerStartError
from engine.process.child import Process

_POLL_INTERVAL_S = 0.01
_LOG_BYTES_MAX = 8 << 20
_LOG_TAIL_LINES = 12

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ServerAccount:
    """An operating system account. `drops` is True when the engine is root and the server not."""

    name: str
    uid: int
    gid: int
    drops: bool

    @property
    def identity(self) -> dict[str, Any]:
        """What makes a `subprocess` run under it."""
        if not self.drops:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def own(self, path: Path, mode: int) -> None:
        """Make it the owner of a file or directory, alone."""
        if self.drops:
            os.chown(path, self.uid, self.gid)
        path.chmod(mode)


def current_account() -> ServerAccount:
    """The account this process runs under.

    Raises ServerStartError when the uid has no name, as in some containers: `initdb` needs one.
    """
    try:
        entry = pwd.getpwuid(os.geteuid())
    except KeyError:
        raise ServerStartError(
            f"user id {os.geteuid()} has no entry in /etc/passwd, which a private PostgreSQL "
            "needs; add one or set database_url"
        ) from None
    return ServerAccount(entry.pw_name, entry.pw_uid, entry.pw_gid, drops=False)


def unprivileged_account() -> ServerAccount:
    """The account a server that refuses root runs under: ours, or `postgres`, or `nobody`."""
    if os.geteuid() != 0:
        return current_account()
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return ServerAccount(name, entry.pw_uid, entry.pw_gid, drops=True)
    raise ServerStartError(
        "PostgreSQL refuses to run as root and there is no account 'postgres' or 'nobody' to run "
        "it under; start the engine as another user or set database_url"
    )


class ServerProcess:
    """A running server. Stop it with `stop`; its log file has what it said."""

    def __init__(self, process: Process, log: Path) -> None:
        self._process = process
        self._log = log

    @classmethod
    def spawn(
        cls,
        argv: Sequence[str],
        *,
        account: ServerAccount,
        log: Path,
        parent_death_signal: signal.Signals,
        environment: Mapping[str, str] | None = None,
    ) -> "ServerProcess":
        """Start `argv`, output appended to `log`. Raises ServerStartError if it cannot exec."""
        assert threading.current_thread() is threading.main_thread(), "pdeathsig follows the thread"
        _cut_long_log(log)
        with log.open("ab") as output:
            try:
                process = subprocess.Popen(  # noqa: S603  absolute path inside an installed wheel
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd="/",
                    env=dict(environment) if environment is not None else None,
                    start_new_session=True,
                    preexec_fn=signals.death_with_parent(parent_death_signal),  # noqa: PLW1509
                    **account.identity,
                )
            except OSError as error:
                raise ServerStartError(f"cannot start {argv[0]}: {error.strerror}") from error
        return cls(process, log)

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    @property
    def exit_code(self) -> int:
        """How it ended, negative for a signal; 0 while it runs."""
        return self._process.poll() or 0

    def cut_log(self) -> None:
        """A server that runs for months and complains every second must not fill the disk."""
        with contextlib.suppress(OSError):
            _cut_long_log(self._log)

    def wait_until(self, ready: Callable[[], bool], name: str, timeout_s: float) -> None:
        """Poll `ready`. Raises ServerStartError when the server ends or takes too long."""
        deadline = monotonic_s() + timeout_s
        while not ready():
            if not self.is_running:
                raise ServerStartError(
                    f"{name} ended at once with code {self.exit_code}: {self.log_tail()}"
                )
            if monotonic_s() > deadline:
                self.stop(signal.SIGKILL, 1.0)
                raise ServerStartError(
                    f"{name} was not ready after {timeout_s:.0f} s: {self.log_tail()}"
                )
            time.sleep(_POLL_INTERVAL_S)

    def stop(self, number: signal.Signals, timeout_s: float, harder: Sequence[int] = ()) -> None:
        """Send `number` and wait; then each of `harder`, and SIGKILL at last."""
        for each in (number, *harder, signal.SIGKILL):
            if not self.is_running:
                return
            self._process.send_signal(each)
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                continue

    def log_tail(self) -> str:
        """The last lines it wrote, for an error message."""
        try:
            lines = self._log.read_text(errors="replace").splitlines()
        except OSError:
            return "(no log)"
        return " | ".join(lines[-_LOG_TAIL_LINES:]) or f"(nothing in {self._log})"


def run_tool(argv: Sequence[str], account: ServerAccount, environment: Mapping[str, str]) -> str:
    """Run a short program under `account`; return its output. Raises ServerStartError."""
    try:
        result: subprocess.CompletedProcess[str] = subprocess.run(  # noqa: S603  absolute path inside an installed wheel
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=dict(environment),
            check=False,
            text=True,
            errors="replace",
            **account.identity,
        )
    except OSError as error:
        raise ServerStartError(f"cannot run {argv[0]}: {error.strerror}") from error
    if result.returncode != 0:
        raise ServerStartError(f"{Path(argv[0]).name} failed: {result.stdout.strip()[-2000:]}")
    return result.stdout


def processes_of(program: str, directory: Path) -> Iterator[int]:
    """Process ids that run `program` with `directory` as working directory. Nothing without /proc.

    A database server lives in its data directory, so this finds the survivors of a killed engine
    without trusting a pid file, whose number may belong to a stranger by now.
    """
    proc = Path("/proc")
    if not proc.is_dir():
        return
    for entry in proc.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if (entry / "cwd").readlink() != directory:
                continue
            name = (entry / "comm").read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            continue
        if name == program:
            yield int(entry.name)


def end_processes_of(
    program: str, directory: Path, steps: Sequence[tuple[signal.Signals, float]]
) -> None:
    """Send each signal to the servers that live in `directory`; wait so many seconds after each.

    Raises ServerStartError when one stays.
    """
    directory = directory.resolve()
    for number, timeout_s in steps:
        deadline = monotonic_s() + timeout_s
        for pid in processes_of(program, directory):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        while next(processes_of(program, directory), None) is not None:
            if monotonic_s() > deadline:
                break
            time.sleep(_POLL_INTERVAL_S)
        else:
            return
    raise ServerStartError(f"an old server still runs in {directory} and does not leave")


def _cut_long_log(log: Path) -> None:
    """Keep the end of a long log, in the file itself: a server that runs appends to it."""
    if not log.exists() or log.stat().st_size <= _LOG_BYTES_MAX:
        return
    with log.open("rb+") as file:
        file.seek(-_LOG_BYTES_MAX // 8, os.SEEK_END)
        end = file.read()
        file.seek(0)
        file.write(end)
        file.truncate()
