"""`fts`: reads the command line, runs one command, turns errors into one line and an exit code."""

import argparse
import json
import signal
import sys
from collections.abc import Sequence

from control import standard_streams

standard_streams.prepare()  # before anything opens a file
# The imports below take half a second. Nothing has begun, so Ctrl-C ends it without a word, where
# an exception would end in a traceback of whatever is being imported.
_on_interrupt = signal.getsignal(signal.SIGINT)
if _on_interrupt is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from control.client import RefusedError, UnreachableError
from control.commands import (
    bench,
    db,
    demo,
    doctor,
    health,
    instruments,
    limiters,
    migrate,
    psql,
    quarantine,
    redis,
    simulate,
    streams,
    up,
    version,
)
from control.exits import Exit
from engine.errors import ConfigError, EngineError, InstanceBusyError
from engine.logs import escaped
from engine.member import ChildStartError

signal.signal(signal.SIGINT, _on_interrupt)

_COMMANDS = (
    up, demo, psql, redis, streams, instruments, limiters, health, quarantine, simulate, db,
    migrate, doctor, bench, version,
)  # fmt: skip

_EPILOG = """\
start here:
  fts demo                     live ticks from a simulated venue into a private database and Redis
  fts doctor                   what is configured, what is reachable, what to do about it
  fts up                       the same engine against the real venues
  fts streams list             what a running engine collects

exit codes: 0 fine, 1 something is wrong or refused, 2 cannot run like this, 3 already running
(or, for commands that ask a running engine: none answers), 4 ended in order with something left
"""


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    root = argparse.ArgumentParser(
        prog="fts",
        description="Tick-level market data into PostgreSQL and Redis; nothing is lost silently.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    root.add_argument("--version", action="version", version=version.version_text())
    commands = root.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for module in _COMMANDS:
        module.add_parser(commands)
    return root


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code."""
    options = argparse.Namespace()
    try:
        parser().parse_args(arguments, options)
        code = int(options.run(options))
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


def _complain(error: EngineError, code: Exit) -> int:
    line = " ".join(str(error).split())  # the database's client explains itself in several
    sys.stderr.write(f"fts: {escaped(line)}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
