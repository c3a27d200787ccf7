"""`fts`: reads the command line, runs one command, turns errors into one line and an exit code."""

import argparse
import contextlib
import gc
import importlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from control.cli import first_process
from control.cli.terminal import standard_streams

standard_streams.prepare()  # before anything opens a file
first_process.split()
# numpy's linear algebra starts a thread a CPU, which spins for a while, and nobody here
# multiplies matrices. Children inherit it.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


@contextlib.contextmanager
def _importing() -> Iterator[None]:
    """What is imported lives for ever: the garbage collector, which would walk it again and again,
    waits until then.
    """
    gc.disable()
    try:
        with _ending_without_a_word():
            yield
    finally:
        gc.enable()


@contextlib.contextmanager
def _ending_without_a_word() -> Iterator[None]:
    """Imports take a while. Nothing has begun, so Ctrl-C ends the process without a word, where an
    exception would end in a traceback of whatever is being imported.
    """
    on_interrupt = signal.getsignal(signal.SIGINT)
    is_ours = threading.current_thread() is threading.main_thread()
    if not is_ours or on_interrupt is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, on_interrupt)


with _importing():
    from control.cli.commands.version import version_text
    from control.cli.exits import Exit
    from control.cli.remote.client import RefusedError, UnreachableError
    from engine.base.errors import ChildStartError, ConfigError, EngineError, InstanceBusyError
    from engine.base.wrong_input import nearest
    from engine.process.logs import escaped

COMMANDS = {
    "up": "control.cli.commands.up",
    "demo": "control.cli.commands.demo",
    "psql": "control.cli.stores.psql",
    "redis": "control.cli.stores.redis",
    "streams": "control.cli.remote.streams",
    "instruments": "control.cli.remote.instruments",
    "limiters": "control.cli.remote.limiters",
    "health": "control.cli.remote.health",
    "upgrade": "control.cli.remote.upgrade",
    "quarantine": "control.cli.stores.quarantine",
    "export": "control.cli.lake.commands",
    "verify": "control.cli.lake.commands",
    "import": "control.cli.lake.commands",
    "simulate": "control.cli.commands.simulate",
    "db": "control.cli.stores.db",
    "migrate": "control.cli.stores.migrate",
    "config": "control.cli.commands.config",
    "doctor": "control.cli.commands.doctor",
    "bench": "control.cli.commands.bench",
    "version": "control.cli.commands.version",
}
"""The module of each command. One that is named is imported alone: all of them take twice as long,
and `fts up` has no use for a simulator.
"""

_EPILOG = """\
start here:
  fts demo                     live ticks from a simulated venue into a private database and Redis
  fts doctor                   what is configured, what is reachable, what to do about it
  fts up                       the same engine against the real venues
  fts streams list             what a running engine collects

exit codes: 0 fine, 1 something is wrong or refused, 2 cannot run like this, 3 already running
(or, for commands that ask a running engine: none answers), 4 ended in order with something left
"""


class Parser(argparse.ArgumentParser):
    """One that says what may have been meant. The lines of an epilog stay as they are."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*arguments, **options)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            near = nearest(str(value), map(str, action.choices))
            hint = f"did you mean {near}?" if near else f"one of {', '.join(action.choices)}"
            raise argparse.ArgumentError(action, f"unknown: {value!r}; {hint}")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As ever, with a hint for an option that nobody knows."""
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            hints = [nearest(each.partition("=")[0], self._options()) for each in unknown]
            hint = "".join(f"; did you mean {each}?" for each in hints[:1] if each)
            self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
        return found

    def _options(self) -> set[str]:
        """Of this command and of those below it."""
        found = set(self._option_string_actions)
        for action in self._actions:
            if isinstance(action.choices, dict):
                for below in action.choices.values():
                    found |= below._options()
        return found


def parser(command: str = "") -> argparse.ArgumentParser:
    """The whole command line; of one command alone where that is named."""
    root = Parser(
        prog="fts",
        description="Tick-level market data into PostgreSQL and Redis; nothing is lost silently.",
        epilog=_EPILOG,
    )
    root.add_argument("--version", action="version", version=version_text())
    root.set_defaults(run=None)
    commands = root.add_subparsers(dest="command", metavar="COMMAND")
    modules = [COMMANDS[command]] if command in COMMANDS else dict.fromkeys(COMMANDS.values())
    for name in modules:
        with _importing():
            module = importlib.import_module(name)
        module.add_parser(commands)
    return root


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code."""
    options = argparse.Namespace()
    arguments = sys.argv[1:] if arguments is None else arguments

    def work() -> int:
        parser(*arguments[:1]).parse_args(arguments, options)
        return int(options.run(options)) if options.run else _help(options)

    return run_command(options, work)


def run_command(options: argparse.Namespace, work: Callable[[], int]) -> int:
    """Have `work` done; what it says is in the way is one line and an exit code."""
    try:
        code = work()
        standard_streams.flush()
        return code
    except InstanceBusyError as error:
        return _complain(error, Exit.BUSY)
    except UnreachableError as error:
        return _complain(error, Exit.UNREACHABLE)
    except RefusedError as error:
        if getattr(options, "json", False):
            standard_streams.say(json.dumps(error.body))
        # The engine calls a wrong request 400: that is how it was asked.
        return _complain(error, Exit.USAGE if error.status == 400 else Exit.FAILED)
    except (ConfigError, ChildStartError) as error:
        return _complain(error, Exit.USAGE)
    except EngineError as error:
        return _complain(error, Exit.FAILED)
    except KeyboardInterrupt:
        return Exit.FAILED
    except BrokenPipeError:
        standard_streams.give_up_stdout()
        return Exit.FAILED


def _help(options: argparse.Namespace) -> int:
    """What there is, for who names nothing of it."""
    chosen = [options.command] if options.command else []
    parser(*chosen).parse_args([*chosen, "--help"])
    return Exit.OK


def _complain(error: EngineError, code: Exit) -> int:
    line = " ".join(str(error).split())  # the database's client explains itself in several
    sys.stderr.write(f"fts: {escaped(line)}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
