"""A private server that is none: for who keeps servers alive."""

import math
import signal

from engine.base.errors import ServerStartError
from engine.servers.private_server import Launch, PrivateServer
from engine.servers.server_process import Progress


class ScriptedServer(PrivateServer):
    """Dies and refuses to start as it is told."""

    name = "postgres"
    exit_code = -signal.SIGKILL
    pid = 7

    def __init__(self, refusals: int = 0) -> None:
        self.alive = True
        self.refusals = refusals
        self.starts = 0

    def is_running(self) -> bool:
        return self.alive

    def prepare(self, progress: Progress = lambda _text: None) -> None:
        self.starts += 1

    def _prepare(self, progress: Progress) -> Launch:
        raise NotImplementedError

    def spawn(self) -> None:
        self.alive = True

    def cut_log(self) -> None:
        pass

    def wait_until_ready(self, timeout_s: float | None = None) -> None:
        assert timeout_s == math.inf, "a recovery that is ended begins once more"
        if self.starts <= self.refusals:
            self.alive = False
            raise ServerStartError("no room for its memory")
