"""The simulator as a process: start, say where, serve until told to stop, flush, exit."""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
from threading import Thread

import uvloop

from engine.base import handles, signals
from shards.simulator.server import Simulator
from shards.simulator.settings import SimulatorSettings, add_arguments, settings_from

__all__ = ["SimulatorSettings", "add_arguments", "main", "run", "settings_from"]

_STDIN = 0
_READ_BYTES = 4096


def run(settings: SimulatorSettings) -> None:
    """Run a simulator until SIGTERM or SIGINT."""
    handles.raise_limit()
    signals.ignore_what_is_not_meant()
    uvloop.run(_serve(settings))


def main(argv: list[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="fts simulate", description="Simulate venues.")
    add_arguments(parser)
    try:
        settings = settings_from(parser.parse_args(argv))
    except ValueError as error:
        parser.error(str(error))
    run(settings)
    return 0


async def _serve(settings: SimulatorSettings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if settings.exit_with_stdin:
        _stop_at_end_of_stdin(loop, stop)
    simulator = Simulator(settings)
    await simulator.start()
    with contextlib.suppress(BrokenPipeError):  # whoever started us was stopped meanwhile
        os.write(sys.stdout.fileno(), f"{json.dumps(simulator.listening())}\n".encode())
    stopping = asyncio.create_task(stop.wait())
    failing = asyncio.create_task(simulator.wait_failed())
    done, _ = await asyncio.wait((stopping, failing), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    failing.cancel()
    await simulator.close()
    if settings.limits_used is not None:
        settings.limits_used.write_text(json.dumps(simulator.limits(), indent=1))
    if failing in done:
        failing.result()


def _stop_at_end_of_stdin(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """Watch standard input from a thread: a file or /dev/null cannot be polled."""

    def watch() -> None:
        while os.read(_STDIN, _READ_BYTES):
            pass
        loop.call_soon_threadsafe(stop.set)

    Thread(target=watch, name="stdin", daemon=True).start()
