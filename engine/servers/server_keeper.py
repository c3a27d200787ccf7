"""Keeps a private server alive: notices its end, starts it again by budget.

A server is no child of `engine.process.child_keeper`: it says nothing, and its start may take
minutes, while a PostgreSQL that was killed recovers from its log. Its first start is not done here
either, for that one fails the start of the engine. Whoever drains closes the keeper first: from
then on the server stays as it is.
"""

import asyncio
import logging
import math
from functools import partial

import msgspec

from engine.base.clock import monotonic_s
from engine.base.errors import EngineError, ServerStartError
from engine.base.tasks import cancel, in_thread
from engine.messages.status import ChildReport
from engine.process.child import describe_exit
from engine.process.restart_budget import RestartBudget
from engine.servers.private_server import PrivateServer, ServerEstate

_log = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.5
_CUT_EVERY_S = 60.0


class ServerKeeper:
    """One server and its successors."""

    def __init__(
        self, server: PrivateServer, budget: RestartBudget | None = None, restart_count: int = 0
    ) -> None:
        self._server = server
        self._budget = budget or RestartBudget()
        self._task: asyncio.Task[None] | None = None
        self.report = ChildReport(server.name, "up", server.pid or 0, restart_count)

    def estate(self) -> ServerEstate:
        """What another program of this process needs. Raises EngineError while it does not run."""
        if self.report.state != "up":
            raise EngineError(f"the {self._server.title} is {self.report.state}")
        estate = self._server.estate
        return msgspec.structs.replace(estate, restart_count=self.report.restart_count)

    def start(self) -> "asyncio.Task[None]":
        """Begin to look after it: the task to watch."""
        self._task = asyncio.create_task(self._keep(), name=self._server.name)
        return self._task

    async def close(self) -> None:
        """Let it be. One that is just starting goes on by itself."""
        await cancel(self._task)

    async def _keep(self) -> None:
        server, report, cut_due_s = self._server, self.report, 0.0
        while True:
            while server.is_running():
                await asyncio.sleep(_LOOK_EVERY_S)
                if monotonic_s() >= cut_due_s:
                    server.cut_log()
                    cut_due_s = monotonic_s() + _CUT_EVERY_S
            reason = describe_exit(server.exit_code)
            while reason:
                delay_s = self._budget.died(monotonic_s())
                report.state, report.reason, report.pid = "restarting", reason, 0
                _log.error(f"private {server.name} ended: {reason}; starts again in {delay_s:g} s")
                await asyncio.sleep(delay_s)
                reason = await self._start_again()

    async def _start_again(self) -> str:
        """Start it; return why that failed, or nothing."""
        server, report = self._server, self.report
        try:
            await in_thread(server.prepare, server.name)
            server.spawn()
            report.pid = server.pid or 0
            # However long it recovers: to end it would only make it begin once more.
            await in_thread(partial(server.wait_until_ready, math.inf), server.name)
        except (ServerStartError, OSError) as error:
            return str(error)
        report.state, report.reason = "up", ""
        report.restart_count += 1
        _log.info(f"private {server.name} serves again (pid {report.pid})")
        return ""
